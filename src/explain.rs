//! `isolab explain`: why a flag or refusal appeared, and the remedy.

mod topics;
mod traps;

use std::fmt::Write;

use isolab_bench::probe::table::{Row, row};

use self::topics::TOPICS;
use self::traps::TRAPS;

/// Columns of all text that explains something.
const WIDTH: usize = 96;

/// One topic.
#[derive(Debug)]
pub struct Topic {
    /// What is typed, in either case; words joined by `-`.
    pub name: &'static str,
    /// Other words for it.
    pub aliases: &'static [&'static str],
    /// One line.
    pub title: &'static str,
    /// Paragraphs; a line that begins with two blanks stays as it is.
    pub text: &'static [&'static str],
}

/// A topic that does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExplainError {
    /// No such topic.
    #[error("there is no topic {topic:?}; {}`isolab explain` lists all", guess(*.nearest))]
    Unknown {
        /// What was typed.
        topic: String,
        /// The most similar name, where one is similar.
        nearest: Option<&'static str>,
    },
}

fn guess(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("did you mean {name}? "))
}

/// The text of a topic, or without one the list of topics; ends with a line feed.
///
/// # Errors
/// Unknown topic, with the nearest one.
pub fn explain(topic: Option<&str>) -> Result<String, ExplainError> {
    let Some(topic) = topic else { return Ok(list()) };
    let wanted = normal(topic);
    let named = |wanted: &str| all().find(|t| names(t).any(|name| normal(name) == wanted));
    // A check of a report, such as `T06-medium`, belongs to its trap.
    let trap = || wanted.split_once('-').filter(|(trap, _)| is_trap(trap)).and_then(|(trap, _)| named(trap));
    if let Some(probe) = row(&wanted.to_uppercase()) {
        return Ok(of_probe(probe));
    }
    let found = named(&wanted).or_else(trap);
    found
        .map(render)
        .ok_or_else(|| ExplainError::Unknown { topic: topic.to_owned(), nearest: nearest(&wanted) })
}

/// Lower case, blanks and underscores as `-`, without the dashes of an option.
fn normal(typed: &str) -> String {
    typed.trim().trim_end_matches(':').trim_start_matches('-').to_lowercase().replace([' ', '_'], "-")
}

/// Where a probe says more of itself.
fn of_probe(Row { id, title, question, .. }: &Row) -> String {
    let text = format!(
        "{question} `isolab probe --only {id} IMAGE` shows it with its evidence, docs/probe.md what is published of it, \
         `isolab choose --help` which levels keep what from a workload."
    );
    format!("{id}: {title}\n\n{}", wrapped(&text, 0))
}

/// `t` and two digits.
fn is_trap(word: &str) -> bool {
    word.len() == 3 && word.starts_with('t') && word[1..].bytes().all(|b| b.is_ascii_digit())
}

/// Every topic, in the order of the list.
fn all() -> impl Iterator<Item = &'static Topic> {
    TOPICS.iter().chain(TRAPS)
}

fn names(topic: &'static Topic) -> impl Iterator<Item = &'static str> {
    [topic.name].into_iter().chain(topic.aliases.iter().copied())
}

/// The topic whose name or alias takes the fewest edits, one for each three letters at most.
fn nearest(wanted: &str) -> Option<&'static str> {
    let most = (wanted.chars().count() / 3).max(1);
    let found = all().flat_map(|topic| names(topic).map(|name| (edits(wanted, &normal(name)), topic.name)));
    found.min().filter(|(edits, _)| *edits <= most).map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words. A word typed in part costs
/// little: what is missing at its end counts once.
fn edits(typed: &str, name: &str) -> usize {
    if !typed.is_empty() && name.starts_with(typed) {
        return 1;
    }
    strsim::osa_distance(typed, name)
}

fn list() -> String {
    let width = all().map(|topic| topic.name.len()).max().unwrap_or(0);
    let mut out = String::from("isolab explain TOPIC\n\n");
    for topic in all() {
        // Writing to a String can't fail.
        let _ = writeln!(out, "  {:<width$}  {}", topic.name, topic.title);
    }
    out
}

fn render(topic: &Topic) -> String {
    let mut out = format!("{}: {}\n", topic.name, topic.title);
    for paragraph in topic.text {
        out.push('\n');
        if paragraph.starts_with("  ") {
            out.push_str(paragraph);
            out.push('\n');
        } else {
            out.push_str(&wrapped(paragraph, 0));
        }
    }
    out
}

/// Text in lines of at most 96 columns, where its words allow, each after the first indented; ends with a line feed.
#[must_use]
pub fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        let length = word.chars().count();
        if column == 0 {
            column = indent + length;
        } else if column + 1 + length > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent + length;
        } else {
            out.push(' ');
            column += 1 + length;
        }
        out.push_str(word);
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_found_by_each_of_its_names_once() {
        let mut seen = std::collections::BTreeSet::new();
        for topic in all() {
            for name in names(topic) {
                assert_eq!(normal(name), name.to_lowercase(), "names are typed as they are");
                assert!(seen.insert(name), "{name} means two topics");
                assert!(explain(Some(name)).unwrap().starts_with(topic.name));
            }
            assert!(!topic.text.is_empty() && !topic.title.ends_with('.'), "{}", topic.name);
        }
    }

    #[test]
    fn all_traps_are_there() {
        for n in 1..=18 {
            assert!(explain(Some(&format!("T{n:02}"))).is_ok(), "T{n:02}");
        }
    }

    #[test]
    fn a_check_as_a_report_prints_it_is_its_trap() {
        let codes = [
            "T01-kvm-backend",
            "T06-medium",
            "T08-limits",
            "t10-number-of-pairs",
            "T10-drift",
            "T12-cpu-pressure:",
            "T17-failed-runs",
        ];
        for code in codes {
            assert_eq!(explain(Some(code)), explain(Some(&code[..3])), "{code}");
        }
        for code in ["same-image", "same-status", "same-output"] {
            assert!(explain(Some(code)).is_ok(), "{code}");
        }
        assert!(explain(Some("T19-new")).is_err() && explain(Some("tab-x")).is_err());
    }

    #[test]
    fn texts_and_help_name_the_numbers_that_are_used() {
        use clap::CommandFactory;
        use isolab_bench::noise::MIN_FOR_DRIFT;
        use isolab_bench::plan::{PAIRS_FOR_TAIL, PAIRS_IN_LAB, PAIRS_ON_HOST};
        use isolab_bench::statistics::MIN_FOR_INTERVAL;
        use isolab_bench::stop::MOST_PAIRS;
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let t10 = flat(&explain(Some("T10")).unwrap());
        for said in [
            format!("fewer than {PAIRS_ON_HOST} pairs on a host"),
            format!("Below {MIN_FOR_INTERVAL} pairs"),
            format!("From {MIN_FOR_DRIFT} runs of a level on"),
        ] {
            assert!(t10.contains(&said), "{said}: {t10}");
        }
        let mut command = crate::cli::Cli::command();
        let help = command.find_subcommand_mut("compare").unwrap().render_long_help().to_string();
        let default = format!(
            "(default: on a host {PAIRS_ON_HOST} to {MOST_PAIRS}, until the intervals are narrow; {PAIRS_IN_LAB} in the lab)"
        );
        assert!(flat(&help).contains(&format!("Measure {PAIRS_FOR_TAIL} pairs")), "{help}");
        assert!(flat(&help).contains(&default), "{help}");
    }

    #[test]
    fn each_check_of_a_comparison_has_its_text() {
        use isolab_bench::comparability::traps::TRAPS;
        for trap in &TRAPS {
            for check in trap.checks() {
                assert!(explain(Some(check)).unwrap().starts_with(trap.id), "{check}");
            }
        }
    }

    #[test]
    fn topics_of_the_command_line_are_there() {
        for name in
            ["lab", "host class", "kvm-software", "exit codes", "--memory", "--read-only", "--timeout"]
        {
            assert!(explain(Some(name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn list_names_every_topic() {
        let text = explain(None).unwrap();
        assert!(all().all(|topic| text.contains(topic.title)));
    }

    #[test]
    fn unknown_topic_suggests_the_nearest() {
        let nearest_of = |typed| match explain(Some(typed)) {
            Err(ExplainError::Unknown { nearest, .. }) => nearest,
            Ok(text) => panic!("{typed} is known: {text}"),
        };
        assert_eq!(nearest_of("laab"), Some("lab"));
        assert_eq!(nearest_of("timeuot"), Some("timeout"));
        assert_eq!(nearest_of("rootles"), Some("rootless"));
        assert_eq!(nearest_of("t19"), Some("T09"));
        assert_eq!(nearest_of("foo"), None);
        assert_eq!(nearest_of("kubernetes"), None);
        assert_eq!(
            explain(Some("foo")).unwrap_err().to_string(),
            "there is no topic \"foo\"; `isolab explain` lists all"
        );
        let message = explain(Some("laab")).unwrap_err().to_string();
        assert_eq!(message, "there is no topic \"laab\"; did you mean lab? `isolab explain` lists all");
    }

    #[test]
    fn each_word_of_a_verdict_and_each_probe_and_threat_leads_somewhere() {
        use isolab_bench::choose::THREATS;
        use isolab_bench::crosscheck::crosschecks;
        use isolab_bench::probe::table::ROWS;
        for word in ["comparable", "flagged", "refused"] {
            assert!(explain(Some(word)).unwrap().starts_with("verdict: "), "{word}");
        }
        for check in crosschecks(&[], None) {
            assert!(explain(Some(&check.id)).unwrap().starts_with("instrument: "), "{}", check.id);
        }
        for threat in THREATS {
            assert!(explain(Some(threat.name)).unwrap().starts_with("choose: "), "{}", threat.name);
        }
        for row in ROWS {
            let text = explain(Some(&row.id.to_lowercase())).unwrap();
            assert!(text.contains(row.title) && text.contains("docs/probe.md"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        }
    }

    #[test]
    fn lines_fit_the_width() {
        for topic in all() {
            for line in explain(Some(topic.name)).unwrap().lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
        assert!(explain(None).unwrap().lines().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(wrapped("a  b\nc", 3), "a b c\n");
        assert_eq!(wrapped("", 3), "\n");
    }
}
