//! The resources, one a file; each handler parses, calls, shapes.

pub(crate) mod adjustments;
pub(crate) mod audit;
pub(crate) mod budgets;
pub(crate) mod credit;
pub(crate) mod denials;
pub(crate) mod entries;
pub(crate) mod estimate;
pub(crate) mod events;
pub(crate) mod executions;
pub(crate) mod exports;
pub(crate) mod files;
pub(crate) mod forecast;
pub(crate) mod grants;
pub(crate) mod operations;
pub(crate) mod periods;
pub(crate) mod proofs;
pub(crate) mod quota_changes;
pub(crate) mod quotas;
pub(crate) mod rates;
pub(crate) mod reconciliation;
pub(crate) mod statements;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod totals;
pub(crate) mod usage;
pub(crate) mod webhooks;
