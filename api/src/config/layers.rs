//! Lays the layers of configuration over each other, with the default layer as the schema of all
//! others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::{Table, Value};

const DEFAULTS: &str = include_str!("../../../config/farebox.toml");

/// What lies over the embedded defaults.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Key paths such as `server.listen` and their values, as given on the command line.
    pub flags: Vec<(String, String)>,
}

/// The layer that a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `config/farebox.toml`.
    Default,
    /// The file given.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(name) => f.write_str(name),
            Source::Flag => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The key path; empty if the fault is not one key's.
    pub key: String,
    /// What is wrong.
    pub detail: String,
    /// Where the value comes from.
    pub source: Source,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{} ({})", self.detail, self.source)
        } else {
            write!(f, "{}: {} ({})", self.key, self.detail, self.source)
        }
    }
}

/// The configuration cannot be used; all its faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad configuration: {}", list(faults))]
pub struct ConfigError {
    /// Every fault found.
    pub faults: Vec<ConfigFault>,
}

impl ConfigError {
    pub(super) fn one(key: &str, detail: String) -> ConfigError {
        let source = Source::Default;
        ConfigError {
            faults: vec![ConfigFault {
                key: key.to_owned(),
                detail,
                source,
            }],
        }
    }
}

fn list(faults: &[ConfigFault]) -> String {
    faults
        .iter()
        .map(ConfigFault::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// All layers as one, and where each value comes from.
pub(super) struct Merged {
    pub(super) table: Table,
    pub(super) effective: BTreeMap<String, (Value, Source)>,
}

/// The variables of the environment that are configuration: those with a section and a key.
pub(super) fn environment() -> Vec<(String, String)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the reader of the environment"
    )]
    let all = std::env::vars();
    all.filter(|(name, _)| name.starts_with("FAREBOX_") && name.contains("__"))
        .collect()
}

/// Lays file, environment and flags over the defaults.
pub(super) fn merge(
    layers: &Layers,
    environment: Vec<(String, String)>,
) -> Result<Merged, ConfigError> {
    let defaults: Table = match DEFAULTS.parse() {
        Ok(table) => table,
        Err(error) => return Err(ConfigError::one("", error.to_string())),
    };
    let mut effective = BTreeMap::new();
    for (key, value) in flatten(defaults) {
        effective.insert(key, (value, Source::Default));
    }
    let mut faults = Vec::new();
    let mut set = |key: String, given: Given, source: Source| {
        let fault = match effective.get_mut(&key) {
            None => Some("unknown key".to_owned()),
            Some(slot) => match given.like(&slot.0) {
                Ok(value) => {
                    *slot = (value, source.clone());
                    None
                }
                Err(detail) => Some(detail),
            },
        };
        faults.extend(fault.map(|detail| ConfigFault {
            key,
            detail,
            source,
        }));
    };
    if let Some(path) = &layers.file {
        let source = Source::File(path.clone());
        match read(path) {
            Ok(table) => {
                for (key, value) in flatten(table) {
                    set(key, Given::Value(value), source.clone());
                }
            }
            Err(detail) => set(path.display().to_string(), Given::Bad(detail), source),
        }
    }
    for (name, value) in environment {
        let path = name
            .trim_start_matches("FAREBOX_")
            .to_lowercase()
            .replacen("__", ".", 1);
        set(path, Given::Text(value), Source::Environment(name));
    }
    for (key, value) in &layers.flags {
        set(key.clone(), Given::Text(value.clone()), Source::Flag);
    }
    if !faults.is_empty() {
        return Err(ConfigError { faults });
    }
    Ok(Merged {
        table: unflatten(&effective),
        effective,
    })
}

fn read(path: &std::path::Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read: {error}"))?;
    text.parse::<Table>()
        .map_err(|error| error.to_string().trim_end().to_owned())
}

/// A value as its layer gives it.
enum Given {
    Value(Value),
    Text(String),
    Bad(String),
}

impl Given {
    /// The value, if it has the type of `default`.
    fn like(self, default: &Value) -> Result<Value, String> {
        let value = match self {
            Given::Bad(detail) => return Err(detail),
            Given::Value(value) => value,
            Given::Text(text) if default.is_str() => Value::String(text),
            Given::Text(text) => format!("v = {text}")
                .parse::<Table>()
                .ok()
                .and_then(|mut table| table.remove("v"))
                .ok_or_else(|| format!("must be a value of type {}", default.type_str()))?,
        };
        if !value.same_type(default) {
            return Err(format!("must be of type {}", default.type_str()));
        }
        if value.as_integer().is_some_and(|number| number < 0) {
            return Err("must not be negative".to_owned());
        }
        Ok(value)
    }
}

/// Sections and keys as `section.key`; what is no section stands under its own name.
fn flatten(table: Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(keys) => {
                flat.extend(
                    keys.into_iter()
                        .map(|(key, v)| (format!("{section}.{key}"), v)),
                );
            }
            other => flat.push((section, other)),
        }
    }
    flat
}

fn unflatten(effective: &BTreeMap<String, (Value, Source)>) -> Table {
    let mut table = Table::new();
    for (path, (value, _)) in effective {
        let Some((section, key)) = path.split_once('.') else {
            continue;
        };
        let entry = table
            .entry(section.to_owned())
            .or_insert_with(|| Table::new().into());
        if let Value::Table(keys) = entry {
            keys.insert(key.to_owned(), value.clone());
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(
        file: &str,
        env: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Merged, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        std::fs::write(&path, file).unwrap();
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Vec<_>>()
        };
        merge(
            &Layers {
                file: Some(path),
                flags: owned(flags),
            },
            owned(env),
        )
    }

    #[test]
    fn later_layers_win_and_say_where_they_come_from() {
        let env = [
            ("FAREBOX_SERVER__BACKLOG", "7"),
            ("FAREBOX_SERVER__NODE", "8"),
        ];
        let merged = merged(
            "[server]\nbacklog = 5\nworkers = 3\n",
            &env,
            &[("server.node", "n9")],
        )
        .unwrap();
        let value = |key: &str| merged.effective[key].0.to_string();
        assert_eq!(
            (value("server.workers"), value("server.backlog")),
            ("3".into(), "7".into())
        );
        assert_eq!(value("server.node"), "\"n9\"");
        assert_eq!(merged.effective["server.node"].1, Source::Flag);
        assert!(matches!(
            merged.effective["server.workers"].1,
            Source::File(_)
        ));
    }

    #[test]
    fn unknown_keys_and_wrong_types_of_all_layers_are_faults() {
        let error = merged(
            "[server]\nbaklog = 5\n[odd]\nkey = 1\n",
            &[
                ("FAREBOX_SERVER__BACKLOG", "many"),
                ("FAREBOX_SERVER__ODD", "1"),
            ],
            &[
                ("server.workers", "-1"),
                ("images.insecure_registries", "[\"a:5000\"]"),
            ],
        );
        let faults = error.err().unwrap().faults;
        let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
        let all = [
            "odd.key",
            "server.baklog",
            "server.backlog",
            "server.odd",
            "server.workers",
        ];
        assert_eq!(keys, all);
    }

    #[test]
    fn a_file_that_is_no_toml_is_one_fault() {
        assert_eq!(merged("[server", &[], &[]).err().unwrap().faults.len(), 1);
    }
}
