//! `farebox token`: tokens minted offline, with the key in the data directory.

use api::{Clock, Keys, Mint, Role};
use serde_json::json;

use super::arguments::TokenArgs;
use super::data_dir;
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;
use super::place::configuration;

/// Mints one token and prints it alone, so that it can be taken up by `$(...)`.
pub(crate) fn create(args: &TokenArgs, output: &mut Output) -> Result<(), Fault> {
    let config = configuration(&args.place, Vec::new())?;
    let role = role(&args.role, args.tenant.is_some())?;
    if args.expires > config.tokens.expires_max_s {
        return Err(
            Fault::new(Exit::Usage, format!("cannot mint for {} s", args.expires))
                .because(format!(
                    "tokens.expires_max_s is {}",
                    config.tokens.expires_max_s
                ))
                .cure("give a shorter --expires"),
        );
    }
    data_dir::prepare(&config.server.data_dir, config.server.user)?;
    let what = format!(
        "cannot mint a token with the key in {}",
        config.server.data_dir.display()
    );
    let clock = Clock::system();
    let keys = Keys::open(&config.server.data_dir, &clock).map_err(|error| {
        Fault::new(Exit::Failed, what.clone())
            .caused_by(&error)
            .cure("give the server's --data-dir, as root or as the user that it runs as")
    })?;
    let named = args.subject.clone().or_else(|| args.tenant.clone());
    let subject = named.unwrap_or_else(|| "operator".to_owned());
    let mint = Mint {
        subject,
        tenant: args.tenant.clone(),
        project: None,
        scopes: role.scopes(),
        expires_s: args.expires,
    };
    let (token, claims) = api::mint(&keys, &config.tokens, &clock, mint)
        .map_err(|error| Fault::new(Exit::Failed, what).caused_by(&error))?;
    if output.json {
        return output.value(&json!({
            "token": token, "jti": claims.jti, "tenant": claims.tenant, "scope": claims.scope,
            "expires_at_s": claims.exp,
        }));
    }
    output.line(&token)
}

fn role(name: &str, of_tenant: bool) -> Result<Role, Fault> {
    let whose = if of_tenant { "a tenant" } else { "an operator" };
    let fitting = |role: Role| role.is_operators() != of_tenant;
    if let Some(role) = Role::from_name(name).filter(|role| fitting(*role)) {
        return Ok(role);
    }
    let names: Vec<&str> = Role::ALL
        .iter()
        .filter(|(role, _)| fitting(*role))
        .map(|(_, name)| *name)
        .collect();
    Err(
        Fault::new(Exit::Usage, format!("{name} is no role of {whose}"))
            .because(format!("the roles of {whose} are {}", names.join(", ")))
            .cure("give one of them; --tenant says whose token it is"),
    )
}
