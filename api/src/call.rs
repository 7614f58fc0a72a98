//! One request as handlers see it: authenticated, bounded, with strict readers for path, query and
//! body.

use std::sync::Arc;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::json::{self, Faults, Object};
use crate::registry::Tenant;

/// What a handler answers.
pub(crate) type Answer = Result<HttpResponse, ApiError>;

/// A request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    /// Absent on the few routes that are open to all.
    pub(crate) caller: Option<Caller>,
    pub(crate) http: HttpRequest,
    pub(crate) body: Bytes,
    pub(crate) request_id: String,
}

/// The parameters of a query; every one is taken once, and what is left at the end is unknown.
#[derive(Debug)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    pub(crate) faults: Faults,
}

/// Longest cursor that is handed out, in bytes: one of usage carries the names of three groups.
const CURSOR_MAX: usize = 4_096;

/// Where a list begins and how long it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) limit: usize,
    /// What the cursor says, if there is one.
    pub(crate) cursor: Option<T>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

impl<T> List<T> {
    /// The first `limit` of `items`, which has one more if there is a next page.
    pub(crate) fn cut(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> List<T> {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more { items.last().map(cursor) } else { None };
        List { items, next_cursor }
    }
}

impl Call {
    /// Who is asking. Routes that call this are not open.
    pub(crate) fn caller(&self) -> Result<&Caller, ApiError> {
        self.caller.as_ref().ok_or(ApiError::Unauthenticated {
            reason: "an open route",
        })
    }

    /// Refuses everybody but operators.
    pub(crate) fn operator(&self) -> Result<(), ApiError> {
        if self.caller()?.is_operator() {
            return Ok(());
        }
        Err(ApiError::Forbidden {
            detail: "this is for operators".to_owned(),
        })
    }

    /// A segment of the path.
    pub(crate) fn path(&self, name: &str) -> &str {
        self.http.match_info().query(name)
    }

    /// A header, if it is there and is ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.http
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    }

    /// The parameters of the query.
    pub(crate) fn query(&self) -> Result<Query, ApiError> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(self.http.query_string());
        let pairs = pairs
            .map_err(|error| ApiError::invalid("?", error.to_string()))?
            .into_inner();
        let mut faults = Faults::default();
        for (at, (name, _)) in pairs.iter().enumerate() {
            // Tags may be given more than once; everything else means one thing.
            if name != "tag" && pairs.iter().take(at).any(|(other, _)| other == name) {
                faults.add(format!("?{}", shown(name)), "is given twice");
            }
        }
        Ok(Query { pairs, faults })
    }

    /// Refuses a query of any kind.
    pub(crate) fn no_query(&self) -> Result<(), ApiError> {
        self.query()?.finish()
    }

    /// The body as a JSON object.
    pub(crate) fn object(&self) -> Result<serde_json::Map<String, serde_json::Value>, ApiError> {
        json::parse(&self.body, self.app.config.server.json_depth_max)
    }

    /// Reads the body as a JSON object; all faults at once.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&mut Object<'_>) -> Option<T>,
    ) -> Result<T, ApiError> {
        Self::read_map(self.object()?, read)
    }

    /// As [`Call::read`], where a bare list stands for an object with the list in `field`.
    pub(crate) fn read_list<T>(
        &self,
        field: &str,
        read: impl FnOnce(&mut Object<'_>) -> Option<T>,
    ) -> Result<T, ApiError> {
        let first = self.body.iter().find(|byte| !byte.is_ascii_whitespace());
        if first != Some(&b'[') {
            return self.read(read);
        }
        let wrapped = [b"{\"", field.as_bytes(), b"\":", &self.body, b"}"].concat();
        Self::read_map(
            json::parse(&wrapped, self.app.config.server.json_depth_max)?,
            read,
        )
    }

    /// As [`Call::read`], of an object that has been parsed.
    pub(crate) fn read_map<T>(
        map: serde_json::Map<String, serde_json::Value>,
        read: impl FnOnce(&mut Object<'_>) -> Option<T>,
    ) -> Result<T, ApiError> {
        let mut faults = Faults::default();
        let mut object = Object::new(map, &mut faults);
        let value = read(&mut object);
        object.finish();
        let value = faults.check(value)?;
        value.ok_or_else(|| ApiError::internal("a reader found nothing and named no fault"))
    }

    /// The tenant that the path names: a tenant's token reaches its own alone, an operator's
    /// reaches all.
    pub(crate) fn path_tenant(&self) -> Result<Arc<Tenant>, ApiError> {
        let name = self.path("tenant");
        let caller = self.caller()?;
        if caller.tenant_name().is_some_and(|own| own != name) {
            return Err(ApiError::NotFound { what: "tenant" });
        }
        self.app
            .registry
            .tenant(name)
            .ok_or(ApiError::NotFound { what: "tenant" })
    }

    /// The tenant that a request is about: the token's, or the one that an operator names with
    /// `?tenant=`.
    pub(crate) fn tenant(&self, query: &mut Query) -> Result<Option<Arc<Tenant>>, ApiError> {
        let named = query.take("tenant");
        let caller = self.caller()?;
        match (&caller.tenant, named) {
            (Some(own), None) => Ok(Some(Arc::clone(own))),
            (Some(own), Some(name)) if own.profile.name == name => Ok(Some(Arc::clone(own))),
            (Some(_), Some(_)) => Err(ApiError::NotFound { what: "tenant" }),
            (None, None) => Ok(None),
            (None, Some(name)) => {
                let tenant = self.app.registry.tenant(&name);
                tenant
                    .map(Some)
                    .ok_or(ApiError::NotFound { what: "tenant" })
            }
        }
    }

    /// As [`Call::tenant`], for requests that must be about one.
    pub(crate) fn one_tenant(&self, query: &mut Query) -> Result<Arc<Tenant>, ApiError> {
        self.tenant(query)?
            .ok_or_else(|| ApiError::invalid("?tenant", "is required with an operator's token"))
    }

    /// What `If-Match` expects: the entry that set what is to be replaced.
    pub(crate) fn if_match(&self) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.header("if-match") else {
            return Ok(None);
        };
        if text.trim() == "*" {
            return Ok(None);
        }
        let digits = text
            .trim()
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(seq) => Ok(Some(seq)),
            // A tag that was never handed out matches nothing.
            None => Err(ApiError::Conflict {
                detail: "If-Match does not match".to_owned(),
            }),
        }
    }
}

impl Query {
    /// Takes a parameter.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.remove(at).1)
    }

    /// Whether a parameter is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == name)
    }

    /// Takes a parameter that may be given more than once.
    pub(crate) fn take_all(&mut self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        while let Some(value) = self.take(name) {
            values.push(value);
        }
        values
    }

    /// All `tag=KEY:VALUE`.
    pub(crate) fn tags(&mut self) -> Vec<(String, String)> {
        let mut tags = Vec::new();
        for tag in self.take_all("tag") {
            match tag.split_once(':') {
                Some((key, value)) => tags.push((key.to_owned(), value.to_owned())),
                None => self.faults.add("?tag", "must be KEY:VALUE"),
            }
        }
        tags
    }

    /// An RFC 3339 time, in microseconds.
    pub(crate) fn time(&mut self, name: &str) -> Option<i64> {
        let text = self.take(name)?;
        let time = crate::clock::parse_rfc3339(&text);
        if time.is_none() {
            self.faults
                .add(format!("?{name}"), "must be an RFC 3339 time");
        }
        time
    }

    /// The number of an entry.
    pub(crate) fn number(&mut self, name: &str) -> Option<u64> {
        let text = self.take(name)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        if number.is_none() {
            self.faults
                .add(format!("?{name}"), "must be the number of an entry");
        }
        number
    }

    /// `limit` and `cursor`; `read` knows the cursors that this list hands out.
    pub(crate) fn page<T>(&mut self, app: &App, read: impl FnOnce(&str) -> Option<T>) -> Page<T> {
        let server = &app.config.server;
        let limit = match self.take("limit").map(|text| text.parse::<usize>()) {
            None => server.list_limit,
            Some(Ok(limit)) if (1..=server.list_limit_max).contains(&limit) => limit,
            Some(_) => {
                let detail = format!("must be a number from 1 to {}", server.list_limit_max);
                self.faults.add("?limit", detail);
                server.list_limit
            }
        };
        let given = self.take("cursor");
        let cursor = given.as_deref().and_then(|text| {
            let read = (text.len() <= CURSOR_MAX).then(|| read(text)).flatten();
            if read.is_none() {
                self.faults.add("?cursor", "is not one that was handed out");
            }
            read
        });
        Page { limit, cursor }
    }

    /// Refuses the request if a parameter was bad or unknown.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        for (name, _) in &self.pairs {
            self.faults
                .add(format!("?{}", shown(name)), "unknown parameter");
        }
        self.faults.check(())
    }
}

/// A name from the client, cut to what an answer may carry.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// A 200 with `body` as JSON.
pub(crate) fn ok(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(body)
}

/// As [`ok`], with the tag that `If-Match` takes.
pub(crate) fn tagged(seq: u64, body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("ETag", format!("\"{seq}\"")))
        .json(body)
}
