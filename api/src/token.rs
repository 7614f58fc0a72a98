//! Tokens: what stands in one, how it is minted, and everything that is checked before one is
//! believed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::config::Tokens as TokenOptions;
use crate::ids;
use crate::keys::Keys;
use crate::scope::Scope;

/// The claims of a token, as they stand in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it: the configured issuer.
    pub iss: String,
    /// For whom: the configured audience.
    pub aud: String,
    /// Whom it stands for.
    pub sub: String,
    /// Its identity, the key.
    pub jti: String,
    /// Made at, in seconds since the epoch.
    pub iat: u64,
    /// Not valid before.
    pub nbf: u64,
    /// Not valid from here on.
    pub exp: u64,
    /// The tenant; an operator's token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The project that everything it runs is booked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The scopes, with spaces between.
    pub scope: String,
}

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct Mint {
    /// Whom it stands for.
    pub subject: String,
    /// The tenant; `None` for an operator.
    pub tenant: Option<String>,
    /// The project that everything is booked on.
    pub project: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// Seconds from now to its end.
    pub expires_s: u64,
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The kernel has no random bytes.
    #[error("cannot get random bytes: {reason}")]
    Random {
        /// What it says.
        reason: String,
    },
    /// Signing failed.
    #[error("cannot sign the token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// A checked token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) claims: Claims,
    pub(crate) scopes: BTreeSet<Scope>,
}

/// How many checked tokens are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 1_024;

/// Tokens whose signature was found good lately, by the SHA-256 of their text: keys and options
/// stay as they are while a server runs. What changes with time is checked each time.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<HashMap<[u8; 32], Checked>>);

impl Remembered {
    /// As [`check`].
    pub(crate) fn check(
        &self,
        keys: &Keys,
        options: &TokenOptions,
        now_s: u64,
        text: &str,
    ) -> Result<Checked, &'static str> {
        let digest = <[u8; 32]>::from(Sha256::digest(text));
        let known = self.lock().get(&digest).cloned();
        if let Some(known) = known {
            in_time(&known.claims, options, now_s)?;
            return Ok(known);
        }
        let checked = check(keys, options, now_s, text)?;
        let mut all = self.lock();
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(digest, checked.clone());
        Ok(checked)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Checked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes and signs a token; answers its text and its claims.
///
/// # Errors
/// [`MintError`].
pub fn mint(
    keys: &Keys,
    options: &TokenOptions,
    clock: &Clock,
    mint: Mint,
) -> Result<(String, Claims), MintError> {
    let id = ids::new(clock).map_err(|error| MintError::Random {
        reason: error.to_string(),
    })?;
    let now = clock.wall_s();
    let names: Vec<&str> = mint.scopes.iter().map(|scope| scope.name()).collect();
    let claims = Claims {
        iss: options.issuer.clone(),
        aud: options.audience.clone(),
        sub: mint.subject,
        jti: ids::text(ids::Kind::Key, &id),
        iat: now,
        nbf: now,
        exp: now.saturating_add(mint.expires_s),
        tenant: mint.tenant,
        project: mint.project,
        scope: names.join(" "),
    };
    let (kid, key) = keys.signing();
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(kid.to_owned());
    let text = jsonwebtoken::encode(&header, &claims, key).map_err(MintError::Sign)?;
    Ok((text, claims))
}

/// Checks everything about `text` that can be checked without knowing tenants and revocations.
///
/// The reason of a refusal is for the log: the client learns only that the token is not good.
pub(crate) fn check(
    keys: &Keys,
    options: &TokenOptions,
    now_s: u64,
    text: &str,
) -> Result<Checked, &'static str> {
    if text.len() > options.length_max_bytes {
        return Err("too long");
    }
    let Ok(header) = jsonwebtoken::decode_header(text) else {
        return Err("malformed header");
    };
    if header.alg != Algorithm::EdDSA {
        return Err("wrong algorithm");
    }
    if header.crit.is_some() {
        return Err("critical header fields");
    }
    let key = header
        .kid
        .as_deref()
        .and_then(|kid| keys.verifying(kid))
        .ok_or("unknown key id")?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.set_issuer(&[&options.issuer]);
    validation.set_audience(&[&options.audience]);
    // Times are checked below, against this crate's clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let Ok(token) = jsonwebtoken::decode::<Claims>(text, key, &validation) else {
        return Err("bad signature, issuer, audience or claims");
    };
    let claims = token.claims;
    in_time(&claims, options, now_s)?;
    let printable = |text: &str, max: usize| {
        !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
    };
    if !printable(&claims.jti, 64) || !printable(&claims.sub, 128) {
        return Err("bad jti or sub");
    }
    let names = claims.scope.split(' ').filter(|name| !name.is_empty());
    let scopes = names
        .map(Scope::from_name)
        .collect::<Option<BTreeSet<Scope>>>();
    let scopes = scopes.ok_or("unknown scope")?;
    if claims.tenant.is_some() && scopes.iter().any(|scope| scope.is_operators()) {
        return Err("operator scope with a tenant");
    }
    Ok(Checked { claims, scopes })
}

fn in_time(claims: &Claims, options: &TokenOptions, now_s: u64) -> Result<(), &'static str> {
    if now_s >= claims.exp.saturating_add(options.leeway_s) {
        return Err("expired");
    }
    if now_s.saturating_add(options.leeway_s) < claims.nbf {
        return Err("not yet valid");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::scope::Role;

    struct Fixture {
        keys: Keys,
        options: TokenOptions,
        clock: Clock,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let keys = Keys::open(dir.path(), &clock).unwrap();
        Fixture {
            keys,
            options: Config::default_layer().tokens,
            clock,
            _dir: dir,
        }
    }

    fn developer() -> Mint {
        Mint {
            subject: "dev".to_owned(),
            tenant: Some("acme".to_owned()),
            project: None,
            scopes: Role::Developer.scopes(),
            expires_s: 60,
        }
    }

    #[test]
    fn a_minted_token_is_good_until_it_expires() {
        let f = fixture();
        let (text, claims) = mint(&f.keys, &f.options, &f.clock, developer()).unwrap();
        let checked = check(&f.keys, &f.options, claims.iat, &text).unwrap();
        assert_eq!(checked.claims, claims);
        assert_eq!(checked.scopes, Role::Developer.scopes());
        let end = claims.exp + f.options.leeway_s;
        assert!(check(&f.keys, &f.options, end - 1, &text).is_ok());
        assert_eq!(check(&f.keys, &f.options, end, &text), Err("expired"));
        let early = claims.nbf - f.options.leeway_s - 1;
        assert_eq!(
            check(&f.keys, &f.options, early, &text),
            Err("not yet valid")
        );
    }

    #[test]
    fn a_remembered_token_still_ends_and_another_is_not_taken_for_it() {
        let f = fixture();
        let remembered = Remembered::default();
        let ask = |now: u64, text: &str| remembered.check(&f.keys, &f.options, now, text);
        let (text, claims) = mint(&f.keys, &f.options, &f.clock, developer()).unwrap();
        let end = claims.exp + f.options.leeway_s;
        for _ in 0..2 {
            assert_eq!(ask(claims.iat, &text).unwrap().claims, claims);
        }
        assert_eq!(ask(end, &text), Err("expired"));
        assert!(ask(claims.iat, text.get(..text.len() - 2).unwrap()).is_err());
        assert!(ask(claims.iat, &text.repeat(9)).is_err());
        let known = ask(claims.iat, &text).unwrap();
        for n in 1..REMEMBERED_MAX {
            let digest = <[u8; 32]>::from(Sha256::digest(n.to_string()));
            remembered.lock().insert(digest, known.clone());
        }
        assert_eq!(remembered.lock().len(), REMEMBERED_MAX);
        let (other, claims) = mint(&f.keys, &f.options, &f.clock, developer()).unwrap();
        assert_eq!(ask(claims.iat, &other).unwrap().claims, claims);
        assert_eq!(remembered.lock().len(), 1);
    }

    #[test]
    fn tokens_of_other_issuers_audiences_and_keys_are_refused() {
        let f = fixture();
        let now = f.clock.wall_s();
        let changes: [fn(&mut TokenOptions); 2] =
            [|o| o.issuer.push('x'), |o| o.audience.push('x')];
        for change in changes {
            let mut options = f.options.clone();
            change(&mut options);
            let (text, _) = mint(&f.keys, &options, &f.clock, developer()).unwrap();
            assert!(check(&f.keys, &f.options, now, &text).is_err());
        }
        let other = fixture();
        let (text, _) = mint(&other.keys, &other.options, &f.clock, developer()).unwrap();
        assert_eq!(
            check(&f.keys, &f.options, now, &text),
            Err("unknown key id")
        );
    }

    #[test]
    fn an_operators_scope_beside_a_tenant_is_refused() {
        let f = fixture();
        let mut wrong = developer();
        wrong.scopes.insert(Scope::TenantAdmin);
        let (text, claims) = mint(&f.keys, &f.options, &f.clock, wrong).unwrap();
        assert!(check(&f.keys, &f.options, claims.iat, &text).is_err());
    }

    #[test]
    fn every_single_changed_character_is_noticed() {
        let f = fixture();
        let (text, claims) = mint(&f.keys, &f.options, &f.clock, developer()).unwrap();
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(
                check(&f.keys, &f.options, claims.iat, &changed).is_err(),
                "at {at}"
            );
        }
    }
}
