//! The ledger against a naive model: random commands, reopens and clock steps; then every read is
//! compared with a scan over everything that ever happened.

mod compare;
mod naive;
mod op;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use self::naive::{DAY, DECEMBER, get, in_scope, price, start_in};
use self::op::{Op, Question, op, question};
use self::rules::Rules;
use crate::testing::*;
use crate::*;

const TENANTS: [&str; 3] = ["acme", "beta", "gamma"];

/// A hold that was opened, and what became of it.
#[derive(Clone, Debug)]
struct Run {
    number: u64,
    request: HoldRequest,
    held: Held,
    end: Option<Option<(Quantities, Quantities, i128)>>,
    /// The entry that settled it.
    entry: u64,
}

struct Model {
    dir: TempDir,
    clock: Arc<HandClock>,
    ledger: Option<Ledger>,
    runs: Vec<Run>,
    settings: Vec<Rules>,
    /// When the last command was decided.
    last: Micros,
    documents: BTreeMap<String, Vec<u8>>,
    entries: u64,
    next: u64,
}

impl Model {
    fn new() -> Self {
        let (dir, clock) = (
            tempfile::tempdir().unwrap(),
            HandClock::at(DECEMBER - DAY / 2),
        );
        let mut model = Self {
            dir,
            clock,
            ledger: None,
            runs: Vec::new(),
            settings: vec![
                Rules {
                    concurrency: 4,
                    ..Rules::default()
                };
                TENANTS.len()
            ],
            last: 0,
            documents: BTreeMap::new(),
            entries: 0,
            next: 1,
        };
        model.open();
        model.act(card_act());
        TENANTS
            .iter()
            .for_each(|name| model.act(tenant(name, 4, Vec::new())));
        model
    }

    fn open(&mut self) {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        self.ledger = Some(Ledger::open(options(self.dir.path()), clock).unwrap());
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    fn act(&mut self, act: Act) {
        self.entries += 1;
        let recorded = self.ledger().now_act(act).unwrap();
        assert_eq!(recorded.entry, self.entries);
        self.last = recorded.at;
    }

    /// The time that the next command is decided at: the ledger's runs ahead of a clock that stands
    /// still.
    fn next_at(&self) -> Micros {
        self.clock.get().max(self.last + 1)
    }

    fn open_runs(&self) -> Vec<usize> {
        (0..self.runs.len())
            .filter(|place| self.runs[*place].end.is_none())
            .collect()
    }

    fn pick(&self, which: &Index) -> Option<usize> {
        let open = self.open_runs();
        (!open.is_empty()).then(|| *which.get(&open))
    }

    /// Posted and held of a quota in the window around `at`.
    fn stands(&self, tenant: &str, quota: &Quota, at: Micros) -> (u128, u128) {
        let start = |at| start_in(&quota.timezone, quota.window, at);
        let current = start(at);
        let (mut posted, mut held) = (0, 0);
        for run in &self.runs {
            let mine = run.request.tenant == tenant && in_scope(&quota.scope, &run.request);
            if !mine || start(run.held.opened_at) != current {
                continue;
            }
            match &run.end {
                None => held += get(&run.held.quantities, run.held.amount.0, quota.meter),
                Some(Some((used, _, cost))) => {
                    posted += get(used, *cost, quota.meter);
                }
                Some(None) => {}
            }
        }
        (posted, held)
    }

    fn fits(&self, request: &HoldRequest, ceiling: &Ceiling, at: Micros, settings: &Rules) -> bool {
        let Some(worst) = ceiling.quantities() else {
            return false;
        };
        settings
            .quotas(at)
            .iter()
            .filter(|quota| in_scope(&quota.scope, request))
            .all(|quota| {
                let (posted, held) = self.stands(&request.tenant, quota, at);
                let all = posted + held + get(&worst, price(&worst, true), quota.meter);
                quota.mode == Mode::Soft || all <= quota.limit + quota.overdraft
            })
    }

    fn hold(&mut self, op: &Op) {
        let Some(request) = self.request(op) else {
            return;
        };
        let at = self.next_at();
        match self.ledger().now_hold(request.clone()) {
            Ok(held) => {
                assert_eq!(held.opened_at, at);
                self.last = at;
                self.must_open(&request, &held);
                self.runs.push(Run {
                    number: self.next - 1,
                    request,
                    held,
                    end: None,
                    entry: 0,
                });
            }
            Err(rejection) => self.must_refuse(&request, &rejection, at),
        }
    }

    fn request(&mut self, op: &Op) -> Option<HoldRequest> {
        let Op::Hold {
            tenant,
            project,
            function,
            key,
            image,
            tags,
            cpu_ms,
            retry,
            reduce,
        } = op
        else {
            return None;
        };
        let idempotency = |retry: &u8| Idempotency {
            key: [*retry / 2; 32],
            fingerprint: [*retry; 32],
        };
        let mut request = hold(self.next, TENANTS[*tenant]);
        self.next += 1;
        request.project = format!("p{project}");
        request.function = function.map(|function| format!("f{function}"));
        request.key = format!("k{key}");
        request.image = format!("i{image}@digest");
        let tag = |(key, value): &(u8, u8)| (format!("t{key}"), format!("v{value}"));
        request.tags = tags.iter().map(tag).collect();
        request.ceiling.cpu_ms = *cpu_ms;
        request.ceiling.wall_ms = cpu_ms * 2;
        request.idempotency = retry.as_ref().map(idempotency);
        if *reduce {
            request.on_low = OnLow::Reduce {
                min_cpu_ms: cpu_ms.div_ceil(4),
                min_wall_ms: 1,
            };
        }
        Some(request)
    }

    fn settings_of(&self, request: &HoldRequest) -> &Rules {
        let place = TENANTS.iter().position(|name| *name == request.tenant);
        &self.settings[place.unwrap()]
    }

    /// The run that the request's retry key opened within the last day.
    fn known(&self, request: &HoldRequest, at: Micros) -> Option<&Run> {
        let key = request.idempotency?.key;
        let same = |run: &&Run| {
            run.request.tenant == request.tenant
                && at < run.held.opened_at + DAY
                && run
                    .request
                    .idempotency
                    .is_some_and(|known| known.key == key)
        };
        self.runs.iter().rev().find(same)
    }

    fn open_of(&self, tenant: &str) -> usize {
        let open = self.open_runs().into_iter();
        open.filter(|place| self.runs[*place].request.tenant == tenant)
            .count()
    }

    fn must_refuse(&self, request: &HoldRequest, rejection: &Rejection, at: Micros) {
        let (settings, known) = (self.settings_of(request), self.known(request, at));
        let fits = |ceiling: &Ceiling| self.fits(request, ceiling, at, settings);
        match rejection {
            Rejection::Replay { execution } | Rejection::IdempotencyMismatch { execution } => {
                let known = known.unwrap();
                assert_eq!(known.request.execution, *execution);
                let same = known.request.idempotency == request.idempotency;
                assert_eq!(same, matches!(rejection, Rejection::Replay { .. }));
            }
            Rejection::Suspended { .. } => assert!(settings.suspended && known.is_none()),
            Rejection::Quota(violations) => {
                assert!(!fits(&request.ceiling) && known.is_none() && !violations.is_empty());
                if let OnLow::Reduce { min_cpu_ms, .. } = request.on_low {
                    let (cpu_ms, wall_ms) = (min_cpu_ms, min_cpu_ms * 2);
                    assert!(!fits(&Ceiling {
                        cpu_ms,
                        wall_ms,
                        ..request.ceiling
                    }));
                }
            }
            Rejection::Rate {
                scope,
                cap,
                begun,
                free_at,
            } => {
                let full = self.too_fast(request, at);
                assert!(full.contains(&(scope.clone(), *cap, *begun, *free_at)));
                assert!(full.iter().all(|(_, _, _, other)| other <= free_at));
                assert!(known.is_none());
            }
            Rejection::Concurrency { cap, open } => {
                assert!(self.too_fast(request, at).is_empty());
                let counted = u32::try_from(self.open_of(&request.tenant)).unwrap();
                assert_eq!((*cap, *open), (settings.concurrency, counted));
                assert!(open >= cap && known.is_none());
            }
            other => panic!("refused by {other:?}"),
        }
    }

    fn must_open(&self, request: &HoldRequest, held: &Held) {
        let (settings, at) = (self.settings_of(request), held.opened_at);
        let fits = |ceiling: &Ceiling| self.fits(request, ceiling, at, settings);
        assert!(self.known(request, at).is_none() && !settings.suspended);
        assert!(self.open_of(&request.tenant) < usize::try_from(settings.concurrency).unwrap());
        assert!(fits(&held.granted));
        assert_eq!(self.too_fast(request, at), []);
        let asked = fits(&request.ceiling);
        assert_eq!(
            held.granted == request.ceiling,
            asked,
            "reduced without need"
        );
        if !asked {
            let (cpu_ms, wall_ms) = (held.granted.cpu_ms + 1, held.granted.wall_ms + 2);
            let more = Ceiling {
                cpu_ms,
                wall_ms,
                ..held.granted
            };
            assert!(
                request.on_low != OnLow::Refuse && !fits(&more),
                "reduced too far"
            );
        }
        assert_eq!(Some(held.quantities), held.granted.quantities());
        assert_eq!(held.amount.0, price(&held.quantities, true));
    }

    fn settle(&mut self, place: usize, cpu_us: u64) {
        let (number, held) = (self.runs[place].number, self.runs[place].held.quantities);
        let settlement = settlement(number, cpu_us);
        let measured = settlement.measured;
        let receipt = self.ledger().now_settle(settlement).unwrap();
        self.entries += 1;
        self.last = receipt.at;
        assert_eq!(receipt.entry, self.entries);
        for meter in Meter::MEASURED {
            let (used, most) = (measured.get(meter), held.get(meter));
            assert_eq!(receipt.posted.get(meter), used.min(most));
            assert_eq!(receipt.overrun.get(meter), used.saturating_sub(most));
        }
        let cost = receipt.charge.total.0;
        assert_eq!(cost, price(&receipt.posted, false));
        self.runs[place].end = Some(Some((receipt.posted, receipt.overrun, cost)));
        self.runs[place].entry = receipt.entry;
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Hold { .. } => self.hold(op),
            Op::Settle { which, cpu_us } => {
                if let Some(place) = self.pick(which) {
                    self.settle(place, *cpu_us);
                }
            }
            Op::Release { which } => {
                if let Some(place) = self.pick(which) {
                    let number = self.runs[place].number;
                    self.last = self.ledger().now_release(id(number)).unwrap().at;
                    self.runs[place].end = Some(None);
                }
            }
            Op::Settings { .. } => self.settings(op),
            Op::Document { subject, bytes } => {
                let subject = format!("doc/{subject}");
                self.act(Act {
                    document: Some(bytes.clone()),
                    ..act(&subject)
                });
                self.documents.insert(subject, bytes.clone());
            }
            Op::Sleep { us } => self.clock.set(self.clock.get() + us),
            Op::Reopen { orderly } => {
                let ledger = self.ledger.take().unwrap();
                if *orderly {
                    ledger.close().unwrap();
                } else {
                    drop(ledger);
                }
                self.open();
            }
        }
    }
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: if full() { 400 } else { 12 },
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_ledger_does_what_the_model_does(
        ops in proptest::collection::vec(op(), 1..150),
        questions in proptest::collection::vec(question(), 8),
    ) {
        let mut model = Model::new();
        for op in &ops {
            model.apply(op);
        }
        model.compare(&questions);
        questions.iter().for_each(|question| model.settle_between_pages(question));
        model.apply(&Op::Reopen { orderly: false });
        model.compare(&questions);
        let (head, open) = (model.ledger().head(), model.open_runs().len());
        model.ledger.take().unwrap().close().unwrap();
        let verified = verify(model.dir.path(), &mut |_| {}).unwrap();
        prop_assert_eq!((verified.entries, verified.root), (head.size, head.root));
        let open = u64::try_from(open).unwrap();
        prop_assert_eq!((verified.holds_open, verified.commands), (open, head.lsn));
        rebuild(model.dir.path(), &mut |_| {}).unwrap();
        model.open();
        model.compare(&questions);
    }
}
