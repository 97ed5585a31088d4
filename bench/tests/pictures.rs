//! The pictures of the page: known numbers give known bars, and text of outside origin stays text.

mod synthetic;

use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::record::Record;
use isolab_bench::report::html;
use isolab_bench::report::text::{TextStyle, render};
use isolab_bench::vary::Change;

/// A record of one level and two changed mechanisms, the second of which is at an arm named by somebody hostile.
fn varied() -> Record {
    let arms = ["container", "seccomp=off", "vm<script>\u{1b}"];
    let record = synthetic::record(&arms, 7, HostClass::Hardware, ClockKind::Monotonic, 20);
    let change = |arm: &str, knob: &str, to: &str, weaker| Change {
        arm: arm.to_owned(),
        knob: knob.to_owned(),
        from: "on".to_owned(),
        to: to.to_owned(),
        weaker,
    };
    let changes = vec![
        change(arms[1], "seccomp", "off", true),
        change(arms[2], "memory\"><script>", "\u{202e}<b>", false),
    ];
    record.with_changes(changes)
}

fn page(record: &Record) -> String {
    html::render(record).expect("plain data")
}

fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<h2>{title}</h2>")).expect("the section");
    rest.split("</section>").next().unwrap_or_default()
}

#[test]
fn every_knob_has_a_bar_of_time_one_of_memory_and_the_numbers_of_the_text_report() {
    let mut record = varied();
    let numbers =
        [("startup.request_to_ready", 3e6, [1e6, 5e6]), ("memory.charge", -1_048_576.0, [-3e6, 2e6])];
    for (metric, median, ci95) in numbers {
        let cost = record.vary[0].marginal.get_mut(metric).expect("measured");
        (cost.median, cost.ci95) = (median, Some(ci95));
    }
    let page = page(&record);
    let knobs = section(&page, "What each mechanism costs");
    assert_eq!(knobs.matches("<svg").count(), 2);
    for words in [
        "seccomp: on \u{2192} off (weaker isolation): +3.000 [1.000, 5.000]",
        "seccomp: on \u{2192} off (weaker isolation): -1.000 [-2.861, 1.907]",
        "class=\"part c-more\"",
        "class=\"part c-less\"",
        "<h3>Time to ready, ms</h3>",
        "<h3>Memory, MiB</h3>",
        "<span class=\"weaker\">weaker isolation</span>",
        "data-label=\"to clean, ms\"",
    ] {
        assert!(knobs.contains(words), "{words}: {knobs}");
    }
    assert_eq!(knobs.matches("class=\"weaker\"").count(), 1, "only one knob weakens");
    let text = render(&record, TextStyle::default());
    assert!(text.contains("seccomp: on -> off") && text.contains("+3.000"), "{text}");
}

#[test]
fn knobs_from_outside_stay_text() {
    let page = page(&varied());
    for odd in ["<script", "\u{1b}", "\u{202e}", "<b>\u{202e}"] {
        assert!(!page.contains(odd), "{odd:?}");
    }
    assert!(section(&page, "What each mechanism costs").contains("memory&quot;&gt;&lt;script&gt;"));
}

#[test]
fn knobs_of_a_refused_record_and_of_none_are_not_drawn() {
    let mut record = varied();
    record.vary.clear();
    assert!(!page(&record).contains("What each mechanism costs"));
    let mut record = varied();
    record.comparability.verdict = isolab_bench::comparability::Verdict::Refused;
    assert!(!page(&record).contains("What each mechanism costs"));
}

#[test]
fn the_steps_of_the_phases_are_drawn_where_they_reach_as_far() {
    let mut record = synthetic::record(&["container"], 6, HostClass::Hardware, ClockKind::Monotonic, 20);
    assert!(!page(&record).contains("The strip below"));
    for sample in &mut record.samples {
        let clean = sample.t_ns.as_ref().and_then(|t| t.clean).expect("a timeline");
        let main = sample.phase_ns["exec_self"];
        sample.subphase_ns = [("exec_self", main), ("image_open", 7_000), ("teardown", clean - main - 7_000)]
            .map(|(key, ns)| (key.to_owned(), ns))
            .into();
    }
    let drawn = page(&record);
    let timeline = section(&drawn, "Start-up timeline");
    assert_eq!(timeline.matches("class=\"finer").count(), 3, "{timeline}");
    assert!(timeline.contains("class=\"finer c-prepare\"") && timeline.contains("image open: 0.007 ms"));
    assert!(timeline.contains("command line read, image found, opened and verified"));
    for sample in &mut record.samples {
        sample.subphase_ns.insert("exec".to_owned(), 1);
    }
    assert!(!page(&record).contains("class=\"finer"), "what does not add up is not drawn");
}
