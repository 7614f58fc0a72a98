//! One tenant as the writer knows it: settings, quotas, and the counters of its scopes.

mod calendar;
mod near;
mod settings;

use serde::{Deserialize, Serialize};

use self::calendar::Calendar;
use super::billing::Billing;
use super::credit::Credit;
use super::rules::{Limit, Rule, Rules};
use super::scope::{Counters, FIRST};
use super::starts::{Begun, Starts};
use crate::calendar::Span;
use crate::clock::Micros;
use crate::hash::Map;
use crate::quantity::Meter;
use crate::quota::{QuotaState, Scope, ScopeKind, StartCaps, Window};
use crate::rate::{Price, Standing};
use crate::record::Run;
use crate::rejection::Rejection;

/// What a meter has posted and holds, and in which window.
pub(crate) type Stands = (u128, u128, Span);

/// Quotas and from when on they are in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Plan {
    from: Micros,
    rules: Rules,
}

/// The places of the counters of a run's scopes: tenant, project, function, key.
pub(crate) type Places = [u32; 4];

/// The place of the whole tenant's counters.
const WHOLE: u32 = 0;
/// The place of a scope that a run does not have.
const NOWHERE: u32 = u32::MAX;
/// The place of a scope that is not counted.
const UNCOUNTED: u32 = u32::MAX - 1;

/// The scopes of a tenant that are counted, and where.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Names {
    projects: Map<String, u32>,
    functions: Map<String, u32>,
    keys: Map<String, u32>,
}

/// One tenant's part of the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Tenant {
    /// Whether holds are refused.
    pub(crate) suspended: bool,
    /// How many holds may be open.
    pub(crate) concurrency: u32,
    /// How many are.
    pub(crate) open: u32,
    /// How many may be opened in a minute.
    caps: StartCaps,
    /// How many have been.
    pub(crate) starts: Starts,
    /// The quotas until the first change.
    rules: Rules,
    /// The changes, the earliest first; all of them are counted.
    plans: Vec<Plan>,
    /// The id of its rate cards, if it is not the default.
    pub(crate) card: Option<String>,
    /// What its months have priced.
    pub(crate) billing: Billing,
    /// What it has paid before.
    pub(crate) credit: Credit,
    /// How many adjustments it has.
    pub(crate) adjustments: u64,
    calendars: Vec<Calendar>,
    /// The window of each calendar at the last command; a cache, made again when time leaves it.
    #[serde(skip)]
    windows: Vec<Span>,
    /// When the first of them ends.
    #[serde(skip)]
    windows_end: Micros,
    names: Names,
    /// The counters: the whole tenant's first, then each scope's where `names` says.
    counters: Vec<Counters>,
    /// Whether a scope was used that was not counted.
    missed: bool,
}

/// The calendars that every tenant has, so that a new quota in UTC finds the use so far.
///
/// Minutes and hours are kept only where a quota asks for them: they begin so often that keeping
/// them for every scope would cost more than all the rest. What
/// their first window has seen is found from the entries.
const ALWAYS: [Window; FIRST] = [Window::Day, Window::Month];
/// Where the month is among them, and so among every tenant's calendars.
const MONTH: usize = 1;

impl Tenant {
    /// A tenant that nobody has used yet.
    pub(crate) fn new() -> Self {
        let calendars: Vec<Calendar> = ALWAYS
            .iter()
            .filter_map(|window| Calendar::new("UTC", *window))
            .collect();
        let windows = vec![Span { start: 0, end: 0 }; calendars.len()];
        Self {
            suspended: false,
            concurrency: 0,
            open: 0,
            caps: StartCaps::default(),
            starts: Starts::default(),
            rules: Rules::default(),
            plans: Vec::new(),
            card: None,
            billing: Billing::default(),
            credit: Credit::default(),
            adjustments: 0,
            calendars,
            names: Names::default(),
            counters: vec![Counters::new(&windows, None)],
            missed: false,
            windows,
            windows_end: i64::MIN,
        }
    }

    /// How many scopes beside the tenant itself are counted.
    pub(crate) fn scopes(&self) -> u64 {
        u64::try_from(self.counters.len() - 1).unwrap_or(u64::MAX)
    }

    /// Makes the windows around `at` the current ones.
    fn advance(&mut self, at: Micros) {
        if at < self.windows_end && self.windows.len() == self.calendars.len() {
            return;
        }
        self.windows
            .resize(self.calendars.len(), Span { start: 0, end: 0 });
        for (window, calendar) in self.windows.iter_mut().zip(&self.calendars) {
            if !window.contains(at) {
                *window = calendar.span(at);
            }
        }
        self.windows_end = self
            .windows
            .iter()
            .map(|window| window.end)
            .min()
            .unwrap_or(i64::MAX);
    }

    /// When the calendar month of `at` began, in UTC.
    pub(crate) fn month(&self, at: Micros) -> Micros {
        self.window(MONTH, at).start
    }

    /// How the month of `at` stands with what a price looks at.
    pub(crate) fn standing_of(&self, price: &Price, at: Micros) -> Standing {
        self.billing.standing(price, self.month(at))
    }

    #[inline]
    fn window(&self, index: usize, at: Micros) -> Span {
        let cached = self.windows.get(index).filter(|window| window.contains(at));
        let calendar = self.calendars.get(index);
        let fresh = || calendar.map_or(Span::EVER, |calendar| calendar.span(at));
        cached.copied().unwrap_or_else(fresh)
    }

    /// What a rule's meter has posted and holds at `at`, and in which window.
    pub(crate) fn standing(&self, rule: &Rule, at: Micros) -> Stands {
        self.stands(self.at(rule.scope), rule.calendar, rule.quota.meter, at)
    }

    #[inline]
    fn stands(
        &self,
        counters: Option<&Counters>,
        calendar: Option<usize>,
        meter: Meter,
        at: Micros,
    ) -> Stands {
        let window = calendar.map_or(Span::EVER, |index| self.window(index, at));
        let standing = counters.map(|counters| counters.of_meter(calendar, &window, meter));
        let (posted, held) = standing.unwrap_or_default();
        (posted, held, window)
    }

    /// The hard quotas that concern a run counted at these places, and how they stand at `at`: a
    /// scope with a quota is always counted.
    pub(crate) fn limits(
        &self,
        places: Places,
        at: Micros,
    ) -> impl Iterator<Item = (&Limit, Stands)> {
        self.limits_of(places, at, |_limit| true)
    }

    /// Whether all of these have room for what a run needs.
    pub(crate) fn has_room(&self, places: Places, need: &super::Amounts, at: Micros) -> bool {
        let rules = self.rules(at);
        for place in places {
            let limits = rules.limits(place);
            if limits.is_empty() {
                continue;
            }
            let counters = self.at(place);
            for limit in limits {
                let used = match self.used_quickly(counters, limit, at) {
                    Some(used) => Some(used),
                    None => self.used(counters, limit, at),
                };
                if !used.is_some_and(|used| limit.has_room(used, need)) {
                    return false;
                }
            }
        }
        true
    }

    /// What counts for a limit, posted and held together.
    #[cold]
    fn used(&self, counters: Option<&Counters>, limit: &Limit, at: Micros) -> Option<u128> {
        let (posted, held, _) = self.stands(counters, limit.calendar(), limit.meter, at);
        posted.checked_add(held)
    }

    /// The same where its window is the last command's and it limits what quotas mostly limit;
    /// `None` says nothing.
    #[inline]
    fn used_quickly(&self, counters: Option<&Counters>, limit: &Limit, at: Micros) -> Option<u128> {
        let index = limit.calendar()?;
        let window = self
            .windows
            .get(index)
            .filter(|window| window.contains(at))?;
        counters?.used_quickly(index, window, limit.meter)
    }

    /// All limits, but only those that are `wanted`.
    pub(crate) fn limits_of(
        &self,
        places: Places,
        at: Micros,
        wanted: impl Fn(&Limit) -> bool + Copy,
    ) -> impl Iterator<Item = (&Limit, Stands)> {
        let rules = self.rules(at);
        places.into_iter().flat_map(move |place| {
            let counters = self.at(place);
            let limits = rules.limits(place).iter();
            limits.filter(move |limit| wanted(limit)).map(move |limit| {
                let stands = self.stands(counters, limit.calendar(), limit.meter, at);
                (limit, stands)
            })
        })
    }

    /// From when on a rule's window around `at` is counted, if that is not from its start.
    pub(crate) fn counted_since(&self, rule: &Rule, at: Micros) -> Option<Micros> {
        let counters = self.at(rule.scope)?;
        let window = rule.calendar.map(|index| self.window(index, at));
        counters.counted_since(rule.calendar, &window.unwrap_or(Span::EVER))
    }

    /// All that the tenant has posted and holds.
    pub(crate) fn lifetime(&self) -> (super::Amounts, super::Amounts) {
        self.at(WHOLE).map(Counters::lifetime).unwrap_or_default()
    }

    fn at(&self, place: u32) -> Option<&Counters> {
        self.counters.get(usize::try_from(place).ok()?)
    }

    /// Whether these places of a run can be taken as they are: all are counted here, or not to be.
    pub(crate) fn counts(&self, places: Places) -> bool {
        let count = u32::try_from(self.counters.len()).unwrap_or(u32::MAX);
        let here = |place: &u32| *place < count || *place >= UNCOUNTED;
        places.iter().all(here)
    }

    /// Where the scopes of a run are counted.
    pub(crate) fn places(&self, run: &Run<'_>) -> Places {
        let whose = &run.whose;
        let place =
            |names: &Map<String, u32>, name: &str| names.get(name).copied().unwrap_or(UNCOUNTED);
        let names = &self.names;
        [
            WHOLE,
            place(&names.projects, whose.project),
            whose
                .function
                .map_or(NOWHERE, |name| place(&names.functions, name)),
            place(&names.keys, run.key),
        ]
    }

    /// The quotas in force at an instant.
    pub(crate) fn rules(&self, at: Micros) -> &Rules {
        let mut plans = self.plans.iter().rev();
        let plan = plans.find(|plan| plan.from <= at);
        plan.map_or(&self.rules, |plan| &plan.rules)
    }

    /// Whether there is a cap on starts.
    pub(crate) fn is_capped(&self) -> bool {
        self.caps != StartCaps::default()
    }

    /// The caps on starts that concern a run through `key`, and how they stand.
    pub(crate) fn start_caps(
        &self,
        key: &str,
        at: Micros,
    ) -> impl Iterator<Item = (ScopeKind, u32, Begun)> {
        let all = self.caps.per_minute.map(|cap| {
            let begun = self.starts.of_tenant(at, cap);
            (ScopeKind::Tenant, cap, begun)
        });
        let of_key = self.caps.key_per_minute.map(|cap| {
            let begun = self.starts.of_key(key, at, cap);
            (ScopeKind::Key, cap, begun)
        });
        all.into_iter().chain(of_key)
    }

    /// The cap on starts that has no room for a run through `key`; of two, the one that has room
    /// last.
    pub(crate) fn too_fast(&self, key: &str, at: Micros) -> Option<Rejection> {
        let full = self.start_caps(key, at).filter_map(|(scope, cap, begun)| {
            let free_at = begun.free_at?;
            Some((scope, cap, begun.count, free_at))
        });
        let (scope, cap, begun, free_at) = full.max_by_key(|(_, _, _, free_at)| *free_at)?;
        Some(Rejection::Rate {
            scope: match scope {
                ScopeKind::Key => Scope::Key(key.to_owned()),
                _ => Scope::Tenant,
            },
            cap,
            begun,
            free_at,
        })
    }

    /// The places of a hold's scopes. Those that are not counted yet are from now on, but at most
    /// `room` of them.
    pub(crate) fn count_scopes(&mut self, run: &Run<'_>, at: Micros, room: u64) -> Places {
        let (project, function) = (run.whose.project, run.whose.function);
        let places = self.places(run);
        if room == 0 || all_counted(places) {
            return places;
        }
        self.advance(at);
        let most = self.scopes().saturating_add(room);
        let scopes = [
            Some(Scope::Project(project.to_owned())),
            function.map(|name| Scope::Function(name.to_owned())),
            Some(Scope::Key(run.key.to_owned())),
        ];
        for scope in scopes.iter().flatten() {
            if self.scopes() < most {
                self.count(scope, at);
            }
        }
        self.places(run)
    }

    /// Opens a hold that is counted at these places.
    pub(crate) fn hold(&mut self, places: Places, at: Micros, amounts: &super::Amounts) {
        self.missed |= !all_counted(places);
        self.on_places(places, at, |counters| counters.hold(amounts));
    }

    /// The place of a scope, which is counted from now on. What is not counted yet was never used,
    /// unless some scope has been missed.
    fn count(&mut self, scope: &Scope, at: Micros) -> u32 {
        let (names, name) = match scope {
            Scope::Tenant => return WHOLE,
            Scope::Project(name) => (&mut self.names.projects, name),
            Scope::Function(name) => (&mut self.names.functions, name),
            Scope::Key(name) => (&mut self.names.keys, name),
        };
        if let Some(place) = names.get(name) {
            return *place;
        }
        let place = u32::try_from(self.counters.len()).unwrap_or(UNCOUNTED);
        names.insert(name.clone(), place);
        let since = self.missed.then_some(at);
        self.counters.push(Counters::new(&self.windows, since));
        place
    }

    /// Rolls and changes the counters at these places.
    pub(crate) fn on_places(&mut self, places: Places, at: Micros, on: impl Fn(&mut Counters)) {
        self.advance(at);
        for place in places {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            if let Some(counters) = self.counters.get_mut(place) {
                counters.roll(&self.windows, at, self.windows_end);
                on(counters);
            }
        }
    }

    /// Adds an amount, which may be below zero, to what the whole tenant has posted.
    pub(crate) fn adjust(&mut self, at: Micros, amount: &super::Amounts) {
        self.adjustments += 1;
        let whole = [WHOLE, NOWHERE, NOWHERE, NOWHERE];
        self.on_places(whole, at, |counters| counters.adjust(amount));
    }

    /// The quotas in force at an instant, and how they stand.
    pub(crate) fn quota_states(&self, at: Micros) -> Vec<QuotaState> {
        let state = |rule: &Rule| {
            let quota = rule.quota.clone();
            let (posted, held, window) = self.standing(rule, at);
            let limit = quota.limit.saturating_add(quota.overdraft);
            let free = limit.saturating_sub(posted.saturating_add(held));
            let resets_at = (window.end != i64::MAX).then_some(window.end);
            QuotaState {
                quota,
                posted,
                held,
                free,
                counted_since: self.counted_since(rule, at),
                starts_at: resets_at.map(|_| window.start),
                resets_at,
            }
        };
        self.rules(at).all().iter().map(state).collect()
    }

    /// Whether nothing at all is set aside.
    pub(crate) fn idle(&self) -> bool {
        self.open == 0 && self.counters.iter().all(Counters::idle)
    }
}

/// Whether all scopes of a run are counted.
pub(crate) fn all_counted(places: Places) -> bool {
    !places.contains(&UNCOUNTED)
}
