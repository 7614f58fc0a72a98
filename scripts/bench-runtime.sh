#!/bin/sh
# Measures runs beside those of others on this machine: benches/start.rs, burst.rs, sustained.rs,
# fairness.rs and density.rs; and, if it is named, half an hour without a break: soak.rs. As root; on a
# machine that does nothing else.
#
#   sh scripts/bench-runtime.sh [--quick] [BENCH...]
#
# Installs crun, runc, podman and bubblewrap (Debian, Ubuntu). Prints tables, and keeps them and a line
# of JSON a bench in the target directory. When all five have been run whole, their tables replace
# those between the markers of benches/README.md. --quick: few samples, to try the benches. What is
# started runs in a mount namespace and a /dev of its own, with all state in a temporary directory.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins: an edit during a run is harmless.
{
all='start burst sustained fairness density'
quick='' chosen=''
for word in "$@"; do
    case " $all soak " in
    *" $word "*) chosen="$chosen $word" ;;
    *) [ "$word" = --quick ] || die "no bench of that name: $word (there are $all soak)"
        quick=--quick ;;
    esac
done
is_root || die "run as root: sandboxes and containers are started"
need crun=crun runc=runc podman=podman bwrap=bubblewrap cc=build-essential
need_for_sandboxes
need_rust

target=$(target_dir)
name=bench-runtime${quick:+-quick}
tables="$target/$name.md" lines="$target/$name.jsonl"
work=$(mktemp -d)
chmod 755 "$work"
running=''

# Everything that a bench has started is in its process group.
finish() {
    if [ -n "$running" ] && kill -TERM "-$running" 2>/dev/null; then
        for _ in $(seq 450); do
            kill -0 "-$running" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "-$running" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say 'building'
# shellcheck disable=SC2086
cargo bench --quiet --no-run $(printf -- '--bench %s ' ${chosen:-$all})
FAREBOX_TEST_IMAGES=$(image_store)
export FAREBOX_TEST_IMAGES
FAREBOX_IMAGES__DIR="$FAREBOX_TEST_IMAGES" "$target/release/farebox" image list 2>/dev/null | grep -q '^python:' ||
    prepare_image "$target/release/farebox" "$FAREBOX_TEST_IMAGES" python ||
    die 'the image could not be built'

# one BENCH: its tables and its line of JSON, after at most three quarters of an hour.
one() {
    say "$1"
    TMPDIR="$work" timeout --kill-after=60 2700 \
        cargo bench --quiet --bench "$1" -- $quick >"$work/$1.out" &
    running=$!
    code=0
    wait "$running" || code=$?
    if kill -0 "-$running" 2>/dev/null; then
        die "$1 has left processes"
    fi
    running=''
    cat "$work/$1.out"
    grep '^{' "$work/$1.out" >>"$lines" || true
    { printf '\n**%s**\n' "$1" && grep -v '^{' "$work/$1.out" | cat -s; } >>"$tables"
    return "$code"
}

mkdir -p "$target"
: >"$lines"
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
printf '%s, %s CPUs (%s), load %s before.\n' "Kernel $(uname -r)" "$(nproc)" "$processor" \
    "$(cut -d ' ' -f 1 /proc/loadavg)" >"$tables"
failed=''
for bench in ${chosen:-$all}; do
    one "$bench" || failed="$failed $bench"
done
[ -z "$failed" ] || die "failed:$failed"
note "tables in $tables, JSON in $lines"

if [ -z "$quick$chosen" ]; then
    awk -v file="$tables" '
        /^<!-- bench-runtime: end -->/ { inside = 0 }
        !inside { print }
        /^<!-- bench-runtime: begin -->/ {
            inside = 1
            print ""
            while ((getline line < file) > 0) print line
        }' benches/README.md >"$work/README.md"
    cat "$work/README.md" >benches/README.md
    note 'tables written into benches/README.md'
fi
exit 0
}
