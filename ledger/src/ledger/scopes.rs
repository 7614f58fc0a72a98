//! Scopes past their bound are not counted until a quota names them, and all that is made from the
//! journal says so alike.

use std::sync::Arc;

use super::*;
use crate::testing::*;
use crate::{HoldRequest, Meter, Quota, Scope, Settings, Window, copy_journal, rebuild, verify};

const DAY: i64 = 86_400_000_000;

fn opened(dir: &std::path::Path, clock: &Arc<HandClock>, most: u64) -> Ledger {
    let options = Options {
        scopes_per_tenant_max: most,
        ..options(dir)
    };
    Ledger::open(options, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

fn through(number: u64, key: &str) -> HoldRequest {
    HoldRequest {
        key: key.to_owned(),
        ..hold(number, "acme")
    }
}

fn run(ledger: &Ledger, number: u64, key: &str) {
    ledger.now_hold(through(number, key)).unwrap();
    ledger.now_settle(settlement(number, 10)).unwrap();
}

fn of_key(key: &str, window: Window, limit: u128) -> Quota {
    quota(Scope::Key(key.to_owned()), Meter::Executions, window, limit)
}

fn set(ledger: &Ledger, quotas: &[Quota]) -> i64 {
    let settings = Settings::plain("acme", false, 100, quotas);
    let act = Act {
        effect: Some(caught_up(ledger).counted(settings).unwrap()),
        ..tenant("acme", 0, Vec::new())
    };
    ledger.now_act(act).unwrap().at
}

#[test]
fn scopes_past_the_bound_are_told_alike_by_all_that_is_made_from_the_journal() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), HandClock::at(MONDAY));
    let ledger = opened(dir.path(), &clock, 4);
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 100, Vec::new())).unwrap();
    for number in 0..20 {
        run(&ledger, number, &format!("k{number}"));
    }
    // Open when it is named, and never counted.
    ledger.now_hold(through(30, "k9")).unwrap();
    let windows = [Window::Day, Window::Month, Window::Lifetime];
    let few = windows.map(|window| of_key("k9", window, 2));
    let known = windows.map(|window| of_key("k0", window, 2));
    let at = set(&ledger, &[few.as_slice(), &known].concat());
    let told = ledger.quotas("acme").unwrap();
    for state in &told[..3] {
        assert_eq!((state.posted, state.held), (0, 0), "{state:?}");
        assert_eq!(state.counted_since, Some(at), "{state:?}");
    }
    for state in &told[3..] {
        assert_eq!((state.posted, state.counted_since), (1, None), "{state:?}");
    }
    ledger.now_settle(settlement(30, 10)).unwrap();
    run(&ledger, 40, "k9");
    run(&ledger, 41, "k9");
    let refused = ledger.now_hold(through(42, "k9")).unwrap_err();
    assert!(matches!(refused, Rejection::Quota(_)), "{refused:?}");
    let told = caught_up(&ledger).quotas("acme").unwrap();

    let copy = tempfile::tempdir().unwrap();
    copy_journal(dir.path(), copy.path(), &mut |_| {}).unwrap();
    let verified = verify(copy.path(), &mut |_| {}).unwrap();
    assert_eq!(verified.root, ledger.head().root);
    ledger.close().unwrap();
    verify(dir.path(), &mut |_| {}).unwrap();
    for _ in 0..2 {
        let ledger = opened(dir.path(), &clock, 4);
        assert_eq!(ledger.quotas("acme").unwrap(), told);
        ledger.close().unwrap();
        rebuild(dir.path(), &mut |_| {}).unwrap();
    }

    // The next day is counted whole; the lifetime never is. What is raised counts from then on.
    clock.set(MONDAY + DAY);
    let ledger = opened(dir.path(), &clock, 100);
    run(&ledger, 50, "k15");
    let at = set(
        &ledger,
        &[
            few.as_slice(),
            &windows.map(|window| of_key("k15", window, 9)),
        ]
        .concat(),
    );
    let told = caught_up(&ledger).quotas("acme").unwrap();
    let since: Vec<bool> = told
        .iter()
        .map(|state| state.counted_since.is_some())
        .collect();
    assert_eq!(since, [false, true, true, true, true, true]);
    assert!(told[3].counted_since.unwrap() < at && told[3].counted_since.unwrap() >= MONDAY + DAY);
    assert_eq!(told[5].posted, 1);
    ledger.close().unwrap();
    verify(dir.path(), &mut |_| {}).unwrap();
}
