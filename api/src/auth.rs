//! Step 1 of every request: the token in its headers becomes a [`Caller`], or it is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::http::header::HeaderMap;

use crate::app::App;
use crate::error::ApiError;
use crate::registry::{Actor, Tenant};
use crate::scope::Scope;

/// Who is asking, proven for this request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The tenant that the token is for; `None` for an operator's.
    pub(crate) tenant: Option<Arc<Tenant>>,
    /// The token's identity.
    pub(crate) key: String,
    /// Whom it stands for.
    pub(crate) subject: String,
    /// What it may do.
    pub(crate) scopes: BTreeSet<Scope>,
    /// When it ends, in seconds since the epoch.
    pub(crate) expires_s: u64,
    /// The project that everything it runs is booked on.
    pub(crate) project: Option<String>,
}

impl Caller {
    /// The name of the token's tenant.
    pub(crate) fn tenant_name(&self) -> Option<&str> {
        self.tenant
            .as_deref()
            .map(|tenant| tenant.profile.name.as_str())
    }

    pub(crate) fn is_operator(&self) -> bool {
        self.tenant.is_none()
    }

    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Refuses who does not have `scope`.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), ApiError> {
        if self.has(scope) {
            return Ok(());
        }
        Err(ApiError::Forbidden {
            detail: format!("the scope {scope} is needed"),
        })
    }

    pub(crate) fn actor(&self, reason: Option<String>) -> Actor {
        Actor {
            key: self.key.clone(),
            reason,
        }
    }
}

/// The caller that the headers prove.
pub(crate) fn caller(app: &App, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let refused = |reason| ApiError::Unauthenticated { reason };
    let text = token_text(headers).map_err(refused)?;
    let tokens = &app.config.tokens;
    let checked = app
        .remembered
        .check(&app.keys, tokens, app.clock.wall_s(), text);
    let checked = checked.map_err(refused)?;
    let claims = &checked.claims;
    if app.registry.is_revoked(&claims.jti) {
        return Err(refused("revoked"));
    }
    let tenant = match &claims.tenant {
        None => None,
        Some(name) => Some(
            app.registry
                .tenant(name)
                .ok_or_else(|| refused("unknown tenant"))?,
        ),
    };
    app.registry.note_use(&checked);
    if tenant
        .as_ref()
        .is_some_and(|tenant| tenant.profile.suspended)
    {
        return Err(ApiError::TenantSuspended);
    }
    Ok(Caller {
        tenant,
        key: checked.claims.jti,
        subject: checked.claims.sub,
        scopes: checked.scopes,
        expires_s: checked.claims.exp,
        project: checked.claims.project,
    })
}

/// The one token in `Authorization: Bearer` or `X-Api-Key`.
fn token_text(headers: &HeaderMap) -> Result<&str, &'static str> {
    let mut given = headers
        .get_all("authorization")
        .chain(headers.get_all("x-api-key"));
    let (first, second) = (given.next(), given.next());
    let value = first.ok_or("no token")?;
    if second.is_some() {
        return Err("more than one token");
    }
    let text = value.to_str().ok().ok_or("not ASCII")?;
    if headers.contains_key("x-api-key") {
        return Ok(text.trim());
    }
    let (scheme, token) = text.split_once(' ').ok_or("no scheme")?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err("wrong scheme")
    }
}
