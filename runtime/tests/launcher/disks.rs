//! Disks that are made ahead: taken, as large and as empty as others, replaced, gone at the end.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::ahead;
use crate::support::{Bed, LARGE, SMALL_DISK, config, make, until};

pub(crate) const TESTS: &[Test] = &[
    ("disk_made_ahead_is_as_large_and_as_empty", sizes),
    ("disk_made_ahead_is_of_the_class_that_is_asked_for", classes),
    ("who_is_behind_takes_no_disk_that_was_made_ahead", behind),
    ("disk_maker_that_was_killed_is_replaced", maker_killed),
];

fn ready(bed: &Bed) -> BTreeSet<String> {
    ahead::disks(bed.launcher().cast_unsigned())
}

fn most(bed: &Bed) -> usize {
    config(bed.dir.path()).disks_ahead
}

/// Waits until as many are ready as may be; those.
fn all_ready(bed: &Bed) -> BTreeSet<String> {
    until("all disks are ready", || ready(bed).len() == most(bed));
    ready(bed)
}

/// The disk maker's pid, if there is one.
fn maker(bed: &Bed) -> Option<i32> {
    let launcher = bed.launcher();
    let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
    let children = children.unwrap();
    let mut pids = children.split_whitespace();
    let pid = pids.find(|pid| ahead::is_disk_maker(pid));
    pid.map(|pid| pid.parse().unwrap())
}

fn sizes() {
    let bed = Bed::start();
    let first = bed.open(&make(1));
    let before = all_ready(&bed);
    let second = bed.open(&make(2));
    assert!(!ready(&bed).is_superset(&before), "one was taken");
    let both = [&first, &second].map(|live| live.run(&["fill"]));
    assert_eq!(both[0].0, both[1].0, "both take as many bytes");
    assert!(both.iter().all(|(_, ended)| ended.disk_full));
    let written: u64 = both[1].0.trim().parse().unwrap();
    assert!(written >= SMALL_DISK.0, "{written}");
    drop((first, second));
    bed.end();
}

fn classes() {
    let bed = Bed::start();
    let small = bed.open(&make(1));
    let before = all_ready(&bed);
    let mut request = make(2);
    request.disk_class = LARGE;
    let large = bed.open(&request);
    let (text, _) = large.run(&["fill"]);
    let written: u64 = text.trim().parse().unwrap();
    assert!(written > 2 * SMALL_DISK.0, "{written}");
    // One of the small ones has made room.
    let after = all_ready(&bed);
    let large_ones: Vec<_> = after.difference(&before).collect();
    assert_eq!(large_ones.len(), 1);
    request.sandbox = [3; 16];
    let next = bed.open(&request);
    assert!(!ready(&bed).contains(large_ones[0]));
    drop((small, large, next));
    bed.end();
}

fn behind() {
    let bed = Bed::start();
    let mut request = make(1);
    request.behind = true;
    let first = bed.open(&request);
    assert_eq!(maker(&bed), None, "none is made for it");
    let other = bed.open(&make(2));
    let before = all_ready(&bed);
    request.sandbox = [3; 16];
    let second = bed.open(&request);
    assert_eq!(ready(&bed), before);
    drop((first, other, second));
    bed.end();
}

fn maker_killed() {
    let bed = Bed::start();
    let first = bed.open(&make(1));
    all_ready(&bed);
    let killed = maker(&bed).unwrap();
    kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
    until("it is gone", || maker(&bed).is_none());
    // What it had made still does; more are made when half are taken.
    let others = [2, 3].map(|id| bed.open(&make(id)));
    all_ready(&bed);
    assert_ne!(maker(&bed), Some(killed));
    others[1].run(&["nothing"]);
    drop((first, others));
    bed.end();
}
