//! Tiers, allowances and credit against a scan over everything that was ever settled, with months,
//! reopens and the audit in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::rate::Standing;
use crate::testing::*;
use crate::*;

const DAY: i64 = 86_400_000_000;
/// Months of the test, by arithmetic alone: 2026-12-01 is eight days after [`MONDAY`].
const BORDERS: [Micros; 4] = [
    MONDAY - 22 * DAY,
    MONDAY + 8 * DAY,
    MONDAY + 39 * DAY,
    MONDAY + 70 * DAY,
];

#[derive(Clone, Debug)]
enum Op {
    Hold {
        cpu_ms: u64,
    },
    Settle {
        newest: bool,
        cpu_us: u64,
    },
    Grant {
        amount: i128,
        priority: u8,
        days: Option<i64>,
    },
    Prepaid(bool),
    Sleep {
        days: i64,
    },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..4_000_u64).prop_map(|cpu_ms| Op::Hold { cpu_ms }),
        6 => (any::<bool>(), 0..5_000_000_u64)
            .prop_map(|(newest, cpu_us)| Op::Settle { newest, cpu_us }),
        2 => (1..2_000_000_000_000_i128, 0..3_u8, proptest::option::of(1..20_i64))
            .prop_map(|(amount, priority, days)| Op::Grant { amount, priority, days }),
        1 => any::<bool>().prop_map(Op::Prepaid),
        2 => (0..15_i64).prop_map(|days| Op::Sleep { days }),
        1 => Just(Op::Reopen),
    ]
}

/// CPU by tiers with an allowance that is carried over; executions by the package.
const CARD: &str = r#"
[[card]]
id = "standard"
currency = "USD"
effective_from = "1970-01-01T00:00:00Z"
[[card.price]]
meter = "cpu_us"
model = "graduated"
tiers = [
    { up_to = "5000000", amount = "0.3" },
    { up_to = "9000000", amount = "0.1" },
    { amount = "0.2" },
]
increment = 100000
included = "2000000"
rollover_max = "3000000"
[[card.price]]
meter = "executions"
model = "package"
size = "3"
amount = "0.05"
"#;

struct Granted {
    entry: u64,
    priority: u8,
    ends: Micros,
    left: i128,
}

struct Run {
    number: u64,
    held: Held,
    posted: Option<Quantities>,
}

struct Paid {
    dir: tempfile::TempDir,
    clock: Arc<HandClock>,
    ledger: Option<Ledger>,
    card: RateCard,
    runs: Vec<Run>,
    grants: Vec<Granted>,
    prepaid: bool,
    carried: BTreeMap<(usize, Meter), u128>,
}

fn month(at: Micros) -> usize {
    BORDERS.iter().rposition(|border| *border <= at).unwrap()
}

impl Paid {
    fn new() -> Self {
        let card = RateCard::parse_toml(CARD).unwrap().remove(0);
        let mut paid = Self {
            dir: tempfile::tempdir().unwrap(),
            clock: HandClock::at(MONDAY),
            ledger: None,
            card,
            runs: Vec::new(),
            grants: Vec::new(),
            prepaid: false,
            carried: BTreeMap::new(),
        };
        paid.open();
        paid.act(Effect::RateCard(paid.card.clone()));
        paid.ledger()
            .now_act(tenant("acme", 1_000, Vec::new()))
            .unwrap();
        paid
    }

    fn open(&mut self) {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        self.ledger = Some(Ledger::open(options(self.dir.path()), clock).unwrap());
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    fn act(&self, effect: Effect) -> u64 {
        let act = Act {
            effect: Some(effect),
            ..act("paid")
        };
        self.ledger().now_act(act).unwrap().entry
    }

    /// Billed quantity of one meter in a month.
    fn billed(&self, price: &Price, month_number: usize) -> u128 {
        let runs = self.runs.iter();
        let of_month = runs.filter(|run| month(run.held.opened_at) == month_number);
        of_month
            .filter_map(|run| run.posted)
            .map(|posted| {
                posted.get(price.meter).div_ceil(price.increment.into())
                    * u128::from(price.increment)
            })
            .sum()
    }

    /// What a meter has free in a month: what is carried over stands fast once the month has begun
    /// with its first hold.
    fn free(&self, price: &Price, month_number: usize) -> u128 {
        let allowance = price.allowance;
        if let Some(carried) = self.carried.get(&(month_number, price.meter)) {
            return allowance.included + carried;
        }
        let known = self
            .carried
            .keys()
            .filter(|(_, meter)| *meter == price.meter);
        let Some((last, _)) = known.max() else {
            return allowance.included;
        };
        let free = allowance.included + self.carried[&(*last, price.meter)];
        let mut carried = free
            .saturating_sub(self.billed(price, *last))
            .min(allowance.rollover_max);
        for _idle in *last + 1..month_number {
            carried = (carried + allowance.included).min(allowance.rollover_max);
        }
        allowance.included + carried
    }

    /// Notes what is carried into the month of a hold.
    fn begin(&mut self, at: Micros) {
        for price in self.card.prices.clone() {
            let carried = self.free(&price, month(at)) - price.allowance.included;
            self.carried
                .entry((month(at), price.meter))
                .or_insert(carried);
        }
    }

    fn standing(&self, price: &Price, at: Micros) -> Standing {
        Standing {
            used: self.billed(price, month(at)),
            free: self.free(price, month(at)),
        }
    }

    fn available(&self, at: Micros) -> i128 {
        let valid = self.grants.iter().filter(|grant| at < grant.ends);
        valid.map(|grant| grant.left).sum()
    }

    fn hold(&mut self, number: u64, cpu_ms: u64) {
        let mut request = hold(number, "acme");
        request.ceiling.cpu_ms = cpu_ms;
        request.ceiling.wall_ms = cpu_ms;
        let worst = request.ceiling.quantities().unwrap();
        let held_cost: i128 = self
            .runs
            .iter()
            .filter(|run| run.posted.is_none())
            .map(|run| run.held.amount.0)
            .sum();
        let answer = self.ledger().now_hold(request);
        let at = answer
            .as_ref()
            .map_or_else(|_| self.clock.get(), |held| held.opened_at);
        let amount = self
            .card
            .worst_case(&worst, |price| self.standing(price, at))
            .unwrap();
        let covered = !self.prepaid || self.available(at) - held_cost >= amount.0;
        match answer {
            Ok(held) => {
                assert!(
                    covered,
                    "{} does not cover {amount}",
                    self.available(at) - held_cost
                );
                assert_eq!(held.amount, amount);
                self.begin(at);
                self.runs.push(Run {
                    number,
                    held,
                    posted: None,
                });
            }
            Err(Rejection::InsufficientFunds { amount: told, .. }) => {
                assert!(!covered);
                assert_eq!(told, amount);
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, newest: bool, cpu_us: u64) {
        let open = |run: &Run| run.posted.is_none();
        let place = if newest {
            self.runs.iter().rposition(open)
        } else {
            self.runs.iter().position(open)
        };
        let Some(place) = place else { return };
        let receipt = self
            .ledger()
            .now_settle(settlement(self.runs[place].number, cpu_us))
            .unwrap();
        let held = self.runs[place].held.clone();
        let charge = self
            .card
            .charge(&receipt.posted, |price| {
                self.standing(price, held.opened_at)
            })
            .unwrap();
        assert_eq!(receipt.charge, charge);
        assert!(
            charge.total <= held.amount,
            "{charge:?} passes {}",
            held.amount
        );
        self.runs[place].posted = Some(receipt.posted);
        self.fund(receipt.entry, held.opened_at, charge.total.0);
    }

    /// Draws by hand, and compares with the entry.
    fn fund(&mut self, entry: u64, at: Micros, mut due: i128) {
        self.grants
            .sort_by_key(|grant| (grant.priority, grant.ends, grant.entry));
        let mut funded = Vec::new();
        for grant in self
            .grants
            .iter_mut()
            .filter(|grant| at < grant.ends && grant.left > 0)
        {
            let amount = due.min(grant.left);
            if amount > 0 {
                grant.left -= amount;
                due -= amount;
                funded.push(Funding {
                    grant: grant.entry,
                    amount: Money(amount),
                });
            }
        }
        let query = EntryQuery {
            after: entry - 1,
            tenant: None,
            kind: None,
            from: None,
            to: None,
            limit: 1,
        };
        let page = self.ledger().entries(&query).unwrap();
        let Body::Settled(settled) = &page.entries[0].body else {
            panic!("no settlement")
        };
        assert_eq!(settled.funded, funded);
    }

    fn apply(&mut self, number: u64, op: &Op) {
        match op {
            Op::Hold { cpu_ms } => self.hold(number, *cpu_ms),
            Op::Settle { newest, cpu_us } => self.settle(*newest, *cpu_us),
            Op::Grant {
                amount,
                priority,
                days,
            } => {
                let ends = days.map(|days| self.clock.get() + days * DAY);
                let grant = Grant {
                    tenant: "acme".to_owned(),
                    name: "trial".to_owned(),
                    amount: Money(*amount),
                    currency: "USD".to_owned(),
                    priority: *priority,
                    expires_at: ends,
                };
                let entry = self.act(Effect::Grant(grant));
                let ends = ends.unwrap_or(Micros::MAX);
                self.grants.push(Granted {
                    entry,
                    priority: *priority,
                    ends,
                    left: *amount,
                });
            }
            Op::Prepaid(prepaid) => {
                let (tenant, rate_card) = ("acme".to_owned(), None);
                self.act(Effect::Terms {
                    tenant,
                    rate_card,
                    prepaid: *prepaid,
                });
                self.prepaid = *prepaid;
            }
            Op::Sleep { days } => {
                let last = BORDERS[3] + 20 * DAY;
                self.clock.set((self.clock.get() + days * DAY).min(last));
            }
            Op::Reopen => {
                drop(self.ledger.take());
                self.open();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if full() { 300 } else { 12 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn prices_and_credit_do_what_a_scan_does(ops in proptest::collection::vec(op(), 1..100)) {
        let mut paid = Paid::new();
        for (number, op) in (1..).zip(&ops) {
            paid.apply(number, op);
        }
        let (head, terms) = (paid.ledger().head(), paid.ledger().terms("acme").unwrap());
        prop_assert_eq!(terms.available.0, paid.available(paid.clock.get()));
        paid.ledger.take().unwrap().close().unwrap();
        let verified = verify(paid.dir.path(), &mut |_| {}).unwrap();
        prop_assert_eq!((verified.entries, verified.root), (head.size, head.root));
    }
}
