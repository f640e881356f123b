//! What the bytes of an answer tell while they pass: responses, events, news of the session, the end.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{CAPTURE, Core};
use crate::{
    exchange::initialize,
    message::{Message, RequestId, classify},
    sse::{EventSummary, Seen},
};

impl Core {
    /// These bytes pass.
    pub(super) fn passed(&mut self, data: &Bytes) {
        self.last = Instant::now();
        if let Some(capture) = self.capture.as_mut() {
            if capture.len() + data.len() <= CAPTURE {
                capture.extend_from_slice(data);
            } else {
                self.capture = None;
            }
        }
        let Some(scanner) = self.scanner.as_mut() else {
            return;
        };
        for event in &scanner.push(data) {
            self.event(event);
        }
    }

    fn event(&mut self, event: &EventSummary) {
        if let Some(begun) = &self.answer.begun {
            let lease = &self.answer.lease;
            let from = (lease.instance(), begun.strand);
            let deadline = self.answer.deadline;
            begun.session.observe(from, event, Some(lease), deadline);
            if event.says_lost() {
                begun.session_lost(&self.gateway);
            }
        }
        for seen in &event.messages {
            match seen {
                Seen::Response { id, is_error, .. } => self.response(id.as_ref(), *is_error),
                Seen::Request { .. } | Seen::Notification { .. } => {}
            }
        }
    }

    fn response(&mut self, id: Option<&RequestId>, is_error: bool) {
        self.waiting.retain(|waiting| Some(waiting) != id);
        let whole = self.waiting.is_empty().then(|| self.capture.take());
        let result = whole
            .flatten()
            .and_then(|passed| initialize::result(&passed));
        self.tell(id, is_error, result.map(Bytes::from));
        if self.waiting.is_empty() {
            self.answer.operation.answered(is_error);
        }
    }

    /// The answer is whole.
    pub(super) fn end(&mut self) {
        self.ended = true;
        if self.scanner.is_none() {
            self.waiting.clear();
            let is_error = match self.capture.take().map(BytesMut::freeze) {
                None => !self.status.is_success(),
                Some(body) => self.read(&body),
            };
            self.answer.operation.answered(is_error);
        } else if let Some(begun) = self.answer.begun.as_mut() {
            // The server closed the stream early: the response passes on another stream (2025-11-25, polling).
            begun.elsewhere = !self.waiting.is_empty();
        }
        self.answer.operation.finish();
        self.settle();
    }

    /// The client reads the rest on another stream.
    pub(super) fn over_elsewhere(&mut self) {
        self.ended = true;
        self.waiting.clear();
        if let Some(begun) = self.answer.begun.as_mut() {
            begun.elsewhere = true;
        }
        self.answer.operation.finish();
        self.settle();
    }

    /// Nothing is owed any more, though its client may take what has come only much later: the instance is needed no
    /// longer.
    pub(super) fn settle(&mut self) {
        self.answer.begun = None;
        self.answer.lease.give_back();
    }

    /// Tells what a JSON answer says, each response for itself; whether anything in it is no result.
    fn read(&mut self, body: &Bytes) -> bool {
        let Ok(message) = classify(body) else {
            return true;
        };
        let mut any_error = false;
        for one in message.each() {
            match one {
                Message::Response(response) => {
                    any_error |= response.is_error;
                    self.tell(response.id.as_ref(), response.is_error, Some(body.clone()));
                }
                Message::Request(_) | Message::Notification(_) | Message::Batch(_) => {
                    any_error = true;
                }
            }
        }
        any_error
    }

    fn tell(&mut self, id: Option<&RequestId>, is_error: bool, body: Option<Bytes>) {
        let news = &mut self.answer.news;
        let Some(at) = news.iter().position(|awaited| Some(&awaited.id) == id) else {
            return;
        };
        let told = news.swap_remove(at).news;
        if !is_error {
            told.tell(&self.gateway, body);
        }
    }
}
