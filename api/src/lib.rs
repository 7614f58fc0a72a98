//! The HTTP face of Farebox, and the only place where runtime and ledger meet.
//!
//! [`serve`] is the server, [`run_once`] one execution without it; [`Config`] is read first, by
//! whoever calls either.
#![forbid(unsafe_code)]

mod app;
mod auth;
mod backup;
mod books;
mod budgets;
mod call;
mod clock;
mod config;
mod csv;
mod error;
mod evidence;
mod execute;
mod export;
mod gate;
mod handlers;
mod idempotency;
mod ids;
mod images;
mod json;
mod kept;
mod keys;
mod limits;
mod live;
mod lookup;
mod machine;
mod note;
mod once;
mod openapi;
mod outbox;
mod proof;
mod rate_limit;
mod record;
mod records;
mod recover;
mod registry;
mod routes;
mod scope;
mod server;
mod shape;
mod tasks;
mod telemetry;
mod text;
mod token;
mod turns;

pub use crate::backup::{BackupError, Draft};
pub use crate::clock::{Clock, parse_rfc3339, rfc3339};
pub use crate::config::{Config, ConfigError, ConfigFault, Layers, Source};
pub use crate::error::{Code, Fault, Problem, Retry};
pub use crate::export::{Export, ExportError, Format, Issuer};
pub use crate::handlers::entries::entry_json;
pub use crate::images::{ImageInfo, ImageSource};
pub use crate::keys::{Keys, KeysError};
pub use crate::note::{Checkpoint, Note, NoteError, NoteKey};
pub use crate::once::{RunError, run_once};
pub use crate::record::{Outcome, Record};
pub use crate::scope::{Role, Scope};
pub use crate::server::{Backend, Running, ServeError, serve};
pub use crate::telemetry::start_log;
pub use crate::token::{Claims, Mint, MintError, mint};
