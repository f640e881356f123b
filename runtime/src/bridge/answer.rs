//! How a POST's requests are answered: JSON if their answers are all there is to say, else a stream of events.
//!
//! The choice waits for the first message, so that error statuses survive; after one keep-alive period of silence the
//! stream begins anyway, since nobody between here and the client likes a silent connection.

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::{
    body::{Body, Events, Owed, Source, event},
    headers::status_of,
    refusal::{Refusal, json_response},
    worker::Waiting,
};

/// Bytes of answers that are gathered for one batch before they are sent as a stream after all.
const GATHERED: usize = 4 << 20;

/// What is asked.
pub(super) struct Asked {
    /// The requests' ids, as written.
    pub(super) ids: Vec<Option<String>>,
    /// Whether they came as a batch.
    pub(super) batch: bool,
    /// Whether error codes decide the status.
    pub(super) modern: bool,
}

/// Waits for what decides the form, and answers.
pub(super) async fn answer(
    mut waiting: Waiting,
    asked: Asked,
    keep_alive: std::time::Duration,
) -> Response<Body> {
    let mut owed = Owed(asked.ids);
    let mut gathered: Vec<String> = Vec::new();
    let lead = |gathered: &[String]| {
        let events: Vec<Bytes> = gathered.iter().map(|t| event(t)).collect();
        (!events.is_empty()).then(|| events.concat().into())
    };
    let deadline = Instant::now() + keep_alive;
    while waiting.first.is_empty() {
        let piece = match timeout_at(deadline, waiting.rx.recv()).await {
            Err(_quiet) => break,
            Ok(None) if asked.batch => break,
            Ok(None) => {
                let report = waiting.worker.death().unwrap_or_default();
                let ids = owed.take();
                let id = ids.first().map(String::as_str);
                let refusal = Refusal::lost(&report).to(id);
                let lost = waiting.worker.lost_its_session();
                return refusal.with_session(lost).response();
            }
            Ok(Some(piece)) => piece,
        };
        let Some(answers) = piece.answers else {
            gathered.push(piece.text);
            break;
        };
        owed.answered(answers.index);
        if !piece.text.is_empty() {
            gathered.push(piece.text);
        }
        if owed.is_empty() {
            let status = if asked.modern {
                status_of(answers.error)
            } else {
                StatusCode::OK
            };
            return match (asked.batch, gathered.pop()) {
                (true, Some(last)) => {
                    gathered.push(last);
                    json_response(status, format!("[{}]", gathered.join(",")))
                }
                (false, Some(only)) => json_response(status, only),
                // Cancelled: a stream that ends without an answer.
                (_, None) => Events::new(Source::Post(waiting, owed), None, keep_alive).response(),
            };
        }
        if gathered.iter().map(String::len).sum::<usize>() > GATHERED {
            break;
        }
    }
    let lead = lead(&gathered);
    Events::new(Source::Post(waiting, owed), lead, keep_alive).response()
}
