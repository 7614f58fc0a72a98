//! `farebox doctor`: what this host has and lacks for running sandboxes.

use serde_json::{Value, json};

use super::arguments::PlaceArgs;
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;
use super::place::configuration;

/// Looks, prints every check, and answers whether sandboxes can run here.
pub(crate) fn doctor(place: &PlaceArgs, output: &mut Output) -> Result<Exit, Fault> {
    let config = configuration(place, Vec::new())?;
    let checks = runtime::doctor(&config.images_dir());
    let well = checks.iter().all(|check| check.ok);
    if output.json {
        let all: Vec<Value> = checks
            .iter()
            .map(|check| {
                json!({
                    "name": check.name, "ok": check.ok, "found": check.found,
                    "lost": check.lost, "cure": check.cure,
                })
            })
            .collect();
        output.value(&json!({ "ok": well, "checks": all }))?;
    } else {
        for check in &checks {
            let sign = if check.ok { "ok  " } else { "LACK" };
            output.line(&format!("{sign}  {:<18} {}", check.name, check.found))?;
            if !check.ok {
                output.line(&format!("      {:<18} lost: {}", "", check.lost))?;
                output.line(&format!("      {:<18} cure: {}", "", check.cure))?;
            }
        }
    }
    Ok(if well { Exit::Done } else { Exit::Host })
}
