//! The configuration tree: one struct per section, filled from layers, checked as a whole.
//!
//! `config/farebox.toml`, embedded, is the default layer itself, so no struct has defaults of its
//! own. Every fault of every layer is reported at once with its key path. The only reader of the
//! environment is in here.

mod faults;
mod layers;
mod sections;
mod tiers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::limits::Limits;

pub use layers::{ConfigError, ConfigFault, Layers, Source};
pub(crate) use sections::{
    Budgets, Disk, Exports, Idempotency, Images, Launcher, LimitFloors, Log, Machine, Pool, Proof,
    Records, Request, Sandbox, Server, Tenants, Tokens, Webhooks,
};
pub(crate) use tiers::Tier;

/// Everything that can be set. The keys are documented in `config/farebox.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listener, connections, bodies, lists, drain.
    pub server: Server,
    /// What is logged.
    pub log: Log,
    /// What tokens must say.
    pub tokens: Tokens,
    /// Bounds on tenants.
    pub tenants: Tenants,
    /// Slots and queues of this machine.
    pub machine: Machine,
    /// Bounds on one execution request.
    pub request: Request,
    /// Sandboxes made ahead.
    pub pool: Pool,
    /// What stays of sandboxes whose runs failed.
    pub sandbox: Sandbox,
    /// Where images are and which are the defaults.
    pub images: Images,
    /// The least that an execution may ask for.
    pub limits: LimitFloors,
    /// The classes of disks.
    pub disk: Disk,
    /// The launcher's maxima, and how long it may take.
    pub launcher: Launcher,
    /// The ledger's own options.
    pub ledger: ledger::Options,
    /// How long execution records are kept.
    pub records: Records,
    /// What exports say about the provider.
    pub exports: Exports,
    /// Bounds on idempotency keys.
    pub idempotency: Idempotency,
    /// Checkpoints: how often, and where they go.
    pub proof: Proof,
    /// Bounds on budgets, and how often they are looked at.
    pub budgets: Budgets,
    /// Where webhooks may lead, how they are sent, and bounds on both.
    pub webhooks: Webhooks,
    /// What tenants have that nobody has set anything for.
    pub tier: Tier,
    /// The rate cards of `server.rates_file`.
    pub rates: Vec<ledger::RateCard>,
    effective: BTreeMap<String, (toml::Value, Source)>,
}

/// The sections, as the merged layers are read into them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    server: Server,
    log: Log,
    tokens: Tokens,
    tenants: Tenants,
    machine: Machine,
    request: Request,
    pool: Pool,
    sandbox: Sandbox,
    images: Images,
    limits: LimitFloors,
    disk: Disk,
    launcher: Launcher,
    ledger: ledger::Options,
    records: Records,
    exports: Exports,
    idempotency: Idempotency,
    proof: Proof,
    budgets: Budgets,
    webhooks: Webhooks,
}

impl Config {
    /// Reads all layers: the embedded defaults, `layers.file`, the environment, `layers.flags`.
    ///
    /// # Errors
    /// All faults of all layers, each with its key path and the layer that it comes from.
    pub fn load(layers: &Layers) -> Result<Config, ConfigError> {
        Config::from_merged(layers::merge(layers, layers::environment())?)
    }

    /// The default layer with `flags` over it, whatever the environment says.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with(flags: Vec<(String, String)>) -> Result<Config, ConfigError> {
        let layers = Layers { file: None, flags };
        Config::from_merged(layers::merge(&layers, Vec::new())?)
    }

    /// The default layer alone.
    #[cfg(test)]
    pub(crate) fn default_layer() -> Config {
        Config::with(Vec::new()).unwrap()
    }

    fn from_merged(merged: layers::Merged) -> Result<Config, ConfigError> {
        let effective = merged.effective;
        let sections = Sections::deserialize(toml::Value::Table(merged.table));
        let sections =
            sections.map_err(|error| ConfigError::one("", error.message().to_owned()))?;
        let (tier, rates) = read_files(&sections.server)?;
        let mut config = Config {
            server: sections.server,
            log: sections.log,
            tokens: sections.tokens,
            tenants: sections.tenants,
            machine: sections.machine,
            request: sections.request,
            pool: sections.pool,
            sandbox: sections.sandbox,
            images: sections.images,
            limits: sections.limits,
            disk: sections.disk,
            launcher: sections.launcher,
            ledger: sections.ledger,
            records: sections.records,
            exports: sections.exports,
            idempotency: sections.idempotency,
            proof: sections.proof,
            budgets: sections.budgets,
            webhooks: sections.webhooks,
            tier,
            rates,
            effective,
        };
        config.ledger.dir = config.ledger_dir();
        let faults = config.faults();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError { faults })
        }
    }

    /// The directory of the ledger.
    #[must_use]
    pub fn ledger_dir(&self) -> PathBuf {
        self.server.data_dir.join("ledger")
    }

    /// The directory of the image store.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        if self.images.dir.as_os_str().is_empty() {
            self.server.data_dir.join("images")
        } else {
            self.images.dir.clone()
        }
    }

    /// The directory of the launcher's state.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.server.data_dir.join("run")
    }

    /// The most that any tenant's maximum may be: more would be refused by the launcher.
    pub(crate) fn widest(&self) -> Limits {
        let launcher = &self.launcher;
        Limits::from_fn(|name| match name {
            "cpu_millis" => launcher.cpu_millis_max.into(),
            "memory_bytes" => launcher.memory_bytes_max,
            // Init is among the launcher's.
            "pids" => launcher.pids_max.saturating_sub(1).into(),
            "open_files" => launcher.open_files_max.into(),
            "disk_bytes" => self.disk.class_bytes.last().copied().unwrap_or(0),
            "inodes" => self.disk.class_inodes.last().copied().unwrap_or(0),
            "output_bytes" => self.limits.output_bytes_max,
            _ => self.limits.time_ms_max,
        })
    }

    /// What the runtime needs to know besides its launcher.
    pub(crate) fn runtime_options(&self) -> runtime::Options {
        let classes = self.disk.class_bytes.iter().zip(&self.disk.class_inodes);
        runtime::Options {
            state_dir: self.run_dir(),
            disk_classes: classes
                .map(|(&bytes, &inodes)| runtime::DiskClass { bytes, inodes })
                .collect(),
            start_ms: self.launcher.start_ms,
            put_ms: self.launcher.put_ms,
            end_ms: self.launcher.end_ms,
            pool: runtime::PoolOptions {
                // Room is left for other kinds: to end one that stands ready takes time.
                max: self.pool.max.min(self.machine.slots.saturating_mul(3) / 4),
                min: self.pool.min,
                age_ms: self.pool.age_s.saturating_mul(1_000),
                free_memory_bytes: self.pool.free_memory_bytes,
            },
            templates: self.pool.templates,
        }
    }

    /// Every key with its value and the layer that it comes from.
    pub fn effective(&self) -> impl Iterator<Item = (&str, String, &Source)> {
        let each = self.effective.iter();
        each.map(|(key, (value, source))| (key.as_str(), value.to_string(), source))
    }

    /// Everything that types alone cannot say.
    fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, key: &str, detail: &str| {
            if !ok {
                let source = self
                    .effective
                    .get(key)
                    .map_or(Source::Default, |(_, s)| s.clone());
                faults.push(ConfigFault {
                    key: key.to_owned(),
                    detail: detail.to_owned(),
                    source,
                });
            }
        };
        for (key, (value, _)) in &self.effective {
            let bounded = BOUNDS_ABOVE_ZERO.contains(&key.as_str());
            let positive = value.as_integer().is_none_or(|number| number > 0);
            check(!bounded || positive, key, "must be above zero");
        }
        let node = &self.server.node;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        check(
            (1..=64).contains(&node.len()) && node.chars().all(plain),
            "server.node",
            "must be 1 to 64 of a-z, 0-9 and -",
        );
        let lists = (self.server.list_limit, self.server.list_limit_max);
        check(
            lists.0 <= lists.1,
            "server.list_limit",
            "is above server.list_limit_max",
        );
        check(
            lists.1 <= 1000,
            "server.list_limit_max",
            "must be at most 1000",
        );
        self.tokens_faults(&mut check);
        self.exports_faults(&mut check);
        self.storage_faults(&mut check);
        self.proof_faults(&mut check);
        let widest = self.widest();
        for name in Limits::NAMES {
            let key = format!("tiers.default.limits.maximum.{name}");
            let most = widest.get(name);
            let within = self.tier.maximum.get(name) <= most;
            check(
                within,
                &key,
                &format!("is above {most}, the most that there is on this machine"),
            );
        }
        for (key, detail) in self.ledger.faults() {
            check(false, &format!("ledger.{key}"), &detail);
        }
        faults
    }
}

/// Numbers that switch something off when they are zero, which nobody can want.
const BOUNDS_ABOVE_ZERO: [&str; 52] = [
    "server.connections_max",
    "server.backlog",
    "server.body_max_bytes",
    "server.body_small_max_bytes",
    "server.json_depth_max",
    "server.head_timeout_ms",
    "server.body_timeout_ms",
    "server.keep_alive_ms",
    "server.list_limit",
    "server.list_limit_max",
    "server.list_scan_max",
    "server.event_heartbeat_ms",
    "server.event_streams_max",
    "server.reports_max",
    "server.reports_per_tenant_max",
    "server.export_stall_ms",
    "tokens.length_max_bytes",
    "tokens.expires_s",
    "tokens.expires_max_s",
    "tokens.admin_expires_s",
    "tokens.per_tenant_max",
    "machine.slots",
    "machine.queue_max",
    "machine.async_queue_per_tenant",
    "machine.async_queue_max",
    "sandbox.keep_per_tenant_max",
    "pool.age_s",
    "pool.template_forks",
    "records.bytes_max",
    "records.segment_bytes",
    "records.index_max",
    "records.queue_max",
    "idempotency.key_max_bytes",
    "disk.commit_bytes",
    "proof.checkpoint_s",
    "proof.checkpoint_days_max",
    "proof.push_timeout_ms",
    "proof.push_pause_max_s",
    "proof.reconciliation_entries_max",
    "budgets.per_tenant_max",
    "budgets.thresholds_max",
    "budgets.look_ms",
    "webhooks.per_tenant_max",
    "webhooks.timeout_ms",
    "webhooks.concurrent_max",
    "webhooks.concurrent_per_tenant_max",
    "webhooks.attempts_max",
    "webhooks.pending_max",
    "webhooks.pending_per_tenant_max",
    "webhooks.log_max",
    "webhooks.log_per_webhook_max",
    "webhooks.fired_max",
];

fn read_files(server: &Server) -> Result<(Tier, Vec<ledger::RateCard>), ConfigError> {
    let text = |key: &str, file: &str, embedded: &str| {
        if file.is_empty() {
            return Ok(embedded.to_owned());
        }
        std::fs::read_to_string(Path::new(file))
            .map_err(|error| ConfigError::one(key, format!("cannot read {file}: {error}")))
    };
    let tiers = text(
        "server.tiers_file",
        &server.tiers_file,
        include_str!("../../config/tiers.toml"),
    )?;
    let rates = text(
        "server.rates_file",
        &server.rates_file,
        include_str!("../../config/rates.toml"),
    )?;
    let tier = tiers::parse(&tiers)?;
    let rates = ledger::RateCard::parse_toml(&rates)
        .map_err(|error| ConfigError::one("server.rates_file", chain(&error)))?;
    Ok((tier, rates))
}

/// An error with all its sources, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = include_str!("../../config/farebox.toml");

    fn flag(key: &str, value: &str) -> Vec<(String, String)> {
        vec![(key.to_owned(), value.to_owned())]
    }

    /// No struct has defaults, so a key that is missing in either place cannot be read.
    #[test]
    fn the_default_layer_has_exactly_the_keys_of_the_structs() {
        let table: toml::Table = DEFAULTS.parse().unwrap();
        let read = |table: toml::Table| Sections::deserialize(toml::Value::Table(table)).is_ok();
        assert!(read(table.clone()));
        for (section, keys) in &table {
            for key in keys.as_table().unwrap().keys() {
                let mut without = table.clone();
                without[section].as_table_mut().unwrap().remove(key);
                assert!(!read(without), "{section}.{key} is in no struct");
            }
            let mut with = table.clone();
            let odd = toml::Value::Integer(1);
            with[section]
                .as_table_mut()
                .unwrap()
                .insert("odd_key".to_owned(), odd);
            assert!(!read(with), "{section} takes unknown keys");
        }
    }

    #[test]
    fn every_key_has_a_comment_of_its_own() {
        let mut commented = false;
        for line in DEFAULTS.lines() {
            match line.split_once(" = ") {
                _ if line.starts_with('#') => commented = true,
                _ if line.is_empty() || line.starts_with('[') => commented = false,
                Some((key, _)) => {
                    assert!(commented, "{key} has no comment");
                    commented = false;
                }
                None => panic!("cannot read {line:?}"),
            }
        }
    }

    #[test]
    fn bounds_that_must_not_be_zero_are_keys() {
        let config = Config::default_layer();
        for key in BOUNDS_ABOVE_ZERO {
            assert!(config.effective.contains_key(key), "{key}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once_with_their_paths() {
        let flags = [
            ("server.node", "No Good"),
            ("server.connections_max", "0"),
            ("disk.class_bytes", "[2, 1, 3]"),
            ("ledger.queue", "0"),
        ];
        let flags = flags
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec();
        let error = Config::with(flags.clone()).unwrap_err();
        for (key, _) in &flags {
            let fault = error.faults.iter().find(|fault| fault.key == *key);
            assert_eq!(
                fault.map(|fault| &fault.source),
                Some(&Source::Flag),
                "{key}: {error}"
            );
        }
    }

    #[test]
    fn missing_files_are_faults_of_their_keys() {
        let error = Config::with(flag("server.rates_file", "/no/such/file")).unwrap_err();
        assert_eq!(error.faults[0].key, "server.rates_file");
    }

    #[test]
    fn directories_default_to_places_in_the_data_directory() {
        let config = Config::with(flag("server.data_dir", "/data")).unwrap();
        assert_eq!(config.images_dir(), Path::new("/data/images"));
        assert_eq!(config.ledger.dir, Path::new("/data/ledger"));
        let config = Config::with(flag("images.dir", "/images")).unwrap();
        assert_eq!(config.images_dir(), Path::new("/images"));
    }
}
