//! Every entry can be proved at every size, whatever happens to the files beside the journal, and a
//! journal that was changed on the disk is noticed before anything is signed.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;

use crate::merkle::tests::naive;
use crate::merkle::{self, Hash, check};
use crate::testing::*;
use crate::*;

fn open(dir: &Path) -> Ledger {
    Ledger::open(options(dir), HandClock::at(MONDAY)).unwrap()
}

/// A ledger with two acts and `runs` settled runs, over several segments.
fn filled(runs: u64) -> (TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.now_act(card_act()).unwrap();
    ledger.now_act(tenant("acme", 4, Vec::new())).unwrap();
    run(&ledger, 1, runs);
    (dir, ledger)
}

fn run(ledger: &Ledger, first: u64, runs: u64) {
    for number in first..first + runs {
        ledger.now_hold(hold(number, "acme")).unwrap();
        ledger
            .now_settle(settlement(number, number * 1_000))
            .unwrap();
    }
}

/// The leaves as anyone can compute them from what proofs carry.
fn leaves(ledger: &Ledger) -> Vec<Hash> {
    let size = ledger.head().size;
    let bytes = |seq| ledger.prove_entry(seq, size).unwrap().unwrap().bytes;
    (1..=size).map(|seq| merkle::leaf(&bytes(seq))).collect()
}

fn place(size: u64) -> usize {
    usize::try_from(size).unwrap()
}

/// Compares roots and proofs of some sizes with a tree made in the plainest way.
fn assert_proves(ledger: &Ledger) {
    let leaves = leaves(ledger);
    let size = u64::try_from(leaves.len()).unwrap();
    let root = naive(&leaves);
    assert_eq!((ledger.head().size, ledger.head().root), (size, root));
    assert_eq!(ledger.read_back().unwrap(), ledger.head());
    for at in [1, 2, 3, 64, 100, 255, 256, 257, 300, size - 1, size] {
        let before = naive(&leaves[..place(at)]);
        assert_eq!(ledger.root_at(at).unwrap(), before, "{at}");
        let growth = ledger.prove_growth(at, size).unwrap();
        assert_eq!((growth.from_root, growth.to_root), (before, root));
        assert!(check::consistency(
            (at, &before),
            (size, &root),
            &growth.path
        ));
        for seq in [1, at.div_ceil(2), at] {
            let found = ledger.prove_entry(seq, at).unwrap().unwrap();
            assert_eq!((found.entry.seq, found.root), (seq, before));
            let leaf = leaves[place(seq - 1)];
            assert!(
                check::inclusion(&leaf, seq - 1, at, &found.path, &before),
                "{seq} {at}"
            );
        }
    }
}

#[test]
fn every_entry_is_proved_at_any_size_also_after_a_restart() {
    let (dir, ledger) = filled(400);
    assert!(
        dir.path().join("journal/00000003.seg").exists(),
        "one segment is not enough"
    );
    assert_proves(&ledger);
    // The tree grows while it is asked.
    run(&ledger, 1_000, 50);
    assert_proves(&ledger);
    ledger.close().unwrap();
    assert_proves(&open(dir.path()));
}

#[test]
fn the_stored_tree_is_made_again_when_it_is_lost_or_spoilt() {
    let (dir, ledger) = filled(400);
    assert_proves(&ledger);
    drop(ledger);
    let path = |name: &str| dir.path().join("tree").join(name);
    let flip = |name: &str, at: u64| {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path(name))
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    };
    let spoil: [&dyn Fn(); 6] = [
        &|| fs::remove_dir_all(path("")).unwrap(),
        &|| fs::remove_file(path("head")).unwrap(),
        &|| fs::write(path("head"), b"FBXTREE1nonsense").unwrap(),
        &|| fs::write(path("00"), b"").unwrap(),
        &|| flip("08", 3),
        &|| flip("00", 32 * 257),
    ];
    for spoil in spoil {
        spoil();
        assert_proves(&open(dir.path()));
    }
    // What a proof asked for first shows a flipped leaf, too.
    flip("00", 32 * 257);
    let ledger = open(dir.path());
    assert!(ledger.prove_entry(257, 300).unwrap().is_some());
    assert_proves(&ledger);
}

#[test]
fn a_journal_that_was_changed_on_the_disk_is_noticed_before_it_is_signed() {
    let (dir, ledger) = filled(3);
    assert!(ledger.read_back().is_ok());
    run(&ledger, 10, 3);
    // In the middle of what was not read back yet: the last bytes of the last frame but some.
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(dir.path().join("journal/00000001.seg"))
        .unwrap();
    let mut bytes = vec![0; 1 << 16];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    file.write_all_at(&[!bytes[last - 60]], u64::try_from(last - 60).unwrap())
        .unwrap();
    let error = ledger.read_back().unwrap_err();
    let QueryError::Read(Error::Corrupt { fault }) = error else {
        panic!("{error}")
    };
    assert_eq!((fault.segment, fault.seq), (1, 8), "{fault}");
    // Put right, it is signed again.
    file.write_all_at(&[bytes[last - 60]], u64::try_from(last - 60).unwrap())
        .unwrap();
    assert_eq!(ledger.read_back().unwrap(), ledger.head());
}

#[test]
fn sizes_and_entries_that_are_not_there_are_refused() {
    let (_dir, ledger) = filled(3);
    let field = |error: QueryError| match error {
        QueryError::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(ledger.root_at(6).unwrap_err()), "size");
    assert_eq!(field(ledger.prove_entry(1, 6).unwrap_err()), "size");
    assert_eq!(field(ledger.prove_entry(3, 2).unwrap_err()), "size");
    assert_eq!(field(ledger.prove_growth(0, 5).unwrap_err()), "from");
    assert_eq!(field(ledger.prove_growth(3, 2).unwrap_err()), "from");
    assert_eq!(field(ledger.prove_growth(3, 6).unwrap_err()), "to");
    assert_eq!(ledger.prove_entry(6, 6).unwrap(), None);
    assert_eq!(ledger.prove_entry(0, 1).unwrap(), None);
    assert_eq!(ledger.prove_entry(u64::MAX, u64::MAX).unwrap(), None);
    let empty = tempfile::tempdir().unwrap();
    let ledger = open(empty.path());
    assert_eq!(ledger.read_back().unwrap(), ledger.head());
    assert_eq!(ledger.root_at(0).unwrap(), ledger.head().root);
}
