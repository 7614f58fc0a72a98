//! Records are found again after a restart, and leave with their segments.

use std::fs;

use super::*;
use crate::record::{Encoding, ImageRef, State};

fn options() -> Options {
    Options {
        bytes_max: 1 << 20,
        age_max_s: 3_600,
        segment_bytes: 4_096,
        index_max: 1_000,
        queue_max: 100,
    }
}

pub(crate) fn record(id: Id, tenant: &str, stdout: &str) -> Arc<Record> {
    Arc::new(Record {
        id: crate::ids::text(crate::ids::Kind::Execution, &id),
        tenant: tenant.to_owned(),
        project: "default".to_owned(),
        node: "n".to_owned(),
        state: State::Finished,
        outcome: None,
        evidence: None,
        stdout: stdout.to_owned(),
        stdout_encoding: Encoding::Utf8,
        stdout_truncated: false,
        stderr: String::new(),
        stderr_encoding: Encoding::Utf8,
        stderr_truncated: false,
        output: None,
        image: ImageRef {
            name: "python".to_owned(),
            digest: String::new(),
        },
        start: None,
        limits: None,
        tags: BTreeMap::new(),
        measured: None,
        usage: None,
        overrun: None,
        charge: None,
        receipt: None,
        created_at: String::new(),
        started_at: None,
        finished_at: None,
        kept_until: None,
        trace_id: String::new(),
    })
}

fn id(n: u8) -> Id {
    [n; 16]
}

fn open(dir: &Path, options: Options) -> Records {
    Records::open(dir, options, Clock::system()).unwrap()
}

#[test]
fn records_are_read_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path(), options());
    for n in 1..=5 {
        records.keep(id(n), &record(id(n), "acme", &format!("out {n}")));
        assert_eq!(
            records.get("acme", &id(n)).unwrap().stdout,
            format!("out {n}")
        );
    }
    records.close();
    let records = open(dir.path(), options());
    assert_eq!(records.get("acme", &id(3)).unwrap().stdout, "out 3");
    assert_eq!(records.ids("acme", None, 2), [id(5), id(4)]);
    assert_eq!(records.ids("acme", Some(&id(4)), 9), [id(3), id(2), id(1)]);
}

#[test]
fn a_tenant_sees_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path(), options());
    records.keep(id(1), &record(id(1), "acme", ""));
    assert!(records.get("other", &id(1)).is_none());
    assert!(records.ids("other", None, 9).is_empty());
    assert_eq!(records.tenant_of(&id(1)).as_deref(), Some("acme"));
}

#[test]
fn the_oldest_segment_goes_whole_when_there_are_too_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Options {
        bytes_max: 10_000,
        ..options()
    };
    let records = open(dir.path(), bounds);
    for n in 1..=50 {
        records.keep(id(n), &record(id(n), "acme", &"x".repeat(1_000)));
    }
    records.close();
    let bytes: u64 = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 10_000 + 4_096, "{bytes}");
    assert!(records.get("acme", &id(1)).is_none());
    assert!(records.get("acme", &id(50)).is_some());
    assert_eq!(records.missing(0), Missing::Expired);
    assert_eq!(records.missing(i64::MAX), Missing::Lost);
}

#[test]
fn a_torn_end_is_dropped_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path(), options());
    records.keep(id(1), &record(id(1), "acme", "first"));
    records.keep(id(2), &record(id(2), "acme", "second"));
    records.close();
    let path = dir.path().join("000000000001.rec");
    let length = fs::metadata(&path).unwrap().len();
    for cut in [1, 60] {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length - cut).unwrap();
        let records = open(dir.path(), options());
        assert_eq!(records.get("acme", &id(1)).unwrap().stdout, "first");
        assert!(records.get("acme", &id(2)).is_none());
        records.keep(id(2), &record(id(2), "acme", "second"));
        records.close();
    }
    let records = open(dir.path(), options());
    assert_eq!(records.get("acme", &id(2)).unwrap().stdout, "second");
}

#[test]
fn the_index_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Options {
        index_max: 10,
        segment_bytes: 1_000,
        ..options()
    };
    let records = open(dir.path(), bounds);
    for n in 1..=100 {
        records.keep(id(n), &record(id(n), "acme", ""));
    }
    records.close();
    assert!(records.ids("acme", None, 1_000).len() <= 12);
}
