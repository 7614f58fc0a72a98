//! Reads `config/tiers.toml`: the quotas, limits and concurrency of tenants that have none of their
//! own.

use ledger::Quota;
use serde::Deserialize;

use super::layers::{ConfigError, ConfigFault, Source};
use crate::json::{Faults, Object};
use crate::limits::Limits;
use crate::shape;

/// What a tenant of this tier has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Executions at once.
    pub concurrency: u32,
    /// Executions that may begin in a minute; `None`: as many as there are.
    pub starts_per_minute: Option<u32>,
    /// The same through each key.
    pub key_starts_per_minute: Option<u32>,
    /// Quotas; a tenant's own lie over them, meter by meter.
    pub quotas: Vec<Quota>,
    /// What an execution gets that does not ask.
    pub default: Limits,
    /// The most that it may ask for.
    pub maximum: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tiers: Tiers,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tiers {
    default: Body,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    concurrency: u32,
    starts_per_minute: Option<u32>,
    key_starts_per_minute: Option<u32>,
    quotas: Vec<serde_json::Map<String, serde_json::Value>>,
    limits: Pair,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    default: Limits,
    maximum: Limits,
}

/// Parses the file; every fault at once.
pub(super) fn parse(text: &str) -> Result<Tier, ConfigError> {
    let body = toml::from_str::<File>(text)
        .map_err(|error| ConfigError::one("server.tiers_file", error.to_string()))?
        .tiers
        .default;
    let mut quotas = Vec::new();
    let mut faults = Faults::default();
    for (at, map) in body.quotas.into_iter().enumerate() {
        let mut object = Object::below(map, format!("/tiers/default/quotas/{at}"), &mut faults);
        quotas.extend(shape::read_quota(&mut object));
        object.finish();
    }
    let Pair { default, maximum } = body.limits;
    for name in Limits::NAMES {
        if default.get(name) > maximum.get(name) {
            faults.add(
                format!("/tiers/default/limits/default/{name}"),
                "is above the maximum",
            );
        }
    }
    for (name, value) in [
        ("concurrency", Some(body.concurrency)),
        ("starts_per_minute", body.starts_per_minute),
        ("key_starts_per_minute", body.key_starts_per_minute),
    ] {
        if value == Some(0) {
            faults.add(format!("/tiers/default/{name}"), "must be above zero");
        }
    }
    if faults.is_empty() {
        return Ok(Tier {
            concurrency: body.concurrency,
            starts_per_minute: body.starts_per_minute,
            key_starts_per_minute: body.key_starts_per_minute,
            quotas,
            default,
            maximum,
        });
    }
    let faults = faults.into_vec().into_iter().map(|fault| ConfigFault {
        key: fault.pointer.trim_start_matches('/').replace('/', "."),
        detail: fault.detail,
        source: Source::Default,
    });
    Err(ConfigError {
        faults: faults.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Meter;

    const EMBEDDED: &str = include_str!("../../../config/tiers.toml");

    #[test]
    fn the_default_tier_is_finite_in_executions_cpu_and_cost() {
        let tier = parse(EMBEDDED).unwrap();
        assert_eq!(tier.concurrency, 16);
        for meter in [Meter::Executions, Meter::CpuUs, Meter::Cost] {
            assert!(
                tier.quotas.iter().any(|quota| quota.meter == meter),
                "{meter}"
            );
        }
    }

    #[test]
    fn faults_carry_their_key_paths() {
        let text = EMBEDDED
            .replacen("\"cpu_us\"", "\"cpu\"", 1)
            .replacen(
                "concurrency = 16",
                "concurrency = 0\nkey_starts_per_minute = 0",
                1,
            )
            .replacen("wall_ms = 30000", "wall_ms = 900001", 1);
        let keys: Vec<String> = parse(&text)
            .unwrap_err()
            .faults
            .into_iter()
            .map(|f| f.key)
            .collect();
        let all = [
            "tiers.default.quotas.1.meter",
            "tiers.default.limits.default.wall_ms",
            "tiers.default.concurrency",
            "tiers.default.key_starts_per_minute",
        ];
        assert_eq!(keys, all);
        assert!(parse(&format!("{EMBEDDED}\n[odd]\n")).is_err());
    }
}
