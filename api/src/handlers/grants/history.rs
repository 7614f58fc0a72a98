//! All that was ever granted to a tenant, read from its acts, and what it has paid.
//!
//! What a grant had left when it was taken back is no part of that act: it is what its runs and
//! adjustments had not been paid with until then.

use std::collections::BTreeMap;

use ledger::{
    Body, ChargeQuery, Effect, Entry, EntryKind, EntryQuery, Funding, Grant, GrantState, Ledger,
    Money, Only, QueryError,
};

/// Entries that are read at once.
const CHUNK: usize = 1_000;
/// Grants that one page looks at.
const LOOKED_MAX: usize = 10_000;

/// A grant and what has become of it.
pub(super) struct Given {
    pub(super) entry: u64,
    pub(super) grant: Grant,
    pub(super) left: Money,
    pub(super) used: Money,
    pub(super) voided: Option<Voided>,
}

/// The act that took back what was left.
pub(super) struct Voided {
    pub(super) entry: u64,
    pub(super) at: i64,
    pub(super) by: String,
}

/// Grants, and where to go on.
pub(super) struct Found {
    pub(super) given: Vec<Given>,
    pub(super) next: Option<u64>,
}

impl Given {
    /// Whether it is of use at `now`, or what has ended it.
    pub(super) fn state(&self, now: i64) -> &'static str {
        match (&self.voided, self.left) {
            (Some(_), _) => "voided",
            (None, Money::ZERO) => "spent",
            (None, _) if self.grant.expires_at.is_some_and(|end| end <= now) => "expired",
            (None, _) => "live",
        }
    }
}

impl From<&GrantState> for Given {
    fn from(of: &GrantState) -> Given {
        Given {
            entry: of.entry,
            grant: of.grant.clone(),
            left: of.left,
            used: Money(of.grant.amount.0.saturating_sub(of.left.0)),
            voided: None,
        }
    }
}

/// The grants of a tenant behind an entry that `is` admits, at most `limit`.
pub(super) fn page(
    ledger: &Ledger,
    tenant: &str,
    after: u64,
    limit: usize,
    is: impl Fn(&Given) -> bool,
) -> Result<Found, QueryError> {
    let mut all: BTreeMap<u64, Given> = BTreeMap::new();
    // Refunds first, so that the acts that take grants back find them.
    for kind in [EntryKind::Adjusted, EntryKind::Acted] {
        each(ledger, (tenant, kind), after, |entry| take(&mut all, entry))?;
    }
    let mut next = None;
    if let Some((first, _)) = all.iter().nth(LOOKED_MAX) {
        drop(all.split_off(&first.clone()));
        next = all.last_key_value().map(|(entry, _)| *entry);
    }
    // What has something left is known; a grant that is not there has been used up.
    for one in ledger
        .terms(tenant)
        .map(|terms| terms.grants)
        .unwrap_or_default()
    {
        if let Some(given) = all.get_mut(&one.entry) {
            (given.left, given.used) = (one.left, Given::from(&one).used);
        }
    }
    let mut given: Vec<Given> = all.into_values().filter(is).collect();
    if given.len() > limit {
        given.truncate(limit);
        next = given.last().map(|last| last.entry);
    }
    used(ledger, tenant, &mut given)?;
    Ok(Found { given, next })
}

fn each(
    ledger: &Ledger,
    (tenant, kind): (&str, EntryKind),
    after: u64,
    mut on: impl FnMut(Entry),
) -> Result<(), QueryError> {
    let mut asked = EntryQuery {
        after,
        tenant: Some(tenant.to_owned()),
        kind: Some(kind),
        limit: CHUNK,
        ..EntryQuery::default()
    };
    loop {
        let page = ledger.entries(&asked)?;
        page.entries.into_iter().for_each(&mut on);
        match page.next {
            Some(next) => asked.after = next,
            None => return Ok(()),
        }
    }
}

fn take(all: &mut BTreeMap<u64, Given>, entry: Entry) {
    let grant = match entry.body {
        Body::Acted(acted) => match acted.effect {
            Some(Effect::Grant(grant)) => Some(grant),
            Some(Effect::VoidGrant { grant, .. }) => {
                let voided = Voided {
                    entry: entry.seq,
                    at: entry.at,
                    by: acted.actor,
                };
                if let Some(given) = all.get_mut(&grant) {
                    given.voided = Some(voided);
                }
                None
            }
            _ => None,
        },
        Body::Adjusted(adjusted) => adjusted.refund(),
        Body::Settled(_) => None,
    };
    if let Some(grant) = grant {
        let given = Given {
            entry: entry.seq,
            left: Money::ZERO,
            used: grant.amount,
            grant,
            voided: None,
        };
        all.insert(entry.seq, given);
    }
}

/// Adds up what voided grants have paid before.
fn used(ledger: &Ledger, tenant: &str, given: &mut [Given]) -> Result<(), QueryError> {
    let mut paid: BTreeMap<u64, Money> = BTreeMap::new();
    let ends = given
        .iter()
        .filter_map(|one| Some((one.entry, one.voided.as_ref()?.entry)));
    let Some(until) = ends.clone().map(|(_, end)| end).max() else {
        return Ok(());
    };
    paid.extend(ends.map(|(entry, _)| (entry, Money::ZERO)));
    let mut charges = ledger.charges(ChargeQuery {
        after: paid.first_key_value().map_or(0, |(first, _)| *first),
        until: Some(until),
        only: Only {
            tenant: Some(tenant.to_owned()),
            ..Only::default()
        },
        ..ChargeQuery::default()
    });
    while let Some(page) = charges.page(CHUNK)? {
        for entry in page {
            let funded = match &entry.body {
                Body::Settled(settled) => &settled.funded,
                Body::Adjusted(adjusted) => &adjusted.funded,
                Body::Acted(_) => continue,
            };
            for Funding { grant, amount } in funded {
                if let Some(sum) = paid.get_mut(grant) {
                    *sum = Money(sum.0.saturating_add(amount.0));
                }
            }
        }
    }
    for one in given.iter_mut().filter(|one| one.voided.is_some()) {
        one.used = paid.get(&one.entry).copied().unwrap_or_default();
    }
    Ok(())
}
