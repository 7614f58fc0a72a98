//! `farebox usage`: the usage report through the API.

use api::Clock;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Map, Value, json};

use super::arguments::UsageArgs;
use super::client::Client;
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;

/// Prints what was used, a row for each window and group.
pub(crate) fn usage(args: &UsageArgs, output: &mut Output) -> Result<(), Fault> {
    let client = Client::new(&args.server)?;
    let tz = args.tz.clone().unwrap_or_else(|| "UTC".to_owned());
    let (start, end) = month(&tz, Clock::system().wall_us())?;
    let mut query = vec![
        ("from", args.from.clone().unwrap_or(start)),
        ("to", args.to.clone().unwrap_or(end)),
        (
            "window",
            args.window.clone().unwrap_or_else(|| "month".to_owned()),
        ),
        ("tz", tz),
    ];
    let more = [("group_by", &args.group_by), ("tenant", &args.tenant)];
    query.extend(
        more.iter()
            .filter_map(|(name, value)| Some((*name, (*value).clone()?))),
    );
    let query: Vec<(&str, &str)> = query
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let items = client.list("/v1/usage", &query)?;
    if output.json {
        return output.value(&json!({ "items": items }));
    }
    let (head, rows) = rows(&items);
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    output.table(&head, &rows)
}

/// Start and end of the month that `now_us` lies in, in that zone.
fn month(tz: &str, now_us: i64) -> Result<(String, String), Fault> {
    let borders = || -> Result<(String, String), jiff::Error> {
        let now = Timestamp::from_microsecond(now_us)?.in_tz(tz)?;
        let start = now.first_of_month()?.start_of_day()?;
        let end = start.checked_add(1.month())?;
        Ok((start.timestamp().to_string(), end.timestamp().to_string()))
    };
    borders().map_err(|error| {
        Fault::new(
            Exit::Usage,
            format!("cannot find the month in time zone {tz}"),
        )
        .caused_by(&error)
        .cure("give an IANA name such as Europe/Vienna, or --from and --to")
    })
}

/// One column for each thing that any item names; empty where an item does not.
fn rows(items: &[Value]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut head = vec!["start".to_owned()];
    let parts = ["group", "usage"];
    let names = |part: &str| {
        let mut names: Vec<String> = Vec::new();
        for item in items {
            for name in object(item, part).keys() {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    };
    let columns: Vec<(&str, String)> = parts
        .iter()
        .flat_map(|part| names(part).into_iter().map(move |name| (*part, name)))
        .collect();
    head.extend(columns.iter().map(|(_, name)| name.clone()));
    let own: Vec<&str> = ["meter", "quantity", "unit"]
        .into_iter()
        .filter(|name| items.iter().any(|item| item.get(name).is_some()))
        .collect();
    head.extend(own.iter().map(|name| (*name).to_owned()));
    let rows = items
        .iter()
        .map(|item| {
            let mut row = vec![text(item.get("start"))];
            row.extend(
                columns
                    .iter()
                    .map(|(part, name)| text(object(item, part).get(name))),
            );
            row.extend(own.iter().map(|name| text(item.get(name))));
            row
        })
        .collect();
    (head, rows)
}

fn object(item: &Value, part: &str) -> Map<String, Value> {
    item.get(part)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_follows_the_zone() {
        let newyear_us = 1_767_223_800_000_000; // 2025-12-31T23:30:00Z
        let of = |tz| month(tz, newyear_us).unwrap();
        assert_eq!(of("UTC").0, "2025-12-01T00:00:00Z");
        assert_eq!(of("Europe/Vienna").0, "2025-12-31T23:00:00Z");
        assert_eq!(of("Europe/Vienna").1, "2026-01-31T23:00:00Z");
        assert!(month("Nowhere/At_All", newyear_us).is_err());
    }

    #[test]
    fn every_name_gets_a_column() {
        let items = [
            json!({"start": "a", "group": {"tenant": "x"}, "usage": {"cpu_us": "5"}}),
            json!({"start": "b", "group": {"tenant": "y"}, "usage": {"executions": "1"}}),
        ];
        let (head, rows) = rows(&items);
        assert_eq!(head, ["start", "tenant", "cpu_us", "executions"]);
        assert_eq!(rows[1], ["b", "y", "", "1"]);
    }
}
