#!/bin/sh
# Checks the FOCUS export of a small real ledger with the specification's official validator, and
# that its costs are the server's.
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

# It reads files of its own from where it is run, and ends with 0 whatever it has found.
home=$("$venv/bin/python" -c 'import focus_validator, os
print(os.path.dirname(os.path.dirname(focus_validator.__file__)))')
(cd "$home" && "$venv/bin/focus-validator" --data-file "$sample/focus.csv" --validate-version 1.2 \
    --block-download --applicability-criteria "$has" --show-violations) >"$work/log" 2>&1 || true
total=$(grep -o 'Total: .*' "$work/log") || {
    tail -n 20 "$work/log" >&2
    die 'the validator has no verdict'
}
note "$total"
# Two rules contradict each other, so that one of them must fail: InvoiceId must be null, and must
# not be. Their parent, which asks for either, passes.
failed=$(sed -n 's/.* \([A-Za-z0-9-]*\): FAIL .*/\1/p' "$work/log" | sort -u | tr '\n' ' ')
[ "$failed" = 'InvoiceId-C-004-C ' ] || {
    grep -A 4 ': FAIL' "$work/log" >&2
    die "rules failed: $failed(expected: InvoiceId-C-004-C alone)"
}
passed=$(printf '%s\n' "$total" | sed 's/.*Pass: \([0-9]*\).*/\1/')
[ "$passed" -ge 289 ] || die "only $passed rules passed; 289 have before"

"$venv/bin/python" - "$sample" <<'PYTHON' || die 'the costs are not those of /v1/costs'
import csv, json, sys
from collections import defaultdict
from decimal import Decimal

billed = defaultdict(Decimal)
with open(sys.argv[1] + "/focus.csv", newline="") as file:
    for row in csv.DictReader(file):
        billed[row["BillingAccountName"], row["BillingPeriodStart"]] += Decimal(row["BilledCost"])
        if row["ChargeCategory"] == "Usage":
            product = Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"])
            assert product == Decimal(row["ListCost"]), row
with open(sys.argv[1] + "/costs.json") as file:
    costs = {(item["group"]["tenant"], item["start"].replace(".000000", "")):
                 Decimal(item["cost"]) + Decimal(item["adjustment"])
             for item in json.load(file)["items"]}
assert len(costs) == 2 and dict(billed) == costs, (dict(billed), costs)
PYTHON
good 'the FOCUS export passes the validator, and its costs are the ledger'\''s'
exit 0
}
