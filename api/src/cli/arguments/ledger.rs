//! The words of `farebox ledger`; the doc comments are the help that it prints.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::super::parse;
use super::{PlaceArgs, ServerArgs};

/// `ledger`.
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Replay the journal and check every frame, number, hold, sum, the Merkle root, and that it
    /// is what the signed checkpoints say.
    ///
    /// Needs the journal of a stopped server, or a copy, and nothing else. Checkpoints are those
    /// given, else those beside the journal. Exit code 5 when it does not hold together; the entry
    /// that was changed is named.
    #[command(after_help = "\
Examples:
  farebox ledger verify --data-dir /var/lib/farebox
  farebox ledger verify /mnt/copy/ledger --key pinned.key --checkpoint january.note")]
    Verify(VerifyArgs),
    /// Throw the queryable view away and make it again from the journal.
    Rebuild(LedgerArgs),
    /// Copy the ledger, with the keys and what was told to webhooks, beside a running server.
    ///
    /// The copy has every entry answered before it began, and is verified before it gets its name.
    /// It holds private keys: its files are its owner's alone. Execution records, images and the
    /// view are not in it.
    #[command(after_help = "\
Examples:
  farebox ledger backup --data-dir /var/lib/farebox --to /backup/farebox-2026-11-26
  farebox ledger verify /backup/farebox-2026-11-26")]
    Backup(BackupArgs),
    /// Put a backup into an empty data directory, from which a server can start.
    ///
    /// It is verified first. What was recorded after the backup is gone: auditors who hold a later
    /// checkpoint will see that.
    #[command(after_help = "\
Examples:
  farebox ledger restore /backup/farebox-2026-11-26 --data-dir /var/lib/farebox")]
    Restore(RestoreArgs),
    /// Export the charges, as GET /v1/exports does on a running server.
    ///
    /// Needs the journal alone. Formats: csv, jsonl and parquet have a row for each line of each
    /// charge; focus and focus-parquet are FOCUS 1.2; beancount and hledger are plain-text
    /// accounting. The two Parquet formats need a build with `--features parquet`.
    #[command(after_help = "\
Examples:
  farebox ledger export --format focus --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z -o f.csv
  farebox ledger export --format csv --tenant acme --cursor 1234    (what came after entry 1234)")]
    Export(Box<ExportArgs>),
    /// Print the newest signed checkpoint (asks the server).
    Checkpoint(CheckpointArgs),
    /// Show that an entry is in the newest checkpoint, and that this goes on from an older one
    /// (asks the server; believes nothing but the key).
    #[command(after_help = "\
Examples:
  farebox ledger prove --entry 1234 --key pinned.key
  farebox ledger prove --since january.note --key pinned.key")]
    Prove(ProveArgs),
}

/// `ledger verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// File of the public keys that checkpoints must be signed with
    /// [default: LEDGER_DIR/checkpoints/keys].
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// File of one or more checkpoints; may be given again [default: all of
    /// LEDGER_DIR/checkpoints].
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Vec<PathBuf>,
}

/// `ledger backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Directory of the backup, absent or empty.
    #[arg(long, value_name = "BACKUP")]
    pub(crate) to: PathBuf,
}

/// `ledger restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Directory of the backup.
    #[arg(value_name = "BACKUP")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `ledger checkpoint`.
#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The checkpoint over so many entries instead of the newest.
    #[arg(long, value_name = "ENTRIES", conflicts_with = "sign")]
    pub(crate) size: Option<u64>,
    /// Have the ledger signed as it is now first (for operators).
    #[arg(long)]
    pub(crate) sign: bool,
}

/// `ledger prove`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct ProveArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Show that this entry is in the newest checkpoint.
    #[arg(long, value_name = "NUMBER", group = "what")]
    pub(crate) entry: Option<u64>,
    /// Show that the newest checkpoint goes on from the one in this file.
    #[arg(long, value_name = "FILE", group = "what")]
    pub(crate) since: Option<PathBuf>,
    /// File of the public keys that you were given [default: those that the server tells].
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

/// `ledger export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    /// csv, jsonl, parquet, focus, focus-parquet, beancount or hledger.
    #[arg(long, value_name = "FORMAT", value_parser = parse::format)]
    pub(crate) format: api::Format,
    /// Only runs begun at this time or later, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse::time_us)]
    pub(crate) from: Option<i64>,
    /// Only runs begun before this time, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse::time_us)]
    pub(crate) to: Option<i64>,
    /// Only of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Only of this project.
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Only of this function.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// Only in this image, NAME or NAME@DIGEST.
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Only through this key.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only with this tag; may be given again.
    #[arg(long, value_name = "KEY:VALUE", value_parser = parse::tag)]
    pub(crate) tag: Vec<(String, String)>,
    /// Only entries after this one.
    #[arg(long, value_name = "ENTRY")]
    pub(crate) cursor: Option<u64>,
    /// Write to this file, which appears once it is whole [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `ledger rebuild`, and where `verify` and `export` look.
#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Directory of the ledger itself (with journal/ in it), of its journal, or a data directory,
    /// for a copy that lies elsewhere [default: DIR/ledger].
    #[arg(value_name = "LEDGER_DIR")]
    pub(crate) ledger: Option<PathBuf>,
}
