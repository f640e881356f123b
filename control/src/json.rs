//! JSON as editors write it: comments and trailing commas are blanked out, so that every position stays what it was.

/// The same text as plain JSON, byte for byte as long.
pub(crate) fn plain(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut comma = None;
    let mut at = 0;
    while let Some(&byte) = out.get(at) {
        let next = out.get(at + 1).copied();
        let end = match (byte, next) {
            (b'"', _) => {
                comma = None;
                end_of_string(&out, at)
            }
            (b'/', Some(b'/')) => blank_until(&mut out, at, b"\n"),
            (b'/', Some(b'*')) => blank_until(&mut out, at, b"*/"),
            (b',', _) => {
                comma = Some(at);
                at + 1
            }
            (b'}' | b']', _) => {
                if let Some(byte) = comma.take().and_then(|comma| out.get_mut(comma)) {
                    *byte = b' ';
                }
                at + 1
            }
            (byte, _) => {
                if !byte.is_ascii_whitespace() {
                    comma = None;
                }
                at + 1
            }
        };
        at = end;
    }
    // Only ASCII was overwritten, or whole comments by spaces; the fallback is never taken.
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

fn end_of_string(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Blanks from `from` to the end of `stop` (a line's end itself stays), keeping line breaks.
fn blank_until(bytes: &mut [u8], from: usize, stop: &[u8]) -> usize {
    let body = from + 2;
    let rest = bytes.get(body..).unwrap_or_default();
    let found = rest.windows(stop.len()).position(|window| window == stop);
    let end = found.map_or(bytes.len(), |n| body + n + stop.len());
    for byte in bytes.iter_mut().take(end).skip(from) {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn comments_and_trailing_commas_become_white_space_of_the_same_length() {
        let text = "{ // über\n \"a\": \"//x,]\", /* b\n */ \"c\": [1, 2,],\n}";
        let out = plain(text);
        assert_eq!(out.len(), text.len());
        assert_eq!(out.matches('\n').count(), text.matches('\n').count());
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value, serde_json::json!({"a": "//x,]", "c": [1, 2]}));
    }
}
