//! `farebox ledger backup` and `restore`: a data directory copied beside its running server, and
//! put back into an empty one. Neither is done before the copy has been verified.

use std::path::Path;

use api::{BackupError, Draft};
use ledger::Copied;
use serde_json::{Value, json};

use super::super::arguments::{BackupArgs, RestoreArgs};
use super::super::exit::Exit;
use super::super::fault::Fault;
use super::super::output::Output;
use super::super::place;
use super::progress;
use super::verify::{self, Found};

/// Copies the data directory to the place of a backup.
pub(super) fn backup(args: &BackupArgs, output: &mut Output) -> Result<(), Fault> {
    let config = place::configuration(&args.place, Vec::new())?;
    let to = place::absolute(&args.to)?;
    let (found, copied) = copy(&config.server.data_dir, &to, "backup", output)?;
    tell("backup", &to, &found, copied, output)
}

/// Puts a backup into the data directory.
pub(super) fn restore(args: &RestoreArgs, output: &mut Output) -> Result<(), Fault> {
    let config = place::configuration(&args.place, Vec::new())?;
    let from = place::absolute(&args.from)?;
    let to = &config.server.data_dir;
    let (found, copied) = copy(&from, to, "restore", output)?;
    tell("restored", to, &found, copied, output)
}

fn copy(from: &Path, to: &Path, verb: &str, output: &mut Output) -> Result<(Found, Copied), Fault> {
    let fault = |error: &BackupError| {
        let what = format!("cannot {verb} {} to {}", from.display(), to.display());
        let (exit, cure) = match error {
            BackupError::NotEmpty { .. } => (
                Exit::Refused,
                "give a directory that is absent or empty: nothing is ever written over",
            ),
            _ => (
                Exit::Failed,
                "the source is a data directory, with ledger/journal in it; if its journal is \
                 damaged: farebox ledger verify",
            ),
        };
        Fault::new(exit, what).caused_by(error).cure(cure)
    };
    let draft = Draft::copy(from, to, &mut |at| progress(output, "copying", at));
    output.end_progress();
    let draft = draft.map_err(|error| fault(&error))?;
    let found = verify::prove(&draft.ledger_dir(), None, &[], output)?;
    let copied = draft.place().map_err(|error| fault(&error))?;
    Ok((found, copied))
}

fn tell(
    verb: &str,
    to: &Path,
    found: &Found,
    copied: Copied,
    output: &mut Output,
) -> Result<(), Fault> {
    if output.json {
        let mut told = found.json(false);
        told.insert("directory".to_owned(), json!(to.display().to_string()));
        told.insert("segments".to_owned(), json!(copied.segments));
        told.insert("bytes".to_owned(), json!(copied.bytes));
        return output.value(&Value::Object(told));
    }
    let (segments, bytes) = (copied.segments, copied.bytes);
    output.line(&format!(
        "{verb}: {} ({bytes} bytes of journal in {segments} segments)",
        to.display()
    ))?;
    verify::tell(found, false, output)
}
