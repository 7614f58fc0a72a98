//! The ledger as its callers see it.

use std::sync::Arc;

use tempfile::TempDir;

use crate::testing::*;
use crate::*;

const DAY: i64 = 86_400_000_000;

fn open(dir: &TempDir, clock: &Arc<HandClock>) -> Ledger {
    Ledger::open(options(dir.path()), Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

fn with_tenant(quotas: Vec<Quota>) -> (TempDir, Arc<HandClock>, Ledger) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), HandClock::at(MONDAY));
    let ledger = open(&dir, &clock);
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 4, quotas)).unwrap();
    (dir, clock, ledger)
}

#[test]
fn a_run_is_held_settled_and_told() {
    let (_dir, _clock, ledger) = with_tenant(Vec::new());
    let held = ledger.now_hold(hold(1, "acme")).unwrap();
    let (card, priced_by) = ledger.rate_cards().remove(0);
    assert_eq!(
        (held.lsn, held.granted.cpu_ms, held.rate_card),
        (3, 1_000, card)
    );
    assert_eq!(priced_by.currency, "USD");
    assert_eq!(ledger.open_holds().len(), 1);
    let receipt = ledger.now_settle(settlement(1, 1_500_000)).unwrap();
    assert_eq!(
        (receipt.entry, receipt.posted.cpu_us, receipt.overrun.cpu_us),
        (3, 1_000_000, 500_000)
    );
    assert_eq!(receipt.charge.total, held.amount);
    assert!(ledger.open_holds().is_empty());
    let entry = ledger.settlement_of(id(1 | 1 << 63)).unwrap().unwrap();
    assert_eq!((entry.seq, entry.at), (receipt.entry, receipt.at));
    assert_eq!(ledger.settlement_of(id(1)).unwrap(), None);
    let again = ledger.now_settle(settlement(1, 1)).unwrap_err();
    assert_eq!(again, Rejection::HoldNotOpen { hold: id(1) });
    assert_eq!(ledger.head().size, 3);
}

#[test]
fn what_waits_is_answered_in_its_order_and_kept_whatever_its_shares() {
    const RUNS: u64 = 1_500;
    let (dir, clock) = (tempfile::tempdir().unwrap(), HandClock::at(MONDAY));
    let large = || Options {
        queue: 4_096,
        batch_max: 1_024,
        segment_bytes: 1 << 20,
        ..options(dir.path())
    };
    let open = || Ledger::open(large(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let ledger = open();
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 2_000, Vec::new())).unwrap();
    let holds = (0..RUNS).map(|number| ledger.hold(hold(number, "acme")).unwrap());
    let holds: Vec<_> = holds.collect();
    for (hold, lsn) in holds.into_iter().zip(3..) {
        assert_eq!(hold.wait().unwrap().unwrap().lsn, lsn);
    }
    let settles = (0..RUNS).map(|number| ledger.settle(settlement(number, 5)).unwrap());
    let settles: Vec<_> = settles.collect();
    for (settle, entry) in settles.into_iter().zip(3..) {
        assert_eq!(settle.wait().unwrap().unwrap().entry, entry);
    }
    let head = caught_up(&ledger).head();
    assert_eq!((head.size, head.lsn), (RUNS + 2, 2 * RUNS + 2));
    ledger.close().unwrap();
    assert_eq!(open().head(), head);
}

#[test]
fn a_released_hold_charges_nothing_and_gives_everything_back() {
    let quotas = vec![quota(Scope::Tenant, Meter::Executions, Window::Day, 1)];
    let (_dir, _clock, ledger) = with_tenant(quotas);
    ledger.now_hold(hold(1, "acme")).unwrap();
    let Rejection::Quota(violations) = ledger.now_hold(hold(2, "acme")).unwrap_err() else {
        panic!("refused for another reason")
    };
    assert_eq!(violations[0].cause, Cause::Held);
    assert_eq!(violations[0].resets_at, Some(MONDAY + DAY));
    ledger.now_release(id(1)).unwrap();
    ledger.now_hold(hold(2, "acme")).unwrap();
    ledger.now_settle(settlement(2, 5)).unwrap();
    let Rejection::Quota(violations) = ledger.now_hold(hold(3, "acme")).unwrap_err() else {
        panic!("refused for another reason")
    };
    assert_eq!(
        (violations[0].cause, violations[0].posted),
        (Cause::Posted, 1)
    );
    let denials = ledger.denials(Some("acme"));
    let counts: Vec<_> = denials
        .counts
        .iter()
        .map(|one| (one.cause, one.count))
        .collect();
    assert_eq!(counts, [(Cause::Posted, 1), (Cause::Held, 1)]);
    let last: Vec<_> = denials.last.iter().map(|one| one.cause).collect();
    assert_eq!(last, [Cause::Posted, Cause::Held]);
    assert!(ledger.denials(Some("other")).last.is_empty());
}

#[test]
fn quotas_begin_anew_with_their_window() {
    let quotas = vec![quota(Scope::Tenant, Meter::Executions, Window::Day, 1)];
    let (_dir, clock, ledger) = with_tenant(quotas);
    clock.set(MONDAY + DAY - 10);
    ledger.now_hold(hold(1, "acme")).unwrap();
    clock.set(MONDAY + DAY);
    ledger.now_hold(hold(2, "acme")).unwrap();
    // The first one posts in the day of its hold, not in this one.
    ledger.now_settle(settlement(1, 5)).unwrap();
    ledger.now_settle(settlement(2, 5)).unwrap();
    let state = &ledger.quotas("acme").unwrap()[0];
    assert_eq!((state.posted, state.held, state.free), (1, 0, 0));
    assert_eq!(state.resets_at, Some(MONDAY + 2 * DAY));
    clock.set(MONDAY + 2 * DAY);
    assert_eq!(ledger.quotas("acme").unwrap()[0].free, 1);
    assert_eq!(ledger.quotas("nobody"), None);
}

#[test]
fn a_retry_is_told_its_execution_and_a_refusal_consumes_no_key() {
    let (_dir, clock, ledger) = with_tenant(Vec::new());
    let key = Idempotency {
        key: [1; 32],
        fingerprint: [2; 32],
    };
    let with = |number, idempotency| HoldRequest {
        idempotency: Some(idempotency),
        ..hold(number, "acme")
    };
    let poor = HoldRequest {
        max_cost: Some(Money(1)),
        ..with(9, key)
    };
    assert!(matches!(
        ledger.now_hold(poor).unwrap_err(),
        Rejection::MaxCost { .. }
    ));
    ledger.now_hold(with(1, key)).unwrap();
    let execution = id(1 | 1 << 63);
    assert_eq!(
        ledger.now_hold(with(2, key)).unwrap_err(),
        Rejection::Replay { execution }
    );
    let other = Idempotency {
        fingerprint: [3; 32],
        ..key
    };
    let mismatch = Rejection::IdempotencyMismatch { execution };
    assert_eq!(ledger.now_hold(with(2, other)).unwrap_err(), mismatch);
    clock.set(MONDAY + DAY + 100);
    ledger.now_hold(with(2, other)).unwrap();
}

#[test]
fn the_cap_and_suspension_refuse_holds_but_not_settlements() {
    let (_dir, _clock, ledger) = with_tenant(Vec::new());
    for number in 1..=4 {
        ledger.now_hold(hold(number, "acme")).unwrap();
    }
    let refused = ledger.now_hold(hold(5, "acme")).unwrap_err();
    assert_eq!(refused, Rejection::Concurrency { cap: 4, open: 4 });
    let mut suspend = tenant("acme", 4, Vec::new());
    if let Some(Effect::Tenant { suspended, .. }) = &mut suspend.effect {
        *suspended = true;
    }
    ledger.now_act(suspend).unwrap();
    ledger.now_settle(settlement(1, 7)).unwrap();
    assert!(matches!(
        ledger.now_hold(hold(5, "acme")),
        Err(Rejection::Suspended { .. })
    ));
    assert!(matches!(
        ledger.now_hold(hold(5, "other")),
        Err(Rejection::UnknownTenant { .. })
    ));
    assert!(matches!(
        ledger.now_hold(hold(2, "acme")),
        Err(Rejection::Suspended { .. })
    ));
}

#[test]
fn documents_are_the_latest_and_guarded_by_what_the_caller_saw() {
    let (dir, clock, ledger) = with_tenant(Vec::new());
    let write = |bytes: &[u8], expect| Act {
        document: Some(bytes.to_vec()),
        expect,
        ..act("key/1")
    };
    let first = ledger.now_act(write(b"one", Some(0))).unwrap().entry;
    let conflict = Rejection::Conflict {
        subject: "key/1".to_owned(),
        seq: first,
    };
    assert_eq!(
        ledger.now_act(write(b"two", Some(0))).unwrap_err(),
        conflict
    );
    let second = ledger.now_act(write(b"two", Some(first))).unwrap().entry;
    ledger
        .now_act(Act {
            document: Some(b"x".to_vec()),
            ..act("other")
        })
        .unwrap();
    ledger.close().unwrap();
    let ledger = open(&dir, &clock);
    let found = ledger.documents("key/");
    assert_eq!(
        (found.len(), found[0].seq, &found[0].bytes[..]),
        (1, second, &b"two"[..])
    );
    ledger.now_act(write(b"", None)).unwrap();
    assert_eq!(ledger.document("key/1"), None);
    let page = ledger
        .entries(&EntryQuery {
            limit: 10,
            ..EntryQuery::default()
        })
        .unwrap();
    assert_eq!((page.entries.len(), page.next), (6, None));
}

#[test]
fn usage_is_summed_by_window_and_group_and_includes_what_is_durable() {
    let (dir, clock, ledger) = with_tenant(Vec::new());
    ledger.now_act(tenant("beta", 4, Vec::new())).unwrap();
    for (number, name, at) in [
        (1, "acme", 0),
        (2, "beta", 0),
        (3, "acme", DAY),
        (4, "acme", DAY),
    ] {
        clock.set(MONDAY + at + i64::try_from(number).unwrap());
        ledger.now_hold(hold(number, name)).unwrap();
        ledger.now_settle(settlement(number, 1_000)).unwrap();
    }
    let query = UsageQuery {
        group_by: vec![GroupBy::Tenant],
        ..usage_query(MONDAY, MONDAY + 7 * DAY, Window::Day)
    };
    let tell = |ledger: &Ledger| {
        let report = ledger.usage(&query).unwrap();
        assert_eq!(
            (report.as_of.seq, report.currency.as_deref()),
            (7, Some("USD"))
        );
        let brief = |item: UsageItem| {
            (
                item.start,
                item.group[0].clone().unwrap(),
                item.usage.executions,
            )
        };
        report.items.into_iter().map(brief).collect::<Vec<_>>()
    };
    let wanted = vec![
        (MONDAY, "acme".to_owned(), 1),
        (MONDAY, "beta".to_owned(), 1),
        (MONDAY + DAY, "acme".to_owned(), 2),
    ];
    assert_eq!(tell(&ledger), wanted);
    ledger.close().unwrap();
    assert_eq!(tell(&open(&dir, &clock)), wanted);
}

#[test]
fn pages_of_usage_join_without_gap_or_overlap() {
    let (_dir, clock, ledger) = with_tenant(Vec::new());
    for number in 1..=9 {
        clock.set(MONDAY + i64::try_from(number).unwrap() * DAY / 3);
        ledger.now_hold(hold(number, "acme")).unwrap();
        ledger.now_settle(settlement(number, 1_000)).unwrap();
    }
    let mut query = UsageQuery {
        group_by: vec![GroupBy::Meter],
        ..usage_query(MONDAY, MONDAY + 7 * DAY, Window::Hour)
    };
    let whole = ledger.usage(&query).unwrap();
    assert_eq!((whole.items.len(), whole.next_cursor), (9 * 4, None));
    query.limit = 5;
    let mut joined = Vec::new();
    loop {
        let page = ledger.usage(&query).unwrap();
        joined.extend(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(joined, whole.items);
    query.cursor = Some("zz".to_owned());
    assert!(matches!(
        ledger.usage(&query),
        Err(QueryError::Invalid {
            field: "cursor",
            ..
        })
    ));
}

#[test]
fn borders_that_are_none_are_told_with_the_nearest() {
    let (_dir, _clock, ledger) = with_tenant(Vec::new());
    let query = usage_query(MONDAY + 1, MONDAY + DAY, Window::Day);
    let Err(QueryError::Border { field, nearest }) = ledger.usage(&query) else {
        panic!("taken for a border")
    };
    assert_eq!((field, nearest), ("from", MONDAY));
    let query = usage_query(MONDAY, MONDAY + DAY - 1, Window::Day);
    let Err(QueryError::Border { field, nearest }) = ledger.usage(&query) else {
        panic!("taken for a border")
    };
    assert_eq!((field, nearest), ("to", MONDAY + DAY));
    let berlin = UsageQuery {
        timezone: "Europe/Berlin".to_owned(),
        ..usage_query(MONDAY - DAY / 24, MONDAY + 23 * DAY / 24, Window::Day)
    };
    assert!(ledger.usage(&berlin).is_ok());
}

#[test]
fn a_second_process_or_handle_is_kept_out() {
    let (dir, clock, ledger) = with_tenant(Vec::new());
    let second = Ledger::open(options(dir.path()), Arc::clone(&clock) as Arc<dyn Clock>);
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    let other = ledger.clone();
    ledger.close().unwrap();
    assert_eq!(other.hold(hold(1, "acme")).unwrap_err(), Busy::NotWritable);
    drop(other);
    open(&dir, &clock).now_hold(hold(1, "acme")).unwrap();
}

#[test]
fn a_second_currency_is_refused() {
    let (_dir, _clock, ledger) = with_tenant(Vec::new());
    let euro = RateCard {
        currency: "EUR".to_owned(),
        ..card()
    };
    let refused = ledger.now_act(Act {
        effect: Some(Effect::RateCard(euro)),
        ..act("rate/e")
    });
    assert!(matches!(
        refused,
        Err(Rejection::Invalid {
            field: "currency",
            ..
        })
    ));
}

#[test]
fn a_hold_keeps_the_price_of_its_instant() {
    let (_dir, _clock, ledger) = with_tenant(Vec::new());
    let held = ledger.now_hold(hold(1, "acme")).unwrap();
    let free = RateCard {
        prices: Vec::new(),
        effective_from: MONDAY,
        ..card()
    };
    ledger
        .now_act(Act {
            effect: Some(Effect::RateCard(free)),
            ..act("rate/f")
        })
        .unwrap();
    assert_eq!(
        ledger
            .now_settle(settlement(1, 1_000_000))
            .unwrap()
            .charge
            .total,
        held.amount
    );
    assert_eq!(
        ledger.now_hold(hold(2, "acme")).unwrap().amount,
        Money::ZERO
    );
    assert_eq!(ledger.rate_cards().len(), 2);
}

#[test]
fn lag_is_the_age_of_the_oldest_command_that_is_not_included() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(MONDAY);
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    let lags = |ledger: &Ledger| {
        let health = caught_up(ledger).health();
        (health.read_lag_us, health.view_lag_us)
    };
    assert_eq!(lags(&ledger), (0, 0));
    ledger.now_act(card_act()).unwrap();
    clock.set(MONDAY + 5_000_000);
    ledger.now_act(act("later")).unwrap();
    assert_eq!(lags(&ledger), (0, 5_000_000));
    // Nothing is taken in while somebody reads.
    let shared = &ledger.inner.shared;
    let reading = shared.view();
    ledger.now_act(act("unseen")).unwrap();
    clock.set(MONDAY + 7_000_000);
    let mut lag = 0;
    for _ in 0..1_000_000 {
        lag = shared.read_lag_us(clock.get());
        if lag > 0 {
            break;
        }
        std::thread::yield_now();
    }
    drop(reading);
    assert!((1_900_000..=2_000_000).contains(&lag), "{lag}");
    assert_eq!(lags(&ledger), (0, 7_000_000));
    let segments = ledger.health().journal_segments;
    drop(ledger);
    // After a crash too, until it is written.
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    assert_eq!(lags(&ledger), (0, 7_000_000));
    assert_eq!((segments, ledger.health().journal_segments), (1, 1));
    ledger.close().unwrap();
    let ledger = Ledger::open(options(dir.path()), clock).unwrap();
    assert_eq!(lags(&ledger), (0, 0));
}
