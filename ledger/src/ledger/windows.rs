//! A new quota counts its running window from the beginning, whatever its zone, and says no rather
//! than too little where the window moves on meanwhile.

use std::sync::Arc;

use super::*;
use crate::command::Before;
use crate::testing::*;
use crate::{Effect, Meter, Quota, QuotaState, Scope, Settings, Window, rebuild, verify};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
/// Half past noon on the Sunday on which Berlin sets its clocks back: a day of 25 hours, which
/// began at 22:00 in UTC, in a month that began on September 30.
const SUNDAY: i64 = MONDAY - 29 * 24 * HOUR + 12 * HOUR + 30 * MINUTE;

fn started(clock: &Arc<HandClock>) -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir, clock);
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 100, Vec::new())).unwrap();
    (dir, ledger)
}

fn open(dir: &tempfile::TempDir, clock: &Arc<HandClock>) -> Ledger {
    Ledger::open(options(dir.path()), Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

fn run(ledger: &Ledger, number: u64) {
    ledger.now_hold(hold(number, "acme")).unwrap();
    ledger.now_settle(settlement(number, 10)).unwrap();
}

fn runs(scope: Scope, window: Window, zone: &str, limit: u128) -> Quota {
    Quota {
        timezone: zone.to_owned(),
        ..quota(scope, Meter::Executions, window, limit)
    }
}

fn found(ledger: &Ledger, quotas: &[Quota]) -> Effect {
    let settings = Settings::plain("acme", false, 100, quotas);
    caught_up(ledger).counted(settings).unwrap()
}

fn act(ledger: &Ledger, effect: Effect) -> Result<crate::Recorded, Rejection> {
    ledger.now_act(Act {
        effect: Some(effect),
        ..tenant("acme", 0, Vec::new())
    })
}

fn set(ledger: &Ledger, quotas: &[Quota]) {
    act(ledger, found(ledger, quotas)).unwrap();
}

/// Posted and held of each quota, all of which count from their beginning.
fn stands(ledger: &Ledger) -> Vec<(u128, u128)> {
    let states = caught_up(ledger).quotas("acme").unwrap();
    for state in &states {
        assert_eq!(state.counted_since, None, "{}", state.quota.name());
    }
    let pair = |state: &QuotaState| (state.posted, state.held);
    states.iter().map(pair).collect()
}

#[test]
fn a_new_quota_counts_its_window_from_the_beginning() {
    let clock = HandClock::at(SUNDAY - 26 * 24 * HOUR);
    let (dir, ledger) = started(&clock);
    let mut number = 0;
    let mut at = |ledger: &Ledger, instant: i64| {
        clock.set(instant);
        number += 1;
        run(ledger, number);
    };
    // Before the month; in it; before and behind the first instant of the day; in the hour; now.
    let midnight = SUNDAY - 12 * HOUR - 30 * MINUTE - 2 * HOUR;
    let instants = [
        SUNDAY - 26 * 24 * HOUR,
        SUNDAY - 24 * 24 * HOUR,
        midnight - 1_000,
        midnight,
        SUNDAY - 29 * MINUTE,
        SUNDAY,
    ];
    for instant in instants {
        at(&ledger, instant);
    }
    clock.set(SUNDAY + 1_000);
    ledger.now_hold(hold(90, "acme")).unwrap();
    let scopes = [
        Scope::Tenant,
        Scope::Project("default".to_owned()),
        Scope::Key("key".to_owned()),
    ];
    let windows = [Window::Minute, Window::Hour, Window::Day, Window::Month];
    let quotas: Vec<Quota> = scopes
        .iter()
        .flat_map(|scope| windows.map(|window| runs(scope.clone(), window, "Europe/Berlin", 6)))
        .collect();
    set(&ledger, &quotas);
    let each = [(1, 1), (2, 1), (3, 1), (5, 1)];
    assert_eq!(stands(&ledger), [each; 3].concat());
    // Five and one that is held: not one more in the month.
    let refused = ledger.now_hold(hold(91, "acme")).unwrap_err();
    let Rejection::Quota(violations) = refused else {
        panic!("refused by {refused:?}")
    };
    assert_eq!(violations.len(), 3);
    assert!(violations.iter().all(|one| one.window == Window::Month));
    // Dropped and named again, it has forgotten nothing.
    set(&ledger, &[]);
    set(&ledger, &quotas);
    assert_eq!(stands(&ledger), [each; 3].concat());
    ledger.now_settle(settlement(90, 10)).unwrap();
    let each = [(2, 0), (3, 0), (4, 0), (6, 0)];
    assert_eq!(stands(&ledger), [each; 3].concat());

    ledger.close().unwrap();
    verify(dir.path(), &mut |_| {}).unwrap();
    for _ in 0..2 {
        let ledger = open(&dir, &clock);
        assert_eq!(stands(&ledger), [each; 3].concat());
        ledger.close().unwrap();
        rebuild(dir.path(), &mut |_| {}).unwrap();
    }
}

#[test]
fn a_run_of_the_window_before_counts_there_however_late_it_ends() {
    let clock = HandClock::at(MONDAY + MINUTE - 1_000);
    let (_dir, ledger) = started(&clock);
    for number in 0..3 {
        ledger.now_hold(hold(number, "acme")).unwrap();
    }
    clock.set(MONDAY + MINUTE);
    ledger.now_settle(settlement(0, 10)).unwrap();
    run(&ledger, 10);
    let quotas = [runs(Scope::Tenant, Window::Minute, "UTC", 9)];
    // Found, but one more has ended before it is recorded.
    let stale = found(&ledger, &quotas);
    ledger.now_settle(settlement(1, 10)).unwrap();
    assert_eq!(act(&ledger, stale).unwrap_err(), Rejection::Moved);
    set(&ledger, &quotas);
    assert_eq!(stands(&ledger), [(1, 0)]);
    ledger.now_settle(settlement(2, 10)).unwrap();
    assert_eq!(stands(&ledger), [(1, 0)]);
    // The next minute has begun.
    set(&ledger, &[]);
    let stale = found(&ledger, &quotas);
    clock.set(MONDAY + 2 * MINUTE);
    assert_eq!(act(&ledger, stale).unwrap_err(), Rejection::Moved);
    set(&ledger, &quotas);
    assert_eq!(stands(&ledger), [(0, 0)]);
}

#[test]
fn what_a_window_has_seen_is_whole_and_no_more_than_there_was() {
    let clock = HandClock::at(MONDAY);
    let (_dir, ledger) = started(&clock);
    run(&ledger, 1);
    let quotas = [runs(Scope::Tenant, Window::Hour, "Asia/Kathmandu", 9)];
    let Effect::Counted { settings, before } = found(&ledger, &quotas) else {
        panic!("found nothing")
    };
    assert_eq!(before.len(), 1);
    let with = |before: Vec<Before>| {
        let settings = settings.clone();
        act(&ledger, Effect::Counted { settings, before })
    };
    let mut more = before.clone();
    more[0].posted.executions += 2;
    let mut other = before.clone();
    other[0].scope = Scope::Key("key".to_owned());
    for forged in [
        Vec::new(),
        more,
        other,
        [before.clone(), before.clone()].concat(),
    ] {
        assert_eq!(with(forged), Err(Rejection::Moved));
    }
    with(before).unwrap();
    assert_eq!(stands(&ledger), [(1, 0)]);
}
