//! Small values of the command line: limits, durations, quotas.

/// One quota as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Which meter.
    pub(crate) meter: String,
    /// How much of it, as a decimal.
    pub(crate) limit: String,
    /// In which window.
    pub(crate) window: String,
}

/// `memory_bytes=128MiB`.
pub(crate) fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units
        .iter()
        .find_map(|(unit, size)| Some((value.strip_suffix(unit)?, *size)));
    let (digits, size) = match unit {
        Some(_) if !name.ends_with("_bytes") => {
            return Err(format!("{name} is not in bytes: write a plain number"));
        }
        Some(unit) => unit,
        None => (value, 1),
    };
    let number: u64 = digits
        .parse()
        .map_err(|error| format!("`{value}`: {error}"))?;
    let number = number
        .checked_mul(size)
        .ok_or_else(|| format!("`{value}` is too large"))?;
    Ok((name.to_owned(), number))
}

/// `24h`, as seconds.
pub(crate) fn duration_s(text: &str) -> Result<u64, String> {
    let fault = || "write a number and s, m, h or d, for example 24h".to_owned();
    let unit = text.chars().next_back().ok_or_else(fault)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(fault()),
    };
    let digits = text.strip_suffix(unit).unwrap_or(text);
    let number: u64 = digits.parse().ok().ok_or_else(fault)?;
    match number.checked_mul(seconds) {
        None | Some(0) => Err(fault()),
        Some(seconds) => Ok(seconds),
    }
}

/// The name of an export's format.
pub(crate) fn format(text: &str) -> Result<api::Format, String> {
    let names = api::Format::ALL.map(|(_, name)| name).join(", ");
    api::Format::from_name(text).ok_or_else(|| format!("there are {names}"))
}

/// An RFC 3339 time, in microseconds.
pub(crate) fn time_us(text: &str) -> Result<i64, String> {
    let fault = || "write an RFC 3339 time, for example 2026-11-01T00:00:00Z".to_owned();
    api::parse_rfc3339(text).ok_or_else(fault)
}

/// `cost_center:42`.
pub(crate) fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once(':').ok_or("write KEY:VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `executions=1000/day`.
pub(crate) fn quota(text: &str) -> Result<Quota, String> {
    let parts = text.split_once('=').and_then(|(meter, rest)| {
        let (limit, window) = rest.split_once('/')?;
        Some((meter, limit, window))
    });
    let (meter, limit, window) = parts.ok_or("write METER=LIMIT/WINDOW")?;
    if limit.is_empty() || !limit.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(format!("`{limit}` is not a number"));
    }
    let owned = str::to_owned;
    Ok(Quota {
        meter: owned(meter),
        limit: owned(limit),
        window: owned(window),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_take_binary_units_for_bytes_only() {
        assert_eq!(
            limit("memory_bytes=128MiB"),
            Ok(("memory_bytes".to_owned(), 134_217_728))
        );
        assert_eq!(limit("wall_ms=10"), Ok(("wall_ms".to_owned(), 10)));
        assert!(limit("wall_ms=1KiB").is_err());
        assert!(limit("wall_ms=-1").is_err());
        assert!(limit("memory_bytes=99999999999GiB").is_err());
        assert!(limit("wall_ms").is_err());
    }

    #[test]
    fn durations_have_a_unit_and_are_not_zero() {
        assert_eq!(duration_s("24h"), Ok(86_400));
        assert_eq!(duration_s("90s"), Ok(90));
        for bad in ["", "h", "24", "0s", "1w", "-1h", "999999999999999999d"] {
            assert!(duration_s(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_quota_has_meter_limit_and_window() {
        let read = quota("cost=25.5/month").unwrap();
        let parts = (
            read.meter.as_str(),
            read.limit.as_str(),
            read.window.as_str(),
        );
        assert_eq!(parts, ("cost", "25.5", "month"));
        for bad in ["cost", "cost=1", "cost=/day", "cost=x/day"] {
            assert!(quota(bad).is_err(), "{bad}");
        }
    }
}
