//! Reads the top level of JSON-RPC messages as their bytes pass: kind, id and method, however large the rest is and
//! wherever it stands.
//!
//! Invariants: any chunking gives the same result; keeps at most a few KiB. What is no JSON-RPC yields nothing.
//! Never: validates JSON (it is the peer's to judge), recurses, or fails.

use crate::message::{MAX_BATCH, MAX_ID, RequestId};

/// Longest key or method that is kept, in bytes of JSON text.
const MAX_NAME: usize = 256;

/// A message of the server that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A request of the server to the client.
    Request {
        /// Its id.
        id: RequestId,
        /// Its method.
        method: Box<str>,
    },
    /// A notification.
    Notification {
        /// Its method.
        method: Box<str>,
        /// `params.requestId`, which `notifications/cancelled` carries.
        request_id: Option<RequestId>,
    },
    /// An answer to a request of the client.
    Response {
        /// Which; an error may have none.
        id: Option<RequestId>,
        /// Whether it carries `error`.
        is_error: bool,
    },
}

/// Reads along with one JSON text: a message, or a batch of them.
#[derive(Debug, Default)]
pub struct TopLevel {
    /// Open containers, the batch's array among them.
    depth: usize,
    batch: bool,
    /// Whether the value of a message's member is an object: what its keys are read by.
    inner_object: bool,
    token: Token,
    /// In an object: whether the next token is a value.
    value_next: bool,
    keep: Keep,
    kept: Vec<u8>,
    key: Key,
    inner_is_request_id: bool,
    message: Partial,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Token {
    #[default]
    Between,
    Text {
        escaped: bool,
    },
    Scalar,
}

/// What the current token is kept for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Keep {
    #[default]
    Nothing,
    Name,
    Value,
    TooLong,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Method,
    Params,
    #[default]
    Other,
}

#[derive(Debug, Default)]
struct Partial {
    id: Option<RequestId>,
    method: Option<Box<str>>,
    request_id: Option<RequestId>,
    has_result: bool,
    has_error: bool,
}

impl TopLevel {
    /// At the start of a text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all, for the next text.
    pub fn reset(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = Self {
            kept,
            ..Self::default()
        };
    }

    /// Reads the next bytes and adds the messages that end in them to `out`, at most [`MAX_BATCH`] in all.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Seen>) {
        while let Some(&byte) = bytes.first() {
            let mut taken = 1;
            match self.token {
                Token::Text { escaped: false } => taken = self.text(bytes),
                Token::Text { escaped: true } => {
                    self.keep_bytes(&[byte]);
                    self.token = Token::Text { escaped: false };
                }
                Token::Scalar if is_delimiter(byte) => {
                    self.end_token();
                    taken = 0;
                }
                Token::Scalar => self.keep_bytes(&[byte]),
                Token::Between => self.between(byte, out),
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// How deep within a message: 1 is among its members, 2 within a member's value.
    const fn level(&self) -> usize {
        self.depth - self.batch as usize
    }

    /// Takes a run of a string, up to its end.
    fn text(&mut self, bytes: &[u8]) -> usize {
        let stop = bytes.iter().position(|b| *b == b'"' || *b == b'\\');
        let Some(stop) = stop else {
            self.keep_bytes(bytes);
            return bytes.len();
        };
        let run = bytes.get(..=stop).unwrap_or_default();
        self.keep_bytes(run);
        if run.last() == Some(&b'\\') {
            self.token = Token::Text { escaped: true };
        } else {
            self.end_token();
        }
        run.len()
    }

    fn between(&mut self, byte: u8, out: &mut Vec<Seen>) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => self.close(out),
            b':' => self.value_next = true,
            b',' => self.value_next = false,
            b'"' => {
                self.begin_token(true);
                self.token = Token::Text { escaped: false };
            }
            _ => {
                self.begin_token(false);
                self.keep_bytes(&[byte]);
                self.token = Token::Scalar;
                return;
            }
        }
        if byte == b'"' {
            self.keep_bytes(b"\"");
        }
    }

    fn open(&mut self, object: bool) {
        if self.depth == 0 {
            self.batch = !object;
        }
        self.depth = self.depth.saturating_add(1);
        if self.level() == 2 {
            self.inner_object = object;
            self.inner_is_request_id = false;
        }
        self.value_next = false;
    }

    fn close(&mut self, out: &mut Vec<Seen>) {
        if self.level() == 1 {
            let message = std::mem::take(&mut self.message);
            if out.len() < MAX_BATCH {
                out.extend(message.finish());
            }
        }
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 0 {
            self.batch = false;
        }
        self.value_next = true;
    }

    fn begin_token(&mut self, string: bool) {
        self.kept.clear();
        let params = self.level() == 2 && self.key == Key::Params && self.inner_object;
        self.keep = match (self.level(), self.value_next) {
            (1, false) if string => Keep::Name,
            (2, false) if string && params => Keep::Name,
            (1, true) if matches!(self.key, Key::Id | Key::Method) => Keep::Value,
            (2, true) if params && self.inner_is_request_id => Keep::Value,
            _ => Keep::Nothing,
        };
    }

    fn keep_bytes(&mut self, bytes: &[u8]) {
        let most = match self.keep {
            Keep::Nothing | Keep::TooLong => return,
            Keep::Name => MAX_NAME,
            Keep::Value => MAX_ID,
        };
        if self.kept.len() + bytes.len() > most {
            // A name too long to keep is none that matters.
            if self.keep == Keep::Name {
                self.name("");
            }
            self.keep = Keep::TooLong;
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn end_token(&mut self) {
        self.token = Token::Between;
        let kept = std::mem::take(&mut self.kept);
        match std::mem::take(&mut self.keep) {
            Keep::Nothing | Keep::TooLong => {}
            Keep::Name => {
                let name: Option<String> = serde_json::from_slice(&kept).ok();
                self.name(name.as_deref().unwrap_or_default());
            }
            Keep::Value => self.value(&kept),
        }
        self.kept = kept;
    }

    fn name(&mut self, name: &str) {
        if self.level() == 2 {
            self.inner_is_request_id = name == "requestId";
            return;
        }
        self.key = match name {
            "id" => Key::Id,
            "method" => Key::Method,
            "params" => Key::Params,
            _ => Key::Other,
        };
        self.message.has_result |= name == "result";
        self.message.has_error |= name == "error";
    }

    fn value(&mut self, raw: &[u8]) {
        let id = || {
            let raw = std::str::from_utf8(raw).ok()?;
            RequestId::parse(raw).ok()
        };
        match (self.level(), self.key) {
            (1, Key::Id) => self.message.id = id(),
            (1, Key::Method) => self.message.method = serde_json::from_slice(raw).ok(),
            (2, Key::Params) => self.message.request_id = id(),
            _ => {}
        }
    }
}

impl Partial {
    fn finish(self) -> Option<Seen> {
        match (self.method, self.id) {
            (Some(method), Some(id)) => Some(Seen::Request { id, method }),
            (Some(method), None) => Some(Seen::Notification {
                method,
                request_id: self.request_id,
            }),
            (None, id) if self.has_result || self.has_error => Some(Seen::Response {
                id,
                is_error: self.has_error,
            }),
            (None, _) => None,
        }
    }
}

const fn is_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b',' | b':' | b'}' | b']' | b'{' | b'[' | b'"' | b' ' | b'\t' | b'\r' | b'\n'
    )
}
