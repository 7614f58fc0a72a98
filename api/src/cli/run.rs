//! `farebox run`: one file in a sandbox by the server's own walk, without a server.

use std::fs::File;
use std::io::{self, Read, stdin};
use std::path::Path;
use std::process::ExitCode;

use api::{Backend, Config, RunError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::Stream;
use serde_json::{Map, Value, json};

use super::arguments::{Language, RunArgs};
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;
use super::place::configuration;
use super::start::{must_be_root, start};
use super::temporary;

/// Longest file and standard input that are read; the walk has closer bounds of its own.
const READ_MAX: u64 = 64 << 20;

/// Runs the file, passes its output on, prints the bill, answers the program's exit code.
pub(crate) fn run(args: &RunArgs, output: &mut Output) -> Result<ExitCode, Fault> {
    if args.place.data_dir.is_none() {
        must_be_root()?;
        return temporary::run(args, output.json);
    }
    temporary::unblock_signals()?;
    let body = request(args)?;
    // Nobody comes after this one.
    let nothing_ahead = ["pool.max", "disk.ahead"].map(|key| (key.to_owned(), "0".to_owned()));
    let config = configuration(&args.place, nothing_ahead.to_vec())?;
    let record = carry_out(config, body, output).map_err(|mut fault| {
        fault.what = format!("cannot run {}: {}", args.file.display(), fault.what);
        fault
    })?;
    if output.json {
        output.value(&record)?;
    } else {
        output.aside(bill(&record).as_bytes());
    }
    Ok(code(&record["outcome"]))
}

/// The walk: output is passed on as it comes, unless the record is to be printed.
fn carry_out(
    config: Config,
    body: Map<String, Value>,
    output: &mut Output,
) -> Result<Value, Fault> {
    api::start_log(&config.log);
    let launcher = start(&config)?;
    let mut lost = None;
    let record = api::run_once(
        config,
        Backend::Launcher(launcher),
        body,
        &mut |stream, bytes| match (output.json, stream) {
            (true, _) => {}
            (false, Stream::Stdout) => lost = output.bytes(bytes).err(),
            (false, Stream::Stderr) => output.aside(bytes),
        },
    );
    let record = record.map_err(|error| refused(&error))?;
    if let Some(fault) = lost {
        return Err(fault);
    }
    serde_json::to_value(&record)
        .map_err(|error| Fault::new(Exit::NotRun, "the record").caused_by(&error))
}

fn refused(error: &RunError) -> Fault {
    match error {
        RunError::Setup(_) => Fault::new(Exit::NotRun, "no sandbox")
            .caused_by(error)
            .cure("farebox doctor says what this host lacks"),
        RunError::Refused(problem) => {
            let faults = problem.errors.iter();
            let faults = faults.map(|fault| format!("\n{} {}", fault.pointer, fault.detail));
            Fault::new(Exit::NotRun, "refused")
                .because(format!("{error}{}", faults.collect::<String>()))
                .cure("mend what is named above; missing images: farebox image build NAME")
        }
    }
}

/// The body of `POST /v1/executions` that the command line stands for.
fn request(args: &RunArgs) -> Result<Map<String, Value>, Fault> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    set("language", json!(language(args)?));
    set("code", json!(text(read(&args.file)?, &args.file)?));
    set("args", json!(args.args));
    if let Some(image) = &args.image {
        set("image", json!(image));
    }
    if args.stdin {
        set("stdin", json!(STANDARD.encode(read(Path::new("-"))?)));
        set("stdin_encoding", json!("base64"));
    }
    let limits = args
        .limit
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)));
    let limits: Map<String, Value> = limits.collect();
    if !limits.is_empty() {
        set("limits", Value::Object(limits));
    }
    Ok(body)
}

fn language(args: &RunArgs) -> Result<&'static str, Fault> {
    let ending = args.file.extension().and_then(std::ffi::OsStr::to_str);
    let by_ending = || match ending {
        Some("py") => Some(Language::Python),
        Some("js" | "mjs" | "cjs") => Some(Language::Node),
        Some("sh" | "bash") => Some(Language::Shell),
        _ => None,
    };
    match args.language.or_else(by_ending) {
        Some(language) => Ok(language.name()),
        None => Err(
            Fault::new(Exit::Usage, format!("cannot run {}", args.file.display()))
                .because("its ending names no language")
                .cure("give --language python, node or shell"),
        ),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let from: Box<dyn Read> = if path == Path::new("-") {
            Box::new(stdin())
        } else {
            Box::new(File::open(path)?)
        };
        from.take(READ_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| {
        Fault::new(Exit::NotRun, format!("cannot read {}", path.display()))
            .caused_by(&error)
            .cure("give a file that can be read, or - for standard input")
    })
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|error| {
        Fault::new(Exit::NotRun, format!("cannot run {}", path.display()))
            .caused_by(&error)
            .cure("give a source file in UTF-8")
    })
}

/// How it ended, what it used, what it costs.
fn bill(record: &Value) -> String {
    let outcome = &record["outcome"];
    let kind = outcome["kind"].as_str().unwrap_or("unknown");
    let detail = outcome
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "kind");
    let detail: String = detail
        .map(|(name, value)| format!(" {name} {value}"))
        .collect();
    let mut text = format!(
        "-- {}: {kind}{detail}\n",
        record["id"].as_str().unwrap_or("")
    );
    if let Some(cause) = record["evidence"]["cause"].as_str() {
        text.push_str(&format!("   failed: {cause}\n"));
    }
    let charge = &record["charge"];
    let cell = |line: &Value, name: &str| line[name].as_str().unwrap_or("").to_owned();
    for line in charge["lines"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "   {:<16} {:>16}  at {} / {:<14} {:>18}\n",
            cell(line, "meter"),
            cell(line, "quantity"),
            cell(line, "rate"),
            cell(line, "unit_size"),
            cell(line, "amount"),
        ));
    }
    text.push_str(&format!(
        "   {:<10} {}\n",
        cell(charge, "currency"),
        cell(charge, "total")
    ));
    text
}

/// The program's exit code, as a shell would tell it.
fn code(outcome: &Value) -> ExitCode {
    let number = |name: &str| {
        outcome[name]
            .as_i64()
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(1)
    };
    match outcome["kind"].as_str() {
        Some("exited") => ExitCode::from(number("code")),
        Some("signalled") => ExitCode::from(number("signal").saturating_add(128)),
        Some("timed_out" | "quota_exhausted") => Exit::TimedOut.into(),
        Some("out_of_memory") => ExitCode::from(137),
        Some("start_failed" | "lost" | "cancelled") | None => Exit::NotRun.into(),
        Some(_) => Exit::Failed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let same = |outcome: Value, expected: u8| {
            assert_eq!(
                format!("{:?}", code(&outcome)),
                format!("{:?}", ExitCode::from(expected))
            );
        };
        same(json!({"kind": "exited", "code": 3}), 3);
        same(json!({"kind": "signalled", "signal": 11}), 139);
        same(json!({"kind": "timed_out", "clock": "wall"}), 124);
        same(json!({"kind": "out_of_memory"}), 137);
        same(json!({"kind": "start_failed", "reason": "x"}), 125);
    }

    #[test]
    fn a_bill_has_outcome_lines_and_total() {
        let line = json!({"meter": "cpu_us", "quantity": "5", "rate": "0.1", "unit_size": "10",
            "amount": "0.05"});
        let charge = json!({"currency": "USD", "total": "0.05", "lines": [line]});
        let outcome = json!({"kind": "exited", "code": 0});
        let mut record = json!({"id": "exe_1", "outcome": outcome, "charge": charge});
        let whole = bill(&record);
        assert!(!whole.contains("failed:"), "{whole}");
        record["evidence"] = json!({"cause": "the disk of 64 MiB was full"});
        let failed = bill(&record);
        let line = failed.lines().nth(1).unwrap();
        assert_eq!(line, "   failed: the disk of 64 MiB was full");
        let bill = whole;
        assert!(bill.starts_with("-- exe_1: exited code 0\n"), "{bill}");
        assert!(
            bill.contains("cpu_us") && bill.ends_with("0.05\n"),
            "{bill}"
        );
    }
}
