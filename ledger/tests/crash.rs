//! SIGKILL under load: nothing acknowledged is lost, nothing counts twice.
//!
//! The test starts itself again as the process to be killed: the child opens the ledger, runs many
//! callers and prints a line for every answer it got; the parent reads so many lines and kills it.
#![expect(clippy::unwrap_used, reason = "test code")]
#![expect(
    clippy::disallowed_methods,
    reason = "the child is told what it is by its environment"
)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

use ledger::{
    Act, Body, Ceiling, Clock, Effect, EntryKind, EntryQuery, GroupBy, HoldRequest, Id, Ledger,
    Meter, Micros, Mode, Model, Money, OnLow, Only, Options, Price, Quantities, Quota, RateCard,
    Scope, Settlement, UsageQuery, Window,
};

const CHILD: &str = "FAREBOX_LEDGER_CRASH_CHILD";
const CALLERS: u64 = 16;
/// After so many rounds the next ledger begins, so that looking through it stays quick.
const ROUNDS_OF_ONE: usize = 25;
/// 2026-11-23T00:00:00Z.
const MONDAY: Micros = 1_795_392_000_000_000;
const DAY: Micros = 86_400_000_000;

#[derive(Debug, Default)]
struct Steps(AtomicI64);

impl Clock for Steps {
    fn now_us(&self) -> Micros {
        // A batch a second: rows of many slots, and days that end.
        MONDAY + self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

fn open(dir: &Path) -> Ledger {
    let options = Options {
        dir: dir.to_owned(),
        segment_bytes: 1 << 18,
        queue: 256,
        batch_max: 64,
        view_flush_ms: 15,
        view_cache_bytes: 8 << 20,
        tail_max: 2_000,
        tenants_max: 10,
        scopes_max: 1_000_000,
        scopes_per_tenant_max: 10_000,
        quotas_per_tenant_max: 10,
        quota_changes_per_tenant_max: 8,
        holds_max: 1_000,
        idempotency_ttl_s: 86_400,
        idempotency_per_tenant_max: 100_000,
        subjects_max: 10,
        document_bytes_max: 100,
        documents_bytes_max: 1_000,
        tags_max: 1,
        text_bytes_max: 64,
        fold_entries_max: 10_000,
        detail_months: 0,
        denials_ring: 1,
        denial_counters_max: 1,
    };
    Ledger::open(options, Arc::new(Steps::default())).unwrap()
}

fn id(number: u64, kind: u8) -> Id {
    let mut bytes = [kind; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Id(bytes)
}

fn number(id: Id) -> u64 {
    u64::from_be_bytes(id.0[..8].try_into().unwrap())
}

fn hold(number: u64) -> HoldRequest {
    HoldRequest {
        hold: id(number, 1),
        execution: id(number, 2),
        tenant: "acme".to_owned(),
        project: format!("p{}", number % 3),
        function: Some(format!("f{}", number % 7)),
        key: "key".to_owned(),
        image: "python".to_owned(),
        tags: Vec::new(),
        ceiling: Ceiling {
            cpu_ms: 100,
            wall_ms: 100,
            cpu_millis: 1_000,
            memory_bytes: 1 << 20,
        },
        on_low: OnLow::Refuse,
        max_cost: None,
        idempotency: None,
    }
}

fn settlement(number: u64) -> Settlement {
    let measured = Quantities {
        executions: 1,
        cpu_us: 1_000,
        ..Quantities::default()
    };
    Settlement {
        hold: id(number, 1),
        measured,
        outcome: "exited".to_owned(),
        estimated: false,
    }
}

fn prepare(ledger: &Ledger) {
    let price = Price::plain(Meter::Executions, Model::Unit { amount: Money(5) });
    let card = RateCard {
        id: "standard".to_owned(),
        currency: "USD".to_owned(),
        effective_from: 0,
        prices: vec![price],
    };
    let quota = Quota {
        scope: Scope::Tenant,
        meter: Meter::Executions,
        window: Window::Lifetime,
        timezone: "UTC".to_owned(),
        limit: 1 << 40,
        mode: Mode::Hard,
        overdraft: 0,
    };
    let tenant = Effect::Tenant {
        tenant: "acme".to_owned(),
        suspended: false,
        concurrency: 1_000,
        quotas: vec![quota],
    };
    for effect in [Effect::RateCard(card), tenant] {
        let act = Act {
            actor: "test".to_owned(),
            action: "prepare".to_owned(),
            subject: "test".to_owned(),
            tenant: None,
            reason: None,
            document: None,
            effect: Some(effect),
            expect: None,
        };
        ledger.act(act).unwrap().wait().unwrap().unwrap();
    }
}

/// What the child does until it is killed. Answers are told before the next command is given.
fn child(dir: &Path, first: u64) {
    let ledger = open(dir);
    let next = Arc::new(AtomicU64::new(first));
    let callers = (0..CALLERS).map(|_| {
        let (ledger, next) = (ledger.clone(), Arc::clone(&next));
        thread::spawn(move || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                ledger.hold(hold(number)).unwrap().wait().unwrap().unwrap();
                tell('h', number);
                ledger
                    .settle(settlement(number))
                    .unwrap()
                    .wait()
                    .unwrap()
                    .unwrap();
                tell('s', number);
            }
        })
    });
    callers
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|caller| caller.join().unwrap());
}

/// One line in one write, so that a kill leaves whole lines.
fn tell(kind: char, number: u64) {
    let line = format!("\n@{kind} {number}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Starts a child, kills it after so many answers, and gives these and all that came before.
fn run_and_kill(dir: &Path, first: u64, answers: usize) -> (Vec<u64>, Vec<u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed_ledgers_lose_nothing_acknowledged",
            "--nocapture",
        ])
        .env(CHILD, format!("{first} {}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut held, mut settled) = (Vec::new(), Vec::new());
    let mut take = |line: String| {
        let (kind, number) = line.strip_prefix('@')?.split_once(' ')?;
        let number = number.parse().ok()?;
        if kind == "h" {
            held.push(number)
        } else {
            settled.push(number)
        }
        Some(())
    };
    let mut taken = 0;
    while taken < answers {
        let line = lines.next().unwrap().unwrap();
        taken += usize::from(take(line).is_some());
    }
    child.kill().unwrap();
    for line in lines.map_while(Result::ok) {
        take(line);
    }
    child.wait().unwrap();
    (held, settled)
}

fn settled_numbers(ledger: &Ledger) -> Vec<u64> {
    let mut query = EntryQuery {
        limit: 1_000,
        kind: Some(EntryKind::Settled),
        ..EntryQuery::default()
    };
    let mut numbers = Vec::new();
    loop {
        let page = ledger.entries(&query).unwrap();
        let executions = page.entries.iter().map(|entry| match &entry.body {
            Body::Settled(settled) => number(settled.hold.execution),
            Body::Acted(_) | Body::Adjusted(_) => unreachable!("filtered"),
        });
        numbers.extend(executions);
        let Some(next) = page.next else {
            return numbers;
        };
        query.after = next;
    }
}

fn executions_used(ledger: &Ledger) -> u64 {
    let query = UsageQuery {
        from: MONDAY,
        to: MONDAY + 60 * DAY,
        window: Window::Day,
        timezone: "UTC".to_owned(),
        group_by: vec![GroupBy::Function],
        only: Only::default(),
        by_currency: false,
        cursor: None,
        limit: 10_000,
    };
    ledger
        .usage(&query)
        .unwrap()
        .items
        .iter()
        .map(|item| item.usage.executions)
        .sum()
}

#[test]
fn killed_ledgers_lose_nothing_acknowledged() {
    if let Ok(told) = std::env::var(CHILD) {
        let (first, dir) = told.split_once(' ').unwrap();
        return child(&PathBuf::from(dir), first.parse().unwrap());
    }
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    let rounds = match (is("FAREBOX_TEST_FULL", "1"), is("CI", "true")) {
        (true, _) => 500,
        (false, true) => 50,
        (false, false) => 6,
    };
    for first in (0..rounds).step_by(ROUNDS_OF_ONE) {
        kill_and_look(first..(first + ROUNDS_OF_ONE).min(rounds));
    }
}

/// Rounds of one ledger, which grows with each.
fn kill_and_look(rounds: std::ops::Range<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    prepare(&ledger);
    drop(ledger);
    let mut settled = HashSet::new();
    for round in rounds {
        let first = u64::try_from(round).unwrap() * 1_000_000;
        let answers = 40 + (round * 7_919) % 1_500;
        let (acked_holds, acked_settles) = run_and_kill(dir.path(), first, answers);
        settled.extend(acked_settles);
        let verified = ledger::verify(dir.path(), &mut |_| {}).unwrap();
        let ledger = open(dir.path());
        assert_eq!(ledger.head().root, verified.root, "round {round}");
        let open: HashSet<u64> = ledger
            .open_holds()
            .iter()
            .map(|hold| number(hold.id))
            .collect();
        let found = settled_numbers(&ledger);
        let once: HashSet<u64> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "settled twice in round {round}");
        assert!(
            settled.is_subset(&once),
            "a settlement was lost in round {round}"
        );
        let lost = acked_holds
            .iter()
            .find(|hold| !open.contains(hold) && !once.contains(hold));
        assert_eq!(lost, None, "a hold was lost in round {round}");
        let settlements = u64::try_from(found.len()).unwrap();
        assert_eq!(
            executions_used(&ledger),
            settlements,
            "the view in round {round}"
        );
        let quota = &ledger.quotas("acme").unwrap()[0];
        assert_eq!(
            (quota.posted, quota.held),
            (settlements.into(), u128::try_from(open.len()).unwrap())
        );
        for number in open {
            ledger
                .settle(settlement(number))
                .unwrap()
                .wait()
                .unwrap()
                .unwrap();
            settled.insert(number);
        }
    }
}
