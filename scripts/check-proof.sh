#!/bin/sh
# Verifies a server's token, checkpoints, inclusion and consistency proofs with tools that share
# nothing with Farebox: Python with PyJWT and cryptography, and curl.
#
#   FAREBOX_URL=... FAREBOX_TOKEN=... sh scripts/check-proof.sh    of a running server (an operator's token)
#   sh scripts/check-proof.sh                                      of one that it starts itself (as root)
#
# The Python packages go into a venv below target/. Takes seconds, but for their first installation.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins.
{
[ $# -eq 0 ] || die "usage: [FAREBOX_URL=... FAREBOX_TOKEN=...] sh scripts/check-proof.sh"
work=$(mktemp -d)
server=''
clean() {
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" || true
    fi
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

need curl=curl jq=jq python3=python3
venv="$(target_dir)/check-proof"
if ! "$venv/bin/python" -c 'import jwt, cryptography' 2>/dev/null; then
    python3 -c 'import ensurepip' 2>/dev/null || need /usr/bin/python3-venv-is-missing=python3-venv
    note 'installing PyJWT and cryptography (once)'
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'PyJWT>=2.8' 'cryptography>=42' ||
        die "pip could not install PyJWT and cryptography into $venv"
fi

if [ -z "${FAREBOX_URL:-}" ]; then
    is_root || die 'give FAREBOX_URL and FAREBOX_TOKEN, or run as root, so that a server can be started'
    need_rust
    farebox="$(target_dir)/debug/farebox"
    cargo build --quiet --bin farebox
    data="$work/data"
    # Whose user must reach the data.
    chmod 711 "$work"
    PATH="$PATH:/usr/sbin:/sbin"
    private_world "$farebox" serve --data-dir "$data" --listen 127.0.0.1:0 >"$work/log" 2>&1 &
    server=$!
    tries=0
    until [ -s "$data/address" ]; do
        kill -0 "$server" 2>/dev/null || { tail -n 5 "$work/log" >&2; die 'the server did not start'; }
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || die 'the server was not ready within a minute'
        sleep 0.1
    done
    FAREBOX_URL="http://$(cat "$data/address")"
    FAREBOX_TOKEN=$(cat "$data/admin.token")
fi

api() { curl -fsS -X "$1" -H "Authorization: Bearer $FAREBOX_TOKEN" "$FAREBOX_URL$2"; }
size_of() { sed -n 2p "$1"; }

printf '%s\n' "$FAREBOX_TOKEN" >"$work/token"
api GET /.well-known/jwks.json >"$work/jwks"
api GET /v1/ledger/keys >"$work/keys"
api GET /v1/ledger/checkpoint >"$work/old"
if [ -n "$server" ]; then
    for name in one two three four five; do
        curl -fsS -o /dev/null -H "Authorization: Bearer $FAREBOX_TOKEN" \
            -H 'Content-Type: application/json' --data "{\"name\": \"$name\"}" "$FAREBOX_URL/v1/tenants"
    done
fi
api POST /v1/ledger/checkpoint >"$work/new"
old=$(size_of "$work/old") new=$(size_of "$work/new")
api GET "/v1/ledger/proofs/inclusion?entry=$old&size=$new" >"$work/inclusion"
api GET "/v1/ledger/proofs/consistency?from=$old&to=$new" >"$work/consistency"
"$venv/bin/python" scripts/check_proof.py "$work" | sed 's/^/   /' >"$work/told" || true
cat "$work/told"
# A pipe's exit code is the last command's: the last line says that all went well.
tail -n 1 "$work/told" | grep -q 'begins with the tree of' || die 'a proof does not hold'
good 'token, checkpoints and proofs verify with other tools'
exit 0
}
