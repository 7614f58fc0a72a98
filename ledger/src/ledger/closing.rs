//! Statements, adjustments and closed periods against a scan over everything that ever happened,
//! with months, reopens and the audit in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::testing::*;
use crate::*;

const DAY: i64 = 86_400_000_000;
/// One of a currency with two places, one of a currency without.
const TENANTS: [(&str, &str); 2] = [("acme", "USD"), ("other", "JPY")];

#[derive(Clone, Debug)]
enum Op {
    Hold { tenant: usize, cpu_ms: u64 },
    Settle { newest: bool, cpu_us: u64 },
    Release,
    Grant { tenant: usize, amount: i128 },
    Reverse { place: usize },
    Line { tenant: usize, amount: i128 },
    Approve { newest: bool, by: u8 },
    Reject,
    Close { back: u8 },
    Look { tenant: usize, back: u8 },
    Sleep { days: i64 },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..2_usize, 1..4_000_u64).prop_map(|(tenant, cpu_ms)| Op::Hold { tenant, cpu_ms }),
        6 => (any::<bool>(), 0..5_000_000_u64)
            .prop_map(|(newest, cpu_us)| Op::Settle { newest, cpu_us }),
        1 => Just(Op::Release),
        1 => (0..2_usize, 1..900_000_000_000_i128)
            .prop_map(|(tenant, amount)| Op::Grant { tenant, amount }),
        3 => (0..40_usize).prop_map(|place| Op::Reverse { place }),
        2 => (0..2_usize, -2_000_000_000_000..2_000_000_000_000_i128)
            .prop_map(|(tenant, amount)| Op::Line { tenant, amount }),
        4 => (any::<bool>(), 0..5_u8).prop_map(|(newest, by)| Op::Approve { newest, by }),
        1 => Just(Op::Reject),
        3 => (0..4_u8).prop_map(|back| Op::Close { back }),
        3 => (0..2_usize, 0..4_u8).prop_map(|(tenant, back)| Op::Look { tenant, back }),
        3 => (0..15_i64).prop_map(|days| Op::Sleep { days }),
        1 => Just(Op::Reopen),
    ]
}

/// CPU by tiers with an allowance, executions at one price.
fn priced(id: &str, currency: &str) -> RateCard {
    let cpu = Price {
        allowance: Allowance {
            included: 1_500_000,
            rollover_max: 1_000_000,
        },
        ..Price::plain(
            Meter::CpuUs,
            Model::Graduated {
                tiers: vec![
                    Tier {
                        up_to: Some(5_000_000),
                        amount: Money(300_000_000_001),
                    },
                    Tier {
                        up_to: None,
                        amount: Money(100_000_000_000),
                    },
                ],
            },
        )
    };
    let amount = Money(3_333_333_333);
    let executions = Price::plain(Meter::Executions, Model::Unit { amount });
    RateCard {
        id: id.to_owned(),
        currency: currency.to_owned(),
        effective_from: 0,
        prices: vec![cpu, executions],
    }
}

struct Run {
    number: u64,
    tenant: usize,
    opened_at: Micros,
    /// Entry and settlement.
    end: Option<(u64, Settled)>,
    gone: bool,
}

struct Wanted {
    id: u64,
    tenant: usize,
    amount: i128,
    /// Place of the run that it reverses.
    run: Option<usize>,
    key: String,
    subject: String,
}

/// An approved adjustment, with its entry.
struct Done {
    seq: u64,
    at: Micros,
    tenant: usize,
    adjusted: Adjusted,
}

struct Books {
    dir: tempfile::TempDir,
    clock: Arc<HandClock>,
    ledger: Option<Ledger>,
    runs: Vec<Run>,
    pending: Vec<Wanted>,
    done: Vec<Done>,
    closed: BTreeMap<Period, u64>,
    granted: [i128; 2],
    /// Statements of closed periods as they were first seen.
    seen: BTreeMap<(usize, Period), Statement>,
}

type Line = (
    LineKind,
    Option<Meter>,
    Option<u8>,
    Option<u64>,
    Option<u128>,
    i128,
);

fn line(line: &StatementLine) -> Line {
    let StatementLine {
        kind, meter, tier, ..
    } = line;
    (
        *kind,
        *meter,
        *tier,
        line.entry,
        line.quantity,
        line.amount.0,
    )
}

impl Books {
    fn new() -> Self {
        let mut books = Self {
            dir: tempfile::tempdir().unwrap(),
            clock: HandClock::at(MONDAY),
            ledger: None,
            runs: Vec::new(),
            pending: Vec::new(),
            done: Vec::new(),
            closed: BTreeMap::new(),
            granted: [0; 2],
            seen: BTreeMap::new(),
        };
        books.open();
        for (name, currency) in TENANTS {
            books
                .act(Effect::RateCard(priced(currency, currency)), "x")
                .unwrap();
            books
                .ledger()
                .now_act(tenant(name, 1_000, Vec::new()))
                .unwrap();
            let (tenant, rate_card) = (name.to_owned(), Some(currency.to_owned()));
            let prepaid = false;
            let terms = Effect::Terms {
                tenant,
                rate_card,
                prepaid,
            };
            books.act(terms, "x").unwrap();
        }
        books
    }

    fn open(&mut self) {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        self.ledger = Some(Ledger::open(options(self.dir.path()), clock).unwrap());
    }

    fn ledger(&self) -> &Ledger {
        caught_up(self.ledger.as_ref().unwrap())
    }

    fn act(&self, effect: Effect, actor: &str) -> Result<Recorded, Rejection> {
        self.ledger().now_act(Act {
            actor: actor.to_owned(),
            reason: Some("because".to_owned()),
            effect: Some(effect),
            ..act("books")
        })
    }

    fn period(&self, back: u8) -> Period {
        let periods = self.ledger().periods();
        let place = periods.len().saturating_sub(1 + usize::from(back));
        periods[place].period
    }

    fn propose(&mut self, proposal: Proposal, run: Option<usize>, tenant: usize) {
        let taken = |run: usize| {
            self.pending.iter().any(|wanted| wanted.run == Some(run))
                || self.done.iter().any(|done| {
                    done.adjusted.what.reverses() == self.runs[run].end.as_ref().map(|end| end.0)
                })
        };
        let reversed = run.is_some_and(taken);
        let (amount, subject) = (proposal.amount.0, proposal.subject.clone());
        let key = format!("key-{}", self.pending.len() % 3);
        let zero = run.is_none() && amount == 0;
        match self.act(Effect::Propose(proposal), &key) {
            Ok(recorded) => {
                assert!(!reversed && !zero);
                let id = recorded.entry;
                self.pending.push(Wanted {
                    id,
                    tenant,
                    amount,
                    run,
                    key,
                    subject,
                });
            }
            Err(Rejection::Reversed { .. }) => assert!(reversed),
            Err(Rejection::Invalid { .. }) => assert!(zero),
            Err(other) => panic!("{other}"),
        }
    }

    fn approve(&mut self, newest: bool, by: u8) {
        let place = if newest {
            self.pending.len().wrapping_sub(1)
        } else {
            0
        };
        let Some(wanted) = self.pending.get(place) else {
            return;
        };
        let (key, subject) = (format!("key-{by}"), format!("person-{by}"));
        let own = wanted.key == key || wanted.subject == subject;
        let proposal = wanted.id;
        let approved = self.act(Effect::Approve { proposal, subject }, &key);
        match approved {
            Err(Rejection::OwnProposal { .. }) => assert!(own),
            Err(other) => panic!("{other}"),
            Ok(Recorded { entry, at }) => {
                assert!(!own);
                let wanted = self.pending.remove(place);
                let found = self.ledger().entry(entry).unwrap().unwrap();
                let Body::Adjusted(adjusted) = found.body else {
                    panic!("no adjustment: {found:?}")
                };
                self.check(&wanted, &adjusted);
                let tenant = wanted.tenant;
                self.done.push(Done {
                    seq: entry,
                    at,
                    tenant,
                    adjusted,
                });
                let again = self.act(
                    Effect::Approve {
                        proposal,
                        subject: "nobody".to_owned(),
                    },
                    "nobody",
                );
                assert_eq!(again, Err(Rejection::NotPending { proposal }));
            }
        }
    }

    fn check(&self, wanted: &Wanted, adjusted: &Adjusted) {
        assert_eq!(adjusted.amount.0, wanted.amount);
        assert_ne!(adjusted.author.key, adjusted.approver.key);
        assert_ne!(adjusted.author.subject, adjusted.approver.subject);
        let run = wanted.run.map(|place| &self.runs[place]);
        let of = run.map(|run| Period::of(run.opened_at));
        assert_eq!(
            adjusted.corrects,
            of.filter(|of| self.closed.contains_key(of))
        );
        let settled = run.and_then(|run| run.end.as_ref());
        assert_eq!(adjusted.what.reverses(), settled.map(|(seq, _)| *seq));
        let sum = |funded: &[Funding]| funded.iter().map(|one| one.amount.0).sum::<i128>();
        assert_eq!(
            adjusted.refunded.0,
            settled.map_or(0, |(_, settled)| sum(&settled.funded))
        );
        // A debit takes credit as far as there is any.
        let due = wanted.amount.max(0);
        assert_eq!(
            sum(&adjusted.funded),
            due.min(self.available(wanted.tenant))
        );
    }

    /// Credit: what was granted and given back, without what was drawn.
    fn available(&self, tenant: usize) -> i128 {
        let sum = |funded: &[Funding]| funded.iter().map(|one| one.amount.0).sum::<i128>();
        let runs = self.runs.iter().filter(|run| run.tenant == tenant);
        let drawn: i128 = runs
            .filter_map(|run| run.end.as_ref())
            .map(|(_, settled)| sum(&settled.funded))
            .sum();
        let done = self.done.iter().filter(|done| done.tenant == tenant);
        let back: i128 = done
            .map(|done| done.adjusted.refunded.0 - sum(&done.adjusted.funded))
            .sum();
        self.granted[tenant] - drawn + back
    }

    fn close(&mut self, period: Period) {
        let now = self.clock.get();
        let open =
            |run: &Run| !run.gone && run.end.is_none() && Period::of(run.opened_at) == period;
        let may = period.end() <= now
            && !self.closed.contains_key(&period)
            && !self.runs.iter().any(open);
        let closing = self.ledger().closing(period).unwrap();
        assert_eq!(closing.refused.is_none(), may, "{:?}", closing.refused);
        let holds = self.runs.iter().filter(|run| open(run)).count();
        assert_eq!(closing.holds_open, u64::try_from(holds).unwrap());
        assert_eq!(closing.pending, u64::try_from(self.pending.len()).unwrap());
        for (place, (name, currency)) in TENANTS.iter().enumerate() {
            let totals = closing.totals.iter().find(|total| total.tenant == *name);
            let (charged, adjusted) = self.totals(place, period);
            let found = totals.map_or((0, 0), |total| {
                assert_eq!(total.currency.as_deref(), Some(*currency));
                (total.charged.0, total.adjusted.0)
            });
            assert_eq!(found, (charged, adjusted), "{name} {period}");
        }
        match self.act(Effect::ClosePeriod(period), "finance") {
            Ok(recorded) => {
                assert!(may);
                self.closed.insert(period, recorded.entry);
            }
            Err(Rejection::NotClosable { .. }) => assert!(!may),
            Err(other) => panic!("{other}"),
        }
    }

    fn totals(&self, tenant: usize, period: Period) -> (i128, i128) {
        let runs = self
            .runs
            .iter()
            .filter(|run| run.tenant == tenant && Period::of(run.opened_at) == period);
        let charged = runs
            .filter_map(|run| run.end.as_ref())
            .map(|(_, settled)| settled.charge.total.0);
        let done = self
            .done
            .iter()
            .filter(|done| done.tenant == tenant && Period::of(done.at) == period);
        (charged.sum(), done.map(|done| done.adjusted.amount.0).sum())
    }

    /// The lines but for the rounding, by a scan over everything.
    fn lines(&self, tenant: usize, period: Period) -> Vec<Line> {
        let mut used: BTreeMap<(Meter, bool, u8), (u128, i128)> = BTreeMap::new();
        let mut drawn: BTreeMap<u64, i128> = BTreeMap::new();
        let mut draw = |funded: &[Funding]| {
            for one in funded {
                *drawn.entry(one.grant).or_default() -= one.amount.0;
            }
        };
        for run in self.runs.iter().filter(|run| run.tenant == tenant) {
            let Some((_, settled)) = &run.end else {
                continue;
            };
            if Period::of(run.opened_at) != period {
                continue;
            }
            for line in &settled.charge.lines {
                let key = (line.meter, line.rate != Money::ZERO, line.tier);
                let sums = used.entry(key).or_default();
                *sums = (sums.0 + line.quantity, sums.1 + line.amount.0);
            }
            draw(&settled.funded);
        }
        let mut lines: Vec<Line> = Vec::new();
        for ((meter, charged, tier), (quantity, amount)) in used {
            let kind = if charged {
                LineKind::Usage
            } else {
                LineKind::Included
            };
            lines.push((kind, Some(meter), Some(tier), None, Some(quantity), amount));
        }
        let mut refunds = Vec::new();
        for done in self.done.iter().filter(|done| done.tenant == tenant) {
            if Period::of(done.at) != period {
                continue;
            }
            let kind = match done.adjusted.corrects {
                Some(_) => LineKind::Correction,
                None => LineKind::Adjustment,
            };
            let (entry, amount) = (Some(done.seq), done.adjusted.amount.0);
            lines.push((kind, None, None, entry, None, amount));
            draw(&done.adjusted.funded);
            if done.adjusted.refunded != Money::ZERO {
                let refunded = done.adjusted.refunded.0;
                refunds.push((LineKind::Refund, None, None, entry, None, refunded));
            }
        }
        lines.extend(refunds);
        let credit = |(grant, amount)| (LineKind::Credit, None, None, Some(grant), None, amount);
        lines.extend(drawn.into_iter().map(credit));
        lines
    }

    fn look(&mut self, tenant: usize, period: Period) {
        let (name, currency) = TENANTS[tenant];
        let statement = self.ledger().statement(name, period).unwrap();
        let mut found: Vec<Line> = statement.lines.iter().map(line).collect();
        let exact: i128 = found.iter().map(|line| line.5).sum();
        assert_eq!(
            exact, statement.total.0,
            "the total is the sum of the lines"
        );
        let rounding = found.pop();
        let lines = self.lines(tenant, period);
        assert_eq!(found, lines);
        assert_eq!(
            rounding.map(|line| line.0),
            (!lines.is_empty()).then_some(LineKind::Rounding)
        );
        let minor = if currency == "JPY" {
            10_i128.pow(12)
        } else {
            10_i128.pow(10)
        };
        assert_eq!(statement.total.0 % minor, 0);
        assert!(rounding.is_none_or(|line| line.5.abs() * 2 <= minor));
        let Some(closing) = self.closed.get(&period) else {
            assert!(!matches!(statement.state.phase, Phase::Closed(_)));
            return;
        };
        assert_eq!(statement.through, *closing);
        let first = self.seen.entry((tenant, period));
        let first = first.or_insert_with(|| Statement::clone(&statement));
        assert_eq!(*first, *statement, "a closed period never changes");
    }

    /// The totals of all statements at once are those of each.
    fn compare_totals(&self, period: Period) {
        let all = self.ledger().statement_totals(period).unwrap();
        for (name, _) in TENANTS {
            let statement = self.ledger().statement(name, period).unwrap();
            let sum = |kinds: &[LineKind]| {
                let lines = statement.lines.iter();
                let own = lines.filter(|line| kinds.contains(&line.kind));
                own.map(|line| line.amount.0).sum::<i128>()
            };
            let found = all.totals.iter().find(|one| one.tenant == *name);
            assert_eq!(found.is_some(), statement.currency.is_some());
            let found = found.map_or([0; 5], |one| {
                assert_eq!(Some(&one.currency), statement.currency.as_ref());
                let parts = [
                    one.charged,
                    one.adjusted,
                    one.credit,
                    one.rounding,
                    one.total,
                ];
                parts.map(|part| part.0)
            });
            let wanted = [
                sum(&[LineKind::Usage, LineKind::Included]),
                sum(&[LineKind::Adjustment, LineKind::Correction]),
                sum(&[LineKind::Credit, LineKind::Refund]),
                sum(&[LineKind::Rounding]),
                statement.total.0,
            ];
            assert_eq!(found, wanted, "{name} {period}");
        }
    }

    /// Costs and adjustments from rows and from entries one by one, and the books against each
    /// other.
    fn compare_costs(&self) {
        let periods = self.ledger().periods();
        let (first, last) = (periods[0].period, periods[periods.len() - 1].period);
        let mut query = usage_query(first.start(), last.end(), Window::Month);
        query.by_currency = true;
        for group in [GroupBy::Project, GroupBy::Image] {
            query.group_by = vec![GroupBy::Tenant, group];
            let items = self.ledger().usage(&query).unwrap().items;
            for (tenant, (name, _)) in TENANTS.iter().enumerate() {
                for state in &periods {
                    let own = items.iter().filter(|item| {
                        item.group[0].as_deref() == Some(name) && item.start == state.period.start()
                    });
                    let found = own.fold((0, 0), |sum, item| {
                        (sum.0 + item.cost.0, sum.1 + item.adjusted.0)
                    });
                    assert_eq!(found, self.totals(tenant, state.period), "{name}");
                }
            }
        }
        let end = (first.start() + 31 * DAY).min(first.end());
        let books = self
            .ledger()
            .reconcile(first.start(), end, 1_000_000)
            .unwrap();
        assert_eq!(books.range_differences, []);
        assert_eq!(books.balances_differences, []);
    }

    fn apply(&mut self, number: u64, op: &Op) {
        match op {
            Op::Hold { tenant, cpu_ms } => {
                let mut request = hold(number, TENANTS[*tenant].0);
                request.ceiling.cpu_ms = *cpu_ms;
                request.ceiling.wall_ms = *cpu_ms;
                let opened_at = self.ledger().now_hold(request).unwrap().opened_at;
                let (tenant, end, gone) = (*tenant, None, false);
                self.runs.push(Run {
                    number,
                    tenant,
                    opened_at,
                    end,
                    gone,
                });
            }
            Op::Settle { newest, cpu_us } => self.settle(*newest, *cpu_us),
            Op::Release => {
                let open = |run: &&mut Run| run.end.is_none() && !run.gone;
                if let Some(run) = self.runs.iter_mut().find(open) {
                    run.gone = true;
                    let number = run.number;
                    self.ledger().now_release(id(number)).unwrap();
                }
            }
            Op::Grant { tenant, amount } => self.grant(*tenant, *amount),
            Op::Reverse { place } => {
                let Some(run) = self.runs.get(*place) else {
                    return;
                };
                let Some((entry, settled)) = run.end.clone() else {
                    return;
                };
                let tenant = run.tenant;
                let subject = format!("person-{}", number % 3);
                let proposal = Proposal::reversal(entry, settled, subject);
                self.propose(proposal, Some(*place), tenant);
            }
            Op::Line { tenant, amount } => {
                let (name, currency) = TENANTS[*tenant];
                let proposal = Proposal {
                    tenant: name.to_owned(),
                    currency: currency.to_owned(),
                    amount: Money(*amount),
                    subject: format!("person-{}", number % 3),
                    what: Adjustment::Line {
                        description: "goodwill".to_owned(),
                    },
                };
                self.propose(proposal, None, *tenant);
            }
            Op::Approve { newest, by } => self.approve(*newest, *by),
            Op::Reject => {
                if let Some(wanted) = self.pending.pop() {
                    let (proposal, subject) = (wanted.id, "person-9".to_owned());
                    self.act(Effect::Reject { proposal, subject }, "key-9")
                        .unwrap();
                }
            }
            Op::Close { back } => self.close(self.period(*back)),
            Op::Look { tenant, back } => self.look(*tenant, self.period(*back)),
            Op::Sleep { days } => self.clock.set(self.clock.get() + days * DAY),
            Op::Reopen => {
                drop(self.ledger.take());
                self.open();
            }
        }
    }

    fn grant(&mut self, tenant: usize, amount: i128) {
        let (name, currency) = TENANTS[tenant];
        let grant = Grant {
            tenant: name.to_owned(),
            name: "trial".to_owned(),
            amount: Money(amount),
            currency: currency.to_owned(),
            priority: 5,
            expires_at: None,
        };
        self.act(Effect::Grant(grant), "x").unwrap();
        self.granted[tenant] += amount;
    }

    fn settle(&mut self, newest: bool, cpu_us: u64) {
        let open = |run: &Run| run.end.is_none() && !run.gone;
        let place = if newest {
            self.runs.iter().rposition(open)
        } else {
            self.runs.iter().position(open)
        };
        let Some(place) = place else { return };
        let number = self.runs[place].number;
        let receipt = self
            .ledger()
            .now_settle(settlement(number, cpu_us))
            .unwrap();
        let entry = self.ledger().entry(receipt.entry).unwrap().unwrap();
        let Body::Settled(settled) = entry.body else {
            panic!("no settlement")
        };
        self.runs[place].end = Some((receipt.entry, settled));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if full() { 300 } else { 16 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn statements_are_what_a_scan_finds_and_closed_ones_never_change(
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut books = Books::new();
        for (number, op) in (1..).zip(&ops) {
            books.apply(number, op);
        }
        for state in books.ledger().periods() {
            for (tenant, (name, _)) in TENANTS.iter().enumerate() {
                books.look(tenant, state.period);
                books.compare_totals(state.period);
                let terms = books.ledger().terms(name).unwrap();
                prop_assert_eq!(terms.available.0, books.available(tenant));
            }
        }
        books.compare_costs();
        let head = books.ledger().head();
        books.ledger.take().unwrap().close().unwrap();
        let verified = verify(books.dir.path(), &mut |_| {}).unwrap();
        prop_assert_eq!((verified.entries, verified.root), (head.size, head.root));
        rebuild(books.dir.path(), &mut |_| {}).unwrap();
        books.open();
        for state in books.ledger().periods() {
            books.look(0, state.period);
            let totals = books.ledger().closing(state.period).unwrap().totals;
            let acme = totals.iter().find(|total| total.tenant == "acme");
            let found = acme.map_or((0, 0), |total| (total.charged.0, total.adjusted.0));
            prop_assert_eq!(found, books.totals(0, state.period));
        }
    }
}
