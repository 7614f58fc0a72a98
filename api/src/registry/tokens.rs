//! Tokens that are known, and tokens that are no longer good.

use std::ops::Bound::{Excluded, Unbounded};

use ledger::Act;

use super::documents::{TokenDoc, bytes};
use super::{Actor, Registry, State, act};
use crate::error::ApiError;
use crate::token::Checked;

impl State {
    pub(super) fn see(&mut self, token: TokenDoc) {
        if let Some(tenant) = &token.tenant {
            *self.by_tenant.entry(tenant.clone()).or_default() += 1;
        }
        self.tokens.insert(token.jti.clone(), token);
    }

    pub(super) fn revoke(&mut self, jti: &str) {
        if self.revoked.insert(jti.to_owned()) && !self.tokens.contains_key(jti) {
            self.revoked_unseen += 1;
        }
    }

    fn forget(&mut self, jti: &str) {
        let Some(token) = self.tokens.remove(jti) else {
            return;
        };
        self.revoked.remove(jti);
        if let Some(count) = token
            .tenant
            .and_then(|tenant| self.by_tenant.get_mut(&tenant))
        {
            *count = count.saturating_sub(1);
        }
    }
}

impl Registry {
    /// Whether the key was revoked.
    pub(crate) fn is_revoked(&self, jti: &str) -> bool {
        self.read().revoked.contains(jti)
    }

    /// The token of that key, if it was minted here or has been used.
    pub(crate) fn token(&self, jti: &str) -> Option<TokenDoc> {
        self.read().tokens.get(jti).cloned()
    }

    /// A tenant's tokens after `after`, by key, at most `limit`, each with whether it is revoked.
    pub(crate) fn tokens(
        &self,
        tenant: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<(TokenDoc, bool)> {
        let state = self.read();
        let own = state
            .tokens
            .values()
            .filter(|token| token.tenant.as_deref() == Some(tenant));
        let by_key: std::collections::BTreeMap<&str, &TokenDoc> =
            own.map(|token| (token.jti.as_str(), token)).collect();
        let bounds = (after.map_or(Unbounded, Excluded), Unbounded);
        let page = by_key.range::<str, _>(bounds).take(limit);
        page.map(|(jti, token)| (TokenDoc::clone(token), state.revoked.contains(*jti)))
            .collect()
    }

    /// Notes a token that was minted offline, at its first use.
    ///
    /// Nobody waits for it to be durable: if it is lost, the next use notes it again.
    pub(crate) fn note_use(&self, checked: &Checked) {
        let claims = &checked.claims;
        if self.read().tokens.contains_key(&claims.jti) {
            return;
        }
        let token = TokenDoc {
            jti: claims.jti.clone(),
            tenant: claims.tenant.clone(),
            name: claims.sub.clone(),
            scopes: checked
                .scopes
                .iter()
                .map(|scope| scope.name().to_owned())
                .collect(),
            created_s: claims.iat,
            expires_s: claims.exp,
            minted_by: None,
        };
        let act = token_act(&Actor::server(), "token.seen", &token);
        let mut state = self.write();
        let count = claims
            .tenant
            .as_ref()
            .and_then(|tenant| state.by_tenant.get(tenant));
        let full = count.is_some_and(|count| *count >= self.tokens_options.per_tenant_max);
        if full || state.tokens.contains_key(&token.jti) {
            return;
        }
        // A ticket that nobody awaits is carried out all the same.
        match self.ledger.act(act) {
            Ok(ticket) => {
                drop(ticket);
                state.see(token);
            }
            Err(busy) => tracing::debug!(%busy, "a token's first use was not noted"),
        }
    }

    /// Notes a token that is being minted; it is handed out only after this.
    pub(crate) async fn note_minted(&self, actor: &Actor, token: TokenDoc) -> Result<(), ApiError> {
        let _acts = self.acts.lock().await;
        let tenant = token.tenant.clone().unwrap_or_default();
        let count = self.read().by_tenant.get(&tenant).copied().unwrap_or(0);
        if count >= self.tokens_options.per_tenant_max {
            let detail = format!("the tenant has {count} tokens: let some expire");
            return Err(ApiError::Conflict { detail });
        }
        self.record(token_act(actor, "token.create", &token))
            .await?;
        self.write().see(token);
        Ok(())
    }

    /// Revokes a key, known or not; durable once this answers. Doing it again changes nothing.
    pub(crate) async fn revoke(
        &self,
        actor: &Actor,
        jti: &str,
        tenant: Option<String>,
    ) -> Result<(), ApiError> {
        let _acts = self.acts.lock().await;
        {
            let state = self.read();
            if state.revoked.contains(jti) {
                return Ok(());
            }
            let unseen = !state.tokens.contains_key(jti);
            if unseen && state.revoked_unseen >= self.tokens_options.revoked_unseen_max {
                let detail = "too many unknown tokens are revoked already".to_owned();
                return Err(ApiError::Conflict { detail });
            }
        }
        let document = bytes(&self.clock.wall_us());
        let act = Act {
            tenant,
            document: Some(document),
            ..act(actor, "token.revoke", "revoked", jti)
        };
        self.record(act).await?;
        self.write().revoke(jti);
        Ok(())
    }

    /// Forgets tokens, and their revocations, that expired more than a day ago: they are refused
    /// for that alone.
    pub(crate) async fn forget_expired(&self) -> Result<(), ApiError> {
        let _acts = self.acts.lock().await;
        let before_s = self.clock.wall_s().saturating_sub(86_400);
        let expired: Vec<(TokenDoc, bool)> = {
            let state = self.read();
            let old = state
                .tokens
                .values()
                .filter(|token| token.expires_s < before_s);
            old.map(|token| (token.clone(), state.revoked.contains(&token.jti)))
                .collect()
        };
        for (token, revoked) in expired {
            let gone = |kind| Act {
                tenant: token.tenant.clone(),
                document: Some(Vec::new()),
                ..act(&Actor::server(), "token.expire", kind, &token.jti)
            };
            self.record(gone("token")).await?;
            if revoked {
                self.record(gone("revoked")).await?;
            }
            self.write().forget(&token.jti);
        }
        Ok(())
    }
}

fn token_act(actor: &Actor, action: &str, token: &TokenDoc) -> Act {
    Act {
        tenant: token.tenant.clone(),
        document: Some(bytes(token)),
        ..act(actor, action, "token", &token.jti)
    }
}
