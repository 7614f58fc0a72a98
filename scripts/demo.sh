#!/bin/sh
# From a fresh machine to the first billed run: installs what is missing, builds, prepares the
# default image, runs real Python for two tenants through the API, prints output, bill and usage,
# verifies the ledger, stops. Debian or Ubuntu with Rust, as root; run it as often as you like.
#
#   sh scripts/demo.sh

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins: an edit during a run is harmless.
{
is_root || die 'run this as root: the launcher makes namespaces, cgroups and loop devices'
PATH="$PATH:/usr/sbin:/sbin"
export PATH

work=$(mktemp -d)
data=$work/data
server=''
finish() {
    code=$?
    trap - EXIT
    if [ -n "$server" ] && kill -TERM "$server" 2>/dev/null; then
        wait "$server" 2>/dev/null || true
    fi
    if [ "$code" != 0 ] && [ -s "$work/log" ]; then
        printf '%s\n' "${red}the server's last words:${plain}" >&2
        tail -n 15 "$work/log" >&2
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# The server will not be root, and must get through to its data directory.
chmod 755 "$work"

say '1 of 6  tools'
need cc=build-essential curl=curl jq=jq unshare=util-linux
need_for_sandboxes
need_rust
good 'all there'

say '2 of 6  build'
cargo build --quiet --package farebox --bin farebox
farebox="$(target_dir)/debug/farebox"
good "$("$farebox" --version)"

say '3 of 6  image'
store=$(image_store)
prepare_image "$farebox" "$store" python
FAREBOX_IMAGES__DIR=$store
export FAREBOX_IMAGES__DIR
good 'python'

say '4 of 6  server'
private_world "$farebox" serve --data-dir "$data" --listen 127.0.0.1:0 >"$work/log" 2>&1 &
server=$!
tries=0
until [ -s "$data/address" ]; do
    kill -0 "$server" 2>/dev/null || die 'the server ended before it was ready'
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || die 'the server was not ready within a minute'
    sleep 0.1
done
FAREBOX_URL="http://$(cat "$data/address")"
FAREBOX_TOKEN=$(cat "$data/admin.token")
export FAREBOX_URL FAREBOX_TOKEN
good "$FAREBOX_URL, not root: $(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/user \1/p' "/proc/$server/status")"

# api TOKEN METHOD PATH [BODY]: one request, the answer's body.
api() {
    if [ -n "${4:-}" ]; then
        curl -sS -X "$2" -H "Authorization: Bearer $1" -H 'Content-Type: application/json' \
            --data "$4" "$FAREBOX_URL$3"
    else
        curl -sS -X "$2" -H "Authorization: Bearer $1" "$FAREBOX_URL$3"
    fi
}

# run TENANT TOKEN NAME CODE: one execution; its record in $work/record.
run() {
    body=$(jq -n --arg code "$4" '{language: "python", code: $code}')
    api "$2" POST /v1/executions "$body" >"$work/record"
    jq -e .outcome "$work/record" >/dev/null || die "$1: $(cat "$work/record")"
    printf '   %s\n' "$1, $3: $(jq -r '"\(.outcome.kind) \(.outcome.code // ""), " +
        "cpu \(.usage.cpu_us) us, \(.charge.total) \(.charge.currency), entry \(.receipt.entry)"' \
        "$work/record")"
}

# expect FILTER VALUE: what a part of the record must be.
expect() {
    got=$(jq -r "$1" "$work/record")
    [ "$got" = "$2" ] || die "$1 is '$got', expected '$2': $(cat "$work/record")"
}

compute='import numpy
print(sum(int(n) for n in str(2**1000)))
print(int(numpy.arange(1000).sum()))'
files='with open("notes.txt", "w") as file:
    file.write("written in the sandbox\n" * 3)
print(len(open("notes.txt").read().splitlines()), "lines")'
fails='raise ValueError("this one fails, and is charged too")'

say '5 of 6  real Python for two tenants'
for tenant in acme globex; do
    FAREBOX_TOKEN=$FAREBOX_TOKEN "$farebox" tenant create "$tenant" >/dev/null
    made=$(api "$FAREBOX_TOKEN" POST "/v1/tenants/$tenant/tokens" \
        '{"name": "demo", "role": "developer", "expires_in_s": 600}')
    token=$(printf '%s' "$made" | jq -re .token) || die "no token: $made"
    run "$tenant" "$token" computes "$compute"
    expect .stdout "$(printf '1366\n499500')"
    expect .outcome.code 0
    run "$tenant" "$token" 'writes a file' "$files"
    expect .stdout '3 lines'
    run "$tenant" "$token" 'fails' "$fails"
    expect .outcome.kind exited
    expect .outcome.code 1
    expect '.stderr | test("ValueError: this one fails")' true
    # Globex runs one more, so that the two bills differ.
    [ "$tenant" = acme ] || run "$tenant" "$token" 'computes again' "$compute"
done
good 'every output is right'

say '6 of 6  usage, bill, proof'
"$farebox" usage --group-by tenant | sed 's/^/   /'
for tenant in acme globex; do
    api "$FAREBOX_TOKEN" GET "/v1/entries?tenant=$tenant&kind=settlement" >"$work/entries"
    printf '\n   %s\n' "${bold}bill of $tenant${plain}"
    # Amounts are whole numbers of 10^-12: added as such, never as fractions.
    jq -r '
        def pico: sub("\\."; "") | tonumber;
        def money: tostring | (if length < 13 then "0" * (13 - length) + . else . end)
            | .[:-12] + "." + .[-12:];
        [.items[].charge.lines[]] | group_by(.meter)
        | map({meter: .[0].meter, quantity: (map(.quantity | tonumber) | add),
               amount: (map(.amount | pico) | add)})
        | (.[] | "\(.meter)|\(.quantity)|\(.amount | money)"),
          "total||\(map(.amount) | add | money)"' "$work/entries" |
        while IFS='|' read -r meter quantity amount; do
            printf '   %-16s %18s  %18s USD\n' "$meter" "$quantity" "$amount"
        done
done
printf '\n'
kill -TERM "$server"
wait "$server" || die 'the server did not end well'
server=''
good 'server drained and stopped'
"$farebox" ledger verify --data-dir "$data" | sed 's/^/   /'
good 'the ledger verifies'
say 'done: two tenants, seven runs, each charged once'
exit 0
}
