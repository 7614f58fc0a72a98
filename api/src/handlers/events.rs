//! Server-sent events of an execution: `started`, `stdout`, `stderr`, `finished`, live or replayed.
//!
//! A reader goes at its own pace over what the execution keeps anyway, so that a slow one costs no
//! memory; one that goes away stops nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::executions::of_path;
use crate::app::App;
use crate::call::{Answer, Call};
use crate::error::{ApiError, Problem};
use crate::ids::{self, Kind};
use crate::live::{Flight, Phase};
use crate::record::Record;
use crate::text;

/// Follows an execution's events, from the first on
#[utoipa::path(get, path = "/v1/executions/{id}/events", tag = "executions",
    params(("id" = String, Path), ("tenant" = Option<String>, Query)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 404, body = Problem)))]
pub(crate) async fn follow(call: Call) -> Answer {
    // Before the record: an execution that ends in between is followed to its end all the same.
    let flight = ids::parse(Kind::Execution, call.path("id")).and_then(|id| call.app.live.get(&id));
    let (_, record) = of_path(&call).await?;
    let permit = permit(&call.app)?;
    match flight {
        Some(flight) => Ok(stream_live(&call, flight, permit)),
        None => Ok(respond(replay(&record), None, permit)),
    }
}

/// Leave to open one more stream.
pub(super) fn permit(app: &App) -> Result<OwnedSemaphorePermit, ApiError> {
    let streams = Arc::clone(&app.event_streams);
    let full = |_| ApiError::Overloaded {
        detail: "too many event streams are open",
    };
    streams.try_acquire_owned().map_err(full)
}

/// The events of an execution in flight, as they happen.
pub(super) fn stream_live(
    call: &Call,
    flight: Arc<Flight>,
    permit: OwnedSemaphorePermit,
) -> HttpResponse {
    // One message of room: the pump waits for the reader, not the execution.
    let (sender, receiver) = mpsc::channel(1);
    let heartbeat = Duration::from_millis(call.app.config.server.event_heartbeat_ms);
    let pump = pump(flight, sender, heartbeat, call.request_id.clone());
    drop(call.app.walk.spawn(pump));
    respond(Vec::new(), Some(receiver), permit)
}

/// Sends what there is, then waits for more, until the end has been sent or the reader is gone.
async fn pump(
    flight: Arc<Flight>,
    sender: mpsc::Sender<Bytes>,
    heartbeat: Duration,
    request_id: String,
) {
    let mut changed = flight.watch();
    let (mut sent, mut started) = (0, false);
    loop {
        changed.mark_unchanged();
        let (phase, chunks) = flight.news(sent);
        let mut events = Vec::new();
        if !started {
            let begun = started_event(&flight.record());
            started = begun.is_some();
            events.extend(begun);
        }
        for chunk in chunks {
            sent += 1;
            events.push(output_event(chunk.stream, chunk.offset, &chunk.bytes));
        }
        let ended = match &phase {
            Phase::Finished(record) | Phase::Replayed(record) => Some(finished_event(record)),
            Phase::Refused(error) => Some(event("error", &error.problem(&request_id))),
            Phase::Admitting | Phase::Queued | Phase::Running => None,
        };
        let last = ended.is_some();
        events.extend(ended);
        for event in events {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        if last {
            return;
        }
        let more = tokio::time::timeout(heartbeat, changed.changed());
        let silent = tokio::select! {
            more = more => more.is_err(),
            () = sender.closed() => return,
        };
        if silent && sender.send(Bytes::from_static(b":\n\n")).await.is_err() {
            return;
        }
    }
}

/// The events of an execution that has ended.
fn replay(record: &Record) -> Vec<Bytes> {
    let mut events = Vec::from_iter(started_event(record));
    for (stream, text, encoding) in [
        ("stdout", &record.stdout, record.stdout_encoding),
        ("stderr", &record.stderr, record.stderr_encoding),
    ] {
        let bytes = text::bytes_of(text, encoding);
        if !bytes.is_empty() {
            events.push(output_event(stream, 0, &bytes));
        }
    }
    events.push(finished_event(record));
    events
}

/// Nothing for an execution that has not been let go, or never was.
fn started_event(record: &Record) -> Option<Bytes> {
    let at = record.started_at.as_ref()?;
    let data = json!({ "id": record.id, "started_at": at, "image": record.image });
    Some(event("started", &data))
}

fn output_event(stream: &str, offset: u64, bytes: &[u8]) -> Bytes {
    event(
        stream,
        &json!({ "offset": offset, "data": STANDARD.encode(bytes) }),
    )
}

fn finished_event(record: &Record) -> Bytes {
    event("finished", record)
}

/// One event; JSON has no line breaks of its own, so that one `data` line is enough.
fn event(name: &str, data: &impl serde::Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

fn respond(
    ready: Vec<Bytes>,
    live: Option<mpsc::Receiver<Bytes>>,
    permit: OwnedSemaphorePermit,
) -> HttpResponse {
    let body = Events {
        ready: ready.into_iter(),
        live,
        _permit: permit,
    };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("X-Accel-Buffering", "no"))
        .body(body)
}

/// The body of an event stream.
struct Events {
    ready: std::vec::IntoIter<Bytes>,
    live: Option<mpsc::Receiver<Bytes>>,
    _permit: OwnedSemaphorePermit,
}

impl MessageBody for Events {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if let Some(event) = self.ready.next() {
            return Poll::Ready(Some(Ok(event)));
        }
        match &mut self.live {
            None => Poll::Ready(None),
            Some(live) => live.poll_recv(cx).map(|event| event.map(Ok)),
        }
    }
}
