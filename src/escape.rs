//! Text of outside origin (file names, images, commands), with nothing in it that steers a terminal.

use serde::Serialize;

/// Moves a cursor, begins a sequence, or turns the direction of the text around.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Each such character escaped.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().map(|c| if steers(c) { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

/// As JSON for people and programs: the same value, each such character in it escaped.
///
/// # Errors
/// The value can't be written as JSON.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    // JSON has them in its strings only, but for the ends of its lines. All of them have numbers below 2^16.
    let plain = |c: char| c == '\n' || !steers(c);
    Ok(text
        .chars()
        .map(|c| if plain(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) })
        .collect())
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
        let text = json(&value).expect("JSON");
        assert!(!text.replace('\n', "").contains(steers), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
