//! `farebox ledger export`: charges out of a stopped server's ledger, in the API's formats.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use api::{Export, ExportError, Issuer};
use ledger::{ChargeQuery, Entry, EntryKind, Only};
use serde_json::json;

use super::super::arguments::ExportArgs;
use super::super::exit::Exit;
use super::super::fault::Fault;
use super::super::output::Output;
use super::super::place;

/// Bytes that are collected before they are written.
const PIECE: usize = 256 << 10;

/// Where an export goes: a file that gets its name once it is whole, or standard output.
enum Sink<'a> {
    File(PathBuf, BufWriter<File>),
    Output(&'a mut Output),
}

/// Writes what passes the filters of the ledger in `dir`.
pub(super) fn export(args: &ExportArgs, dir: &Path, output: &mut Output) -> Result<(), Fault> {
    let names = place::configuration(&args.ledger.place, Vec::new())?.exports;
    let issuer = Issuer {
        provider: names.provider,
        region: names.region,
    };
    let query = query(args);
    let mut export = Export::new(args.format, issuer, &query).map_err(|error| refused(&error))?;
    let mut sink = match &args.output {
        Some(path) => open(path)?,
        None => Sink::Output(output),
    };
    let mut out = Vec::with_capacity(PIECE);
    export.head(&mut out);
    let (mut charges, mut fault) = (0_u64, None);
    // Of what came before, months are rounded; acts tell what prices count, and what is closed.
    let known = ChargeQuery {
        after: 0,
        ..query.clone()
    };
    let through = ledger::read_entries(dir, &mut |entry: &Entry| {
        charges += u64::from(query.passes(entry));
        if known.passes(entry) || entry.kind() == EntryKind::Acted {
            let written = export.entries([entry], &mut out);
            fault = written.err().map(|error| refused(&error));
        }
        if fault.is_none() && out.len() >= PIECE {
            fault = sink.write(&mut out).err();
        }
        fault.is_none()
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    let through = through.map_err(|error| {
        let damaged = matches!(error, ledger::Error::Corrupt { .. });
        let exit = if damaged {
            Exit::Unproven
        } else {
            Exit::Failed
        };
        Fault::new(exit, format!("cannot export {}", dir.display()))
            .caused_by(&error)
            .cure("give the ledger's directory (DIR/ledger) of a stopped server, or a copy")
    })?;
    export
        .end(through, &mut out)
        .map_err(|error| refused(&error))?;
    sink.write(&mut out)?;
    sink.end(args.output.as_deref())?;
    tell(args, output, charges, through)
}

fn tell(args: &ExportArgs, output: &mut Output, charges: u64, through: u64) -> Result<(), Fault> {
    if let Some(path) = args.output.as_ref().filter(|_| output.json) {
        let file = path.to_string_lossy();
        let told = json!({ "charges": charges, "through": through, "file": file });
        return output.value(&told);
    }
    output.aside(
        format!(
            "exported {charges} charges, up to entry {through}; later ones: --cursor {through}\n"
        )
        .as_bytes(),
    );
    Ok(())
}

fn refused(error: &ExportError) -> Fault {
    Fault::new(Exit::Failed, "cannot write the export").caused_by(error)
}

fn query(args: &ExportArgs) -> ChargeQuery {
    ChargeQuery {
        after: args.cursor.unwrap_or(0),
        until: None,
        from: args.from,
        to: args.to,
        only: Only {
            tenant: args.tenant.clone(),
            project: args.project.clone(),
            function: args.function.clone(),
            image: args.image.clone(),
            key: args.key.clone(),
            tags: args.tag.clone(),
        },
    }
}

fn open(path: &Path) -> Result<Sink<'static>, Fault> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part).map_err(|error| failed(&part).caused_by(&error))?;
    Ok(Sink::File(part, BufWriter::new(file)))
}

fn failed(path: &Path) -> Fault {
    Fault::new(Exit::Failed, format!("cannot write {}", path.display()))
        .cure("give another file with --output, where there is room")
}

impl Sink<'_> {
    /// Writes what has been collected.
    fn write(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Sink::File(part, file) => {
                file.write_all(out)
                    .map_err(|error| failed(part).caused_by(&error))?;
            }
            Sink::Output(output) => output.bytes(out)?,
        }
        out.clear();
        Ok(())
    }

    /// Makes a file durable and gives it its name.
    fn end(self, path: Option<&Path>) -> Result<(), Fault> {
        let (Sink::File(part, mut file), Some(path)) = (self, path) else {
            return Ok(());
        };
        let whole = file.flush().and_then(|()| file.get_ref().sync_all());
        let named = whole.and_then(|()| std::fs::rename(&part, path));
        named.map_err(|error| failed(path).caused_by(&error))
    }
}
