//! `farebox tenant`: tenants through the API.

use serde_json::{Value, json};
use ureq::http::Method;

use super::arguments::TenantCommand;
use super::client::{Client, segment};
use super::fault::Fault;
use super::output::Output;

/// Makes, lists, shows, suspends and resumes tenants.
pub(crate) fn tenant(command: &TenantCommand, output: &mut Output) -> Result<(), Fault> {
    match command {
        TenantCommand::Create(args) => {
            let mut body = json!({ "name": args.name });
            if let Some(name) = &args.display_name {
                body["display_name"] = json!(name);
            }
            let made = Client::new(&args.server)?.send(Method::POST, "/v1/tenants", &body)?;
            show(output, &[made])
        }
        TenantCommand::List(server) => {
            let tenants = Client::new(server)?.list("/v1/tenants", &[])?;
            show(output, &tenants)
        }
        TenantCommand::Show(args) => {
            let path = format!("/v1/tenants/{}", segment(&args.name));
            let tenant = Client::new(&args.server)?.get(&path, &[])?;
            if output.json {
                output.value(&tenant)
            } else {
                show(output, &[tenant])
            }
        }
        TenantCommand::Suspend(args) => act(args, "suspend", output),
        TenantCommand::Resume(args) => act(args, "resume", output),
    }
}

fn act(args: &super::arguments::TenantArgs, verb: &str, output: &mut Output) -> Result<(), Fault> {
    let path = format!("/v1/tenants/{}/{verb}", segment(&args.name));
    let tenant = Client::new(&args.server)?.send(Method::POST, &path, &json!({}))?;
    show(output, &[tenant])
}

fn show(output: &mut Output, tenants: &[Value]) -> Result<(), Fault> {
    if output.json {
        return output.value(&json!(tenants));
    }
    let text = |tenant: &Value, name: &str| {
        tenant
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let rows: Vec<Vec<String>> = tenants
        .iter()
        .map(|tenant| {
            let state = match tenant.get("suspended").and_then(Value::as_bool) {
                Some(true) => "suspended".to_owned(),
                Some(false) => "active".to_owned(),
                None => text(tenant, "state"),
            };
            vec![
                text(tenant, "name"),
                state,
                text(tenant, "created_at"),
                text(tenant, "display_name"),
            ]
        })
        .collect();
    output.table(&["tenant", "state", "created", "display name"], &rows)
}
