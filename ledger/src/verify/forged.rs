//! What is whole but wrong: whichever thread finds it, the first fault is the one that is told.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::Ledger;
use crate::command::{Act, Effect};
use crate::entry::{Body, Entry, Settled};
use crate::id::Id;
use crate::journal::frame::{self, FrameBuilder};
use crate::money::Money;
use crate::record;
use crate::testing::*;

/// Settlements of the journal, of two tenants in turn.
const SETTLED: u64 = 6;

/// A journal of settlements with an act between them, a release and a hold that stays open; with a
/// `flat` card each charge depends on its run only.
fn journal(flat: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(options(dir.path()), HandClock::at(MONDAY)).unwrap();
    let mut card = card();
    card.prices[0].allowance.included = u128::from(!flat);
    let effect = Some(Effect::RateCard(card));
    let card = Act {
        effect,
        ..card_act()
    };
    ledger.now_act(card).unwrap();
    for name in ["acme", "beta"] {
        ledger.now_act(tenant(name, 9, Vec::new())).unwrap();
    }
    for number in 1..=SETTLED {
        let name = if number % 2 == 0 { "acme" } else { "beta" };
        ledger.now_hold(hold(number, name)).unwrap();
        if number == SETTLED / 2 {
            ledger.now_act(act("note")).unwrap();
            ledger.now_act(tenant("acme", 8, Vec::new())).unwrap();
        }
    }
    for number in 1..=SETTLED {
        ledger.now_settle(settlement(number, 10)).unwrap();
    }
    ledger.now_hold(hold(7, "acme")).unwrap();
    ledger.now_release(id(7)).unwrap();
    ledger.now_hold(hold(8, "beta")).unwrap();
    ledger.close().unwrap();
    dir
}

/// Writes a journal anew whose entries are as `change` makes them; says where each entry lies, as
/// its offset and the number of its command.
fn forge(dir: &Path, change: impl Fn(&mut Entry)) -> Vec<(u64, u64)> {
    let segments = walk::segments(dir).unwrap();
    let salt = segments.headers[0].salt;
    let mut frames = Vec::new();
    let mut lie = Vec::new();
    let start = Start::first(&segments);
    walk::walk(dir, &segments, start, |number, frame| {
        assert_eq!(number, 1);
        let header = frame.header;
        let mut built = FrameBuilder::new(header.first_lsn, header.next_seq, Vec::new());
        for (found, lsn) in frame::records(frame.payload).zip(header.first_lsn..) {
            let (place, bytes) = found.unwrap();
            let mut bytes = bytes.to_vec();
            if let Some(mut entry) = record::whole(&bytes).unwrap() {
                let offset = frame.offset + u64::try_from(frame::HEADER + place).unwrap();
                lie.push((offset, lsn));
                let before = bytes.len();
                change(&mut entry);
                bytes.clear();
                record::encode(&entry, &mut bytes);
                assert_eq!(bytes.len(), before);
            }
            let put = |into: &mut Vec<u8>| into.extend_from_slice(&bytes);
            built.push(usize::MAX, put).unwrap();
        }
        frames.push((frame.offset, built.finish(salt)));
        Ok(())
    })
    .unwrap();
    let file = File::options().write(true).open(segment::path(dir, 1));
    let file = file.unwrap();
    for (offset, bytes) in frames {
        file.write_all_at(&bytes, offset).unwrap();
    }
    lie
}

/// How an entry can be wrong, and what is said of that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    /// For its tenant, unless the card is flat.
    Charge,
    /// Whosever it is.
    Hold,
}

impl Wrong {
    fn make(self, entry: &mut Entry) {
        let Body::Settled(settled) = &mut entry.body else {
            return;
        };
        match self {
            Self::Charge => {
                let Money(total) = &mut settled.charge.total;
                *total -= 1;
            }
            Self::Hold => Arc::make_mut(&mut settled.hold).id = Id([9; 16]),
        }
    }

    fn says(self) -> String {
        match self {
            Self::Charge => "the charge is not what the rate card says".to_owned(),
            Self::Hold => format!("hold {} is not open", Id([9; 16])),
        }
    }
}

fn fault(dir: &Path) -> Fault {
    match verify(dir, &mut |_| ()) {
        Err(VerifyError::Fault(fault)) => fault,
        other => panic!("it is forged, and that is found: {other:?}"),
    }
}

/// A way to make a settlement wrong.
type Change = fn(&mut Settled);

#[test]
fn whatever_a_settlement_says_of_its_charge_is_compared() {
    let charged = "the charge is not what the rate card says";
    let changes: [(Change, &str); 8] = [
        (|settled| settled.charge.total.0 -= 1, charged),
        (
            |settled| settled.charge.currency = "EUR".to_owned(),
            charged,
        ),
        (|settled| settled.charge.lines[0].tier += 1, charged),
        (|settled| settled.charge.lines[0].quantity -= 1, charged),
        (|settled| settled.charge.lines[0].rate.0 -= 1, charged),
        (|settled| settled.charge.lines[0].amount.0 -= 1, charged),
        (|settled| settled.posted.cpu_us -= 1, charged),
        (
            |settled| settled.overrun.wall_us = 1,
            "wall_us is not the lesser of measured and held",
        ),
    ];
    for flat in [true, false] {
        for (place, (change, says)) in changes.iter().enumerate() {
            let dir = journal(flat);
            forge(dir.path(), |entry| {
                if let Body::Settled(settled) = &mut entry.body {
                    change(settled);
                }
            });
            assert_eq!(fault(dir.path()).what, *says, "{place}, flat: {flat}");
        }
    }
}

#[test]
fn of_several_faults_the_first_is_told_whoever_finds_it() {
    for flat in [true, false] {
        each_pair(flat);
    }
}

fn each_pair(flat: bool) {
    let dir = journal(flat);
    let path = segment::path(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    let untouched = forge(dir.path(), |_entry| ());
    let verified = verify(dir.path(), &mut |_| ()).unwrap();
    assert_eq!(verified.holds_open, 1);
    let settled = verified.entries - SETTLED + 1..=verified.entries;
    for (first, second) in settled.clone().flat_map(|first| {
        let seconds = first + 1..=*settled.end();
        seconds.map(move |second| (first, second))
    }) {
        for wrong in [
            [Wrong::Charge, Wrong::Charge],
            [Wrong::Charge, Wrong::Hold],
            [Wrong::Hold, Wrong::Charge],
        ] {
            fs::write(&path, &whole).unwrap();
            forge(dir.path(), |entry| {
                for (seq, wrong) in [first, second].into_iter().zip(wrong) {
                    if entry.seq == seq {
                        wrong.make(entry);
                    }
                }
            });
            let fault = fault(dir.path());
            let (offset, lsn) = untouched[usize::try_from(first).unwrap() - 1];
            let found = (fault.segment, fault.offset, fault.lsn, fault.seq);
            assert_eq!(found, (1, offset, lsn, first), "{wrong:?}: {fault}");
            assert_eq!(fault.what, wrong[0].says());
        }
    }
}

/// The last frame but one is damaged, behind a settlement that is wrong.
#[test]
fn a_fault_of_an_entry_comes_before_damage_behind_it() {
    let dir = journal(false);
    let entries = verify(dir.path(), &mut |_| ()).unwrap().entries;
    let (wrong, damaged) = (entries - 1, entries);
    let lie = forge(dir.path(), |entry| {
        if entry.seq == wrong {
            Wrong::Charge.make(entry);
        }
    });
    let flip = |seq: u64| {
        let (offset, _) = lie[usize::try_from(seq).unwrap() - 1];
        let path = segment::path(dir.path(), 1);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset + 9).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset + 9).unwrap();
    };
    flip(damaged);
    let found = fault(dir.path());
    assert_eq!((found.seq, found.what), (wrong, Wrong::Charge.says()));
    flip(damaged);
    flip(wrong - 1);
    let found = fault(dir.path());
    assert_eq!(found.seq, wrong - 1);
    assert!(found.what.contains("damaged"), "{found}");
}

/// A tenant's settings are in force for its next hold, and not before.
#[test]
fn an_act_is_done_between_the_holds_before_and_behind_it() {
    let dir = journal(false);
    let suspends = |entry: &mut Entry| {
        if let Body::Acted(acted) = &mut entry.body
            && let Some(Effect::Tenant { concurrency, .. }) = &mut acted.effect
            && *concurrency == 8
        {
            // Of acme, one hold is open already.
            *concurrency = 1;
        }
    };
    let lie = forge(dir.path(), suspends);
    let found = fault(dir.path());
    let says = "the hold passes its tenant's concurrency, or the tenant is suspended";
    assert_eq!(found.what, says);
    // Three acts, three holds, two acts: the next one is acme's.
    assert_eq!((found.lsn, found.seq), (9, 6));
    assert!(found.offset > lie[4].0 && found.offset < lie[5].0);
}
