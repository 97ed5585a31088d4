//! Text of outside origin (names that an image chose, commands), made safe for a terminal and a log.

use std::error::Error;
use std::fmt;

use serde::Serialize;

/// Longest name shown in full.
const SHOWN: usize = 160;

/// Shows bytes with every control, quote and non-ASCII byte escaped, cut after 160 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Escaped(Box<[u8]>, bool);

impl Escaped {
    /// A copy of the bytes, to show later.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes[..bytes.len().min(SHOWN)].into(), bytes.len() > SHOWN)
    }
}

impl From<&str> for Escaped {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.0.escape_ascii(), if self.1 { "..." } else { "" })
    }
}

impl fmt::Debug for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Moves a cursor, begins a sequence, or turns the direction of the text around.
#[must_use]
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Each such character escaped.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars().map(|c| if steers(c) { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

/// An error of a library whose words may hold what a document of others said, shown escaped.
#[derive(Debug)]
pub struct Shown<E>(pub E);

impl<E: Error> fmt::Display for Shown<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.0.to_string()))
    }
}

impl<E: Error> Error for Shown<E> {}

/// As JSON for people and programs: the same value, each such character in it escaped.
///
/// # Errors
/// The value can't be written as JSON.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| harmless(&text))
}

/// The same in one line.
///
/// # Errors
/// The value can't be written as JSON.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| harmless(&text))
}

/// JSON has such characters in its strings only, but for the ends of its lines. All of them have numbers below 2^16.
fn harmless(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !steers(c) {
            out.push(c);
        } else {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_as_text() {
        assert_eq!(escaped("a\u{1b}[2J\r\nb\u{202e}c\u{9b}d"), "a\\u{1b}[2J\\r\\nb\\u{202e}c\\u{9b}d");
        assert_eq!(escaped("gr\u{fc}n \u{65e5}\u{672c}"), "gr\u{fc}n \u{65e5}\u{672c}");
    }

    #[test]
    fn json_reads_back_as_what_it_was() {
        let value = serde_json::json!({ "a\u{9b}": ["\u{1b}[2J\n\u{7f}\u{2066}", "\u{65e5}\u{1f600}"] });
        for text in [json(&value).unwrap(), json_line(&value).unwrap()] {
            assert!(!text.replace('\n', "").contains(steers), "{text:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
        assert!(!json_line(&value).unwrap().contains('\n'));
    }

    #[test]
    fn shows_terminal_sequences_as_text() {
        assert_eq!(Escaped::new(b"a\x1b[2J\r\xe2\x80\xae").to_string(), r#""a\x1b[2J\r\xe2\x80\xae""#);
    }

    #[test]
    fn cuts_long_names() {
        assert_eq!(Escaped::new(&[b'a'; 5000]).to_string().len(), SHOWN + 5);
    }
}
