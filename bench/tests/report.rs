//! The reports: they fit, they load nothing, and text of outside origin stays text.

mod synthetic;

use std::sync::LazyLock;

use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::record::{Record, Skipped};
use isolab_bench::report::html;
use isolab_bench::report::text::{TextStyle, render};

const LEVELS: [&str; 3] = ["process", "container", "vm"];

static LAB: LazyLock<Record> =
    LazyLock::new(|| synthetic::record(&LEVELS, 5, HostClass::EmulatedLab, ClockKind::Instructions, 20));

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
