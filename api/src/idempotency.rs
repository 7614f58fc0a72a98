//! Idempotency keys: how one is read, what it is bound to, and what a repeated one answers.
//!
//! The key itself is the ledger's: it is taken in the same batch as the hold or the act, so that
//! key and money cannot disagree. A refusal takes no key. A key whose execution was admitted but
//! never started (the machine was full) is followed by another one derived from it, so that trying
//! again is not answered with the refusal for a day.

use std::sync::Arc;

use ledger::{Act, Idempotency, Rejection};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::app::App;
use crate::call::Call;
use crate::error::{ApiError, rejected};
use crate::ids;
use crate::record::Record;

/// A caller's retry key, bound to tenant, method, route and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    key: [u8; 32],
    fingerprint: [u8; 32],
}

/// What became of the execution that a key opened.
pub(crate) enum Earlier {
    /// Its record, as it now is.
    Known(Arc<Record>),
    /// It is being admitted at this moment.
    InFlight,
    /// It was given up before it started, and nothing was charged.
    Never,
}

impl Key {
    /// The key of a request, if it has one.
    pub(crate) fn of(
        call: &Call,
        route: &str,
        body: &Map<String, Value>,
    ) -> Option<Result<Key, ApiError>> {
        let header = call.http.headers().get("idempotency-key")?;
        let text = header.to_str().unwrap_or_default();
        let most = call.app.config.idempotency.key_max_bytes;
        Some(Key::read(text, most, route, body))
    }

    /// Reads the header's value: a structured-field string, or the bare key.
    pub(crate) fn read(
        header: &str,
        key_max_bytes: usize,
        route: &str,
        body: &Map<String, Value>,
    ) -> Result<Key, ApiError> {
        let text = unquoted(header.trim());
        let printable = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let text = text.filter(|text| (1..=key_max_bytes).contains(&text.len()) && printable(text));
        let text = text.ok_or_else(|| {
            let detail = format!("must be 1 to {key_max_bytes} printable characters");
            ApiError::invalid("Idempotency-Key", detail)
        })?;
        // Names are sorted and spaces are gone: two writings of one body have one fingerprint.
        let canonical = serde_json::to_vec(body).map_err(ApiError::internal)?;
        Ok(Key {
            key: hash(&[route.as_bytes(), text.as_bytes()]),
            fingerprint: hash(&[&canonical]),
        })
    }

    /// The key that stands for this one after `execution` was given up.
    pub(crate) fn after(self, execution: &[u8; 16]) -> Key {
        Key {
            key: hash(&[&self.key, execution]),
            ..self
        }
    }

    /// As a part of a name.
    pub(crate) fn name(&self) -> String {
        ids::hex(&self.key)
    }

    /// What its body hashes to.
    pub(crate) fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    pub(crate) fn to_ledger(self) -> Idempotency {
        Idempotency {
            key: self.key,
            fingerprint: self.fingerprint,
        }
    }
}

/// What became of the execution that a key opened. Reads the disk: not for a thread that serves
/// connections.
pub(crate) fn earlier(app: &App, tenant: &str, execution: &[u8; 16]) -> Result<Earlier, ApiError> {
    if let Some(flight) = app.live.get(execution) {
        let known = flight.is_admitted();
        return Ok(if known {
            Earlier::Known(flight.record())
        } else {
            Earlier::InFlight
        });
    }
    let record = crate::lookup::find(app, Some(tenant), execution)?;
    Ok(record.map_or(Earlier::Never, Earlier::Known))
}

/// What became of an act under a key.
pub(crate) enum Once {
    /// It was recorded as this entry.
    Made(u64),
    /// The same was recorded with this key before, as that entry.
    Earlier(u64),
}

/// Records an act under a key, for good: the key is a subject of its own, on which there may be one
/// act, and whose document tells the body.
pub(crate) async fn act_once(call: &Call, wanted: Act, key: &Key) -> Result<Once, ApiError> {
    let subject = format!("{}/{}", wanted.subject, key.name());
    let wanted = Act {
        subject: subject.clone(),
        document: Some(key.fingerprint().to_vec()),
        expect: Some(0),
        ..wanted
    };
    let (ledger, now_us) = (&call.app.ledger, call.app.clock.wall_us());
    match ledger.act(wanted)?.await? {
        Ok(made) => Ok(Once::Made(made.entry)),
        Err(Rejection::Conflict { seq, .. }) if seq > 0 => {
            let document = ledger.document(&subject);
            let same = document.is_some_and(|kept| *kept.bytes == *key.fingerprint());
            if same {
                Ok(Once::Earlier(seq))
            } else {
                Err(ApiError::IdempotencyMismatch)
            }
        }
        Err(no) => Err(rejected(no, now_us)),
    }
}

/// The characters of a structured-field string (RFC 8941), or of a bare key.
fn unquoted(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('"') else {
        return (!text.contains('"')).then(|| text.to_owned());
    };
    let inner = rest.strip_suffix('"')?;
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(chars.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// SHA-256 of parts that cannot run into each other.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(header: &str, body: &Value) -> Result<Key, ApiError> {
        let Value::Object(body) = body else {
            unreachable!()
        };
        Key::read(header, 20, "POST /v1/executions", body)
    }

    #[test]
    fn quoted_and_bare_keys_are_the_same() {
        let body = json!({});
        assert_eq!(key("\"abc\"", &body).unwrap(), key(" abc ", &body).unwrap());
        assert_eq!(
            key(r#""a\"b""#, &body).unwrap(),
            key(r#""a\"b""#, &body).unwrap()
        );
        for bad in [
            "",
            "\"",
            "\"\"",
            "a\"b",
            "\"a",
            "\"a\"b\"",
            "\"a\\n\"",
            &"x".repeat(21),
            "a\u{e9}",
        ] {
            assert!(key(bad, &body).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_fingerprint_is_of_the_content_not_of_the_writing() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":[1, 2]}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{ "b":[1,2], "a":1 }"#).unwrap();
        assert_eq!(key("k", &one).unwrap(), key("k", &two).unwrap());
        let other = json!({"a": 1, "b": [2, 1]});
        let (one, other) = (key("k", &one).unwrap(), key("k", &other).unwrap());
        assert_eq!(one.key, other.key);
        assert_ne!(one.fingerprint, other.fingerprint);
        assert_ne!(one.after(&[1; 16]).key, one.key);
        assert_eq!(one.after(&[1; 16]).fingerprint, one.fingerprint);
    }
}
