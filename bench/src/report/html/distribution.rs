//! Every run: the empirical distribution of the leading metric, all levels on one axis, then one panel and one scale per
//! level.

use std::fmt::Write;

use maud::{Markup, html};

use super::alone;
use super::chart::legend;
use super::plot::{Axis, Curve, Labels, chart};
use crate::record::Record;
use crate::report::quantity::{Shown, digits, raw};
use crate::report::words::{leading_metric, leading_word, printable};
use crate::summary::{ArmSummary, Metric};

/// Inner drawing: thousandths of the width, hundredths of the height.
const WIDTH: f64 = 1000.0;
const TOP: u32 = 8;
const HEIGHT: u32 = 120;
const STRIP: u32 = TOP + HEIGHT + 14;
/// Times the smallest value from which on the largest needs a logarithmic axis.
const LOG_FROM: f64 = 10.0;

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
                ", all levels on one axis: further left is sooner, steeper is steadier."
            }
            (together(record, metric, shown))
            p class="caption" {
                "Each level enlarged: every dot is a run, the dashed line the median, the band its 95 % interval where there are \
                 enough runs. Each panel has its own scale, which does not start at zero."
            }
            div class="panels" { @for panel in panels { (panel) } }
        }
    }
}

/// All arms on one axis: what the panels below show enlarged.
fn together(record: &Record, metric: &Metric, shown: Shown) -> Markup {
    let sorted = |arm: &String| {
        let own = record.samples.iter().filter(|s| s.arm == *arm && s.analysed());
        let mut values: Vec<f64> = own.filter_map(|s| Some(shown.scaled(raw(metric.of(s)?)))).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let arms: Vec<(usize, Vec<f64>)> = record
        .run
        .plan
        .arms
        .iter()
        .map(sorted)
        .enumerate()
        .filter(|(_, values)| !values.is_empty())
        .collect();
    let ends = arms.iter().flat_map(|(_, v)| v.first().into_iter().chain(v.last()));
    let (least, most) = ends.clone().fold((f64::INFINITY, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
    let log = least > 0.0 && most > LOG_FROM * least;
    let title =
        format!("{}, {}{}", leading_word(record), shown.name(), if log { " (logarithmic)" } else { "" });
    let Some(x) = Axis::around(title, ends.copied(), log) else { return html! {} };
    let y = Axis { title: "share of runs".to_owned(), range: 0.0..1.0, log: false, labels: Labels::Percent };
    let curves: Vec<Curve> = arms.iter().map(|(i, values)| curve(*i, values)).collect();
    let about = "Share of runs within a given time, every level on one axis";
    html! {
        figure {
            (chart(about, &x, &y, &curves))
            (legend(&record.run.plan.arms.iter().enumerate().map(|(i, arm)| ((i % 5).to_string(), printable(arm))).collect::<Vec<_>>(), None))
        }
    }
}

/// Steps from the first run to the last, a dot at each: the lines at 0 and 1 before and after would hide other levels'.
fn curve(colour: usize, values: &[f64]) -> Curve {
    let n = raw(values.len() as u64);
    let (mut line, mut points, mut share) = (Vec::new(), Vec::new(), 0.0);
    for (rank, value) in (1_u64..).zip(values) {
        line.push((*value, share));
        share = raw(rank) / n;
        line.push((*value, share));
        points.push((*value, share));
    }
    Curve { colour, line, points }
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
