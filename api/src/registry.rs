//! Tenants, tokens and revocations: folded into memory from the ledger's acts, changed only by
//! further acts.
//!
//! Every change is an act in the ledger first and in memory after, under one lock, so that two
//! changes cannot both be made from the same old state. The subjects: `tenant/NAME`, `quotas/NAME`,
//! `limits/NAME`, `budgets/NAME`, `webhook/NAME/HOOK`, `token/JTI`, `revoked/JTI`, `tier/default`.

pub(crate) mod budgets;
mod documents;
pub(crate) mod quotas;
mod tokens;
mod webhooks;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ledger::{Act, Ledger, Quota, QuotaChange, Rejection, Settings, StartCaps};

use crate::clock::Clock;
use crate::config::{Tier, Tokens};
use crate::error::{ApiError, rejected};
use crate::limits::Limits;
use budgets::Budget;
pub(crate) use documents::{LimitsDoc, ProfileDoc, TokenDoc};
use quotas::Change;
pub(crate) use webhooks::{Webhook, WebhookDoc};

/// How often the use of running windows is found before the caller is told to try again, and how
/// long to wait in between.
const COUNTS_MAX: u32 = 50;
const COUNT_AGAIN: Duration = Duration::from_millis(20);

/// A tenant as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) profile: ProfileDoc,
    /// Its own quotas, which lie over its tier's; and the entry that set them and their changes,
    /// zero for none.
    pub(crate) quotas: Vec<Quota>,
    /// What these change to, the earliest first: changes to come, and those that have come since
    /// the quotas were last written.
    pub(crate) changes: Vec<Change>,
    pub(crate) quotas_seq: u64,
    /// Its own limits, and the entry that set them, zero for none.
    pub(crate) limits: LimitsDoc,
    pub(crate) limits_seq: u64,
    /// Its budgets, and the entry that set them, zero for none.
    pub(crate) budgets: Vec<Budget>,
    pub(crate) budgets_seq: u64,
}

/// The registry; shared by all requests.
#[derive(Debug)]
pub(crate) struct Registry {
    ledger: Ledger,
    clock: Clock,
    tier: Tier,
    tokens_options: Tokens,
    webhooks_max: usize,
    state: RwLock<State>,
    /// Held from reading the old state to folding in the new one.
    acts: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    tenants: BTreeMap<String, Arc<Tenant>>,
    tokens: HashMap<String, TokenDoc>,
    by_tenant: HashMap<String, usize>,
    revoked: HashSet<String>,
    revoked_unseen: usize,
    webhooks: webhooks::Webhooks,
}

/// Who makes a change, and why.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    /// The token's `jti`.
    pub(crate) key: String,
    pub(crate) reason: Option<String>,
}

impl Actor {
    /// The server itself.
    pub(crate) fn server() -> Actor {
        Actor {
            key: "server".to_owned(),
            reason: None,
        }
    }
}

/// The options of the registry's own.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) tier: Tier,
    pub(crate) tokens: Tokens,
    /// Webhooks of one tenant, or of the operator.
    pub(crate) webhooks_max: usize,
}

impl Registry {
    /// Folds all documents of the ledger.
    pub(crate) fn open(ledger: Ledger, clock: Clock, options: Options) -> Registry {
        let mut state = State::default();
        documents::fold(&ledger, &options.tier, &mut state);
        Registry {
            ledger,
            clock,
            tier: options.tier,
            tokens_options: options.tokens,
            webhooks_max: options.webhooks_max,
            state: RwLock::new(state),
            acts: tokio::sync::Mutex::new(()),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant of that name.
    pub(crate) fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.read().tenants.get(name).cloned()
    }

    /// Tenants after `after`, by name, at most `limit`.
    pub(crate) fn tenants(&self, after: Option<&str>, limit: usize) -> Vec<Arc<Tenant>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.read();
        let range = match after {
            Some(after) => state.tenants.range::<str, _>((Excluded(after), Unbounded)),
            None => state.tenants.range::<str, _>((Unbounded, Unbounded)),
        };
        range
            .map(|(_, tenant)| Arc::clone(tenant))
            .take(limit)
            .collect()
    }

    /// Brings every tenant's quotas up to the configured tier, if that has changed since the last
    /// start.
    pub(crate) async fn apply_tier(&self) -> Result<(), ApiError> {
        let _acts = self.acts.lock().await;
        let now = documents::tier_bytes(&self.tier);
        if self
            .ledger
            .document("tier/default")
            .is_some_and(|document| *document.bytes == *now)
        {
            return Ok(());
        }
        for tenant in self.tenants(None, usize::MAX) {
            let act = Act {
                document: Some(documents::bytes(&tenant.profile)),
                ..act(
                    &Actor::server(),
                    "tier.apply",
                    "tenant",
                    &tenant.profile.name,
                )
            };
            self.record_settings(act, self.settings(&tenant)).await?;
        }
        let act = Act {
            document: Some(now),
            ..act(&Actor::server(), "tier.set", "tier", "default")
        };
        self.record(Act {
            tenant: None,
            ..act
        })
        .await?;
        Ok(())
    }

    /// Makes a tenant.
    pub(crate) async fn create(
        &self,
        actor: &Actor,
        name: &str,
        display_name: Option<String>,
    ) -> Result<Arc<Tenant>, ApiError> {
        let _acts = self.acts.lock().await;
        if self.tenant(name).is_some() {
            let detail = format!("there is a tenant {name} already");
            return Err(ApiError::Conflict { detail });
        }
        let tenant = Tenant {
            profile: ProfileDoc {
                name: name.to_owned(),
                display_name,
                created_us: self.clock.wall_us(),
                suspended: false,
            },
            quotas: Vec::new(),
            changes: Vec::new(),
            quotas_seq: 0,
            limits: LimitsDoc::of_tier(&self.tier),
            limits_seq: 0,
            budgets: Vec::new(),
            budgets_seq: 0,
        };
        self.put(actor, ("tenant.create", Subject::Profile), tenant, None)
            .await
    }

    /// Changes a tenant's display name.
    pub(crate) async fn rename(
        &self,
        actor: &Actor,
        name: &str,
        display_name: Option<String>,
    ) -> Result<Arc<Tenant>, ApiError> {
        let _acts = self.acts.lock().await;
        let mut tenant = self.known(name)?;
        tenant.profile.display_name = display_name;
        self.put(actor, ("tenant.rename", Subject::Profile), tenant, None)
            .await
    }

    /// Suspends or resumes a tenant; doing it again changes nothing.
    pub(crate) async fn suspend(
        &self,
        actor: &Actor,
        name: &str,
        suspended: bool,
    ) -> Result<Arc<Tenant>, ApiError> {
        let _acts = self.acts.lock().await;
        let mut tenant = self.known(name)?;
        if tenant.profile.suspended == suspended {
            return Ok(Arc::new(tenant));
        }
        tenant.profile.suspended = suspended;
        let action = if suspended {
            "tenant.suspend"
        } else {
            "tenant.resume"
        };
        self.put(actor, (action, Subject::Profile), tenant, None)
            .await
    }

    /// Replaces a tenant's limits.
    pub(crate) async fn set_limits(
        &self,
        actor: &Actor,
        name: &str,
        limits: LimitsDoc,
        expect: Option<u64>,
    ) -> Result<Arc<Tenant>, ApiError> {
        let _acts = self.acts.lock().await;
        let mut tenant = self.known(name)?;
        tenant.limits = limits;
        self.put(actor, ("limits.set", Subject::Limits), tenant, expect)
            .await
    }

    fn known(&self, name: &str) -> Result<Tenant, ApiError> {
        let tenant = self
            .tenant(name)
            .ok_or(ApiError::NotFound { what: "tenant" })?;
        Ok(Tenant::clone(&tenant))
    }

    /// Records what `subject` of the tenant has become, and folds it in.
    async fn put(
        &self,
        actor: &Actor,
        (action, subject): (&str, Subject),
        mut tenant: Tenant,
        expect: Option<u64>,
    ) -> Result<Arc<Tenant>, ApiError> {
        let (kind, document) = match subject {
            Subject::Profile => ("tenant", documents::bytes(&tenant.profile)),
            Subject::Quotas => ("quotas", quotas::bytes(&tenant.quotas, &tenant.changes)),
            Subject::Limits => ("limits", documents::bytes(&tenant.limits)),
            Subject::Budgets => ("budgets", budgets::bytes(&tenant.budgets)),
        };
        let name = tenant.profile.name.clone();
        let act = Act {
            document: Some(document),
            expect,
            ..act(actor, action, kind, &name)
        };
        let entry = self.record_settings(act, self.settings(&tenant)).await?;
        match subject {
            Subject::Profile => {}
            Subject::Quotas => tenant.quotas_seq = entry,
            Subject::Limits => tenant.limits_seq = entry,
            // An empty list is no document.
            Subject::Budgets if tenant.budgets.is_empty() => tenant.budgets_seq = 0,
            Subject::Budgets => tenant.budgets_seq = entry,
        }
        let tenant = Arc::new(tenant);
        self.write().tenants.insert(name, Arc::clone(&tenant));
        Ok(tenant)
    }

    /// Everything that the ledger decides a tenant's holds by.
    fn settings(&self, tenant: &Tenant) -> Settings {
        let change = |change: &Change| QuotaChange {
            effective_at: change.effective_us,
            quotas: self.counted_quotas(tenant, &change.quotas),
        };
        Settings {
            tenant: tenant.profile.name.clone(),
            suspended: tenant.profile.suspended,
            concurrency: tenant.limits.concurrency,
            starts: StartCaps {
                per_minute: tenant.limits.starts_per_minute,
                key_per_minute: tenant.limits.key_starts_per_minute,
            },
            quotas: self.counted_quotas(tenant, &tenant.quotas),
            changes: tenant.changes.iter().map(change).collect(),
        }
    }

    /// Records an act that replaces a tenant's settings; the entry that it became. A quota that is
    /// new counts its running window from the beginning, so what that has seen is found first, and
    /// once more where runs of before it have ended meanwhile.
    async fn record_settings(&self, act: Act, settings: Settings) -> Result<u64, ApiError> {
        for _ in 0..COUNTS_MAX {
            let (ledger, settings) = (self.ledger.clone(), settings.clone());
            let counted = tokio::task::spawn_blocking(move || ledger.counted(settings)).await;
            let effect = counted.map_err(ApiError::internal)?;
            let act = Act {
                effect: Some(effect.map_err(ApiError::internal)?),
                ..act.clone()
            };
            let now_us = self.clock.wall_us();
            match self.ledger.act(act)?.await? {
                Err(Rejection::Moved) => tokio::time::sleep(COUNT_AGAIN).await,
                recorded => {
                    let entry = recorded.map(|recorded| recorded.entry);
                    return entry.map_err(|no| rejected(no, now_us));
                }
            }
        }
        Err(rejected(Rejection::Moved, self.clock.wall_us()))
    }

    /// Records an act; the entry that it became.
    pub(crate) async fn record(&self, act: Act) -> Result<u64, ApiError> {
        let now_us = self.clock.wall_us();
        let recorded = self.ledger.act(act)?.await?;
        recorded
            .map(|recorded| recorded.entry)
            .map_err(|no| rejected(no, now_us))
    }
}

/// Which of a tenant's documents an act replaces.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Profile,
    Quotas,
    Limits,
    Budgets,
}

/// An act of `actor` on `kind/name`, which concerns the tenant `name`.
pub(crate) fn act(actor: &Actor, action: &str, kind: &str, name: &str) -> Act {
    Act {
        actor: actor.key.clone(),
        action: action.to_owned(),
        subject: format!("{kind}/{name}"),
        tenant: Some(name.to_owned()),
        reason: actor.reason.clone(),
        document: None,
        effect: None,
        expect: None,
    }
}

impl LimitsDoc {
    fn of_tier(tier: &Tier) -> LimitsDoc {
        LimitsDoc {
            concurrency: tier.concurrency,
            starts_per_minute: tier.starts_per_minute,
            key_starts_per_minute: tier.key_starts_per_minute,
            maximum: tier.maximum,
            default: tier.default,
            images: None,
            fresh: false,
        }
    }

    /// The value of a limit that was not asked for.
    pub(crate) fn default_of(&self, name: &str) -> u64 {
        Limits::get(&self.default, name)
    }
}
