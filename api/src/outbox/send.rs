//! Sends what is due: signed, to exactly the address that was judged, within a time, and never
//! after a redirect.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::DefaultConnector;

use super::address::{Guarded, Network, NotPublic};
use super::sign::Secret;
use super::{Delivery, Next, Outbox, Sent};
use crate::app::App;
use crate::registry::Webhook;

/// Bytes of the head of a receiver's answer; of its body nothing is read.
const HEAD_MAX: usize = 16 << 10;

/// Sends deliveries until the server drains.
pub(crate) async fn run(app: Arc<App>) {
    let options = &app.config.webhooks;
    let timeout = Duration::from_millis(options.timeout_ms);
    let agent = agent(
        DefaultResolver::default(),
        &options.allow_addresses,
        timeout,
    );
    let permits = Arc::new(Semaphore::new(options.concurrent_max));
    while !app.is_draining() {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match app.outbox.next() {
            Next::Send(delivery) => {
                // Whoever is slow to answer holds nothing of the server's but this.
                let (outbox, agent) = (Arc::clone(&app.outbox), agent.clone());
                let webhook = app.registry.webhook(&delivery.to);
                drop(app.walk.spawn_blocking(move || {
                    let sent = send(&outbox, &agent, webhook.as_deref(), &delivery);
                    outbox.finish(&delivery.id, sent, chance());
                    drop(permit);
                }));
            }
            Next::Wait(wait) => {
                drop(permit);
                let woken = app.outbox.wake.notified();
                drop(tokio::time::timeout(wait, woken).await);
            }
        }
    }
}

/// Any number; zero where the kernel has none to give.
fn chance() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// What posts: no proxy, no redirect, no connection that was opened for something else.
fn agent(lookup: impl Resolver, allow: &[Network], timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(timeout))
        .max_response_header_size(HEAD_MAX)
        .max_idle_connections(0)
        .user_agent(concat!("farebox/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = Guarded {
        lookup,
        allow: allow.to_vec(),
    };
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

/// One attempt. Blocks, for as long as `webhooks.timeout_ms`.
fn send(outbox: &Outbox, agent: &Agent, webhook: Option<&Webhook>, delivery: &Delivery) -> Sent {
    let Some(webhook) = webhook else {
        return Sent::Hopeless("the webhook is gone");
    };
    if !webhook.doc.enabled {
        return Sent::Hopeless("the webhook is disabled");
    }
    let secret = match outbox.secrets.read(&webhook.doc.secret) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::error!(%error, webhook = delivery.to.name, "a webhook's secret is missing");
            return Sent::Hopeless("the secret is missing: set another");
        }
    };
    let now_s = outbox.clock.wall_s();
    let sent = post(agent, &webhook.doc.url, &secret, delivery, now_s);
    tracing::debug!(delivery = delivery.id, ?sent, "sent");
    sent
}

fn post(agent: &Agent, url: &str, secret: &Secret, delivery: &Delivery, now_s: u64) -> Sent {
    let answer = agent
        .post(url)
        .header(
            "Content-Type",
            "application/cloudevents+json; charset=utf-8",
        )
        .header("Farebox-Delivery", &delivery.id)
        .header("Farebox-Timestamp", now_s.to_string())
        .header("Farebox-Signature", secret.sign(now_s, &delivery.body))
        .send(&delivery.body);
    match answer {
        Ok(answer) => Sent::Answered(answer.status().as_u16()),
        Err(error) => Sent::Failed(fault(&error)),
    }
}

/// What went wrong, without a word that the receiver has chosen.
fn fault(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "it took too long",
        ureq::Error::HostNotFound => "the host is not known",
        ureq::Error::ConnectionFailed => "no connection",
        ureq::Error::Other(other) if other.is::<NotPublic>() => "the address is not public",
        ureq::Error::Io(_) => "the connection failed",
        _ => "the answer is not HTTP",
    }
}

impl Outbox {
    #[cfg(test)]
    pub(super) fn options(&self) -> &super::Options {
        &self.options
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ureq::http::Uri;
    use ureq::unversioned::resolver::ResolvedSocketAddrs;
    use ureq::unversioned::transport::NextTimeout;

    use super::super::{State, Target};
    use super::*;

    /// A name server of a rebinder: the first answer is as asked for, each later one is another.
    #[derive(Debug)]
    struct Rebinder {
        first: SocketAddr,
        later: SocketAddr,
        asked: Arc<AtomicUsize>,
    }

    impl Resolver for Rebinder {
        fn resolve(
            &self,
            _: &Uri,
            _: &ureq::config::Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut found = self.empty();
            found.push(match self.asked.fetch_add(1, Ordering::SeqCst) {
                0 => self.first,
                _ => self.later,
            });
            Ok(found)
        }
    }

    fn delivery() -> Delivery {
        Delivery {
            id: "dlv_1".to_owned(),
            to: Target {
                tenant: None,
                name: "hook".to_owned(),
            },
            body: "{}".to_owned(),
            created_us: 0,
            state: State::Pending,
            attempts: 0,
            tries: 0,
            last_us: None,
            status: None,
            fault: None,
            next_us: None,
        }
    }

    fn loopback() -> Vec<Network> {
        vec![Network::try_from("127.0.0.1/32".to_owned()).unwrap()]
    }

    const WAIT: Duration = Duration::from_secs(20);

    /// A listener that answers one request with `status`.
    fn receiver(status: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while !bytes.ends_with(b"{}") {
                let read = stream.read(&mut buffer).unwrap();
                assert_ne!(read, 0, "the request ended early");
                bytes.extend_from_slice(&buffer[..read]);
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(bytes).unwrap()
        });
        (address, thread)
    }

    /// The address that was judged is the one that is connected to: the name is asked for once.
    #[test]
    fn a_name_that_changes_its_address_gains_nothing() {
        let (address, thread) = receiver("200 OK");
        let asked = Arc::new(AtomicUsize::new(0));
        let lookup = Rebinder {
            first: address,
            later: SocketAddr::new(IpAddr::from([169, 254, 169, 254]), 80),
            asked: Arc::clone(&asked),
        };
        let agent = agent(lookup, &loopback(), WAIT);
        let secret = Secret::generate().unwrap();
        let url = format!("http://receiver.invalid:{}/hook", address.port());
        let sent = post(&agent, &url, &secret, &delivery(), 1);
        assert_eq!(sent, Sent::Answered(200));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let request = thread.join().unwrap();
        assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
        let head = request.to_lowercase();
        assert!(head.contains("host: receiver.invalid"), "{request}");
        // The next delivery asks again, and is refused.
        let sent = post(&agent, &url, &secret, &delivery(), 1);
        assert_eq!(sent, Sent::Failed("the address is not public"));
    }

    /// One good address among bad ones is not enough.
    #[test]
    fn every_address_of_a_name_must_be_allowed() {
        #[derive(Debug)]
        struct Both(SocketAddr);
        impl Resolver for Both {
            fn resolve(
                &self,
                _: &Uri,
                _: &ureq::config::Config,
                _: NextTimeout,
            ) -> Result<ResolvedSocketAddrs, ureq::Error> {
                let mut found = self.empty();
                found.push(self.0);
                found.push(SocketAddr::from(([10, 0, 0, 1], 80)));
                Ok(found)
            }
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let agent = agent(Both(listener.local_addr().unwrap()), &loopback(), WAIT);
        let secret = Secret::generate().unwrap();
        let sent = post(&agent, "http://both.invalid/", &secret, &delivery(), 1);
        assert_eq!(sent, Sent::Failed("the address is not public"));
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "it was connected to");
    }

    /// The system's own resolver knows names and odd forms of loopback.
    #[test]
    fn names_that_lead_to_loopback_are_refused() {
        let agent = agent(DefaultResolver::default(), &[], WAIT);
        let secret = Secret::generate().unwrap();
        for host in [
            "localhost",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::1]",
        ] {
            let url = format!("http://{host}:9/");
            let sent = post(&agent, &url, &secret, &delivery(), 1);
            assert_eq!(sent, Sent::Failed("the address is not public"), "{host}");
        }
    }
}
