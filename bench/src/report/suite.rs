//! The report of a bench run for a terminal: verdict first, then one block for each suite.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use crate::comparability::Verdict;
use crate::environment::{ClockKind, HostClass, NS_PER_INSTRUCTION};
use crate::report::quantity::{digits, factor, times};
use crate::report::text::{check_line, fill};
use crate::report::words::{printable, verdict_word};
use crate::statistics::Estimate;
use crate::suite::lines::SuiteRecord;
use crate::suite::{SuiteSummary, SuiteUnit, suite};

/// The report, with its last newline.
#[must_use]
pub fn render(record: &SuiteRecord, columns: usize) -> String {
    let mut out = String::new();
    let mut put = |first: &str, text: &str| {
        out.push_str(&fill(text, first, "         ", columns));
        out.push('\n');
    };
    put("where    ", &place(record));
    let plan = &record.run.plan;
    let runs = format!(
        "{} rounds of every workload at every level in random order, {} before them not counted; seed {}; each number is the \
         median over rounds of the median of {} batches of one size at every level",
        plan.pairs, plan.warmup_pairs, plan.seed, plan.repetitions
    );
    if !plan.tasks.is_empty() {
        put("runs     ", &runs);
    }
    put("verdict  ", verdict_word(record.end.verdict));
    for check in record.end.checks.iter().filter(|c| c.speaks()) {
        put("         ", &check_line(check));
    }
    let failed = record.samples.iter().filter(|s| !s.ok && !s.warmup);
    if let (n, Some(first)) = (failed.clone().count(), failed.clone().next()) {
        let why = first.error.as_deref().unwrap_or("did not end by itself");
        let text =
            format!("{n} runs failed, the first: {} at {}: {}", first.workload, first.arm, printable(why));
        put("failed   ", &text);
    }
    if let Some(why) = &record.end.failed {
        put("failed   ", &printable(why));
    }
    let mut names: Vec<&str> = plan.tasks.iter().map(|task| task.suite.as_str()).collect();
    names.dedup();
    for name in names {
        let own: Vec<&SuiteSummary> = record.summaries.iter().filter(|s| s.suite == name).collect();
        out.push_str(&format!("\n{}: {}\n", printable(name), suite(name).map_or("", |suite| suite.about)));
        for line in block(record, &own).lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    if record.run.plan.arms.len() > 1 && !plan.tasks.is_empty() && record.end.verdict != Verdict::Refused {
        let how =
            "A ratio is the median of the ratios within rounds, not the quotient of the medians beside it.";
        out.push_str(&fill(how, "\n", "", columns));
        out.push('\n');
    }
    out.push_str(&super::density::render(record, columns));
    for skipped in &record.run.skipped {
        let text = format!("{} was not run: {}; {}", skipped.level, skipped.reason, skipped.remedy);
        out.push_str(&fill(&format!("\n{}", printable(&text)), "", "  ", columns));
        out.push('\n');
    }
    out
}

fn place(record: &SuiteRecord) -> String {
    let host = &record.run.host;
    match (host.class, host.clock) {
        (HostClass::EmulatedLab, ClockKind::Instructions) => {
            "the emulated lab; its clock counts instructions, so caches, TLB and the cost of a world switch are not in \
             these numbers"
                .to_owned()
        }
        (HostClass::EmulatedLab, ClockKind::Monotonic) => {
            "the emulated lab by the wall clock: no number here is one of a real machine".to_owned()
        }
        _ => format!(
            "this host, {}, Linux {}",
            host.cpu_model.as_deref().unwrap_or("CPU not known"),
            host.kernel.as_deref().unwrap_or("not known")
        ),
    }
}

/// How a metric is shown on this machine: its unit's name, and what raw numbers are divided by.
fn shown(record: &SuiteRecord, unit: SuiteUnit) -> (&'static str, f64) {
    let counted = record.run.host.clock == ClockKind::Instructions;
    let lab = record.run.host.class == HostClass::EmulatedLab;
    match unit {
        SuiteUnit::NsPerOp if counted => ("instr/op", f64::from(NS_PER_INSTRUCTION)),
        SuiteUnit::NsPerOp if lab => ("~ns/op", 1.0),
        SuiteUnit::NsPerOp => ("ns/op", 1.0),
        SuiteUnit::Ns if counted => ("Mi", 1e6 * f64::from(NS_PER_INSTRUCTION)),
        SuiteUnit::Ns if lab => ("~ms", 1e6),
        SuiteUnit::Ns => ("ms", 1e6),
        SuiteUnit::Bytes => ("MiB", 1_048_576.0),
    }
}

fn block(record: &SuiteRecord, summaries: &[&SuiteSummary]) -> String {
    let arms = &record.run.plan.arms;
    let others: &[String] =
        if record.end.verdict == Verdict::Refused { &[] } else { arms.get(1..).unwrap_or_default() };
    let base = arms.first().map(|arm| printable(arm)).unwrap_or_default();
    let mut header = vec!["workload".to_owned(), "unit".to_owned()];
    header.extend(arms.iter().map(|arm| printable(arm)));
    header.extend(others.iter().map(|arm| format!("{} vs {base}", printable(arm))));
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for summary in summaries {
        let (unit, scale) = shown(record, summary.unit);
        let mut row = vec![title(summary), unit.to_owned()];
        row.extend(arms.iter().map(|arm| {
            summary.arms.get(arm).map_or_else(|| "-".to_owned(), |numbers| middle(numbers.middle, scale))
        }));
        row.extend(others.iter().map(|arm| {
            let compared = summary.comparisons.iter().find(|c| c.b == *arm);
            compared.and_then(|c| c.ratio_b_over_a).map_or_else(|| "-".to_owned(), ratio)
        }));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.column_iter_mut().for_each(|c| {
        c.set_padding((2, 0));
    });
    table.to_string()
}

/// The workload, what of it, and its doubts.
fn title(summary: &SuiteSummary) -> String {
    let what = match summary.metric.as_str() {
        "startup.request_to_first_user_insn" => " to first instruction",
        "startup.request_to_ready" => " to ready",
        "startup.request_to_clean" => " to clean",
        "memory.charge" => " charge",
        "memory.peak" => " peak",
        "lateness" => " lateness",
        _ => "",
    };
    let doubts = summary.flags.iter().map(|flag| format!("\n  ! {}", printable(flag)));
    format!("{}{what}{}", printable(&summary.workload), doubts.collect::<String>())
}

fn middle(estimate: Estimate, scale: f64) -> String {
    let median = estimate.median / scale;
    let interval =
        estimate.ci95.map(|[low, high]| format!("\n[{}, {}]", digits(low / scale), digits(high / scale)));
    format!("{}{}", digits(median), interval.unwrap_or_default())
}

fn ratio(estimate: Estimate) -> String {
    match estimate.ci95 {
        Some(ends) => times(estimate.median, ends).replacen(' ', "\n", 1),
        None => factor(estimate.median),
    }
}
