//! Clients that run small programs as fast as they are answered, and remember what they were told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::http::{self, Request};
use crate::server::Server;

/// Programs of the load: quick ones, ones that burn, ones that a kill finds running.
const PROGRAMS: [&str; 5] = [
    "print(6*7)",
    "open('f', 'w').write('x' * 100000); print(len(open('f').read()))",
    "raise SystemExit(3)",
    "n = 0\nfor i in range(2000000): n += i\nprint(n)",
    "import time; time.sleep(0.4); print('late')",
];

/// A small generator of numbers that depend on the seed alone.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // The splitmix64 step.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is small.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// An execution whose whole answer has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) token: String,
    pub(crate) execution: String,
    /// The total of its charge.
    pub(crate) total: String,
}

/// A request that was sent and not answered: the server was killed.
#[derive(Debug, Clone)]
pub(crate) struct Unanswered {
    token: String,
    key: String,
    program: usize,
}

/// What the clients of one round know at its end.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) unanswered: Vec<Unanswered>,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Made>>,
}

impl Load {
    /// Starts `each` clients for every token; `first` is sent again before anything new.
    pub(crate) fn start(
        address: SocketAddr,
        tokens: &[String; 2],
        each: usize,
        seed: u64,
        first: Vec<Unanswered>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut random = Random::new(seed);
        let mut clients = Vec::new();
        for token in tokens {
            for at in 0..each {
                let (token, stop) = (token.clone(), Arc::clone(&stop));
                let again = share(&first, &token, at, each);
                let mut random = Random::new(random.next());
                clients.push(std::thread::spawn(move || {
                    let mut made = Made::default();
                    for one in again {
                        send(address, one, &mut made);
                    }
                    while !stop.load(Ordering::Relaxed) && made.unanswered.is_empty() {
                        let program = usize::try_from(random.below(5)).unwrap();
                        let key = format!("{:016x}", random.next());
                        send(
                            address,
                            Unanswered {
                                token: token.clone(),
                                key,
                                program,
                            },
                            &mut made,
                        );
                    }
                    made
                }));
            }
        }
        Self { stop, clients }
    }

    /// Sends again what got no answer, and nothing else.
    pub(crate) fn again(address: SocketAddr, tokens: &[String; 2], first: Vec<Unanswered>) -> Self {
        let load = Self::start(address, tokens, 0, 0, Vec::new());
        let client = std::thread::spawn(move || {
            let mut made = Made::default();
            for one in first {
                send(address, one, &mut made);
            }
            made
        });
        Self {
            stop: load.stop,
            clients: vec![client],
        }
    }

    /// Tells the clients to end with their present request, and takes what they know.
    pub(crate) fn end(self) -> Made {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Made::default();
        for client in self.clients {
            let made = client.join().unwrap();
            all.acknowledged.extend(made.acknowledged);
            all.unanswered.extend(made.unanswered);
        }
        all
    }
}

fn share(first: &[Unanswered], token: &str, at: usize, each: usize) -> Vec<Unanswered> {
    let own = first.iter().filter(|one| one.token == token);
    own.skip(at).step_by(each).cloned().collect()
}

fn send(address: SocketAddr, one: Unanswered, made: &mut Made) {
    let body = json!({ "language": "python", "code": PROGRAMS[one.program] });
    let request = Request {
        method: "POST",
        path: "/v1/executions",
        token: &one.token,
        key: Some(&one.key),
        prefer: None,
        body: Some(&body),
    };
    match http::send(address, &request) {
        Ok(answer) if answer.status == 200 => acknowledge(one, &answer.body, made),
        // Its admission by the killed server is still being cleared up, or the machine is full.
        Ok(answer) if [409, 503].contains(&answer.status) => made.unanswered.push(one),
        Ok(answer) => panic!("{}\n{}", answer.head, answer.body),
        Err(_) => made.unanswered.push(one),
    }
}

fn acknowledge(one: Unanswered, record: &Value, made: &mut Made) {
    if record["state"] != "finished" {
        made.unanswered.push(one);
    } else if record["outcome"]["kind"] != "start_failed" {
        // What the platform could not start is released and costs nothing.
        made.acknowledged.push(Acknowledged {
            execution: text(&record["id"]),
            total: text(&record["charge"]["total"]),
            token: one.token,
        });
    }
}

/// All settlements of `tenant`.
pub(crate) fn settlements(server: &Server, tenant: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/entries?tenant={tenant}&kind=settlement&limit=500{cursor}");
        let page = server.admin("GET", &path, None);
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// The execution that a settlement is for.
pub(crate) fn execution_of(entry: &Value) -> &str {
    entry["execution"].as_str().unwrap()
}

/// The total that a settlement charged.
pub(crate) fn total_of(entry: &Value) -> String {
    text(&entry["charge"]["total"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
