//! Text of outside origin (file names, images, commands), with nothing in it that steers a terminal.

use isolab_images::escape::steers;

/// Each character escaped that moves a cursor, begins a sequence, or turns the direction of the text around.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().map(|c| if steers(c) { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_as_text() {
        assert_eq!(escaped("a\u{1b}[2J\r\nb\u{202e}c\u{9b}d"), "a\\u{1b}[2J\\r\\nb\\u{202e}c\\u{9b}d");
        assert_eq!(escaped("gr\u{fc}n \u{65e5}\u{672c}"), "gr\u{fc}n \u{65e5}\u{672c}");
    }
}
