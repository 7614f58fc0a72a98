//! The rules one by one, on a state made of records.

use std::sync::Arc;

use super::*;
use crate::command::{Effect, Settings};
use crate::entry::{Body, Entry, Hold};
use crate::quantity::Meter;
use crate::quota::{Cause, Mode, Quota, QuotaChange, Scope, StartCaps, Window};
use crate::rate::RateCard;
use crate::record::{self, Record};
use crate::testing::{self, MONDAY, id, quota};

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
    bench.options.scopes_per_tenant_max = 1;
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

fn settings(quotas: Vec<Quota>, changes: Vec<(Micros, Vec<Quota>)>) -> crate::Act {
    let change = |(effective_at, quotas)| QuotaChange {
        effective_at,
        quotas,
    };
    let settings = Settings {
        changes: changes.into_iter().map(change).collect(),
        ..Settings::plain("acme", false, 4, &quotas)
    };
    crate::Act {
        effect: Some(Effect::Settings(settings)),
        ..testing::tenant("acme", 0, Vec::new())
    }
}

fn runs(window: Window, limit: u128) -> Vec<Quota> {
    vec![quota(Scope::Tenant, Meter::Executions, window, limit)]
}

/// One limit to the last microsecond before the change, the other from the change on; what was
/// used before counts after.
#[test]
fn a_change_of_quotas_is_in_force_from_its_instant_on() {
    let mut bench = Bench::new(Vec::new());
    let (later, last) = (MONDAY + 10_000, MONDAY + 20_000);
    let changes = vec![
        (later, runs(Window::Hour, 2)),
        (last, runs(Window::Hour, 3)),
    ];
    bench.acts(settings(runs(Window::Lifetime, 1), changes));
    bench.holds(testing::hold(1, "acme")).unwrap();
    bench.at = later - 1;
    let refused = violations(bench.holds(testing::hold(2, "acme")));
    assert_eq!(
        (refused[0].window, refused[0].limit, refused[0].held),
        (Window::Lifetime, 1, 1)
    );
    bench.at = later;
    bench.holds(testing::hold(2, "acme")).unwrap();
    let refused = violations(bench.holds(testing::hold(3, "acme")));
    assert_eq!(
        (refused[0].window, refused[0].limit, refused[0].held),
        (Window::Hour, 2, 2)
    );
    bench.at = last;
    bench.holds(testing::hold(3, "acme")).unwrap();
    violations(bench.holds(testing::hold(4, "acme")));
}

/// A lower limit that finds more in use takes nothing away, and lets nothing new pass.
#[test]
fn a_lower_limit_to_come_refuses_what_does_not_fit_any_more() {
    let mut bench = Bench::new(Vec::new());
    let later = MONDAY + 10_000;
    let changes = vec![(later, runs(Window::Day, 1))];
    bench.acts(settings(runs(Window::Day, 3), changes));
    for number in 1..=3 {
        bench.holds(testing::hold(number, "acme")).unwrap();
    }
    bench.at = later;
    let refused = violations(bench.holds(testing::hold(4, "acme")));
    assert_eq!((refused[0].limit, refused[0].held), (1, 3));
    for number in 1..=3 {
        assert_eq!(bench.settles(number, 1).posted.executions, 1);
    }
    let refused = violations(bench.holds(testing::hold(4, "acme")));
    assert_eq!((refused[0].limit, refused[0].posted), (1, 3));
}

#[test]
fn changes_that_are_out_of_order_or_too_many_are_refused() {
    let bench = Bench::new(Vec::new());
    let at = |times: &[Micros]| {
        let changes = times.iter().map(|at| (*at, Vec::new())).collect();
        super::act(bench.desk(), settings(Vec::new(), changes)).map(drop)
    };
    at(&[1, 2, 3]).unwrap();
    for times in [[2, 1], [1, 1]] {
        let refused = at(&times).unwrap_err();
        assert!(
            matches!(
                refused,
                Rejection::Invalid {
                    field: "changes",
                    ..
                }
            ),
            "{refused}"
        );
    }
    let refused = at(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap_err();
    assert!(
        matches!(refused, Rejection::TooMany { limit: 8, .. }),
        "{refused}"
    );
}

#[test]
fn caps_on_starts_know_the_last_minute_and_count_what_was_released() {
    let mut bench = Bench::new(Vec::new());
    for number in 1..=2 {
        bench.holds(testing::hold(number, "acme")).unwrap();
    }
    let release = super::release(bench.desk(), id(2), String::new()).unwrap();
    bench.take(&Record::Release(Arc::new(release)));
    let capped = |per_minute, key_per_minute| {
        let mut act = settings(Vec::new(), Vec::new());
        if let Some(Effect::Settings(settings)) = &mut act.effect {
            settings.starts = StartCaps {
                per_minute,
                key_per_minute,
            };
        }
        act
    };
    bench.acts(capped(Some(3), Some(2)));
    let refused = bench.holds(testing::hold(3, "acme")).unwrap_err();
    let free_at = MONDAY + 61_000_000;
    let rate = |scope, cap, begun, free_at| Rejection::Rate {
        scope,
        cap,
        begun,
        free_at,
    };
    assert_eq!(refused, rate(Scope::Key("key".to_owned()), 2, 2, free_at));
    let other = |number| HoldRequest {
        key: "other".to_owned(),
        ..testing::hold(number, "acme")
    };
    bench.at = MONDAY + 1_000_000;
    bench.holds(other(3)).unwrap();
    let refused = bench.holds(other(4)).unwrap_err();
    assert_eq!(refused, rate(Scope::Tenant, 3, 3, free_at));
    bench.at = free_at;
    bench.holds(other(4)).unwrap();
    let zero = super::act(bench.desk(), capped(Some(0), None)).unwrap_err();
    assert!(
        matches!(
            zero,
            Rejection::Invalid {
                field: "starts",
                ..
            }
        ),
        "{zero}"
    );
}

#[test]
fn a_hold_says_what_is_left_of_the_caps_on_runs() {
    let mut bench = Bench::new(Vec::new());
    let mut quotas = runs(Window::Day, 5);
    quotas.extend(runs(Window::Lifetime, 9));
    quotas.push(quota(Scope::Tenant, Meter::CpuUs, Window::Day, 99_000_000));
    quotas.push(Quota {
        mode: Mode::Soft,
        ..quotas[0].clone()
    });
    quotas[3].window = Window::Month;
    let mut act = settings(quotas, Vec::new());
    if let Some(Effect::Settings(settings)) = &mut act.effect {
        settings.starts.per_minute = Some(7);
    }
    bench.acts(act);
    let hold = bench.holds(testing::hold(1, "acme")).unwrap();
    let places = bench.state.locate(&Run::of(&testing::hold(1, "acme")));
    let tenant = bench.state.tenant("acme").unwrap();
    let left = super::left(tenant, places.unwrap().scopes, &hold.key, hold.opened_at);
    let told: Vec<_> = left.iter().map(|one| (one.limit, one.left)).collect();
    assert_eq!(told, [(5, 4), (9, 8), (7, 6), (4, 3)]);
    let day = Some((MONDAY, MONDAY + 86_400_000_000));
    let windows: Vec<_> = left.iter().map(|one| one.window).collect();
    let at = Some((hold.opened_at, hold.opened_at));
    assert_eq!(windows, [day, None, at, None]);
}
