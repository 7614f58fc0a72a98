//! Watches budgets: looks at tenants that have used something, and fires once for each threshold
//! that a window has reached.
//!
//! Nobody waits for a look. It reads the ledger's own counters, for the window that is current and,
//! where something that ran was begun before that window, for the one before it. A start looks at
//! all tenants with budgets, so that what a crash has cut off is caught up with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use ledger::{Meter, Only, QuotaState, Scope, UsageQuery, Window};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::app::App;
use crate::clock::rfc3339;
use crate::error::ApiError;
use crate::ids::{self, Kind};
use crate::outbox::{Event, Firing, send};
use crate::registry::Tenant;
use crate::registry::budgets::Budget;
use crate::shape;

/// The type of the event that a threshold makes.
const EVENT: &str = "dev.farebox.budget.threshold.v1";

/// Tenants that are to be looked at; each is there once, however much it uses.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Since when, at the earliest, what was used since the last look had been running.
    touched: Mutex<HashMap<String, i64>>,
    wake: Notify,
}

/// Only the current window: nothing has run.
pub(crate) const NOW: i64 = i64::MAX;

impl Watch {
    /// Has a tenant looked at, for something that began at `since_us`.
    pub(crate) fn touch(&self, tenant: &str, since_us: i64) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        match touched.get_mut(tenant) {
            Some(since) => *since = since_us.min(*since),
            None => {
                touched.insert(tenant.to_owned(), since_us);
            }
        }
        drop(touched);
        self.wake.notify_one();
    }

    fn take(&self) -> HashMap<String, i64> {
        std::mem::take(&mut self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A tenant has used something that began at `since_us`, or was charged for something then.
pub(crate) fn used(app: &App, tenant: &str, since_us: i64) {
    let known = app.registry.tenant(tenant);
    if known.is_some_and(|tenant| !tenant.budgets.is_empty()) {
        app.watch.touch(tenant, since_us);
    }
}

/// Begins to look at budgets and to send what they fire.
pub(crate) fn start(app: &Arc<App>) {
    drop(app.walk.spawn(run(Arc::clone(app))));
    drop(app.walk.spawn(send::run(Arc::clone(app))));
}

/// Looks whenever there is something to look at, at most once every `budgets.look_ms`.
async fn run(app: Arc<App>) {
    for tenant in app.registry.tenants(None, usize::MAX) {
        if !tenant.budgets.is_empty() {
            app.watch.touch(&tenant.profile.name, 0);
        }
    }
    let pause = Duration::from_millis(app.config.budgets.look_ms);
    while !app.is_draining() {
        app.watch.wake.notified().await;
        let shared = Arc::clone(&app);
        if let Err(error) = app.blocking(move || look_at_all(&shared)).await {
            tracing::error!(error = error.to_log(), "a look at budgets has failed");
        }
        tokio::time::sleep(pause).await;
    }
}

fn look_at_all(app: &App) {
    let touched = app.watch.take();
    // Reads that do not include what was used yet would miss it.
    let durable = app.ledger.health().durable_lsn;
    if app.ledger.head().lsn < durable {
        tracing::debug!("budgets are looked at later: the ledger's view is behind");
        for (name, since_us) in touched {
            app.watch.touch(&name, since_us);
        }
        return;
    }
    for (name, since_us) in touched {
        if app.is_draining() {
            // The next start looks at all.
            return;
        }
        if let Err(error) = look(app, &name, since_us) {
            tracing::error!(
                tenant = name,
                error,
                "budgets could not be looked at: again later"
            );
            app.watch.touch(&name, since_us);
        }
    }
}

/// Fires what a tenant's budgets have reached and has not fired. Blocks.
fn look(app: &App, name: &str, since_us: i64) -> Result<(), String> {
    let Some(tenant) = app.registry.tenant(name) else {
        return Ok(());
    };
    let mut look = Look {
        app,
        tenant: &tenant,
        // Taken first: the figures include at least this.
        seq: app.ledger.head().size,
        events: Vec::new(),
    };
    for (budget, state) in states(app, &tenant) {
        let current = Span::of(&state);
        look.fire(budget, &current);
        if let Some(before) = before(app, name, budget, &state, since_us)? {
            look.fire(budget, &before);
        }
    }
    let events = look.events;
    if events.is_empty() {
        return Ok(());
    }
    let count = app.outbox.fire(events).map_err(|error| error.to_string())?;
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    metrics::counter!("farebox_budget_alerts_total").increment(count);
    Ok(())
}

/// The budgets of a tenant with how the ledger has counted them. Blocks.
fn states<'a>(app: &App, tenant: &'a Tenant) -> Vec<(&'a Budget, QuotaState)> {
    let states = app.ledger.quotas(&tenant.profile.name).unwrap_or_default();
    let of = |budget: &'a Budget| {
        let name = budget.quota.name();
        let mut found = states.iter().filter(|state| state.quota.name() == name);
        Some((budget, found.next()?.clone()))
    };
    tenant.budgets.iter().filter_map(of).collect()
}

/// One window of a budget, and what was used in it.
#[derive(Debug, Clone, Copy)]
struct Span {
    starts_at: Option<i64>,
    resets_at: Option<i64>,
    posted: u128,
}

impl Span {
    fn of(state: &QuotaState) -> Span {
        Span {
            starts_at: state.starts_at,
            resets_at: state.resets_at,
            posted: state.posted,
        }
    }

    /// Until when it can be looked at: through the window after it, and a day.
    fn until_us(&self) -> i64 {
        let (Some(start), Some(end)) = (self.starts_at, self.resets_at) else {
            return i64::MAX;
        };
        let length = end.saturating_sub(start);
        end.saturating_add(length).saturating_add(86_400_000_000)
    }
}

/// The window before the current one, if something has run that began before the current one.
fn before(
    app: &App,
    tenant: &str,
    budget: &Budget,
    state: &QuotaState,
    since_us: i64,
) -> Result<Option<Span>, String> {
    let Some(end) = state.starts_at.filter(|start| since_us < *start) else {
        return Ok(None);
    };
    let Some(start) = start_before(budget.quota.window, &budget.quota.timezone, end) else {
        return Ok(None);
    };
    let posted = reported(app, tenant, budget, (start, end))?;
    Ok(posted.map(|posted| Span {
        starts_at: Some(start),
        resets_at: Some(end),
        posted,
    }))
}

/// When the window began that ended at `end`.
fn start_before(window: Window, timezone: &str, end: i64) -> Option<i64> {
    let last = Timestamp::from_microsecond(end.checked_sub(1)?).ok()?;
    let last = last.in_tz(timezone).ok()?;
    let first = match window {
        Window::Day => last,
        Window::Month => last.first_of_month().ok()?,
        Window::Minute | Window::Hour | Window::Lifetime => return None,
    };
    Some(first.start_of_day().ok()?.timestamp().as_microsecond())
}

/// What a budget's scope has used in a window, as the usage report has it; `None` for a key, whose
/// use it would have to gather from all entries of the window.
fn reported(
    app: &App,
    tenant: &str,
    budget: &Budget,
    (from, to): (i64, i64),
) -> Result<Option<u128>, String> {
    let quota = &budget.quota;
    let (project, function) = match &quota.scope {
        Scope::Tenant => (None, None),
        Scope::Project(name) => (Some(name.clone()), None),
        Scope::Function(name) => (None, Some(name.clone())),
        Scope::Key(_) => return Ok(None),
    };
    let query = UsageQuery {
        from,
        to,
        window: quota.window,
        timezone: quota.timezone.clone(),
        group_by: Vec::new(),
        only: Only {
            tenant: Some(tenant.to_owned()),
            project,
            function,
            ..Only::default()
        },
        by_currency: false,
        cursor: None,
        limit: 1,
    };
    let report = app.ledger.usage(&query);
    let report = report.map_err(|error| crate::config::chain(&error))?;
    // Adjustments count for the whole tenant, as they do in the window that is running.
    let whole = quota.scope == Scope::Tenant;
    let used = report.items.first().map(|item| match quota.meter {
        Meter::Cost => {
            let adjusted = if whole { item.adjusted.0 } else { 0 };
            u128::try_from(item.cost.0.saturating_add(adjusted)).unwrap_or(0)
        }
        meter => item.usage.get(meter),
    });
    Ok(Some(used.unwrap_or(0)))
}

/// One look at a tenant, and the events that it has made so far.
struct Look<'a> {
    app: &'a App,
    tenant: &'a Tenant,
    seq: u64,
    events: Vec<Event>,
}

impl Look<'_> {
    /// Adds an event for each threshold of `budget` that `span` has reached and that has not
    /// fired.
    fn fire(&mut self, budget: &Budget, span: &Span) {
        let tenant = &self.tenant.profile.name;
        for percent in reached(budget, span.posted) {
            let id = event_id(tenant, budget, span, percent);
            if self.app.outbox.has_fired(&id) {
                continue;
            }
            let name = &budget.name;
            tracing::info!(
                tenant,
                budget = name,
                percent,
                "a budget's threshold is reached"
            );
            let to = budget.target(tenant);
            let to = to.filter(|to| self.app.registry.webhook(to).is_some());
            if to.is_none() && budget.webhook.is_some() {
                tracing::warn!(tenant, budget = name, "the budget's webhook is gone");
            }
            let body = self.event(budget, span, percent, &id);
            let until_us = span.until_us();
            let firing = Firing { id, until_us };
            self.events.push(Event { firing, body, to });
        }
    }

    /// The event as it is sent.
    fn event(&self, budget: &Budget, span: &Span, percent: u16, id: &str) -> String {
        let tenant = &self.tenant.profile.name;
        let quota = &budget.quota;
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": format!("/farebox/{}", self.app.config.server.node),
            "type": EVENT,
            "subject": tenant,
            "time": rfc3339(self.app.clock.wall_us()),
            "datacontenttype": "application/json",
            "data": {
                "tenant": tenant,
                "budget": budget.name,
                "scope": shape::scope(&quota.scope),
                "meter": quota.meter.name(),
                "window": quota.window.name(),
                "timezone": quota.timezone,
                "starts_at": span.starts_at.map(rfc3339),
                "resets_at": span.resets_at.map(rfc3339),
                "amount": shape::quantity(quota.meter, quota.limit),
                "posted": shape::quantity(quota.meter, span.posted),
                "threshold_percent": percent,
                "as_of": {"seq": self.seq},
            }
        });
        event.to_string()
    }
}

/// The thresholds that `posted` has reached, in percent, ascending.
fn reached(budget: &Budget, posted: u128) -> impl Iterator<Item = u16> {
    let amount = budget.quota.limit;
    let all = budget.thresholds.iter().copied();
    all.filter(move |percent| {
        posted.saturating_mul(100) >= amount.saturating_mul(u128::from(*percent))
    })
}

/// The id of an event: the same window of the same budget with the same amount has the same id at
/// the same threshold, whoever makes it. A budget that is changed begins anew.
fn event_id(tenant: &str, budget: &Budget, span: &Span, percent: u16) -> String {
    let quota = &budget.quota;
    let what = json!([
        tenant,
        budget.name,
        quota.name(),
        quota.limit.to_string(),
        span.resets_at,
        percent
    ]);
    let digest = Sha256::digest(what.to_string().as_bytes());
    let mut id = [0; 16];
    id.iter_mut()
        .zip(digest.iter())
        .for_each(|(to, from)| *to = *from);
    ids::text(Kind::Event, &id)
}

/// A budget and how it stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) budget: Budget,
    pub(crate) posted: u128,
    pub(crate) resets_at: Option<i64>,
    /// The thresholds that have fired in the current window.
    pub(crate) fired: Vec<u16>,
}

/// How a tenant's budgets stand. Blocks.
pub(crate) fn standings(app: &App, tenant: &Tenant) -> Result<Vec<Standing>, ApiError> {
    let name = &tenant.profile.name;
    let mut standings = Vec::with_capacity(tenant.budgets.len());
    for (budget, state) in states(app, tenant) {
        let span = Span::of(&state);
        let all = budget.thresholds.iter().copied();
        let fired = all.filter(|percent| {
            let id = event_id(name, budget, &span, *percent);
            app.outbox.has_fired(&id)
        });
        standings.push(Standing {
            fired: fired.collect(),
            budget: budget.clone(),
            posted: state.posted,
            resets_at: state.resets_at,
        });
    }
    Ok(standings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Mode, Quota};

    fn budget(amount: u128) -> Budget {
        Budget {
            name: "monthly".to_owned(),
            quota: Quota {
                scope: Scope::Tenant,
                meter: Meter::CpuUs,
                window: Window::Month,
                timezone: "UTC".to_owned(),
                limit: amount,
                mode: Mode::Soft,
                overdraft: 0,
            },
            thresholds: vec![1, 50, 100, 150],
            webhook: None,
        }
    }

    #[test]
    fn a_threshold_is_reached_at_exactly_its_share() {
        let reached = |amount, posted| reached(&budget(amount), posted).collect::<Vec<_>>();
        assert!(reached(1_000, 9).is_empty());
        assert_eq!(reached(1_000, 10), [1]);
        assert_eq!(reached(1_000, 499), [1]);
        assert_eq!(reached(1_000, 500), [1, 50]);
        assert_eq!(reached(1_000, 1_499), [1, 50, 100]);
        assert_eq!(reached(1_000, 1_500), [1, 50, 100, 150]);
        // Not rounded: two thirds of three are two, half of three is not one.
        assert_eq!(reached(3, 1), [1]);
        assert_eq!(reached(3, 2), [1, 50]);
        assert!(reached(10_u128.pow(34), 0).is_empty());
    }

    #[test]
    fn the_same_firing_has_the_same_id_and_another_another() {
        let span = Span {
            starts_at: Some(1),
            resets_at: Some(2),
            posted: 7,
        };
        let id = event_id("acme", &budget(10), &span, 50);
        let more = Span { posted: 8, ..span };
        assert_eq!(event_id("acme", &budget(10), &more, 50), id);
        let next = Span {
            resets_at: Some(3),
            ..span
        };
        for other in [
            event_id("other", &budget(10), &span, 50),
            event_id("acme", &budget(11), &span, 50),
            event_id("acme", &budget(10), &span, 51),
            event_id("acme", &budget(10), &next, 50),
        ] {
            assert_ne!(other, id);
        }
    }

    #[test]
    fn the_window_before_begins_where_the_calendar_says() {
        let us = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        for (window, zone, end, start) in [
            (
                Window::Day,
                "UTC",
                "2026-03-01T00:00:00Z",
                "2026-02-28T00:00:00Z",
            ),
            (
                Window::Month,
                "UTC",
                "2026-03-01T00:00:00Z",
                "2026-02-01T00:00:00Z",
            ),
            // The day on which clocks go forward has 23 hours.
            (
                Window::Day,
                "Europe/Berlin",
                "2026-03-29T22:00:00Z",
                "2026-03-28T23:00:00Z",
            ),
            (
                Window::Month,
                "Europe/Berlin",
                "2026-10-31T23:00:00Z",
                "2026-09-30T22:00:00Z",
            ),
        ] {
            assert_eq!(
                start_before(window, zone, us(end)),
                Some(us(start)),
                "{zone} {end}"
            );
        }
        assert_eq!(start_before(Window::Lifetime, "UTC", 5), None);
    }

    #[test]
    fn a_tenant_that_is_touched_often_is_looked_at_once_from_the_earliest_on() {
        let watch = Watch::default();
        watch.touch("acme", NOW);
        watch.touch("acme", 5);
        watch.touch("acme", 9);
        assert_eq!(watch.take(), HashMap::from([("acme".to_owned(), 5)]));
        assert!(watch.take().is_empty());
    }
}
