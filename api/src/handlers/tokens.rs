//! Tokens: minted within what their minter may do, listed, revoked; and the public keys that verify
//! them.

use std::collections::BTreeSet;

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::call::{Answer, Call, List, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::json::Object;
use crate::registry::TokenDoc;
use crate::scope::{Role, Scope};
use crate::token::{self, Mint};

/// What `POST /v1/tenants/{tenant}/tokens` takes.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct TokenBody {
    /// Whom the token stands for.
    name: String,
    /// `owner`, `developer`, `runner` or `billing`; or `scopes`.
    role: Option<String>,
    /// The scopes themselves; or `role`.
    scopes: Option<Vec<String>>,
    /// The project that everything it runs is booked on.
    project: Option<String>,
    /// Seconds until it expires.
    expires_in_s: Option<u64>,
}

/// A token as it is minted; its text is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MintedToken {
    /// The JWT.
    pub token: String,
    /// What is known of it.
    #[serde(flatten)]
    pub view: TokenView,
}

/// A token, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    /// Its identity, the key.
    pub jti: String,
    /// The tenant that it is for.
    pub tenant: Option<String>,
    /// Whom it stands for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub expires_at: String,
    /// The key that minted it; null for one that was minted offline.
    pub minted_by: Option<String>,
    /// `active`, `expired` or `revoked`.
    pub state: &'static str,
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenList {
    /// By key.
    pub items: Vec<TokenView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The public keys, RFC 7517.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Jwks {
    /// One for each key that verifies tokens.
    pub keys: Vec<Jwk>,
}

/// A public key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Jwk {
    pub kty: &'static str,
    pub crv: &'static str,
    pub alg: &'static str,
    #[serde(rename = "use")]
    pub usage: &'static str,
    pub kid: String,
    pub x: String,
}

fn view(token: TokenDoc, revoked: bool, now_s: u64) -> TokenView {
    let time = |s: u64| rfc3339(i64::try_from(s.saturating_mul(1_000_000)).unwrap_or(i64::MAX));
    let state = match (revoked, token.expires_s <= now_s) {
        (true, _) => "revoked",
        (false, true) => "expired",
        (false, false) => "active",
    };
    TokenView {
        created_at: time(token.created_s),
        expires_at: time(token.expires_s),
        jti: token.jti,
        tenant: token.tenant,
        name: token.name,
        scopes: token.scopes,
        minted_by: token.minted_by,
        state,
    }
}

/// Mints a token for a tenant
#[utoipa::path(post, path = "/v1/tenants/{tenant}/tokens", tag = "tokens",
    request_body = TokenBody, params(("tenant" = String, Path)),
    responses((status = 201, body = MintedToken), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn create(call: Call) -> Answer {
    call.no_query()?;
    let tenant = call.path_tenant()?;
    let app = &call.app;
    let wish = call.read(|body| {
        let name = body.required_text("name", 128);
        if name
            .as_deref()
            .is_some_and(|name| name.is_empty() || name.chars().any(char::is_control))
        {
            body.fault("name", "must be 1 to 128 printable bytes");
        }
        let scopes = read_scopes(body);
        let project = body.text("project", 64);
        if project
            .as_deref()
            .is_some_and(|name| !crate::execute::request::is_name(name))
        {
            body.fault(
                "project",
                "must be 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'",
            );
        }
        let expires_s = body.integer("expires_in_s", 1, u64::from(u32::MAX));
        Some((name?, scopes?, project, expires_s))
    })?;
    let (subject, scopes, project, asked_s) = wish;
    let caller = call.caller()?;
    let expires_s = within(caller, &scopes, project.as_deref(), asked_s, &call)?;
    let tenant = Some(tenant.profile.name.clone());
    let mint = Mint {
        subject,
        tenant,
        project,
        scopes,
        expires_s,
    };
    let (text, claims) = token::mint(&app.keys, &app.config.tokens, &app.clock, mint)
        .map_err(|error| ApiError::internal(crate::config::chain(&error)))?;
    let token = TokenDoc {
        jti: claims.jti,
        tenant: claims.tenant,
        name: claims.sub,
        scopes: claims.scope.split(' ').map(str::to_owned).collect(),
        created_s: claims.iat,
        expires_s: claims.exp,
        minted_by: Some(caller.key.clone()),
    };
    app.registry
        .note_minted(&caller.actor(None), token.clone())
        .await?;
    let view = view(token, false, claims.iat);
    Ok(HttpResponse::Created().json(MintedToken { token: text, view }))
}

/// The scopes that a role or a list names.
fn read_scopes(body: &mut Object<'_>) -> Option<BTreeSet<Scope>> {
    let role = body.text("role", 32);
    let names = body.texts("scopes", Scope::ALL.len());
    match (role, names) {
        (Some(_), Some(_)) => {
            body.fault("scopes", "stands beside role: give one of the two");
            None
        }
        (None, None) => {
            body.fault("role", "or scopes is required");
            None
        }
        (Some(name), None) => {
            let role = Role::from_name(&name);
            if role.is_none() {
                body.fault("role", "is not a role");
            }
            role.map(Role::scopes)
        }
        (None, Some(names)) => {
            if names.is_empty() {
                body.fault("scopes", "must not be empty");
            }
            let mut scopes = BTreeSet::new();
            for (at, name) in names.iter().enumerate() {
                match Scope::from_name(name) {
                    Some(scope) => drop(scopes.insert(scope)),
                    None => body.fault_in("scopes", &at.to_string(), "is not a scope"),
                }
            }
            Some(scopes)
        }
    }
}

/// Refuses what lies outside of what the minter may itself; answers the lifetime in seconds.
fn within(
    caller: &Caller,
    scopes: &BTreeSet<Scope>,
    project: Option<&str>,
    asked_s: Option<u64>,
    call: &Call,
) -> Result<u64, ApiError> {
    let forbidden = |detail: String| Err(ApiError::Forbidden { detail });
    if let Some(scope) = scopes.iter().find(|scope| scope.is_operators()) {
        return forbidden(format!(
            "{scope} is an operator's scope: no tenant's token has it"
        ));
    }
    if let Some(scope) = scopes.difference(&caller.scopes).next() {
        return forbidden(format!("the minting token does not have {scope} itself"));
    }
    if caller.project.is_some() && caller.project.as_deref() != project {
        return forbidden("the minting token is bound to another project".to_owned());
    }
    let left_s = caller.expires_s.saturating_sub(call.app.clock.wall_s());
    match asked_s {
        Some(asked_s) if asked_s > left_s => {
            forbidden(format!("the minting token itself expires in {left_s} s"))
        }
        Some(asked_s) if asked_s > call.app.config.tokens.expires_max_s => {
            let max = call.app.config.tokens.expires_max_s;
            Err(ApiError::invalid(
                "/expires_in_s",
                format!("must be at most {max}"),
            ))
        }
        Some(asked_s) => Ok(asked_s),
        None => Ok(call.app.config.tokens.expires_s.min(left_s)),
    }
}

/// Lists a tenant's tokens, those that were minted offline from their first use
#[utoipa::path(get, path = "/v1/tenants/{tenant}/tokens", tag = "tokens",
    params(("tenant" = String, Path), ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = TokenList), (status = 404, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let tenant = call.path_tenant()?;
    let mut query = call.query()?;
    let page = query.page(&call.app, |cursor| Some(cursor.to_owned()));
    query.finish()?;
    let now_s = call.app.clock.wall_s();
    let after = page.cursor.as_deref();
    let limit = page.limit.saturating_add(1);
    let tokens = call.app.registry.tokens(&tenant.profile.name, after, limit);
    let views = tokens
        .into_iter()
        .map(|(token, revoked)| view(token, revoked, now_s))
        .collect();
    Ok(ok(&List::cut(views, page.limit, |last: &TokenView| {
        last.jti.clone()
    })))
}

/// Revokes a token by its key, known or not; durable once this answers
#[utoipa::path(delete, path = "/v1/tokens/{jti}", tag = "tokens",
    params(("jti" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn revoke(call: Call) -> Answer {
    call.no_query()?;
    let jti = call.path("jti").to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !(1..=64).contains(&jti.len()) || !jti.chars().all(plain) {
        return Err(ApiError::NotFound { what: "token" });
    }
    let caller = call.caller()?;
    let known = call.app.registry.token(&jti);
    let own = known.as_ref().and_then(|token| token.tenant.as_deref()) == caller.tenant_name();
    // A tenant reaches only tokens that are known to be its own; an operator reaches any.
    if !caller.is_operator() && !own {
        return Err(ApiError::NotFound { what: "token" });
    }
    let tenant = known.and_then(|token| token.tenant);
    call.app
        .registry
        .revoke(&caller.actor(None), &jti, tenant)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The public keys that verify tokens
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "tokens", security(()),
    responses((status = 200, body = Jwks)))]
pub(crate) async fn jwks(call: Call) -> Answer {
    call.no_query()?;
    let keys = call.app.keys.public().map(|(kid, x)| Jwk {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        usage: "sig",
        kid: kid.to_owned(),
        x,
    });
    Ok(ok(&Jwks {
        keys: keys.collect(),
    }))
}
