# What the machine runs: the kernel's probe, the host check, the container tests.
# Sourced by /payload/run with REPO and PROFILE set; the exit code is 0 when all of it passed.
faults=0
step() { # step NAME COMMAND...
    told=$1
    shift
    began=$(cut -d. -f1 /proc/uptime)
    echo "== $told"
    if "$@"; then verdict=ok; else
        verdict="FAILED (exit code $?)"
        faults=$((faults + 1))
    fi
    echo "   $told: $verdict, $(($(cut -d. -f1 /proc/uptime) - began)) s"
}
left() { # groups and loop devices that the tests left
    ! find /sys/fs/cgroup -mindepth 1 -type d | grep -v '^/sys/fs/cgroup/system.slice' &&
        ! losetup -a | grep . &&
        [ "$(stat -c '%F %t,%T %a' /dev/null)" = 'character special file 1,3 666' ]
}
host() { # nothing that sandboxes cannot run without
    farebox doctor >/run/doctor
    cat /run/doctor
    grep -q '^ok  *cgroups  *v2' /run/doctor || return
    ! grep '^fault' /run/doctor
}
tests() {
    cd "$REPO" || return
    FAREBOX_TEST_IMAGES=/images FAREBOX_TEST_SKIPS=/run/skips
    export FAREBOX_TEST_IMAGES FAREBOX_TEST_SKIPS
    : >/run/skips
    cargo-nextest nextest run --config-file tests/v2/nextest.toml \
        --binaries-metadata /payload/binaries.json --cargo-metadata /payload/cargo.json \
        --color never --profile "$PROFILE" || return
    # A test that skips itself here has found a fault of this machine.
    ! grep . /run/skips
}
step "kernel" sh /payload/probe.sh
step "farebox doctor" host
step "container tests" tests
step "nothing left" left
exit "$faults"
