//! Exports: charges as a stream, in the formats that others read.
//!
//! A task of its own reads a bounded number of settlements, writes them, and goes on when the
//! client has taken them. A client that was cut off goes on where it was; one that takes nothing
//! for too long is cut off. The body ends in order only when everything has been sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use ledger::{ChargeQuery, Charges, Closed, Ledger, PeriodState, Phase, QueryError};
use tokio::sync::mpsc;

use super::usage::only;
use crate::app::App;
use crate::call::{Answer, Call};
use crate::error::{ApiError, Problem};
use crate::export::{Export, ExportError, Format, Issuer};
use crate::gate::Pass;

/// Settlements that are read at once.
const PIECE: usize = 512;

/// Exports charges
///
/// Streams every charge up to `as_of`, which the header `Farebox-As-Of` tells; by entry. `cursor`
/// goes on behind that entry: after an interruption, or for what has come since an earlier export.
#[utoipa::path(get, path = "/v1/exports/{format}", tag = "money",
    params(("format" = String, Path,
            description = "csv, jsonl, parquet, focus, focus-parquet, beancount or hledger"),
        ("from" = Option<String>, Query, description = "runs begun then or later"),
        ("to" = Option<String>, Query, description = "runs begun before"),
        ("tenant" = Option<String>, Query), ("project" = Option<String>, Query),
        ("function" = Option<String>, Query),
        ("image" = Option<String>, Query, description = "NAME or NAME@DIGEST"),
        ("key" = Option<String>, Query, description = "a token's jti"),
        ("tag" = Option<String>, Query, description = "KEY:VALUE; may be given more than once"),
        ("cursor" = Option<u64>, Query, description = "only entries after this one"),
        ("as_of" = Option<u64>, Query, description = "only entries up to this one")),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 501, body = Problem, description = "Parquet is not in this build")))]
pub(crate) async fn export(call: Call) -> Answer {
    let format = Format::from_name(call.path("format")).ok_or(ApiError::NotFound {
        what: "export format: there are csv, jsonl, parquet, focus, focus-parquet, beancount and \
               hledger",
    })?;
    let query = read(&call)?;
    let names = &call.app.config.exports;
    let issuer = Issuer {
        provider: names.provider.clone(),
        region: names.region.clone(),
    };
    let not_built = |error: ExportError| ApiError::NotBuilt {
        detail: error.to_string(),
    };
    let mut export = Export::new(format, issuer, &query).map_err(not_built)?;
    let pass = call.app.reports.enter(call.caller()?)?;
    let app = Arc::clone(&call.app);
    let ledger = app.ledger.clone();
    let rounds = export.rounds();
    let read = move || {
        let charges = ledger.charges(query.clone());
        let periods = ledger.periods();
        let earlier = rounds.then(|| earlier(&ledger, query, &periods)).flatten();
        (charges, earlier, periods, ledger.rate_cards())
    };
    let (charges, earlier, periods, cards) = app.blocking(read).await?;
    for (entry, card) in &cards {
        export.card(*entry, card);
    }
    for state in &periods {
        if let Phase::Closed(Closed { entry, at }) = state.phase {
            export.closed(entry, at, state.period);
        }
    }
    let as_of = charges.as_of().seq.to_string();
    let (sender, receiver) = mpsc::channel(1);
    let writing = Writing {
        earlier,
        charges,
        export,
    };
    drop(call.app.walk.spawn(pump(app, writing, sender, pass)));
    let (kind, file) = format.file();
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header(("Farebox-As-Of", as_of))
        .insert_header((
            "Content-Disposition",
            format!("attachment; filename=\"{file}\""),
        ))
        .insert_header(("X-Accel-Buffering", "no"))
        .body(Stream { receiver }))
}

fn read(call: &Call) -> Result<ChargeQuery, ApiError> {
    let mut query = call.query()?;
    let only = only(call, &mut query)?;
    let (from, to) = (query.time("from"), query.time("to"));
    if from.zip(to).is_some_and(|(from, to)| to <= from) {
        query.faults.add("?to", "must be after from");
    }
    let (after, until) = (query.number("cursor"), query.number("as_of"));
    query.finish()?;
    Ok(ChargeQuery {
        after: after.unwrap_or(0),
        until,
        from,
        to,
        only,
    })
}

/// What counts in the months that an export goes on in: what it is to round them by. Those that
/// were closed before are as they are.
fn earlier(ledger: &Ledger, query: ChargeQuery, periods: &[PeriodState]) -> Option<Charges> {
    let open = |state: &&PeriodState| match state.phase {
        Phase::Closed(closed) => closed.entry > query.after,
        Phase::Open | Phase::Grace => true,
    };
    let first = periods
        .iter()
        .filter(open)
        .map(|state| state.period)
        .min()?;
    let start = first.start();
    (query.after > 0).then(|| {
        ledger.charges(ChargeQuery {
            after: 0,
            until: Some(
                query
                    .until
                    .map_or(query.after, |until| until.min(query.after)),
            ),
            from: Some(query.from.map_or(start, |from| from.max(start))),
            ..query
        })
    })
}

/// An export and where it reads.
struct Writing {
    /// What is only counted.
    earlier: Option<Charges>,
    charges: Charges,
    export: Export,
}

/// What has come of a piece.
enum Piece {
    More(Vec<u8>),
    Last(Vec<u8>),
}

/// Why a piece has not come.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Read(#[from] QueryError),
    #[error(transparent)]
    Write(#[from] ExportError),
}

impl Writing {
    fn piece(&mut self, mut out: Vec<u8>) -> Result<Piece, Broken> {
        if let Some(earlier) = &mut self.earlier {
            match earlier.page(PIECE)? {
                Some(entries) => {
                    let entries = entries.iter().map(Arc::as_ref);
                    self.export.entries(entries, &mut out)?;
                }
                None => self.earlier = None,
            }
            return Ok(Piece::More(out));
        }
        match self.charges.page(PIECE)? {
            Some(entries) => {
                let entries = entries.iter().map(Arc::as_ref);
                self.export.entries(entries, &mut out)?;
                Ok(Piece::More(out))
            }
            None => {
                self.export.end(self.charges.as_of().seq, &mut out)?;
                Ok(Piece::Last(out))
            }
        }
    }
}

/// What goes to the client, or the word that all of it has gone.
enum Part {
    Bytes(Bytes),
    End,
}

/// Writes piece after piece for as long as somebody takes them.
async fn pump(app: Arc<App>, mut writing: Writing, sender: mpsc::Sender<Part>, pass: Pass) {
    let stall = Duration::from_millis(app.config.server.export_stall_ms);
    let mut out = Vec::new();
    writing.export.head(&mut out);
    let mut last = false;
    while !last && !app.is_draining() && !sender.is_closed() {
        let work = move || (writing.piece(out), writing);
        let piece = match app.blocking(work).await {
            Ok((Ok(piece), back)) => {
                writing = back;
                piece
            }
            Ok((Err(error), _)) => {
                return tracing::error!(%error, "an export could not be made to its end");
            }
            Err(_) => return tracing::error!("an export failed"),
        };
        (out, last) = match piece {
            Piece::More(out) => (out, false),
            Piece::Last(out) => (out, true),
        };
        if !out.is_empty() {
            let part = Part::Bytes(Bytes::from(std::mem::take(&mut out)));
            if !matches!(
                tokio::time::timeout(stall, sender.send(part)).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }
    if last {
        // Who has gone needs no word.
        drop(tokio::time::timeout(stall, sender.send(Part::End)).await);
    }
    drop(pass);
}

/// The body of an export.
struct Stream {
    receiver: mpsc::Receiver<Part>,
}

/// The export ended before its end: the connection is closed instead of the body.
#[derive(Debug, thiserror::Error)]
#[error("the export ended early")]
struct Cut;

impl MessageBody for Stream {
    type Error = Cut;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Cut>>> {
        self.receiver.poll_recv(cx).map(|part| match part {
            Some(Part::Bytes(bytes)) => Some(Ok(bytes)),
            Some(Part::End) => None,
            None => Some(Err(Cut)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(stream: &mut Stream) -> Option<Result<Bytes, Cut>> {
        std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
    }

    #[tokio::test]
    async fn a_body_ends_in_order_only_after_the_last_word() {
        let (sender, receiver) = mpsc::channel(2);
        let mut whole = Stream { receiver };
        sender
            .send(Part::Bytes(Bytes::from_static(b"a")))
            .await
            .ok()
            .unwrap();
        sender.send(Part::End).await.ok().unwrap();
        assert_eq!(next(&mut whole).await.unwrap().unwrap(), "a");
        assert!(next(&mut whole).await.is_none());
        let (sender, receiver) = mpsc::channel(1);
        let mut cut = Stream { receiver };
        sender
            .send(Part::Bytes(Bytes::from_static(b"a")))
            .await
            .ok()
            .unwrap();
        drop(sender);
        assert!(next(&mut cut).await.unwrap().is_ok());
        assert!(next(&mut cut).await.unwrap().is_err());
    }
}
