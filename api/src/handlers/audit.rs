//! What operators look through: who did what.

pub(super) mod detail;

use ledger::{Adjusted, AsOf, Body, Entry, EntryKind, EntryQuery, Ledger, QueryError};

use super::entries::{EntryList, entry};
use super::usage::failed;
use crate::call::{Answer, Call, ok};
use crate::error::Problem;

/// Acts that are read from the ledger at once.
pub(super) const CHUNK: usize = 1000;

/// What an act must be to be listed.
struct Wanted {
    actor: Option<String>,
    action: Option<String>,
    subject: Option<String>,
}

impl Wanted {
    fn passes(&self, entry: &Entry) -> bool {
        let (actor, action, subject) = match &entry.body {
            Body::Acted(acted) => (&acted.actor, acted.action.as_str(), &acted.subject),
            Body::Adjusted(adjusted) => (&adjusted.approver.key, APPROVED, &approved(adjusted)),
            Body::Settled(_) => return false,
        };
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        same(&self.actor, actor) && same(&self.action, action) && same(&self.subject, subject)
    }
}

/// The action by which an adjustment becomes an entry of its own.
pub(super) const APPROVED: &str = "adjustment.approve";

/// What was approved: the subject on which it was proposed.
pub(super) fn approved(adjusted: &Adjusted) -> String {
    format!("adjustments/{}", adjusted.tenant)
}

/// Lists administrative acts by number, oldest first, approved adjustments among them (for
/// operators)
#[utoipa::path(get, path = "/v1/audit", tag = "proof",
    params(("actor" = Option<String>, Query, description = "a key's jti, or server"),
        ("action" = Option<String>, Query), ("subject" = Option<String>, Query),
        ("tenant" = Option<String>, Query),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = EntryList), (status = 400, body = Problem),
        (status = 403, body = Problem)))]
pub(crate) async fn acts(call: Call) -> Answer {
    let mut query = call.query()?;
    let tenant = call.tenant(&mut query)?;
    let page = query.page(&call.app, |cursor| cursor.parse().ok());
    let wanted = Wanted {
        actor: query.take("actor"),
        action: query.take("action"),
        subject: query.take("subject"),
    };
    let (from, to) = (query.time("from"), query.time("to"));
    query.finish()?;
    let asked = EntryQuery {
        after: page.cursor.unwrap_or(0),
        tenant: tenant.map(|tenant| tenant.profile.name.clone()),
        kind: None,
        from,
        to,
        limit: CHUNK,
    };
    let (ledger, most) = (
        call.app.ledger.clone(),
        call.app.config.server.list_scan_max,
    );
    let found = call
        .app
        .blocking(move || {
            let passes = |entry: &Entry| wanted.passes(entry);
            let next = |asked: &EntryQuery| piece(&ledger, asked);
            select(next, asked, passes, (page.limit, most))
        })
        .await?
        .map_err(failed)?;
    let (as_of, entries, next) = found;
    Ok(ok(&EntryList {
        items: entries.iter().map(entry).collect(),
        next_cursor: next.map(|next| next.to_string()),
        as_of: as_of.into(),
    }))
}

/// Up to where entries were looked for, those found, and where to go on.
pub(super) type Piece = (AsOf, Vec<Entry>, Option<u64>);

/// At most `limit` entries that pass, of at most `most` that are looked at; and where to go on.
pub(super) fn select(
    piece: impl Fn(&EntryQuery) -> Result<Piece, QueryError>,
    mut asked: EntryQuery,
    passes: impl Fn(&Entry) -> bool,
    (limit, most): (usize, usize),
) -> Result<Piece, QueryError> {
    let mut found = Vec::new();
    let mut rounds = most.div_ceil(CHUNK);
    loop {
        let (as_of, entries, next) = piece(&asked)?;
        for entry in entries {
            let seq = entry.seq;
            if passes(&entry) {
                found.push(entry);
            }
            if found.len() == limit {
                return Ok((as_of, found, Some(seq).filter(|seq| *seq < as_of.seq)));
            }
        }
        rounds = rounds.saturating_sub(1);
        match next {
            Some(next) if rounds > 0 => asked.after = next,
            next => return Ok((as_of, found, next)),
        }
    }
}

/// The next acts, those that are adjustments among them, and up to where all were looked at, unless
/// that is the end.
fn piece(ledger: &Ledger, asked: &EntryQuery) -> Result<Piece, QueryError> {
    let of = |kind| {
        ledger.entries(&EntryQuery {
            kind: Some(kind),
            ..asked.clone()
        })
    };
    let (acts, adjustments) = (of(EntryKind::Acted)?, of(EntryKind::Adjusted)?);
    let next = acts.next.into_iter().chain(adjustments.next).min();
    let through = next.unwrap_or(acts.as_of.seq);
    let mut entries = acts.entries;
    entries.extend(adjustments.entries);
    entries.retain(|entry| entry.seq <= through);
    entries.sort_unstable_by_key(|entry| entry.seq);
    Ok((acts.as_of, entries, next))
}
