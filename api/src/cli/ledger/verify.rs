//! `farebox ledger verify`: a journal against itself and against every checkpoint that was signed.

use std::path::{Path, PathBuf};

use api::{Note, NoteKey};
use ledger::Verified;
use serde_json::{Map, Value, json};

use super::super::arguments::VerifyArgs;
use super::super::exit::Exit;
use super::super::fault::Fault;
use super::super::output::Output;
use super::{hex, keys, progress, read};

/// A checkpoint and the file that it comes from.
#[derive(Debug)]
struct Claim {
    file: PathBuf,
    size: u64,
    root: [u8; 32],
}

/// What was found of a journal and its checkpoints.
#[derive(Debug)]
pub(super) struct Found {
    claims: Vec<Claim>,
    verified: Verified,
}

/// Replays the journal at `dir` and says what it proves.
pub(super) fn verify(dir: &Path, args: &VerifyArgs, output: &mut Output) -> Result<(), Fault> {
    let found = prove(dir, args.key.as_deref(), &args.checkpoint, output)?;
    tell(&found, args.key.is_some(), output)
}

/// Replays the journal at `dir` and holds it against the checkpoints given, or those beside it.
pub(super) fn prove(
    dir: &Path,
    key: Option<&Path>,
    checkpoints: &[PathBuf],
    output: &mut Output,
) -> Result<Found, Fault> {
    // First, so that a journal which still grows has all that they cover.
    let claims = claims(dir, key, checkpoints)?;
    let sizes: Vec<u64> = claims.iter().map(|claim| claim.size).collect();
    let verified = ledger::verify_at(dir, &sizes, &mut |at| progress(output, "verifying", at));
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
    compare(dir, &claims, &verified)?;
    Ok(Found { claims, verified })
}

/// The checkpoints, each with a good signature, by size.
fn claims(dir: &Path, key: Option<&Path>, checkpoints: &[PathBuf]) -> Result<Vec<Claim>, Fault> {
    let beside = dir.join("checkpoints");
    let files = if checkpoints.is_empty() {
        files_of(&beside)?
    } else {
        checkpoints.to_owned()
    };
    let mut notes = Vec::new();
    for file in files {
        let found =
            Note::parse_all(&read(&file)?).map_err(|error| unproven(&file, None, &error))?;
        notes.extend(found.into_iter().map(|note| (file.clone(), note)));
    }
    if notes.is_empty() && key.is_none() {
        return Ok(Vec::new());
    }
    let keys = keys(key.unwrap_or(&beside.join("keys")))?;
    let mut claims = notes
        .into_iter()
        .map(|(file, note)| claim(file, &note, &keys))
        .collect::<Result<Vec<_>, _>>()?;
    claims.sort_by_key(|claim| claim.size);
    Ok(claims)
}

/// The files of checkpoints in a directory, which need not be there.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let listed = std::fs::read_dir(dir).and_then(|files| {
        let paths = files.map(|file| file.map(|file| file.path()));
        paths.collect::<Result<Vec<_>, _>>()
    });
    let mut files = listed.map_err(|error| {
        Fault::new(Exit::Failed, format!("cannot list {}", dir.display())).caused_by(&error)
    })?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "notes"));
    files.sort();
    Ok(files)
}

fn claim(file: PathBuf, note: &Note, keys: &[NoteKey]) -> Result<Claim, Fault> {
    let (size, root) = (note.checkpoint().size, note.checkpoint().root);
    note.verify(keys)
        .map_err(|error| unproven(&file, Some(size), &error))?;
    Ok(Claim { file, size, root })
}

fn unproven(file: &Path, size: Option<u64>, error: &api::NoteError) -> Fault {
    let which = size.map_or_else(
        || "a checkpoint".to_owned(),
        |size| format!("the checkpoint over {size} entries"),
    );
    let what = format!("{which} in {} proves nothing", file.display());
    Fault::new(Exit::Unproven, what)
        .caused_by(error)
        .cure("compare it with a copy from elsewhere; check that the key is this ledger's")
}

/// Every checkpoint must have the root of as many entries as it says.
fn compare(dir: &Path, claims: &[Claim], verified: &Verified) -> Result<(), Fault> {
    let mut agreed = 0;
    for claim in claims {
        let roots = verified.roots.iter();
        let found = roots.clone().find(|(size, _)| *size == claim.size);
        let (size, file) = (claim.size, claim.file.display());
        let why = match found {
            Some((_, root)) if *root == claim.root => {
                agreed = size;
                continue;
            }
            Some(_) => format!(
                "the checkpoint over {size} entries ({file}) has another root than the first {size} \
                 entries here: one of the entries {} to {size} was changed, added or taken out",
                agreed.saturating_add(1)
            ),
            None => format!(
                "a checkpoint over {size} entries was signed ({file}), and the journal ends with \
                 entry {}",
                verified.entries
            ),
        };
        let what = format!("{} is not the ledger that was signed", dir.display());
        return Err(Fault::new(Exit::Unproven, what)
            .because(why)
            .cure("keep it as it is; restore a copy that verifies and compare"));
    }
    Ok(())
}

impl Found {
    /// As JSON.
    pub(super) fn json(&self, pinned: bool) -> Map<String, Value> {
        let (claims, verified) = (&self.claims, &self.verified);
        let newest = claims.last().map_or(0, |claim| claim.size);
        let key = if pinned {
            "given"
        } else {
            "beside the journal"
        };
        [
            ("verified", json!(true)),
            ("entries", json!(verified.entries)),
            ("root", json!(hex(&verified.root))),
            ("holds_open", json!(verified.holds_open)),
            ("torn_bytes", json!(verified.torn_bytes)),
            ("checkpoints", json!(claims.len())),
            ("signed_entries", json!(newest)),
            ("key", json!(key)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
    }
}

/// Says what was found.
pub(super) fn tell(found: &Found, pinned: bool, output: &mut Output) -> Result<(), Fault> {
    let (claims, verified) = (&found.claims, &found.verified);
    let newest = claims.last().map_or(0, |claim| claim.size);
    if output.json {
        return output.value(&Value::Object(found.json(pinned)));
    }
    output.line(&format!(
        "verified: {} entries, root {}, {} holds open",
        verified.entries,
        hex(&verified.root),
        verified.holds_open
    ))?;
    if claims.is_empty() {
        output.line("checkpoints: none, so nothing shows that this is what was signed")?;
    } else {
        let key = if pinned {
            "the key given"
        } else {
            "the key beside the journal: compare it with the one that you were given"
        };
        output.line(&format!(
            "checkpoints: {} agree, the newest over {newest} entries; signed with {key}",
            claims.len()
        ))?;
    }
    if verified.torn_bytes > 0 {
        output.line(&format!(
            "note: {} bytes behind the last whole frame, never acknowledged; the next start drops \
             them",
            verified.torn_bytes
        ))?;
    }
    Ok(())
}
