//! The configuration that a command runs under: its flags laid over file and environment.

use std::path::Path;

use api::{Config, Layers};
use serde_json::json;

use super::arguments::PlaceArgs;
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;

/// Reads all layers; `flags` are key paths and values from the command line.
pub(crate) fn configuration(
    place: &PlaceArgs,
    mut flags: Vec<(String, String)>,
) -> Result<Config, Fault> {
    if let Some(dir) = &place.data_dir {
        flags.push(("server.data_dir".to_owned(), text(&absolute(dir)?)?));
    }
    let layers = Layers {
        file: place.config.clone(),
        flags,
    };
    Config::load(&layers).map_err(|error| {
        let faults: Vec<String> = error.faults.iter().map(ToString::to_string).collect();
        Fault::new(Exit::Usage, "the configuration makes no sense")
            .because(faults.join("\n"))
            .cure("mend each key named above; config/farebox.toml says what each one means")
    })
}

/// `farebox config`: every key with its value and the layer that it comes from.
pub(crate) fn config(place: &PlaceArgs, output: &mut Output) -> Result<(), Fault> {
    let config = configuration(place, Vec::new())?;
    if output.json {
        let keys: serde_json::Map<String, serde_json::Value> = config
            .effective()
            .map(|(key, value, source)| {
                (
                    key.to_owned(),
                    json!({ "value": value, "source": source.to_string() }),
                )
            })
            .collect();
        return output.value(&serde_json::Value::Object(keys));
    }
    let rows: Vec<Vec<String>> = config
        .effective()
        .map(|(key, value, source)| vec![key.to_owned(), value, source.to_string()])
        .collect();
    output.table(&["key", "value", "from"], &rows)
}

/// `path` from the root, so that it means the same after a change of directory.
pub(crate) fn absolute(path: &Path) -> Result<std::path::PathBuf, Fault> {
    std::path::absolute(path).map_err(|error| {
        Fault::new(
            Exit::Usage,
            format!("cannot use the path {}", path.display()),
        )
        .caused_by(&error)
    })
}

fn text(path: &Path) -> Result<String, Fault> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Fault::new(
            Exit::Usage,
            format!("cannot use the path {}", path.display()),
        )
        .because("it is not UTF-8")
        .cure("give another one")
    })
}
