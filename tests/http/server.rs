//! A server in this process: the real ledger in a temporary directory, the fake runtime, a free
//! port.

use std::path::Path;
use std::sync::Arc;

use api::{Backend, Config, ImageInfo, ImageSource, Running};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use runtime::fake::FakeOptions;
use runtime::{Digest, Final, Runtime};
use serde_json::{Value, json};

use crate::client::{Answer, Client, events};

/// How often something that is on its way is asked for before the test gives up.
const PATIENCE: usize = 20_000;

/// The images of every test server: one for Python, one for Node.
#[derive(Debug)]
struct Images;

impl ImageSource for Images {
    fn resolve(&self, name: &str) -> Result<Option<ImageInfo>, String> {
        let known = [("python", [1; 32]), ("node", [2; 32])];
        let mut found = known
            .into_iter()
            .filter(|(known, digest)| name == *known || name == Digest(*digest).to_string());
        Ok(found.next().map(|(name, digest)| ImageInfo {
            name: name.to_owned(),
            digest: Digest(digest),
            languages: vec![name.to_owned(), "shell".to_owned()],
            env: vec![("HOME".to_owned(), "/home/user".to_owned())],
            warm_bytes: 8 << 20,
        }))
    }
}

/// A running server. Stopping it proves that its journal verifies and that no hold was left open.
#[derive(Debug)]
pub(crate) struct TestServer {
    running: Option<Running>,
    dir: tempfile::TempDir,
    flags: Vec<(String, String)>,
    /// What the fake of the next start says that an earlier server left.
    pub(crate) left_behind: Vec<Final>,
}

impl TestServer {
    pub(crate) fn start() -> TestServer {
        TestServer::with(&[], FakeOptions::default())
    }

    /// With `flags` over what tests need, and a fake that behaves like `fake`.
    pub(crate) fn with(flags: &[(&str, &str)], fake: FakeOptions) -> TestServer {
        TestServer::on(tempfile::tempdir().unwrap(), flags, fake)
    }

    /// As `with`, on a data directory that may have something in it.
    pub(crate) fn on(dir: tempfile::TempDir, flags: &[(&str, &str)], fake: FakeOptions) -> Self {
        let base = [
            ("server.data_dir", dir.path().to_str().unwrap()),
            ("server.listen", "127.0.0.1:0"),
            ("server.workers", "2"),
            ("server.walk_threads", "2"),
            ("server.drain_grace_ms", "50"),
            // Preallocated per server: small, as a test writes little.
            ("ledger.segment_bytes", "1048576"),
        ];
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let flags = base.iter().chain(flags).map(owned).collect();
        let mut server = TestServer {
            running: None,
            dir,
            flags,
            left_behind: Vec::new(),
        };
        server.begin(fake);
        server
    }

    fn begin(&mut self, fake: FakeOptions) {
        let config = Config::with(self.flags.clone()).unwrap();
        let backend = Backend::Given(Runtime::fake(fake), Arc::new(Images));
        self.running = Some(Running::start(config, backend).unwrap());
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the server in order and checks what it leaves.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().unwrap();
            self.audit();
        }
    }

    /// The journal of the stopped server verifies, and no hold is open.
    fn audit(&self) {
        let verified = ledger::verify(&self.dir.path().join("ledger"), &mut |_| ()).unwrap();
        assert_eq!(verified.holds_open, 0, "a hold was left open");
    }

    /// Drains the server and starts another on the same data directory.
    pub(crate) fn restart(&mut self) {
        self.restart_after(|_| ());
    }

    /// As `restart`, with something done to the data directory in between.
    pub(crate) fn restart_after(&mut self, change: impl FnOnce(&Path)) {
        self.stop();
        change(self.dir.path());
        let left_behind = std::mem::take(&mut self.left_behind);
        self.begin(FakeOptions {
            left_behind,
            ..FakeOptions::default()
        });
    }

    /// Sets a flag for the next start.
    pub(crate) fn flag(&mut self, key: &str, value: &str) {
        self.flags.push((key.to_owned(), value.to_owned()));
    }

    /// Takes the running server out, so that the test can stop it itself.
    pub(crate) fn take(&mut self) -> Running {
        self.running.take().unwrap()
    }

    fn client(&self, token: Option<String>) -> Client {
        let address = self.running.as_ref().unwrap().address();
        Client { address, token }
    }

    /// The same token at the address of the server as it now runs.
    pub(crate) fn reach(&self, client: &Client) -> Client {
        self.client(client.token.clone())
    }

    /// The operator that `DIR/admin.token` names.
    pub(crate) fn admin(&self) -> Client {
        let token = std::fs::read_to_string(self.dir.path().join("admin.token")).unwrap();
        self.client(Some(token.trim().to_owned()))
    }

    /// Makes a tenant and answers its owner.
    pub(crate) fn tenant(&self, name: &str) -> Client {
        let made = self.admin().post("/v1/tenants", &json!({"name": name}));
        made.expect(201);
        self.token(name, "owner")
    }

    pub(crate) fn token(&self, tenant: &str, role: &str) -> Client {
        let body = json!({"name": role, "role": role, "expires_in_s": 3600});
        let minted = self.mint(tenant, &body).expect(201);
        self.client(Some(minted["token"].as_str().unwrap().to_owned()))
    }

    pub(crate) fn mint(&self, tenant: &str, body: &Value) -> Answer {
        let path = format!("/v1/tenants/{tenant}/tokens");
        self.admin().post(&path, body)
    }

    /// Signs claims with the server's own key, as nobody outside could.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let files = std::fs::read_dir(self.dir.path().join("keys")).unwrap();
        let mut files = files
            .map(|file| file.unwrap().path())
            .filter(|path| path.is_file());
        let seed = std::fs::read_to_string(files.next().unwrap()).unwrap();
        let byte = |n: usize| u8::from_str_radix(&seed[2 * n..2 * n + 2], 16).unwrap();
        let key = SigningKey::from_bytes(&std::array::from_fn(byte));
        let admin = self.admin().token.unwrap();
        let head = admin.split('.').next().unwrap().to_owned();
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = key.sign(signed.as_bytes()).to_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn put_quotas(&self, tenant: &str, quotas: &Value) -> Answer {
        let path = format!("/v1/tenants/{tenant}/quotas");
        self.admin().put(&path, &json!({"quotas": quotas}))
    }

    #[track_caller]
    pub(crate) fn quota(&self, tenant: &str, quotas: &Value) {
        self.put_quotas(tenant, quotas).expect(200);
    }

    /// How many settlements a tenant has.
    pub(crate) fn settlements(&self, tenant: &str) -> usize {
        let path = format!("/v1/entries?tenant={tenant}&kind=settlement&limit=1000");
        let entries = self.admin().get(&path).expect(200);
        entries["items"].as_array().unwrap().len()
    }

    /// Asserts that no quota of the tenant has anything held, and that no hold is open.
    #[track_caller]
    pub(crate) fn assert_nothing_held(&self, tenant: &str) {
        let path = format!("/v1/holds?state=open&tenant={tenant}");
        let holds = self.admin().get(&path).expect(200);
        assert_eq!(holds["items"], json!([]), "{holds}");
        let path = format!("/v1/tenants/{tenant}/quotas");
        let quotas = self.admin().get(&path).expect(200);
        for quota in quotas["items"].as_array().unwrap() {
            assert_eq!(quota["held"], "0", "{quota}");
        }
    }

    /// Asserts that nothing was held, charged, started or recorded.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, tenant: &str) {
        self.assert_nothing_held(tenant);
        assert_eq!(self.settlements(tenant), 0);
        let path = format!("/v1/executions?tenant={tenant}");
        let list = self.admin().get(&path).expect(200);
        assert_eq!(list["items"], json!([]));
    }

    /// Waits until the process of an execution runs.
    pub(crate) fn until_running(&self, client: &Client, id: &str) {
        let path = format!("/v1/executions/{id}");
        until(|| {
            let record = client.get(&path).expect(200);
            assert_ne!(record["state"], "finished", "{record}");
            record["started_at"].is_string().then_some(())
        });
    }

    /// Begins an execution and waits until it runs; answers its id.
    pub(crate) fn running(&self, client: &Client, body: &Value) -> String {
        let record = client.post_async(body).expect(202);
        let id = record["id"].as_str().unwrap().to_owned();
        self.until_running(client, &id);
        id
    }

    /// Waits until the caller's tenant has an execution; answers its id.
    pub(crate) fn only_execution(&self, client: &Client) -> String {
        until(|| {
            let list = client.get("/v1/executions").expect(200);
            list["items"][0]["id"].as_str().map(str::to_owned)
        })
    }

    /// The days around now, as parameters of a usage query.
    pub(crate) fn today(&self) -> String {
        let now = jiff::Timestamp::now().as_second();
        let midnight = |days: i64| {
            let start = now - now.rem_euclid(86_400) + days * 86_400;
            jiff::Timestamp::from_second(start).unwrap()
        };
        format!("from={}&to={}", midnight(-1), midnight(2))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed: end the server's threads, and leave its verdict alone.
            drop(self.running.take().map(Running::stop));
        } else {
            self.stop();
        }
    }
}

/// Asks again and again, far more often than anything here can take.
pub(crate) fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::yield_now();
    }
    panic!("it never came");
}

/// Follows an execution to its end and answers its record.
pub(crate) fn finished(client: &Client, id: &str) -> Value {
    let stream = client.get(&format!("/v1/executions/{id}/events"));
    assert_eq!(stream.status, 200, "{}", stream.text());
    let last = events(&stream.text()).pop().unwrap();
    assert_eq!(last.name, "finished", "{last:?}");
    last.data
}
