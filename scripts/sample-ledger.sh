#!/bin/sh
# Makes a small ledger of real runs, and every export of it, for the checks beside this script.
#
#   sh scripts/sample-ledger.sh DIR
#
# DIR gets charges.csv, charges.jsonl, charges.parquet, focus.csv, focus.parquet, charges.beancount
# and charges.journal as the server exports them, statements.json (the totals of /v1/statements by
# tenant and month) and as_of. What the stopped server's journal gives offline must be the same. As
# root: the runs are real ones. DIR/closed gets the same, but as_of, of a ledger without real runs
# whose last month was closed, and corrected afterwards.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins: an edit during a run is harmless.
{
[ "$#" = 1 ] || die 'usage: sh scripts/sample-ledger.sh DIR'
is_root || die 'run this as root: the launcher makes namespaces, cgroups and loop devices'
PATH="$PATH:/usr/sbin:/sbin"
export PATH
mkdir -p "$1"
out=$(cd "$1" && pwd)

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

need cc=build-essential curl=curl jq=jq unshare=util-linux
need_for_sandboxes
need_rust
cargo build --quiet --package farebox --bin farebox --features parquet
farebox="$(target_dir)/debug/farebox"
store=$(image_store)
prepare_image "$farebox" "$store" python
FAREBOX_IMAGES__DIR=$store
export FAREBOX_IMAGES__DIR

private_world "$farebox" serve --data-dir "$data" --listen 127.0.0.1:0 >"$work/log" 2>&1 &
server=$!
tries=0
until [ -s "$data/address" ]; do
    kill -0 "$server" 2>/dev/null || die 'the server ended before it was ready'
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || die 'the server was not ready within a minute'
    sleep 0.1
done
url="http://$(cat "$data/address")"
admin=$(cat "$data/admin.token")

# post TOKEN PATH BODY: one request, the answer's body.
post() {
    curl -fsS -H "Authorization: Bearer $1" -H 'Content-Type: application/json' --data "$3" "$url$2"
}

# One tenant has a card of its own, with a package, tiers and an allowance, and credit that pays for
# a part of it. Cards are for dates to come.
soon=$(date -u -d '+3 seconds' +%Y-%m-%dT%H:%M:%SZ)
post "$admin" /v1/rates '{"id": "deal", "currency": "USD", "effective_from": "'"$soon"'", "price": [
    {"meter": "executions", "model": "package", "size": "2", "amount": "0.01"},
    {"meter": "cpu_us", "model": "graduated", "included": "50000", "increment": 1000,
     "tiers": [{"up_to": "200000", "amount": "0.200001"}, {"amount": "0.100001"}]},
    {"meter": "memory_byte_ms", "model": "unit", "amount": "0.000004"}]}' >/dev/null
sleep 4
# Names and tags that other formats may stumble over.
for tenant in acme 1-2-3; do
    post "$admin" /v1/tenants "{\"name\": \"$tenant\"}" >/dev/null
    if [ "$tenant" = acme ]; then
        curl -fsS -X PUT -H "Authorization: Bearer $admin" -H 'Content-Type: application/json' \
            --data '{"rate_card": "deal"}' "$url/v1/tenants/acme/terms" >/dev/null
        for grant in '"trial", "amount": "0.0200005"' '"welcome", "amount": "0.02"'; do
            post "$admin" /v1/grants "{\"tenant\": \"acme\", \"currency\": \"USD\", \"name\": $grant}" >/dev/null
        done
    fi
    made=$(post "$admin" "/v1/tenants/$tenant/tokens" \
        '{"name": "sample", "role": "developer", "expires_in_s": 600}')
    token=$(printf '%s' "$made" | jq -re .token)
    for project in default web_1 7.5; do
        for code in 'print(6*7)' 'print(sum(range(10**6)))' 'raise ValueError()'; do
            body=$(jq -n --arg code "$code" --arg project "$project" '{language: "python",
                code: $code, project: $project,
                tags: {cost_center: "42", note: "=1+1, \"quoted\" \\ and, more"}}')
            ran=$(post "$token" /v1/executions "$body")
            # The first of them all is taken back further down.
            : "${entry:=$(printf '%s' "$ran" | jq -re .receipt.entry)}"
        done
    done
done

# One run is taken back, and a credit given: proposed by one person, approved by another.
finance=$("$farebox" token create --data-dir "$data" --role finance --subject finance)
adjust() {
    made=$(post "$admin" /v1/adjustments "$1")
    post "$finance" "/v1/adjustments/$(printf '%s' "$made" | jq -re .id)/approve" '{}' >/dev/null
}
adjust "{\"tenant\": \"acme\", \"reverses\": $entry, \"reason\": \"our fault\"}"
adjust '{"tenant": "1-2-3", "amount": "-0.5", "description": "=goodwill; \"a|b\"", "reason": "-"}'

formats='csv jsonl parquet focus focus-parquet beancount hledger'
for format in $formats; do
    curl -fsS -D "$work/head" -o "$work/$format" -H "Authorization: Bearer $admin" \
        "$url/v1/exports/$format"
done
sed -n 's/^farebox-as-of: *\([0-9]*\).*/\1/Ip' "$work/head" >"$out/as_of"
get() {
    curl -fsS -H "Authorization: Bearer $admin" "$url$1"
}
for period in $(get /v1/periods | jq -re '.items[].period'); do
    for tenant in acme 1-2-3; do
        get "/v1/statements?tenant=$tenant&period=$period"
    done
done | jq -s '{items: map({tenant, period, total})}' >"$out/statements.json"
kill -TERM "$server"
wait "$server" || die 'the server did not end well'
server=''

for format in $formats; do
    "$farebox" ledger export --data-dir "$data" --format "$format" -o "$work/offline" 2>/dev/null
    cmp "$work/$format" "$work/offline" ||
        die "$format: the stopped server's journal gives something else"
done
cp "$work/csv" "$out/charges.csv"
cp "$work/jsonl" "$out/charges.jsonl"
cp "$work/parquet" "$out/charges.parquet"
cp "$work/focus" "$out/focus.csv"
cp "$work/focus-parquet" "$out/focus.parquet"
cp "$work/beancount" "$out/charges.beancount"
cp "$work/hledger" "$out/charges.journal"
FAREBOX_SAMPLE_DIR="$out/closed"
export FAREBOX_SAMPLE_DIR
cargo test --quiet --package farebox --features parquet --test http -- \
    every_export_adds_up_to_the_statements >"$work/log" 2>&1
[ -s "$out/closed/statements.json" ] || die 'the sample of a closed month was not made'
good "18 runs of two tenants and two adjustments, exported to $out; offline exports are the same"
exit 0
}
