//! The HTTP face over real sockets: the real ledger, the runtime's deterministic fake, one server
//! for each test.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod client;
mod receiver;
mod server;

mod acts;
mod auth;
mod backup;
mod bad_input;
mod books;
mod budgets;
mod caps;
mod entries;
mod errors;
mod evidence;
mod executions;
mod exports;
mod files;
mod idempotency;
mod isolation;
mod life;
mod live;
mod machine;
mod money;
mod offline;
mod openapi;
mod periods;
mod prices;
mod proof;
mod quota_changes;
mod quotas;
mod sample;
mod webhooks;
