//! What a crash, a bad disk or a careless hand can leave, and what an open makes of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tempfile::TempDir;

use crate::journal::Position;
use crate::journal::disk::FileDisk;
use crate::testing::faults::{FaultDisk, Faults};
use crate::testing::*;
use crate::view::store::Store;
use crate::*;

const DAY: i64 = 86_400_000_000;

fn open(dir: &Path) -> Result<Ledger, OpenError> {
    Ledger::open(options(dir), HandClock::at(MONDAY))
}

/// A ledger with `runs` settled runs and one open hold.
fn filled(runs: u64) -> (TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path()).unwrap();
    fill(&ledger, 1, runs);
    (dir, ledger)
}

fn fill(ledger: &Ledger, first: u64, runs: u64) {
    if first == 1 {
        let day = quota(Scope::Tenant, Meter::Executions, Window::Day, 1_000_000);
        ledger.now_act(card_act()).unwrap();
        ledger.now_act(tenant("acme", 4, vec![day])).unwrap();
        ledger.now_hold(hold(1_000_000, "acme")).unwrap();
    }
    let tickets: Vec<_> = (first..first + runs)
        .flat_map(|number| {
            ledger.now_hold(hold(number, "acme")).unwrap();
            ledger.settle(settlement(number, number * 1_000))
        })
        .collect();
    tickets
        .into_iter()
        .for_each(|ticket| assert!(ticket.wait().unwrap().is_ok()));
}

/// Everything that reads tell, to be compared.
fn told(ledger: &Ledger) -> impl PartialEq + std::fmt::Debug + use<> {
    let query = UsageQuery {
        group_by: vec![GroupBy::Tenant, GroupBy::Project, GroupBy::Meter],
        ..usage_query(MONDAY - DAY, MONDAY + DAY, Window::Hour)
    };
    let month = usage_query(MONDAY - 22 * DAY, MONDAY + 8 * DAY, Window::Month);
    let page = ledger
        .entries(&EntryQuery {
            limit: 1_000,
            ..EntryQuery::default()
        })
        .unwrap();
    (
        ledger.usage(&query).unwrap(),
        ledger.usage(&month).unwrap(),
        page.entries,
        ledger.open_holds(),
        ledger.quotas("acme"),
        ledger.head(),
    )
}

/// The place and the end of the last frame.
fn last_frame(dir: &Path) -> (Position, u64) {
    let segments = walk::segments(dir).unwrap();
    let mut place = None;
    let finish = walk::walk(
        dir,
        &segments,
        walk::Start::first(&segments),
        |number, frame| {
            place = Some(Position {
                segment: number,
                offset: frame.offset,
            });
            Ok(())
        },
    );
    (place.unwrap(), finish.unwrap().position.offset)
}

fn segment_file(dir: &Path, number: u32) -> File {
    File::options()
        .read(true)
        .write(true)
        .open(journal::segment::path(dir, number))
        .unwrap()
}

fn verified(dir: &Path) -> Result<Verified, VerifyError> {
    verify(dir, &mut |_| {})
}

#[test]
fn a_frame_torn_at_any_byte_is_dropped_and_nothing_else() {
    let (dir, ledger) = filled(3);
    drop(ledger);
    let (place, end) = last_frame(dir.path());
    let file = segment_file(dir.path(), place.segment);
    let mut frame = vec![0; usize::try_from(end - place.offset).unwrap()];
    file.read_exact_at(&mut frame, place.offset).unwrap();
    let whole = verified(dir.path()).unwrap();
    for cut in 0..frame.len() {
        let torn = [&frame[..cut], &vec![0; frame.len() - cut]].concat();
        file.write_all_at(&torn, place.offset).unwrap();
        // The last bytes may be zeros anyway.
        if torn == frame {
            continue;
        }
        let found = verified(dir.path()).unwrap();
        assert_eq!(found.entries, whole.entries - 1, "{cut}");
        assert!(found.torn_bytes <= u64::try_from(cut).unwrap());
        if full() || cut % 61 == 0 {
            let ledger = open(dir.path()).unwrap();
            assert_eq!(ledger.head().size, whole.entries - 1, "{cut}");
            assert_eq!(ledger.open_holds().len(), 2);
            drop(ledger);
            assert_eq!(verified(dir.path()).unwrap().torn_bytes, 0);
        }
    }
    let ledger = open(dir.path()).unwrap();
    assert_eq!(
        ledger.now_settle(settlement(3, 5)).unwrap().entry,
        whole.entries
    );
}

#[test]
fn any_flipped_bit_is_found_and_named() {
    let (dir, ledger) = filled(3);
    drop(ledger);
    let (place, end) = last_frame(dir.path());
    let file = segment_file(dir.path(), place.segment);
    let step = if full() { 1 } else { 23 };
    for bit in (0..(end + 64) * 8).step_by(step) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8)
            .unwrap();
        let Err(VerifyError::Fault(fault)) = verified(dir.path()) else {
            panic!("bit {bit} was not noticed")
        };
        assert_eq!(fault.segment, place.segment);
        assert!(fault.offset <= bit / 8, "bit {bit}: {fault}");
        assert!(bit / 8 < 64 || fault.lsn > 0, "bit {bit}: {fault}");
        file.write_all_at(&byte, bit / 8).unwrap();
    }
    assert!(verified(dir.path()).is_ok());
}

#[test]
fn a_damaged_frame_with_others_behind_it_keeps_the_ledger_closed() {
    let (dir, ledger) = filled(3);
    drop(ledger);
    let file = segment_file(dir.path(), 1);
    file.write_all_at(&[0xff; 8], 110).unwrap();
    let Err(OpenError::Ledger(Error::Corrupt { fault })) = open(dir.path()) else {
        panic!("opened over damage")
    };
    assert_eq!((fault.segment, fault.lsn), (1, 1));
    assert!(fault.what.contains("damaged"), "{fault}");
}

#[test]
fn what_was_not_closed_is_replayed() {
    let (dir, ledger) = filled(30);
    let before = told(&ledger);
    drop(ledger);
    assert!(!dir.path().join("checkpoint").exists());
    let ledger = open(dir.path()).unwrap();
    assert_eq!(told(&ledger), before);
    assert_eq!(ledger.open_holds()[0].id, id(1_000_000));
}

#[test]
fn a_closed_ledger_opens_from_its_checkpoint_alone() {
    let (dir, ledger) = filled(30);
    let before = told(&ledger);
    ledger.close().unwrap();
    let ledger = open(dir.path()).unwrap();
    let health = ledger.health();
    assert_eq!(health.checkpoint_lsn, health.durable_lsn);
    assert_eq!(health.view_lsn, health.durable_lsn);
    assert_eq!(told(&ledger), before);
}

#[test]
fn lost_and_damaged_files_beside_the_journal_are_made_again() {
    let (dir, ledger) = filled(400);
    let before = told(&ledger);
    ledger.close().unwrap();
    let path = |name: &str| dir.path().join(name);
    assert!(path("journal/00000001.idx").exists());
    let spoil: [&dyn Fn(); 7] = [
        &|| fs::remove_dir_all(path("view")).unwrap(),
        &|| fs::write(path("view/db"), [7; 4_096]).unwrap(),
        &|| fs::remove_file(path("view/conf")).unwrap(),
        &|| fs::remove_file(path("checkpoint")).unwrap(),
        &|| fs::write(path("checkpoint"), b"FBXCKP01nonsense").unwrap(),
        &|| fs::remove_file(path("journal/00000001.idx")).unwrap(),
        &|| fs::write(path("journal/00000001.idx"), b"").unwrap(),
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        spoil();
        let ledger = open(dir.path()).unwrap();
        assert_eq!(told(&ledger), before, "{number}");
        ledger.close().unwrap();
    }
}

#[test]
fn a_snapshot_that_was_not_finished_does_not_keep_it_closed() {
    let (dir, ledger) = filled(3);
    let before = told(&ledger);
    ledger.close().unwrap();
    let stray = dir.path().join("view/snap.00000000FFFFFFFF.generating");
    fs::write(&stray, b"half").unwrap();
    let ledger = open(dir.path()).unwrap();
    assert!(!stray.exists());
    assert_eq!(told(&ledger), before);
}

#[test]
fn rows_newer_than_their_head_mark_count_nothing_twice() {
    let (dir, ledger) = filled(20);
    ledger.close().unwrap();
    let view = dir.path().join("view");
    let old = Store::open(&view, 1 << 20)
        .unwrap()
        .head()
        .unwrap()
        .unwrap();
    let ledger = open(dir.path()).unwrap();
    fill(&ledger, 21, 20);
    let before = told(&ledger);
    ledger.close().unwrap();
    // As if the power had failed between the rows and the mark.
    let store = Store::open(&view, 1 << 20).unwrap();
    store.commit(std::iter::empty(), &old).unwrap();
    drop(store);
    assert_eq!(told(&open(dir.path()).unwrap()), before);
}

#[test]
fn a_journal_that_ends_before_the_checkpoint_is_refused() {
    let (dir, ledger) = filled(3);
    ledger.close().unwrap();
    let (place, end) = last_frame(dir.path());
    let zeros = vec![0; usize::try_from(end - place.offset).unwrap()];
    segment_file(dir.path(), place.segment)
        .write_all_at(&zeros, place.offset)
        .unwrap();
    assert!(matches!(
        open(dir.path()),
        Err(OpenError::Ledger(Error::Corrupt { .. }))
    ));
    assert!(matches!(verified(dir.path()), Err(VerifyError::Fault(_))));
}

#[test]
fn a_segment_that_was_being_made_is_made_again() {
    let (dir, ledger) = filled(3);
    ledger.close().unwrap();
    let last = *journal::segment::list(dir.path()).unwrap().last().unwrap();
    fs::write(journal::segment::path(dir.path(), last + 1), [0; 500]).unwrap();
    let ledger = open(dir.path()).unwrap();
    fill(&ledger, 4, 1_000);
    ledger.close().unwrap();
    assert_eq!(verified(dir.path()).unwrap().entries, 1_005);
}

#[test]
fn rebuild_makes_everything_again() {
    let (dir, ledger) = filled(400);
    let before = told(&ledger);
    ledger.close().unwrap();
    let mut last = None;
    let rebuilt = rebuild(dir.path(), &mut |progress| last = Some(progress)).unwrap();
    assert_eq!((rebuilt.entries, rebuilt.rows), (402, 2));
    assert!(rebuilt.indexes > 0);
    assert_eq!(last.unwrap().entries, 402);
    let ledger = open(dir.path()).unwrap();
    assert_eq!(ledger.health().checkpoint_lsn, ledger.health().durable_lsn);
    assert_eq!(told(&ledger), before);
    assert!(matches!(
        rebuild(dir.path(), &mut |_| {}),
        Err(Error::File { .. })
    ));
}

fn faulty() -> (TempDir, Arc<Faults>, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = Arc::new(FaultDisk(Arc::clone(&faults)));
    let ledger = Ledger::open_on(options(dir.path()), HandClock::at(MONDAY), disk).unwrap();
    fill(&ledger, 1, 3);
    (dir, faults, ledger)
}

#[test]
fn a_short_write_ends_writing_and_loses_nothing_acknowledged() {
    let (dir, faults, ledger) = faulty();
    faults.short_writes.store(true, Ordering::Release);
    let ticket = ledger.hold(hold(9, "acme")).unwrap();
    assert_eq!(ticket.wait(), Err(Failed::NotWritable));
    faults.short_writes.store(false, Ordering::Release);
    while ledger.health().writable {
        std::thread::yield_now();
    }
    assert_eq!(ledger.hold(hold(9, "acme")).unwrap_err(), Busy::NotWritable);
    assert_eq!(ledger.head().size, 5);
    drop(ledger);
    let ledger = open(dir.path()).unwrap();
    assert_eq!((ledger.head().size, ledger.open_holds().len()), (5, 1));
    fill(&ledger, 9, 3);
    drop(ledger);
    assert!(verified(dir.path()).is_ok());
}

#[test]
fn a_failed_sync_ends_writing_and_what_it_left_is_whole_or_gone() {
    let (dir, faults, ledger) = faulty();
    faults.syncs.store(true, Ordering::Release);
    let ticket = ledger.settle(settlement(1_000_000, 1)).unwrap();
    assert_eq!(ticket.wait(), Err(Failed::NotWritable));
    drop(ledger);
    // The write itself had reached the file.
    let ledger = open(dir.path()).unwrap();
    assert_eq!((ledger.head().size, ledger.open_holds().len()), (6, 0));
    drop(ledger);
    assert!(verified(dir.path()).is_ok());
}

#[test]
fn a_full_disk_refuses_holds_keeps_settling_and_goes_on_when_there_is_room() {
    let (dir, faults, ledger) = faulty();
    faults.no_room.store(true, Ordering::Release);
    let mut number = 10;
    let mut open = Vec::new();
    loop {
        match ledger.hold(hold(number, "acme")) {
            Err(busy) => {
                assert_eq!(busy, Busy::NoRoom);
                break;
            }
            Ok(ticket) => match ticket.wait() {
                Err(failed) => assert_eq!(failed, Failed::NoRoom),
                Ok(held) => {
                    held.unwrap();
                    open.push(number);
                }
            },
        }
        number += 1;
        while open.len() > 2 {
            ledger.now_settle(settlement(open.remove(0), 1)).unwrap();
        }
    }
    assert!(!open.is_empty());
    for number in open {
        ledger.now_settle(settlement(number, 1)).unwrap();
    }
    assert!(ledger.health().writable && !ledger.health().room);
    faults.no_room.store(false, Ordering::Release);
    let again = loop {
        if let Ok(ticket) = ledger.hold(hold(number, "acme")) {
            break ticket.wait();
        }
        std::thread::yield_now();
    };
    again.unwrap().unwrap();
    ledger.close().unwrap();
    assert!(verified(dir.path()).is_ok());
}

#[test]
fn the_file_disk_takes_room_and_clears() {
    use crate::journal::disk::Disk;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = FileDisk.create(&path, 10_000).unwrap();
    assert_eq!(file.write_at(&[7; 100], 50).unwrap(), 100);
    file.clear_from(60).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes.len(), bytes[59], bytes[60]), (10_000, 7, 0));
    assert!(FileDisk.create(&path, 1).is_err());
}
