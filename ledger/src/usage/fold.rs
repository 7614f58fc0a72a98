//! Usage from the entries one by one, where groups or filters need more than the rows know.
//!
//! The indexes say which settlements count in which window, so that only those are read. A page
//! whose windows have more of them than may be read covers fewer windows; a single window that has
//! more is refused.

use super::{Groups, Plan, Summed, invalid};
use crate::calendar::Span;
use crate::charges::Records;
use crate::entry::Body;
use crate::error::QueryError;
use crate::index::{Index, Sealed, Wanted};
use crate::shared::Shared;
use crate::view::View;

/// Sealed segments that one page may look into.
const SEGMENTS_MAX: usize = 64;

/// Settlements to read, and how many windows they are all of.
struct Selection<'a> {
    plan: &'a Plan<'a>,
    after: u64,
    until: u64,
    /// Window, segment and offset.
    places: Vec<(u32, u32, u32)>,
    windows: usize,
    most: usize,
}

/// Sums up entries.
pub(super) fn sum(shared: &Shared, plan: &Plan<'_>) -> Result<Summed, QueryError> {
    let view = shared.fresh_view();
    let mut as_of = view.as_of();
    let currency = currency(&view, plan);
    drop(view);
    if let Some(cursor) = &plan.cursor {
        if cursor.seq > as_of.seq {
            return Err(super::stray());
        }
        as_of = cursor.as_of();
    }
    let selection = select(shared, plan, (0, as_of.seq))?;
    let mut groups = plan.groups();
    selection.read(shared, |key, body| {
        groups.change(key, |sums| sums.count(body));
    })?;
    if selection.windows == 0 && !plan.windows.is_empty() {
        let fault = format!(
            "begins a {} of more than the {} entries (ledger.fold_entries_max) or {SEGMENTS_MAX} \
             journal segments that a page may read; ask for shorter windows or for one tenant, or \
             group and filter by tenant, project, function and meter only, by months in UTC where \
             the days have gone from the view (ledger.detail_months)",
            plan.query.window.name(),
            selection.most,
        );
        return Err(invalid("from", fault));
    }
    Ok(Summed {
        groups,
        as_of,
        currency,
        windows: selection.windows,
    })
}

/// Takes away from the groups what settlements after the first number, up to the second, have
/// added.
pub(super) fn take_away(
    shared: &Shared,
    plan: &Plan<'_>,
    range: (u64, u64),
    groups: &mut Groups,
) -> Result<(), QueryError> {
    if range.0 >= range.1 {
        return Ok(());
    }
    let selection = select(shared, plan, range)?;
    if selection.windows < plan.windows.len() {
        let fault = format!(
            "is too old: more than {} entries were recorded since; begin again without it",
            selection.most
        );
        return Err(invalid("cursor", fault));
    }
    selection.read(shared, |key, body| groups.take_away(&key, body))
}

/// The currency of all costs that are asked for, if there is one and no other.
pub(super) fn currency(view: &View, plan: &Plan<'_>) -> Option<String> {
    if let Some(tenant) = &plan.query.only.tenant {
        return tenants_currency(view, tenant);
    }
    let mut all = view.state.cards().iter().map(|card| &card.card.currency);
    let first = all.next()?;
    all.all(|other| other == first).then(|| first.clone())
}

/// The currency that a tenant is charged in: once it has used anything, it keeps it.
pub(super) fn tenants_currency(view: &View, tenant: &str) -> Option<String> {
    let state = &view.state;
    let card = state.card_for(state.tenant(tenant)?, state.at)?;
    Some(card.card.currency.clone())
}

fn select<'a>(
    shared: &Shared,
    plan: &'a Plan<'a>,
    (after, until): (u64, u64),
) -> Result<Selection<'a>, QueryError> {
    let mut selection = Selection {
        plan,
        after,
        until,
        places: Vec::new(),
        windows: plan.windows.len(),
        most: shared.options.fold_entries_max,
    };
    let view = shared.view();
    for index in view.sealing.iter() {
        selection.take(index);
    }
    selection.take(&view.tail);
    let sealed: Vec<Sealed> = view
        .sealed
        .iter()
        .filter(|one| selection.may_be_in(one))
        .copied()
        .collect();
    drop(view);
    selection.keep_segments(&sealed);
    for one in sealed {
        if selection.may_be_in(&one) {
            selection.take(shared.index(one.segment)?.as_ref());
        }
    }
    selection.shrink();
    selection
        .places
        .sort_unstable_by_key(|(_, segment, offset)| (*segment, *offset));
    Ok(selection)
}

impl Selection<'_> {
    /// The windows that are still looked for.
    fn spans(&self) -> &[Span] {
        self.plan.windows.get(..self.windows).unwrap_or_default()
    }

    fn may_be_in(&self, sealed: &Sealed) -> bool {
        let numbers =
            self.after + 1 < sealed.first_seq + sealed.entries && sealed.first_seq <= self.until;
        let spans = self.spans();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
            return false;
        };
        let opened = |(from, to)| first.start <= to && from < last.end;
        numbers && sealed.opened.is_some_and(opened)
    }

    /// Gives up the last windows until no more segments than allowed have anything of the others.
    fn keep_segments(&mut self, sealed: &[Sealed]) {
        let opened = sealed.iter().filter_map(|sealed| sealed.opened);
        let mut starts: Vec<i64> = opened.map(|(from, _)| from).collect();
        starts.sort_unstable();
        if let Some(start) = starts.get(SEGMENTS_MAX) {
            let fits = self.spans().partition_point(|span| span.end <= *start);
            self.forget(fits);
        }
    }

    /// Takes what a segment has of the windows.
    fn take(&mut self, index: &Index) {
        let plan = self.plan;
        let spans = self.spans();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
            return;
        };
        let wanted = Wanted {
            tenant: plan.query.only.tenant.as_deref(),
            after: self.after,
            until: self.until,
            from: first.start,
            to: last.end,
        };
        for charged in index.charged(&wanted) {
            let window = plan.window_at(charged.opened_at);
            let Some(window) = window.filter(|window| *window < self.windows) else {
                continue;
            };
            let window = u32::try_from(window).unwrap_or(u32::MAX);
            self.places.push((window, index.segment, charged.offset));
            if self.places.len() > self.most.saturating_mul(2) {
                self.shrink();
            }
        }
    }

    /// Gives up the last windows until no more is to be read than allowed.
    fn shrink(&mut self) {
        if self.places.len() <= self.most {
            return;
        }
        let mut counts = vec![0_usize; self.windows];
        for (window, _, _) in &self.places {
            let count = usize::try_from(*window)
                .ok()
                .and_then(|at| counts.get_mut(at));
            if let Some(count) = count {
                *count += 1;
            }
        }
        let mut sum = 0;
        let fits = counts.iter().take_while(|count| {
            sum += **count;
            sum <= self.most
        });
        let fits = fits.count();
        self.forget(fits);
    }

    /// Looks for the first windows only.
    fn forget(&mut self, windows: usize) {
        self.windows = self.windows.min(windows);
        let most = u32::try_from(self.windows).unwrap_or(u32::MAX);
        self.places.retain(|(window, _, _)| *window < most);
    }

    /// Reads what was selected and hands on what passes the filters, with its group.
    fn read(
        &self,
        shared: &Shared,
        mut on: impl FnMut((usize, super::Names), &Body),
    ) -> Result<(), QueryError> {
        let mut records = Records::new(&shared.options.dir);
        for (window, segment, offset) in &self.places {
            let entry = records.charge(*segment, *offset)?;
            if let Some(names) = self.plan.names_of(&entry.body) {
                let window = usize::try_from(*window).unwrap_or(usize::MAX);
                on((window, names), &entry.body);
            }
        }
        Ok(())
    }
}
