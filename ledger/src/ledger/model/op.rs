//! The commands of the model test, at random.

use proptest::prelude::*;
use proptest::sample::Index;

use super::naive::{DAY, HOUR, MINUTE, ZONES};

/// What may happen to a ledger.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Hold {
        tenant: usize,
        project: u8,
        function: Option<u8>,
        key: u8,
        image: u8,
        tags: Vec<(u8, u8)>,
        cpu_ms: u64,
        retry: Option<u8>,
        reduce: bool,
    },
    Settle {
        which: Index,
        cpu_us: u64,
    },
    Release {
        which: Index,
    },
    Settings {
        tenant: usize,
        concurrency: u32,
        starts: (Option<u32>, Option<u32>),
        quotas: Vec<Drawn>,
        /// Microseconds after the last command or change, and the quotas from then on.
        changes: Vec<(i64, Vec<Drawn>)>,
        suspended: bool,
    },
    Document {
        subject: u8,
        bytes: Vec<u8>,
    },
    Sleep {
        us: i64,
    },
    Reopen {
        orderly: bool,
    },
}

/// A quota: scope, meter, window, zone and limit, each as a small number; its overdraft, or `None`
/// for a soft one.
pub(super) type Drawn = (u8, u8, u8, usize, u64, Option<u64>);

/// Tags of a hold: at most one value a key.
fn tags() -> impl Strategy<Value = Vec<(u8, u8)>> {
    let value = || proptest::option::of(0..2_u8);
    (value(), value()).prop_map(|(one, other)| {
        let tags = [one.map(|value| (0, value)), other.map(|value| (1, value))];
        tags.into_iter().flatten().collect()
    })
}

/// A question about usage: filters, groups, windows, zone and length of a page.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) tenant: Option<usize>,
    pub(super) project: Option<u8>,
    pub(super) function: Option<u8>,
    pub(super) key: Option<u8>,
    pub(super) image: Option<u8>,
    pub(super) tags: Vec<(u8, u8)>,
    pub(super) group_by: Vec<usize>,
    pub(super) window: usize,
    pub(super) zone: usize,
    pub(super) limit: usize,
}

/// Any question, more often than not with few filters, so that something passes.
pub(super) fn question() -> impl Strategy<Value = Question> {
    let rarely = || proptest::option::weighted(0.2, 0..2_u8);
    let filters = (
        proptest::option::weighted(0.3, 0..3_usize),
        proptest::option::weighted(0.2, 0..3_u8),
        rarely(),
        rarely(),
        rarely(),
        prop_oneof![4 => Just(Vec::new()), 1 => tags()],
    );
    let groups: Vec<usize> = (0..8).collect();
    let groups = proptest::sample::subsequence(groups, 0..=3).prop_shuffle();
    let asked = (filters, groups, 0..3_usize, 0..4_usize, 1..6_usize);
    asked.prop_map(|(filters, group_by, window, zone, limit)| {
        let (tenant, project, function, key, image, tags) = filters;
        Question {
            tenant,
            project,
            function,
            key,
            image,
            tags,
            group_by,
            window,
            zone,
            limit,
        }
    })
}

/// Settings as a whole, now and then with caps on starts and quotas to come.
fn settings() -> impl Strategy<Value = Op> {
    let quotas = || {
        let zone = prop_oneof![3 => Just(0_usize), 2 => 1..ZONES.len()];
        let overdraft =
            prop_oneof![1 => Just(None), 3 => Just(Some(0)), 1 => (1..3_u64).prop_map(Some)];
        let quota = (0..4_u8, 0..4_u8, 0..5_u8, zone, 0..6_u64, overdraft);
        proptest::collection::vec(quota, 0..4)
    };
    let cap = || proptest::option::weighted(0.3, 1..7_u32);
    let delay = prop_oneof![1..MINUTE, 1..HOUR, 1..DAY];
    let changes = proptest::collection::vec((delay, quotas()), 0..3);
    let flags = (0..6_u32, (cap(), cap()), proptest::bool::weighted(0.1));
    (0..3_usize, flags, quotas(), changes).prop_map(|(tenant, flags, quotas, changes)| {
        let (concurrency, starts, suspended) = flags;
        Op::Settings {
            tenant,
            concurrency,
            starts,
            quotas,
            changes,
            suspended,
        }
    })
}

/// Any of it, holds and settlements most often.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let hold = (
        0..3_usize,
        0..3_u8,
        proptest::option::of(0..2_u8),
        0..2_u8,
        (0..2_u8, tags()),
        1..2_000_u64,
        proptest::option::weighted(0.3, 0..6_u8),
        any::<bool>(),
    );
    prop_oneof![
        8 => hold.prop_map(|(tenant, project, function, key, more, cpu_ms, retry, reduce)| {
            let (image, tags) = more;
            Op::Hold { tenant, project, function, key, image, tags, cpu_ms, retry, reduce }
        }),
        6 => (any::<Index>(), 0..3_000_000_u64)
            .prop_map(|(which, cpu_us)| Op::Settle { which, cpu_us }),
        1 => any::<Index>().prop_map(|which| Op::Release { which }),
        1 => settings(),
        1 => (0..3_u8, proptest::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(subject, bytes)| Op::Document { subject, bytes }),
        2 => prop_oneof![0..MINUTE, 0..HOUR, 0..DAY].prop_map(|us| Op::Sleep { us }),
        1 => any::<bool>().prop_map(|orderly| Op::Reopen { orderly }),
    ]
}
