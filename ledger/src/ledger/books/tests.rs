//! Adjustments and periods one rule at a time, and what the audit says of forged ones.

use std::sync::Arc;

use crate::testing::*;
use crate::*;

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<HandClock>,
    ledger: Ledger,
}

impl Bench {
    fn new(quotas: Vec<Quota>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = HandClock::at(MONDAY);
        let given = Arc::clone(&clock) as Arc<dyn Clock>;
        let ledger = Ledger::open(options(dir.path()), given).unwrap();
        ledger.now_act(card_act()).unwrap();
        ledger.now_act(tenant("acme", 10, quotas)).unwrap();
        Self { dir, clock, ledger }
    }

    fn ledger(&self) -> &Ledger {
        caught_up(&self.ledger)
    }

    fn act(&self, effect: Effect, actor: &str) -> Result<Recorded, Rejection> {
        self.ledger.now_act(Act {
            actor: actor.to_owned(),
            reason: Some("because".to_owned()),
            effect: Some(effect),
            ..act("books")
        })
    }

    /// A run of so much CPU time; its entry.
    fn run(&self, number: u64, cpu_us: u64) -> u64 {
        self.ledger.now_hold(hold(number, "acme")).unwrap();
        let settled = self.ledger.now_settle(settlement(number, cpu_us));
        settled.unwrap().entry
    }

    fn settled(&self, entry: u64) -> Settled {
        match self.ledger().entry(entry).unwrap().unwrap().body {
            Body::Settled(settled) => settled,
            other => panic!("no settlement: {other:?}"),
        }
    }

    fn propose(&self, proposal: Proposal) -> Result<u64, Rejection> {
        let proposed = self.act(Effect::Propose(proposal), "one");
        proposed.map(|recorded| recorded.entry)
    }

    fn approve(&self, proposal: u64) -> Result<Recorded, Rejection> {
        let subject = "second".to_owned();
        self.act(Effect::Approve { proposal, subject }, "two")
    }

    fn adjust(&self, proposal: Proposal) -> u64 {
        let id = self.propose(proposal).unwrap();
        self.approve(id).unwrap().entry
    }

    fn posted_cost(&self) -> u128 {
        let states = self.ledger().quotas("acme").unwrap();
        states[0].posted
    }
}

fn line(amount: i128) -> Proposal {
    Proposal {
        tenant: "acme".to_owned(),
        currency: "USD".to_owned(),
        amount: Money(amount),
        subject: "first".to_owned(),
        what: Adjustment::Line {
            description: "goodwill".to_owned(),
        },
    }
}

fn reversal(entry: u64, settled: Settled) -> Proposal {
    Proposal::reversal(entry, settled, "first".to_owned())
}

#[test]
fn a_credit_lowers_the_cost_of_its_own_window_and_never_below_nothing() {
    let cost = quota(Scope::Tenant, Meter::Cost, Window::Month, 10_u128.pow(12));
    let bench = Bench::new(vec![cost]);
    let entry = bench.run(1, 500_000);
    let charged = u128::try_from(bench.settled(entry).charge.total.0).unwrap();
    assert_eq!(bench.posted_cost(), charged);
    bench.adjust(reversal(entry, bench.settled(entry)));
    assert_eq!(bench.posted_cost(), 0);
    bench.adjust(line(-5));
    assert_eq!(bench.posted_cost(), 0, "below nothing reads as nothing");
    bench.adjust(line(12));
    assert_eq!(bench.posted_cost(), 7);
    let used = usage_query(MONDAY, MONDAY + 86_400_000_000, Window::Day);
    let used = bench.ledger().usage(&used).unwrap().items;
    assert_eq!(used[0].usage.executions, 1, "what was used was used");
    assert_eq!(used[0].adjusted.0, 7 - i128::try_from(charged).unwrap());
}

#[test]
fn adjustments_have_an_item_of_their_own_among_meters_and_projects() {
    let bench = Bench::new(Vec::new());
    let entry = bench.run(1, 500_000);
    bench.adjust(line(-5));
    bench.adjust(reversal(entry, bench.settled(entry)));
    let mut query = usage_query(MONDAY, MONDAY + 86_400_000_000, Window::Day);
    query.group_by = vec![GroupBy::Meter];
    let total = bench.settled(entry).charge.total.0;
    let items = bench.ledger().usage(&query).unwrap().items;
    let adjusted: Vec<_> = items
        .iter()
        .map(|item| (item.meter, item.adjusted.0))
        .collect();
    assert_eq!(adjusted[0], (None, -5 - total));
    assert!(
        adjusted[1..]
            .iter()
            .all(|(meter, adjusted)| meter.is_some() && *adjusted == 0)
    );
    let costs: i128 = items.iter().map(|item| item.cost.0).sum();
    assert_eq!(costs, total);
    query.group_by = vec![GroupBy::Project];
    let items = bench.ledger().usage(&query).unwrap().items;
    let of = |item: &UsageItem| (item.group[0].clone(), item.adjusted.0);
    let wanted = [(None, -5), (Some("default".to_owned()), -total)];
    assert_eq!(items.iter().map(of).collect::<Vec<_>>(), wanted);
    query.only.project = Some("default".to_owned());
    assert_eq!(bench.ledger().usage(&query).unwrap().items.len(), 1);
}

#[test]
fn a_reversal_is_proposed_and_approved_at_most_once_and_never_by_one_person() {
    let bench = Bench::new(Vec::new());
    let entry = bench.run(1, 500_000);
    let settled = bench.settled(entry);
    let id = bench.propose(reversal(entry, settled.clone())).unwrap();
    let again = bench.propose(reversal(entry, settled.clone()));
    assert_eq!(again, Err(Rejection::Reversed { entry }), "one is pending");
    for (key, subject) in [("one", "second"), ("two", "first")] {
        let subject = subject.to_owned();
        let own = bench.act(
            Effect::Approve {
                proposal: id,
                subject,
            },
            key,
        );
        assert_eq!(own, Err(Rejection::OwnProposal { proposal: id }));
    }
    let subject = "second".to_owned();
    bench
        .act(
            Effect::Reject {
                proposal: id,
                subject,
            },
            "two",
        )
        .unwrap();
    assert_eq!(
        bench.approve(id),
        Err(Rejection::NotPending { proposal: id })
    );
    bench.adjust(reversal(entry, settled.clone()));
    let again = bench.propose(reversal(entry, settled));
    assert_eq!(again, Err(Rejection::Reversed { entry }), "it is reversed");
    let verdicts: Vec<bool> = bench
        .ledger()
        .adjustments()
        .iter()
        .map(|one| one.verdict.as_ref().unwrap().approved)
        .collect();
    assert_eq!(verdicts, [false, true]);
}

#[test]
fn proposals_that_do_not_fit_are_refused_and_change_nothing() {
    let bench = Bench::new(Vec::new());
    let entry = bench.run(1, 500_000);
    let size = bench.ledger().head().size;
    let mut dearer = reversal(entry, bench.settled(entry));
    dearer.amount = Money(dearer.amount.0 * 2);
    let described = |description: &str| Proposal {
        what: Adjustment::Line {
            description: description.to_owned(),
        },
        ..line(1)
    };
    let field = |proposal| match bench.propose(proposal) {
        Err(Rejection::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(line(0)), "amount");
    assert_eq!(field(line(10_i128.pow(27) + 1)), "amount");
    assert_eq!(field(dearer), "amount");
    assert_eq!(field(described(" ")), "description");
    assert_eq!(field(described(&"x".repeat(257))), "description");
    let currency = "EUR".to_owned();
    assert_eq!(
        field(Proposal {
            currency,
            ..line(1)
        }),
        "currency"
    );
    let nobody = Proposal {
        tenant: "nobody".to_owned(),
        ..line(1)
    };
    let unknown = bench.propose(nobody);
    assert!(
        matches!(unknown, Err(Rejection::UnknownTenant { .. })),
        "{unknown:?}"
    );
    let silent = Act {
        effect: Some(Effect::Propose(line(1))),
        ..act("books")
    };
    let silent = bench.ledger.now_act(silent);
    assert!(
        matches!(
            silent,
            Err(Rejection::Invalid {
                field: "reason",
                ..
            })
        ),
        "{silent:?}"
    );
    assert_eq!(bench.ledger().head().size, size);
}

#[test]
fn pending_adjustments_are_bounded() {
    let bench = Bench::new(Vec::new());
    for _ in 0..1_000 {
        bench.propose(line(1)).unwrap();
    }
    let refused = bench.propose(line(1)).unwrap_err();
    assert!(
        matches!(refused, Rejection::TooMany { limit: 1_000, .. }),
        "{refused}"
    );
}

#[test]
fn a_tenant_with_adjustments_keeps_its_currency() {
    let bench = Bench::new(Vec::new());
    let euro = RateCard {
        id: "euro".to_owned(),
        currency: "EUR".to_owned(),
        ..card()
    };
    bench.act(Effect::RateCard(euro), "x").unwrap();
    bench.adjust(line(5));
    bench.adjust(line(-5));
    let refused = bench.act(
        Effect::Terms {
            tenant: "acme".to_owned(),
            rate_card: Some("euro".to_owned()),
            prepaid: false,
        },
        "x",
    );
    assert!(
        matches!(
            refused,
            Err(Rejection::Invalid {
                field: "rate_card",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn a_month_is_closed_once_when_it_has_ended_and_nothing_is_open_in_it() {
    let bench = Bench::new(Vec::new());
    let november = Period::of(MONDAY);
    let close = |period| bench.act(Effect::ClosePeriod(period), "finance");
    let refused = |period| match close(period) {
        Err(Rejection::NotClosable { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    bench.ledger.now_hold(hold(1, "acme")).unwrap();
    assert_eq!(refused(november), "has not ended");
    assert!(refused(Period::parse("2026-10").unwrap()).contains("before"));
    bench.clock.set(november.end());
    assert_eq!(refused(november), "has 1 open hold(s)");
    let closing = bench.ledger().closing(november).unwrap();
    assert_eq!(closing.holds[0].id, id(1));
    bench.ledger.now_settle(settlement(1, 1_000)).unwrap();
    let closed = close(november).unwrap();
    assert!(refused(november).contains(&format!("entry {}", closed.entry)));
    let before = bench.ledger().statement("acme", november).unwrap();
    bench.run(2, 1_000);
    let run = before.through - 1;
    let entry = bench.adjust(reversal(run, bench.settled(run)));
    assert_eq!(bench.ledger().statement("acme", november).unwrap(), before);
    let december = bench.ledger().statement("acme", november.next()).unwrap();
    let mut lines = december.lines.iter();
    let correction = lines
        .find(|line| line.kind == LineKind::Correction)
        .unwrap();
    let facts = (correction.entry, correction.reverses, correction.corrects);
    assert_eq!(facts, (Some(entry), Some(run), Some(november)));
    assert_eq!(correction.amount.0, -bench.settled(run).charge.total.0);
    let phases: Vec<_> = bench
        .ledger()
        .periods()
        .iter()
        .map(|one| one.phase)
        .collect();
    assert!(
        matches!(phases[..], [Phase::Closed(_), Phase::Open]),
        "{phases:?}"
    );
}

/// A clock that was ahead for a while leaves the ledger's time ahead, but ends no month.
#[test]
fn a_month_is_not_closed_before_the_clock_is_past_its_end() {
    let bench = Bench::new(Vec::new());
    bench.run(1, 1);
    let november = Period::of(MONDAY);
    bench.clock.set(november.end() + 5_000_000);
    bench.run(2, 1);
    bench.clock.set(MONDAY + 1_000);
    let close = || bench.act(Effect::ClosePeriod(november), "anna");
    let refused = |says: &str| {
        let Rejection::NotClosable { fault, .. } = close().unwrap_err() else {
            panic!("refused by something else")
        };
        assert!(fault.contains(says), "{fault}");
        let dry = caught_up(bench.ledger()).closing(november).unwrap().refused;
        assert!(dry.is_some_and(|dry| dry.contains(says)));
    };
    refused("has not ended by the server's clock");
    let ahead = bench.ledger().health().clock_ahead_us;
    assert!(ahead > 6 * 86_400_000_000, "{ahead}");
    // The month is over by both, but one of the two is not right.
    bench.clock.set(november.end() + 1_000_000);
    refused("s ahead");
    bench.clock.set(november.end() + 4_500_000);
    assert!(bench.ledger().health().clock_ahead_us < 1_000_000);
    close().unwrap();
}

#[test]
fn the_audit_finds_a_reversal_of_what_was_never_settled() {
    for forged in [false, true] {
        let bench = Bench::new(Vec::new());
        let entry = bench.run(1, 500_000);
        let mut settled = bench.settled(entry);
        if forged {
            settled.outcome = "never".to_owned();
        }
        let adjusted = bench.adjust(reversal(entry, settled));
        bench.ledger.close().unwrap();
        match verify(bench.dir.path(), &mut |_| {}) {
            Ok(_) => assert!(!forged, "the audit believes a forged reversal"),
            Err(VerifyError::Fault(fault)) => {
                assert!(forged, "{fault}");
                assert_eq!(fault.seq, adjusted);
                assert!(fault.what.contains(&format!("entry {entry}")), "{fault}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_preview_prices_the_month_by_another_card_in_order() {
    let bench = Bench::new(Vec::new());
    let used = [300_000_u64, 500_000, 400_000];
    let entries: Vec<u64> = (1..)
        .zip(used)
        .map(|(n, cpu_us)| bench.run(n, cpu_us))
        .collect();
    let tier = |up_to, amount| Tier {
        up_to,
        amount: Money(amount),
    };
    let tiers = vec![tier(Some(600_000), 1_000_000), tier(None, 10_000_000)];
    let draft = RateCard {
        currency: "EUR".to_owned(),
        prices: vec![Price {
            allowance: Allowance {
                included: 400_000,
                rollover_max: 0,
            },
            ..Price::plain(Meter::CpuUs, Model::Graduated { tiers })
        }],
        ..card()
    };
    let size = bench.ledger().head().size;
    let november = Period::of(MONDAY);
    let preview = bench.ledger().preview("acme", november, &draft).unwrap();
    assert_eq!(preview.runs, 3);
    let total: i128 = entries
        .iter()
        .map(|entry| bench.settled(*entry).charge.total.0)
        .sum();
    assert_eq!(preview.was.total.0, total);
    assert_eq!(preview.would_be.currency.as_deref(), Some("EUR"));
    let found: Vec<_> = preview
        .would_be
        .lines
        .iter()
        .map(|line| (line.kind, line.tier, line.quantity, line.amount.0))
        .collect();
    // Of 1.2 s, 0.4 s are included, 0.6 s in the first tier, 0.2 s in the second.
    assert_eq!(
        found,
        [
            (LineKind::Included, Some(0), Some(400_000), 0),
            (LineKind::Usage, Some(0), Some(600_000), 600_000),
            (LineKind::Usage, Some(1), Some(200_000), 2_000_000),
        ]
    );
    let same = bench.ledger().preview("acme", november, &card()).unwrap();
    assert_eq!(same.was, same.would_be);
    assert_eq!(bench.ledger().head().size, size, "nothing is recorded");
}

#[test]
fn a_statement_begins_in_the_segment_of_its_month() {
    let bench = Bench::new(Vec::new());
    let november = Period::of(MONDAY);
    // Segments of 64 KiB: several for each month.
    for number in 1..=600 {
        bench.run(number, 1_000);
    }
    bench.clock.set(november.end());
    for number in 601..=1_300 {
        bench.run(number, 1_000);
    }
    for (period, runs) in [(november, 600), (november.next(), 700)] {
        let statement = bench.ledger().statement("acme", period).unwrap();
        let mut lines = statement.lines.iter();
        let line = lines
            .find(|line| line.meter == Some(Meter::Executions))
            .unwrap();
        assert_eq!(line.quantity, Some(runs), "{period}");
    }
}
