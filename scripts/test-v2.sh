#!/bin/sh
# Runs the container tests on a pure cgroup v2 system: Debian's kernel under qemu (emulated, so it
# needs no KVM), with this tree's own binaries. For correctness, not for timing.
#
#   sh scripts/test-v2.sh           the short form: probe, doctor, one test of each kind
#   sh scripts/test-v2.sh --full    everything in tests/sandbox; whatever is missing is a failure
#   sh scripts/test-v2.sh --probe   boots and checks the kernel alone; builds nothing
#
# Exit code: 0 passed, or skipped (it says so: "skipped: ..."); 1 failed; 2 wrong usage.
# The kernel and busybox are unpacked to a cache (XDG_CACHE_HOME or ~/.cache), never installed.
# Everything else lives in one temporary folder that is gone at the end; no mount, loop device or
# root privilege is used on the host, but for apt-get where qemu is missing.
set -eu

form=short
case "${1-}" in
'') ;;
--full) form=full ;;
--probe) form=probe ;;
*)
    echo "usage: sh scripts/test-v2.sh [--full | --probe]" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null
repo=$(pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/farebox-v2
# Seconds that the guest's payload may take; the host allows 40 s more for boot and end.
case $form in full) timeout_s=5400 ;; *) timeout_s=280 ;; esac
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
    loop overlay"
wanted_config="USER_NS OVERLAY_FS EXT4_FS BLK_DEV_LOOP SECCOMP_FILTER CGROUP_PIDS MEMCG
    CGROUP_SCHED CGROUP_BPF CFS_BANDWIDTH TMPFS DEVTMPFS"

# The cache's name carries what is in it, so that a changed list is fetched anew.
guest=$cache/guest-$(echo "$modules" | cksum | cut -d' ' -f1)
work=
machine=
viewer=
cleanup() {
    status=$?
    trap - EXIT
    # A second signal must not cut this short.
    trap '' INT TERM HUP
    for process in $machine $viewer; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    [ -z "$work" ] || rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What this host cannot give is no fault of the tree, unless all was asked for.
lack() {
    [ "$form" != full ] || die "$*"
    echo "skipped: cgroup v2 tests: $*"
    exit 0
}
since() { echo $(($(date +%s) - $1)); }

apt() { # bounded: without a network apt would try for minutes
    DEBIAN_FRONTEND=noninteractive timeout 180 apt-get -q -o Acquire::Retries=1 \
        -o Acquire::http::Timeout=20 -o APT::Sandbox::User=root "$@"
}

need_qemu() {
    ! command -v qemu-system-x86_64 >/dev/null || return 0
    is_root || lack "no qemu-system-x86_64, and only root can install it"
    command -v apt-get >/dev/null || lack "no qemu-system-x86_64"
    note "installing qemu-system-x86"
    get() { apt install -y --no-install-recommends qemu-system-x86; }
    { get || { apt update && get; }; } >"$work/apt.log" 2>&1 || {
        tail -n 3 "$work/apt.log"
        lack "qemu-system-x86 cannot be installed"
    }
}

# Fetches the kernel and busybox once: guest/{vmlinuz,config,busybox,modules/*.ko}.
need_guest() {
    [ ! -f "$guest/vmlinuz" ] || return 0
    [ "$(uname -m)" = x86_64 ] || lack "only an x86_64 kernel is known here"
    for tool in apt-get apt-cache dpkg-deb; do
        command -v $tool >/dev/null || lack "no $tool to fetch a kernel with"
    done
    mkdir "$work/fetch"
    fetch >"$work/fetch.log" 2>&1 || {
        tail -n 3 "$work/fetch.log"
        lack "Debian's kernel cannot be fetched"
    }
    mkdir -p "$cache"
    # Another run may have been faster: a rename onto a full folder fails, and its copy is as good.
    mv -T "$work/guest" "$guest" 2>/dev/null || [ -f "$guest/vmlinuz" ] ||
        die "cannot write $cache"
}

fetch() {
    image=$(kernel_package)
    if [ -z "$image" ]; then
        apt update || return 1
        image=$(kernel_package)
    fi
    [ -n "$image" ] || return 1
    (cd "$work/fetch" && apt download "$image" busybox-static) || {
        # The lists may be older than the archive.
        apt update && image=$(kernel_package) &&
            (cd "$work/fetch" && apt download "$image" busybox-static)
    } || return 1
    for deb in "$work"/fetch/*.deb; do dpkg-deb -x "$deb" "$work/fetch/root" || return 1; done
    mkdir -p "$work/guest/modules" || return 1
    cp "$work/fetch/root/bin/busybox" "$work/guest/busybox" &&
        cp "$work"/fetch/root/boot/config-* "$work/guest/config" &&
        : >"$work/guest/modules/order" || return 1
    for module in $modules; do
        file=$(find "$work/fetch/root/lib/modules" -name "$module.ko")
        # What is not a module is built in; the probe finds out if not.
        [ -n "$file" ] || continue
        cp "$file" "$work/guest/modules/" || return 1
        echo "$module" >>"$work/guest/modules/order"
    done
    cp "$work"/fetch/root/boot/vmlinuz-* "$work/guest/vmlinuz" && rm -rf "$work/fetch"
}

kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        awk '/Depends: linux-image-/ { print $2; exit }'
}

check_config() {
    for name in $wanted_config; do
        grep -q "^CONFIG_$name=[ym]$" "$guest/config" || die "the kernel lacks CONFIG_$name"
    done
}

# put FILE [PLACE]: a file into the guest's root, at its own path unless told, with its libraries.
put() {
    place=$tree${2:-$1}
    mkdir -p "$(dirname "$place")"
    cp -L "$1" "$place"
    # Symbols are four fifths of a test binary, and the launcher copies its own at each start.
    [ ! -x "$1" ] || ! command -v strip >/dev/null || strip "$place" 2>/dev/null || true
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [ ! -e "$tree$library" ] || continue
        mkdir -p "$tree$(dirname "$library")"
        cp -L "$library" "$tree$library"
    done
}

stage_root() {
    tree=$work/tree
    for folder in bin sbin dev proc sys/fs/cgroup tmp run root etc payload usr/bin usr/sbin mnt; do
        mkdir -p "$tree/$folder"
    done
    cp "$guest/busybox" "$tree/bin/busybox"
    for applet in $("$guest/busybox" --list); do
        case $applet in busybox | mke2fs) continue ;; esac
        ln -s busybox "$tree/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    echo 'root:x:0:' >"$tree/etc/group"
    echo '127.0.0.1 localhost' >"$tree/etc/hosts"
    put "$mkfs" /sbin/mkfs.ext4
    cp tests/v2/init.sh "$tree/sbin/init"
    cp tests/v2/probe.sh "$tree/payload/probe.sh"
    chmod 755 "$tree/sbin/init"
    echo "GUEST_TIMEOUT_S=$timeout_s" >"$tree/payload/settings"
}

stage_initramfs() {
    mkdir -p "$work/early/bin" "$work/early/modules"
    cp "$guest/busybox" "$work/early/bin/"
    cp "$guest"/modules/* "$work/early/modules/"
    cp tests/v2/initramfs.sh "$work/early/init"
    chmod 755 "$work/early/init"
    (cd "$work/early" && find . | "$guest/busybox" cpio -o -H newc) >"$work/initramfs" 2>/dev/null
}

# Without erms the kernel clears a page by words instead of bytes: ten times faster when emulated.
# The machine ends with this script, whatever ends the script: each process asks the kernel to be
# killed with its parent, and a deadline stands over all.
boot() {
    setpriv --pdeathsig KILL timeout -k 5 $((timeout_s + 40)) setpriv --pdeathsig KILL \
        qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max,-erms -smp 2 -m 2048 \
        -nodefaults -no-user-config -no-reboot -display none -monitor none \
        -kernel "$guest/vmlinuz" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet loglevel=4 panic=-1 cgroup_no_v1=all mitigations=off" \
        -drive "file=$work/root.img,format=raw,if=none,id=root,cache=unsafe" \
        -device virtio-blk-pci,drive=root \
        -serial "file:$work/console" -serial "file:$work/output" -serial "file:$work/verdict" \
        </dev/null >"$work/qemu.log" 2>&1 &
    machine=$!
    # Shown as it comes, so that a run that is cut short has told what it did.
    : >"$work/output"
    tail -f --pid="$machine" -s 0.2 -c +1 "$work/output" &
    viewer=$!
    status=0
    wait "$machine" || status=$?
    machine=
    wait "$viewer" || true
    viewer=
    verdict=$(tr -d '\r\n' <"$work/verdict" 2>/dev/null || true)
}

judge() {
    case "$verdict" in
    "exit 0")
        good "cgroup v2 ($form), $(since "$began") s in all, $(since "$booted") s in the machine"
        ;;
    exit\ *) die "the tests in the machine ended with ${verdict#exit }" ;;
    timeout) die "the tests in the machine took more than $timeout_s s" ;;
    *)
        note "the machine's console:"
        tail -n 40 "$work/console" "$work/qemu.log" 2>/dev/null || true
        die "the machine ended without a verdict (qemu: $status, '$verdict')"
        ;;
    esac
}

# Builds what the tests need and notes where nextest finds it in the machine: at the same paths.
build() {
    need_rust
    command -v jq >/dev/null || lack "no jq"
    runner=$(command -v cargo-nextest) || lack "no cargo-nextest"
    compile >"$work/build.log" 2>&1 || {
        tail -n 40 "$work/build.log"
        die "the tests do not build"
    }
}

compile() {
    cargo build --package farebox --bin farebox --quiet || return 1
    targets=
    for test in $tests; do targets="$targets --test $test"; done
    # shellcheck disable=SC2086
    cargo nextest list --config-file tests/v2/nextest.toml --workspace $targets \
        --list-type binaries-only --message-format json >"$work/binaries.json" || return 1
    platform=$(rustc -vV | sed -n "s/^host: //p")
    cargo metadata --format-version 1 --all-features --offline --locked \
        --filter-platform "$platform" >"$work/cargo.json"
}

stage_tests() {
    put "$(target_dir)/debug/farebox"
    ln -s "$(target_dir)/debug/farebox" "$tree/usr/bin/farebox"
    put "$runner" /usr/bin/cargo-nextest
    # busybox's own cannot do all that the tests ask of it.
    put "$(command -v unshare)" /usr/bin/unshare
    jq -r '."rust-binaries"[]."binary-path"' "$work/binaries.json" >"$work/binaries"
    while IFS= read -r binary; do put "$binary"; done <"$work/binaries"
    mkdir -p "$tree$repo"
    for part in Cargo.toml Cargo.lock config rootfs tests runtime; do
        [ ! -e "$part" ] || cp -r "$part" "$tree$repo/"
    done
    cp "$work/binaries.json" "$work/cargo.json" "$tree/payload/"
    cp tests/v2/run.sh "$tree/payload/"
    {
        echo "REPO='$repo'"
        echo "PROFILE=$profile"
    } >>"$tree/payload/settings"
}

digest_of() {
    jq -r --arg name "$1:latest" '.[$name] // ""' "$store/names.json" 2>/dev/null || true
}

# The images that the tests take their root file systems from, into the guest's store.
stage_images() {
    store=${FAREBOX_TEST_IMAGES:-$(image_store)}
    mkdir -p "$tree/images/sha256"
    for image in $images; do
        digest=$(digest_of "$image")
        if [ -z "$digest" ]; then
            is_root || lack "no image $image in $store, and only root can build it"
            prepare_image "$(target_dir)/debug/farebox" "$store" "$image"
            digest=$(digest_of "$image")
        fi
        # A link costs nothing where the temporary folder is on the same disk.
        cp -al "$store/sha256/${digest#sha256:}" "$tree/images/sha256/" 2>/dev/null ||
            cp -a "$store/sha256/${digest#sha256:}" "$tree/images/sha256/"
    done
    cp "$store/names.json" "$tree/images/"
}

# What is run, and which images that needs; which of their tests says tests/v2/nextest.toml.
tests='launcher sandbox'
images=python profile=short
[ "$form" != full ] || images='python node' profile=default

say "cgroup v2 ($form)"
began=$(date +%s)
work=$(mktemp -d "${TMPDIR:-/tmp}/farebox-v2.XXXXXX")
mkfs=$(PATH=$PATH:/usr/sbin:/sbin command -v mkfs.ext4) || lack "no mkfs.ext4"
need_qemu
need_guest
check_config
stage_root
if [ "$form" = probe ]; then
    echo 'exec sh /payload/probe.sh' >"$tree/payload/run"
else
    build
    stage_tests
    stage_images
    echo '. /payload/settings && . /payload/run.sh' >"$tree/payload/run"
fi
stage_initramfs
truncate -s 4G "$work/root.img"
"$mkfs" -q -F -m 0 -E lazy_itable_init=1,nodiscard,root_owner=0:0 -d "$tree" "$work/root.img"
booted=$(date +%s)
boot
judge
