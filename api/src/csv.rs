//! CSV: any list of the API as a table, and cells that no spreadsheet takes for formulas.
//!
//! A list's items are flattened: an object's members get dotted names, a list in an item is one
//! cell of JSON. Columns come in the order in which the page's items first name them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use actix_web::HttpResponse;
use actix_web::body::MessageBody as _;
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::call::Answer;
use crate::error::ApiError;

/// Columns of one page; tags give names to some of them.
const COLUMNS_MAX: usize = 1_000;

/// JSON whose members keep their order.
#[derive(Debug)]
enum Json {
    Plain(serde_json::Value),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

/// Whether the client would rather have CSV than JSON.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let given = headers
        .get_all("accept")
        .filter_map(|value| value.to_str().ok());
    let ranges: Vec<&str> = given.flat_map(|value| value.split(',')).collect();
    let weight = |kind: &str| {
        let named = ranges.iter().filter_map(|range| {
            let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
            name.trim()
                .eq_ignore_ascii_case(kind)
                .then(|| thousandths(parameters))
        });
        named.max()
    };
    weight("text/csv").is_some_and(|csv| csv > 0 && Some(csv) >= weight("application/json"))
}

/// The weight that parameters of a media range give it, in thousandths.
fn thousandths(parameters: &str) -> u32 {
    let mut each = parameters.split(';').map(str::trim);
    let Some(text) = each.find_map(|one| one.strip_prefix("q=")) else {
        return 1_000;
    };
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{:0<3.3}", rest);
    digits.parse().unwrap_or(0)
}

/// The list that `response` carries, as a table; everything else as it is. The page's cursor and
/// `as_of` go into headers.
pub(crate) fn list(response: HttpResponse) -> Answer {
    let json = response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind == "application/json");
    if response.status() != StatusCode::OK || !json {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let bytes = match body.try_into_bytes() {
        Ok(bytes) => bytes,
        Err(body) => return Ok(head.set_body(body)),
    };
    let Ok(Json::Map(members)) = serde_json::from_slice(&bytes) else {
        return Ok(head.set_body(bytes).map_into_boxed_body());
    };
    let member = |name: &str| {
        members
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    };
    let Some(Json::List(items)) = member("items") else {
        return Ok(head.set_body(bytes).map_into_boxed_body());
    };
    let mut answer = HttpResponse::Ok();
    answer.content_type("text/csv; charset=utf-8");
    if let Some(Json::Plain(serde_json::Value::String(cursor))) = member("next_cursor") {
        answer.insert_header(("Farebox-Next-Cursor", cursor.as_str()));
    }
    if let Some(Json::Map(as_of)) = member("as_of") {
        let seq = as_of.iter().find(|(name, _)| name == "seq");
        answer.insert_header((
            "Farebox-As-Of",
            seq.map_or(String::new(), |(_, seq)| seq.cell()),
        ));
    }
    Ok(answer.body(table(items)?))
}

fn table(items: &[Json]) -> Result<Vec<u8>, ApiError> {
    let mut columns: Vec<String> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut rows: Vec<Vec<(usize, String)>> = Vec::with_capacity(items.len());
    for item in items {
        let mut row = Vec::new();
        flatten(String::new(), item, &mut |name, cell| {
            let place = *places.entry(name).or_insert_with_key(|name| {
                columns.push(name.clone());
                columns.len() - 1
            });
            row.push((place, cell));
        });
        if columns.len() > COLUMNS_MAX {
            let detail = format!("these items have more than {COLUMNS_MAX} columns; ask for fewer");
            return Err(ApiError::invalid("?limit", detail));
        }
        rows.push(row);
    }
    let mut out = Vec::new();
    let mut table = Table::new(&mut out);
    if !columns.is_empty() {
        table.row(columns.iter().map(String::as_str));
    }
    for row in rows {
        let mut cells = vec![String::new(); columns.len()];
        for (place, cell) in row {
            if let Some(empty) = cells.get_mut(place) {
                *empty = cell;
            }
        }
        table.row(cells.iter().map(String::as_str));
    }
    drop(table);
    Ok(out)
}

fn flatten(name: String, value: &Json, on: &mut impl FnMut(String, String)) {
    match value {
        Json::Map(members) => {
            for (member, value) in members {
                let name = match name.as_str() {
                    "" => member.clone(),
                    outer => format!("{outer}.{member}"),
                };
                flatten(name, value, on);
            }
        }
        other => on(name, other.cell()),
    }
}

impl Json {
    /// As one cell.
    fn cell(&self) -> String {
        match self {
            Json::Plain(serde_json::Value::Null) => String::new(),
            Json::Plain(serde_json::Value::String(text)) => text.clone(),
            other => serde_json::to_string(other).unwrap_or_default(),
        }
    }
}

/// Writes rows behind what a buffer has. Every cell is neutralised.
pub(crate) struct Table<'a> {
    writer: csv::Writer<&'a mut Vec<u8>>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Table<'a> {
        let mut builder = csv::WriterBuilder::new();
        let writer = builder
            .flexible(true)
            .buffer_capacity(1 << 10)
            .from_writer(out);
        Table { writer }
    }

    pub(crate) fn row<'c>(&mut self, cells: impl IntoIterator<Item = &'c str>) {
        let cells = cells.into_iter().map(neutral);
        // Memory takes all that is written, and rows may be of any length.
        drop(
            self.writer
                .write_record(cells.map(|cell| cell.into_owned())),
        );
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        drop(self.writer.flush());
    }
}

/// A cell that a spreadsheet shows as it stands: what it would take for a formula gets a `'` in
/// front, unless it is a plain number.
pub(crate) fn neutral(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && !is_number(cell) {
        return Cow::Owned(format!("'{cell}"));
    }
    Cow::Borrowed(cell)
}

fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    numeric(whole) && numeric(rest)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Plain(serde_json::Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Json::Map(map))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Plain(value) => value.serialize(serializer),
            Json::List(items) => serializer.collect_seq(items),
            Json::Map(members) => {
                serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn wanted(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(accept).unwrap();
        headers.insert(HeaderName::from_static("accept"), value);
        is_wanted(&headers)
    }

    #[test]
    fn csv_is_sent_to_who_asks_for_it() {
        for yes in [
            "text/csv",
            "TEXT/CSV; charset=utf-8",
            "application/json;q=0.5, text/csv;q=0.9",
            "text/csv, application/json",
            "*/*, text/csv;q=0.001",
        ] {
            assert!(wanted(yes), "{yes}");
        }
        for no in [
            "",
            "*/*",
            "application/json",
            "text/csv;q=0",
            "text/csv;q=0.8, application/json;q=0.81",
            "text/csv-schema",
        ] {
            assert!(!wanted(no), "{no}");
        }
    }

    #[test]
    fn formulas_are_neutralised_and_numbers_are_not() {
        for formula in [
            "=1+1", "+1", "-1+1", "@SUM(A1)", "\tx", "\rx", "--1", "-", "-1e3", "-.5",
        ] {
            assert_eq!(neutral(formula), format!("'{formula}"));
        }
        for plain in ["-1", "-0.000000000001", "1", "a=1", "", " =1", "'=1"] {
            assert_eq!(neutral(plain), plain);
        }
    }

    #[test]
    fn items_are_flattened_in_their_order() {
        let items: Vec<Json> = serde_json::from_str(
            r#"[{"z": 1, "a": {"tag:x": "=1", "b": null}, "list": [1, {"y": 2, "x": "\u00e9\""}]},
                {"z": "-2", "new": "a,b\nc", "a": {}, "ok": true}]"#,
        )
        .unwrap();
        let text = String::from_utf8(table(&items).unwrap()).unwrap();
        let wanted = "z,a.tag:x,a.b,list,new,ok\n\
            1,'=1,,\"[1,{\"\"y\"\":2,\"\"x\"\":\"\"\u{e9}\\\"\"\"\"}]\",,\n\
            -2,,,,\"a,b\nc\",true\n";
        assert_eq!(text, wanted);
        assert_eq!(table(&[]).unwrap(), b"");
    }

    #[test]
    fn columns_are_bounded() {
        let names: Vec<String> = (0..=COLUMNS_MAX).map(|n| format!("\"c{n}\": 1")).collect();
        let items: Vec<Json> = serde_json::from_str(&format!("[{{{}}}]", names.join(","))).unwrap();
        assert!(matches!(table(&items), Err(ApiError::InvalidArgument(_))));
    }
}
