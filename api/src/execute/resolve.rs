//! Step 2: a request becomes a plan: image by digest, program, effective limits. Nothing is taken
//! yet.

use std::collections::BTreeMap;

use runtime::{Interpreter, Process};

use super::request::{Language, Program, Request};
use super::{Job, Mode};
use crate::app::App;
use crate::clock::rfc3339;
use crate::error::ApiError;
use crate::idempotency::Key;
use crate::ids::{self, Kind};
use crate::images::ImageInfo;
use crate::limits::Limits;
use crate::record::{Encoding, ImageRef, Record, State};

/// An execution that is ready to be admitted.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: [u8; 16],
    pub(crate) key: String,
    pub(crate) image: runtime::Digest,
    /// What may have been started ahead for it.
    pub(crate) interpreter: Option<Interpreter>,
    pub(crate) process: Process,
    pub(crate) files: Vec<runtime::File>,
    /// Effective, the disk's class included.
    pub(crate) limits: Limits,
    pub(crate) max_cost: Option<ledger::Money>,
    pub(crate) reduce: bool,
    pub(crate) idempotency: Option<Key>,
    pub(crate) mode: Mode,
    /// What it looks like before it has run.
    pub(crate) record: Record,
}

/// Makes the plan. Reads the image store.
pub(crate) fn plan(app: &App, id: [u8; 16], job: Job) -> Result<Plan, ApiError> {
    let image = image(app, &job)?;
    let request = job.request;
    let limits = effective(app, &image, request.limits)?;
    let language = request.language.or_else(|| own_language(&image));
    let interpreter = interpreter(&request, language, &image);
    let record = Record {
        id: ids::text(Kind::Execution, &id),
        tenant: job.tenant.profile.name.clone(),
        project: job
            .project
            .or(request.project)
            .unwrap_or_else(|| "default".to_owned()),
        node: app.config.server.node.clone(),
        state: State::Queued,
        outcome: None,
        evidence: None,
        stdout: String::new(),
        stdout_encoding: Encoding::Utf8,
        stdout_truncated: false,
        stderr: String::new(),
        stderr_encoding: Encoding::Utf8,
        stderr_truncated: false,
        output: None,
        image: ImageRef {
            name: image.name.clone(),
            digest: image.digest.to_string(),
        },
        start: None,
        limits: Some(limits),
        tags: request.tags,
        measured: None,
        usage: None,
        overrun: None,
        charge: None,
        receipt: None,
        created_at: rfc3339(app.clock.wall_us()),
        started_at: None,
        finished_at: None,
        kept_until: None,
        trace_id: job.trace_id,
    };
    let mut files = request.files;
    let argv = argv(request.program, language, &mut files)?;
    let process = Process {
        execution: id,
        argv,
        env: environment(&image, request.env),
        cwd: "/workspace".to_owned(),
        stdin: request.stdin,
        wall_ms: limits.wall_ms,
        cpu_ms: limits.cpu_ms,
        output_bytes: limits.output_bytes,
        kill_on_output_limit: request.kill_on_output_limit,
        reduced: false,
        keep_s: request.keep_s,
    };
    Ok(Plan {
        id,
        key: job.key,
        image: image.digest,
        interpreter,
        process,
        files,
        limits,
        max_cost: request.max_cost,
        reduce: request.reduce,
        idempotency: job.idempotency,
        mode: job.mode,
        record,
    })
}

/// The image that the request names, or the one that is configured for its language.
fn image(app: &App, job: &Job) -> Result<ImageInfo, ApiError> {
    let Request {
        image, language, ..
    } = &job.request;
    let images = &app.config.images;
    let name = image.as_deref().unwrap_or(match language {
        Some(Language::Python) => &images.python,
        Some(Language::Node) => &images.node,
        Some(Language::Shell) => &images.shell,
        None => &images.default,
    });
    let found = app
        .images
        .resolve(name)
        .map_err(|reason| ApiError::Unavailable {
            reason,
            retry: crate::error::Retry::Safe,
        })?;
    let found = found.ok_or(ApiError::NotFound { what: "image" })?;
    let digest = found.digest.to_string();
    let listed = |list: &Vec<String>| {
        list.iter()
            .any(|allowed| *allowed == name || *allowed == digest || *allowed == found.name)
    };
    if job
        .tenant
        .limits
        .images
        .as_ref()
        .is_some_and(|list| !listed(list))
    {
        let detail = "the image is not in the tenant's list".to_owned();
        return Err(ApiError::Forbidden { detail });
    }
    if let Some(language) = language
        && !found.languages.iter().any(|has| has == language.name())
    {
        let has = found.languages.join(", ");
        let detail = format!("the image {} runs {has}", found.name);
        return Err(ApiError::invalid("/language", detail));
    }
    Ok(found)
}

/// The limits in force: enough memory for the image, and a disk of a class that there is.
fn effective(app: &App, image: &ImageInfo, asked: Limits) -> Result<Limits, ApiError> {
    let least = image
        .warm_bytes
        .saturating_add(app.config.request.memory_headroom_bytes);
    if asked.memory_bytes < least {
        let detail = format!("the image {} needs at least {least}", image.name);
        return Err(ApiError::invalid("/limits/memory_bytes", detail));
    }
    let (bytes, inodes) = app
        .config
        .disk
        .class_of(asked.disk_bytes, asked.inodes)
        .ok_or_else(|| {
            ApiError::invalid(
                "/limits/disk_bytes",
                "no disk class holds so many bytes and inodes",
            )
        })?;
    Ok(Limits {
        disk_bytes: bytes,
        inodes,
        ..asked
    })
}

/// The language that code is in where the request does not say: the image's first.
fn own_language(image: &ImageInfo) -> Option<Language> {
    image
        .languages
        .first()
        .and_then(|name| Language::from_name(name))
}

/// What an interpreter or its loader reads of the environment when it is started.
const READ_AT_START: [&str; 6] = ["LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "PATH"];
/// The same, of one interpreter only.
const PYTHON_READS: [&str; 1] = ["PYTHON"];
const NODE_READS: [&str; 5] = ["NODE_", "UV_", "OPENSSL_", "SSL_CERT_", "ICU_"];

/// The interpreter that may be waiting for the program: it was started in the image's environment.
fn interpreter(
    request: &Request,
    language: Option<Language>,
    image: &ImageInfo,
) -> Option<Interpreter> {
    let Program::Code { .. } = request.program else {
        return None;
    };
    let env = image.env.clone();
    let (interpreter, own): (_, &[&str]) = match language? {
        Language::Python => {
            let fork = !request.fresh;
            (Interpreter::Python { env, fork }, &PYTHON_READS)
        }
        Language::Node => (Interpreter::Node { env }, &NODE_READS),
        Language::Shell => return None,
    };
    let is_read = |name: &String| {
        let mut all = READ_AT_START.iter().chain(own);
        all.any(|of| name.starts_with(of))
    };
    let stays = !request.env.iter().any(|(name, _)| is_read(name));
    stays.then_some(interpreter)
}

/// The command line; code becomes a file beside the others.
fn argv(
    program: Program,
    language: Option<Language>,
    files: &mut Vec<runtime::File>,
) -> Result<Vec<String>, ApiError> {
    let (code, args) = match program {
        Program::Command(command) => return Ok(command),
        Program::Code { code, args } => (code, args),
    };
    let language =
        language.ok_or_else(|| ApiError::invalid("/code", "the image runs no language"))?;
    let (interpreter, path) = language.runs();
    if files.iter().any(|file| file.path == path) {
        return Err(ApiError::invalid(
            "/files",
            format!("{path} is where code is written"),
        ));
    }
    files.push(runtime::File {
        path: path.to_owned(),
        content: code.into_bytes(),
        mode: 0o644,
    });
    let own = [interpreter.to_owned(), path.to_owned()];
    Ok(own.into_iter().chain(args).collect())
}

/// The image's environment with the caller's over it.
fn environment(image: &ImageInfo, own: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut merged: BTreeMap<String, String> = image.env.iter().cloned().collect();
    merged.extend(own);
    merged.into_iter().collect()
}
