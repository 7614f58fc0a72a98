//! Firings and deliveries: once, in bounds, and the same after a restart.

use super::*;
use crate::config::Config;

fn options() -> Options {
    Config::default_layer().webhooks
}

fn open(dir: &Path, options: &Options) -> Outbox {
    Outbox::read(dir, options.clone(), Clock::system()).unwrap()
}

fn to(tenant: &str, name: &str) -> Target {
    Target {
        tenant: Some(tenant.to_owned()),
        name: name.to_owned(),
    }
}

fn event(id: &str, to: Option<Target>) -> Event {
    Event {
        firing: Firing {
            id: id.to_owned(),
            until_us: i64::MAX,
        },
        body: format!("{{\"id\":\"{id}\"}}"),
        to,
    }
}

fn due(outbox: &Outbox) -> Option<Delivery> {
    match outbox.next() {
        Next::Send(delivery) => Some(*delivery),
        Next::Wait(_) => None,
    }
}

#[test]
fn an_event_fires_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), &options());
    let hook = to("acme", "hook");
    let both = vec![
        event("evt_1", Some(hook.clone())),
        event("evt_1", Some(hook.clone())),
        event("evt_2", None),
    ];
    assert_eq!(outbox.fire(both).unwrap(), 2);
    assert_eq!(outbox.deliveries(&hook, None, 10).len(), 1);
    // Not closed in order: it was durable when it answered.
    let outbox = open(dir.path(), &options());
    assert!(outbox.has_fired("evt_1") && outbox.has_fired("evt_2"));
    let again = vec![event("evt_1", Some(hook.clone())), event("evt_2", None)];
    assert_eq!(outbox.fire(again).unwrap(), 0);
    let delivery = due(&outbox).unwrap();
    assert_eq!(delivery.body, "{\"id\":\"evt_1\"}");
    assert!(due(&outbox).is_none());
    outbox.finish(&delivery.id, Sent::Answered(204), 0);
    outbox.close();
    let outbox = open(dir.path(), &options());
    assert!(due(&outbox).is_none());
    assert_eq!(
        outbox.deliveries(&hook, None, 10)[0].state,
        State::Delivered
    );
}

#[test]
fn a_failed_delivery_is_tried_again_and_then_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        attempts_max: 3,
        backoff_ms: 0,
        ..options()
    };
    let outbox = open(dir.path(), &options);
    let hook = to("acme", "hook");
    outbox
        .fire(vec![event("evt_1", Some(hook.clone()))])
        .unwrap();
    for sent in [
        Sent::Answered(500),
        Sent::Failed("no connection"),
        Sent::Answered(302),
    ] {
        let delivery = due(&outbox).unwrap();
        outbox.finish(&delivery.id, sent, 7);
    }
    assert!(due(&outbox).is_none());
    let dead = outbox.deliveries(&hook, None, 10).remove(0);
    assert_eq!(
        (dead.state, dead.attempts, dead.status),
        (State::Dead, 3, Some(302))
    );
    assert_eq!(
        outbox.retry(&to("other", "hook"), &dead.id),
        Err(NotAgain::Unknown)
    );
    outbox.retry(&hook, &dead.id).unwrap();
    let delivery = due(&outbox).unwrap();
    outbox.finish(&delivery.id, Sent::Answered(200), 0);
    let done = outbox.deliveries(&hook, None, 10).remove(0);
    assert_eq!((done.state, done.attempts), (State::Delivered, 4));
    assert_eq!(outbox.lag().0, 0);
}

#[test]
fn waits_double_up_to_a_bound_and_are_spread() {
    let options = Options {
        backoff_ms: 1_000,
        backoff_max_ms: 60_000,
        ..options()
    };
    for (tries, most) in [
        (1, 1_000),
        (2, 2_000),
        (3, 4_000),
        (7, 60_000),
        (64, 60_000),
        (99, 60_000),
    ] {
        let waits = [0, 1, 12_345, u64::MAX].map(|random| backoff(&options, tries, random));
        for wait in waits {
            let ms = u64::try_from(wait.as_millis()).unwrap();
            assert!((most / 2..=most).contains(&ms), "{tries}: {ms}");
        }
        assert_ne!(waits[0], waits[1], "{tries}");
    }
}

#[test]
fn one_tenant_neither_fills_the_queue_nor_takes_every_sender() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        pending_max: 5,
        pending_per_tenant_max: 3,
        concurrent_per_tenant_max: 2,
        ..options()
    };
    let outbox = open(dir.path(), &options);
    let (loud, quiet) = (to("loud", "hook"), to("quiet", "hook"));
    let many = (0..10).map(|n| event(&format!("evt_{n}"), Some(loud.clone())));
    assert_eq!(outbox.fire(many.collect()).unwrap(), 10);
    let states = |to: &Target, state| {
        let all = outbox.deliveries(to, None, 100).into_iter();
        all.filter(|one| one.state == state).count()
    };
    assert_eq!(
        (states(&loud, State::Pending), states(&loud, State::Dead)),
        (3, 7)
    );
    outbox
        .fire(vec![event("evt_q", Some(quiet.clone()))])
        .unwrap();
    let flying = [
        due(&outbox).unwrap(),
        due(&outbox).unwrap(),
        due(&outbox).unwrap(),
    ];
    assert!(
        due(&outbox).is_none(),
        "{:?}",
        outbox.options().concurrent_per_tenant_max
    );
    let of = |to: &Target| flying.iter().filter(|one| one.to == *to).count();
    assert_eq!((of(&loud), of(&quiet)), (2, 1));
    let mut dead = outbox.deliveries(&loud, None, 100).into_iter();
    let dead = dead.rfind(|one| one.state == State::Dead).unwrap();
    assert_eq!(outbox.retry(&loud, &dead.id), Err(NotAgain::Full));
}

#[test]
fn the_log_is_bounded_by_webhook_and_in_all() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        log_per_webhook_max: 3,
        log_max: 5,
        ..options()
    };
    let outbox = open(dir.path(), &options);
    let hooks = [to("a", "hook"), to("b", "hook"), to("c", "hook")];
    for (n, hook) in hooks.iter().cycle().take(15).enumerate() {
        outbox
            .fire(vec![event(&format!("evt_{n}"), Some(hook.clone()))])
            .unwrap();
        let delivery = due(&outbox).unwrap();
        outbox.finish(&delivery.id, Sent::Answered(200), 0);
    }
    let count = |outbox: &Outbox, to| outbox.deliveries(to, None, 100).len();
    let counts = hooks.each_ref().map(|hook| count(&outbox, hook));
    assert_eq!(counts.iter().sum::<usize>(), 5, "{counts:?}");
    outbox.close();
    let outbox = open(dir.path(), &options);
    assert_eq!(hooks.each_ref().map(|hook| count(&outbox, hook)), counts);
    outbox.forget(&hooks[2]);
    assert_eq!(count(&outbox, &hooks[2]), 0);
}

#[test]
fn memory_of_firings_is_bounded_and_what_cannot_fire_again_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        fired_max: 2,
        ..options()
    };
    let outbox = open(dir.path(), &options);
    let mut past = event("evt_past", None);
    past.firing.until_us = 1;
    outbox.fire(vec![past, event("evt_1", None)]).unwrap();
    outbox.fire(vec![event("evt_2", None)]).unwrap();
    assert!(!outbox.has_fired("evt_past"));
    assert!(outbox.fire(vec![event("evt_3", None)]).is_err());
    assert!(!outbox.has_fired("evt_3"));
}
