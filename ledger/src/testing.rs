//! What the tests of this crate share: a clock that obeys, small options, and builders.

pub(crate) mod faults;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::*;

/// 2026-11-23T00:00:00Z, a Monday.
pub(crate) const MONDAY: Micros = 1_795_392_000_000_000;

/// A clock that stands where it is put.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn at(micros: Micros) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(micros)))
    }

    pub(crate) fn set(&self, micros: Micros) {
        self.0.store(micros, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Micros {
        self.0.load(Ordering::Acquire)
    }
}

impl Clock for HandClock {
    fn now_us(&self) -> Micros {
        self.get()
    }
}

pub(crate) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        segment_bytes: 1 << 16,
        queue: 256,
        batch_max: 64,
        view_flush_ms: 60_000,
        view_cache_bytes: 8 << 20,
        tail_max: 500_000,
        tenants_max: 100,
        scopes_max: 1_000_000,
        scopes_per_tenant_max: 10_000,
        quotas_per_tenant_max: 64,
        quota_changes_per_tenant_max: 8,
        holds_max: 10_000,
        idempotency_ttl_s: 86_400,
        idempotency_per_tenant_max: 1_000,
        subjects_max: 1_000,
        document_bytes_max: 10_000,
        documents_bytes_max: 100_000,
        tags_max: 8,
        text_bytes_max: 256,
        fold_entries_max: 10_000,
        detail_months: 0,
        denials_ring: 16,
        denial_counters_max: 64,
    }
}

pub(crate) fn id(number: u64) -> Id {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Id(bytes)
}

pub(crate) fn quota(scope: Scope, meter: Meter, window: Window, limit: u128) -> Quota {
    let timezone = "UTC".to_owned();
    Quota {
        scope,
        meter,
        window,
        timezone,
        limit,
        mode: Mode::Hard,
        overdraft: 0,
    }
}

pub(crate) fn act(subject: &str) -> Act {
    Act {
        actor: "admin".to_owned(),
        action: "test".to_owned(),
        subject: subject.to_owned(),
        tenant: None,
        reason: None,
        document: None,
        effect: None,
        expect: None,
    }
}

pub(crate) fn tenant(name: &str, concurrency: u32, quotas: Vec<Quota>) -> Act {
    let effect = Effect::Tenant {
        tenant: name.to_owned(),
        suspended: false,
        concurrency,
        quotas,
    };
    let subject = format!("tenant/{name}");
    Act {
        tenant: Some(name.to_owned()),
        effect: Some(effect),
        ..act(&subject)
    }
}

pub(crate) fn card() -> RateCard {
    let unit = |meter, amount| {
        let amount = Money(amount);
        Price::plain(meter, Model::Unit { amount })
    };
    RateCard {
        id: "standard".to_owned(),
        currency: "USD".to_owned(),
        effective_from: 0,
        prices: vec![
            unit(Meter::Executions, 200_000),
            unit(Meter::CpuUs, 14_000_000),
            unit(Meter::MemoryByteMs, 4_500_000),
        ],
    }
}

pub(crate) fn card_act() -> Act {
    Act {
        effect: Some(Effect::RateCard(card())),
        ..act("rate/standard")
    }
}

/// A hold of one second of CPU and wall time, and 1 MiB.
pub(crate) fn hold(number: u64, tenant: &str) -> HoldRequest {
    HoldRequest {
        hold: id(number),
        execution: id(number | 1 << 63),
        tenant: tenant.to_owned(),
        project: "default".to_owned(),
        function: None,
        key: "key".to_owned(),
        image: "python".to_owned(),
        tags: vec![("cost_center".to_owned(), "42".to_owned())],
        ceiling: Ceiling {
            cpu_ms: 1_000,
            wall_ms: 1_000,
            cpu_millis: 1_000,
            memory_bytes: 1 << 20,
        },
        on_low: OnLow::Refuse,
        max_cost: None,
        idempotency: None,
    }
}

pub(crate) fn settlement(number: u64, cpu_us: u64) -> Settlement {
    let memory_byte_ms = u128::from(cpu_us.div_ceil(1_000)) << 20;
    let measured = Quantities {
        executions: 1,
        cpu_us,
        wall_us: cpu_us,
        memory_byte_ms,
        ..Quantities::default()
    };
    Settlement {
        hold: id(number),
        measured,
        outcome: "exited".to_owned(),
        estimated: false,
    }
}

/// Waits for all four kinds of answers.
pub(crate) trait Now {
    fn now_hold(&self, request: HoldRequest) -> Result<Held, Rejection>;
    fn now_settle(&self, settlement: Settlement) -> Result<Receipt, Rejection>;
    fn now_release(&self, hold: Id) -> Result<Released, Rejection>;
    fn now_act(&self, act: Act) -> Result<Recorded, Rejection>;
}

impl Now for Ledger {
    fn now_hold(&self, request: HoldRequest) -> Result<Held, Rejection> {
        self.hold(request).unwrap().wait().unwrap()
    }

    fn now_settle(&self, settlement: Settlement) -> Result<Receipt, Rejection> {
        self.settle(settlement).unwrap().wait().unwrap()
    }

    fn now_release(&self, hold: Id) -> Result<Released, Rejection> {
        self.release(hold, "test".to_owned())
            .unwrap()
            .wait()
            .unwrap()
    }

    fn now_act(&self, act: Act) -> Result<Recorded, Rejection> {
        Ledger::act(self, act).unwrap().wait().unwrap()
    }
}

/// Waits until reads include everything that is durable, which on a busy machine may take longer
/// than a read waits.
pub(crate) fn caught_up(ledger: &Ledger) -> &Ledger {
    for _ in 0..1_000 {
        let health = ledger.health();
        if health.absorbed_lsn >= health.durable_lsn {
            return ledger;
        }
        // Each read waits a little.
        ledger.head();
    }
    panic!("the view does not catch up: {:?}", ledger.health());
}

pub(crate) fn usage_query(from: Micros, to: Micros, window: Window) -> UsageQuery {
    UsageQuery {
        from,
        to,
        window,
        timezone: "UTC".to_owned(),
        group_by: Vec::new(),
        only: Only::default(),
        by_currency: false,
        cursor: None,
        limit: 1_000,
    }
}

/// Whether the long form of tests is wanted.
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told how long they may take"
)]
pub(crate) fn full() -> bool {
    std::env::var("FAREBOX_TEST_FULL").is_ok_and(|value| value == "1")
}
