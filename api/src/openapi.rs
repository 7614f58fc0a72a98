//! The OpenAPI document, made from the handlers; a test holds it and the routes together.

use std::sync::OnceLock;

use utoipa::openapi::RefOr;
use utoipa::openapi::content::Content;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::handlers::{
    adjustments, audit, budgets, credit, denials, entries, estimate, events, executions, exports,
    files, forecast, grants, holds, operations, periods, proofs, quota_changes, quotas, rates,
    reconciliation, statements, tenants, tokens, totals, usage, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Farebox", description = "Runs other people's code and writes down what it cost."),
    paths(
        operations::healthz,
        operations::readyz,
        operations::metrics,
        operations::openapi,
        tokens::jwks,
        tenants::create,
        tenants::list,
        tenants::get,
        tenants::patch,
        tenants::suspend,
        tenants::resume,
        tokens::create,
        tokens::list,
        tokens::revoke,
        quotas::get,
        quotas::put,
        quota_changes::list,
        quota_changes::create,
        quota_changes::cancel,
        quotas::own,
        quotas::limits,
        quotas::put_limits,
        budgets::get,
        budgets::put,
        budgets::delete,
        budgets::own,
        webhooks::list,
        webhooks::get,
        webhooks::put,
        webhooks::delete,
        webhooks::deliveries,
        webhooks::retry,
        executions::create,
        executions::list,
        executions::get,
        executions::cancel,
        events::follow,
        files::read,
        files::list,
        files::remove,
        usage::usage,
        usage::costs,
        forecast::forecast,
        exports::export,
        entries::entries,
        entries::one,
        holds::list,
        denials::counts,
        denials::recent,
        estimate::estimate,
        rates::list,
        rates::create,
        grants::list,
        grants::create,
        grants::void,
        credit::terms,
        credit::put_terms,
        proofs::checkpoint,
        proofs::sign,
        proofs::keys,
        proofs::inclusion,
        proofs::consistency,
        audit::acts,
        reconciliation::get,
        statements::statement,
        totals::totals,
        statements::preview,
        periods::list,
        periods::close,
        adjustments::list,
        adjustments::propose,
        adjustments::approve,
        adjustments::reject,
    ),
    security(("bearer" = []), ("api_key" = [])),
    modifiers(&Tokens, &Lists)
)]
struct Document;

/// The two places where a token may stand.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKeyValue::new("X-Api-Key");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// Every list is also there as CSV.
struct Lists;

impl Modify for Lists {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let schemas = openapi.components.as_ref().map(|all| all.schemas.clone());
        let is_list = |name: &str| match schemas.as_ref().and_then(|all| all.get(name)) {
            Some(RefOr::T(Schema::Object(object))) => object.properties.contains_key("items"),
            _ => false,
        };
        let text = || {
            let text = ObjectBuilder::new().schema_type(Type::String);
            Content::new(Some(text.build()))
        };
        for item in openapi.paths.paths.values_mut() {
            let Some(operation) = &mut item.get else {
                continue;
            };
            let answer = operation.responses.responses.get_mut("200");
            let Some(RefOr::T(answer)) = answer else {
                continue;
            };
            let schema = answer
                .content
                .get("application/json")
                .and_then(|json| json.schema.as_ref());
            let name = match schema {
                Some(RefOr::Ref(reference)) => reference.ref_location.rsplit('/').next(),
                _ => None,
            };
            if name.is_some_and(is_list) {
                answer.content.insert("text/csv".to_owned(), text());
            }
        }
    }
}

/// The document as JSON.
pub(crate) fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| Document::openapi().to_pretty_json().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::ROUTES;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(document()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                documented.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let routes: BTreeSet<String> = ROUTES
            .iter()
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        assert_eq!(documented, routes);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    }

    /// Every field that a client can see says what it is.
    #[test]
    fn every_property_of_every_schema_is_described() {
        let document: serde_json::Value = serde_json::from_str(document()).unwrap();
        let plain = ["Measured", "Jwk", "LimitsBody"];
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let Some(properties) = schema["properties"].as_object() else {
                continue;
            };
            for (property, inner) in properties {
                let described =
                    inner["description"].is_string() || inner.to_string().contains("$ref");
                assert!(
                    described || plain.contains(&name.as_str()),
                    "{name}.{property}"
                );
            }
        }
    }
}
