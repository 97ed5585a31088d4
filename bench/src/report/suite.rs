//! The report of a bench run: its words and numbers, and all of it for a terminal, verdict first, then one block for each
//! suite.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use crate::comparability::Verdict;
use crate::environment::{ClockKind, HostClass, NS_PER_INSTRUCTION};
use crate::report::quantity::{digits, factor, times};
use crate::report::text::{check_line, fill};
use crate::report::words::{printable, skipped, verdict_word};
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
    if let Some(runs) = arrangement(record) {
        put("runs     ", &runs);
    }
    put("verdict  ", verdict_word(record.end.verdict));
    for check in record.end.checks.iter().filter(|c| c.speaks()) {
        put("         ", &check_line(check));
    }
    if let Some(text) = failed(record) {
        put("failed   ", &text);
    }
    if let Some(why) = &record.end.failed {
        put("failed   ", &printable(why));
    }
    if let Some(text) = interrupted(record) {
        put("ended    ", &text);
    }
    for block in blocks(record) {
        out.push_str(&format!("\n{}: {}\n", block.name, block.about));
        for line in table(record, &block).lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    if record.run.plan.arms.len() > 1
        && !record.run.plan.tasks.is_empty()
        && record.end.verdict != Verdict::Refused
    {
        let how =
            "A ratio is the median of the ratios within rounds, not the quotient of the medians beside it.";
        out.push_str(&fill(how, "\n", "", columns));
        out.push('\n');
    }
    out.push_str(&super::density::render(record, columns));
    for sentence in skipped(&record.run.skipped) {
        out.push_str(&fill(&format!("\n{sentence}"), "", "  ", columns));
        out.push('\n');
    }
    out
}

/// Suites and image.
pub(super) fn subject(record: &SuiteRecord) -> String {
    let mut names: Vec<String> = suites(record).into_iter().map(printable).collect();
    if !record.densities.is_empty() {
        names.push("density".to_owned());
    }
    names.push(printable(&record.run.image));
    names.join(" ")
}

/// The suites of the plan, in its order.
fn suites(record: &SuiteRecord) -> Vec<&str> {
    let mut names: Vec<&str> = record.run.plan.tasks.iter().map(|task| task.suite.as_str()).collect();
    names.dedup();
    names
}

/// How the runs were arranged; nothing where no workload was run.
pub(super) fn arrangement(record: &SuiteRecord) -> Option<String> {
    let plan = &record.run.plan;
    (!plan.tasks.is_empty()).then(|| {
        format!(
            "{} rounds of every workload at every level in random order, {} before them not counted; seed {}; each number is \
             the median over rounds of the median of {} batches of one size at every level",
            plan.pairs, plan.warmup_pairs, plan.seed, plan.repetitions
        )
    })
}

/// How many runs failed, and why the first did.
pub(super) fn failed(record: &SuiteRecord) -> Option<String> {
    let failed = record.samples.iter().filter(|s| !s.ok && !s.warmup);
    let first = failed.clone().next()?;
    let why = first.error.as_deref().unwrap_or("did not end by itself");
    let text =
        format!("{} runs failed, the first: {} at {}: {why}", failed.count(), first.workload, first.arm);
    Some(printable(&text))
}

/// What ended the run before its plan did.
pub(super) fn interrupted(record: &SuiteRecord) -> Option<String> {
    Some(format!("by signal {}, before all was measured", record.end.interrupted?))
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
            printable(host.cpu_model.as_deref().unwrap_or("CPU not known")),
            printable(host.kernel.as_deref().unwrap_or("not known"))
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

/// A suite's table.
pub(super) struct Block {
    pub(super) name: String,
    pub(super) about: &'static str,
    pub(super) rows: Vec<Row>,
}

/// A metric of a workload.
pub(super) struct Row {
    /// The workload, and what of it.
    pub(super) title: String,
    /// What its numbers are in doubt for.
    pub(super) doubts: Vec<String>,
    pub(super) unit: &'static str,
    /// Of each level of the plan.
    pub(super) levels: Vec<Option<Cell>>,
    /// Of each level of [`compared`].
    pub(super) ratios: Vec<Option<Cell>>,
}

/// A number with its interval.
pub(super) struct Cell {
    pub(super) value: String,
    pub(super) interval: Option<String>,
}

impl Cell {
    fn middle(estimate: Estimate, scale: f64) -> Self {
        let interval = |[low, high]: [f64; 2]| format!("[{}, {}]", digits(low / scale), digits(high / scale));
        Self { value: digits(estimate.median / scale), interval: estimate.ci95.map(interval) }
    }

    fn ratio(estimate: Estimate) -> Self {
        let told = estimate.ci95.map(|ends| times(estimate.median, ends));
        match told.as_deref().and_then(|told| told.split_once(' ')) {
            Some((value, interval)) => Self { value: value.to_owned(), interval: Some(interval.to_owned()) },
            None => Self { value: factor(estimate.median), interval: None },
        }
    }

    /// Number and interval with this between them.
    pub(super) fn joined(cell: Option<&Self>, between: &str) -> String {
        let Some(cell) = cell else { return "-".to_owned() };
        let interval = cell.interval.as_ref().map(|interval| format!("{between}{interval}"));
        format!("{}{}", cell.value, interval.unwrap_or_default())
    }
}

/// The levels that are set against the first; none where that is refused.
fn compared(record: &SuiteRecord) -> &[String] {
    if record.end.verdict == Verdict::Refused {
        &[]
    } else {
        record.run.plan.arms.get(1..).unwrap_or_default()
    }
}

/// Titles of the columns of ratios.
pub(super) fn ratio_titles(record: &SuiteRecord) -> Vec<String> {
    let base = record.run.plan.arms.first().map(|arm| printable(arm)).unwrap_or_default();
    compared(record).iter().map(|arm| format!("{} vs {base}", printable(arm))).collect()
}

/// The table of each suite.
pub(super) fn blocks(record: &SuiteRecord) -> Vec<Block> {
    let block = |name: &str| {
        let own = record.summaries.iter().filter(|s| s.suite == name);
        Block {
            name: printable(name),
            about: suite(name).map_or("", |suite| suite.about),
            rows: own.map(|summary| row(record, summary)).collect(),
        }
    };
    suites(record).into_iter().map(block).collect()
}

fn row(record: &SuiteRecord, summary: &SuiteSummary) -> Row {
    let (unit, scale) = shown(record, summary.unit);
    let level = |arm: &String| Some(Cell::middle(summary.arms.get(arm)?.middle, scale));
    let against = |arm: &String| {
        let compared = summary.comparisons.iter().find(|c| c.b == *arm)?;
        compared.ratio_b_over_a.map(Cell::ratio)
    };
    Row {
        title: title(summary),
        doubts: summary.flags.iter().map(|flag| printable(flag)).collect(),
        unit,
        levels: record.run.plan.arms.iter().map(level).collect(),
        ratios: compared(record).iter().map(against).collect(),
    }
}

fn table(record: &SuiteRecord, block: &Block) -> String {
    let mut header = vec!["workload".to_owned(), "unit".to_owned()];
    header.extend(record.run.plan.arms.iter().map(|arm| printable(arm)));
    header.extend(ratio_titles(record));
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for row in &block.rows {
        let doubts: String = row.doubts.iter().map(|doubt| format!("\n  ! {doubt}")).collect();
        let mut cells = vec![format!("{}{doubts}", row.title), row.unit.to_owned()];
        let numbers = row.levels.iter().chain(&row.ratios);
        cells.extend(numbers.map(|cell| Cell::joined(cell.as_ref(), "\n")));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.column_iter_mut().for_each(|c| {
        c.set_padding((2, 0));
    });
    table.to_string()
}

/// The workload, and what of it.
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
    format!("{}{what}", printable(&summary.workload))
}
