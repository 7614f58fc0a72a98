//! Days of closed months that have gone from the view: everything is still told, and the same.

use std::sync::Arc;

use tempfile::TempDir;

use crate::period::Period;
use crate::testing::*;
use crate::view::row::{self, Grain};
use crate::*;

const DAY: Micros = 86_400_000_000;
/// 2026-08-31T18:00:00Z: in Kathmandu it is nearly September.
const START: Micros = MONDAY - 83 * DAY - 6 * 3_600_000_000;

fn open(dir: &TempDir, clock: &Arc<HandClock>, detail_months: u32) -> Ledger {
    let options = Options {
        detail_months,
        ..options(dir.path())
    };
    Ledger::open(options, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

/// Runs of two tenants on every second day from September to November; August, where it begins,
/// and September closed, October not.
fn filled() -> (TempDir, Arc<HandClock>, Ledger) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), HandClock::at(START));
    let ledger = open(&dir, &clock, 0);
    ledger.now_act(card_act()).unwrap();
    for name in ["acme", "zeta"] {
        ledger.now_act(tenant(name, 1_000, Vec::new())).unwrap();
    }
    for number in 1..=40 {
        clock.set(START + i64::try_from(number).unwrap() * 2 * DAY);
        let tenant = ["acme", "zeta"][usize::try_from(number % 2).unwrap()];
        let mut request = hold(number, tenant);
        request.function = (number % 3 == 0).then(|| "thumbs".to_owned());
        ledger.now_hold(request).unwrap();
        ledger.now_settle(settlement(number, number * 100)).unwrap();
    }
    clock.set(MONDAY);
    for month in ["2026-08", "2026-09"] {
        close(&ledger, month);
    }
    (dir, clock, ledger)
}

fn close(ledger: &Ledger, month: &str) {
    let effect = Some(Effect::ClosePeriod(Period::parse(month).unwrap()));
    ledger
        .now_act(Act {
            effect,
            ..act("period")
        })
        .unwrap();
}

/// Days in the database that begin before an instant.
fn days_before(ledger: &Ledger, at: Micros) -> usize {
    let view = ledger.shared().view();
    let days = ["acme", "zeta"].map(|tenant| {
        let key = |number| row::start(tenant, Grain::Day, number);
        view.rows
            .store()
            .scan(key(0), key(row::day_number(at)))
            .count()
    });
    days.iter().sum()
}

/// All pages of every question that rows can answer.
fn told(ledger: &Ledger) -> Vec<UsageItem> {
    let month = |text: &str, zone| {
        let start = Period::parse(text).unwrap().start();
        if zone == "UTC" {
            start
        } else {
            start - 20_700_000_000
        }
    };
    let mut items = Vec::new();
    for (window, zone) in [
        (Window::Hour, "UTC"),
        (Window::Day, "UTC"),
        (Window::Month, "UTC"),
        (Window::Day, "Asia/Kathmandu"),
        (Window::Month, "Asia/Kathmandu"),
    ] {
        for group_by in [
            vec![],
            vec![GroupBy::Tenant, GroupBy::Project, GroupBy::Function],
            vec![GroupBy::Tenant, GroupBy::Meter],
        ] {
            let mut query = UsageQuery {
                timezone: zone.to_owned(),
                group_by,
                limit: 7,
                ..usage_query(month("2026-08", zone), month("2026-12", zone), window)
            };
            loop {
                let page = ledger.usage(&query).unwrap();
                items.extend(page.items);
                query.cursor = page.next_cursor;
                if query.cursor.is_none() {
                    break;
                }
            }
        }
    }
    items
}

#[test]
fn what_went_from_the_view_is_told_from_the_journal() {
    let (dir, clock, ledger) = filled();
    let before = told(&ledger);
    ledger.close().unwrap();
    let october = Period::parse("2026-10").unwrap().start();
    let ledger = open(&dir, &clock, 0);
    let (old, all) = (
        days_before(&ledger, october),
        days_before(&ledger, i64::MAX / 2),
    );
    assert_eq!((old, all), (15, 40));
    ledger.now_act(act("more")).unwrap();
    ledger.close().unwrap();
    // Three months back is August: with three kept, nothing goes.
    for (months, left) in [(3, 15), (1, 0)] {
        let ledger = open(&dir, &clock, months);
        ledger.now_act(act("more")).unwrap();
        ledger.close().unwrap();
        let ledger = open(&dir, &clock, months);
        assert_eq!(days_before(&ledger, october), left, "{months}");
        assert_eq!(days_before(&ledger, i64::MAX / 2) - left, all - old);
        assert_eq!(told(&ledger), before, "{months}");
        ledger.close().unwrap();
    }
    // To keep more again brings nothing back, and nothing is taken for all there is.
    let ledger = open(&dir, &clock, 0);
    assert_eq!(told(&ledger), before);
    let reconciled = ledger.reconcile(october - DAY, october + DAY, 1_000);
    let Err(QueryError::Invalid {
        field: "from",
        fault,
    }) = reconciled
    else {
        panic!("{reconciled:?}")
    };
    assert!(fault.contains("2026-10"), "{fault}");
    let reconciled = ledger
        .reconcile(october, october + 31 * DAY, 1_000)
        .unwrap();
    assert_eq!(reconciled.settlements, 15);
    assert_eq!(reconciled.range_differences, []);
    assert_eq!(reconciled.balances_differences, []);
    ledger.close().unwrap();
    rebuild(dir.path(), &mut |_| {}).unwrap();
    let ledger = open(&dir, &clock, 0);
    assert_eq!(days_before(&ledger, october), 15);
    assert_eq!(told(&ledger), before);
}

#[test]
fn a_month_that_is_not_closed_keeps_its_days_and_those_after_it() {
    let (dir, clock, ledger) = filled();
    clock.set(MONDAY + 40 * DAY);
    close(&ledger, "2026-11");
    let before = told(&ledger);
    ledger.close().unwrap();
    let ledger = open(&dir, &clock, 1);
    ledger.now_act(act("more")).unwrap();
    ledger.close().unwrap();
    let ledger = open(&dir, &clock, 1);
    let october = Period::parse("2026-10").unwrap().start();
    assert_eq!(days_before(&ledger, october), 0);
    // November is closed, but October before it is not.
    assert_eq!(days_before(&ledger, i64::MAX / 2), 25);
    assert_eq!(told(&ledger), before);
}

#[test]
fn days_go_while_they_are_asked_for() {
    let (dir, clock, ledger) = filled();
    let before = told(&ledger);
    ledger.close().unwrap();
    let options = Options {
        detail_months: 1,
        view_flush_ms: 10,
        ..options(dir.path())
    };
    let ledger = Ledger::open(options, clock).unwrap();
    let october = Period::parse("2026-10").unwrap().start();
    ledger.now_act(act("more")).unwrap();
    let mut rounds = 0;
    while days_before(&ledger, october) > 0 {
        assert_eq!(told(&ledger), before);
        rounds += 1;
        assert!(rounds < 10_000, "they never go");
    }
    assert_eq!(told(&ledger), before);
}
