//! The sweep of system calls: answers by number, and in the container number by number against the filter's table.

use std::collections::BTreeMap;

use isolab_bench::probe::{ItemRecord, Outcome};
use isolab_container::seccomp::{Check, Verdict, name, verdict};

use super::judge::{Context, plain, reason};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// What one call answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A value, or an error of its own.
    Ran,
    /// This error.
    Errno(i32),
    /// It waited.
    Waited,
    /// A signal.
    Signal(i32),
    /// It could not be tried.
    Failed,
}

/// Answers by number.
pub(super) type Answers = BTreeMap<u32, Answer>;

/// Reads `number:answer` words; what is none of these is no answer.
pub(super) fn read(said: &str) -> Answers {
    let word = |word: &str| {
        let (number, answer) = word.split_once(':')?;
        let answer = match (answer.chars().next()?, answer.get(1..)?) {
            ('0', "") => Answer::Ran,
            ('w', "") => Answer::Waited,
            ('-', errno) => Answer::Errno(errno.parse().ok()?),
            ('s', signal) => Answer::Signal(signal.parse().ok()?),
            _ => Answer::Failed,
        };
        Some((number.parse().ok()?, answer))
    };
    said.split(' ').filter_map(word).collect()
}

/// Calls that the filter allows and that a missing capability refuses before it looks at the arguments.
const NEEDS_CAPABILITY: &[&str] = &["setgroups", "sethostname", "setdomainname", "chroot", "vhangup", "acct"];

/// The sweep's items at a level.
pub(super) fn records(said: &str, context: &Context<'_>) -> Vec<ItemRecord> {
    let answers = read(said);
    if answers.len() < 400 {
        return vec![plain("sweep", Outcome::Unknown, Some(format!("only {} answers", answers.len())), None)];
    }
    let is = |answer: &Answer, errno| *answer == if errno == 0 { Answer::Ran } else { Answer::Errno(errno) };
    let missing: Vec<u32> = answers.iter().filter(|(_, a)| is(a, ENOSYS)).map(|(n, _)| *n).collect();
    let refused: Vec<u32> = answers.iter().filter(|(_, a)| is(a, EPERM)).map(|(n, _)| *n).collect();
    let failed: Vec<u32> = answers.iter().filter(|(_, a)| **a == Answer::Failed).map(|(n, _)| *n).collect();
    let mut records = Vec::new();
    if !failed.is_empty() {
        records.push(plain("not tried", Outcome::Unknown, Some(names(&failed)), None));
    }
    if context.level != "container" {
        let through = answers.len() - missing.len() - refused.len();
        let seen = format!(
            "{through} numbers get through, {} are refused, {} unknown",
            refused.len(),
            missing.len()
        );
        records.push(plain("allowed calls", Outcome::Reached, Some(seen), None));
        return records;
    }
    let mut allowed = 0;
    let mut closed = 0;
    let mut differing = Vec::new();
    for (number, answer) in &answers {
        match table(*number) {
            None => {
                allowed += 1;
                let base = context.baseline_calls.and_then(|calls| calls.get(number));
                // A kernel that lacks the call says so without isolation as well.
                let lacks = is(answer, ENOSYS) && base.is_none_or(|base| is(base, ENOSYS));
                let no_right = is(answer, EPERM)
                    && (NEEDS_CAPABILITY.contains(&name(*number).as_str())
                        || base.is_some_and(|b| is(b, EPERM)));
                if (is(answer, ENOSYS) && !lacks) || (is(answer, EPERM) && !no_right) {
                    differing.push((*number, *answer, "allowed".to_owned()));
                }
            }
            Some(errno) => {
                closed += 1;
                if !is(answer, errno) {
                    differing.push((*number, *answer, format!("error {errno}")));
                }
            }
        }
    }
    let seen = format!("{allowed} numbers, as in the filter's table");
    records.push(plain("allowed calls", Outcome::Reached, Some(seen), None));
    let seen = format!("{closed} numbers answer as in the filter's table");
    let mut refusals = plain("refused calls", Outcome::Blocked, Some(seen), None);
    refusals.reason = Some(reason("seccomp", None, None));
    records.push(refusals);
    for (number, answer, table) in differing {
        let item = format!("unlike the table: {}", name(number));
        records.push(plain(&item, Outcome::Reached, Some(format!("{answer:?}")), Some(table)));
    }
    records
}

/// The table's answer to the sweep's arguments: nothing where the call is allowed, else the error.
fn table(number: u32) -> Option<i32> {
    const BAD: u32 = u32::MAX;
    const SIGCHLD: u32 = 17;
    let answer = match verdict(number) {
        Verdict::Check(Check::CloneFlags) => Check::CloneFlags.answer([SIGCHLD, 0, 0]),
        Verdict::Check(check) => check.answer([BAD; 3]),
        other => other,
    };
    match answer {
        Verdict::Errno(errno) => Some(errno.into()),
        _ => None,
    }
}

fn names(numbers: &[u32]) -> String {
    numbers.iter().map(|n| name(*n)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_nonsense_is_none() {
        let answers = read("0:-9 34:w 39:0 59:s31 60:x4 nonsense 1: a:b 2:-x");
        assert_eq!(answers.get(&0), Some(&Answer::Errno(9)));
        assert_eq!(answers.get(&34), Some(&Answer::Waited));
        assert_eq!(answers.get(&39), Some(&Answer::Ran));
        assert_eq!(answers.get(&59), Some(&Answer::Signal(31)));
        assert_eq!(answers.get(&60), Some(&Answer::Failed));
        assert_eq!(answers.len(), 5);
    }

    #[test]
    fn the_table_tells_allowed_from_refused() {
        assert_eq!((table(0), table(321), table(435), table(500)), (None, Some(1), Some(38), Some(38)));
        // By their arguments.
        assert_eq!((table(56), table(41), table(135), table(16)), (None, Some(97), None, None));
    }
}
