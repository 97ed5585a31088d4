//! `isolab choose`: which level does what is asked, with the evidence.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use isolab_bench::choose::{Answer, Asked, Choice, LevelChoice, NEEDS, Point, StartBudget, THREATS, choose};
use isolab_bench::probe::ProbeRecord;

use crate::cli::ChooseArgs;
use crate::escaped;
use crate::report::{bytes, read};
use crate::say;
use crate::units::{parse_duration, parse_size};

/// Exit status where no level is known to fit.
const NONE_FITS: u8 = 1;

/// Answers.
///
/// # Errors
/// A name is unknown, or a record can't be read.
pub(crate) fn command(args: &ChooseArgs) -> anyhow::Result<u8> {
    if args.threat.is_empty()
        && args.need.is_empty()
        && args.start_budget.is_none()
        && args.memory_budget.is_none()
    {
        bail!(
            "nothing is asked; give --threat, --need, --start-budget or --memory-budget, as `isolab choose --help` has them"
        );
    }
    let named = |what: &str, name: &String, known: Vec<&str>| {
        anyhow::anyhow!("there is no {what} {name:?}; there are {}", known.join(", "))
    };
    let mut asked = Asked::default();
    for name in &args.threat {
        let found = THREATS.iter().find(|threat| threat.name == name);
        let known = || THREATS.iter().map(|threat| threat.name).collect();
        asked.threats.push(found.ok_or_else(|| named("threat", name, known()))?);
    }
    for name in &args.need {
        let found = NEEDS.iter().find(|need| need.name == name);
        let known = || NEEDS.iter().map(|need| need.name).collect();
        asked.needs.push(found.ok_or_else(|| named("need", name, known()))?);
    }
    asked.start = args.start_budget.as_deref().map(start_budget).transpose()?;
    asked.memory_bytes =
        args.memory_budget.as_deref().map(|text| parse_size("--memory-budget", text)).transpose()?;
    let record = args.record.as_deref().map(read).transpose()?;
    let probed = match &args.probe {
        Some(path) => {
            Some(ProbeRecord::from_json(&bytes(path)?).with_context(|| format!("read {}", path.display()))?)
        }
        None => None,
    };
    let choice = choose(&asked, probed.as_ref(), record.as_ref());
    let text = match args.json {
        true => isolab_images::escape::json(&choice)? + "\n",
        false => render(&choice),
    };
    say::all(text)?;
    Ok(if choice.with(Answer::Fits).next().is_some() { 0 } else { NONE_FITS })
}

/// `50ms`, `2s`, or `25Mi` of the lab's instructions.
fn start_budget(text: &str) -> anyhow::Result<StartBudget> {
    if let Some(number) = text.strip_suffix("Mi") {
        let number: f64 =
            number.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0).with_context(|| {
                format!("--start-budget {text:?} is not a number with a unit; write for example 50ms or 25Mi")
            })?;
        return Ok(StartBudget::Mi(number));
    }
    Ok(StartBudget::Ms(parse_duration("--start-budget", text)?.as_secs_f64() * 1e3))
}

fn render(choice: &Choice) -> String {
    let mut out = String::new();
    for (n, asked) in choice.asked.iter().enumerate() {
        let _ = writeln!(out, "{:<10} {asked}", if n == 0 { "asked" } else { "" });
    }
    let names = |answer| choice.with(answer).collect::<Vec<_>>().join(", ");
    let (fits, unknown) = (names(Answer::Fits), names(Answer::Unknown));
    let told = match (fits.is_empty(), unknown.is_empty()) {
        (false, _) => fits,
        (true, false) => format!("none for certain; what is not known of {unknown} is below"),
        (true, true) => "none of these".to_owned(),
    };
    let _ = writeln!(out, "answer     {told}");
    for level in &choice.levels {
        let _ = writeln!(out, "\n{:<10} {}", level.level, answer(level.answer));
        lines(&mut out, level);
    }
    out.push('\n');
    if let Some(costs_of) = &choice.costs_of {
        let _ = writeln!(out, "Costs are of {}", escaped(costs_of));
    }
    let _ = writeln!(
        out,
        "Points are from the {}; `isolab probe --only P01 IMAGE` shows the evidence of one again.",
        choice.evidence
    );
    out
}

const fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Fits => "fits",
        Answer::Unknown => "would fit, but for what is not known",
        Answer::DoesNot => "does not fit",
    }
}

fn lines(out: &mut String, level: &LevelChoice) {
    for (mark, points) in [("lacks", &level.lacks), ("unknown", &level.unknown), ("holds", &level.holds)] {
        for point in points {
            let _ = writeln!(out, "  {mark:<8} {}", words(mark, point));
        }
    }
    if !level.see.is_empty() {
        let _ = writeln!(
            out,
            "  see      docs/security.md: {}, of which probes show a part",
            level.see.join(", ")
        );
    }
    for cost in &level.costs {
        let median = cost.median.as_deref().unwrap_or("unknown");
        let judged = match (cost.within, &cost.why_not) {
            (Some(true), _) => ", inside of the limit".to_owned(),
            (Some(false), _) => ", over the limit".to_owned(),
            (None, Some(why)) => format!("; {why}"),
            (None, None) => String::new(),
        };
        let _ = writeln!(out, "  {:<8} {median}{judged}", cost.of);
    }
}

fn words(mark: &str, point: &Point) -> String {
    let items = match (mark, &point.items[..]) {
        ("lacks", [_, ..]) => format!(" ({})", point.items.join(", ")),
        _ => String::new(),
    };
    escaped(&format!("{} {} [{}]: {}{items}", point.probe, point.title, point.about, point.means))
}
