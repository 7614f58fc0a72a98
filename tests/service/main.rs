//! The real server with real sandboxes: who its processes are, which images they get, what is
//! measured and what is charged, seen from outside and over HTTP. Skips aloud where there is no
//! privilege.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code, with clocks and an environment of its own"
)]

#[expect(dead_code, reason = "the sandbox tests use more of it")]
#[path = "../../runtime/tests/support/ahead.rs"]
mod ahead;
mod billing;
#[path = "../support/bombs.rs"]
mod bombs;
mod disk;
#[path = "../support/http.rs"]
mod http;
mod images;
mod kept;
mod processes;
mod queue;
#[expect(dead_code, reason = "the kill rounds use more of it")]
#[path = "../support/server.rs"]
mod server;
mod soak;
#[path = "../../runtime/tests/support/templates.rs"]
mod templates;
#[expect(dead_code, reason = "the kill rounds use more of it")]
#[path = "../support/world.rs"]
mod world;
