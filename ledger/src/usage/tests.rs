//! Windows at the odd borders of calendars, pages under writes, and the bounds of a page.

use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::calendar;
use crate::testing::*;
use crate::*;

fn us(text: &str) -> Micros {
    text.parse::<Timestamp>().unwrap().as_microsecond()
}

fn open(dir: &TempDir, clock: &Arc<HandClock>, fold_entries_max: usize) -> Ledger {
    let options = Options {
        fold_entries_max,
        ..options(dir.path())
    };
    Ledger::open(options, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

/// A ledger of one tenant at an instant.
fn begin(at: Micros, fold_entries_max: usize) -> (TempDir, Arc<HandClock>, Ledger) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), HandClock::at(at));
    let ledger = open(&dir, &clock, fold_entries_max);
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 1_000, Vec::new())).unwrap();
    (dir, clock, ledger)
}

fn run(ledger: &Ledger, clock: &HandClock, number: u64, at: Micros) {
    clock.set(at);
    let held = ledger.now_hold(hold(number, "acme")).unwrap();
    assert!(held.opened_at - at < 10, "ledger time ran ahead");
    ledger.now_settle(settlement(number, 1_000)).unwrap();
}

/// All items, page by page: start, end and executions.
fn told(ledger: &Ledger, query: &UsageQuery) -> Vec<(Micros, Micros, u64)> {
    let (mut query, mut items) = (query.clone(), Vec::new());
    loop {
        let page = ledger.usage(&query).unwrap();
        let brief = |item: &UsageItem| (item.start, item.end, item.usage.executions);
        items.extend(page.items.iter().map(brief));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return items;
        }
    }
}

/// One run just before each border, and at each one more than at the last; every window must have
/// its own, by the rows and by the entries alike.
fn windows_hold(zone_name: &str, window: Window, borders: &[&str]) {
    let borders: Vec<Micros> = borders.iter().map(|text| us(text)).collect();
    let (first, last) = (borders[0], borders[borders.len() - 1]);
    let (_dir, clock, ledger) = begin(first - 60_000_000, 1_000);
    let mut number = 1;
    for (place, border) in borders.iter().enumerate() {
        run(&ledger, &clock, number, border - 5);
        number += 1;
        for after in 0..=i64::try_from(place).unwrap() {
            run(&ledger, &clock, number, border + after * 10);
            number += 1;
        }
    }
    let mut query = UsageQuery {
        timezone: zone_name.to_owned(),
        group_by: vec![GroupBy::Tenant],
        ..usage_query(first, last, window)
    };
    let spans = borders.windows(2).zip(2..);
    let wanted: Vec<_> = spans.map(|(pair, runs)| (pair[0], pair[1], runs)).collect();
    assert_eq!(told(&ledger, &query), wanted, "{zone_name} by rows");
    query.group_by = vec![GroupBy::Image];
    assert_eq!(told(&ledger, &query), wanted, "{zone_name} by entries");
}

#[test]
fn days_have_23_and_25_hours_where_clocks_change() {
    let spring = [
        "2026-03-27T23:00:00Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T22:00:00Z",
        "2026-03-30T22:00:00Z",
    ];
    windows_hold("Europe/Berlin", Window::Day, &spring);
    let autumn = [
        "2026-10-24T22:00:00Z",
        "2026-10-25T23:00:00Z",
        "2026-10-26T23:00:00Z",
    ];
    windows_hold("Europe/Berlin", Window::Day, &autumn);
    // Half an hour, on an island.
    let lord_howe = [
        "2026-04-03T13:00:00Z",
        "2026-04-04T13:00:00Z",
        "2026-04-05T13:30:00Z",
    ];
    windows_hold("Australia/Lord_Howe", Window::Day, &lord_howe);
}

#[test]
fn months_begin_and_end_with_the_zones_days() {
    let berlin = [
        "2026-02-28T23:00:00Z",
        "2026-03-31T22:00:00Z",
        "2026-04-30T22:00:00Z",
    ];
    windows_hold("Europe/Berlin", Window::Month, &berlin);
    let kathmandu = [
        "2026-10-31T18:15:00Z",
        "2026-11-30T18:15:00Z",
        "2026-12-31T18:15:00Z",
    ];
    windows_hold("Asia/Kathmandu", Window::Month, &kathmandu);
    let kiritimati = [
        "2026-10-31T10:00:00Z",
        "2026-11-30T10:00:00Z",
        "2026-12-31T10:00:00Z",
    ];
    windows_hold("Pacific/Kiritimati", Window::Month, &kiritimati);
    for zone_name in ["UTC", "Europe/London"] {
        let leap = ["2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"];
        windows_hold(zone_name, Window::Month, &leap);
    }
    let leap_day = [
        "2028-02-28T10:00:00Z",
        "2028-02-29T10:00:00Z",
        "2028-03-01T10:00:00Z",
    ];
    windows_hold("Pacific/Kiritimati", Window::Day, &leap_day);
}

/// Liberia's clocks were 44 minutes and 30 seconds behind until 1972: no slot ends there.
#[test]
fn borders_inside_a_slot_are_exact_too() {
    let borders = [
        "1971-03-01T00:44:30Z",
        "1971-03-02T00:44:30Z",
        "1971-03-03T00:44:30Z",
    ];
    let zone = calendar::zone("Africa/Monrovia").unwrap();
    assert_eq!(
        calendar::span(&zone, Window::Day, us(borders[0]))
            .unwrap()
            .start,
        us(borders[0])
    );
    windows_hold("Africa/Monrovia", Window::Day, &borders);
}

#[test]
fn a_page_reads_a_bounded_number_of_entries_and_the_next_goes_on() {
    let (_dir, clock, ledger) = begin(MONDAY, 7);
    for number in 0..40 {
        let at = MONDAY + i64::try_from(number / 3).unwrap() * calendar::HOUR_US;
        run(
            &ledger,
            &clock,
            number + 1,
            at + i64::try_from(number).unwrap() * 1_000,
        );
    }
    let mut query = UsageQuery {
        group_by: vec![GroupBy::Tag("cost_center".to_owned())],
        ..usage_query(MONDAY, MONDAY + calendar::DAY_US, Window::Hour)
    };
    let items = told(&ledger, &query);
    assert_eq!(items.len(), 14);
    assert_eq!(items.iter().map(|item| item.2).sum::<u64>(), 40);
    // Seven entries are two hours and no more.
    let page = ledger.usage(&query).unwrap();
    assert_eq!(page.items.len(), 2);
    query.window = Window::Day;
    let Err(QueryError::Invalid { field, fault }) = ledger.usage(&query) else {
        panic!("forty entries were read")
    };
    assert_eq!(field, "from");
    assert!(fault.contains("day of more than the 7 entries"), "{fault}");
    // The rows know tenants without reading an entry.
    query.group_by = vec![GroupBy::Tenant];
    assert_eq!(told(&ledger, &query)[0].2, 40);
}

/// Segments of a few entries each, as their tags are long: more of them than a page looks into.
#[test]
fn a_page_looks_into_a_bounded_number_of_segments_and_the_next_goes_on() {
    let (dir, clock, ledger) = begin(MONDAY, 10_000);
    let text = |n: u64| format!("{n}{}", "x".repeat(250));
    for number in 1..=600 {
        clock.set(MONDAY + i64::try_from(number).unwrap() * calendar::HOUR_US / 10);
        let request = HoldRequest {
            tags: (0..8).map(|n| (text(n), text(n))).collect(),
            ..hold(number, "acme")
        };
        ledger.now_hold(request).unwrap();
        ledger.now_settle(settlement(number, 1_000)).unwrap();
    }
    let mut query = UsageQuery {
        group_by: vec![GroupBy::Key],
        ..usage_query(MONDAY, MONDAY + 3 * calendar::DAY_US, Window::Hour)
    };
    // The tail and those whose indexes are not yet files cost nothing to look into.
    let ledger = {
        ledger.close().unwrap();
        open(&dir, &clock, 10_000)
    };
    let page = ledger.usage(&query).unwrap();
    assert!(
        page.next_cursor.is_some() && page.items.len() < 60,
        "{}",
        page.items.len()
    );
    let items = told(&ledger, &query);
    assert_eq!(items.len(), 61);
    assert_eq!(items.iter().map(|item| item.2).sum::<u64>(), 600);
    (query.from, query.window) = (MONDAY - 22 * calendar::DAY_US, Window::Month);
    query.to = MONDAY + 8 * calendar::DAY_US;
    let refused = ledger.usage(&query).unwrap_err().to_string();
    assert!(refused.contains("64 journal segments"), "{refused}");
}

#[test]
fn a_page_counts_nothing_that_was_settled_after_the_first() {
    let (dir, clock, ledger) = begin(MONDAY, 20);
    for number in 1..=6 {
        let at = MONDAY + i64::try_from(number).unwrap() * calendar::HOUR_US;
        run(&ledger, &clock, number, at);
        ledger.now_hold(hold(100 + number, "acme")).unwrap();
    }
    for group in [GroupBy::Tenant, GroupBy::Key] {
        let mut query = UsageQuery {
            group_by: vec![group],
            limit: 2,
            ..usage_query(MONDAY, MONDAY + calendar::DAY_US, Window::Hour)
        };
        let first = ledger.usage(&query).unwrap();
        let before = told(&ledger, &query);
        query.cursor = first.next_cursor;
        let settled = ledger.open_holds().len();
        for held in ledger.open_holds().iter().take(3) {
            let settlement = Settlement {
                hold: held.id,
                ..settlement(0, 1_000)
            };
            ledger.now_settle(settlement).unwrap();
        }
        assert_eq!(ledger.open_holds().len() + 3, settled);
        let second = ledger.usage(&query).unwrap();
        assert_eq!((second.as_of, second.items.len()), (first.as_of, 2));
        assert_eq!(told(&ledger, &query), before[2..]);
        // A cursor outlives a restart, too.
        assert_eq!(told(&ledger, &query), before[2..]);
    }
    drop(ledger);
    let ledger = open(&dir, &clock, 20);
    let query = usage_query(MONDAY, MONDAY + calendar::DAY_US, Window::Day);
    assert_eq!(told(&ledger, &query)[0].2, 12);
}

#[test]
fn a_cursor_that_is_too_old_or_from_the_future_is_refused() {
    let (_dir, clock, ledger) = begin(MONDAY, 3);
    for number in 1..=3 {
        run(
            &ledger,
            &clock,
            number,
            MONDAY + i64::try_from(number).unwrap() * calendar::HOUR_US,
        );
    }
    let mut query = UsageQuery {
        limit: 1,
        ..usage_query(MONDAY, MONDAY + calendar::DAY_US, Window::Hour)
    };
    query.cursor = ledger.usage(&query).unwrap().next_cursor;
    for number in 4..=7 {
        run(&ledger, &clock, number, MONDAY + 4 * calendar::HOUR_US);
    }
    let refused = |ledger: &Ledger, query: &UsageQuery| match ledger.usage(query) {
        Err(QueryError::Invalid { field, fault }) => format!("{field} {fault}"),
        other => panic!("{other:?}"),
    };
    assert!(refused(&ledger, &query).starts_with("cursor is too old"));
    query.cursor = None;
    let cursor = ledger.usage(&query).unwrap().next_cursor;
    drop(ledger);
    let (_other, _, fewer) = begin(MONDAY, 3);
    query.cursor = cursor;
    assert_eq!(refused(&fewer, &query), "cursor is not one of this list");
}

#[test]
fn costs_of_two_currencies_are_never_added() {
    let (_dir, clock, ledger) = begin(MONDAY, 1_000);
    let euro = RateCard {
        id: "euro".to_owned(),
        currency: "EUR".to_owned(),
        ..card()
    };
    let effect = |effect| Act {
        effect: Some(effect),
        ..act("test")
    };
    ledger.now_act(effect(Effect::RateCard(euro))).unwrap();
    ledger.now_act(tenant("beta", 4, Vec::new())).unwrap();
    let terms = Effect::Terms {
        tenant: "beta".to_owned(),
        rate_card: Some("euro".to_owned()),
        prepaid: false,
    };
    ledger.now_act(effect(terms)).unwrap();
    run(&ledger, &clock, 1, MONDAY + 1_000);
    ledger.now_hold(hold(2, "beta")).unwrap();
    ledger.now_settle(settlement(2, 1_000)).unwrap();
    ledger.now_hold(hold(3, "beta")).unwrap();
    ledger.now_settle(settlement(3, 1_000)).unwrap();
    for group_by in [Vec::new(), vec![GroupBy::Image]] {
        let mut query = UsageQuery {
            group_by,
            by_currency: true,
            limit: 1,
            ..usage_query(MONDAY, MONDAY + calendar::DAY_US, Window::Day)
        };
        let first = ledger.usage(&query).unwrap();
        query.cursor.clone_from(&first.next_cursor);
        let second = ledger.usage(&query).unwrap();
        assert_eq!((&first.currency, &second.next_cursor), (&None, &None));
        let (euro, dollar) = (&first.items[0], &second.items[0]);
        assert_eq!(euro.currency.as_deref(), Some("EUR"));
        assert_eq!(dollar.currency.as_deref(), Some("USD"));
        assert_eq!(euro.cost.0, 2 * dollar.cost.0);
        query.cursor = None;
        query.only.tenant = Some("beta".to_owned());
        assert_eq!(
            ledger.usage(&query).unwrap().currency.as_deref(),
            Some("EUR")
        );
        query.only.tenant = None;
        query.by_currency = false;
        assert_eq!(told(&ledger, &query)[0].2, 3);
    }
}

/// A run that is settled long after its hold counts where the hold was opened; the segments
/// between have nothing of it and are not looked into.
#[test]
fn late_settlements_count_where_they_were_opened() {
    let (dir, clock, ledger) = begin(MONDAY, 1_000);
    ledger.now_hold(hold(1, "acme")).unwrap();
    for number in 2..=900 {
        run(
            &ledger,
            &clock,
            number,
            MONDAY + calendar::DAY_US + i64::try_from(number).unwrap() * 100,
        );
    }
    ledger.now_settle(settlement(1, 1_000)).unwrap();
    let check = |ledger: &Ledger| {
        let mut query = UsageQuery {
            group_by: vec![GroupBy::Key],
            ..usage_query(MONDAY, MONDAY + 2 * calendar::DAY_US, Window::Day)
        };
        let executions = |query: &UsageQuery| {
            let told = told(ledger, query);
            told.iter().map(|item| item.2).collect::<Vec<_>>()
        };
        assert_eq!(executions(&query), [1, 899]);
        query.to = MONDAY + calendar::DAY_US;
        assert_eq!(executions(&query), [1]);
        let mut charges = ledger.charges(ChargeQuery {
            to: Some(MONDAY + calendar::DAY_US),
            ..ChargeQuery::default()
        });
        let mut found = Vec::new();
        while let Some(page) = charges.page(64).unwrap() {
            found.extend(page.iter().map(|entry| entry.seq));
        }
        assert_eq!(found, [902]);
    };
    check(&ledger);
    ledger.close().unwrap();
    check(&open(&dir, &clock, 1_000));
    let mut seqs = Vec::new();
    let last = read_entries(dir.path(), &mut |entry| {
        seqs.push(entry.seq);
        true
    });
    assert_eq!(last.unwrap(), 902);
    assert_eq!(seqs, (1..=902).collect::<Vec<_>>());
}
