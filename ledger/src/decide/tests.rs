//! The rules one by one, on a state made of records.

use std::sync::Arc;

use super::*;
use crate::command::Effect;
use crate::entry::{Body, Entry, Hold};
use crate::quantity::Meter;
use crate::quota::{Cause, Mode, Quota, Scope, Window};
use crate::rate::RateCard;
use crate::record::{self, Record};
use crate::testing::{self, MONDAY, id, quota};

mod caps;

struct Bench {
    state: State,
    options: Options,
    at: Micros,
}

impl Bench {
    fn new(quotas: Vec<Quota>) -> Self {
        let options = testing::options(std::path::Path::new(""));
        let mut bench = Self {
            state: State::default(),
            options,
            at: MONDAY,
        };
        bench.acts(testing::card_act());
        bench.acts(testing::tenant("acme", 4, quotas));
        bench
    }

    fn desk(&self) -> Desk<'_> {
        Desk {
            state: &self.state,
            options: &self.options,
            at: self.at,
            now: self.at,
        }
    }

    fn take(&mut self, record: &Record) {
        let bounds = Bounds::of(&self.options);
        self.state
            .apply(self.state.lsn + 1, record, None, &bounds)
            .unwrap();
        self.at += 1;
    }

    fn enter(&mut self, body: Body) {
        let entry = Entry {
            seq: self.state.seq + 1,
            at: self.at,
            body,
        };
        self.take(&Record::Entered(Arc::new(entry)));
    }

    fn acts(&mut self, act: crate::Act) {
        let body = super::act(self.desk(), act).unwrap();
        self.enter(body);
    }

    fn holds(&mut self, request: HoldRequest) -> Result<Hold, Rejection> {
        let terms = super::hold(self.desk(), &request, None)?;
        // Once its names are known, another one like it is decided alike.
        assert_eq!(super::hold(self.desk(), &request, terms.located), Ok(terms));
        let hold = terms.open(&request);
        let mut bytes = Vec::new();
        hold.encode(&mut bytes);
        let open = Arc::new(hold.open(record::body(&bytes)));
        let whole = open.whole().unwrap();
        self.take(&Record::Hold(open));
        Ok(whole)
    }

    fn settles(&mut self, number: u64, cpu_us: u64) -> Charged {
        let settlement = testing::settlement(number, cpu_us);
        let charged = super::settle(self.desk(), &settlement, Charge::default()).unwrap();
        let entry = charged.enter(self.state.seq + 1, self.at, &settlement);
        self.take(&Record::Settled(entry.posting(Arc::clone(&charged.hold))));
        charged
    }
}

fn violations(refused: Result<Hold, Rejection>) -> Vec<Violation> {
    match refused.unwrap_err() {
        Rejection::Quota(violations) => violations,
        other => panic!("refused by {other:?}"),
    }
}

#[test]
fn every_scope_and_window_is_checked_and_all_violations_are_told() {
    let project = Scope::Project("default".to_owned());
    let mut bench = Bench::new(vec![
        quota(Scope::Tenant, Meter::Executions, Window::Lifetime, 1),
        quota(project.clone(), Meter::CpuUs, Window::Hour, 1_999_999),
        quota(Scope::Key("key".to_owned()), Meter::Cost, Window::Month, 1),
        quota(
            Scope::Project("other".to_owned()),
            Meter::Executions,
            Window::Day,
            0,
        ),
        quota(
            Scope::Function("f".to_owned()),
            Meter::Executions,
            Window::Day,
            0,
        ),
    ]);
    let found = violations(bench.holds(testing::hold(1, "acme")));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].meter, found[0].limit), (Meter::Cost, 1));
    assert_eq!(found[0].quota, "key:key/cost/month");
    let other_key = |n| HoldRequest {
        key: "two".to_owned(),
        ..testing::hold(n, "acme")
    };
    bench.holds(other_key(1)).unwrap();
    let found = violations(bench.holds(other_key(2)));
    let brief: Vec<_> = found
        .iter()
        .map(|v| (v.scope.clone(), v.held, v.cause))
        .collect();
    assert_eq!(
        brief,
        [
            (Scope::Tenant, 1, Cause::Held),
            (project, 1_000_000, Cause::Held)
        ]
    );
    assert_eq!(found[0].resets_at, None);
    assert_eq!(found[1].resets_at, Some(MONDAY + 3_600_000_000));
}

#[test]
fn what_fits_exactly_is_never_refused() {
    let quotas = vec![quota(Scope::Tenant, Meter::CpuUs, Window::Day, 2_000_000)];
    let mut bench = Bench::new(quotas);
    bench.holds(testing::hold(1, "acme")).unwrap();
    bench.holds(testing::hold(2, "acme")).unwrap();
    assert_eq!(
        violations(bench.holds(testing::hold(3, "acme")))[0].held,
        2_000_000
    );
    bench.settles(1, 0);
    bench.holds(testing::hold(3, "acme")).unwrap();
}

#[test]
fn soft_quotas_and_overdrafts_let_pass() {
    let soft = Quota {
        mode: Mode::Soft,
        ..quota(Scope::Tenant, Meter::Executions, Window::Day, 0)
    };
    let over = Quota {
        overdraft: 1,
        ..quota(Scope::Tenant, Meter::Executions, Window::Hour, 0)
    };
    let mut bench = Bench::new(vec![soft, over]);
    bench.holds(testing::hold(1, "acme")).unwrap();
    let found = violations(bench.holds(testing::hold(2, "acme")));
    assert_eq!((found.len(), found[0].limit), (1, 1));
}

#[test]
fn a_quota_made_in_mid_window_counts_what_was_used_before() {
    let mut bench = Bench::new(Vec::new());
    bench.holds(testing::hold(1, "acme")).unwrap();
    bench.settles(1, 300_000);
    bench.holds(testing::hold(2, "acme")).unwrap();
    let month = quota(
        Scope::Project("default".to_owned()),
        Meter::CpuUs,
        Window::Month,
        2_299_999,
    );
    bench.acts(testing::tenant("acme", 4, vec![month]));
    let found = violations(bench.holds(testing::hold(3, "acme")));
    assert_eq!((found[0].posted, found[0].held), (300_000, 1_000_000));
}

#[test]
fn a_lowered_quota_refuses_but_takes_nothing_back() {
    let day = |limit| vec![quota(Scope::Tenant, Meter::Executions, Window::Day, limit)];
    let mut bench = Bench::new(day(3));
    bench.holds(testing::hold(1, "acme")).unwrap();
    bench.holds(testing::hold(2, "acme")).unwrap();
    bench.acts(testing::tenant("acme", 4, day(1)));
    violations(bench.holds(testing::hold(3, "acme")));
    assert_eq!(bench.settles(1, 7).posted.executions, 1);
    assert_eq!(bench.settles(2, 7).posted.executions, 1);
}

#[test]
fn reduce_takes_the_largest_common_fraction_or_refuses() {
    let quotas = vec![quota(Scope::Tenant, Meter::CpuUs, Window::Day, 300_500)];
    let mut bench = Bench::new(quotas);
    let on_low = OnLow::Reduce {
        min_cpu_ms: 300,
        min_wall_ms: 300,
    };
    let asked = HoldRequest {
        on_low,
        ..testing::hold(1, "acme")
    };
    let hold = bench.holds(asked).unwrap();
    assert_eq!(
        (hold.granted.cpu_ms, hold.granted.wall_ms, hold.reduced),
        (300, 300, true)
    );
    assert_eq!(hold.quantities.cpu_us, 300_000);
    let found = violations(bench.holds(HoldRequest {
        on_low,
        ..testing::hold(2, "acme")
    }));
    assert_eq!(found[0].requested, 1_000_000);
}

#[test]
fn posted_is_the_lesser_of_measured_and_held_and_the_rest_is_overrun() {
    let mut bench = Bench::new(Vec::new());
    let hold = bench.holds(testing::hold(1, "acme")).unwrap();
    let settled = bench.settles(1, 1_200_000);
    assert_eq!(settled.posted.cpu_us, 1_000_000);
    assert_eq!(settled.overrun.cpu_us, 200_000);
    assert_eq!(
        (settled.posted.executions, settled.overrun.executions),
        (1, 0)
    );
    assert_eq!(settled.charge.total, hold.amount);
    assert!(bench.state.idle());
}

#[test]
fn max_cost_is_compared_with_the_worst_case() {
    let mut bench = Bench::new(Vec::new());
    let with = |max_cost| HoldRequest {
        max_cost: Some(max_cost),
        ..testing::hold(1, "acme")
    };
    let amount = Money(200_000 + 14_000_000 + 4_395);
    let refused = bench.holds(with(Money(amount.0 - 1))).unwrap_err();
    assert_eq!(
        refused,
        Rejection::MaxCost {
            amount,
            max_cost: Money(amount.0 - 1)
        }
    );
    assert_eq!(bench.holds(with(amount)).unwrap().amount, amount);
}

#[test]
fn cards_take_over_from_their_instant() {
    let mut bench = Bench::new(Vec::new());
    let later = RateCard {
        effective_from: MONDAY + 1_000,
        prices: Vec::new(),
        ..testing::card()
    };
    bench.acts(crate::Act {
        effect: Some(Effect::RateCard(later)),
        ..testing::act("rate/2")
    });
    assert_eq!(bench.holds(testing::hold(1, "acme")).unwrap().rate_card, 1);
    bench.at = MONDAY + 1_000;
    assert_eq!(bench.holds(testing::hold(2, "acme")).unwrap().rate_card, 3);
}

#[test]
fn faults_in_the_request_are_told_by_field() {
    let mut bench = Bench::new(Vec::new());
    let field = |refused: Result<Hold, Rejection>| match refused.unwrap_err() {
        Rejection::Invalid { field, .. } => field,
        other => panic!("refused by {other:?}"),
    };
    let good = || testing::hold(1, "acme");
    let long = "x".repeat(257);
    assert_eq!(
        field(bench.holds(HoldRequest {
            project: String::new(),
            ..good()
        })),
        "project"
    );
    assert_eq!(
        field(bench.holds(HoldRequest {
            key: "a\0b".to_owned(),
            ..good()
        })),
        "key"
    );
    assert_eq!(
        field(bench.holds(HoldRequest {
            image: long,
            ..good()
        })),
        "image"
    );
    let tags = vec![(String::new(), String::new()); 9];
    assert_eq!(field(bench.holds(HoldRequest { tags, ..good() })), "tags");
    let ceiling = Ceiling {
        wall_ms: u64::MAX,
        ..good().ceiling
    };
    assert_eq!(
        field(bench.holds(HoldRequest { ceiling, ..good() })),
        "limits"
    );
    let ceiling = Ceiling {
        cpu_ms: 0,
        ..good().ceiling
    };
    assert_eq!(
        field(bench.holds(HoldRequest { ceiling, ..good() })),
        "limits"
    );
    let odd = Quota {
        timezone: "Mars/Olympus".to_owned(),
        ..quota(Scope::Tenant, Meter::CpuUs, Window::Day, 1)
    };
    let refused = super::act(bench.desk(), testing::tenant("acme", 1, vec![odd])).unwrap_err();
    assert!(matches!(
        refused,
        Rejection::Invalid {
            field: "timezone",
            ..
        }
    ));
    let twice = vec![quota(Scope::Tenant, Meter::CpuUs, Window::Day, 1); 2];
    let refused = super::act(bench.desk(), testing::tenant("acme", 1, twice)).unwrap_err();
    assert!(matches!(
        refused,
        Rejection::Invalid {
            field: "quotas",
            ..
        }
    ));
}

#[test]
fn scopes_past_their_bound_are_not_counted_but_run() {
    let mut bench = Bench::new(Vec::new());
    bench.acts(crate::Act {
        effect: Some(Effect::CountScopes(crate::ScopeBounds {
            in_all: 9,
            per_tenant: 1,
        })),
        ..testing::act("ledger/scopes")
    });
    bench.holds(testing::hold(1, "acme")).unwrap();
    assert_eq!(bench.state.tenant("acme").unwrap().scopes(), 1);
    let key = quota(
        Scope::Key("key".to_owned()),
        Meter::Executions,
        Window::Day,
        1,
    );
    bench.acts(testing::tenant("acme", 4, vec![key]));
    // The hold before was not counted for the key; its end must not be either.
    bench.settles(1, 1);
    bench.holds(testing::hold(2, "acme")).unwrap();
    assert_eq!(violations(bench.holds(testing::hold(3, "acme")))[0].held, 1);
    bench.settles(2, 1);
    assert!(bench.state.idle());
    assert_eq!(bench.state.hold(&id(2)), None);
}
