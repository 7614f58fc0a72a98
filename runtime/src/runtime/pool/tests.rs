//! The pool, without any sandbox.

use super::*;

const LIMITS: WireLimits = WireLimits {
    cpu_millis: 1000,
    memory_bytes: 1 << 26,
    pids: 64,
    open_files: 100,
};

fn kind(image: u8) -> Kind {
    Kind {
        image: [image; 32],
        disk_class: 0,
        cpus: 1,
        waits: Waits::Nothing,
    }
}

fn pool(max: usize) -> Pool<u32> {
    Pool::new(PoolOptions {
        max,
        age_ms: 10 * HALF_LIFE_US / 1000,
        ..PoolOptions::default()
    })
}

/// Makes all that is wanted; how many those were.
fn fill(pool: &mut Pool<u32>, now_us: u64) -> u32 {
    let mut made = 0;
    while let Some((kind, recipe)) = pool.next(now_us, false) {
        pool.put(kind, recipe.limits, made, now_us);
        made += 1;
    }
    made
}

fn take(pool: &mut Pool<u32>, image: u8, limits: &WireLimits) -> Option<u32> {
    let taken = pool.take(kind(image), limits, false, 0);
    taken.map(|taken| taken.sandbox)
}

#[test]
fn the_kind_asked_for_last_keeps_its_least_number_for_good() {
    let mut pool = pool(100);
    pool.options.min = 3;
    pool.note(kind(1), &LIMITS, None, 0);
    assert_eq!(fill(&mut pool, 0), 3);
    pool.note(kind(2), &LIMITS, None, 1);
    assert_eq!(fill(&mut pool, 1), 3);
    let late = 9 * HALF_LIFE_US;
    assert_eq!(pool.surplus(late).len(), 3, "of the first kind");
    assert!(take(&mut pool, 2, &LIMITS).is_some());
    assert_eq!(fill(&mut pool, late), 1);
    assert_eq!(pool.ready(), 3);
}

#[test]
fn as_many_are_wanted_as_the_busiest_moment_asked_for_and_one_more() {
    let mut pool = pool(100);
    assert_eq!(fill(&mut pool, 0), 0, "nobody has asked");
    (0..5).for_each(|at| pool.note(kind(1), &LIMITS, None, at));
    assert_eq!(fill(&mut pool, 5), 6);
    pool.note(kind(1), &LIMITS, None, 10 * WINDOW_US);
    assert_eq!(fill(&mut pool, 10 * WINDOW_US), 0, "one is no burst");
    assert_eq!(take(&mut pool, 1, &LIMITS), Some(0), "the oldest");
    assert_eq!(fill(&mut pool, 10 * WINDOW_US), 1);
    assert_eq!(take(&mut pool, 2, &LIMITS), None);
    assert_eq!(pool.surplus(HALF_LIFE_US + 5).len(), 3, "2 + 1 are wanted");
    assert_eq!(pool.surplus(4 * HALF_LIFE_US).len(), 3);
    assert!(pool.shelves.is_empty());
}

#[test]
fn none_is_made_beyond_the_bound_nor_where_it_is_zero() {
    let mut all = pool(3);
    (0..9).for_each(|image| all.note(kind(image), &LIMITS, None, 0));
    assert_eq!(fill(&mut all, 0), 3);
    assert!(all.spare().is_some());
    assert_eq!(fill(&mut all, 0), 1);
    assert_eq!(all.drain().len(), 3);
    let mut none = pool(0);
    none.note(kind(1), &LIMITS, None, 0);
    assert_eq!(fill(&mut none, 0), 0);
    let mut many = pool(1);
    (0..=255).for_each(|image| many.note(kind(image), &LIMITS, None, 0));
    assert_eq!(many.shelves.len(), KINDS_MAX);
}

#[test]
fn a_crowd_leaves_a_quarter_to_those_who_have_nothing_live() {
    let mut pool = pool(8);
    (0..20).for_each(|at| pool.note(kind(1), &LIMITS, None, at));
    assert_eq!(fill(&mut pool, 20), 8);
    let mut crowd = || {
        let taken = pool.take(kind(1), &LIMITS, true, 20);
        taken.map(|taken| taken.sandbox)
    };
    assert_eq!((0..20).filter_map(|_| crowd()).count(), 6);
    assert_eq!(take(&mut pool, 1, &LIMITS), Some(6));
    assert_eq!(take(&mut pool, 1, &LIMITS), Some(7));
    assert_eq!(take(&mut pool, 1, &LIMITS), None);
}

#[test]
fn where_few_are_wanted_few_are_left_to_others() {
    let mut pool = pool(100);
    (0..2).for_each(|at| pool.note(kind(1), &LIMITS, None, at));
    assert_eq!(fill(&mut pool, 2), 3);
    let mut busy = || pool.take(kind(1), &LIMITS, true, 2).is_some();
    assert_eq!((0..3).filter(|_| busy()).count(), 3);
    pool.options.min = 8;
    assert_eq!(fill(&mut pool, 2), 8);
    let mut busy = || pool.take(kind(1), &LIMITS, true, 2).is_some();
    assert_eq!((0..9).filter(|_| busy()).count(), 6);
}

#[test]
fn while_a_crowd_waits_only_what_it_leaves_is_made() {
    let mut pool = pool(8);
    (0..20).for_each(|at| pool.note(kind(1), &LIMITS, None, at));
    let mut made = 0;
    while let Some((kind, recipe)) = pool.next(20, true) {
        pool.put(kind, recipe.limits, made, 20);
        made += 1;
    }
    assert_eq!(made, 2);
    assert_eq!(fill(&mut pool, 20), 6);
}

#[test]
fn no_kind_takes_the_room_of_all() {
    let mut pool = pool(4);
    (0..20).for_each(|at| pool.note(kind(1), &LIMITS, None, at));
    pool.note(kind(2), &LIMITS, None, 20);
    assert_eq!(fill(&mut pool, 20), 4);
    for image in [1, 2] {
        assert!(take(&mut pool, image, &LIMITS).is_some());
        assert!(take(&mut pool, image, &LIMITS).is_some());
    }
}

#[test]
fn one_that_has_fewer_open_files_does_not_do_for_more() {
    let mut pool = pool(2);
    pool.note(kind(1), &LIMITS, None, 0);
    assert_eq!(fill(&mut pool, 0), 2);
    let more = WireLimits {
        open_files: 101,
        ..LIMITS
    };
    assert_eq!(take(&mut pool, 1, &more), None);
    pool.note(kind(1), &more, None, 0);
    assert_eq!(take(&mut pool, 1, &LIMITS), Some(0));
    assert_eq!(fill(&mut pool, 0), 1);
    assert_eq!(take(&mut pool, 1, &more), Some(0), "made for the most");
}

#[test]
fn a_kind_that_cannot_be_made_is_left_alone_for_a_while() {
    let mut pool = pool(9);
    pool.note(kind(1), &LIMITS, None, 0);
    let (found, _) = pool.next(0, false).unwrap();
    assert_eq!(pool.making(), 1);
    pool.failed(found, false, 0);
    assert_eq!(fill(&mut pool, BACK_OFF_US - 1), 0);
    let (found, _) = pool.next(BACK_OFF_US, false).unwrap();
    pool.failed(found, true, BACK_OFF_US);
    assert_eq!(fill(&mut pool, BACK_OFF_US + REST_US - 1), 0);
    assert_eq!(fill(&mut pool, BACK_OFF_US + REST_US), 2);
    take(&mut pool, 1, &LIMITS).unwrap();
    pool.rest(BACK_OFF_US + REST_US);
    assert_eq!(fill(&mut pool, BACK_OFF_US + 2 * REST_US - 1), 0);
    assert_eq!(fill(&mut pool, BACK_OFF_US + 2 * REST_US), 1);
}

#[test]
fn old_ones_are_replaced() {
    let mut pool = pool(9);
    let age_us = pool.options.age_ms * 1000;
    pool.note(kind(1), &LIMITS, None, 0);
    assert_eq!(fill(&mut pool, 0), 2);
    pool.note(kind(1), &LIMITS, None, age_us + 1);
    assert_eq!(pool.surplus(age_us + 1).len(), 2);
    assert_eq!(fill(&mut pool, age_us + 1), 2);
}

#[test]
fn what_takes_much_memory_is_kept_in_small_numbers_and_by_its_limits() {
    let mut pool = pool(33);
    pool.options.min = 32;
    let node = |limits: &WireLimits| {
        let env = Vec::new();
        let waits = Waits::of(Some(&Interpreter::Node { env }), limits);
        Kind { waits, ..kind(1) }
    };
    let larger = WireLimits {
        memory_bytes: 2 * LIMITS.memory_bytes,
        ..LIMITS
    };
    pool.note(node(&LIMITS), &LIMITS, None, 0);
    assert_eq!(fill(&mut pool, 0), 2, "a sixteenth of the least number");
    for _ in 0..10 {
        pool.note(node(&LIMITS), &LIMITS, None, 0);
    }
    assert_eq!(fill(&mut pool, 0), 1, "a sixteenth of the most");
    assert!(pool.take(node(&larger), &larger, false, 0).is_none());
    assert!(pool.take(node(&LIMITS), &LIMITS, false, 0).is_some());
}
