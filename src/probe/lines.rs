//! What the probe program said, read strictly: it comes out of a level that may be hostile.

use std::collections::BTreeMap;

use isolab_images::probe::{Found, Item, Line, MAX_LINE, MAX_LINES, MAX_SEEN};

/// How a probe ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    pub(super) ns: u64,
    pub(super) signal: Option<i32>,
    pub(super) late: bool,
}

/// Everything that was said at one level.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) fnv: Option<String>,
    pub(super) items: BTreeMap<String, Vec<Item>>,
    pub(super) ends: BTreeMap<String, End>,
    /// The program said that it was through.
    pub(super) done: bool,
}

impl Said {
    /// What was said in another run at the same level.
    pub(super) fn add(&mut self, more: Self) {
        self.items.extend(more.items);
        self.ends.extend(more.ends);
    }

    /// The kernel ended the whole level for its memory, this probe and its program included: that is its result.
    pub(super) fn ended_at_limit(&mut self, probe: &str) {
        let item = Item {
            probe: probe.to_owned(),
            item: "the whole level".to_owned(),
            found: Found::Blocked,
            errno: None,
            signal: Some(9),
            call: None,
            seen: Some("ended by the kernel at its limit of memory".to_owned()),
        };
        self.items.insert(probe.to_owned(), vec![item]);
        self.ends.insert(probe.to_owned(), End::default());
    }
}

/// Lines that are not those of the probe program.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinesError {
    /// Too much of it.
    #[error("line {line} of the probe program is over {MAX_LINE} bytes")]
    Long {
        /// Number of the line.
        line: usize,
    },
    /// Too many.
    #[error("the probe program said more than {MAX_LINES} lines")]
    Many,
    /// Not a line of the protocol.
    #[error("line {line} of the probe program")]
    Form {
        /// Number of the line.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Of a probe that was not asked for, or said twice.
    #[error("line {line} of the probe program is about {probe:?}, which does not belong there")]
    Foreign {
        /// Number of the line.
        line: usize,
        /// Which probe.
        probe: String,
    },
}

/// Reads all lines; `asked` are the probes that may speak.
pub(super) fn read(bytes: &[u8], asked: &[String]) -> Result<Said, LinesError> {
    let mut said = Said::default();
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    for (line, text) in lines.enumerate().map(|(i, text)| (i + 1, text)) {
        if line > MAX_LINES {
            return Err(LinesError::Many);
        }
        if text.len() > MAX_LINE {
            return Err(LinesError::Long { line });
        }
        let foreign = |probe: &str| LinesError::Foreign { line, probe: probe.chars().take(16).collect() };
        let known = |probe: &str| asked.iter().any(|id| id == probe);
        match serde_json::from_slice(text).map_err(|source| LinesError::Form { line, source })? {
            Line::Program { fnv } if said.fnv.is_none() && fnv.len() == 16 => said.fnv = Some(fnv),
            Line::Program { .. } => return Err(foreign("program")),
            Line::Item(item)
                if known(&item.probe) && !said.ends.contains_key(&item.probe) && is_short(&item) =>
            {
                said.items.entry(item.probe.clone()).or_default().push(item);
            }
            Line::Item(item) => return Err(foreign(&item.probe)),
            Line::End { probe, ns, signal, late } if known(&probe) && !said.ends.contains_key(&probe) => {
                said.ends.insert(probe, End { ns, signal, late });
            }
            Line::End { probe, .. } => return Err(foreign(&probe)),
            Line::Done => said.done = true,
        }
    }
    Ok(said)
}

fn is_short(item: &Item) -> bool {
    item.item.len() <= 256 && item.seen.as_ref().is_none_or(|seen| seen.len() <= MAX_SEEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Said, LinesError> {
        read(text.as_bytes(), &["P01".to_owned()])
    }

    const ITEM: &str = r#"{"item":{"probe":"P01","item":"a","found":"reached","errno":null,"signal":null,"call":null,"seen":"x"}}"#;
    const END: &str = r#"{"end":{"probe":"P01","ns":5,"signal":null,"late":false}}"#;

    #[test]
    fn lines_of_the_program_are_taken_in_their_order() {
        let text = format!("{{\"program\":{{\"fnv\":\"0123456789abcdef\"}}}}\n{ITEM}\n{END}\n\"done\"\n");
        let said = read_text(&text).expect("lines of the program");
        assert_eq!(said.items["P01"].len(), 1);
        assert_eq!(said.ends["P01"], End { ns: 5, signal: None, late: false });
        assert!(said.done && said.fnv.is_some());
    }

    #[test]
    fn lines_of_others_are_refused() {
        let hostile = [
            "hello".to_owned(),
            "{".to_owned(),
            ITEM.replace("P01", "P99"),
            ITEM.replace("\"seen\"", "\"more\":1,\"seen\""),
            ITEM.replace("reached", "escaped"),
            format!("{END}\n{ITEM}"),
            format!("{END}\n{END}"),
            ITEM.replace("\"x\"", &format!("\"{}\"", "x".repeat(MAX_SEEN + 1))),
            "{\"program\":{\"fnv\":\"no\"}}".to_owned(),
            format!("\"{}\"", "x".repeat(MAX_LINE)),
            "\"done\"\n".repeat(MAX_LINES + 1),
            "\u{0}\u{1}".to_owned(),
        ];
        for text in hostile {
            assert!(read_text(&text).is_err(), "{}", text.chars().take(80).collect::<String>());
        }
    }
}
