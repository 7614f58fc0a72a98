//! The commands' side of the HTTP API: one request, one answer, faults with a cure.

use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Method;

use super::arguments::ServerArgs;
use super::exit::Exit;
use super::fault::Fault;

/// Longest that a request may take: a read waits for the ledger's view, never for an execution.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One server, asked as one caller.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
    token: String,
}

impl Client {
    /// Does not speak to the server yet.
    pub(crate) fn new(server: &ServerArgs) -> Result<Self, Fault> {
        let Some(token) = server.token.clone() else {
            return Err(Fault::new(Exit::Usage, "no token")
                .because("neither --token nor FAREBOX_TOKEN is given")
                .cure("FAREBOX_TOKEN=$(cat DIR/admin.token), or a tenant's token"));
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .build()
            .new_agent();
        let url = server.url.trim_end_matches('/').to_owned();
        Ok(Self {
            agent,
            url,
            token: token.trim().to_owned(),
        })
    }

    /// `GET path?query`.
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Fault> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in query {
            request = request.query(*name, *value);
        }
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        self.answer(&Method::GET, path, request.call())
    }

    /// All items of a list, page after page.
    pub(crate) fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, Fault> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let mut page = self.get(path, &query)?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            cursor = page
                .get("next_cursor")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// `POST` or `PUT` of a JSON body.
    pub(crate) fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Fault> {
        let url = format!("{}{path}", self.url);
        let request = if method == Method::PUT {
            self.agent.put(url)
        } else {
            self.agent.post(url)
        };
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        self.answer(&method, path, request.send_json(body))
    }

    /// `DELETE path?query`.
    pub(crate) fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Fault> {
        let mut request = self.agent.delete(format!("{}{path}", self.url));
        for (name, value) in query {
            request = request.query(*name, *value);
        }
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        self.answer(&Method::DELETE, path, request.call())
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Fault> {
        let what = format!("{method} {}{path} failed", self.url);
        let mut answer = answer.map_err(|error| {
            Fault::new(Exit::Unavailable, what.clone())
                .caused_by(&error)
                .cure("is the server running? its address is in DIR/address; give --url")
        })?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().map_err(|error| {
            Fault::new(Exit::Unavailable, what.clone())
                .caused_by(&error)
                .cure("try again")
        })?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            json_of(&text)
        };
        if (200..300).contains(&status) {
            Ok(body)
        } else {
            Err(refused(what, status, &body))
        }
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A fault out of problem details: its code, its words, all that is wrong, what to do.
fn refused(what: String, status: u16, body: &Value) -> Fault {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or("");
    let code = text("code");
    let words = if text("detail").is_empty() {
        text("title")
    } else {
        text("detail")
    };
    let mut cause = format!("{status} {code}: {words}");
    for fault in body
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let part = |name: &str| fault.get(name).and_then(Value::as_str).unwrap_or("");
        cause.push_str(&format!("\n{} {}", part("pointer"), part("detail")));
    }
    let cure = match code {
        "unauthenticated" => "give a token that is valid here: farebox token create",
        "forbidden" => {
            "use a token whose role allows this; the roles are in farebox token create -h"
        }
        "not_found" => "check the name, and that the token is for that tenant",
        "invalid_argument" => "mend what is named above",
        "conflict" => "read it again, then try again",
        "overloaded" | "draining" | "unavailable" => "try again in a moment",
        _ => "",
    };
    let exit = if status >= 500 {
        Exit::Unavailable
    } else {
        Exit::Refused
    };
    Fault::new(exit, what).because(cause).cure(cure)
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte));
            }
            byte => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problem_details_become_cause_and_cure() {
        let body = json!({
            "code": "invalid_argument", "title": "The request is malformed",
            "errors": [{"pointer": "/name", "detail": "is empty"}],
        });
        let fault = refused("POST /v1/tenants failed".to_owned(), 400, &body);
        assert_eq!(fault.exit, Exit::Refused);
        assert!(fault.cause.ends_with("\n/name is empty"), "{}", fault.cause);
        assert!(!fault.cure.is_empty());
    }

    #[test]
    fn a_server_that_cannot_is_told_from_one_that_will_not() {
        let fault = refused(String::new(), 503, &json!({"code": "overloaded"}));
        assert_eq!(fault.exit, Exit::Unavailable);
    }

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("../a b"), "..%2Fa%20b");
    }
}
