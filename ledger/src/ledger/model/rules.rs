//! Settings of the model's tenants: quotas of now and to come, and caps on starts.

use super::naive::{ZONES, begun};
use super::op::{Drawn, Op};
use super::{Model, Run, TENANTS};
use crate::testing::*;
use crate::*;

/// What a tenant's holds are decided by.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) concurrency: u32,
    pub(super) starts: StartCaps,
    pub(super) quotas: Vec<Quota>,
    pub(super) changes: Vec<QuotaChange>,
    pub(super) suspended: bool,
}

impl Rules {
    /// The quotas in force at an instant.
    pub(super) fn quotas(&self, at: Micros) -> &[Quota] {
        let mut quotas = &self.quotas;
        for change in &self.changes {
            if at >= change.effective_at {
                quotas = &change.quotas;
            }
        }
        quotas
    }
}

impl Model {
    /// The caps on starts that have no room for another run of a request's: scope, cap, runs that
    /// have begun, and when there is room again.
    pub(super) fn too_fast(
        &self,
        request: &HoldRequest,
        at: Micros,
    ) -> Vec<(Scope, u32, u32, Micros)> {
        let caps = self.settings_of(request).starts;
        let mine = |run: &&Run| run.request.tenant == request.tenant;
        let runs: Vec<&Run> = self.runs.iter().filter(mine).collect();
        let all = runs.iter().map(|run| run.held.opened_at).collect();
        let same = runs.iter().filter(|run| run.request.key == request.key);
        let same = same.map(|run| run.held.opened_at).collect();
        let key = Scope::Key(request.key.clone());
        let scopes = [
            (Scope::Tenant, caps.per_minute, all),
            (key, caps.key_per_minute, same),
        ];
        let full = |(scope, cap, opened): (Scope, Option<u32>, Vec<Micros>)| {
            let (count, free_at) = begun(&opened, at, cap?)?;
            Some((scope, cap?, count, free_at))
        };
        scopes.into_iter().filter_map(full).collect()
    }

    pub(super) fn settings(&mut self, op: &Op) {
        let Op::Settings {
            tenant: place,
            concurrency,
            starts,
            quotas,
            changes,
            suspended,
        } = op
        else {
            return;
        };
        let mut rules = Rules {
            concurrency: *concurrency,
            starts: StartCaps {
                per_minute: starts.0,
                key_per_minute: starts.1,
            },
            quotas: list(quotas),
            suspended: *suspended,
            ..Rules::default()
        };
        let mut at = self.next_at();
        for (delay, quotas) in changes {
            at += delay;
            rules.changes.push(QuotaChange {
                effective_at: at,
                quotas: list(quotas),
            });
        }
        let settings = Settings {
            tenant: TENANTS[*place].to_owned(),
            suspended: rules.suspended,
            concurrency: rules.concurrency,
            starts: rules.starts,
            quotas: rules.quotas.clone(),
            changes: rules.changes.clone(),
        };
        let effect = caught_up(self.ledger()).counted(settings).unwrap();
        let recorded = self.ledger().now_act(Act {
            effect: Some(effect),
            ..tenant(TENANTS[*place], 0, Vec::new())
        });
        let recorded = recorded.unwrap();
        self.entries += 1;
        self.last = recorded.at;
        assert_eq!(recorded.entry, self.entries);
        self.settings[*place] = rules;
    }
}

/// The quotas that were drawn, each once.
fn list(drawn: &[Drawn]) -> Vec<Quota> {
    let mut list: Vec<Quota> = Vec::new();
    for (scope, meter, window, zone, steps, overdraft) in drawn {
        let scope = match scope {
            0 => Scope::Tenant,
            1 => Scope::Project("p0".to_owned()),
            2 => Scope::Function("f0".to_owned()),
            _ => Scope::Key("k0".to_owned()),
        };
        let (meter, unit) = [
            (Meter::Executions, 1),
            (Meter::CpuUs, 700_000),
            (Meter::MemoryByteMs, 2_000 << 20),
            (Meter::Cost, 10_000_000),
        ][usize::from(*meter)];
        let window = Window::ALL[usize::from(*window)];
        let quota = Quota {
            timezone: ZONES[*zone].0.to_owned(),
            mode: overdraft.map_or(Mode::Soft, |_| Mode::Hard),
            overdraft: u128::from(overdraft.unwrap_or(0)) * unit,
            ..quota(scope, meter, window, u128::from(*steps) * unit)
        };
        if list.iter().all(|other| other.name() != quota.name()) {
            list.push(quota);
        }
    }
    list
}
