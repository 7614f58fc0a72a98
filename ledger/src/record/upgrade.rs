//! Each version of records, and whatever lay beside a journal of that time, opens, verifies and
//! tells the same figures; a newer version is refused and left as it is.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::old::{DECEMBER, MONDAY, version_1, version_2, version_3, version_4, write};
use super::*;
use crate::file;
use crate::index::Index;
use crate::journal::segment;
use crate::testing::{HandClock, options, settlement, usage_query};
use crate::view::store::Store;
use crate::view::{CHECKPOINT, checkpoint_path};
use crate::{GroupBy, Ledger, OpenError, Quantities, UsageQuery, VerifyError, Window, verify};

const DAY: i64 = 86_400_000_000;
/// Where November begins and ends.
const NOVEMBER: (i64, i64) = (DECEMBER - 30 * DAY, DECEMBER);

fn journal(records: &[Vec<u8>]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), records);
    dir
}

fn both() -> Vec<Vec<u8>> {
    [version_1(), version_2()].concat()
}

fn all() -> Vec<Vec<u8>> {
    [both(), version_3(), version_4()].concat()
}

fn open(dir: &Path) -> Result<Ledger, OpenError> {
    Ledger::open(options(dir), HandClock::at(DECEMBER + 10))
}

/// Files of earlier versions that are made from the journal, whole and well signed, with contents
/// that nobody may believe.
fn beside(dir: &Path) {
    let nonsense = vec![7_u64; 100];
    let put = |path: &Path, magic| fs::write(path, file::encode(magic, &nonsense)).unwrap();
    put(&checkpoint_path(dir), *b"FBXCKP01");
    put(&segment::index_path(dir, 1), *b"FBXIDX01");
    let store = Store::open(&dir.join("view"), 1 << 20).unwrap();
    let rows = [(&b"row"[..], &b"of another form"[..])];
    let mark = file::encode(*b"FBXMARK1", &nonsense);
    store.commit(rows.into_iter(), &mark).unwrap();
}

fn usage(
    ledger: &Ledger,
    from: i64,
    to: i64,
    window: Window,
) -> (Quantities, Quantities, i128, i128) {
    let query = UsageQuery {
        group_by: vec![GroupBy::Project, GroupBy::Function],
        ..usage_query(from, to, window)
    };
    let items = ledger.usage(&query).unwrap().items;
    let ran: Vec<_> = items
        .iter()
        .filter(|item| item.usage.executions > 0)
        .collect();
    assert_eq!(ran.len(), 1, "{items:?}");
    let group = ["web", "thumbs"].map(|name| Some(name.to_owned()));
    assert_eq!(ran[0].group, group);
    let adjusted = items.iter().map(|item| item.adjusted.0).sum();
    (ran[0].usage, ran[0].overrun, ran[0].cost.0, adjusted)
}

/// What version 1 says, in every way in which it can be asked.
fn is_version_1(ledger: &Ledger, adjusted: i128) {
    let used = Quantities {
        executions: 1,
        cpu_us: 500_000,
        wall_us: 1_000_000,
        memory_byte_ms: 500 << 20,
        ..Quantities::default()
    };
    let over = Quantities {
        wall_us: 7,
        ..Quantities::default()
    };
    let wanted = (used, over, 7_200_000, adjusted);
    assert_eq!(usage(ledger, MONDAY, MONDAY + DAY, Window::Hour), wanted);
    assert_eq!(usage(ledger, NOVEMBER.0, NOVEMBER.1, Window::Month), wanted);
    let cards = ledger.rate_cards();
    assert_eq!((cards.len(), cards[0].0), (1, 1));
    let prices = &cards[0].1.prices;
    assert_eq!((prices.len(), prices[2].increment), (3, 2));
    assert_eq!(prices[2].allowance.rollover_max, 3);
    let key = ledger.document("key/key_1").unwrap();
    assert_eq!((&*key.bytes, key.seq), (&b"{\"name\":\"ci\"}"[..], 5));
    let one = ledger.settlement_of(Id([101; 16])).unwrap().unwrap();
    let Body::Settled(settled) = &one.body else {
        panic!("{one:?}")
    };
    assert_eq!((one.seq, one.at), (6, MONDAY + 30));
    assert_eq!(
        (settled.funded[0].grant, settled.charge.lines.len()),
        (4, 2)
    );
    assert_eq!(settled.hold.tags[0].1, "42");
    let quota = &ledger.quotas("acme").unwrap()[0].quota;
    assert_eq!(
        (quota.name().as_str(), quota.limit),
        ("project:web/executions/day", 100)
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens a journal of version 1, checks it, ends its open hold; the root before that.
fn open_version_1(dir: &Path) -> [u8; 32] {
    let verified = verify(dir, &mut |_| {}).unwrap();
    let found = (verified.commands, verified.entries, verified.holds_open);
    assert_eq!(found, (10, 6, 1));
    assert_eq!(
        hex(&verified.root),
        "e93ccc154d5c0cc73789401983f107576e680c821ac7b6f7207da488f5b9a69e"
    );
    let ledger = open(dir).unwrap();
    assert_eq!(ledger.head().root, verified.root);
    assert_eq!(ledger.read_back().unwrap().root, verified.root);
    is_version_1(&ledger, 0);
    let terms = ledger.terms("acme").unwrap();
    // All of the gift is spent.
    assert_eq!((terms.available.0, terms.grants.len()), (0, 0));
    assert_eq!(ledger.open_holds()[0].id, Id([3; 16]));
    ledger.close().unwrap();
    verified.root
}

#[test]
fn journals_of_version_1_tell_what_they_told() {
    let dir = journal(&version_1());
    let root = open_version_1(dir.path());
    // And once more, from what the first open has made.
    assert_eq!(open_version_1(dir.path()), root);
    let ledger = open(dir.path()).unwrap();
    let mut late = settlement(0, 1_000);
    late.hold = Id([3; 16]);
    let receipt = ledger.settle(late).unwrap().wait().unwrap().unwrap();
    assert_eq!((receipt.entry, receipt.charge.total.0), (7, 214_000));
    ledger.close().unwrap();
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().entries, 7);
}

#[test]
fn journals_of_version_2_tell_what_they_told() {
    let dir = journal(&both());
    let verified = verify(dir.path(), &mut |_| {}).unwrap();
    let found = (verified.commands, verified.entries, verified.holds_open);
    assert_eq!(found, (16, 11, 0));
    assert_eq!(
        hex(&verified.root),
        "a2c8f164adf236076b46812ebc94a6b84352de59410359062d90339893a61dde"
    );
    for _ in 0..2 {
        let ledger = open(dir.path()).unwrap();
        assert_eq!(ledger.head().root, verified.root);
        is_version_1(&ledger, -900_000);
        let november = ledger
            .periods()
            .into_iter()
            .find(|period| period.period == crate::Period::of(MONDAY));
        assert!(matches!(november.unwrap().phase, crate::Phase::Closed(_)));
        ledger.close().unwrap();
    }
}

#[test]
fn journals_of_version_3_tell_what_they_told() {
    let dir = journal(&[both(), version_3()].concat());
    let verified = verify(dir.path(), &mut |_| {}).unwrap();
    assert_eq!((verified.commands, verified.entries), (17, 12));
    for _ in 0..2 {
        let ledger = open(dir.path()).unwrap();
        assert_eq!(ledger.head().root, verified.root);
        // It is opened after the change.
        let quotas = ledger.quotas("acme").unwrap();
        assert_eq!((quotas.len(), quotas[0].quota.limit), (1, 70));
        ledger.close().unwrap();
    }
}

#[test]
fn journals_of_version_4_tell_what_they_told() {
    let dir = journal(&all());
    let verified = verify(dir.path(), &mut |_| {}).unwrap();
    assert_eq!((verified.commands, verified.entries), (19, 14));
    let bounds = crate::ScopeBounds {
        in_all: 900,
        per_tenant: 70,
    };
    let options = crate::Options {
        scopes_max: bounds.in_all,
        scopes_per_tenant_max: bounds.per_tenant,
        ..options(dir.path())
    };
    for _ in 0..2 {
        let ledger = Ledger::open(options.clone(), HandClock::at(DECEMBER + 10)).unwrap();
        assert_eq!(ledger.shared().view().state.bounds, bounds);
        let quota = &ledger.quotas("acme").unwrap()[0];
        assert_eq!(quota.quota.timezone, "Europe/Berlin");
        assert_eq!((quota.posted, quota.counted_since), (0, None));
        // They are those of the options: there is nothing to record.
        assert_eq!(ledger.head().root, verified.root);
        ledger.close().unwrap();
    }
}

#[test]
fn an_audit_finds_a_window_that_has_seen_what_was_never_posted() {
    let mut records = all();
    let last = records.pop().unwrap();
    let mut entry = whole(&last).unwrap().unwrap();
    let Body::Acted(acted) = &mut entry.body else {
        panic!("the last record is no act")
    };
    let Some(Effect::Counted { before, .. }) = &mut acted.effect else {
        panic!("the last act counts no windows")
    };
    before[0].posted.executions += 1;
    let mut forged = Vec::new();
    encode(&entry, &mut forged);
    records.push(forged);
    let Err(VerifyError::Fault(fault)) = verify(journal(&records).path(), &mut |_| {}) else {
        panic!("the audit believes it")
    };
    assert!(fault.what.contains("windows"), "{fault}");
    assert_eq!(fault.seq, 14);
}

#[test]
fn what_earlier_versions_made_from_a_journal_is_made_again() {
    let dir = journal(&version_1());
    let root = open_version_1(dir.path());
    let other = journal(&version_1());
    beside(other.path());
    // What is beside a journal does not count in its audit.
    assert_eq!(open_version_1(other.path()), root);
    let read: Option<crate::view::Checkpoint> =
        file::read(&checkpoint_path(other.path()), CHECKPOINT).unwrap();
    assert_eq!(read.unwrap().state.seq, 6);
    let rebuilt = crate::rebuild(other.path(), &mut |_| {}).unwrap();
    assert_eq!((rebuilt.entries, rebuilt.rows), (6, 2));
    assert_eq!(open_version_1(other.path()), root);
}

#[test]
fn an_index_of_an_earlier_version_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = segment::index_path(dir.path(), 1);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, file::encode(*b"FBXIDX01", &Index::new(1, 1))).unwrap();
    assert_eq!(Index::read(&path).unwrap(), None);
}

/// A change of a stored type without a new version would read old journals as something else.
#[test]
fn records_are_written_as_their_version_has_always_been_written() {
    for (bytes, number) in all().into_iter().zip(1..) {
        let mut slate = Slate::default();
        let read = Stored::read_in(&bytes, &mut slate, |_hold| None);
        let read = read.unwrap_or_else(|fault| panic!("{number}: {fault}"));
        let mut written = Vec::new();
        match &read {
            Stored::Hold(..) => {
                let hold: HoldRef<'_> = body_of(body(&bytes)).unwrap();
                hold.encode(&mut written);
            }
            Stored::Release(release) => release.encode(&mut written),
            Stored::Settled(settlement, _) => {
                let hold: HoldRef<'_> = body_of(settlement.hold).unwrap();
                let mut of_hold = Vec::new();
                codec::append(&mut of_hold, &hold);
                assert_eq!(of_hold, settlement.hold, "{number}");
                settlement.encode(&mut written);
            }
            Stored::Entered(entry) => encode(entry, &mut written),
        }
        assert_eq!(written, bytes, "{number}");
        if let Some(entry) = whole(&bytes).unwrap() {
            let mut same = Vec::new();
            encode(&entry, &mut same);
            assert_eq!(same, bytes, "{number}");
        }
    }
}

#[test]
fn a_newer_version_is_refused_and_left_as_it_is() {
    let mut records = version_1();
    records[4][1] = 5;
    let dir = journal(&records);
    let path = segment::path(dir.path(), 1);
    let before = fs::read(&path).unwrap();
    let Err(VerifyError::Fault(fault)) = verify(dir.path(), &mut |_| {}) else {
        panic!("a newer version was verified")
    };
    assert!(fault.what.contains("version 5 is not known"), "{fault}");
    assert_eq!((fault.lsn, fault.seq), (5, 5));
    assert!(matches!(open(dir.path()), Err(OpenError::Ledger(_))));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!segment::path(dir.path(), 2).exists());
}
