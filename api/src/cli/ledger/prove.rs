//! `farebox ledger checkpoint` and `prove`: what a server says about its ledger, checked here.

use api::{Note, NoteKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::http::Method;

use super::super::arguments::{CheckpointArgs, ProveArgs};
use super::super::client::Client;
use super::super::exit::Exit;
use super::super::fault::Fault;
use super::super::output::Output;
use super::{hex, keys, read};

/// Prints a checkpoint as the server has it.
pub(super) fn checkpoint(args: &CheckpointArgs, output: &mut Output) -> Result<(), Fault> {
    let client = Client::new(&args.server)?;
    let path = "/v1/ledger/checkpoint";
    let answer = if args.sign {
        client.send(Method::POST, path, &json!({}))?
    } else {
        let size = args.size.map(|size| size.to_string());
        let query: Vec<_> = size.iter().map(|size| ("size", size.as_str())).collect();
        client.get(path, &query)?
    };
    let text = text_of(answer)?;
    let note = note(&text, "the server's checkpoint")?;
    if output.json {
        let told = note.checkpoint();
        return output.value(&json!({
            "origin": told.origin, "size": told.size, "root": hex(&told.root), "note": text,
        }));
    }
    output.line(text.trim_end())
}

/// Checks the server's proofs with a key, and says what they show.
pub(super) fn prove(args: &ProveArgs, output: &mut Output) -> Result<(), Fault> {
    let client = Client::new(&args.server)?;
    let pinned = args.key.as_deref().map(keys).transpose()?;
    let known = match &pinned {
        Some(keys) => keys.clone(),
        None => told_keys(&client)?,
    };
    let text = text_of(client.get("/v1/ledger/checkpoint", &[])?)?;
    let newest = signed(&text, "the server's checkpoint", &known)?;
    let (size, root) = (newest.checkpoint().size, newest.checkpoint().root);
    let mut told = json!({
        "size": size, "root": hex(&root), "key": if pinned.is_some() { "given" } else { "told" },
    });
    let mut lines = vec![format!("signed: {size} entries, root {}", hex(&root))];
    if let Some(file) = &args.since {
        let older = signed(&read(file)?, &file.display().to_string(), &known)?;
        let (from, before) = (older.checkpoint().size, older.checkpoint().root);
        growth(&client, (from, &before), (size, &root))?;
        lines.push(format!(
            "proved: the first {from} entries are as they were signed then"
        ));
        merge(&mut told, "since", json!(from));
    }
    if let Some(seq) = args.entry {
        let entry = inclusion(&client, seq, (size, &root))?;
        lines.push(format!(
            "proved: entry {seq} is one of them, as it is below"
        ));
        lines.push(serde_json::to_string_pretty(&entry).unwrap_or_default());
        merge(&mut told, "entry", entry);
    }
    if output.json {
        return output.value(&told);
    }
    if pinned.is_none() {
        lines.push("note: the key is what the server told; give --key to believe nobody".into());
    }
    lines.iter().try_for_each(|line| output.line(line))
}

fn merge(told: &mut Value, name: &str, value: Value) {
    if let Value::Object(map) = told {
        map.insert(name.to_owned(), value);
    }
}

fn text_of(answer: Value) -> Result<String, Fault> {
    match answer {
        Value::String(text) => Ok(text),
        _ => Err(Fault::new(Exit::Failed, "cannot read the server's answer")
            .because("it is no text")
            .cure("is this a Farebox server of this version?")),
    }
}

fn told_keys(client: &Client) -> Result<Vec<NoteKey>, Fault> {
    let text = text_of(client.get("/v1/ledger/keys", &[])?)?;
    let keys = text.lines().map(NoteKey::parse).collect::<Result<_, _>>();
    keys.map_err(|error| Fault::new(Exit::Failed, "cannot use the server's keys").caused_by(&error))
}

fn note(text: &str, whose: &str) -> Result<Note, Fault> {
    Note::parse(text.trim_end())
        .map_err(|error| Fault::new(Exit::Failed, format!("cannot read {whose}")).caused_by(&error))
}

fn signed(text: &str, whose: &str, keys: &[NoteKey]) -> Result<Note, Fault> {
    let note = note(text, whose)?;
    note.verify(keys).map_err(|error| {
        Fault::new(Exit::Unproven, format!("{whose} proves nothing"))
            .caused_by(&error)
            .cure("check that the key is this ledger's")
    })?;
    Ok(note)
}

fn growth(client: &Client, from: (u64, &[u8; 32]), to: (u64, &[u8; 32])) -> Result<(), Fault> {
    let (older, newer) = (from.0.to_string(), to.0.to_string());
    let query = [("from", older.as_str()), ("to", newer.as_str())];
    let proof = client.get("/v1/ledger/proofs/consistency", &query)?;
    if ledger::check_consistency(from, to, &path_of(&proof)?) {
        return Ok(());
    }
    Err(untrue(format!(
        "the {newer} entries signed last do not begin with the {older} that were signed before"
    )))
}

/// The entry, read from the very bytes that are proved.
fn inclusion(client: &Client, seq: u64, tree: (u64, &[u8; 32])) -> Result<Value, Fault> {
    let (entry, size) = (seq.to_string(), tree.0.to_string());
    let query = [("entry", entry.as_str()), ("size", size.as_str())];
    let proof = client.get("/v1/ledger/proofs/inclusion", &query)?;
    let bytes = proof.get("bytes").and_then(Value::as_str);
    let bytes = bytes
        .and_then(|text| STANDARD.decode(text).ok())
        .unwrap_or_default();
    if !ledger::check_inclusion(&bytes, seq, tree.0, &path_of(&proof)?, tree.1) {
        return Err(untrue(format!("entry {seq} is not what was signed")));
    }
    let entry = ledger::Entry::from_stored(&bytes).map_err(untrue)?;
    Ok(api::entry_json(&entry))
}

fn path_of(proof: &Value) -> Result<Vec<[u8; 32]>, Fault> {
    let hashes = proof.get("path").and_then(Value::as_array);
    let hash = |text: &Value| STANDARD.decode(text.as_str()?).ok()?.try_into().ok();
    let path = hashes.and_then(|hashes| hashes.iter().map(hash).collect());
    path.ok_or_else(|| untrue("the proof has no path of hashes".to_owned()))
}

fn untrue(why: String) -> Fault {
    Fault::new(Exit::Unproven, "the proof does not hold")
        .because(why)
        .cure("keep the checkpoint and the proof: they show it to anybody")
}
