//! Journals as each version wrote them, by code that shares nothing with today's: what must be
//! readable for ever. A new version of a record adds a journal here, and changes none.

use std::fs;
use std::path::Path;

/// 2026-11-23T00:00:00Z.
pub(super) const MONDAY: i64 = 1_795_392_000_000_000;
/// 2026-12-01T00:00:00Z.
pub(super) const DECEMBER: i64 = MONDAY + 8 * 86_400_000_000;

const SALT: u64 = 0x5eed_0001;
const SEGMENT: usize = 1 << 16;

const HOLD: u8 = 1;
const RELEASE: u8 = 2;
const ENTRY: u8 = 3;

/// Values in the encoding of postcard 1: varints, zigzag, lengths before texts and lists.
#[derive(Clone, Default)]
pub(super) struct Wire(Vec<u8>);

impl Wire {
    fn u(mut self, mut value: u128) -> Self {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap());
        self
    }

    fn i(self, value: i128) -> Self {
        self.u(u128::from_le_bytes(
            ((value << 1) ^ (value >> 127)).to_le_bytes(),
        ))
    }

    fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn bytes(self, value: &[u8]) -> Self {
        self.u(value.len().try_into().unwrap()).then(value)
    }

    fn s(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    fn then(mut self, raw: &[u8]) -> Self {
        self.0.extend_from_slice(raw);
        self
    }

    fn none(self) -> Self {
        self.byte(0)
    }

    fn some(self) -> Self {
        self.byte(1)
    }
}

/// The bytes of an id.
fn id(number: u8) -> [u8; 16] {
    [number; 16]
}

fn record(kind: u8, version: u8, body: Wire) -> Vec<u8> {
    [&[kind, version], &body.0[..]].concat()
}

fn entry(version: u8, seq: u128, at: i64, body: Wire) -> Vec<u8> {
    let head = Wire::default().u(seq).i(at.into());
    record(ENTRY, version, head.then(&body.0))
}

/// `Acted`: actor, action, subject, tenant, reason, document; the effect follows.
fn acted(action: &str, subject: &str, tenant: Option<&str>, reason: Option<&str>) -> Wire {
    let mut wire = Wire::default().u(1).s("key_admin").s(action).s(subject);
    for text in [tenant, reason] {
        wire = match text {
            Some(text) => wire.some().s(text),
            None => wire.none(),
        };
    }
    wire
}

/// `Quantities`: executions, CPU, wall, memory, egress, ingress, storage.
fn quantities(wire: Wire, runs: u128, cpu: u128, wall: u128, memory: u128) -> Wire {
    wire.u(runs).u(cpu).u(wall).u(memory).u(0).u(0).u(0)
}

/// A hold of one CPU second and 1 MiB, opened at that time.
fn hold(number: u8, at: i64, function: Option<&str>, key: Option<[u8; 32]>) -> Wire {
    let wire = Wire::default().bytes(&id(number)).bytes(&id(number + 100));
    let mut wire = wire.s("acme").s("web");
    wire = match function {
        Some(name) => wire.some().s(name),
        None => wire.none(),
    };
    wire = wire.s("key_1").s("python@sha256:00");
    wire = wire.u(1).s("cost_center").s("42");
    // Granted: cpu_ms, wall_ms, cpu_millis, memory_bytes; not reduced.
    wire = wire.u(1_000).u(1_000).u(1_000).u(1 << 20).byte(0);
    wire = quantities(wire, 1, 1_000_000, 1_000_000, 1_000 << 20);
    // What it costs at most, by the card of entry 1.
    wire = wire.i(14_200_000).u(1).i(at.into());
    match key {
        Some(key) => wire.some().bytes(&key).bytes(&[9; 32]),
        None => wire.none(),
    }
}

/// What `hold` number 1 was settled with: half a CPU second.
fn settled() -> Wire {
    let hold = hold(1, MONDAY + 20, Some("thumbs"), Some([8; 32]));
    let wire = quantities(hold, 1, 500_000, 1_000_000, 500 << 20);
    let wire = quantities(wire, 0, 0, 7, 0);
    let wire = wire.s("USD").i(7_200_000).u(2);
    // Lines: meter, tier, quantity, unit size, rate, amount.
    let wire = wire.u(0).byte(0).u(1).u(1).i(200_000).i(200_000);
    let wire = wire.u(1).byte(0).u(500_000).u(1_000_000);
    let wire = wire.i(14_000_000).i(7_000_000);
    // Paid from the grant of entry 4 as far as that reaches.
    let wire = wire.u(1).u(4).i(5_000_000);
    wire.s("exited").byte(0)
}

/// Version 1: holds, releases, settlements, acts; effects `Tenant`, `RateCard`, `Terms`, `Grant`,
/// `VoidGrant`. One record of each kind; 6 entries, one hold open.
pub(super) fn version_1() -> Vec<Vec<u8>> {
    let unit = |wire: Wire, meter, amount| wire.u(meter).u(0).i(amount).u(1).u(0).u(0);
    let card = acted("rate_card.add", "rate/standard", None, None).none();
    let card = card.some().u(1).s("standard").s("USD").i(0).u(3);
    let card = unit(unit(card, 0, 200_000), 1, 14_000_000);
    // Graduated: a tier of 10 bytes, one without end; increment 2; 5 free, 3 carried over.
    let card = card.u(4).u(1).u(2).some().u(10).i(7).none().i(3);
    let card = card.u(2).u(5).u(3);

    let tenant = acted("tenant.create", "tenant/acme", Some("acme"), None).none();
    let tenant = tenant.some().u(0).s("acme").byte(0).u(4).u(1);
    // A quota: of the project, runs, by day, UTC, limit, hard, overdraft.
    let tenant = tenant.u(1).s("web").u(0).u(2).s("UTC").u(100).u(0).u(0);

    let terms = acted("terms.set", "terms/acme", Some("acme"), Some("contract"));
    let terms = terms.none().some().u(2).s("acme").none().byte(0);

    let grant = acted("grant.add", "grant/acme", Some("acme"), Some("gift")).none();
    let grant = grant.some().u(3).s("acme").s("gift").i(5_000_000).s("USD");
    let grant = grant.byte(10).some().i(DECEMBER.into());

    let document = acted("key.create", "key/key_1", Some("acme"), None);
    let document = document.some().bytes(b"{\"name\":\"ci\"}").none();

    vec![
        entry(1, 1, MONDAY, card),
        entry(1, 2, MONDAY + 1, tenant),
        entry(1, 3, MONDAY + 2, terms),
        entry(1, 4, MONDAY + 3, grant),
        entry(1, 5, MONDAY + 4, document),
        record(HOLD, 1, hold(1, MONDAY + 20, Some("thumbs"), Some([8; 32]))),
        entry(1, 6, MONDAY + 30, Wire::default().u(0).then(&settled().0)),
        record(HOLD, 1, hold(2, MONDAY + 40, None, None)),
        record(
            RELEASE,
            1,
            Wire::default()
                .bytes(&id(2))
                .i((MONDAY + 50).into())
                .s("start_failed"),
        ),
        record(HOLD, 1, hold(3, MONDAY + 60, None, None)),
    ]
}

/// Version 2, after version 1: adjustments, and effects `ClosePeriod`, `Propose`, `Approve`,
/// `Reject`. 11 entries, no hold open, November closed.
pub(super) fn version_2() -> Vec<Vec<u8>> {
    let propose = |wire: Wire, amount| {
        let wire = wire.none().some().u(6).s("acme").s("USD");
        wire.i(amount).s("anna")
    };
    let reason = Some("slow day");
    let line = propose(
        acted("adjustment.propose", "adjustment/1", Some("acme"), reason),
        -900_000,
    );
    let line = line.u(0).s("goodwill");
    // An adjustment: proposal, author, approver, reason, tenant, currency, amount.
    let adjusted = Wire::default().u(2).u(7).s("key_admin").s("anna");
    let adjusted = adjusted
        .s("key_bert")
        .s("bert")
        .s("slow day")
        .s("acme")
        .s("USD");
    // A line; nothing funded, nothing refunded, nothing corrected.
    let adjusted = adjusted.i(-900_000).u(0).s("goodwill").u(0).i(0).none();
    let reason = Some("wrong project");
    let reversal = acted("adjustment.propose", "adjustment/2", Some("acme"), reason);
    let reversal = propose(reversal, -7_200_000).u(1).u(6).then(&settled().0);
    let reject = acted("adjustment.reject", "adjustment/2", Some("acme"), None);
    let reject = reject.none().some().u(8).u(9).s("bert");
    let close = acted("period.close", "period/2026-11", None, None);
    let close = close.none().some().u(5).u(2026 * 12 + 10);
    let release = Wire::default().bytes(&id(3));
    vec![
        entry(2, 7, MONDAY + 100, line),
        entry(2, 8, MONDAY + 110, adjusted),
        entry(2, 9, MONDAY + 120, reversal),
        entry(2, 10, MONDAY + 130, reject),
        record(RELEASE, 1, release.i((MONDAY + 140).into()).s("drained")),
        entry(2, 11, DECEMBER + 1, close),
    ]
}

/// Version 3, after version 2: effect `Settings`. 12 entries.
pub(super) fn version_3() -> Vec<Vec<u8>> {
    let settings = acted("quotas.set", "tenant/acme", Some("acme"), None).none();
    let settings = settings.some().u(9).s("acme").byte(0).u(4);
    // Caps on starts: of the tenant, none of each key.
    let settings = settings.some().u(600).none();
    let quota = |wire: Wire, limit| wire.u(1).s("web").u(0).u(2).s("UTC").u(limit).u(0).u(0);
    let settings = quota(settings.u(1), 50);
    // A change: from when on, and its quotas.
    let settings = settings.u(1).i((DECEMBER + 5).into());
    vec![entry(3, 12, DECEMBER + 2, quota(settings.u(1), 70))]
}

/// Version 4, after version 3: effects `CountScopes`, `Counted`. 14 entries.
pub(super) fn version_4() -> Vec<Vec<u8>> {
    let scopes = acted("ledger.count_scopes", "ledger/scopes", None, None).none();
    let counted = acted("quotas.set", "quotas/acme", Some("acme"), None).none();
    let counted = counted.some().u(11).s("acme").byte(0).u(4).none().none();
    // A quota: of the project, CPU time, by hour, in Berlin, limit, hard, overdraft; no change.
    let counted = counted.u(1).u(1).s("web").u(1).u(1).s("Europe/Berlin");
    let counted = counted.u(9).u(0).u(0).u(0);
    // What was posted before its hour began, and no hold was open.
    let counted = counted.u(1).u(1).s("web").u(1).s("Europe/Berlin");
    let counted = quantities(counted.i(DECEMBER.into()), 1, 500_000, 1_000_000, 500 << 20);
    vec![
        entry(4, 13, DECEMBER + 3, scopes.some().u(10).u(900).u(70)),
        entry(4, 14, DECEMBER + 4, counted.i(7_200_000).u(0)),
    ]
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(&[&SALT.to_le_bytes(), bytes].concat()).to_le_bytes()
}

/// Writes a journal of one segment (`FBXSEG01`, frames `FBXF`), a frame for each command.
pub(super) fn write(dir: &Path, records: &[Vec<u8>]) {
    let mut file = b"FBXSEG01".to_vec();
    file.extend(1_u32.to_le_bytes());
    file.extend([0; 4]);
    // The first segment's salt names the ledger.
    file.extend(SALT.to_le_bytes());
    file.extend(SALT.to_le_bytes());
    file.extend(SEGMENT.to_le_bytes());
    file.resize(60, 0);
    let crc = crc32fast::hash(&[&[0; 8], &file[..]].concat());
    file.extend(crc.to_le_bytes());
    let mut seq = 1_u64;
    for (record, lsn) in records.iter().zip(1_u64..) {
        let length = u32::try_from(record.len()).unwrap();
        let payload = [&length.to_le_bytes(), &record[..]].concat();
        let mut head = b"FBXF".to_vec();
        head.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        head.extend(lsn.to_le_bytes());
        head.extend(seq.to_le_bytes());
        head.extend(1_u32.to_le_bytes());
        head.extend(checksum(&payload));
        let crc = checksum(&head);
        file.extend([&head[..], &crc, &[0; 4], &payload].concat());
        file.resize(file.len().next_multiple_of(8), 0);
        file.extend(checksum(&payload));
        file.extend(b"FBXE");
        seq += u64::from(record[0] == ENTRY);
    }
    file.resize(SEGMENT, 0);
    fs::create_dir_all(dir.join("journal")).unwrap();
    fs::write(dir.join("journal/00000001.seg"), file).unwrap();
}
