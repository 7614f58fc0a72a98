//! What the ledger is configured with; every bound it keeps is here.

use std::path::PathBuf;

use serde::Deserialize;

use crate::command::ScopeBounds;

/// Configuration of a ledger. All of it comes from the `[ledger]` section of the configuration,
/// but for the directory.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The ledger's directory; made when absent.
    #[serde(default)]
    pub dir: PathBuf,
    /// Bytes of a journal segment; at least 64 KiB. Existing segments keep their size.
    pub segment_bytes: u64,
    /// Commands that may wait for the writer; one more is refused as busy.
    pub queue: usize,
    /// Commands in one frame, and so behind one `fdatasync`.
    pub batch_max: usize,
    /// How often the view is written out, in milliseconds.
    pub view_flush_ms: u64,
    /// Page cache of the view's database, in bytes.
    pub view_cache_bytes: u64,
    /// Commands that the checkpoint and the view may lie behind the journal; the writer waits
    /// beyond. Bounds the time of an open after a crash.
    pub tail_max: u64,
    /// Tenants.
    pub tenants_max: u64,
    /// Scopes (projects, functions, keys) of all tenants that are counted before a quota names
    /// them. Other bounds than the last ones are recorded when the ledger is opened.
    pub scopes_max: u64,
    /// The same of one tenant.
    pub scopes_per_tenant_max: u64,
    /// Quotas of one tenant.
    pub quotas_per_tenant_max: u64,
    /// Changes of one tenant's quotas that are to come, or have come since its quotas were last
    /// set.
    pub quota_changes_per_tenant_max: u64,
    /// Holds open at once, in the whole ledger.
    pub holds_max: u64,
    /// How long an idempotency key is kept, in seconds.
    pub idempotency_ttl_s: u64,
    /// Idempotency keys kept of one tenant; a hold with one more is refused.
    pub idempotency_per_tenant_max: u64,
    /// Subjects of acts that are kept.
    pub subjects_max: u64,
    /// Bytes of one document.
    pub document_bytes_max: u64,
    /// Bytes of all kept documents.
    pub documents_bytes_max: u64,
    /// Tags on a hold.
    pub tags_max: u64,
    /// Bytes of one name, tag key, tag value or other short text.
    pub text_bytes_max: u64,
    /// Entries that one page of usage may read, where groups or filters need them one by one.
    pub fold_entries_max: usize,
    /// Months before the current one whose days stay in the view once they are closed; 0 keeps all.
    /// What goes is told from the entries then.
    pub detail_months: u32,
    /// Refusals that are remembered one by one.
    pub denials_ring: usize,
    /// Counters of refusals (tenant, quota, minute) that are kept.
    pub denial_counters_max: usize,
}

impl Options {
    /// Which scopes are to be counted.
    pub(crate) fn scopes(&self) -> ScopeBounds {
        ScopeBounds {
            in_all: self.scopes_max,
            per_tenant: self.scopes_per_tenant_max,
        }
    }

    /// Every fault of these options: the key and what is wrong with it.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut at_least = |key: &'static str, value: u64, least: u64, most: u64| {
            if value < least || value > most {
                faults.push((key, format!("must be from {least} to {most}")));
            }
        };
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        at_least("segment_bytes", self.segment_bytes, 1 << 16, 1 << 30);
        at_least("queue", wide(self.queue), 1, 1 << 20);
        at_least("batch_max", wide(self.batch_max), 1, 1 << 14);
        let fold = wide(self.fold_entries_max);
        at_least("fold_entries_max", fold, 1, 10_000_000);
        at_least("detail_months", self.detail_months.into(), 0, 1_200);
        at_least("view_flush_ms", self.view_flush_ms, 10, 60_000);
        at_least("view_cache_bytes", self.view_cache_bytes, 1 << 20, 1 << 40);
        at_least("tail_max", self.tail_max, 1_000, 100_000_000);
        at_least("tenants_max", self.tenants_max, 1, 1 << 32);
        at_least("holds_max", self.holds_max, 1, 1 << 24);
        at_least(
            "quotas_per_tenant_max",
            self.quotas_per_tenant_max,
            1,
            1 << 16,
        );
        let changes = self.quota_changes_per_tenant_max;
        at_least("quota_changes_per_tenant_max", changes, 0, 1 << 10);
        at_least("idempotency_ttl_s", self.idempotency_ttl_s, 1, 366 * 86_400);
        at_least("document_bytes_max", self.document_bytes_max, 1, 256 << 10);
        at_least("tags_max", self.tags_max, 0, 64);
        at_least("text_bytes_max", self.text_bytes_max, 16, 1_024);
        faults
    }
}
