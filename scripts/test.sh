#!/bin/sh
# Runs every test that this machine can run, and says aloud which it could not.
#
#   sh scripts/test.sh           long tests in their short form
#   sh scripts/test.sh --full    long tests whole (500 kill rounds and so on: tests/README.md)
#
# Installs what is missing (Debian, Ubuntu; as root). Images are built once into
# ${FAREBOX_IMAGE_CACHE:-/var/cache/farebox/images}. Leaves no process, cgroup or mount behind.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins: an edit during a run is harmless.
{
full=0
case "${1:-}" in
'') ;;
--full) full=1 ;;
*) die "unknown argument $1; usage: sh scripts/test.sh [--full]" ;;
esac
# For every step: the ledger's kill rounds and model tests are no container tests.
if [ "$full" = 1 ]; then
    FAREBOX_TEST_FULL=1
    export FAREBOX_TEST_FULL
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
passed=0 failed=0 skipped=0
: >"$work/faults"
: >"$work/skips"

# step NAME COMMAND...: runs it, goes on when it fails, remembers.
step() {
    name=$1
    shift
    say "$name"
    if "$@"; then
        good "$name"
    else
        printf '%s\n' "$name" >>"$work/faults"
        printf '   %s\n' "${red}failed${plain}  $name"
    fi
}

# count LOG: adds what nextest says at its end to the totals.
count() {
    line=$(sed 's/\x1b\[[0-9;]*m//g' "$1" | grep -E 'Summary .* tests? run:' | tail -n 1)
    got() { printf '%s\n' "$line" | sed -n "s/.*[ (]\([0-9][0-9]*\) $1.*/\1/p" | head -n 1; }
    p=$(got passed) f=$(got failed) t=$(got 'timed out')
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0} + ${t:-0}))
}

# nextest ARGUMENT...: of everything, with its closing line counted.
nextest() { counted --workspace "$@"; }

# nextest_of PACKAGE ARGUMENT...: of one package.
nextest_of() { counted --package "$@"; }

counted() {
    code=0
    { cargo nextest run --no-fail-fast "$@" 2>&1 || echo $? >"$work/code"; } |
        tee "$work/log"
    [ ! -f "$work/code" ] || code=$(cat "$work/code")
    rm -f "$work/code"
    count "$work/log"
    return "$code"
}

containers='binary(sandbox) | binary(service) | (package(farebox) & binary(crash)) | binary(launcher)'

contained() {
    FAREBOX_TEST_SKIPS="$work/skips"
    FAREBOX_TEST_IMAGES=$1
    export FAREBOX_TEST_SKIPS FAREBOX_TEST_IMAGES
    before=$((passed + failed))
    code=0
    nextest -E "$containers" || code=$?
    ran=$((passed + failed - before))
    skipped=$(sort -u "$work/skips" | grep -c . || true)
    passed=$((passed - skipped))
    if [ "$ran" -gt 0 ] && [ "$skipped" -ge "$ran" ]; then
        note "all $ran container tests skipped themselves:"
        sort -u "$work/skips" | sed 's/^/     /'
        # On a machine of CI that would hide everything that matters.
        [ "${CI:-}" != true ] || code=1
    fi
    return "$code"
}

# Whether this kernel still loads system call filters. One of version 6.18 whose tenants, or whose
# tests, have freed thousands of them at once never does again until it is restarted: whoever asks for
# one hangs, and cannot be ended. So the asking is left to a process that nobody waits for, and it is
# no program of ours.
loads_filters() {
    case "$(uname -m)" in
    x86_64) prctl=157 ;;
    aarch64) prctl=167 ;;
    *) return 0 ;;
    esac
    # shellcheck disable=SC2016 # the dollars are Perl's
    ask='my $filter = pack("SCCL", 6, 0, 0, 0x7fff0000); my $program = pack("Sx6P", 1, $filter);
        syscall('$prctl', 38, 1, 0, 0, 0); syscall('$prctl', 22, 2, $program, 0, 0)'
    # Whatever becomes of Perl: a machine without it is not one whose kernel is stuck.
    { perl -e "$ask" || true; : >"$work/filters"; } </dev/null >/dev/null 2>&1 &
    for _ in $(seq 300); do
        [ ! -e "$work/filters" ] || return 0
        sleep 0.1
    done
    return 1
}

# says SCRIPT [ARGUMENT...]: a script that says itself where it cannot run.
says() {
    code=0
    { sh "$@" 2>&1 || echo $? >"$work/code"; } | tee "$work/log"
    [ ! -f "$work/code" ] || code=$(cat "$work/code")
    rm -f "$work/code"
    if grep -q '^skipped: ' "$work/log"; then
        sed -n "s/^skipped: /$about/p" "$work/log" >>"$work/skips"
        skipped=$((skipped + 1))
    fi
    return "$code"
}

# The same code on a pure cgroup v2 system.
v2() {
    form=''
    [ "$full" = 0 ] || form=--full
    about='cgroup v2: '
    says scripts/test-v2.sh $form
}

# What others make of the exports of a small real ledger.
exports() {
    about=''
    sh scripts/sample-ledger.sh "$work/sample" || return 1
    code_of_both=0
    says scripts/check-books.sh "$work/sample" || code_of_both=$?
    says scripts/check-focus.sh "$work/sample" || code_of_both=$?
    return "$code_of_both"
}

docs() { RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet; }

say 'tools'
need cc=build-essential curl=curl jq=jq unshare=util-linux
need_rust
if is_root; then
    PATH="$PATH:/usr/sbin:/sbin"
    export PATH
    need busybox=busybox-static losetup=mount
    need_for_sandboxes
fi
if ! cargo nextest --version >/dev/null 2>&1; then
    note 'installing cargo-nextest (once; some minutes)'
    cargo install --locked --quiet cargo-nextest ||
        die 'cargo install --locked cargo-nextest failed; install it by hand and run this again'
fi
good 'tools'

step 'format' cargo fmt --all --check
step 'clippy' cargo clippy --workspace --all-targets --quiet -- -D warnings

stuck=0
apart="$containers"
if ! loads_filters; then
    stuck=1
    apart="$apart | test(the_kernel_takes_the_program_and_keeps_to_it)"
    stuck_why='this kernel loads no system call filter any more; restart the machine'
    note "SKIPPED: everything that starts a sandbox on this kernel: $stuck_why"
    printf '%s\n' "sandbox and crash tests: $stuck_why" >>"$work/skips"
    skipped=$((skipped + 1))
fi

step 'unit, model, http and tidy tests' nextest -E "not ($apart)"
# The default build has no Parquet; about a minute more.
step 'exports as Parquet' nextest_of api --features parquet -E 'test(export::)'

if is_root; then
    farebox="$(target_dir)/debug/farebox"
    store=$(image_store)
    images() {
        cargo build --workspace --tests --quiet &&
            prepare_image "$farebox" "$store" python && prepare_image "$farebox" "$store" node
    }
    step 'images' images
    if [ "$stuck" = 0 ]; then
        step 'sandbox and crash tests' contained "$store"
        step 'proofs, verified with other tools' sh scripts/check-proof.sh
        if [ "$full" = 1 ]; then
            step 'exports, as other programs read them' exports
        else
            note 'exports are checked with other programs (600 MB of packages) with --full only'
        fi
    fi
else
    say 'sandbox and crash tests'
    note 'SKIPPED: they start real containers, which needs root'
    skipped=$((skipped + 1))
    [ "${CI:-}" != true ] || printf '%s\n' 'sandbox and crash tests (no root)' >>"$work/faults"
fi

step 'cgroup v2, in an emulated machine' v2
# Sandboxes that run nowhere would hide everything that matters.
if [ "$stuck" = 1 ] && [ "${CI:-}" = true ] && grep -q '^cgroup v2: ' "$work/skips"; then
    printf '%s\n' 'sandboxes ran neither here nor in the emulated machine' >>"$work/faults"
fi
step 'documentation' docs

say 'summary'
if [ -s "$work/skips" ]; then
    note 'skipped, and why:'
    sort -u "$work/skips" | sed 's/^/     /'
fi
[ "$full" = 1 ] || note 'long tests ran in their short form; all of them: sh scripts/test.sh --full'
if [ -s "$work/faults" ]; then
    while IFS= read -r fault; do note "${red}failed${plain}  $fault"; done <"$work/faults"
fi
printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ ! -s "$work/faults" ] || exit 1
exit 0
}
