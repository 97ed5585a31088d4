//! Names that an image chose, made safe for a terminal and a log.

use std::fmt;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_terminal_sequences_as_text() {
        assert_eq!(Escaped::new(b"a\x1b[2J\r\xe2\x80\xae").to_string(), r#""a\x1b[2J\r\xe2\x80\xae""#);
    }

    #[test]
    fn cuts_long_names() {
        assert_eq!(Escaped::new(&[b'a'; 5000]).to_string().len(), SHOWN + 5);
    }
}
