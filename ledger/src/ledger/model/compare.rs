//! Every read of the ledger against a scan over what the model remembers.

use super::naive::{DAY, DECEMBER, HOUR, MINUTE, price, start};
use super::{Model, Question, Run, TENANTS};
use crate::testing::*;
use crate::*;

/// An item: start, group and meter; usage, overrun, cost.
type Told = (
    (Micros, Vec<Option<String>>, Option<Meter>),
    Quantities,
    Quantities,
    i128,
);

/// Zones without a clock change in reach, and their offsets.
const ZONES: [(&str, i64); 4] = [
    ("UTC", 0),
    ("Asia/Kathmandu", 5 * HOUR + 45 * MINUTE),
    ("Pacific/Kiritimati", 14 * HOUR),
    ("Pacific/Gambier", -9 * HOUR),
];

fn offset(question: &Question) -> i64 {
    ZONES[question.zone].1
}

/// The question as the ledger takes it.
fn asked(question: &Question) -> UsageQuery {
    let window = [Window::Hour, Window::Day, Window::Month][question.window];
    let days = if window == Window::Month { 30 } else { 2 };
    let (zone, offset) = ZONES[question.zone];
    let (from, to) = (DECEMBER - days * DAY - offset, DECEMBER + 31 * DAY - offset);
    let groups = [
        GroupBy::Tenant,
        GroupBy::Project,
        GroupBy::Function,
        GroupBy::Image,
        GroupBy::Key,
        GroupBy::Meter,
        GroupBy::Tag("t0".to_owned()),
        GroupBy::Tag("t1".to_owned()),
    ];
    let named = |letter: &str, number: Option<u8>| number.map(|n| format!("{letter}{n}"));
    let tag = |(key, value): &(u8, u8)| (format!("t{key}"), format!("v{value}"));
    UsageQuery {
        timezone: zone.to_owned(),
        group_by: question
            .group_by
            .iter()
            .map(|place| groups[*place].clone())
            .collect(),
        only: Only {
            tenant: question.tenant.map(|place| TENANTS[place].to_owned()),
            project: named("p", question.project),
            function: named("f", question.function),
            image: named("i", question.image),
            key: named("k", question.key),
            tags: question.tags.iter().map(tag).collect(),
        },
        limit: question.limit,
        ..usage_query(from, to, window)
    }
}

/// The value of a run in a group.
fn name(by: &GroupBy, request: &HoldRequest) -> Option<String> {
    match by {
        GroupBy::Tenant => Some(request.tenant.clone()),
        GroupBy::Project => Some(request.project.clone()),
        GroupBy::Function => request.function.clone(),
        GroupBy::Image => Some(request.image.clone()),
        GroupBy::Key => Some(request.key.clone()),
        GroupBy::Tag(key) => {
            let tags: std::collections::BTreeMap<_, _> = request.tags.iter().cloned().collect();
            tags.get(key).cloned()
        }
        GroupBy::Meter => panic!("a meter is not of a run"),
    }
}

impl Model {
    /// Compares every read, usage and charges by these questions.
    pub(super) fn compare(&self, questions: &[Question]) {
        let ledger = self.ledger();
        let open: Vec<Id> = ledger.open_holds().iter().map(|hold| hold.id).collect();
        let wanted = self
            .open_runs()
            .into_iter()
            .map(|place| id(self.runs[place].number));
        assert_eq!(open, wanted.collect::<Vec<_>>());
        for (name, settings) in TENANTS.iter().zip(&self.settings) {
            let states = ledger.quotas(name).unwrap();
            // The ledger's own time may be a little ahead of the clock.
            let at = self.clock.get().max(self.last);
            let quotas: Vec<&Quota> = states.iter().map(|state| &state.quota).collect();
            assert_eq!(quotas, settings.quotas(at).iter().collect::<Vec<_>>());
            for state in states {
                let stands = self.stands(name, &state.quota, at);
                assert_eq!(state.counted_since, None, "{}", state.quota.name());
                assert_eq!((state.posted, state.held), stands, "{}", state.quota.name());
                let most = state.quota.limit + state.quota.overdraft;
                assert_eq!(state.free, most.saturating_sub(stands.0 + stands.1));
            }
        }
        let documents = ledger.documents("doc/").into_iter();
        let found: Vec<_> = documents.map(|d| (d.subject, d.bytes.to_vec())).collect();
        let kept = self.documents.iter().filter(|(_, bytes)| !bytes.is_empty());
        assert_eq!(
            found,
            kept.map(|(s, b)| (s.clone(), b.clone()))
                .collect::<Vec<_>>()
        );
        for question in questions {
            let mut asked = asked(question);
            let wanted = self.usage(&asked, offset(question));
            let mut found = Vec::new();
            while self.page(&mut asked, self.entries, &mut found) {}
            assert_eq!(found, wanted, "{question:?}");
            self.compare_charges(&asked);
        }
        self.compare_entries();
    }

    /// Settles a run after each page: what is settled later does not count.
    pub(super) fn settle_between_pages(&mut self, question: &Question) {
        let mut asked = asked(question);
        let wanted = self.usage(&asked, offset(question));
        let (mut found, seq) = (Vec::new(), self.entries);
        while self.page(&mut asked, seq, &mut found) {
            if let Some(place) = self.open_runs().first() {
                self.settle(*place, 1_000);
            }
        }
        assert_eq!(found, wanted, "{question:?}");
    }

    /// Reads one page; whether there is another.
    fn page(&self, asked: &mut UsageQuery, seq: u64, found: &mut Vec<Told>) -> bool {
        let page = self.ledger().usage(asked).unwrap();
        assert_eq!(page.as_of.seq, seq);
        assert!(page.items.len() <= asked.limit);
        found.extend(page.items.into_iter().map(|item| {
            let key = (item.start, item.group, item.meter);
            (key, item.usage, item.overrun, item.cost.0)
        }));
        asked.cursor = page.next_cursor;
        asked.cursor.is_some()
    }

    /// The settled runs that pass the filters.
    fn passing<'a>(&'a self, asked: &'a UsageQuery) -> impl Iterator<Item = &'a Run> {
        let only = &asked.only;
        let other = |want: &Option<String>, has: &str| want.as_ref().is_some_and(|w| w != has);
        let passes = move |run: &&Run| {
            let request = &run.request;
            matches!(run.end, Some(Some(_)))
                && !other(&only.tenant, &request.tenant)
                && !other(&only.project, &request.project)
                && !other(&only.function, request.function.as_deref().unwrap_or("?"))
                && !other(&only.key, &request.key)
                && !other(&only.image, &request.image[..2])
                && only.tags.iter().all(|tag| request.tags.contains(tag))
                && (asked.from..asked.to).contains(&run.held.opened_at)
        };
        self.runs.iter().filter(passes)
    }

    /// The answer, by a scan over all runs.
    fn usage(&self, asked: &UsageQuery, offset: i64) -> Vec<Told> {
        let meters: Vec<Option<Meter>> = match asked.group_by.contains(&GroupBy::Meter) {
            true => Meter::MEASURED.into_iter().map(Some).collect(),
            false => vec![None],
        };
        let mut sums = std::collections::BTreeMap::new();
        for run in self.passing(asked) {
            let Some(Some((used, over, _))) = &run.end else {
                continue;
            };
            let groups = asked.group_by.iter();
            let groups = groups.filter(|by| **by != GroupBy::Meter);
            let group: Vec<Option<String>> = groups.map(|by| name(by, &run.request)).collect();
            let start = start(asked.window, run.held.opened_at + offset) - offset;
            for meter in &meters {
                let only = |of: &Quantities| meter.map_or(*of, |meter| of.only(meter));
                let (used, over) = (only(used), only(over));
                if meter.is_some() && used.is_zero() && over.is_zero() {
                    continue;
                }
                let sum: &mut (Quantities, Quantities, i128) =
                    sums.entry((start, group.clone(), *meter)).or_default();
                *sum = (
                    sum.0.plus(&used),
                    sum.1.plus(&over),
                    sum.2 + price(&used, false),
                );
            }
        }
        let told = sums.into_iter();
        told.map(|(key, (used, over, cost))| (key, used, over, cost))
            .collect()
    }

    /// Charges by the same filters, in pieces.
    fn compare_charges(&self, asked: &UsageQuery) {
        let mut charges = self.ledger().charges(ChargeQuery {
            after: 3,
            until: None,
            from: Some(asked.from),
            to: Some(asked.to),
            only: asked.only.clone(),
        });
        assert_eq!(charges.as_of().seq, self.entries);
        let mut found = Vec::new();
        while let Some(entries) = charges.page(asked.limit).unwrap() {
            assert!(entries.len() <= asked.limit);
            found.extend(entries.iter().map(|entry| entry.seq));
        }
        assert_eq!(charges.through(), self.entries);
        let mut wanted: Vec<u64> = self.passing(asked).map(|run| run.entry).collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
    }

    fn compare_entries(&self) {
        let mut query = EntryQuery {
            kind: Some(EntryKind::Settled),
            limit: 7,
            ..EntryQuery::default()
        };
        let mut found = Vec::new();
        loop {
            let page = self.ledger().entries(&query).unwrap();
            found.extend(page.entries);
            let Some(next) = page.next else { break };
            query.after = next;
        }
        let settled = |run: &&Run| matches!(run.end, Some(Some(_)));
        let mut wanted: Vec<Id> = self
            .runs
            .iter()
            .filter(settled)
            .map(|run| run.request.execution)
            .collect();
        let execution = |entry: &Entry| match &entry.body {
            Body::Settled(settled) => settled.hold.execution,
            Body::Acted(_) | Body::Adjusted(_) => panic!("the filter let another kind pass"),
        };
        let mut ids: Vec<Id> = found.iter().map(execution).collect();
        for entry in &found {
            let again = self.ledger().settlement_of(execution(entry)).unwrap();
            assert_eq!(again.as_ref(), Some(entry));
        }
        ids.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(ids, wanted);
        assert_eq!(self.ledger().head().size, self.entries);
    }
}
