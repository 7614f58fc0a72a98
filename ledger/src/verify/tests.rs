//! No byte of a journal can change without being noticed, and the entry it is part of is named.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::calendar::DAY_US;
use crate::clock::Clock;
use crate::journal::frame;
use crate::record;
use crate::testing::*;
use crate::{Ledger, Ticket};

/// A small journal, some frames of which hold several entries, with the tree beside it read back;
/// and how many entries it has.
fn journal() -> (TempDir, u64) {
    for _ in 0..100 {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(options(dir.path()), HandClock::at(MONDAY)).unwrap();
        ledger.now_act(card_act()).unwrap();
        ledger.now_act(tenant("acme", 9, Vec::new())).unwrap();
        for number in 1..5 {
            ledger.now_hold(hold(number, "acme")).unwrap();
        }
        let settle = |number| ledger.settle(settlement(number, 10)).unwrap();
        let tickets: Vec<_> = (1..5).map(settle).collect();
        tickets
            .into_iter()
            .map(Ticket::wait)
            .for_each(|done| drop(done.unwrap().unwrap()));
        let head = ledger.read_back().unwrap();
        drop(ledger);
        // Spare segments, which every look would read in vain.
        for spare in segment::list(dir.path())
            .unwrap()
            .into_iter()
            .filter(|number| *number > 1)
        {
            fs::remove_file(segment::path(dir.path(), spare)).unwrap();
        }
        if entries(dir.path()).iter().any(|entry| entry.companions > 1) {
            return (dir, head.size);
        }
    }
    panic!("no two settlements ever came into one frame")
}

/// Where an entry lies.
struct Lies {
    seq: u64,
    bytes: std::ops::Range<u64>,
    /// Entries in its frame.
    companions: u64,
}

fn entries(dir: &Path) -> Vec<Lies> {
    let segments = walk::segments(dir).unwrap();
    let mut found = Vec::new();
    let start = Start::first(&segments);
    walk::walk(dir, &segments, start, |_, frame| {
        let records = frame::records(frame.payload).map(Option::unwrap);
        let leaves: Vec<_> = records
            .filter(|(_, record)| record::leaf(record).is_some())
            .collect();
        let companions = u64::try_from(leaves.len()).unwrap();
        for ((place, record), seq) in leaves.into_iter().zip(frame.header.next_seq..) {
            let start = frame.offset + u64::try_from(frame::HEADER + place).unwrap();
            let bytes = start..start + u64::try_from(record.len()).unwrap();
            found.push(Lies {
                seq,
                bytes,
                companions,
            });
        }
        Ok(())
    })
    .unwrap();
    found
}

/// Flips every `step`th byte up to some behind the last frame, one at a time, and gives what is
/// found to `check`.
fn flip_each(
    dir: &Path,
    step: usize,
    check: impl Fn(u64, Option<&Lies>, Result<Verified, VerifyError>),
) {
    let entries = entries(dir);
    let path = segment::path(dir, 1);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 80;
    for (at, byte) in bytes.iter().enumerate().take(end).step_by(step) {
        // A different bit each time, so that all eight are tried somewhere.
        let flipped = byte ^ (1 << (at % 8));
        let at = u64::try_from(at).unwrap();
        file.write_all_at(&[flipped], at).unwrap();
        let entry = entries.iter().find(|entry| entry.bytes.contains(&at));
        check(at, entry, verify(dir, &mut |_| ()));
        file.write_all_at(&[*byte], at).unwrap();
    }
    assert!(verify(dir, &mut |_| ()).is_ok());
}

fn fault(at: u64, found: Result<Verified, VerifyError>) -> Fault {
    match found {
        Err(VerifyError::Fault(fault)) => fault,
        other => panic!("byte {at} was flipped, and that is found: {other:?}"),
    }
}

#[test]
fn every_flipped_byte_is_found_and_the_entry_it_lies_in_is_named() {
    let (dir, _) = journal();
    flip_each(dir.path(), 1, |at, entry, found| {
        let fault = fault(at, found);
        assert_eq!(fault.segment, 1);
        assert!(fault.offset <= at, "{at}: {fault}");
        if let Some(entry) = entry {
            assert_eq!(fault.seq, entry.seq, "{at}: {fault}");
            assert!(
                fault.what.contains(&format!("entry {}", entry.seq)),
                "{at}: {fault}"
            );
        }
    });
}

/// A copy of the journal alone has no hashes to compare with: a frame with several entries is named
/// as a whole, one with a single entry by it.
#[test]
fn the_journal_alone_names_the_frame_and_its_entries() {
    let (dir, _) = journal();
    fs::remove_dir_all(crate::tree::dir(dir.path())).unwrap();
    let step = if full() { 1 } else { 11 };
    flip_each(dir.path(), step, |at, entry, found| {
        let fault = fault(at, found);
        let Some(entry) = entry else { return };
        if entry.companions == 1 {
            assert_eq!(fault.seq, entry.seq, "{at}: {fault}");
        } else {
            assert!(fault.seq <= entry.seq, "{at}: {fault}");
            assert!(fault.seq + entry.companions > entry.seq, "{at}: {fault}");
            assert!(fault.what.contains("entries "), "{at}: {fault}");
        }
    });
}

#[test]
fn roots_are_told_for_every_size_asked_that_there_is() {
    let (dir, size) = journal();
    let verified = verify_at(dir.path(), &[size, 0, 2, 2, size + 1], &mut |_| ()).unwrap();
    let sizes: Vec<u64> = verified.roots.iter().map(|(size, _)| *size).collect();
    assert_eq!(sizes, [0, 2, size]);
    assert_eq!(verified.roots[2].1, verified.root);
    let ledger = Ledger::open(options(dir.path()), HandClock::at(MONDAY)).unwrap();
    for (size, root) in verified.roots {
        assert_eq!(ledger.root_at(size).unwrap(), root);
    }
}

/// Rows are written once their day has passed, and read again where a run has ended later.
#[test]
fn a_rebuild_in_many_steps_makes_what_one_step_makes() {
    const DAYS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(MONDAY);
    let ledger = Ledger::open(options(dir.path()), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 9, Vec::new())).unwrap();
    let settle = |number| {
        let ticket = ledger.settle(settlement(number, number)).unwrap();
        ticket.wait().unwrap().unwrap();
    };
    for day in 0..DAYS {
        clock.set(MONDAY + i64::try_from(day).unwrap() * DAY_US);
        ledger.now_hold(hold(10 * day + 1, "acme")).unwrap();
        ledger.now_hold(hold(10 * day + 2, "acme")).unwrap();
        settle(10 * day + 1);
        if let Some(before) = day.checked_sub(3) {
            settle(10 * before + 2);
        }
    }
    drop(ledger);
    let made = |step| {
        let rebuilt = rebuild_by(dir.path(), step, &mut |_| ()).unwrap();
        let store = Store::open(&recover::view_path(dir.path()), CACHE_BYTES).unwrap();
        let rows: Vec<_> = store
            .scan(Vec::new(), vec![u8::MAX])
            .map(|row| row.unwrap())
            .collect();
        (rebuilt, rows, store.head().unwrap())
    };
    let once = made(u64::MAX);
    assert!(once.0.rows > DAYS && once.2.is_some());
    for step in [1, 7] {
        assert_eq!(made(step), once);
    }
}
