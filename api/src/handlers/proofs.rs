//! What an auditor asks for: checkpoints, the keys that verify them, and proofs.

use actix_web::HttpResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::entries::{EntryView, entry};
use super::usage::failed;
use crate::call::{Answer, Call, Query, ok};
use crate::error::{ApiError, Problem, Retry};
use crate::proof::ProofError;

/// Shows that an entry is in the tree.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InclusionView {
    /// The entry's number.
    pub seq: u64,
    /// Its place in the tree: the number less 1.
    pub leaf_index: u64,
    /// SHA-256 of a zero byte and `bytes`, in base64.
    pub leaf_hash: String,
    /// How many entries the tree has.
    pub size: u64,
    /// Its root, in base64.
    pub root: String,
    /// Whether a checkpoint over exactly `size` entries was signed.
    pub signed: bool,
    /// RFC 6962 audit path from the leaf upwards, each hash in base64.
    pub path: Vec<String>,
    /// The entry as it is stored, in base64: what the tree hashes.
    pub bytes: String,
    /// The same, decoded.
    pub entry: EntryView,
}

/// Shows that the older tree is the beginning of the newer one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConsistencyView {
    /// Size of the older tree.
    pub from: u64,
    /// Its root, in base64.
    pub from_root: String,
    /// Size of the newer tree.
    pub to: u64,
    /// Its root, in base64.
    pub to_root: String,
    /// RFC 6962 consistency proof, each hash in base64.
    pub path: Vec<String>,
}

/// Gives the newest signed checkpoint, or the one over a given number of entries
#[utoipa::path(get, path = "/v1/ledger/checkpoint", tag = "proof",
    params(("size" = Option<u64>, Query,
        description = "over exactly so many entries; without it the newest")),
    responses((status = 200, body = String, content_type = "text/plain",
            description = "a C2SP signed note: origin, size, root, signature"),
        (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn checkpoint(call: Call) -> Answer {
    let mut query = call.query()?;
    let size = number(&mut query, "size");
    query.finish()?;
    let app = std::sync::Arc::clone(&call.app);
    let found = call.app.blocking(move || match (size, app.proof.latest()) {
        (Some(size), _) => app.proof.at(size),
        (None, Some(latest)) => Ok(Some(latest)),
        // The first one is not waited for.
        (None, None) => app.proof.sign(&app.ledger).map(Some),
    });
    let found = found.await?.map_err(no_proof)?;
    let found = found.ok_or(ApiError::NotFound {
        what: "checkpoint over so many entries",
    })?;
    Ok(note(found.text))
}

/// Signs the tree as it is now, if it has grown since the last time (for operators)
#[utoipa::path(post, path = "/v1/ledger/checkpoint", tag = "proof",
    responses((status = 200, body = String, content_type = "text/plain",
            description = "a C2SP signed note: origin, size, root, signature"),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn sign(call: Call) -> Answer {
    call.operator()?;
    call.no_query()?;
    call.read(|_nothing| Some(()))?;
    let app = std::sync::Arc::clone(&call.app);
    let signed = call.app.blocking(move || app.proof.sign(&app.ledger));
    Ok(note(signed.await?.map_err(no_proof)?.text))
}

/// Lists the public keys that verify checkpoints, newest first
#[utoipa::path(get, path = "/v1/ledger/keys", tag = "proof",
    responses((status = 200, body = String, content_type = "text/plain",
        description = "one a line, as NAME+HASH+KEY of C2SP signed notes")))]
pub(crate) async fn keys(call: Call) -> Answer {
    call.no_query()?;
    let keys = call.app.proof.keys().iter();
    Ok(note(keys.map(|key| format!("{key}\n")).collect()))
}

/// Shows that an entry is in the tree over the first entries
#[utoipa::path(get, path = "/v1/ledger/proofs/inclusion", tag = "proof",
    params(("entry" = u64, Query, description = "number of the entry"),
        ("size" = Option<u64>, Query, description = "how many entries the tree shall have; \
            without it as many as the newest checkpoint, or all if that lacks the entry")),
    responses((status = 200, body = InclusionView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn inclusion(call: Call) -> Answer {
    let mut query = call.query()?;
    let seq = required(&mut query, "entry");
    let size = number(&mut query, "size");
    query.finish()?;
    let own = call.caller()?.tenant_name().map(str::to_owned);
    let app = std::sync::Arc::clone(&call.app);
    let found = call.app.blocking(move || {
        let ledger = &app.ledger;
        let known = ledger.entry(seq).map_err(failed)?;
        // Before anything is said about sizes: another tenant's is as good as none.
        known
            .filter(|entry| own.is_none() || entry.tenant() == own.as_deref())
            .ok_or(ApiError::NotFound { what: "entry" })?;
        let latest = app.proof.latest().map(|latest| latest.size);
        let size = size.or_else(|| latest.filter(|latest| *latest >= seq));
        let size = size.unwrap_or_else(|| ledger.head().size);
        let proved = ledger.prove_entry(seq, size).map_err(failed)?;
        let proved = proved.ok_or(ApiError::NotFound { what: "entry" })?;
        let signed = app.proof.at(size).map_err(no_proof)?.is_some();
        Ok::<_, ApiError>((proved, signed))
    });
    let (proved, signed) = found.await??;
    Ok(ok(&InclusionView {
        seq: proved.entry.seq,
        leaf_index: proved.entry.seq.saturating_sub(1),
        leaf_hash: STANDARD.encode(proved.leaf),
        size: proved.size,
        root: STANDARD.encode(proved.root),
        signed,
        path: proved
            .path
            .iter()
            .map(|hash| STANDARD.encode(hash))
            .collect(),
        bytes: STANDARD.encode(&proved.bytes),
        entry: entry(&proved.entry),
    }))
}

/// Shows that the tree over the first `from` entries is the beginning of the one over `to`
#[utoipa::path(get, path = "/v1/ledger/proofs/consistency", tag = "proof",
    params(("from" = u64, Query, description = "size of the older tree"),
        ("to" = Option<u64>, Query,
            description = "size of the newer one; without it the newest checkpoint's")),
    responses((status = 200, body = ConsistencyView), (status = 400, body = Problem)))]
pub(crate) async fn consistency(call: Call) -> Answer {
    let mut query = call.query()?;
    let from = required(&mut query, "from");
    let to = number(&mut query, "to");
    query.finish()?;
    let app = std::sync::Arc::clone(&call.app);
    let found = call.app.blocking(move || {
        let latest = app.proof.latest().map(|latest| latest.size);
        let to = to.or(latest).unwrap_or_else(|| app.ledger.head().size);
        app.ledger.prove_growth(from, to)
    });
    let proved = found.await?.map_err(failed)?;
    Ok(ok(&ConsistencyView {
        from: proved.from,
        from_root: STANDARD.encode(proved.from_root),
        to: proved.to,
        to_root: STANDARD.encode(proved.to_root),
        path: proved
            .path
            .iter()
            .map(|hash| STANDARD.encode(hash))
            .collect(),
    }))
}

fn note(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body(text)
}

fn no_proof(error: ProofError) -> ApiError {
    ApiError::Unavailable {
        reason: crate::config::chain(&error),
        retry: Retry::Safe,
    }
}

fn number(query: &mut Query, name: &str) -> Option<u64> {
    let text = query.take(name)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|_| plain);
    if value.is_none() {
        query
            .faults
            .add(format!("?{name}"), "must be a whole number");
    }
    value
}

/// As [`number`], where there must be one; a fault is noted and 0 stands for it.
fn required(query: &mut Query, name: &str) -> u64 {
    if !query.has(name) {
        query.faults.add(format!("?{name}"), "is required");
    }
    number(query, name).unwrap_or(0)
}
