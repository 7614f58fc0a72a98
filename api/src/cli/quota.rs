//! `farebox quota`: a tenant's quotas, and changes of them to come, through the API.

use serde_json::{Value, json};
use ureq::http::Method;

use super::arguments::{QuotaChangesArgs, QuotaCommand, QuotaSetArgs};
use super::client::{Client, segment};
use super::fault::Fault;
use super::output::Output;

/// Shows quotas with their state, replaces a tenant's own list, now or at an instant to come.
pub(crate) fn quota(command: &QuotaCommand, output: &mut Output) -> Result<(), Fault> {
    match command {
        QuotaCommand::Show(args) => {
            let client = Client::new(&args.server)?;
            let path = match &args.tenant {
                Some(tenant) => format!("/v1/tenants/{}/quotas", segment(tenant)),
                None => "/v1/quotas".to_owned(),
            };
            let state = client.get(&path, &[])?;
            show(output, &state)
        }
        QuotaCommand::Set(args) => {
            let path = format!("/v1/tenants/{}/quotas", segment(&args.tenant));
            let body = json!({ "quotas": quotas(args) });
            let state = Client::new(&args.server)?.send(Method::PUT, &path, &body)?;
            show(output, &state)
        }
        QuotaCommand::Change(args) => {
            let body = json!({
                "effective_at": api::rfc3339(args.at),
                "quotas": quotas(&args.set),
                "reason": args.reason,
            });
            let path = changes(&args.set.tenant);
            let made = Client::new(&args.set.server)?.send(Method::POST, &path, &body)?;
            show_changes(output, &made, std::slice::from_ref(&made))
        }
        QuotaCommand::Changes(args) => list(args, output),
        QuotaCommand::Cancel(args) => {
            let path = format!("{}/{}", changes(&args.of.tenant), segment(&args.id));
            let reason = args.reason.as_deref().map(|reason| ("reason", reason));
            let query: Vec<(&str, &str)> = reason.into_iter().collect();
            let left = Client::new(&args.of.server)?.delete(&path, &query)?;
            let items = left.get("items").and_then(Value::as_array);
            show_changes(output, &left, items.map_or(&[], Vec::as_slice))
        }
    }
}

fn changes(tenant: &str) -> String {
    format!("/v1/tenants/{}/quotas/changes", segment(tenant))
}

fn list(args: &QuotaChangesArgs, output: &mut Output) -> Result<(), Fault> {
    let list = Client::new(&args.server)?.get(&changes(&args.tenant), &[])?;
    let items = list.get("items").and_then(Value::as_array);
    show_changes(output, &list, items.map_or(&[], Vec::as_slice))
}

fn show_changes(output: &mut Output, answer: &Value, changes: &[Value]) -> Result<(), Fault> {
    if output.json {
        return output.value(answer);
    }
    let text = |of: &Value, name: &str| {
        of.get(name)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let quota = |quota: &Value| {
        let [meter, limit, window] = ["meter", "limit", "window"].map(|name| text(quota, name));
        format!("{meter}={limit}/{window}")
    };
    let row = |change: &Value| {
        let quotas = change.get("quotas").and_then(Value::as_array);
        let quotas: Vec<String> = quotas.into_iter().flatten().map(quota).collect();
        let names = ["id", "effective_at", "author", "reason"];
        let [id, at, author, reason] = names.map(|name| text(change, name));
        vec![id, at, quotas.join(" "), author, reason]
    };
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    output.table(
        &["change", "effective at", "quotas", "author", "reason"],
        &rows,
    )
}

fn quotas(args: &QuotaSetArgs) -> Vec<Value> {
    let quotas = args.quotas.iter();
    quotas
        .map(|quota| json!({ "meter": quota.meter, "limit": quota.limit, "window": quota.window }))
        .collect()
}

fn show(output: &mut Output, state: &Value) -> Result<(), Fault> {
    if output.json {
        return output.value(state);
    }
    let items = state
        .get("items")
        .or_else(|| state.get("quotas"))
        .and_then(Value::as_array);
    let text = |quota: &Value, name: &str| match quota.get(name) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let columns = [
        "meter",
        "window",
        "limit",
        "posted",
        "held",
        "free",
        "mode",
        "resets_at",
        "scope",
    ];
    let rows: Vec<Vec<String>> = items
        .into_iter()
        .flatten()
        .map(|quota| columns.iter().map(|name| text(quota, name)).collect())
        .collect();
    output.table(&columns, &rows)
}
