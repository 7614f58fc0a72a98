//! `farebox quota`: a tenant's quotas through the API.

use serde_json::{Value, json};
use ureq::http::Method;

use super::arguments::{QuotaCommand, QuotaSetArgs};
use super::client::{Client, segment};
use super::fault::Fault;
use super::output::Output;

/// Shows quotas with their state, or replaces a tenant's own list.
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
        QuotaCommand::Set(args) => set(args, output),
    }
}

fn set(args: &QuotaSetArgs, output: &mut Output) -> Result<(), Fault> {
    let quotas: Vec<Value> = args
        .quotas
        .iter()
        .map(|quota| json!({ "meter": quota.meter, "limit": quota.limit, "window": quota.window }))
        .collect();
    let path = format!("/v1/tenants/{}/quotas", segment(&args.tenant));
    let body = json!({ "quotas": quotas });
    let state = Client::new(&args.server)?.send(Method::PUT, &path, &body)?;
    show(output, &state)
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
