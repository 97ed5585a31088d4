//! The reports: they fit, they load nothing, and text of outside origin stays text.

mod synthetic;

use std::sync::LazyLock;

use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::record::{Record, Skipped};
use isolab_bench::report::html;
use isolab_bench::report::text::{TextStyle, render};

const LEVELS: [&str; 3] = ["process", "container", "vm"];

static LAB: LazyLock<Record> =
    LazyLock::new(|| synthetic::record(&LEVELS, 7, HostClass::EmulatedLab, ClockKind::Instructions, 20));

fn lab() -> Record {
    LAB.clone()
}

fn plain(record: &Record) -> String {
    render(record, TextStyle::default())
}

fn visible(page: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in page.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text
}

#[test]
fn the_table_fits_100_columns_and_has_a_row_per_level() {
    let text = plain(&lab());
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(LEVELS.iter().all(|level| text.lines().any(|line| line.starts_with(&format!("{level} ")))));
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn colour_adds_sequences_and_no_text() {
    let coloured = render(&lab(), TextStyle { colour: true, columns: 100 });
    assert!(coloured.contains("\u{1b}[1;33mverdict  flagged\u{1b}[0m"));
}

#[test]
fn a_lab_report_never_speaks_of_milliseconds() {
    let record = lab();
    for report in [plain(&record), visible(&html::render(&record).expect("plain data"))] {
        assert!(report.contains("Mi"));
        assert!(!report.contains(" ms"), "{report}");
        assert!(report.contains("Not in these numbers: time on real hardware"));
    }
}

#[test]
fn a_lab_on_the_wall_clock_marks_its_times() {
    let record = synthetic::record(&LEVELS, 5, HostClass::EmulatedLab, ClockKind::Monotonic, 20);
    let text = plain(&record);
    assert!(text.contains("~ms") && !text.contains(" ms"), "{text}");
}

#[test]
fn a_refused_record_compares_nothing() {
    let record = synthetic::record(&LEVELS, 5, HostClass::Software, ClockKind::Monotonic, 20);
    let page = html::render(&record).expect("plain data");
    for report in [plain(&record), visible(&page)] {
        assert!(report.contains("NOT COMPARABLE"));
        assert!(!report.contains("later than") && !report.contains("more than"), "{report}");
    }
}

#[test]
fn a_level_that_cannot_run_is_named_with_its_remedy() {
    let mut record = synthetic::record(&LEVELS[..2], 5, HostClass::Software, ClockKind::Monotonic, 20);
    record.skipped = vec![Skipped {
        level: "vm".to_owned(),
        reason: "KVM here interprets guest kernels".to_owned(),
        remedy: "use --on lab".to_owned(),
    }];
    let sentence = "vm was not run: KVM here interprets guest kernels; use --on lab";
    let page = html::render(&record).expect("plain data");
    assert!(plain(&record).contains(sentence) && visible(&page).contains(sentence));
}

/// A record of a command that says nothing of itself: its process level is gone when memory is read at the end.
fn silent(pairs: u32) -> Record {
    let record = synthetic::record(&LEVELS, pairs, HostClass::Hardware, ClockKind::Monotonic, 20);
    let Record { run, host, arms, workload, mut samples, .. } = record;
    for sample in &mut samples {
        let times = sample.t_ns.as_mut().expect("a timeline");
        (times.first_user_insn, times.ready) = (None, None);
        sample.phase_ns = times.phases(&sample.arm);
        let memory = sample.mem_bytes.as_mut().expect("a charge");
        memory.at = "exit".to_owned();
        if sample.arm == "process" {
            memory.memcg_current = 4096;
        }
    }
    Record::new(run, host, arms, workload, samples)
}

/// The cells of a level's first row.
fn row<'a>(text: &'a str, level: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(level) && line.contains('x'));
    line.expect("a row").split_whitespace().collect()
}

#[test]
fn a_ratio_is_that_of_the_interval_it_is_named_for() {
    let record = silent(6);
    let median = |metric: &str, arm: &str| record.summary_of(metric).expect("measured").arms[arm].median;
    let ratio = |metric| format!("{:.2}x", median(metric, "container") / median(metric, "process"));
    let executed = ratio("startup.request_to_exec");
    assert_ne!(executed, ratio("startup.request_to_clean"));
    let text = plain(&record);
    assert!(text.contains("execve vs"), "{text}");
    let cells = row(&text, "container");
    assert_eq!(cells[cells.len() - 2], executed, "{text}");
    let page = html::render(&record).expect("plain data");
    let titled = format!("data-label=\"Execve, times process\">{executed}</td>");
    assert!(page.contains(&titled), "{titled}");
    assert_eq!(record.headline().startup, "startup.request_to_exec");
    assert!(text.contains("container executes its command") && text.contains("container is gone"), "{text}");
    let ready = plain(&synthetic::record(&LEVELS, 6, HostClass::Hardware, ClockKind::Monotonic, 20));
    assert!(ready.contains("ready vs") && !ready.contains("is gone"), "{ready}");
}

#[test]
fn a_command_that_is_never_ready_is_compared_by_its_peak() {
    let record = silent(6);
    let text = plain(&record);
    assert!(text.contains("peak of") && !text.contains("(peak)"), "{text}");
    assert!(text.contains("container is charged at its peak") && !text.contains("container is charged 0"));
    assert!(record.summary_of("memory.charge").is_none(), "no reading of a level that is gone");
    assert_eq!(record.headline().memory, "memory.peak");
    let page = html::render(&record).expect("plain data");
    assert!(
        page.contains("Peak of memory")
            && visible(&page).contains("the command does not say when it is ready")
    );
    // Its workload runs after the execve at each level, also where no init tells the end.
    assert!(record.samples.iter().all(|s| s.phase_ns.contains_key("workload_run")));
}

#[test]
fn fewer_than_six_pairs_are_described_and_nothing_is_found() {
    for pairs in [1, 5] {
        let record = synthetic::record(&LEVELS, pairs, HostClass::Hardware, ClockKind::Monotonic, 20);
        let page = visible(&html::render(&record).expect("plain data"));
        for report in [plain(&record), page] {
            let flat = report.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                !flat.contains("later than")
                    && !flat.contains("more than")
                    && !flat.contains("No difference")
            );
            assert!(flat.contains("can only be described") && !flat.contains("1 pairs"), "{flat}");
            assert!(!flat.contains(" ["), "an interval: {flat}");
        }
    }
    assert!(plain(&lab()).contains("more than process"));
}

#[test]
fn a_comparison_that_was_interrupted_says_after_how_many_pairs() {
    let Record { mut run, host, arms, workload, mut samples, .. } = lab();
    samples.truncate(4 + 2 * 4 + 1);
    run.interrupted = Some(2);
    let record = Record::new(run, host, arms, workload, samples);
    let text = plain(&record);
    assert!(
        text.contains("2 of 7 pairs of process") && text.contains("T10-number-of-pairs: ended after 2 of 7")
    );
}

#[test]
fn one_level_has_runs_and_no_order() {
    let text = plain(&synthetic::record(&["process"], 5, HostClass::None, ClockKind::Monotonic, 20));
    assert!(text.contains("5 runs of process, seed"), "{text}");
}

#[test]
fn the_page_loads_nothing() {
    let page = html::render(&lab()).expect("plain data");
    for forbidden in ["http://", "https://", "src=", "url(", "@import", "<script", "<link", "<img", "<iframe"]
    {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let addresses: Vec<&str> = page.split("href=\"").skip(1).collect();
    assert_eq!(addresses.len(), 1);
    assert!(addresses[0].starts_with("data:application/json;base64,"));
}

#[test]
fn the_record_in_the_page_is_the_record() {
    use base64::Engine;
    let record = lab();
    let page = html::render(&record).expect("plain data");
    let (_, rest) = page.split_once("data:application/json;base64,").expect("the record is embedded");
    let (encoded, _) = rest.split_once('"').expect("the attribute ends");
    let json = base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64");
    assert_eq!(Record::from_json(&json).expect("our own record"), record);
}

#[test]
fn names_from_outside_stay_text() {
    let mut record = lab();
    let hostile = "<script>alert(1)</script>\" onload=\"x\u{1b}[2J\u{202e}";
    record.workload.image = hostile.to_owned();
    record.workload.args = vec![hostile.to_owned()];
    record.run.id = hostile.to_owned();
    record.run.tool.version = hostile.to_owned();
    record.host.kernel = Some(hostile.to_owned());
    record.host.cpu_model = Some(hostile.to_owned());
    record.comparability.checks[0].id = hostile.to_owned();
    record.comparability.checks[2].detail = hostile.to_owned();
    for arm in record.arms.values_mut() {
        arm.kernel = Some(hostile.to_owned());
        arm.seccomp = hostile.to_owned();
        arm.init = hostile.to_owned();
        arm.net = hostile.to_owned();
        arm.rootfs.fs = Some(hostile.to_owned());
        arm.phases[0].meaning = hostile.to_owned();
    }
    let page = html::render(&record).expect("plain data");
    for odd in ["<script", "\" onload", "\u{1b}", "\u{202e}"] {
        assert!(!page.contains(odd), "{odd:?}");
    }
    let text = plain(&record);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
}

#[test]
fn arms_of_any_name_and_no_finished_run_still_give_a_report() {
    let mut record = synthetic::record(&["<b>\u{1b}[1m"], 3, HostClass::None, ClockKind::Monotonic, 20);
    let page = html::render(&record).expect("plain data");
    assert!(!page.contains("<b>\u{1b}") && !page.contains('\u{1b}') && !plain(&record).contains('\u{1b}'));
    for sample in &mut record.samples {
        sample.ok = false;
    }
    let Record { run, host, arms, workload, samples, .. } = record;
    let record = Record::new(run, host, arms, workload, samples);
    assert!(plain(&record).contains("3 of 3 runs failed"));
    assert!(html::render(&record).expect("plain data").contains("NOT COMPARABLE"));
}
