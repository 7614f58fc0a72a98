//! Requests for runs over HTTP, one connection each: one by one, in a closed loop, at a given rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{self, Answer, Request};

/// The program that most figures are about; each of ours prints this.
pub(crate) const PRINT: &str = "print(1)";
pub(crate) const PRINTED: &str = "1\n";

/// Where runs are asked for, and as whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) token: &'a str,
}

impl Caller<'_> {
    /// Asks for a run and waits for its record, or for what the server says instead.
    pub(crate) fn run(&self, body: &Value) -> std::io::Result<Answer> {
        let request = Request {
            method: "POST",
            path: "/v1/executions",
            token: self.token,
            body: Some(body),
            ..Request::default()
        };
        http::send(self.address, &request)
    }

    /// A program in Python that must end well: how long that took, and its record.
    pub(crate) fn python(&self, code: &str) -> (Duration, Value) {
        let body = python(code);
        let begin = Instant::now();
        let answer = self.run(&body).unwrap();
        let took = begin.elapsed();
        assert_eq!(
            answer.body["stdout"], PRINTED,
            "{} {}",
            answer.head, answer.body
        );
        (took, answer.body)
    }
}

/// The body of a request for a program in Python.
pub(crate) fn python(code: &str) -> Value {
    json!({ "language": "python", "code": code })
}

/// What has become of many requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Times of the right answers, in milliseconds.
    pub(crate) times: Vec<f64>,
    /// How many answers of each kind: `200 warm`, `503 overloaded` and so on.
    pub(crate) kinds: BTreeMap<String, usize>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// The first answer that was neither a right one nor a refusal.
    pub(crate) wrong: Option<String>,
}

impl Tally {
    fn note(&mut self, took: Duration, answer: std::io::Result<Answer>) {
        let (kind, wrong) = match &answer {
            Ok(answer) if answer.status == 200 && answer.body["stdout"] == PRINTED => {
                self.times.push(took.as_secs_f64() * 1000.0);
                let start = answer.body["start"].as_str().unwrap_or("?");
                (format!("200 {start}"), None)
            }
            Ok(answer) if answer.status == 200 => {
                let kind = answer.body["outcome"]["kind"].as_str().unwrap_or("?");
                (format!("200 {kind}"), Some(answer.body.to_string()))
            }
            Ok(answer) => {
                let code = answer.body["code"].as_str().unwrap_or("?");
                let wrong = (answer.status == 500).then(|| answer.body.to_string());
                (format!("{} {code}", answer.status), wrong)
            }
            Err(error) => (format!("no answer: {}", error.kind()), None),
        };
        *self.kinds.entry(kind).or_default() += 1;
        if self.wrong.is_none() {
            self.wrong = wrong;
        }
    }

    /// Adds what has become of other requests.
    pub(crate) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.took += other.took;
        self.wrong = self.wrong.take().or(other.wrong);
    }

    /// Right answers a second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.times.len()).unwrap()) / self.took.as_secs_f64()
    }

    /// The times in order.
    pub(crate) fn sorted(&self) -> Vec<f64> {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times
    }

    /// How many answers there were of which kind, in words.
    pub(crate) fn words(&self) -> String {
        let kinds = self.kinds.iter();
        let words: Vec<String> = kinds
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        words.join(", ")
    }
}

/// All callers ask at once, once each; from there to each answer.
pub(crate) fn burst(callers: &[Caller<'_>], body: &Value) -> Tally {
    let gate = std::sync::Barrier::new(callers.len());
    let tally = Mutex::new(Tally::default());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for caller in callers {
            scope.spawn(|| {
                gate.wait();
                let begin = Instant::now();
                let answer = caller.run(body);
                tally.lock().unwrap().note(begin.elapsed(), answer);
            });
        }
    });
    ended(tally, begin)
}

/// Each caller asks again as soon as it has its answer, until `long` has passed.
pub(crate) fn closed(callers: &[Caller<'_>], body: &Value, long: Duration) -> Tally {
    let tally = Mutex::new(Tally::default());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for caller in callers {
            scope.spawn(|| {
                while begin.elapsed() < long {
                    let begin = Instant::now();
                    let answer = caller.run(body);
                    tally.lock().unwrap().note(begin.elapsed(), answer);
                }
            });
        }
    });
    ended(tally, begin)
}

/// A rate of requests that does not wait for answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_s: f64,
    /// Requests that may be open at once; one more is sent late, and its time counts from when it
    /// was due.
    pub(crate) open_max: usize,
}

/// Asks `rate.per_s` times a second until `stop` is set or `count` were sent.
pub(crate) fn open(
    caller: Caller<'_>,
    body: &Value,
    rate: Rate,
    (count, stop): (usize, &AtomicBool),
) -> Tally {
    let (tally, next) = (Mutex::new(Tally::default()), AtomicUsize::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..rate.open_max {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let due = f64::from(u32::try_from(number).unwrap()) / rate.per_s;
                    let due = begin + Duration::from_secs_f64(due);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if number >= count || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = caller.run(body);
                    tally.lock().unwrap().note(due.elapsed(), answer);
                }
            });
        }
    });
    ended(tally, begin)
}

fn ended(tally: Mutex<Tally>, begin: Instant) -> Tally {
    Tally {
        took: begin.elapsed(),
        ..tally.into_inner().unwrap()
    }
}
