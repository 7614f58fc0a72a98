//! The sections of the configuration, one struct each; the keys are documented in
//! `config/farebox.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::outbox::address::Network;

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub node: String,
    pub user: u32,
    pub workers: usize,
    pub walk_threads: usize,
    pub connections_max: usize,
    pub backlog: u32,
    pub body_max_bytes: usize,
    pub body_small_max_bytes: usize,
    pub json_depth_max: usize,
    pub head_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub keep_alive_ms: u64,
    pub drain_grace_ms: u64,
    pub drain_cancel_ms: u64,
    pub list_limit: usize,
    pub list_limit_max: usize,
    pub list_scan_max: usize,
    pub event_heartbeat_ms: u64,
    pub event_streams_max: usize,
    pub reports_max: usize,
    pub reports_per_tenant_max: usize,
    pub export_stall_ms: u64,
    pub rates_file: String,
    pub tiers_file: String,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub filter: String,
    pub json: bool,
}

/// `[tokens]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    pub issuer: String,
    pub audience: String,
    pub leeway_s: u64,
    pub length_max_bytes: usize,
    pub expires_s: u64,
    pub expires_max_s: u64,
    pub admin_expires_s: u64,
    pub per_tenant_max: usize,
    pub revoked_unseen_max: usize,
}

/// `[tenants]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenants {
    pub images_max: usize,
}

/// `[machine]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub slots: usize,
    pub queue_ms: u64,
    pub queue_max: usize,
    pub async_queue_per_tenant: usize,
    pub async_queue_max: usize,
}

/// `[request]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub files_max: usize,
    pub path_max_bytes: usize,
    pub args_max: usize,
    pub args_max_bytes: usize,
    pub env_max: usize,
    pub env_max_bytes: usize,
    pub stdin_max_bytes: usize,
    pub code_max_bytes: usize,
    pub tags_max: usize,
    pub tag_key_max_bytes: usize,
    pub tag_value_max_bytes: usize,
    pub memory_headroom_bytes: u64,
}

/// `[pool]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub max: usize,
    pub min: usize,
    pub age_s: u64,
    pub free_memory_bytes: u64,
    pub templates: bool,
    pub template_forks: u32,
}

/// `[sandbox]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    pub keep_on_failure_s_max: u32,
    pub keep_per_tenant_max: usize,
}

/// `[images]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    pub dir: PathBuf,
    pub python: String,
    pub node: String,
    pub shell: String,
    pub default: String,
    pub insecure_registries: Vec<String>,
    pub tree_max_bytes: u64,
    pub file_max_bytes: u64,
    pub entries_max: u64,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitFloors {
    pub wall_ms_min: u64,
    pub cpu_ms_min: u64,
    pub cpu_millis_min: u64,
    pub memory_bytes_min: u64,
    pub pids_min: u64,
    pub disk_bytes_min: u64,
    pub inodes_min: u64,
    pub open_files_min: u64,
    pub output_bytes_min: u64,
    pub time_ms_max: u64,
    pub output_bytes_max: u64,
}

/// `[disk]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub class_bytes: Vec<u64>,
    pub class_inodes: Vec<u64>,
    pub commit_bytes: u64,
    pub ahead: usize,
}

/// `[launcher]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launcher {
    pub uid_base: u32,
    pub cpu_millis_max: u32,
    pub memory_bytes_max: u64,
    pub pids_max: u32,
    pub open_files_max: u32,
    pub start_ms: u64,
    pub put_ms: u64,
    pub end_ms: u64,
}

/// `[records]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    pub bytes_max: u64,
    pub age_max_s: u64,
    pub segment_bytes: u64,
    pub index_max: usize,
    pub queue_max: usize,
}

/// `[exports]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exports {
    pub provider: String,
    pub region: String,
}

/// `[idempotency]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    pub key_max_bytes: usize,
}

/// `[proof]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    pub origin: String,
    pub checkpoint_s: u64,
    pub checkpoint_days_max: usize,
    pub push_file: PathBuf,
    pub push_url: String,
    pub push_timeout_ms: u64,
    pub push_pause_max_s: u64,
    pub reconciliation_entries_max: u64,
}

/// `[budgets]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    pub per_tenant_max: usize,
    pub thresholds_max: usize,
    pub look_ms: u64,
}

/// `[webhooks]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    pub(crate) allow_addresses: Vec<Network>,
    pub per_tenant_max: usize,
    pub timeout_ms: u64,
    pub concurrent_max: usize,
    pub concurrent_per_tenant_max: usize,
    pub attempts_max: u32,
    pub backoff_ms: u64,
    pub backoff_max_ms: u64,
    pub pending_max: usize,
    pub pending_per_tenant_max: usize,
    pub log_max: usize,
    pub log_per_webhook_max: usize,
    pub fired_max: usize,
}

impl LimitFloors {
    /// The least that an execution may ask for of that limit.
    pub(crate) fn min(&self, name: &str) -> u64 {
        match name {
            "wall_ms" => self.wall_ms_min,
            "cpu_ms" => self.cpu_ms_min,
            "cpu_millis" => self.cpu_millis_min,
            "memory_bytes" => self.memory_bytes_min,
            "pids" => self.pids_min,
            "disk_bytes" => self.disk_bytes_min,
            "inodes" => self.inodes_min,
            "open_files" => self.open_files_min,
            "output_bytes" => self.output_bytes_min,
            _ => u64::MAX,
        }
    }
}

impl Disk {
    /// The smallest class with that much room: its bytes and inodes.
    pub(crate) fn class_of(&self, bytes: u64, inodes: u64) -> Option<(u64, u64)> {
        let classes = self
            .class_bytes
            .iter()
            .copied()
            .zip(self.class_inodes.iter().copied());
        classes
            .into_iter()
            .find(|(size, count)| *size >= bytes && *count >= inodes)
    }
}
