//! The lab's console, of which a broken lab shows the last lines.

/// Bytes kept for the error message.
const KEPT: usize = 16 * 1024;
/// Lines shown of them.
const SHOWN: usize = 12;

/// What the lab's kernel and QEMU said last.
#[derive(Debug, Default)]
pub(super) struct Console(Vec<u8>);

impl Console {
    /// Takes in what they say.
    pub(super) fn log(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let excess = self.0.len().saturating_sub(KEPT);
        self.0.drain(..excess);
    }

    /// Why the lab is no more, with the last lines.
    pub(super) fn broken(&self, why: String) -> Broken {
        let text = String::from_utf8_lossy(&self.0);
        let said = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let lines: Vec<String> = said.map(str::to_owned).collect();
        Broken { why, lines: lines[lines.len().saturating_sub(SHOWN)..].to_vec() }
    }
}

/// A lab that broke.
#[derive(Debug, thiserror::Error)]
#[error("{why}; {}", last(.lines))]
pub(super) struct Broken {
    why: String,
    lines: Vec<String>,
}

fn last(lines: &[String]) -> String {
    match lines {
        [] => "its console is empty".to_owned(),
        lines => format!("last lines of its console:\n  {}", lines.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::shown;

    #[test]
    fn the_console_of_a_broken_lab_is_shown_in_lines_each_escaped() {
        let mut console = Console::default();
        let of = |console: &Console| shown(&console.broken("it ended\u{9b}".into()).into());
        assert_eq!(of(&console), "it ended\\u{9b}; its console is empty");
        console.log(b"one\r\n\n\x1b[2Jtwo\n");
        assert_eq!(of(&console), "it ended\\u{9b}; last lines of its console:\n  one\n  \\u{1b}[2Jtwo");
        assert_eq!(shown(&anyhow::anyhow!("of an image\nisolab: fine")), "of an image\\nisolab: fine");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut console = Console::default();
        (0..10_000).for_each(|n| console.log(format!("line {n}\n").as_bytes()));
        assert!(console.0.len() <= KEPT);
        assert_eq!(console.broken(String::new()).lines.len(), SHOWN);
        assert_eq!(console.broken(String::new()).lines.last().map(String::as_str), Some("line 9999"));
    }
}
