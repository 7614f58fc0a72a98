//! The documents that acts carry: their form, and how memory is made from them at start.

use std::sync::Arc;

use ledger::Ledger;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{State, Tenant, budgets, quotas, webhooks};
use crate::config::Tier;
use crate::limits::Limits;
use crate::shape;

/// Who a tenant is: `tenant/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProfileDoc {
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) created_us: i64,
    pub(crate) suspended: bool,
}

/// What a tenant's executions may ask for: `limits/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitsDoc {
    pub(crate) concurrency: u32,
    /// Executions that may begin in a minute; `None`: as many as there are.
    #[serde(default)]
    pub(crate) starts_per_minute: Option<u32>,
    /// The same through each key.
    #[serde(default)]
    pub(crate) key_starts_per_minute: Option<u32>,
    pub(crate) maximum: Limits,
    pub(crate) default: Limits,
    /// Names or digests of the images it may use; `None`: all.
    pub(crate) images: Option<Vec<String>>,
    /// Whether its executions share nothing with others that need not be.
    #[serde(default)]
    pub(crate) fresh: bool,
}

/// A token that was minted here, or seen: `token/JTI`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenDoc {
    pub(crate) jti: String,
    pub(crate) tenant: Option<String>,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_s: u64,
    pub(crate) expires_s: u64,
    /// The key that minted it; `None` for one minted offline.
    pub(crate) minted_by: Option<String>,
}

/// The bytes of a document.
pub(super) fn bytes<T: Serialize>(document: &T) -> Vec<u8> {
    // These are structs of strings and numbers, which have no form that JSON lacks.
    serde_json::to_vec(document).unwrap_or_default()
}

pub(super) fn tier_bytes(tier: &Tier) -> Vec<u8> {
    let quotas: Vec<_> = tier.quotas.iter().map(shape::quota_body).collect();
    let starts = (tier.starts_per_minute, tier.key_starts_per_minute);
    bytes(&(
        (tier.concurrency, starts),
        quotas,
        tier.default,
        tier.maximum,
    ))
}

pub(super) fn read<T: DeserializeOwned>(subject: &str, bytes: &[u8]) -> Option<T> {
    let read = serde_json::from_slice(bytes);
    read.inspect_err(|error| tracing::error!(subject, %error, "a document cannot be read"))
        .ok()
}

/// Fills `state` from all documents.
pub(super) fn fold(ledger: &Ledger, tier: &Tier, state: &mut State) {
    for document in ledger.documents("tenant/") {
        let Some(profile) = read::<ProfileDoc>(&document.subject, &document.bytes) else {
            continue;
        };
        let name = profile.name.clone();
        let subject = format!("quotas/{name}");
        let quoted = ledger.document(&subject);
        let limits = ledger.document(&format!("limits/{name}"));
        let budgets = ledger.document(&format!("budgets/{name}"));
        let (own, changes) = quoted.as_ref().map_or_else(Default::default, |document| {
            quotas::parse(&subject, &document.bytes)
        });
        let tenant = Tenant {
            profile,
            quotas_seq: quoted.as_ref().map_or(0, |document| document.seq),
            quotas: own,
            changes,
            limits_seq: limits.as_ref().map_or(0, |document| document.seq),
            limits: limits
                .and_then(|document| read(&document.subject, &document.bytes))
                .unwrap_or_else(|| LimitsDoc::of_tier(tier)),
            budgets_seq: budgets.as_ref().map_or(0, |document| document.seq),
            budgets: budgets.map_or_else(Vec::new, |document| {
                budgets::parse(&document.subject, &document.bytes)
            }),
        };
        state.tenants.insert(name, Arc::new(tenant));
    }
    state.webhooks = webhooks::fold(ledger);
    for document in ledger.documents("token/") {
        if let Some(token) = read::<TokenDoc>(&document.subject, &document.bytes) {
            state.see(token);
        }
    }
    for document in ledger.documents("revoked/") {
        if let Some(jti) = document.subject.strip_prefix("revoked/") {
            state.revoke(jti);
        }
    }
}
