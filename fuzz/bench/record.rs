//! A result file: an error, or a record that every report and judgement can be made of.

use isolab_bench::check::{self, Spec};
use isolab_bench::diff::{self, Question};
use isolab_bench::export;
use isolab_bench::probe::ProbeRecord;
use isolab_bench::record::Record;
use isolab_bench::recorded::Recorded;
use isolab_bench::report::text::TextStyle;
use isolab_bench::report::{html, markdown, probe, suite, surface, text};
use isolab_bench::surface::SurfaceRecord;
use libfuzzer_sys::Corpus;

/// A text for a terminal moves no cursor.
fn can_be_shown(text: &str) {
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{:?}",
        text.chars().find(|c| *c != '\n' && c.is_control())
    );
}

fn comparison(record: &Record) {
    let json = record.to_json().expect("a record has a text");
    assert!(
        Record::from_json(json.as_bytes()).expect("it is a record") == *record,
        "another record was read"
    );
    can_be_shown(&text::render(record, TextStyle::default()));
    let _ = (markdown::render(record), export::firecracker(record));
    let _ = (
        export::benchfmt(std::slice::from_ref(record)),
        export::hyperfine(std::slice::from_ref(record), None),
    );
    can_be_shown(&check::render(&check::check(record, &Spec::default())));
    assert!(diff::reasons(record, record).iter().all(|reason| !reason.is_empty()));
    let judged = diff::diff(record, record, Question::default());
    can_be_shown(&diff::render(&judged, &record.host));
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    match Recorded::from_bytes(data) {
        Ok(Recorded::Comparison(record)) => comparison(&record),
        Ok(Recorded::Bench(record)) => {
            can_be_shown(&suite::render(&record, 120));
            let _ = markdown::render_bench(&record);
        }
        Err(error) => can_be_shown(&error.to_string()),
    }
    if let Ok(record) = Recorded::from_bytes(data) {
        let _ = html::page(&[record]);
    }
    if let Ok(record) = ProbeRecord::from_json(data) {
        can_be_shown(&probe::render(&record, TextStyle::default(), true));
        let _ = html::render_probe(&record);
    }
    if let Ok(record) = SurfaceRecord::from_json(data) {
        can_be_shown(&surface::render(&record, TextStyle::default(), true));
    }
    Corpus::Keep
}
