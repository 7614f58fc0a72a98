//! `farebox ledger`: proof and repair of a stopped server's ledger.

use std::path::Path;

use ledger::Progress;
use serde_json::json;

use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;

/// Replays the journal at `dir` and says what it proves.
pub(crate) fn verify(dir: &Path, output: &mut Output) -> Result<(), Fault> {
    let verified = ledger::verify(dir, &mut |at| progress(output, "verifying", at));
    output.end_progress();
    let verified = verified.map_err(|error| {
        let fault = match error {
            ledger::VerifyError::Fault(_) => {
                Fault::new(Exit::Unproven, format!("{} does not verify", dir.display()))
                    .cure("keep it as it is; restore a copy that verifies and compare")
            }
            _ => Fault::new(Exit::Failed, format!("cannot verify {}", dir.display()))
                .cure("give the ledger's directory (DIR/ledger) of a stopped server, or a copy"),
        };
        fault.caused_by(&error)
    })?;
    let root = hex(&verified.root);
    if output.json {
        return output.value(&json!({
            "verified": true, "entries": verified.entries, "root": root,
            "holds_open": verified.holds_open, "torn_bytes": verified.torn_bytes,
        }));
    }
    output.line(&format!(
        "verified: {} entries, root {root}, {} holds open",
        verified.entries, verified.holds_open
    ))?;
    if verified.torn_bytes > 0 {
        output.line(&format!(
            "note: {} bytes behind the last whole frame, never acknowledged; the next start drops \
             them",
            verified.torn_bytes
        ))?;
    }
    Ok(())
}

/// Makes the view at `dir` again.
pub(crate) fn rebuild(dir: &Path, output: &mut Output) -> Result<(), Fault> {
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
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
