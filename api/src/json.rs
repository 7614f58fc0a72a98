//! Reads request bodies strictly: bounded in depth, every unknown field named, all faults told at
//! once.

use serde_json::{Map, Value};

use crate::error::{ApiError, Fault};

/// The faults found so far; reading goes on after one, so that a client learns of all at once.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

/// More than this are cut off: a hostile body must not make a larger answer.
const FAULTS_MAX: usize = 50;

impl Faults {
    pub(crate) fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(Fault::new(pointer, detail));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<Fault> {
        self.0
    }

    /// `value`, if nothing is wrong.
    pub(crate) fn check<T>(self, value: T) -> Result<T, ApiError> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(ApiError::InvalidArgument(self.0))
        }
    }
}

/// Parses a body as a JSON object no deeper than `depth_max`; an empty body is an empty object.
pub(crate) fn parse(body: &[u8], depth_max: usize) -> Result<Map<String, Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    if depth(body) > depth_max {
        return Err(ApiError::invalid(
            "",
            format!("JSON is nested deeper than {depth_max}"),
        ));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::invalid("", "the body must be a JSON object")),
        Err(error) => Err(ApiError::invalid("", format!("malformed JSON: {error}"))),
    }
}

/// How deep arrays and objects are nested in `body`, strings left out.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The pointer of `name` below `path`, escaped as RFC 6901 has it and cut to a sane length.
pub(crate) fn pointer(path: &str, name: &str) -> String {
    let name: String = name.chars().take(128).collect();
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// One object that is being read: every field is taken once, and what is left at the end is
/// unknown.
pub(crate) struct Object<'f> {
    map: Map<String, Value>,
    path: String,
    faults: &'f mut Faults,
    #[cfg(test)]
    asked: Vec<&'static str>,
}

impl<'f> Object<'f> {
    pub(crate) fn new(map: Map<String, Value>, faults: &'f mut Faults) -> Object<'f> {
        Object::below(map, String::new(), faults)
    }

    pub(crate) fn below(
        map: Map<String, Value>,
        path: String,
        faults: &'f mut Faults,
    ) -> Object<'f> {
        Object {
            map,
            path,
            faults,
            #[cfg(test)]
            asked: Vec::new(),
        }
    }

    /// Takes a field; null is the same as absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Value> {
        #[cfg(test)]
        self.asked.push(name);
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = pointer(&self.path, name);
        self.faults.add(pointer, detail);
    }

    /// A fault in a part of a field.
    pub(crate) fn fault_in(&mut self, name: &str, part: &str, detail: impl Into<String>) {
        let pointer = pointer(&pointer(&self.path, name), part);
        self.faults.add(pointer, detail);
    }

    /// A string of at most `max` bytes without NUL.
    pub(crate) fn text(&mut self, name: &'static str, max: usize) -> Option<String> {
        match self.take(name)? {
            Value::String(text) if text.len() > max => {
                self.fault(name, format!("is longer than {max} bytes"));
                None
            }
            Value::String(text) if text.contains('\0') => {
                self.fault(name, "contains a NUL");
                None
            }
            Value::String(text) => Some(text),
            _ => {
                self.fault(name, "must be a string");
                None
            }
        }
    }

    /// As [`Object::text`], and absence is a fault.
    pub(crate) fn required_text(&mut self, name: &'static str, max: usize) -> Option<String> {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.take(name);
            self.fault(name, "is required");
            return None;
        }
        self.text(name, max)
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn integer(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let value = self.take(name)?;
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            let what = if value.is_number() {
                "is"
            } else {
                "must be a whole number"
            };
            match value.as_number() {
                Some(_) => self.fault(name, format!("{what} not from {min} to {max}")),
                None => self.fault(name, what),
            }
        }
        number
    }

    /// Yes or no.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.fault(name, "must be true or false");
                None
            }
        }
    }

    /// A list of at most `max` items.
    pub(crate) fn list(&mut self, name: &'static str, max: usize) -> Option<Vec<Value>> {
        match self.take(name)? {
            Value::Array(items) if items.len() > max => {
                self.fault(name, format!("has more than {max} items"));
                None
            }
            Value::Array(items) => Some(items),
            _ => {
                self.fault(name, "must be a list");
                None
            }
        }
    }

    /// A list of at most `max` strings without NUL.
    pub(crate) fn texts(&mut self, name: &'static str, max: usize) -> Option<Vec<String>> {
        let items = self.list(name, max)?;
        let mut texts = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) if !text.contains('\0') => texts.push(text),
                _ => self.fault_in(name, &at.to_string(), "must be a string without NUL"),
            }
        }
        Some(texts)
    }

    /// An object whose fields are the caller's own names: name and value pairs in the order of
    /// names.
    pub(crate) fn map(&mut self, name: &'static str, max: usize) -> Option<Vec<(String, String)>> {
        let Value::Object(map) = self.take(name)? else {
            self.fault(name, "must be an object");
            return None;
        };
        if map.len() > max {
            self.fault(name, format!("has more than {max} fields"));
            return None;
        }
        let mut pairs = Vec::with_capacity(map.len());
        for (key, value) in map {
            match value {
                Value::String(value) if !value.contains('\0') => pairs.push((key, value)),
                _ => {
                    let path = pointer(&pointer(&self.path, name), &key);
                    self.faults.add(path, "must be a string without NUL");
                }
            }
        }
        Some(pairs)
    }

    /// Reads an object below this one.
    pub(crate) fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Object<'_>) -> T,
    ) -> Option<T> {
        let Value::Object(map) = self.take(name)? else {
            self.fault(name, "must be an object");
            return None;
        };
        let path = pointer(&self.path, name);
        let mut below = Object::below(map, path, self.faults);
        let value = read(&mut below);
        below.finish();
        Some(value)
    }

    /// Reads a list of objects below this one.
    pub(crate) fn objects<T>(
        &mut self,
        name: &'static str,
        max: usize,
        mut read: impl FnMut(&mut Object<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.list(name, max)?;
        let mut values = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let path = pointer(&pointer(&self.path, name), &at.to_string());
            let Value::Object(map) = item else {
                self.faults.add(path, "must be an object");
                continue;
            };
            let mut below = Object::below(map, path, self.faults);
            values.extend(read(&mut below));
            below.finish();
        }
        Some(values)
    }

    /// Names every field that nothing has asked for.
    pub(crate) fn finish(self) {
        for name in self.map.keys() {
            self.faults.add(pointer(&self.path, name), "unknown field");
        }
    }

    /// The names that were asked for.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> &[&'static str] {
        &self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let mut faults = Faults::default();
        let Value::Object(map) = json!({
            "name": 1, "count": 0, "tags": {"a/b": 2}, "inner": {"odd": 1}, "odd": true, "odder": 2
        }) else {
            unreachable!()
        };
        let mut body = Object::new(map, &mut faults);
        body.required_text("name", 10);
        body.required_text("missing", 10);
        body.integer("count", 1, 5);
        body.map("tags", 4);
        body.object("inner", |_| ());
        body.finish();
        let found: Vec<String> = faults.into_vec().into_iter().map(|f| f.pointer).collect();
        let all = [
            "/name",
            "/missing",
            "/count",
            "/tags/a~1b",
            "/inner/odd",
            "/odd",
            "/odder",
        ];
        assert_eq!(found, all);
    }

    #[test]
    fn depth_is_bounded_before_parsing_and_strings_do_not_count() {
        let deep = "[".repeat(100_000);
        assert!(parse(format!("{{\"a\":{deep}").as_bytes(), 32).is_err());
        let text = format!("{{\"a\":\"{deep}\\\"[\"}}");
        assert!(parse(text.as_bytes(), 1).is_ok());
        assert_eq!(depth(b"{\"a\":[{}]}"), 3);
    }

    #[test]
    fn only_objects_are_bodies() {
        assert!(parse(b"[]", 8).is_err());
        assert!(parse(b"{", 8).is_err());
        assert!(parse(b" ", 8).unwrap().is_empty());
    }

    #[test]
    fn a_body_of_faults_makes_a_bounded_answer() {
        let fields: Map<String, Value> = (0..10_000)
            .map(|n| (format!("f{n}"), Value::Null))
            .collect();
        let mut faults = Faults::default();
        Object::new(fields, &mut faults).finish();
        assert_eq!(faults.into_vec().len(), FAULTS_MAX);
    }
}
