//! A copy made under load has everything that was answered before it began, and is a ledger.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::journal::frame;
use crate::testing::*;
use crate::{EntryKind, EntryQuery, Ledger, verify};

fn started(dir: &Path) -> Ledger {
    let ledger = Ledger::open(options(dir), HandClock::at(MONDAY)).unwrap();
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 1_000, Vec::new())).unwrap();
    ledger
}

fn run(ledger: &Ledger, number: u64) -> u64 {
    ledger.now_hold(hold(number, "acme")).unwrap();
    ledger.now_settle(settlement(number, 10)).unwrap().entry
}

fn copied(from: &Path, to: &Path) -> Result<Copied, Error> {
    copy_journal(from, to, &mut |_| {})
}

/// The settlements of a copy, once it has been verified and opened.
fn settlements(dir: &Path) -> HashSet<u64> {
    let verified = verify(dir, &mut |_| {}).unwrap();
    assert_eq!(verified.torn_bytes, 0);
    let ledger = Ledger::open(options(dir), HandClock::at(MONDAY)).unwrap();
    assert_eq!(ledger.head().root, verified.root);
    let mut found = HashSet::new();
    let mut after = Some(0);
    while let Some(from) = after {
        let query = EntryQuery {
            after: from,
            kind: Some(EntryKind::Settled),
            limit: 1_000,
            ..EntryQuery::default()
        };
        let page = ledger.entries(&query).unwrap();
        found.extend(page.entries.iter().map(|entry| entry.seq));
        after = page.next;
    }
    // It goes on where the copy ended.
    let next = run(&ledger, 1 << 40);
    assert_eq!(next, verified.entries + 1);
    ledger.close().unwrap();
    assert_eq!(verify(dir, &mut |_| {}).unwrap().entries, next);
    found
}

#[test]
fn a_copy_under_load_has_all_that_was_answered_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = started(dir.path());
    let (stop, answered) = (AtomicBool::new(false), Mutex::new(HashSet::new()));
    let answers = || answered.lock().unwrap().clone();
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (ledger, stop, answered) = (&ledger, &stop, &answered);
            scope.spawn(move || {
                let mut number = caller << 32 | 1;
                while !stop.load(Ordering::Acquire) {
                    let entry = run(ledger, number);
                    answered.lock().unwrap().insert(entry);
                    number += 1;
                }
            });
        }
        let mut segments = 0;
        for wanted in (1..=5).map(|round| round * 200) {
            while answers().len() < wanted {
                std::thread::yield_now();
            }
            let before = answers();
            let to = tempfile::tempdir().unwrap();
            segments = copied(dir.path(), to.path()).unwrap().segments;
            let found = settlements(to.path());
            assert!(
                before.is_subset(&found),
                "{} of {}",
                found.len(),
                before.len()
            );
        }
        stop.store(true, Ordering::Release);
        assert!(segments > 3, "{segments}");
    });
}

#[test]
fn what_a_stopped_ledger_left_is_copied_to_the_last_whole_frame() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = started(dir.path());
    let entries: HashSet<u64> = (1..300).map(|number| run(&ledger, number)).collect();
    ledger.close().unwrap();
    let whole = tempfile::tempdir().unwrap();
    let all = copied(dir.path(), whole.path()).unwrap();
    let path = |number| segment::path(dir.path(), number);
    let last = File::options()
        .write(true)
        .open(path(all.segments))
        .unwrap();
    let end = end_of(dir.path(), all.segments, 0, &mut 0).unwrap();
    // The first half of a frame that was never finished.
    last.write_all_at(&frame::MAGIC, end).unwrap();
    let to = tempfile::tempdir().unwrap();
    assert_eq!(copied(dir.path(), to.path()).unwrap(), all);
    assert_eq!(settlements(to.path()), entries);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&segment::path(to.path(), 1)), 0o600);
    // Over another journal nothing is written.
    assert!(matches!(
        copied(dir.path(), to.path()),
        Err(Error::File { .. })
    ));
}

#[test]
fn a_frame_that_is_being_written_is_waited_for_and_damage_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = started(dir.path());
    let before = end_of(dir.path(), 1, LOOKS, &mut 0).unwrap();
    run(&ledger, 1);
    ledger.close().unwrap();
    let whole = end_of(dir.path(), 1, LOOKS, &mut 0).unwrap();
    let path = segment::path(dir.path(), 1);
    let file = File::options().read(true).write(true).open(path).unwrap();
    let half = before + (whole - before) / 2;
    let mut bytes = vec![0; usize::try_from(whole - half).unwrap()];
    file.read_exact_at(&mut bytes, half).unwrap();
    file.write_all_at(&vec![0; bytes.len()], half).unwrap();
    assert!(end_of(dir.path(), 1, LOOKS, &mut 0).unwrap() < whole);
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| end_of(dir.path(), 1, 5_000, &mut 0).unwrap());
        file.write_all_at(&bytes, half).unwrap();
        assert_eq!(copy.join().unwrap(), whole);
    });
    file.write_all_at(b"stray", whole + 100).unwrap();
    let found = end_of(dir.path(), 1, LOOKS, &mut 0);
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
}

#[test]
fn damage_is_not_copied_and_an_empty_ledger_is() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = started(dir.path());
    (1..300).for_each(|number| assert!(run(&ledger, number) > 0));
    ledger.close().unwrap();
    let last = segment::list(dir.path()).unwrap().len();
    for place in [segment::HEADER + 50, 20] {
        let path = segment::path(dir.path(), 2);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 1], place).unwrap();
        let to = tempfile::tempdir().unwrap();
        let Err(Error::Corrupt { fault }) = copied(dir.path(), to.path()) else {
            panic!("damage at {place} was copied")
        };
        assert_eq!(fault.segment, 2, "{fault}");
        file.write_all_at(&byte, place).unwrap();
    }
    assert!(last > 3);
    let (empty, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(Ledger::open(options(empty.path()), HandClock::at(MONDAY)).unwrap());
    let found = copied(empty.path(), to.path()).unwrap();
    assert_eq!((found.segments, found.bytes), (1, segment::HEADER));
    assert_eq!(verify(to.path(), &mut |_| {}).unwrap().entries, 0);
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(
        copied(nothing.path(), to.path()),
        Err(Error::File { .. })
    ));
}

#[test]
fn an_open_takes_the_room_that_a_copy_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = started(dir.path());
    run(&ledger, 1);
    let to = tempfile::tempdir().unwrap();
    copied(dir.path(), to.path()).unwrap();
    let blocks = |dir: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(segment::path(dir, 1)).unwrap().blocks() * 512
    };
    assert!(blocks(to.path()) < options(dir.path()).segment_bytes);
    drop(Ledger::open(options(to.path()), HandClock::at(MONDAY)).unwrap());
    assert!(blocks(to.path()) >= options(dir.path()).segment_bytes);
}
