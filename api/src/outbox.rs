//! What is to be told to the outside: which alerts have fired, and their deliveries to webhooks.
//!
//! A firing and the delivery that tells of it are one durable line before anything is sent, so that
//! a crash neither loses an alert nor fires it again. A delivery is sent at least once: whoever was
//! told just before a crash is told again, with the same event id.

pub(crate) mod address;
mod delivery;
mod journal;
pub(crate) mod send;
pub(crate) mod sign;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::{Config, Webhooks as Options};
use crate::ids::{self, Kind};
use delivery::backoff;
pub(crate) use delivery::{Delivery, Event, Firing, NotAgain, Sent, State, Target};
use journal::{Journal, Line};
use sign::Secrets;

/// The outbox of one data directory.
#[derive(Debug)]
pub(crate) struct Outbox {
    options: Options,
    clock: Clock,
    pub(crate) secrets: Secrets,
    inner: Mutex<Inner>,
    /// Something may have become due.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None` once it is closed: what is told after that is told to nobody.
    journal: Option<Journal>,
    fired: HashMap<String, i64>,
    /// By id, and so by age.
    deliveries: BTreeMap<String, Delivery>,
    /// When each pending delivery is due, by the monotonic clock.
    due: HashMap<String, Duration>,
    /// Those that are being sent.
    flying: HashSet<String>,
}

/// What the sender has to do.
#[derive(Debug)]
enum Next {
    Send(Box<Delivery>),
    Wait(Duration),
}

/// How long the sender waits when nothing is pending; whatever is new wakes it.
const IDLE: Duration = Duration::from_secs(60);

impl Outbox {
    /// Reads what an earlier server left in `DIR/outbox`, but no secret that is not `known`.
    pub(crate) fn open(
        config: &Config,
        known: &HashSet<String>,
        clock: Clock,
    ) -> io::Result<Outbox> {
        let dir = config.server.data_dir.join("outbox");
        let outbox = Outbox::read(&dir, config.webhooks.clone(), clock)?;
        outbox.secrets.sweep(known)?;
        Ok(outbox)
    }

    fn read(dir: &Path, options: Options, clock: Clock) -> io::Result<Outbox> {
        let secrets = Secrets::open(dir.join("secrets"))?;
        let path = dir.join("log");
        let mut inner = Inner::default();
        for line in journal::read(&path)? {
            inner.take(line);
        }
        inner.shed(&options, clock.wall_us());
        inner.journal = Some(Journal::create(&path, &inner.lines())?);
        Ok(Outbox {
            options,
            clock,
            secrets,
            inner: Mutex::new(inner),
            wake: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that event has fired.
    pub(crate) fn has_fired(&self, id: &str) -> bool {
        self.lock().fired.contains_key(id)
    }

    /// Notes events as fired and their deliveries as pending, all of them or none; durable once
    /// this answers how many were new. Blocks.
    ///
    /// # Errors
    /// The file cannot be written, or there is no room to remember more.
    pub(crate) fn fire(&self, events: Vec<Event>) -> io::Result<usize> {
        let mut inner = self.lock();
        let now_us = self.clock.wall_us();
        let mut lines: Vec<Line> = Vec::with_capacity(events.len());
        for event in events {
            let id = &event.firing.id;
            let again = |line: &Line| line.firing.as_ref().is_some_and(|one| one.id == *id);
            if inner.fired.contains_key(id) || lines.iter().any(again) {
                continue;
            }
            let delivery = match event.to {
                Some(to) => Some(self.delivery(&inner, &lines, to, event.body)?),
                None => None,
            };
            lines.push(Line {
                firing: Some(event.firing),
                delivery,
                gone: None,
            });
        }
        if lines.is_empty() {
            return Ok(0);
        }
        if inner.fired.len().saturating_add(lines.len()) > self.options.fired_max {
            inner.fired.retain(|_, until_us| *until_us > now_us);
            if inner.fired.len().saturating_add(lines.len()) > self.options.fired_max {
                return Err(io::Error::other("webhooks.fired_max alerts are remembered"));
            }
        }
        inner.write(&lines, true)?;
        let fired = lines.len();
        lines.into_iter().for_each(|line| inner.take(line));
        inner.shed(&self.options, now_us);
        drop(inner);
        self.wake.notify_one();
        Ok(fired)
    }

    /// A new delivery; one that is over a bound is dead from the beginning.
    fn delivery(
        &self,
        inner: &Inner,
        lines: &[Line],
        to: Target,
        body: String,
    ) -> io::Result<Delivery> {
        let id = ids::new(&self.clock).map_err(|error| io::Error::other(error.to_string()))?;
        let now_us = self.clock.wall_us();
        let fresh = lines.iter().filter_map(|line| line.delivery.as_ref());
        let has_room = inner.has_room(&self.options, &to, fresh);
        Ok(Delivery {
            id: ids::text(Kind::Delivery, &id),
            to,
            body,
            created_us: now_us,
            state: if has_room {
                State::Pending
            } else {
                State::Dead
            },
            attempts: 0,
            tries: 0,
            last_us: None,
            status: None,
            fault: (!has_room).then(|| "too many deliveries wait".to_owned()),
            next_us: has_room.then_some(now_us),
        })
    }

    /// What to send now, or how long to wait for it. A tenant has only so many at once.
    fn next(&self) -> Next {
        let mut inner = self.lock();
        let now = self.clock.elapsed();
        let flying = |inner: &Inner, tenant: &Option<String>| {
            let all = inner.flying.iter();
            let all = all.filter_map(|id| inner.deliveries.get(id));
            all.filter(|one| one.to.tenant == *tenant).count()
        };
        let ready = inner.due.iter().filter_map(|(id, due)| {
            let delivery = inner.deliveries.get(id)?;
            let idle = !inner.flying.contains(id);
            let may = flying(&inner, &delivery.to.tenant) < self.options.concurrent_per_tenant_max;
            (idle && may).then_some((*due, delivery))
        });
        let first = ready.min_by(|(due, one), (other, two)| (due, &one.id).cmp(&(other, &two.id)));
        match first {
            Some((due, delivery)) if due <= now => {
                let delivery = Box::new(delivery.clone());
                inner.flying.insert(delivery.id.clone());
                Next::Send(delivery)
            }
            Some((due, _)) => Next::Wait(due.saturating_sub(now).min(IDLE)),
            None => Next::Wait(IDLE),
        }
    }

    /// An attempt has ended. `random` spreads the next one.
    fn finish(&self, id: &str, sent: Sent, random: u64) {
        let mut inner = self.lock();
        inner.flying.remove(id);
        let Some(mut delivery) = inner.deliveries.get(id).cloned() else {
            return;
        };
        let now_us = self.clock.wall_us();
        delivery.attempts = delivery.attempts.saturating_add(1);
        delivery.tries = delivery.tries.saturating_add(1);
        delivery.last_us = Some(now_us);
        (delivery.status, delivery.fault) = match sent {
            Sent::Answered(status) => (Some(status), None),
            Sent::Failed(fault) | Sent::Hopeless(fault) => (None, Some(fault.to_owned())),
        };
        let good = matches!(sent, Sent::Answered(200..=299));
        let hopeless = matches!(sent, Sent::Hopeless(_));
        let last = delivery.tries >= self.options.attempts_max;
        let result = if good {
            delivery.state = State::Delivered;
            "delivered"
        } else if hopeless || last {
            delivery.state = State::Dead;
            "dead"
        } else {
            "failed"
        };
        delivery.next_us = None;
        let mut due = None;
        if delivery.state == State::Pending {
            let wait = backoff(&self.options, delivery.tries, random);
            let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
            delivery.next_us = Some(now_us.saturating_add(wait_us));
            due = Some(self.clock.elapsed().saturating_add(wait));
        }
        metrics::counter!("farebox_webhook_deliveries_total", "result" => result).increment(1);
        inner.put(delivery, due, &self.options, now_us);
        drop(inner);
        self.wake.notify_one();
    }

    /// Sends a delivery again, whatever became of it; now, if it was to be sent later.
    pub(crate) fn retry(&self, to: &Target, id: &str) -> Result<Delivery, NotAgain> {
        let mut inner = self.lock();
        let found = inner.deliveries.get(id).filter(|one| one.to == *to);
        let mut delivery = found.cloned().ok_or(NotAgain::Unknown)?;
        let now_us = self.clock.wall_us();
        if delivery.state != State::Pending {
            if !inner.has_room(&self.options, to, std::iter::empty()) {
                return Err(NotAgain::Full);
            }
            delivery.state = State::Pending;
            delivery.tries = 0;
        }
        delivery.next_us = Some(now_us);
        let due = Some(self.clock.elapsed());
        inner.put(delivery.clone(), due, &self.options, now_us);
        drop(inner);
        self.wake.notify_one();
        Ok(delivery)
    }

    /// Deliveries to a webhook, newest first, after that id, at most `limit`.
    pub(crate) fn deliveries(
        &self,
        to: &Target,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Delivery> {
        let inner = self.lock();
        let newest = inner.deliveries.values().rev();
        newest
            .filter(|one| one.to == *to && after.is_none_or(|after| one.id.as_str() < after))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Forgets the deliveries of a webhook that is gone.
    pub(crate) fn forget(&self, to: &Target) {
        let mut inner = self.lock();
        let all = inner.deliveries.values().filter(|one| one.to == *to);
        let ids: Vec<String> = all.map(|one| one.id.clone()).collect();
        let lines: Vec<Line> = ids
            .into_iter()
            .map(|id| Line {
                gone: Some(id),
                ..Line::default()
            })
            .collect();
        inner.note(&lines);
        lines.into_iter().for_each(|line| inner.take(line));
    }

    /// How many deliveries are pending, and for how long the oldest has been.
    pub(crate) fn lag(&self) -> (usize, Duration) {
        let inner = self.lock();
        let pending = inner.due.keys().filter_map(|id| inner.deliveries.get(id));
        let oldest_us = pending.map(|one| one.created_us).min();
        let age_us = oldest_us.map_or(0, |oldest| self.clock.wall_us().saturating_sub(oldest));
        let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
        (inner.due.len(), age)
    }

    /// Writes the last of it down. What is still being sent is sent again by the next server.
    pub(crate) fn close(&self) {
        if let Some(Err(error)) = self.lock().journal.take().map(|journal| journal.sync()) {
            tracing::error!(%error, "the outbox could not be written");
        }
    }
}

impl Inner {
    /// Takes a line over into memory.
    fn take(&mut self, line: Line) {
        if let Some(firing) = line.firing {
            self.fired.insert(firing.id, firing.until_us);
        }
        if let Some(delivery) = line.delivery {
            if delivery.state == State::Pending {
                self.due.insert(delivery.id.clone(), Duration::ZERO);
            } else {
                self.due.remove(&delivery.id);
            }
            self.deliveries.insert(delivery.id.clone(), delivery);
        }
        if let Some(id) = line.gone {
            self.due.remove(&id);
            self.deliveries.remove(&id);
        }
    }

    /// Whether one more delivery to `to` may wait, besides those in memory and `fresh` ones.
    fn has_room<'a>(
        &'a self,
        options: &Options,
        to: &Target,
        fresh: impl Iterator<Item = &'a Delivery>,
    ) -> bool {
        let waiting = self.due.keys().filter_map(|id| self.deliveries.get(id));
        let waiting = waiting.chain(fresh.filter(|one| one.state == State::Pending));
        let (all, own) = waiting.fold((0_usize, 0_usize), |(all, own), one| {
            (all + 1, own + usize::from(one.to.tenant == to.tenant))
        });
        all < options.pending_max && own < options.pending_per_tenant_max
    }

    /// Takes over how a delivery stands now.
    fn put(&mut self, delivery: Delivery, due: Option<Duration>, options: &Options, now_us: i64) {
        let id = delivery.id.clone();
        let line = Line {
            delivery: Some(delivery),
            ..Line::default()
        };
        self.note(std::slice::from_ref(&line));
        self.take(line);
        if let Some(due) = due {
            self.due.insert(id, due);
        }
        self.shed(options, now_us);
    }

    fn write(&mut self, lines: &[Line], sync: bool) -> io::Result<()> {
        let closed = || io::Error::other("the outbox is closed");
        self.journal
            .as_mut()
            .ok_or_else(closed)?
            .append(lines, sync)
    }

    /// Writes lines that need not be durable: if they are lost, something is sent once more.
    fn note(&mut self, lines: &[Line]) {
        if let Err(error) = self.write(lines, false) {
            tracing::warn!(%error, "what became of a delivery was not written down");
        }
    }

    /// Drops the oldest of what is over the bounds and alerts that cannot fire again, and makes the
    /// file anew if it has grown too much.
    fn shed(&mut self, options: &Options, now_us: i64) {
        let mut kept: HashMap<Target, usize> = HashMap::new();
        let mut all = 0_usize;
        let mut old = Vec::new();
        for (id, delivery) in self.deliveries.iter().rev() {
            if delivery.state == State::Pending {
                continue;
            }
            let own = kept.entry(delivery.to.clone()).or_default();
            *own += 1;
            all += 1;
            if *own > options.log_per_webhook_max || all > options.log_max {
                old.push(id.clone());
            }
        }
        for id in old {
            self.deliveries.remove(&id);
        }
        let overgrown = self.journal.as_ref().is_none_or(Journal::is_overgrown);
        if !overgrown {
            return;
        }
        self.fired.retain(|_, until_us| *until_us > now_us);
        let lines = self.lines();
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.rewrite(&lines)
        {
            tracing::error!(%error, "the outbox could not be made anew");
        }
    }

    /// All that is known, as lines.
    fn lines(&self) -> Vec<Line> {
        let firings = self.fired.iter().map(|(id, until_us)| Line {
            firing: Some(Firing {
                id: id.clone(),
                until_us: *until_us,
            }),
            ..Line::default()
        });
        let deliveries = self.deliveries.values().map(|delivery| Line {
            delivery: Some(delivery.clone()),
            ..Line::default()
        });
        firings.chain(deliveries).collect()
    }
}

#[cfg(test)]
mod tests;
