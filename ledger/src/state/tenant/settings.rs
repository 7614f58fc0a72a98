//! A tenant's settings taken over: which calendars and scopes are counted, and from when on.

use super::calendar::Calendar;
use super::{ALWAYS, Places, Plan, Tenant, WHOLE};
use crate::clock::Micros;
use crate::command::{Before, Settings};
use crate::hash::Map;
use crate::money::Money;
use crate::quota::{Quota, Scope, Window};
use crate::record::OpenHold;
use crate::state::rules::{Rule, Rules};
use crate::state::{Amounts, held};

impl Tenant {
    /// Takes over new settings, and what windows have seen before. `open` lists this tenant's open
    /// holds with their places. Says which zone is not known.
    pub(crate) fn set<'a>(
        &mut self,
        (settings, before): (&Settings, &[Before]),
        at: Micros,
        open: impl Iterator<Item = (&'a OpenHold, Places)>,
    ) -> Result<(), String> {
        let mut calendars: Vec<Calendar> = ALWAYS
            .iter()
            .filter_map(|window| Calendar::new("UTC", *window))
            .collect();
        let mut made = |quotas: &[Quota]| made(&mut calendars, quotas);
        let mut rules = made(&settings.quotas)?;
        let later = settings.changes.iter();
        let later = later.map(|change| Ok((change.effective_at, made(&change.quotas)?)));
        let mut later = later.collect::<Result<Vec<_>, String>>()?;
        let from: Vec<Option<usize>> = calendars.iter().map(|new| self.calendar(new)).collect();
        self.advance(at);
        for counters in &mut self.counters {
            counters.roll(&self.windows, at, self.windows_end);
        }
        self.calendars = calendars;
        self.windows.clear();
        self.advance(at);
        let before: Vec<(u32, usize, Amounts)> =
            before.iter().filter_map(|one| self.seen(one)).collect();
        let mut holds: Map<u32, Vec<&OpenHold>> = Map::default();
        for (hold, places) in open {
            let mut add = |place| holds.entry(place).or_default().push(hold);
            places.into_iter().for_each(&mut add);
        }
        for (counters, place) in self.counters.iter_mut().zip(0..) {
            let open = |start| held_before(holds.get(&place).map_or(&[], Vec::as_slice), start);
            let before = |calendar| {
                let is_it = |one: &&(u32, usize, _)| (one.0, one.1) == (place, calendar);
                before.iter().find(is_it).map(|one| one.2)
            };
            counters.recalendar((&from, &self.windows), at, open, before);
        }
        let changed = later.iter_mut().flat_map(|(_, rules)| rules);
        for rule in rules.iter_mut().chain(changed) {
            rule.scope = self.count(&rule.quota.scope, at);
        }
        let plan = |(from, rules)| Plan {
            from,
            rules: Rules::from(rules),
        };
        self.rules = Rules::from(rules);
        self.plans = later.into_iter().map(plan).collect();
        self.suspended = settings.suspended;
        self.concurrency = settings.concurrency;
        self.caps = settings.starts;
        Ok(())
    }

    /// What a quota's window around `at` has seen, if it is not counted from its beginning: all
    /// that its scope has posted, from which what counts in the window is still to be left out.
    /// `None` too where the scope itself is not counted from before the window.
    pub(in crate::state) fn before(&self, quota: &Quota, at: Micros) -> Option<Before> {
        let zone = Calendar::new(&quota.timezone, quota.window)?;
        let window = zone.span(at);
        let counters = self.at(self.place(&quota.scope)?);
        let counters = counters.filter(|counters| counters.is_counted_at(window.start))?;
        let whole = |index| counters.counted_since(Some(index), &window).is_none();
        if quota.window == Window::Lifetime || self.calendar(&zone).is_some_and(whole) {
            return None;
        }
        let (posted, _) = counters.lifetime();
        Some(Before {
            scope: quota.scope.clone(),
            window: quota.window,
            timezone: quota.timezone.clone(),
            start: window.start,
            posted: posted.quantities,
            cost: Money(posted.cost),
            open: 0,
        })
    }

    /// The place of a scope, the index of a calendar, and what was posted before its window.
    fn seen(&self, before: &Before) -> Option<(u32, usize, Amounts)> {
        let place = self.place(&before.scope)?;
        let mut all = self.calendars.iter();
        let index = all.position(|one| one.is(&before.timezone, before.window))?;
        let posted = Amounts {
            quantities: before.posted,
            cost: before.cost.0,
        };
        Some((place, index, posted))
    }

    fn calendar(&self, wanted: &Calendar) -> Option<usize> {
        let is_it = |one: &Calendar| one.is(&wanted.zone_name, wanted.window);
        self.calendars.iter().position(is_it)
    }

    /// The place of a scope, if it is counted.
    fn place(&self, scope: &Scope) -> Option<u32> {
        let (names, name) = match scope {
            Scope::Tenant => return Some(WHOLE),
            Scope::Project(name) => (&self.names.projects, name),
            Scope::Function(name) => (&self.names.functions, name),
            Scope::Key(name) => (&self.names.keys, name),
        };
        names.get(name).copied()
    }
}

/// Rules of quotas, with the calendars that they need; where they are counted comes later.
fn made(calendars: &mut Vec<Calendar>, quotas: &[Quota]) -> Result<Vec<Rule>, String> {
    let rule = |quota: &Quota| {
        Ok(Rule {
            quota: quota.clone(),
            calendar: find(calendars, quota)?,
            scope: WHOLE,
        })
    };
    quotas.iter().map(rule).collect()
}

/// The index of a quota's calendar, which is added if it is not there.
fn find(calendars: &mut Vec<Calendar>, quota: &Quota) -> Result<Option<usize>, String> {
    if quota.window == Window::Lifetime {
        return Ok(None);
    }
    if let Some(index) = calendars
        .iter()
        .position(|c| c.is(&quota.timezone, quota.window))
    {
        return Ok(Some(index));
    }
    let calendar = Calendar::new(&quota.timezone, quota.window)
        .ok_or_else(|| format!("`{}` is not a known time zone", quota.timezone))?;
    calendars.push(calendar);
    Ok(Some(calendars.len() - 1))
}

/// What is held by those of a scope's holds that were opened before `start`.
fn held_before(open: &[&OpenHold], start: Micros) -> Amounts {
    let mut sum = Amounts::default();
    for hold in open.iter().filter(|hold| hold.opened_at < start) {
        sum.add(&held(hold));
    }
    sum
}
