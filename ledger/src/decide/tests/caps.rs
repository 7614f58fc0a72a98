//! Quotas that change at an instant, caps on starts, and what is left of all caps.

use super::*;
use crate::command::Settings;
use crate::quota::{QuotaChange, StartCaps};

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
    let run = (places.unwrap().scopes, &*hold.key, hold.opened_at);
    let mut left = Vec::new();
    crate::decide::left(tenant, run, &mut Vec::new(), &mut left);
    let told: Vec<_> = left.iter().map(|one| (one.limit, one.left)).collect();
    assert_eq!(told, [(5, 4), (9, 8), (7, 6), (4, 3)]);
    let day = Some((MONDAY, MONDAY + 86_400_000_000));
    let windows: Vec<_> = left.iter().map(|one| one.window).collect();
    let at = Some((hold.opened_at, hold.opened_at));
    assert_eq!(windows, [day, None, at, None]);
}
