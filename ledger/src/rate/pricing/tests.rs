//! Prices by the contract's example, and every model against the month as a whole.

use proptest::prelude::*;

use super::*;
use crate::quantity::Meter;
use crate::rate::{Allowance, RateCardError, Tier};

const STANDARD: &str = r#"
[[card]]
id = "standard"
currency = "USD"
effective_from = "2026-01-01T00:00:00Z"
[[card.price]]
meter = "executions"
model = "unit"
amount = "0.0000002"
[[card.price]]
meter = "cpu_us"
model = "unit"
amount = "0.000014"
[[card.price]]
meter = "memory_byte_ms"
model = "unit"
amount = "0.0000045"
"#;

fn empty(_: &Price) -> Standing {
    Standing::default()
}

fn used() -> Quantities {
    Quantities {
        executions: 1,
        cpu_us: 1_234_567,
        memory_byte_ms: (256 << 20) * 2_000,
        ..Quantities::default()
    }
}

#[test]
fn the_contracts_worked_example_comes_out_exactly() {
    let card = &RateCard::parse_toml(STANDARD).unwrap()[0];
    assert_eq!(card.effective_from, 1_767_225_600_000_000);
    let charge = card.charge(&used(), empty).unwrap();
    let amounts: Vec<String> = charge.lines.iter().map(|l| l.amount.to_string()).collect();
    assert_eq!(
        amounts,
        ["0.000000200000", "0.000017283938", "0.000002250000"]
    );
    assert_eq!(charge.total.to_string(), "0.000019733938");
    assert_eq!(charge.currency, "USD");
}

#[test]
fn a_hold_is_never_below_its_charge_and_less_than_a_unit_a_line_above() {
    let card = &RateCard::parse_toml(STANDARD).unwrap()[0];
    for cpu_us in 0..3_000 {
        let used = Quantities {
            cpu_us,
            memory_byte_ms: 77 * u128::from(cpu_us),
            ..used()
        };
        let charge = card.charge(&used, empty).unwrap().total;
        let hold = card.worst_case(&used, empty).unwrap();
        assert!(hold >= charge && hold.0 - charge.0 <= 3, "{cpu_us}");
    }
}

#[test]
fn meters_that_are_not_used_or_not_priced_have_no_line() {
    let card = &RateCard::parse_toml(STANDARD).unwrap()[0];
    let used = Quantities {
        cpu_us: 7,
        wall_us: 9,
        ..Quantities::default()
    };
    let charge = card.charge(&used, empty).unwrap();
    assert_eq!(charge.lines.len(), 1);
    assert_eq!(charge.lines[0].meter, Meter::CpuUs);
}

#[test]
fn faults_name_the_card_and_the_field() {
    for (from, to, names) in [
        ("\"cpu_us\"", "\"cpu\"", "`cpu` is not a meter"),
        ("\"cpu_us\"", "\"cost\"", "`cost`"),
        (
            "\"cpu_us\"",
            "\"executions\"",
            "`executions` has two prices",
        ),
        ("\"0.000014\"", "\"0.1e3\"", "`cpu_us`"),
        ("\"0.000014\"", "\"-1\"", "negative"),
        ("\"USD\"", "\"usd\"", "currency `usd`"),
        ("2026-01-01T00", "2026-13-01T00", "effective_from"),
        ("\"unit\"", "\"volume\"", "volume prices have"),
        ("\"unit\"", "\"free\"", "model `free`"),
    ] {
        let text = STANDARD.replacen(from, to, 1);
        let error = RateCard::parse_toml(&text).unwrap_err().to_string();
        assert!(
            error.contains("`standard`") && error.contains(names),
            "{error}"
        );
    }
    let text = STANDARD.replacen("currency", "valuta", 1);
    assert!(matches!(
        RateCard::parse_toml(&text),
        Err(RateCardError::Form { .. })
    ));
}

const TIERED: &str = r#"
[[card]]
id = "tiered"
currency = "EUR"
effective_from = "2026-01-01T00:00:00Z"
[[card.price]]
meter = "executions"
model = "package"
size = "1000"
amount = "0.5"
[[card.price]]
meter = "cpu_us"
model = "graduated"
tiers = [{ up_to = "10000000", amount = "0.2" }, { amount = "0.1" }]
increment = 1000
included = "1000000"
rollover_max = "500000"
[[card.price]]
meter = "memory_byte_ms"
model = "volume"
tiers = [{ up_to = "1073741824000", amount = "2" }, { amount = "1" }]
"#;

#[test]
fn tiers_packages_increments_and_allowances_come_out_by_hand() {
    let card = &RateCard::parse_toml(TIERED).unwrap()[0];
    let used = Quantities {
        executions: 1,
        cpu_us: 4_000_001,
        memory_byte_ms: 1_073_741_824_000,
        ..Quantities::default()
    };
    let month = |price: &Price| {
        let used = match price.meter {
            Meter::Executions => 999,
            Meter::CpuUs => 8_000_000,
            _ => 1_073_741_824_000,
        };
        let free = price.allowance.included;
        Standing { used, free }
    };
    let charge = card.charge(&used, month).unwrap();
    let shown: Vec<(u8, u128, String)> = charge
        .lines
        .iter()
        .map(|line| (line.tier, line.quantity, line.amount.to_string()))
        .collect();
    // The 1,000th run lies in the package that is begun. 7 of the 10 seconds of the first tier are
    // gone behind a free one: 3 s x 0.2 + 1.001 s x 0.1. Two GiB seconds at 1 are as much as one at
    // 2.
    let expected = [
        (0, 3_000_000, "0.600000000000"),
        (1, 1_001_000, "0.100100000000"),
        (1, 1_073_741_824_000, "0.000000000000"),
    ];
    let expected = expected.map(|(tier, quantity, amount)| (tier, quantity, amount.to_owned()));
    assert_eq!(shown, expected);
    assert_eq!(charge.total.to_string(), "0.700100000000");
}

#[test]
fn what_is_free_has_a_line_without_a_rate() {
    let card = &RateCard::parse_toml(TIERED).unwrap()[0];
    let used = Quantities {
        cpu_us: 3_000_000,
        ..Quantities::default()
    };
    let month = |price: &Price| Standing {
        free: price.allowance.included,
        ..Standing::default()
    };
    let charge = card.charge(&used, month).unwrap();
    let lines: Vec<(u128, Money)> = charge.lines.iter().map(|l| (l.quantity, l.rate)).collect();
    assert_eq!(
        lines,
        [
            (1_000_000, Money::ZERO),
            (2_000_000, Money::parse("0.2").unwrap())
        ]
    );
    assert_eq!(charge.total.to_string(), "0.400000000000");
}

#[test]
fn models_that_make_no_sense_are_refused() {
    for (from, to, names) in [
        ("size = \"1000\"", "size = \"0\"", "packages of nothing"),
        (
            "{ amount = \"1\" }",
            "{ amount = \"3\" }",
            "rises with the volume",
        ),
        (
            "{ amount = \"0.1\" }",
            "{ up_to = \"5\", amount = \"0.1\" }",
            "one tier without an end",
        ),
        ("increment = 1000", "increment = 0", "increment of zero"),
        ("included = \"1000000\"", "included = \"0\"", "carries over"),
        ("up_to = \"10000000\"", "up_to = \"0\"", "do not ascend"),
        ("up_to = \"10000000\"", "up_to = \"ten\"", "whole number"),
        ("size = \"1000\"\n", "", "nothing else"),
    ] {
        let text = TIERED.replacen(from, to, 1);
        assert_ne!(text, TIERED, "{from}");
        let error = RateCard::parse_toml(&text).unwrap_err().to_string();
        assert!(error.contains(names), "{error}, not {names}");
    }
}

fn tiers(falling: bool) -> impl Strategy<Value = Vec<Tier>> {
    let tier = (1_u128..50, 0_i128..1_000_000_000);
    proptest::collection::vec(tier, 1..5).prop_map(move |parts| {
        let mut rates: Vec<i128> = parts.iter().map(|part| part.1).collect();
        if falling {
            rates.sort_unstable_by(|a, b| b.cmp(a));
        }
        let mut end = 0;
        let last = parts.len() - 1;
        let tier = |(index, (part, rate)): (usize, (&(u128, i128), i128))| {
            end += part.0;
            Tier {
                up_to: (index < last).then_some(end),
                amount: Money(rate),
            }
        };
        parts.iter().zip(rates).enumerate().map(tier).collect()
    })
}

fn model() -> impl Strategy<Value = Model> {
    prop_oneof![
        (0_i128..1_000_000_000).prop_map(|amount| Model::Unit {
            amount: Money(amount)
        }),
        tiers(false).prop_map(|tiers| Model::Graduated { tiers }),
        tiers(true).prop_map(|tiers| Model::Volume { tiers }),
        (1_u128..20, 0_i128..1_000_000_000).prop_map(|(size, amount)| Model::Package {
            size,
            amount: Money(amount)
        }),
    ]
}

fn price() -> impl Strategy<Value = Price> {
    // A meter whose unit is not one base unit, so that rounding shows.
    (model(), 1_u64..7, 0_u128..40).prop_map(|(model, increment, included)| Price {
        meter: Meter::CpuUs,
        model,
        increment,
        allowance: Allowance {
            included,
            rollover_max: 0,
        },
    })
}

fn run(cpu_us: u64) -> Quantities {
    Quantities {
        cpu_us,
        ..Quantities::default()
    }
}

fn card_of(price: Price) -> RateCard {
    RateCard {
        id: "x".to_owned(),
        currency: "USD".to_owned(),
        effective_from: 0,
        prices: vec![price],
    }
}

proptest! {
    /// The runs of a month together cost what the month costs at once, whatever the order; but for
    /// unit prices, of which each line is rounded for itself.
    #[test]
    fn a_month_costs_what_its_runs_cost(
        price in price(),
        runs in proptest::collection::vec(0_u64..40, 1..20),
    ) {
        let free = price.allowance.included;
        let card = card_of(price.clone());
        let (mut used, mut sum) = (0, 0);
        for cpu_us in &runs {
            let charge = card.charge(&run(*cpu_us), |_| Standing { used, free }).unwrap();
            let lines: i128 = charge.lines.iter().map(|line| line.amount.0).sum();
            prop_assert_eq!(charge.total.0, lines);
            sum += lines;
            used += price.billed(&run(*cpu_us)).unwrap();
        }
        let whole = card_of(Price { increment: 1, ..price.clone() });
        let month = run(u64::try_from(used).unwrap());
        let at_once = whole.charge(&month, |_| Standing { used: 0, free }).unwrap().total.0;
        let rounded = matches!(price.model, Model::Unit { .. });
        let slack = i128::try_from(runs.len()).unwrap() * i128::from(rounded);
        prop_assert!((sum - at_once).abs() <= slack, "{} and {}", sum, at_once);
    }

    /// No run costs more than its worst case, whatever else its month uses before it ends, and
    /// however little of its own limits it uses.
    #[test]
    fn no_run_costs_more_than_its_hold(
        price in price(), used in 0_u128..120, others in 0_u128..200,
        limit in 0_u64..60, part in 0_u64..60,
    ) {
        let free = price.allowance.included;
        let card = card_of(price);
        let worst = card.worst_case(&run(limit), |_| Standing { used, free }).unwrap();
        let after = Standing { used: used + others, free };
        let charge = card.charge(&run(part.min(limit)), |_| after).unwrap();
        prop_assert!(charge.total <= worst, "{:?} is more than {:?}", charge, worst);
    }
}
