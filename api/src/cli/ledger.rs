//! `farebox ledger`: proof, repair and exports of a stopped server's ledger; backups and proofs of
//! a running one.

mod backup;
mod export;
mod prove;
mod verify;

use std::path::{Path, PathBuf};

use api::NoteKey;
use ledger::Progress;
use serde_json::json;

use super::arguments::{LedgerArgs, LedgerCommand};
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;
use super::place;

/// `farebox ledger ...`.
pub(crate) fn ledger(command: &LedgerCommand, output: &mut Output) -> Result<(), Fault> {
    match command {
        LedgerCommand::Verify(args) => verify::verify(&directory(&args.ledger)?, args, output),
        LedgerCommand::Rebuild(args) => rebuild(&directory(args)?, output),
        LedgerCommand::Backup(args) => backup::backup(args, output),
        LedgerCommand::Restore(args) => backup::restore(args, output),
        LedgerCommand::Export(args) => export::export(args, &directory(&args.ledger)?, output),
        LedgerCommand::Checkpoint(args) => prove::checkpoint(args, output),
        LedgerCommand::Prove(args) => prove::prove(args, output),
    }
}

/// The ledger's directory, the one with `journal/` in it: out of what is given, or the data
/// directory's.
fn directory(args: &LedgerArgs) -> Result<PathBuf, Fault> {
    let Some(given) = &args.ledger else {
        return Ok(place::configuration(&args.place, Vec::new())?.ledger_dir());
    };
    let given = place::absolute(given)?;
    if given.join("journal").is_dir() {
        return Ok(given);
    }
    if given.join("ledger/journal").is_dir() {
        return Ok(given.join("ledger"));
    }
    let is_journal = given.file_name().is_some_and(|name| name == "journal");
    match given.parent() {
        Some(parent) if is_journal => Ok(parent.to_owned()),
        _ => Ok(given),
    }
}

/// The public keys in a file, one a line.
fn keys(path: &Path) -> Result<Vec<NoteKey>, Fault> {
    let text = read(path)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let keys = lines.map(NoteKey::parse).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| {
        Fault::new(
            Exit::Usage,
            format!("cannot use the key in {}", path.display()),
        )
        .caused_by(&error)
        .cure("give what GET /v1/ledger/keys has answered: one NAME+HASH+KEY a line")
    })?;
    if keys.is_empty() {
        return Err(Fault::new(
            Exit::Usage,
            format!("{} has no key", path.display()),
        ));
    }
    Ok(keys)
}

fn read(path: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(path).map_err(|error| {
        Fault::new(Exit::Usage, format!("cannot read {}", path.display())).caused_by(&error)
    })
}

/// Makes the view at `dir` again.
fn rebuild(dir: &Path, output: &mut Output) -> Result<(), Fault> {
    let rebuilt = ledger::rebuild(dir, &mut |at| progress(output, "rebuilding", at));
    output.end_progress();
    let rebuilt = rebuilt.map_err(|error| {
        Fault::new(
            Exit::Failed,
            format!("cannot rebuild the view in {}", dir.display()),
        )
        .caused_by(&error)
        .cure("stop the server first; if the journal is damaged: farebox ledger verify")
    })?;
    if output.json {
        return output.value(&json!({ "entries": rebuilt.entries, "rows": rebuilt.rows }));
    }
    output.line(&format!(
        "rebuilt: {} rows from {} entries",
        rebuilt.rows, rebuilt.entries
    ))
}

fn progress(output: &mut Output, verb: &str, at: Progress) {
    let mib = |bytes: u64| bytes.div_euclid(1 << 20);
    output.progress(&format!(
        "{verb}: {} of {} MiB",
        mib(at.bytes_done),
        mib(at.bytes_total)
    ));
}

/// Bytes as lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
