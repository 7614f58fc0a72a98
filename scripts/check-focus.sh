#!/bin/sh
# Checks the FOCUS exports of a small real ledger, CSV and Parquet, with the specification's official
# validator, that their costs are the statements', and that the Parquet exports have what the CSV has.
#
#   sh scripts/check-focus.sh [DIR]     DIR: made by scripts/sample-ledger.sh
#
# Installs the validator from PyPI into a virtual environment (600 MB, once), for which it needs
# Python 3.12; without that it says `skipped: ...` and succeeds.

set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
exec </dev/null

# In brackets, so that the shell reads all of it before it begins: an edit during a run is harmless.
{
if ! python=$(python 3.12); then
    printf '%s\n' 'skipped: FOCUS export: the validator needs Python 3.12, and there is none'
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
sample=${1:-$work/sample}
[ "$#" = 1 ] || sh scripts/sample-ledger.sh "$sample"
sample=$(cd "$sample" && pwd)

# The validator names numpy 1.26, which only this pyarrow goes with.
venv=$(venv "$python" focus focus-validator==2.2.1 'numpy>=1.26,<2' pyarrow==21.0.0) ||
    die 'the validator could not be installed from PyPI; is there a network?'

# What this provider has, of all that the specification makes columns depend on.
has=ACCOUNT_NAMING_SUPPORTED,MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED
has=$has,MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED,MULTIPLE_PRICING_CATEGORIES_SUPPORTED
has=$has,NEGOTIATED_PRICING_SUPPORTED,PUBLIC_PRICE_LIST_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED
has=$has,UNIT_PRICING_SUPPORTED,SUB_ACCOUNT_SUPPORTED,BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED
has=$has,RESOURCE_TYPE_ASSIGNMENT_SUPPORTED,REGION_SUPPORTED,TAGGING_SUPPORTED

home=$("$venv/bin/python" -c 'import focus_validator, os
print(os.path.dirname(os.path.dirname(focus_validator.__file__)))')

# validate FILE. The validator reads files of its own from where it is run, and ends with 0 whatever
# it has found.
validate() {
    (cd "$home" && "$venv/bin/focus-validator" --data-file "$sample/$1" --validate-version 1.2 \
        --block-download --applicability-criteria "$has" --show-violations) >"$work/log" 2>&1 || true
    total=$(grep -o 'Total: .*' "$work/log") || {
        tail -n 20 "$work/log" >&2
        die "$1: the validator has no verdict"
    }
    note "$1: $total"
    # Two rules contradict each other, so that one of them must fail: InvoiceId must be null, and
    # must not be. Their parent, which asks for either, passes.
    failed=$(sed -n 's/.* \([A-Za-z0-9-]*\): FAIL .*/\1/p' "$work/log" | sort -u | tr '\n' ' ')
    [ "$failed" = 'InvoiceId-C-004-C ' ] || {
        grep -A 4 ': FAIL' "$work/log" >&2
        die "$1: rules failed: $failed(expected: InvoiceId-C-004-C alone)"
    }
    passed=$(printf '%s\n' "$total" | sed 's/.*Pass: \([0-9]*\).*/\1/')
    [ "$passed" -ge 289 ] || die "$1: only $passed rules passed; 289 have before"
}
for sample in "$sample" "$sample/closed"; do
validate focus.csv
validate focus.parquet

"$venv/bin/python" - "$sample" <<'PYTHON' || die 'the costs are not those of the statements'
import csv, json, sys
from collections import defaultdict
from decimal import Decimal

billed, kinds = defaultdict(Decimal), set()
with open(sys.argv[1] + "/focus.csv", newline="") as file:
    for row in csv.DictReader(file):
        billed[row["InvoiceId"]] += Decimal(row["BilledCost"])
        kinds.add((row["ChargeCategory"], row["ChargeClass"]))
        if row["ChargeCategory"] == "Usage":
            for kind in ("List", "Contracted"):
                product = Decimal(row[kind + "UnitPrice"]) * Decimal(row["PricingQuantity"])
                assert product == Decimal(row[kind + "Cost"]), row
with open(sys.argv[1] + "/statements.json") as file:
    totals = {item["tenant"] + "/" + item["period"]: Decimal(item["total"])
              for item in json.load(file)["items"]}
assert len(totals) >= 2 and dict(billed) == totals, (dict(billed), totals)
assert {("Usage", ""), ("Credit", ""), ("Adjustment", "")} <= kinds, kinds
assert not sys.argv[1].endswith("/closed") or ("Adjustment", "Correction") in kinds, kinds
PYTHON
"$venv/bin/python" - "$sample" <<'PYTHON' || die 'the Parquet exports are not what the CSV has'
import csv, re, sys
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, getcontext
import pyarrow as pa
import pyarrow.parquet as pq

getcontext().prec = 60
PLACE = Decimal(1).scaleb(-12)
KINDS = {pa.string(), pa.int64(), pa.timestamp("us", tz="UTC"), pa.decimal128(38, 12)}

def told(cell, kind):
    """A cell of CSV, as the type of its column."""
    if cell == "":
        return None
    if pa.types.is_decimal(kind):
        return Decimal(cell).quantize(PLACE, ROUND_HALF_EVEN)
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(cell)
    if pa.types.is_integer(kind):
        return int(cell)
    return re.sub("^'(?=[-=+@\t\r\n])", "", cell)

for name in ("charges", "focus"):
    with open(f"{sys.argv[1]}/{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(f"{sys.argv[1]}/{name}.parquet")
    assert rows and table.num_rows == len(rows), (name, table.num_rows, len(rows))
    assert table.column_names == list(rows[0]), table.column_names
    assert set(table.schema.types) == KINDS, table.schema
    for field in table.schema:
        cells = [told(row[field.name], field.type) for row in rows]
        assert table[field.name].to_pylist() == cells, (name, field)
    exact = "amount" if name == "charges" else "BilledCost"
    assert sum(table[exact].to_pylist()) == sum(Decimal(row[exact]) for row in rows), name
PYTHON
done
cargo test --quiet --package api --features parquet --lib export:: >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    die 'tests of the Parquet exports failed'
}
good 'the FOCUS exports pass the validator, their costs are the ledger'\''s, and Parquet has what CSV has'
exit 0
}
