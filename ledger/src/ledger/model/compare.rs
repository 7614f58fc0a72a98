//! Every read of the ledger against a scan over what the model remembers.

use super::naive::{DAY, DECEMBER, start};
use super::{Model, Run, TENANTS};
use crate::testing::*;
use crate::*;

impl Model {
    /// Compares every read, usage by these filters (tenant, project, window).
    pub(super) fn compare(&self, filters: &[(Option<usize>, Option<u8>, u8)]) {
        let ledger = self.ledger();
        let open: Vec<Id> = ledger.open_holds().iter().map(|hold| hold.id).collect();
        let wanted = self
            .open_runs()
            .into_iter()
            .map(|place| id(self.runs[place].number));
        assert_eq!(open, wanted.collect::<Vec<_>>());
        for (name, settings) in TENANTS.iter().zip(&self.settings) {
            let states = ledger.quotas(name).unwrap();
            assert_eq!(states.len(), settings.quotas.len());
            for state in states {
                // The ledger's own time may be a little ahead of the clock.
                let last = self
                    .runs
                    .iter()
                    .map(|run| run.held.opened_at)
                    .max()
                    .unwrap_or(0);
                let at = self.clock.get().max(last);
                let stands = self.stands(name, &state.quota, at);
                assert_eq!((state.posted, state.held), stands, "{}", state.quota.name());
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
        filters
            .iter()
            .for_each(|filter| self.compare_usage(*filter));
        self.compare_entries();
    }

    fn compare_usage(&self, (tenant, project, window): (Option<usize>, Option<u8>, u8)) {
        let window = [Window::Hour, Window::Day, Window::Month][usize::from(window)];
        let from = if window == Window::Month {
            DECEMBER - 30 * DAY
        } else {
            DECEMBER - DAY
        };
        let to = DECEMBER + 31 * DAY;
        let mut query = UsageQuery {
            group_by: vec![GroupBy::Tenant, GroupBy::Function],
            tenant: tenant.map(|place| TENANTS[place].to_owned()),
            project: project.map(|project| format!("p{project}")),
            limit: 3,
            ..usage_query(from, to, window)
        };
        let mut wanted = std::collections::BTreeMap::new();
        for run in &self.runs {
            let Some(Some((used, over, cost))) = &run.end else {
                continue;
            };
            let request = &run.request;
            let other =
                |want: &Option<String>, has: &String| want.as_ref().is_some_and(|w| w != has);
            let outside = run.held.opened_at >= to;
            if outside
                || other(&query.tenant, &request.tenant)
                || other(&query.project, &request.project)
            {
                continue;
            }
            let key = (
                start(window, run.held.opened_at),
                request.tenant.clone(),
                request.function.clone(),
            );
            let sums: &mut (Quantities, Quantities, i128) = wanted.entry(key).or_default();
            *sums = (sums.0.plus(used), sums.1.plus(over), sums.2 + cost);
        }
        let mut found = Vec::new();
        loop {
            let page = self.ledger().usage(&query).unwrap();
            assert_eq!(page.as_of.seq, self.entries);
            found.extend(page.items.into_iter().map(|item| {
                (
                    (item.start, item.tenant.unwrap(), item.function),
                    (item.usage, item.overrun, item.cost.0),
                )
            }));
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted.into_iter().collect::<Vec<_>>());
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
            Body::Acted(_) => panic!("the filter let an act pass"),
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
