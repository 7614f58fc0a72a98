//! Reads the body of `POST /v1/executions`: every field, every bound, all faults at once.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::Money;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Config;
use crate::json::Object;
use crate::limits::Limits;
use crate::registry::LimitsDoc;

/// What `POST /v1/executions` takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecutionBody {
    /// Name, name and tag, or digest; absent: the one configured for the language.
    image: Option<String>,
    /// `python`, `node` or `shell`; absent: the image's own.
    language: Option<String>,
    /// A program in that language, run as the main program in `/workspace`.
    code: Option<String>,
    /// Arguments of that program.
    args: Option<Vec<String>>,
    /// A program and its arguments, instead of `code`.
    command: Option<Vec<String>>,
    /// Files that lie in `/workspace` before the run.
    files: Option<Vec<FileBody>>,
    /// Standard input.
    stdin: Option<String>,
    /// `utf8` or `base64`.
    stdin_encoding: Option<String>,
    /// Environment, over the image's.
    env: Option<BTreeMap<String, String>>,
    /// Marks that stay on the record and on the ledger's entry.
    tags: Option<BTreeMap<String, String>>,
    /// What to book it on: 1 to 64 characters; `default` if absent. A token's own project wins.
    project: Option<String>,
    /// Caps; absent ones are the tenant's defaults.
    limits: Option<LimitsBody>,
    /// What may be reached over the network.
    network: Option<NetworkBody>,
    /// The most that the worst case may cost; decimal, in the currency.
    max_cost: Option<String>,
    /// `refuse`, or `reduce`: run with less time where a quota leaves less.
    on_low_quota: Option<String>,
    /// `truncate`, or `kill`: too much output ends the run.
    on_output_limit: Option<String>,
    /// For how many seconds its files stay for reading if it fails; 0 if absent: not at all.
    keep_on_failure_s: Option<u64>,
    /// `shared`: code in Python may run in a fork of an interpreter that others are forked from,
    /// too; or `fresh`: in one that was started for it alone. A tenant whose limits say `fresh` has
    /// that.
    isolation: Option<String>,
}

/// A file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileBody {
    /// Relative to `/workspace`, without `..`.
    path: String,
    /// What is in it.
    content: String,
    /// `utf8` or `base64`.
    encoding: Option<String>,
}

/// Caps; the units are in the names.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsBody {
    wall_ms: Option<u64>,
    cpu_ms: Option<u64>,
    cpu_millis: Option<u64>,
    memory_bytes: Option<u64>,
    pids: Option<u64>,
    disk_bytes: Option<u64>,
    inodes: Option<u64>,
    open_files: Option<u64>,
    output_bytes: Option<u64>,
}

/// Network of an execution.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NetworkBody {
    /// `none`.
    mode: String,
}

/// A language that code can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
    Shell,
}

impl Language {
    pub(crate) fn from_name(name: &str) -> Option<Language> {
        match name {
            "python" => Some(Language::Python),
            "node" => Some(Language::Node),
            "shell" => Some(Language::Shell),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Language::Python => "python",
            Language::Node => "node",
            Language::Shell => "shell",
        }
    }

    /// The interpreter, and the name that its program gets in `/workspace`.
    pub(crate) fn runs(self) -> (&'static str, &'static str) {
        match self {
            Language::Python => ("python3", "main.py"),
            Language::Node => ("node", "main.js"),
            Language::Shell => ("bash", "main.sh"),
        }
    }
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    Code { code: String, args: Vec<String> },
    Command(Vec<String>),
}

/// A request without faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) image: Option<String>,
    pub(crate) language: Option<Language>,
    pub(crate) program: Program,
    pub(crate) files: Vec<runtime::File>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) project: Option<String>,
    /// Effective but for the disk's class.
    pub(crate) limits: Limits,
    pub(crate) max_cost: Option<Money>,
    pub(crate) reduce: bool,
    pub(crate) kill_on_output_limit: bool,
    pub(crate) keep_s: u32,
    /// Nothing is shared with other executions that need not be.
    pub(crate) fresh: bool,
}

/// Reads a request of a tenant with these limits; `None` after a fault.
pub(crate) fn read(body: &mut Object<'_>, config: &Config, tenant: &LimitsDoc) -> Option<Request> {
    let bounds = &config.request;
    let image = body.text("image", 256);
    let language = read_language(body);
    let program = read_program(body, config);
    let files = read_files(body, config);
    let stdin = read_stdin(body, bounds.stdin_max_bytes);
    let env = read_env(body, config);
    let tags = read_tags(body, config);
    let project = body.text("project", 64);
    if project.as_deref().is_some_and(|name| !is_name(name)) {
        body.fault(
            "project",
            "must be 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'",
        );
    }
    let limits = body.object("limits", |limits| read_limits(limits, config, tenant));
    let limits = limits.unwrap_or(tenant.default);
    body.object("network", |network| {
        if network
            .required_text("mode", 16)
            .is_some_and(|mode| mode != "none")
        {
            network.fault("mode", "must be none: there is no other mode yet");
        }
    });
    let max_cost = body.text("max_cost", 48).and_then(|text| {
        let money = Money::parse(&text).ok().filter(|money| money.0 >= 0);
        if money.is_none() {
            body.fault("max_cost", "must be a decimal string, not negative");
        }
        money
    });
    let reduce = choice(body, "on_low_quota", "refuse", "reduce");
    let kill_on_output_limit = choice(body, "on_output_limit", "truncate", "kill");
    let fresh = choice(body, "isolation", "shared", "fresh") || tenant.fresh;
    let keep_max = config.sandbox.keep_on_failure_s_max.into();
    let keep_s = body.integer("keep_on_failure_s", 0, keep_max).unwrap_or(0);
    Some(Request {
        image,
        language,
        program: program?,
        files,
        stdin,
        env,
        tags,
        project,
        limits,
        max_cost,
        reduce,
        kill_on_output_limit,
        keep_s: u32::try_from(keep_s).unwrap_or(0),
        fresh,
    })
}

/// Whether the field has the second of two values; the first is the default.
pub(crate) fn choice(
    body: &mut Object<'_>,
    name: &'static str,
    default: &str,
    other: &str,
) -> bool {
    match body.text(name, 32) {
        None => false,
        Some(text) if text == default => false,
        Some(text) if text == other => true,
        Some(_) => {
            body.fault(name, format!("must be {default} or {other}"));
            false
        }
    }
}

/// Whether `name` may be the name of a project, a tenant's image and the like.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

fn read_language(body: &mut Object<'_>) -> Option<Language> {
    let name = body.text("language", 32)?;
    let language = Language::from_name(&name);
    if language.is_none() {
        body.fault("language", "must be python, node or shell");
    }
    language
}

fn read_program(body: &mut Object<'_>, config: &Config) -> Option<Program> {
    let bounds = &config.request;
    let code = body.text("code", bounds.code_max_bytes);
    let mut arguments = |name| {
        let list = body.texts(name, bounds.args_max)?;
        let bytes: usize = list.iter().map(|text| text.len() + 1).sum();
        if bytes > bounds.args_max_bytes {
            body.fault(
                name,
                format!("is longer than {} bytes", bounds.args_max_bytes),
            );
        }
        Some(list)
    };
    let args = arguments("args");
    let command = arguments("command");
    if args.is_some() && command.is_some() {
        body.fault("args", "is for code: a command has its arguments in itself");
    }
    match (code, command) {
        (Some(_), Some(_)) => {
            body.fault("command", "stands beside code: give one of the two");
            None
        }
        (None, None) => {
            // A fault of either is told already where it was found.
            body.fault("code", "or command is required");
            None
        }
        (Some(code), None) => Some(Program::Code {
            code,
            args: args.unwrap_or_default(),
        }),
        (None, Some(command)) => {
            if command.first().is_none_or(String::is_empty) {
                body.fault("command", "must name a program");
            }
            Some(Program::Command(command))
        }
    }
}

/// The bytes that `content` stands for in `encoding`.
fn decode(body: &mut Object<'_>, at: &str, content: String, encoding: Option<String>) -> Vec<u8> {
    match encoding.as_deref() {
        None | Some("utf8") => content.into_bytes(),
        Some("base64") => STANDARD.decode(&content).unwrap_or_else(|error| {
            body.fault(at, format!("is not base64: {error}"));
            Vec::new()
        }),
        Some(_) => {
            body.fault("encoding", "must be utf8 or base64");
            Vec::new()
        }
    }
}

fn read_files(body: &mut Object<'_>, config: &Config) -> Vec<runtime::File> {
    let bounds = &config.request;
    let mut seen = std::collections::BTreeSet::new();
    let files = body.objects("files", bounds.files_max, |file| {
        let path = file.required_text("path", bounds.path_max_bytes);
        // Content may hold any character, so it is not read as a text without NUL.
        let content = match file.take("content") {
            Some(serde_json::Value::String(content)) => Some(content),
            Some(_) => {
                file.fault("content", "must be a string");
                None
            }
            None => {
                file.fault("content", "is required");
                None
            }
        };
        let encoding = file.text("encoding", 16);
        let path = path?;
        if !runtime::File::path_is_plain(&path) {
            file.fault(
                "path",
                "must be relative, without '..', '.' and empty parts",
            );
        }
        if !seen.insert(path.clone()) {
            file.fault("path", "is given twice");
        }
        let content = decode(file, "content", content?, encoding);
        Some(runtime::File {
            path,
            content,
            mode: 0o644,
        })
    });
    files.unwrap_or_default()
}

fn read_stdin(body: &mut Object<'_>, max: usize) -> Vec<u8> {
    let stdin = match body.take("stdin") {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text,
        Some(_) => {
            body.fault("stdin", "must be a string");
            String::new()
        }
    };
    let encoding = body.text("stdin_encoding", 16);
    let stdin = decode(body, "stdin", stdin, encoding);
    if stdin.len() > max {
        body.fault("stdin", format!("is longer than {max} bytes"));
    }
    stdin
}

fn read_env(body: &mut Object<'_>, config: &Config) -> Vec<(String, String)> {
    let bounds = &config.request;
    let env = body.map("env", bounds.env_max).unwrap_or_default();
    let bytes: usize = env
        .iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum();
    if bytes > bounds.env_max_bytes {
        body.fault(
            "env",
            format!("is longer than {} bytes", bounds.env_max_bytes),
        );
    }
    for (key, _) in &env {
        if key.is_empty() || key.contains(['=', '\0']) {
            body.fault_in("env", key, "a name must not be empty or contain '=' or NUL");
        }
    }
    env
}

fn read_tags(body: &mut Object<'_>, config: &Config) -> BTreeMap<String, String> {
    let bounds = &config.request;
    let tags = body.map("tags", bounds.tags_max).unwrap_or_default();
    for (key, value) in &tags {
        if key.is_empty() || key.len() > bounds.tag_key_max_bytes || !is_name(key) {
            let detail = "a name must be 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'";
            body.fault_in("tags", key, detail);
        }
        if value.len() > bounds.tag_value_max_bytes || value.chars().any(char::is_control) {
            let detail = format!(
                "must be at most {} printable bytes",
                bounds.tag_value_max_bytes
            );
            body.fault_in("tags", key, detail);
        }
    }
    tags.into_iter().collect()
}

/// The caps asked for, each within the machine's least and the tenant's most; others are the
/// tenant's.
pub(crate) fn read_limits(body: &mut Object<'_>, config: &Config, tenant: &LimitsDoc) -> Limits {
    Limits::from_fn(|name| {
        let (min, max) = (config.limits.min(name), tenant.maximum.get(name));
        body.integer(name, min, max)
            .unwrap_or_else(|| tenant.default_of(name))
    })
}

#[cfg(test)]
mod tests;
