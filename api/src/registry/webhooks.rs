//! Webhooks: where a tenant, or the operator, wants to be told.
//!
//! The subject of their acts is `webhook/TENANT/NAME`, with `-` for the operator. The secret is not
//! among what the ledger keeps: the document has only the id of the file that holds it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ledger::{Act, Ledger};
use serde::{Deserialize, Serialize};

use super::documents::{bytes, read};
use super::{Actor, Registry, act};
use crate::error::ApiError;
use crate::outbox::Target;

/// All webhooks there are.
pub(super) type Webhooks = BTreeMap<Target, Arc<Webhook>>;

/// A webhook as its act has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WebhookDoc {
    pub(crate) url: String,
    pub(crate) enabled: bool,
    /// The id of its secret.
    pub(crate) secret: String,
    pub(crate) created_us: i64,
}

/// A webhook, and the entry that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Webhook {
    pub(crate) doc: WebhookDoc,
    pub(crate) seq: u64,
}

/// All that the ledger has.
pub(super) fn fold(ledger: &Ledger) -> Webhooks {
    let mut webhooks = Webhooks::new();
    for document in ledger.documents("webhook/") {
        let parts = document.subject.strip_prefix("webhook/");
        let target = parts.and_then(|parts| parts.split_once('/'));
        let doc = read::<WebhookDoc>(&document.subject, &document.bytes);
        let (Some((tenant, name)), Some(doc)) = (target, doc) else {
            continue;
        };
        let to = Target {
            tenant: (tenant != "-").then(|| tenant.to_owned()),
            name: name.to_owned(),
        };
        let seq = document.seq;
        webhooks.insert(to, Arc::new(Webhook { doc, seq }));
    }
    webhooks
}

impl Registry {
    /// The webhook of that name.
    pub(crate) fn webhook(&self, to: &Target) -> Option<Arc<Webhook>> {
        self.read().webhooks.get(to).cloned()
    }

    /// All webhooks of a tenant, or of the operator, by name.
    pub(crate) fn webhooks(&self, tenant: Option<&str>) -> Vec<(String, Arc<Webhook>)> {
        let state = self.read();
        let first = Target {
            tenant: tenant.map(str::to_owned),
            name: String::new(),
        };
        let from = state.webhooks.range(first..);
        let own = from.take_while(|(to, _)| to.tenant.as_deref() == tenant);
        own.map(|(to, webhook)| (to.name.clone(), Arc::clone(webhook)))
            .collect()
    }

    /// The ids of all secrets that webhooks have.
    pub(crate) fn webhook_secrets(&self) -> HashSet<String> {
        let state = self.read();
        let all = state.webhooks.values();
        all.map(|webhook| webhook.doc.secret.clone()).collect()
    }

    /// Makes or replaces a webhook, if it is still as the entry `seen` made it (zero: not there).
    pub(crate) async fn set_webhook(
        &self,
        actor: &Actor,
        to: &Target,
        doc: WebhookDoc,
        seen: u64,
    ) -> Result<Arc<Webhook>, ApiError> {
        let _acts = self.acts.lock().await;
        self.unchanged(to, seen)?;
        let most = self.webhooks_max;
        if seen == 0 && self.webhooks(to.tenant.as_deref()).len() >= most {
            let detail = format!("there are {most} webhooks already: delete one");
            return Err(ApiError::Conflict { detail });
        }
        let act = Act {
            document: Some(bytes(&doc)),
            ..webhook_act(actor, "webhook.set", to)
        };
        let seq = self.record(act).await?;
        let webhook = Arc::new(Webhook { doc, seq });
        let kept = Arc::clone(&webhook);
        self.write().webhooks.insert(to.clone(), kept);
        Ok(webhook)
    }

    /// Deletes a webhook, if it is still as the entry `seen` made it.
    pub(crate) async fn delete_webhook(
        &self,
        actor: &Actor,
        to: &Target,
        seen: u64,
    ) -> Result<(), ApiError> {
        let _acts = self.acts.lock().await;
        self.unchanged(to, seen)?;
        let act = Act {
            document: Some(Vec::new()),
            ..webhook_act(actor, "webhook.delete", to)
        };
        self.record(act).await?;
        self.write().webhooks.remove(to);
        Ok(())
    }

    fn unchanged(&self, to: &Target, seen: u64) -> Result<(), ApiError> {
        let now = self.webhook(to).map_or(0, |webhook| webhook.seq);
        if now == seen {
            return Ok(());
        }
        Err(ApiError::Conflict {
            detail: "it was changed since you looked".to_owned(),
        })
    }
}

fn webhook_act(actor: &Actor, action: &str, to: &Target) -> Act {
    let owner = to.tenant.as_deref().unwrap_or("-");
    Act {
        tenant: to.tenant.clone(),
        ..act(actor, action, "webhook", &format!("{owner}/{}", to.name))
    }
}
