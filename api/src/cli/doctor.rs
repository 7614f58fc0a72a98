//! `farebox doctor`: what this host has and lacks for running sandboxes.

use runtime::{Needs, Verdict};
use serde_json::{Value, json};

use super::arguments::PlaceArgs;
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;
use super::place::configuration;

/// Looks, prints every check, and answers whether sandboxes can run here.
pub(crate) fn doctor(place: &PlaceArgs, output: &mut Output) -> Result<Exit, Fault> {
    let config = configuration(place, Vec::new())?;
    let checks = runtime::doctor(&Needs {
        images_dir: &config.images_dir(),
        data_dir: &config.server.data_dir,
        disk_bytes: config.disk.commit_bytes,
        sandboxes: u32::try_from(config.machine.slots).unwrap_or(u32::MAX),
        uid_base: config.launcher.uid_base,
    });
    let can_run = checks.iter().all(|check| check.verdict != Verdict::Fault);
    if output.json {
        let all: Vec<Value> = checks
            .iter()
            .map(|check| {
                json!({
                    "name": check.name, "verdict": check.verdict.as_str(), "found": check.found,
                    "lost": check.lost, "cure": check.cure,
                })
            })
            .collect();
        output.value(&json!({ "ok": can_run, "checks": all }))?;
    } else {
        for check in &checks {
            let (sign, name) = (check.verdict.as_str(), check.name);
            output.line(&format!("{sign:<5}  {name:<21}  {}", check.found))?;
            if check.verdict != Verdict::Ok {
                output.line(&format!("{:<28}  lost: {}", "", check.lost))?;
                output.line(&format!("{:<28}  cure: {}", "", check.cure))?;
            }
        }
    }
    Ok(if can_run { Exit::Done } else { Exit::Host })
}
