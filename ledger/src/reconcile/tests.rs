//! Three ways to find the same sums agree, and where one of them was changed it is told.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::testing::*;
use crate::view::row::{Grain, Row};
use crate::view::store::Store;
use crate::{Ledger, Scope};

const HOUR: i64 = 3_600_000_000;
const ALL: u64 = 1_000_000;

fn open(dir: &Path, clock: &Arc<HandClock>) -> Ledger {
    Ledger::open(options(dir), Arc::clone(clock) as Arc<dyn crate::Clock>).unwrap()
}

fn run(ledger: &Ledger, clock: &HandClock, number: u64, tenant: &str, hours: i64) {
    clock.set(MONDAY + hours * HOUR);
    ledger.now_hold(hold(number, tenant)).unwrap();
    ledger
        .now_settle(settlement(number, 900_000 + number * 1_000))
        .unwrap();
}

/// Two tenants; a run an hour for three days, some above their hold, over several segments.
fn filled() -> (TempDir, Arc<HandClock>, Ledger) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), HandClock::at(MONDAY - HOUR));
    let ledger = open(dir.path(), &clock);
    ledger.now_act(card_act()).unwrap();
    let day = quota(Scope::Tenant, Meter::Executions, Window::Day, 1_000);
    ledger.now_act(tenant("acme", 9, vec![day])).unwrap();
    ledger.now_act(tenant("other", 9, Vec::new())).unwrap();
    for hour in 0..72 {
        for each in 0..4 {
            let number = u64::try_from(hour * 4 + each).unwrap() + 1;
            let tenant = if each == 0 { "other" } else { "acme" };
            run(&ledger, &clock, number, tenant, hour);
        }
    }
    (dir, clock, ledger)
}

fn assert_agree(found: &Reconciled) {
    assert_eq!(found.range_differences, []);
    assert_eq!(found.balances_differences, []);
    let all = found.range.iter().chain(&found.balances);
    all.for_each(|pair| assert_eq!(pair.one, pair.other, "{pair:?}"));
    for month in &found.months {
        assert_eq!(month.differences, [], "{month:?}");
    }
    assert_eq!(found.limits.differences, []);
}

fn executions(pairs: &[Compared]) -> i128 {
    let mut found = pairs.iter().filter(|pair| pair.meter == Meter::Executions);
    found.next().map_or(0, |pair| pair.one)
}

#[test]
fn entries_rows_and_balances_agree_over_any_range() {
    let (dir, clock, ledger) = filled();
    assert!(
        dir.path().join("journal/00000003.seg").exists(),
        "one segment is not enough"
    );
    for (from, to, runs) in [
        (0, 72, 288),
        (0, 1, 4),
        (10, 34, 96),
        (71, 72, 4),
        (72, 99, 0),
    ] {
        let found = ledger
            .reconcile(MONDAY + from * HOUR, MONDAY + to * HOUR, ALL)
            .unwrap();
        assert_agree(&found);
        assert_eq!(found.settlements, runs, "{from} {to}");
        assert_eq!(executions(&found.range), i128::from(runs));
        assert_eq!(executions(&found.balances), 288);
    }
    let all = ledger.reconcile(MONDAY, MONDAY + 72 * HOUR, ALL).unwrap();
    assert!(
        all.range.iter().any(|pair| pair.overrun && pair.one > 0),
        "no run was above its hold"
    );
    assert!(
        all.range
            .iter()
            .any(|pair| pair.meter == Meter::Cost && pair.one > 0)
    );
    drop(ledger);
    let again = open(dir.path(), &clock)
        .reconcile(MONDAY, MONDAY + 72 * HOUR, ALL)
        .unwrap();
    assert_eq!(again.range, all.range);
}

#[test]
fn a_range_is_read_to_its_last_settlement_and_no_further() {
    let (_dir, clock, ledger) = filled();
    let short = ledger.reconcile(MONDAY, MONDAY + HOUR, ALL).unwrap();
    assert!(short.entries_read < 10, "{}", short.entries_read);
    // Opened in one hour, settled long after it.
    clock.set(MONDAY + 80 * HOUR);
    ledger.now_hold(hold(5_000, "acme")).unwrap();
    ledger.now_hold(hold(5_001, "acme")).unwrap();
    for number in 6_000..6_050 {
        run(&ledger, &clock, number, "acme", 82);
    }
    let (from, to) = (MONDAY + 80 * HOUR, MONDAY + 81 * HOUR);
    let before = ledger.reconcile(from, to, ALL).unwrap();
    assert_agree(&before);
    assert_eq!(before.settlements, 0);
    ledger.now_release(id(5_001)).unwrap();
    ledger.now_settle(settlement(5_000, 7)).unwrap();
    run(&ledger, &clock, 7_000, "acme", 90);
    let after = ledger.reconcile(from, to, ALL).unwrap();
    assert_agree(&after);
    // The settlement itself, and nothing that came after it.
    assert_eq!(
        (after.settlements, after.entries_read),
        (1, before.entries_read + 1)
    );
}

#[test]
fn a_row_that_was_changed_is_told_with_its_tenant_and_meter() {
    let (dir, clock, ledger) = filled();
    ledger.close().unwrap();
    let store = Store::open(&dir.path().join("view"), 1 << 20).unwrap();
    let mark = store.head().unwrap().unwrap();
    // The second day of one tenant, less one execution and one microsecond.
    let at = MONDAY + 24 * HOUR;
    let number = crate::view::row::number(Grain::Day, at);
    let key = |number| crate::view::row::start("acme", Grain::Day, number);
    let (name, value) = store
        .scan(key(number), key(number + 1))
        .next()
        .unwrap()
        .unwrap();
    let mut row = Row::decode(&value).unwrap();
    row.slots[0].sums.usage.executions -= 1;
    row.slots[0].sums.usage.cpu_us -= 1;
    let mut changed = Vec::new();
    row.append(&mut changed);
    store
        .commit([(name.as_ref(), changed.as_slice())].into_iter(), &mark)
        .unwrap();
    drop(store);
    let ledger = open(dir.path(), &clock);
    let found = ledger.reconcile(MONDAY, MONDAY + 72 * HOUR, ALL).unwrap();
    let told: Vec<_> = found
        .range_differences
        .iter()
        .map(|pair| (pair.meter, pair.one - pair.other))
        .collect();
    assert_eq!(told, [(Meter::Executions, 1), (Meter::CpuUs, 1)]);
    assert_eq!(found.range_differences[0].tenant.as_deref(), Some("acme"));
    // Balances are compared with months, which nobody changed; nor is another day at fault.
    assert_eq!(found.balances_differences, []);
    assert_agree(&ledger.reconcile(MONDAY, MONDAY + 24 * HOUR, ALL).unwrap());
}

#[test]
fn ranges_off_the_hour_too_long_or_too_full_are_refused() {
    let (_dir, _clock, ledger) = filled();
    let ask = |from, to, most| ledger.reconcile(from, to, most).unwrap_err();
    assert!(matches!(
        ask(MONDAY + 1, MONDAY + HOUR, ALL),
        QueryError::Border { field: "from", .. }
    ));
    assert!(matches!(
        ask(MONDAY, MONDAY + HOUR + 1, ALL),
        QueryError::Border { field: "to", .. }
    ));
    for (from, to, most) in [
        (MONDAY, MONDAY, ALL),
        (MONDAY, MONDAY + 32 * 24 * HOUR, ALL),
        (MONDAY, MONDAY + 72 * HOUR, 100),
    ] {
        assert!(
            matches!(ask(from, to, most), QueryError::Invalid { field: "to", .. }),
            "{from} {to}"
        );
    }
}

/// Money of two currencies has no sum; each tenant's own is still compared.
#[test]
fn money_of_several_currencies_is_not_added_up() {
    let (_dir, _clock, ledger) = filled();
    let told = |found: &Reconciled| found.range.iter().any(|pair| pair.meter == Meter::Cost);
    let (from, to) = (MONDAY, MONDAY + 72 * HOUR);
    assert!(told(&ledger.reconcile(from, to, ALL).unwrap()));
    let other = crate::RateCard {
        id: "euro".to_owned(),
        currency: "EUR".to_owned(),
        ..card()
    };
    let effect = Some(crate::Effect::RateCard(other));
    let recorded = ledger.now_act(crate::Act {
        effect,
        ..act("rate/euro")
    });
    recorded.unwrap();
    let found = ledger.reconcile(from, to, ALL).unwrap();
    assert_agree(&found);
    assert!(!told(&found));
    assert_eq!(executions(&found.range), 288);
}

/// Quotas of every scope and window, some in zones, with runs under way and money given back.
fn limited(ledger: &Ledger) {
    let scopes = [
        Scope::Tenant,
        Scope::Project("default".to_owned()),
        Scope::Key("key".to_owned()),
    ];
    let meters = [Meter::Executions, Meter::Cost];
    let windows = Window::ALL.into_iter();
    let quotas = windows.flat_map(|window| {
        let of = |(scope, meter): (&Scope, Meter)| crate::Quota {
            timezone: "Asia/Kathmandu".to_owned(),
            ..quota(scope.clone(), meter, window, 1 << 60)
        };
        let pairs = scopes
            .iter()
            .flat_map(|scope| meters.map(|meter| (scope, meter)));
        pairs.map(of).collect::<Vec<_>>()
    });
    let quotas: Vec<crate::Quota> = quotas.collect();
    let settings = crate::Settings::plain("acme", false, 9, &quotas);
    let effect = caught_up(ledger).counted(settings).unwrap();
    let recorded = ledger.now_act(crate::Act {
        effect: Some(effect),
        ..tenant("acme", 9, Vec::new())
    });
    recorded.unwrap();
}

#[test]
fn every_counter_of_a_quota_is_what_entries_and_holds_come_to() {
    let (_dir, clock, ledger) = filled();
    limited(&ledger);
    ledger.now_hold(hold(9_000, "acme")).unwrap();
    clock.set(MONDAY + 72 * HOUR);
    ledger.now_hold(hold(9_001, "acme")).unwrap();
    let ask = |most| ledger.reconcile(MONDAY + 71 * HOUR, MONDAY + 72 * HOUR, most);
    let found = ask(ALL).unwrap();
    assert_agree(&found);
    assert_eq!((found.limits.checked, found.limits.unchecked), (30, 0));
    // One counter of the project has lost a run.
    let lost = Amounts {
        cost: -1,
        ..Amounts::default()
    };
    let mut view = ledger.shared().view_mut();
    let acme = view.state.tenant_mut("acme").unwrap();
    let nowhere = u32::MAX;
    acme.on_places([nowhere, 1, nowhere, nowhere], clock.get(), |counters| {
        counters.adjust(&lost);
    });
    drop(view);
    let found = ask(ALL).unwrap();
    // Its minute and hour have nothing yet that could be lost.
    assert_eq!(found.limits.differences.len(), 3);
    for one in &found.limits.differences {
        assert_eq!(one.state.quota.scope, Scope::Project("default".to_owned()));
        assert_eq!(one.state.quota.meter, Meter::Cost);
        assert_eq!(one.posted, one.state.posted + 1, "{one:?}");
    }
    assert_eq!(found.balances_differences, []);
}

#[test]
fn a_month_that_is_not_its_statements_is_told() {
    let (dir, clock, ledger) = filled();
    let (from, to) = (MONDAY, MONDAY + 10 * 24 * HOUR);
    let found = ledger.reconcile(from, to, ALL).unwrap();
    assert_agree(&found);
    let periods: Vec<_> = found.months.iter().map(|month| month.period).collect();
    assert_eq!(periods, [crate::Period::of(MONDAY), crate::Period::of(to)]);
    assert!(found.months[0].totals[0].one > 0);
    ledger.close().unwrap();
    let store = Store::open(&dir.path().join("view"), 1 << 20).unwrap();
    let mark = store.head().unwrap().unwrap();
    let number = crate::view::row::number(Grain::Month, MONDAY);
    let key = |number| crate::view::row::start("acme", Grain::Month, number);
    let (name, value) = store
        .scan(key(number), key(number + 1))
        .next()
        .unwrap()
        .unwrap();
    let mut row = Row::decode(&value).unwrap();
    row.slots[0].sums.misprice(7);
    let mut changed = Vec::new();
    row.append(&mut changed);
    store
        .commit([(name.as_ref(), changed.as_slice())].into_iter(), &mark)
        .unwrap();
    drop(store);
    let ledger = open(dir.path(), &clock);
    let months = ledger.reconcile(from, to, ALL).unwrap().months;
    let told: Vec<_> = months[0]
        .differences
        .iter()
        .map(|one| one.other - one.one)
        .collect();
    assert_eq!((told, &months[1].differences), (vec![7], &Vec::new()));
    assert_eq!(months[0].differences[0].tenant.as_deref(), Some("acme"));
}
