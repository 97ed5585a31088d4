//! Every run: the empirical distribution of the leading metric, one panel and one scale per level.

use std::fmt::Write;

use maud::{Markup, html};

use super::alone;
use crate::record::Record;
use crate::report::quantity::{Shown, digits, raw};
use crate::report::words::{leading_metric, printable};
use crate::summary::ArmSummary;

/// Inner drawing: thousandths of the width, hundredths of the height.
const WIDTH: f64 = 1000.0;
const TOP: u32 = 8;
const HEIGHT: u32 = 120;
const STRIP: u32 = TOP + HEIGHT + 14;

pub(super) fn section(record: &Record) -> Markup {
    let metric = leading_metric(record);
    let Some(summary) = record.summary_of(metric.name) else { return html! {} };
    let shown = Shown::of(summary.unit, &record.host);
    let panels: Vec<Markup> = (0_usize..)
        .zip(&record.run.plan.arms)
        .filter_map(|(i, arm)| {
            let own = record.samples.iter().filter(|s| s.arm == *arm && s.analysed());
            let mut values: Vec<f64> = own.filter_map(|s| Some(shown.scaled(raw(metric.of(s)?)))).collect();
            values.sort_by(f64::total_cmp);
            Some(panel(i, arm, &values, summary.arms.get(arm)?, shown))
        })
        .collect();
    html! {
        section {
            h2 { "Every run" }
            (alone(record))
            p class="caption" {
                "Share of runs in which the level " (metric.verb) " within a given " (if shown == Shown::Mi { "count" } else { "time" })
                "; each dot is a run, the dashed line the median, the band its 95 % interval where there are enough runs. Each panel has its own \
                 scale, which does not start at zero."
            }
            div class="panels" { @for panel in panels { (panel) } }
        }
    }
}

fn panel(i: usize, arm: &str, values: &[f64], s: &ArmSummary, shown: Shown) -> Markup {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return html! {} };
    let pad = ((last - first) * 0.06).max(last * 0.001).max(1e-9);
    let (low, width) = (first - pad, last - first + 2.0 * pad);
    let share = move |v: f64| (v - low) / width;
    let percent = |v: f64| format!("{:.2}%", share(v) * 100.0);
    let middle = shown.scaled(s.median);
    let ends = s.ci95.map(|ends| ends.map(|end| shown.scaled(end)));
    let interval = s.ci95.map(|ends| shown.interval(s.median, ends)).unwrap_or_default();
    let about = format!("{arm}: {} runs, median {} {}", s.n, digits(middle), shown.name());
    html! {
        figure class={ "c-" (i % 5) } {
            h3 { span class="swatch" {} (printable(arm)) }
            p class="note" { "n = " (s.n) ", median " (shown.with_unit(s.median)) " " (interval) }
            svg role="img" aria-label=(printable(&about)) width="100%" height=(STRIP + 34) {
                @for (y, text) in [(TOP, "100 %"), (TOP + HEIGHT / 2, "50 %"), (TOP + HEIGHT, "0 %")] {
                    line class="grid" x1="0" x2="100%" y1=(y) y2=(y) {}
                    text class="quiet" x="0" y=(if y == TOP { y + 13 } else { y - 3 }) { (text) }
                }
                @if let Some([from, to]) = ends {
                    rect class="band" x=(percent(from)) y=(TOP) height=(HEIGHT)
                        width=(format!("{:.2}%", (share(to) - share(from)) * 100.0)) {}
                }
                line class="middle" x1=(percent(middle)) x2=(percent(middle)) y1=(TOP) y2=(STRIP + 6) {}
                svg x="0" y=(TOP) width="100%" height=(HEIGHT) viewBox="0 0 1000 100" preserveAspectRatio="none" {
                    path class="step" d=(steps(values, share)) {}
                }
                @for value in values {
                    circle class="run" cx=(percent(*value)) cy=(STRIP) r="4" {
                        title { (digits(*value)) " " (shown.name()) }
                    }
                }
                text class="quiet" x="0" y=(STRIP + 26) { (digits(low)) }
                text class="quiet" x="100%" y=(STRIP + 26) text-anchor="end" { (digits(low + width)) " " (shown.name()) }
            }
        }
    }
}

/// The step line through sorted values, from 0 % at the left to 100 % at the right.
fn steps(values: &[f64], share: impl Fn(f64) -> f64) -> String {
    let n = raw(values.len() as u64);
    let mut path = "M0 100".to_owned();
    for (rank, value) in (1_u64..).zip(values) {
        // Writing to a string can't fail.
        let _ = write!(path, "H{:.1}V{:.2}", share(*value) * WIDTH, 100.0 - raw(rank) / n * 100.0);
    }
    path.push_str("H1000");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_by_equal_shares_at_each_run() {
        assert_eq!(steps(&[0.25, 0.5], |v| v), "M0 100H250.0V50.00H500.0V0.00H1000");
    }
}
