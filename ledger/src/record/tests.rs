//! Stored bytes are the same from every side, and what is not a record is told.

use super::*;
use crate::entry::Settled;
use crate::quantity::Ceiling;
use crate::rate::{Charge, ChargeLine};

#[test]
fn records_round_trip_and_reject_what_is_not_theirs() {
    let release = Release {
        hold: Id([7; 16]),
        at: -5,
        reason: "start failed".to_owned(),
    };
    let mut bytes = Vec::new();
    release.encode(&mut bytes);
    let read = |bytes: &[u8]| {
        let mut slate = Slate::default();
        Stored::read_in(bytes, &mut slate, |_hold| None).map(|stored| stored.record())
    };
    assert_eq!(read(&bytes).unwrap(), Record::Release(Arc::new(release)));
    assert_eq!(leaf(&bytes), None);
    assert_eq!(whole(&bytes), Ok(None));
    for (place, value, says) in [(0, 9, "kind 9"), (1, 5, "version 5")] {
        let mut bad = bytes.clone();
        bad[place] = value;
        assert!(read(&bad).unwrap_err().contains(says));
        assert!(whole(&bad).unwrap_err().contains(says));
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(read(&longer).unwrap_err().contains("too many"));
    assert!(read(&bytes[..bytes.len() - 1]).is_err());
    assert!(read(&[]).is_err());
}

fn hold<'a>(tenant: &'a str, function: Option<&'a str>) -> HoldRef<'a> {
    HoldRef {
        id: Id([1; 16]),
        execution: Id([2; 16]),
        run: Run {
            whose: Whose {
                tenant,
                project: "web",
                function,
            },
            key: "key",
        },
        image: "python",
        tags: vec![("cost_center", "42"), ("", "")],
        granted: Ceiling {
            cpu_ms: 1,
            wall_ms: 2,
            cpu_millis: 3,
            memory_bytes: 4,
        },
        reduced: true,
        quantities: Quantities {
            memory_byte_ms: u128::MAX,
            ..Quantities::default()
        },
        amount: Money(-1),
        rate_card: 300,
        opened_at: -7,
        idempotency: Some(Idempotency {
            key: [8; 32],
            fingerprint: [9; 32],
        }),
    }
}

fn opened(stored: &HoldRef<'_>) -> OpenHold {
    let mut bytes = Vec::new();
    stored.encode(&mut bytes);
    stored.open(body(&bytes))
}

#[test]
fn a_hold_is_the_same_bytes_alone_kept_and_in_its_settlement() {
    let stored = hold("acme", Some("f"));
    let open = opened(&stored);
    let kept = open.whole().unwrap();
    let tags = [("cost_center", "42"), ("", "")];
    assert_eq!(kept.tags, tags.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!((kept.tenant.as_str(), kept.opened_at), ("acme", -7));
    assert_eq!(open.run(), Some(stored.run));
    assert_eq!(open.whose(), Some(stored.run.whose));
    // A checkpoint holds what it held when holds were kept whole.
    let (mut of_open, mut of_kept) = (Vec::new(), Vec::new());
    codec::append(&mut of_open, &(&open, 7_u32));
    codec::append(&mut of_kept, &(&kept, 7_u32));
    assert_eq!(of_open, of_kept);
    assert_eq!(postcard::from_bytes(&of_open), Ok((open.clone(), 7_u32)));

    let charge = Charge {
        currency: "USD".to_owned(),
        total: Money(5),
        lines: Vec::new(),
    };
    let funded = [Funding {
        grant: 3,
        amount: Money(2),
    }];
    let settlement = SettlementRef {
        seq: 9,
        at: 3,
        hold: open.bytes(),
        settled: SettledRef {
            posted: &Quantities::default(),
            overrun: &stored.quantities,
            charge: &charge,
            funded: &funded,
            outcome: "exited",
            estimated: true,
        },
    };
    let mut bytes = Vec::new();
    settlement.encode(&mut bytes);
    let entry = Entry {
        seq: 9,
        at: 3,
        body: Body::Settled(Settled {
            hold: Arc::new(kept),
            posted: Quantities::default(),
            overrun: stored.quantities,
            charge: charge.clone(),
            funded: funded.to_vec(),
            outcome: "exited".to_owned(),
            estimated: true,
        }),
    };
    assert_eq!(whole(&bytes), Ok(Some(entry.clone())));
    let mut same = Vec::new();
    encode(&entry, &mut same);
    assert_eq!(same, bytes);
    let mut slate = Slate::default();
    let record = Stored::read(&bytes, &mut slate).unwrap().record();
    assert_eq!(
        record,
        Record::Settled(settlement.posting(Arc::new(open.clone())))
    );
}

#[test]
fn what_is_written_is_what_serde_writes() {
    let without = HoldRef {
        idempotency: None,
        tags: Vec::new(),
        ..hold("", None)
    };
    let long = "x".repeat(700);
    for stored in [hold("acme", Some("f")), without, hold(&long, Some(&long))] {
        let (mut written, mut wanted) = (Vec::new(), vec![KIND_HOLD, VERSION]);
        stored.encode(&mut written);
        codec::append(&mut wanted, &stored);
        assert_eq!(written, wanted);
        let (mut names, mut wanted) = (Vec::new(), Vec::new());
        stored.run.append(&mut names);
        codec::append(&mut wanted, &stored.run);
        assert_eq!(names, wanted);
        let line = ChargeLine {
            meter: Meter::CpuUs,
            tier: 200,
            quantity: 1 << 100,
            unit_size: 1 << 60,
            rate: Money(70_000),
            amount: Money(-1 << 90),
        };
        let charge = Charge {
            currency: "USD".to_owned(),
            total: Money(i128::MIN),
            lines: vec![line; 40],
        };
        let funding = Funding {
            grant: u64::MAX,
            amount: Money(2),
        };
        let settlement = SettlementRef {
            seq: 9_000,
            at: i64::MIN,
            hold: &written[PREFIX..],
            settled: SettledRef {
                posted: &stored.quantities,
                overrun: &Quantities::default(),
                charge: &charge,
                funded: &[funding; 30],
                outcome: &long,
                estimated: true,
            },
        };
        let (mut bytes, mut wanted) = (Vec::new(), vec![KIND_ENTRY, VERSION]);
        settlement.encode(&mut bytes);
        codec::append(&mut wanted, &(9_000_u64, i64::MIN, 0_u32, &stored));
        codec::append(&mut wanted, &settlement.settled);
        assert_eq!(bytes, wanted);
    }
}

/// Bytes that differ in one bit, or end early.
fn damaged(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    });
    flipped.chain((0..bytes.len()).map(|end| bytes[..end].to_vec()))
}

#[test]
fn the_quick_way_takes_what_the_long_way_takes_and_nothing_else() {
    let stored = hold("acme", Some("f"));
    let open = Arc::new(opened(&stored));
    let charge = Charge {
        currency: "USD".to_owned(),
        total: Money(-5),
        lines: vec![ChargeLine {
            meter: Meter::MemoryByteMs,
            tier: 200,
            quantity: 1 << 100,
            unit_size: 1 << 60,
            rate: Money(70_000),
            amount: Money(-1 << 90),
        }],
    };
    let funded = [Funding {
        grant: 3,
        amount: Money(2),
    }];
    let settlement = SettlementRef {
        seq: 9_000,
        at: -3,
        hold: open.bytes(),
        settled: SettledRef {
            posted: &stored.quantities,
            overrun: &Quantities::default(),
            charge: &charge,
            funded: &funded,
            outcome: "exited",
            estimated: true,
        },
    };
    let (mut of_hold, mut settled) = (Vec::new(), Vec::new());
    stored.encode(&mut of_hold);
    settlement.encode(&mut settled);
    let none = || None;
    let known = || Some(Arc::clone(&open));
    let (mut slate, mut other) = (Slate::default(), Slate::default());
    for (bytes, open_of) in [
        (&of_hold, &none as &dyn Fn() -> _),
        (&settled, &none),
        (&settled, &known),
    ] {
        let whole = quick::read(bytes, &mut slate, |_id| open_of());
        assert!(whole.is_some());
        for bad in std::iter::once(bytes.clone()).chain(damaged(bytes)) {
            let Some(taken) = quick::read(&bad, &mut slate, |_id| open_of()) else {
                continue;
            };
            let taken = taken.stored(&slate.rest);
            let long = Stored::read(&bad, &mut other).unwrap();
            assert_eq!(
                (taken.seq(), taken.record()),
                (long.seq(), long.record()),
                "{bad:?}"
            );
            match (&taken, &long) {
                (Stored::Hold(_, granted), Stored::Hold(_, other)) => assert_eq!(granted, other),
                (Stored::Settled(one, _), Stored::Settled(other, _)) => assert_eq!(one, other),
                _ => panic!("two kinds of record"),
            }
            let hold = taken.into_hold().unwrap();
            slate.keep(hold);
        }
    }
}

#[test]
fn a_glance_sees_names_and_holds() {
    let stored = hold("acme", Some("f"));
    let open = opened(&stored);
    let mut bytes = Vec::new();
    stored.encode(&mut bytes);
    assert_eq!(glance(&bytes), Some(Glance::Hold(open.all_names(), b"key")));
    bytes.truncate(PREFIX + IDS);
    assert_eq!(glance(&bytes), None);
    let mut bytes = vec![KIND_ENTRY, VERSION];
    codec::append(&mut bytes, &(1_u64, 2_i64, 0_u32));
    assert_eq!(glance(&bytes), None);
    bytes.extend_from_slice(open.bytes());
    assert_eq!(glance(&bytes), Some(Glance::Settled(stored.id)));
}

#[test]
fn stored_names_are_found_whatever_their_length_and_differ_where_names_do() {
    for length in [1, 127, 128, 300, 20_000] {
        let tenant = "x".repeat(length);
        let stored = hold(&tenant, Some("f"));
        let open = opened(&stored);
        assert_eq!(open.run(), Some(stored.run));
        assert_eq!(open.whose(), Some(stored.run.whose));
        let mut names = Vec::new();
        codec::append(&mut names, &stored.run.whose);
        assert_eq!(open.names(), names);
    }
    let names = |function| opened(&hold("acme", function)).names().to_vec();
    assert_ne!(names(None), names(Some("")));
    assert_ne!(names(Some("f")), names(Some("g")));
    assert_eq!(names(Some("f")), names(Some("f")));
}
