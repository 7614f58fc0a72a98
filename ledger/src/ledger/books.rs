//! Reads of the books: periods, statements, adjustments, and prices that are only thought of.

use std::sync::Arc;

use super::Ledger;
use crate::adjust::Proposed;
use crate::clock::Micros;
use crate::error::QueryError;
use crate::period::{self, Closing, Period, PeriodState, PeriodTotal};
use crate::preview::{self, Preview};
use crate::query::{GroupBy, Only, UsageItem, UsageQuery};
use crate::quota::Window;
use crate::rate::RateCard;
use crate::state::State;
use crate::statement::{self, Statement, StatementTotals};
use crate::usage;

/// Open holds that are shown one by one where they stand in the way.
const HOLDS_SHOWN: usize = 100;
/// Tenants that are asked for at once.
const PAGE: usize = 10_000;

impl Ledger {
    /// All periods from the first command to now, oldest first.
    pub fn periods(&self) -> Vec<PeriodState> {
        self.read(period::all)
    }

    /// What closing a period would fix, and what stands in the way. Changes nothing.
    ///
    /// # Errors
    /// Where view or journal cannot be read.
    pub fn closing(&self, period: Period) -> Result<Closing, QueryError> {
        let now = self.inner.shared.clock.now_us();
        let mut closing = self.read(|state, at| {
            let mut holds: Vec<_> = state.holds_of(period).map(Arc::clone).collect();
            holds.sort_unstable_by_key(|hold| hold.opened_at);
            let holds_open = u64::try_from(holds.len()).unwrap_or(u64::MAX);
            holds.truncate(HOLDS_SHOWN);
            let holds = holds.iter().filter_map(|hold| hold.whole()).map(Arc::new);
            let phase = period::phase(state, period, at);
            Closing {
                state: PeriodState { period, phase },
                through: match phase {
                    period::Phase::Closed(closed) => closed.entry,
                    period::Phase::Open | period::Phase::Grace => state.seq,
                },
                refused: period::refused(state, period, at)
                    .or_else(|| period::untimely(period, state.at, now)),
                totals: Vec::new(),
                holds: holds.collect(),
                holds_open,
                pending: u64::try_from(state.adjustments.pending().len()).unwrap_or(u64::MAX),
            }
        });
        closing.totals = self.totals(period)?;
        Ok(closing)
    }

    /// What a period comes to, by tenant.
    fn totals(&self, period: Period) -> Result<Vec<PeriodTotal>, QueryError> {
        let mut query = UsageQuery {
            from: period.start(),
            to: period.end(),
            window: Window::Month,
            timezone: "UTC".to_owned(),
            group_by: vec![GroupBy::Tenant],
            only: Only::default(),
            by_currency: true,
            cursor: None,
            limit: PAGE,
        };
        let mut totals = Vec::new();
        loop {
            let page = usage::usage(&self.inner.shared, &query)?;
            totals.extend(page.items.into_iter().map(total));
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                return Ok(totals);
            }
        }
    }

    /// The statement of a tenant's period: for a closed one the same for ever.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn statement(&self, tenant: &str, period: Period) -> Result<Arc<Statement>, QueryError> {
        statement::statement(&self.inner.shared, tenant, period)
    }

    /// The totals of all tenants' statements of a period.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn statement_totals(&self, period: Period) -> Result<StatementTotals, QueryError> {
        statement::totals(&self.inner.shared, period)
    }

    /// What a tenant's period would have cost by `card`, beside what it did cost. Records nothing.
    ///
    /// # Errors
    /// Where the journal cannot be read, or an amount passes what can be counted.
    pub fn preview(
        &self,
        tenant: &str,
        period: Period,
        card: &RateCard,
    ) -> Result<Preview, QueryError> {
        preview::preview(&self.inner.shared, tenant, period, card)
    }

    /// Adjustments that wait for approval, oldest first; then the last ones that were decided, in
    /// the order of the decisions.
    pub fn adjustments(&self) -> Vec<Proposed> {
        self.read(|state, _| {
            let adjustments = &state.adjustments;
            let all = adjustments.pending().chain(adjustments.decided());
            all.cloned().collect()
        })
    }

    /// Reads the state as it is, at an instant that is not before it.
    fn read<T>(&self, read: impl FnOnce(&State, Micros) -> T) -> T {
        let now = self.inner.shared.clock.now_us();
        let view = self.inner.shared.fresh_view();
        read(&view.state, now.max(view.state.at))
    }
}

/// A tenant's totals.
fn total(item: UsageItem) -> PeriodTotal {
    PeriodTotal {
        tenant: item.group.into_iter().next().flatten().unwrap_or_default(),
        currency: item.currency,
        charged: item.cost,
        adjusted: item.adjusted,
    }
}

#[cfg(test)]
mod tests;
