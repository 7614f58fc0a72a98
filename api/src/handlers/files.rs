//! The files of a failed run that were kept: listed, read, dropped.
//!
//! Names and contents are the tenant's: they are told in bodies only, never in a header or the log.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::{EntryKind, Kept, KeptEntry, ReadError};
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::executions;
use crate::call::{Answer, Call, Query, ok};
use crate::error::{ApiError, Problem, Retry};
use crate::record::{Encoding, State};
use crate::text::text_of;

/// Where relative paths begin.
const WORKSPACE: &[u8] = b"/workspace/";

/// Longest path in bytes: the kernel's bound.
const PATH_MAX: usize = 4095;

/// Bytes that are asked for at once.
const PIECE: u64 = 64 * 1024;

/// A page of a directory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileList {
    /// In the directory's own order.
    pub items: Vec<FileEntry>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// One entry of a directory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileEntry {
    /// Its name, as the program gave it.
    pub name: String,
    /// `utf8`, or `base64` where the name is no UTF-8 or mostly control characters.
    pub name_encoding: Encoding,
    /// `file`, `dir`, `link` or `other`.
    pub kind: &'static str,
    /// Its size; of a link, the length of its target.
    pub size_bytes: u64,
    /// Permissions in octal, as `0644`.
    pub mode: String,
}

impl From<KeptEntry> for FileEntry {
    fn from(entry: KeptEntry) -> FileEntry {
        let (name, name_encoding) = text_of(&entry.name, false);
        FileEntry {
            name,
            name_encoding,
            kind: match entry.kind {
                EntryKind::File => "file",
                EntryKind::Directory => "dir",
                EntryKind::Link => "link",
                EntryKind::Other => "other",
            },
            size_bytes: entry.size,
            mode: format!("{:04o}", entry.mode),
        }
    }
}

/// Reads a file that a failed run has left
///
/// With `Range`, one range of bytes of it.
#[utoipa::path(get, path = "/v1/executions/{id}/files", tag = "executions",
    params(("id" = String, Path), ("tenant" = Option<String>, Query),
        ("path" = String, Query, description = "relative to /workspace, or absolute"),
        ("path_encoding" = Option<Encoding>, Query), ("Range" = Option<String>, Header)),
    responses((status = 200, body = String, content_type = "application/octet-stream"),
        (status = 206, body = String, content_type = "application/octet-stream"),
        (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 410, body = Problem),
        (status = 416, body = Problem)))]
pub(crate) async fn read(call: Call) -> Answer {
    let mut query = call.query()?;
    let path = path_of(&mut query);
    let (_, kept) = kept(&call, query).await?;
    let path = path.unwrap_or_default();
    let size = kept.read(&path, 0, 0).await.map_err(unreadable)?.size;
    let range = call
        .header("range")
        .map_or(Ok(None), |text| range(text, size));
    let range = range.map_err(|Unsatisfiable| ApiError::RangeNotSatisfiable { size })?;
    let (start, end) = range.unwrap_or((0, size));
    let mut response = match range {
        None => HttpResponse::Ok(),
        Some(_) => {
            let mut partial = HttpResponse::PartialContent();
            let last = end.saturating_sub(1);
            partial.insert_header(("Content-Range", format!("bytes {start}-{last}/{size}")));
            partial
        }
    };
    let (sender, pieces) = mpsc::channel(1);
    let mut at = start;
    if start < end {
        // Before the head: once that is told, a file that has gone is a connection that is cut.
        let first = piece(&kept, &path, (start, end)).await?;
        at = start.saturating_add(u64::try_from(first.len()).unwrap_or(u64::MAX));
        drop(sender.try_send(Ok(first)));
    }
    drop(call.app.walk.spawn(send(kept, path, (at, end), sender)));
    let body = Pieces {
        size: end - start,
        pieces,
    };
    Ok(response
        .content_type("application/octet-stream")
        .insert_header(("Content-Disposition", "attachment"))
        .insert_header(("Accept-Ranges", "bytes"))
        .body(body))
}

/// Lists a directory that a failed run has left
#[utoipa::path(get, path = "/v1/executions/{id}/files/list", tag = "executions",
    params(("id" = String, Path), ("tenant" = Option<String>, Query),
        ("path" = String, Query, description = "relative to /workspace, or absolute"),
        ("path_encoding" = Option<Encoding>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = FileList), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 410, body = Problem)))]
pub(crate) async fn list(call: Call) -> Answer {
    let mut query = call.query()?;
    let path = path_of(&mut query);
    let page = query.page(&call.app, |text| text.parse::<u64>().ok());
    let (_, kept) = kept(&call, query).await?;
    let (path, mut from) = (path.unwrap_or_default(), page.cursor.unwrap_or(0));
    let mut items: Vec<FileEntry> = Vec::new();
    let mut more = true;
    while more && items.len() < page.limit {
        let most = u32::try_from(page.limit - items.len()).unwrap_or(u32::MAX);
        let part = kept.list(&path, from, most).await.map_err(unreadable)?;
        // Nothing and yet more cannot be: nobody is led in a circle.
        more = part.more && !part.entries.is_empty();
        from = from.saturating_add(u64::try_from(part.entries.len()).unwrap_or(u64::MAX));
        items.extend(part.entries.into_iter().map(FileEntry::from));
    }
    let next_cursor = more.then(|| from.to_string());
    Ok(ok(&FileList { items, next_cursor }))
}

/// Drops what a failed run has left
#[utoipa::path(delete, path = "/v1/executions/{id}/files", tag = "executions",
    params(("id" = String, Path), ("tenant" = Option<String>, Query)),
    responses((status = 204), (status = 404, body = Problem), (status = 410, body = Problem)))]
pub(crate) async fn remove(call: Call) -> Answer {
    let query = call.query()?;
    let (id, _) = kept(&call, query).await?;
    call.app.kept.end(&id);
    Ok(HttpResponse::NoContent().finish())
}

/// The kept files of the execution that the path names, if it is the caller's. The query must have
/// nothing left but the tenant.
async fn kept(call: &Call, mut query: Query) -> Result<([u8; 16], Kept), ApiError> {
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let (id, record) = executions::find_one(call, tenant).await?;
    if record.state != State::Finished {
        return Err(ApiError::Conflict {
            detail: "the execution has not ended".to_owned(),
        });
    }
    let kept = call.app.kept.get(&id).ok_or(ApiError::SandboxGone)?;
    Ok((id, kept))
}

/// `path` and `path_encoding` as bytes, absolute.
fn path_of(query: &mut Query) -> Option<Vec<u8>> {
    let encoding = query.take("path_encoding");
    let Some(text) = query.take("path") else {
        query.faults.add("?path", "is required");
        return None;
    };
    let bytes = match encoding.as_deref() {
        None | Some("utf8") => text.into_bytes(),
        Some("base64") => STANDARD.decode(&text).unwrap_or_else(|error| {
            query.faults.add("?path", format!("is not base64: {error}"));
            Vec::new()
        }),
        Some(_) => {
            query.faults.add("?path_encoding", "must be utf8 or base64");
            Vec::new()
        }
    };
    let absolute = if bytes.starts_with(b"/") {
        bytes
    } else {
        [WORKSPACE, &bytes].concat()
    };
    if absolute.len() > PATH_MAX || absolute.contains(&0) {
        let detail = format!("must be at most {PATH_MAX} bytes, without NUL");
        query.faults.add("?path", detail);
    }
    Some(absolute)
}

fn unreadable(error: ReadError) -> ApiError {
    match error {
        ReadError::Gone => ApiError::SandboxGone,
        ReadError::NotFound => ApiError::NotFound { what: "file" },
        ReadError::Denied => ApiError::Forbidden {
            detail: "the sandbox's own user may not read it".to_owned(),
        },
        ReadError::NotAFile => ApiError::invalid("?path", "is not a regular file"),
        ReadError::NotADirectory => ApiError::invalid("?path", "is not a directory"),
        ReadError::Failed { .. } => ApiError::Unavailable {
            reason: crate::config::chain(&error),
            retry: Retry::Safe,
        },
    }
}

/// No byte of the file is in the range.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// The bytes that a `Range` header means: first, and behind the last. A header that is none, or
/// that wants several ranges, means the whole file, as RFC 9110 allows.
fn range(text: &str, size: u64) -> Result<Option<(u64, u64)>, Unsatisfiable> {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|set| set.split_once('-'))
    else {
        return Ok(None);
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let found = match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.trim().is_empty() => (first, size),
        (None, Some(count)) if first.trim().is_empty() => {
            if count == 0 {
                return Err(Unsatisfiable);
            }
            (size.saturating_sub(count), size)
        }
        _ => return Ok(None),
    };
    if found.0 >= size {
        return Err(Unsatisfiable);
    }
    Ok(Some(found))
}

/// Some bytes of a file from `start` on, at most to `end`; at least one.
async fn piece(kept: &Kept, path: &[u8], (start, end): (u64, u64)) -> Result<Bytes, ApiError> {
    let piece = kept.read(path, start, PIECE.min(end - start)).await;
    match piece.map_err(unreadable)? {
        piece if piece.bytes.is_empty() => Err(ApiError::SandboxGone),
        piece => Ok(Bytes::from(piece.bytes)),
    }
}

/// Reads a file from `start` to `end`, as fast as somebody takes it.
async fn send(
    kept: Kept,
    path: Vec<u8>,
    (start, end): (u64, u64),
    sender: mpsc::Sender<Result<Bytes, Cut>>,
) {
    let mut at = start;
    while at < end {
        let piece = piece(&kept, &path, (at, end)).await.map_err(|_gone| Cut);
        let read = piece
            .as_ref()
            .map_or(end, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        at = at.saturating_add(read);
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

/// The files went while one was being read: the connection is cut, as its length was told.
#[derive(Debug, thiserror::Error)]
#[error("the file went while it was being read")]
struct Cut;

/// The body of a file.
struct Pieces {
    size: u64,
    pieces: mpsc::Receiver<Result<Bytes, Cut>>,
}

impl MessageBody for Pieces {
    type Error = Cut;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Cut>>> {
        self.pieces.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_everything_else_is_the_whole() {
        for (text, found) in [
            ("bytes=0-0", Ok(Some((0, 1)))),
            ("bytes=2-", Ok(Some((2, 10)))),
            ("bytes=-3", Ok(Some((7, 10)))),
            ("bytes=-99", Ok(Some((0, 10)))),
            ("bytes=5-99", Ok(Some((5, 10)))),
            ("bytes=0-18446744073709551615", Ok(Some((0, 10)))),
            ("bytes=0-99999999999999999999999", Ok(Some((0, 10)))),
            ("bytes=10-", Err(Unsatisfiable)),
            ("bytes=99999999999999999999999-", Err(Unsatisfiable)),
            ("bytes=-0", Err(Unsatisfiable)),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=+1-2", Ok(None)),
            ("bytes=-", Ok(None)),
            ("lines=0-1", Ok(None)),
            ("", Ok(None)),
        ] {
            assert_eq!(range(text, 10), found, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Err(Unsatisfiable));
    }
}
