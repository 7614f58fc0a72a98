#!/bin/sh
# Measures the ledger against PostgreSQL on this machine: benches/postgres.rs.
#
#   sh scripts/bench-postgres.sh [--rounds N] [--seconds N] [--dir DIR]
#
# Installs PostgreSQL (Debian, Ubuntu; as root) without the database that Debian makes and starts with
# it. The bench has a server and a directory of its own, and removes both.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins: an edit during a run is harmless.
{
if [ ! -d /usr/lib/postgresql ] && is_root; then
    settings=/etc/postgresql-common/createcluster.d
    trap 'rm -f "$settings/farebox-bench.conf"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -p "$settings"
    printf '%s\n' 'create_main_cluster = false' >"$settings/farebox-bench.conf"
fi
need cc=build-essential /usr/lib/postgresql=postgresql
need_rust
cargo bench --quiet --bench postgres -- "$@"
exit 0
}
