//! What the ledger's benches load it with: 1,000 tenants with 3 projects, 15 functions and 2 keys
//! each, 16 hard quotas a tenant, four of them on each of a run's tenant and project. Ledger time
//! runs through a month, so that nearly every settlement opens a new slot of the rollups.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use ledger::{
    Act, Ceiling, Clock, Effect, HoldRequest, Id, Ledger, Meter, Micros, Mode, Model, Money, OnLow,
    Options, Price, Quantities, Quota, RateCard, Recorded, Rejection, Scope, Settlement, Ticket,
    Window,
};

pub(crate) const TENANTS: u64 = 1_000;
const PROJECTS: u64 = 3;
const FUNCTIONS: u64 = 15;
const KEYS: u64 = 2;

/// 2026-11-01T00:00:00Z.
pub(crate) const START: Micros = 1_793_491_200_000_000;
/// Thirty days later.
pub(crate) const END: Micros = START + 30 * 86_400_000_000;

/// Ledger time by the settlements done.
#[derive(Debug)]
pub(crate) struct MonthClock {
    done: AtomicU64,
    step_us: i64,
}

impl MonthClock {
    /// The clock after so many settlements, of which `entries` make thirty days.
    pub(crate) fn after(settlements: u64, entries: u64) -> Self {
        Self {
            done: AtomicU64::new(settlements),
            step_us: (END - START) / i64::try_from(entries).unwrap(),
        }
    }

    /// Another settlement is done.
    pub(crate) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Clock for MonthClock {
    fn now_us(&self) -> Micros {
        START + i64::try_from(self.done.load(Ordering::Relaxed)).unwrap() * self.step_us
    }
}

/// The options of a server that has room.
pub(crate) fn options(dir: PathBuf) -> Options {
    Options {
        dir,
        segment_bytes: 64 << 20,
        queue: 4_096,
        batch_max: 1_024,
        view_flush_ms: 2_000,
        view_cache_bytes: 64 << 20,
        tail_max: 500_000,
        tenants_max: 100_000,
        scopes_max: 1_000_000,
        scopes_per_tenant_max: 10_000,
        quotas_per_tenant_max: 256,
        quota_changes_per_tenant_max: 16,
        holds_max: 100_000,
        idempotency_ttl_s: 86_400,
        idempotency_per_tenant_max: 250_000,
        subjects_max: 1_000_000,
        document_bytes_max: 65_536,
        documents_bytes_max: 256 << 20,
        tags_max: 32,
        text_bytes_max: 512,
        fold_entries_max: 500_000,
        detail_months: 0,
        denials_ring: 1_000,
        denial_counters_max: 10_000,
    }
}

/// Makes rate card and tenants known.
pub(crate) fn prepare(ledger: &Ledger) {
    let unit = |meter, amount| {
        let amount = Money(amount);
        Price::plain(meter, Model::Unit { amount })
    };
    let card = RateCard {
        id: "standard".to_owned(),
        currency: "USD".to_owned(),
        effective_from: 0,
        prices: vec![
            unit(Meter::Executions, 200_000),
            unit(Meter::CpuUs, 14_000_000),
            unit(Meter::MemoryByteMs, 4_500_000),
        ],
    };
    let mut tickets = vec![act(ledger, Effect::RateCard(card))];
    for number in 0..TENANTS {
        let scopes = (0..PROJECTS)
            .map(|p| Scope::Project(project(p)))
            .chain([Scope::Tenant]);
        let quotas = scopes.flat_map(|scope| quotas(&scope)).collect();
        let effect = Effect::Tenant {
            tenant: tenant(number),
            suspended: false,
            concurrency: 1_000,
            quotas,
        };
        tickets.push(act(ledger, effect));
    }
    tickets
        .into_iter()
        .for_each(|ticket| assert!(ticket.wait().unwrap().is_ok()));
}

fn act(ledger: &Ledger, effect: Effect) -> Ticket<Result<Recorded, Rejection>> {
    let act = Act {
        actor: "bench".to_owned(),
        action: "prepare".to_owned(),
        subject: "bench".to_owned(),
        tenant: None,
        reason: None,
        document: None,
        effect: Some(effect),
        expect: None,
    };
    ledger.act(act).unwrap()
}

fn quotas(scope: &Scope) -> Vec<Quota> {
    let quota = |meter, window| Quota {
        scope: scope.clone(),
        meter,
        window,
        timezone: "UTC".to_owned(),
        limit: 1 << 60,
        mode: Mode::Hard,
        overdraft: 0,
    };
    let windows = [Window::Day, Window::Month];
    let both = |window| {
        [
            quota(Meter::Executions, window),
            quota(Meter::CpuUs, window),
        ]
    };
    windows.into_iter().flat_map(both).collect()
}

/// The name of one of the tenants.
pub(crate) fn tenant(number: u64) -> String {
    format!("tenant-{number:04}")
}

fn project(number: u64) -> String {
    format!("project-{number}")
}

/// All names, made once: a caller has its own at hand.
pub(crate) struct Names {
    tenants: Vec<String>,
    projects: Vec<String>,
    functions: Vec<String>,
    keys: Vec<String>,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            tenants: (0..TENANTS).map(tenant).collect(),
            projects: (0..PROJECTS).map(project).collect(),
            functions: (0..FUNCTIONS)
                .map(|number| format!("function-{number:02}"))
                .collect(),
            keys: (0..KEYS).map(|number| format!("key-{number}")).collect(),
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// The hold of a run.
pub(crate) fn hold(names: &Names, number: u64) -> HoldRequest {
    // A step that is prime to everything spreads the runs over all names.
    let pick = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let function = pick / TENANTS % FUNCTIONS;
    HoldRequest {
        hold: id(number, 1),
        execution: id(number, 2),
        tenant: names.tenants[index(pick % TENANTS)].clone(),
        project: names.projects[index(function % PROJECTS)].clone(),
        function: Some(names.functions[index(function)].clone()),
        key: names.keys[index(pick % KEYS)].clone(),
        image: "sha256:9f86d081884c".to_owned(),
        tags: vec![("cost_center".to_owned(), "42".to_owned())],
        ceiling: Ceiling {
            cpu_ms: 500,
            wall_ms: 1_000,
            cpu_millis: 1_000,
            memory_bytes: 256 << 20,
        },
        on_low: OnLow::Refuse,
        max_cost: None,
        idempotency: None,
    }
}

/// Its settlement.
pub(crate) fn settlement(number: u64) -> Settlement {
    let measured = Quantities {
        executions: 1,
        cpu_us: 123_456 + number % 1_000,
        wall_us: 200_000,
        memory_byte_ms: (256 << 20) * 200,
        ..Quantities::default()
    };
    Settlement {
        hold: id(number, 1),
        measured,
        outcome: "exited".to_owned(),
        estimated: false,
    }
}

fn id(number: u64, kind: u8) -> Id {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[15] = kind;
    Id(bytes)
}
