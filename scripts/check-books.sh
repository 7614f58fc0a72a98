#!/bin/sh
# Checks the exports of a small real ledger for plain-text accounting: bean-check and hledger accept
# them, and both find what the statements of each tenant and month come to.
#
#   sh scripts/check-books.sh [DIR]     DIR: made by scripts/sample-ledger.sh
#
# Installs hledger (Debian, Ubuntu) and Beancount (PyPI, into a virtual environment). Without Python
# it says `skipped: ...` and succeeds.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins: an edit during a run is harmless.
{
if ! python=$(python 3.12 || python 3.11 || python 3.13); then
    printf '%s\n' 'skipped: books: Beancount needs Python 3.11 or newer, and there is none'
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
sample=${1:-$work/sample}
[ "$#" = 1 ] || sh scripts/sample-ledger.sh "$sample"

need hledger=hledger
venv=$(venv "$python" books beancount==3.2.3) ||
    die 'Beancount could not be installed from PyPI; is there a network?'
for sample in "$sample" "$sample/closed"; do
"$venv/bin/bean-check" "$sample/charges.beancount" || die 'bean-check refuses the export'
hledger -f "$sample/charges.journal" check || die 'hledger refuses the export'
hledger -f "$sample/charges.journal" register -O csv Assets: >"$work/hledger.csv"

"$venv/bin/python" - "$sample" "$work/hledger.csv" <<'PYTHON' || die 'the totals are not those of the statements'
import csv, json, re, sys
from collections import defaultdict
from decimal import Decimal
from beancount import loader
from beancount.core.data import Transaction

with open(sys.argv[1] + "/statements.json") as file:
    totals = {(item["tenant"], item["period"]): Decimal(item["total"])
              for item in json.load(file)["items"]}
assert len(totals) >= 2, totals

def tenant(account):
    part = re.match(r"Assets:Receivable:T-([^:]*)(:P-|$)", account).group(1)
    return re.sub("-(-|[0-9A-F]{2})", lambda m: "-" if m[1] == "-" else chr(int(m[1], 16)), part)

owed = defaultdict(Decimal)
entries, errors, _ = loader.load_file(sys.argv[1] + "/charges.beancount")
assert not errors, errors
for entry in entries:
    if isinstance(entry, Transaction):
        for posting in entry.postings:
            if posting.account.startswith("Assets:"):
                assert posting.units.currency == "USD"
                owed[tenant(posting.account), f"{entry.date:%Y-%m}"] += posting.units.number
assert dict(owed) == totals, ("beancount", dict(owed), totals)

owed = defaultdict(Decimal)
with open(sys.argv[2], newline="") as file:
    for row in csv.DictReader(file):
        # Nothing has no currency.
        amount, *currency = row["amount"].split()
        assert currency in (["USD"], []), row
        owed[tenant(row["account"]), row["date"][:7]] += Decimal(amount)
assert dict(owed) == totals, ("hledger", dict(owed), totals)
PYTHON
done
good 'bean-check and hledger accept the exports, and find what the ledger says'
exit 0
}
