//! Reads along with a stream of server-sent events without touching it: where events begin and end, their ids, and which
//! JSON-RPC messages they carry.
//!
//! Invariants: the same bytes give the same events however they are cut into chunks; what is kept of an event is bounded
//! whatever its size. Lines end in LF, CR or CRLF; a leading BOM is skipped (WHATWG HTML, "Server-sent events").
//! Never: changes, delays or buffers the bytes.

mod json;
#[cfg(test)]
mod tests;

pub use self::json::{Seen, TopLevel};
use crate::edge::headers::LOST;

/// Longest event id kept, in bytes; an event with a longer one is as if it had none.
pub const MAX_EVENT_ID: usize = 1_024;
/// Longest field name that matters.
const MAX_FIELD: usize = 8;

/// Longest non-JSON data kept (the 2024-11-05 `endpoint` event's), in bytes.
const MAX_PLAIN: usize = 2_048;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSummary {
    /// Its `id` field.
    pub id: Option<Box<str>>,
    /// Its `event` field, where that is short; absent means `message`.
    pub event: Option<Box<str>>,
    /// The JSON-RPC messages in its data; empty for priming events and what is no JSON-RPC.
    pub messages: Vec<Seen>,
    /// Its data, where that is short and no JSON object or array.
    pub plain: Option<Box<str>>,
    /// Where it ends: bytes from the start of the stream to just after its blank line.
    pub end: u64,
}

impl EventSummary {
    /// Whether a bridge says with it that it lost the child, and the session with it. It carries no data, so that clients
    /// never see it (WHATWG HTML, "Interpreting an event stream").
    #[must_use]
    pub fn says_lost(&self) -> bool {
        self.event.as_deref() == Some(LOST.as_str()) && self.messages.is_empty()
    }
}

/// Reads along with one stream.
#[derive(Debug, Default)]
pub struct Scanner {
    at: u64,
    bom: u8,
    after_cr: bool,
    place: Place,
    name: Vec<u8>,
    value: Vec<u8>,
    value_too_long: bool,
    data_lines: u32,
    plain: Vec<u8>,
    plain_too_long: bool,
    json: TopLevel,
    event: EventSummary,
    any_field: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    LineStart,
    Comment,
    Name,
    /// Just after the colon, where one space is not part of the value.
    Colon(Field),
    Value(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Data,
    Id,
    Event,
    Other,
}

impl Field {
    fn named(name: &[u8]) -> Self {
        match name {
            b"data" => Self::Data,
            b"id" => Self::Id,
            b"event" => Self::Event,
            _ => Self::Other,
        }
    }
}

impl Scanner {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether bytes may be put between what was read and what comes next without being inside an event.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.place == Place::LineStart && !self.any_field && (self.bom == 0 || self.bom >= 3)
    }

    /// Reads the next bytes; gives the events that end in them.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<EventSummary> {
        let mut events = Vec::new();
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                self.advance(&mut rest, 1);
                continue;
            }
            if self.skip_bom(byte) {
                self.advance(&mut rest, 1);
                continue;
            }
            if byte == b'\r' || byte == b'\n' {
                self.after_cr = byte == b'\r';
                self.advance(&mut rest, 1);
                events.extend(self.end_line());
                continue;
            }
            let taken = self.take(rest);
            self.advance(&mut rest, taken);
        }
        events
    }

    fn advance(&mut self, rest: &mut &[u8], by: usize) {
        *rest = rest.get(by..).unwrap_or_default();
        self.at += by as u64;
    }

    /// Whether the byte belongs to a byte order mark at the start of the stream.
    fn skip_bom(&mut self, byte: u8) -> bool {
        const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];
        let expected = BOM.get(usize::from(self.bom)).copied();
        if self.at == u64::from(self.bom) && expected == Some(byte) {
            self.bom += 1;
            return true;
        }
        if expected.is_some() {
            // A part of one is a part of a field name that means nothing.
            if self.bom > 0 {
                self.place = Place::Name;
                self.name.extend_from_slice(&BOM[..usize::from(self.bom)]);
            }
            self.bom = 3;
        }
        false
    }

    /// Takes bytes of the current line, at least one; `rest` begins with neither CR nor LF.
    fn take(&mut self, rest: &[u8]) -> usize {
        let line = rest
            .iter()
            .position(|b| *b == b'\r' || *b == b'\n')
            .unwrap_or(rest.len());
        let line = rest.get(..line).unwrap_or_default();
        let first = line.first().copied().unwrap_or_default();
        match self.place {
            Place::Comment => line.len(),
            Place::LineStart if first == b':' => {
                self.place = Place::Comment;
                line.len()
            }
            Place::LineStart | Place::Name => {
                self.place = Place::Name;
                let colon = line.iter().position(|b| *b == b':');
                let name = line.get(..colon.unwrap_or(line.len())).unwrap_or_default();
                let room = (MAX_FIELD + 1).saturating_sub(self.name.len());
                self.name.extend(name.iter().take(room));
                if colon.is_some() {
                    self.begin_value();
                }
                name.len() + usize::from(colon.is_some())
            }
            Place::Colon(field) => {
                self.place = Place::Value(field);
                usize::from(first == b' ')
            }
            Place::Value(field) => {
                self.value(field, line);
                line.len()
            }
        }
    }

    fn begin_value(&mut self) {
        let field = Field::named(&self.name);
        self.name.clear();
        self.any_field = true;
        self.place = Place::Colon(field);
        self.value.clear();
        self.value_too_long = false;
        if field == Field::Data {
            self.data_lines = self.data_lines.saturating_add(1);
            if self.data_lines > 1 {
                self.data(b"\n");
            }
        }
    }

    fn value(&mut self, field: Field, bytes: &[u8]) {
        match field {
            Field::Data => self.data(bytes),
            Field::Id | Field::Event => {
                if self.value.len() + bytes.len() > MAX_EVENT_ID {
                    self.value_too_long = true;
                } else {
                    self.value.extend_from_slice(bytes);
                }
            }
            Field::Other => {}
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        self.json.push(bytes, &mut self.event.messages);
        let looks_like_json = matches!(self.plain.first().or(bytes.first()), Some(b'{' | b'['));
        if looks_like_json || self.plain.len() + bytes.len() > MAX_PLAIN {
            self.plain_too_long = true;
        } else {
            self.plain.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) -> Option<EventSummary> {
        if self.place == Place::Name {
            // A line without a colon is a field with an empty value.
            self.begin_value();
        }
        match std::mem::take(&mut self.place) {
            Place::LineStart => return self.dispatch(),
            Place::Comment | Place::Name => {}
            Place::Colon(field) | Place::Value(field) => self.end_field(field),
        }
        None
    }

    fn end_field(&mut self, field: Field) {
        let text = || {
            let fine = !self.value_too_long && !self.value.contains(&0);
            std::str::from_utf8(&self.value).ok().filter(|_| fine)
        };
        match field {
            Field::Id => self.event.id = text().map(Into::into),
            Field::Event => self.event.event = text().filter(|t| !t.is_empty()).map(Into::into),
            Field::Data | Field::Other => {}
        }
    }

    fn dispatch(&mut self) -> Option<EventSummary> {
        let any = std::mem::take(&mut self.any_field);
        let mut event = std::mem::take(&mut self.event);
        let plain = std::mem::take(&mut self.plain);
        if !std::mem::take(&mut self.plain_too_long) {
            event.plain = String::from_utf8(plain)
                .ok()
                .filter(|text| !text.is_empty())
                .map(Into::into);
        }
        event.end = self.at;
        self.data_lines = 0;
        self.json.reset();
        any.then_some(event)
    }
}
