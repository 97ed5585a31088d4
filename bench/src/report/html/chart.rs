//! Bars as SVG, stacked or from zero to either side. Widths are percentages, so the drawing follows the page and its text keeps its size.
//!
//! Drawn by hand and not by a plotting library: colours come from the page's style (light, dark, print), each part
//! has a text for a screen reader, and the letters stay readable on a telephone.

use maud::{Markup, html};

use crate::report::quantity::digits;

/// One bar; values are in the unit shown.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// Over its left end.
    pub(super) name: String,
    /// Over its right end.
    pub(super) total: String,
    /// From left to right.
    pub(super) parts: Vec<Part>,
    /// What the parts consist of, in their order; they reach as far. Drawn as a strip below; empty where not known.
    pub(super) finer: Vec<Part>,
    /// A moment or amount to point at, with its meaning.
    pub(super) mark: Option<(f64, &'static str)>,
}

/// A part of a bar.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Selects its colour: `c-` and this.
    pub(super) key: String,
    /// Written inside where there is room.
    pub(super) label: String,
    /// How much.
    pub(super) value: f64,
}

impl Bar {
    fn reach(&self) -> f64 {
        self.parts.iter().map(|p| p.value).sum::<f64>().max(self.mark.map_or(0.0, |(at, _)| at))
    }
}

/// Times the next smaller value from which on a value dwarfs the others.
const DWARFS: f64 = 8.0;

/// Whether something of this size is hard to see beside the largest.
pub(super) fn is_dwarfed(size: f64, largest: f64) -> bool {
    size * DWARFS < largest
}

/// The bars that the largest ones dwarf, for a second drawing with a scale of its own.
pub(super) fn dwarfed(bars: &[Bar]) -> Vec<Bar> {
    let most = bars.iter().map(Bar::reach).fold(0.0, f64::max);
    bars.iter().filter(|bar| is_dwarfed(bar.reach(), most)).cloned().collect()
}

const ROW: u32 = 62;
const BAR_TOP: u32 = 24;
const BAR_HEIGHT: u32 = 24;
/// The strip of finer parts, below its bar.
const STRIP_TOP: u32 = BAR_TOP + BAR_HEIGHT + 2;
const STRIP_HEIGHT: u32 = 8;

/// The bars on one linear scale from zero.
pub(super) fn stacked(about: &str, unit: &str, bars: &[Bar]) -> Markup {
    let domain = bars.iter().map(Bar::reach).fold(0.0, f64::max).max(1e-9) * 1.01;
    let percent = |value: f64| format!("{:.3}%", value / domain * 100.0);
    let axis_top = ROW * u32::try_from(bars.len()).unwrap_or(1);
    let ticks = ticks(0.0, domain);
    html! {
        svg role="img" aria-label=(about) width="100%" height=(axis_top + 26) {
            @for tick in &ticks {
                line class="grid" x1=(percent(*tick)) x2=(percent(*tick)) y1=(BAR_TOP) y2=(axis_top - 6) {}
            }
            @for (row, bar) in (0_u32..).zip(bars) {
                (drawn(bar, row * ROW, &percent, domain, unit))
            }
            @for tick in labelled(&ticks) {
                @let anchor = if *tick == 0.0 { "start" } else if *tick > 0.94 * domain { "end" } else { "middle" };
                text class="quiet" x=(percent(*tick)) y=(axis_top + 10) text-anchor=(anchor) {
                    (short(*tick)) @if *tick == 0.0 { " " (unit) }
                }
            }
        }
    }
}

/// Where each part begins, one after the other from zero.
fn starts(parts: &[Part]) -> Vec<f64> {
    let mut begin = 0.0;
    let start = |part: &Part| {
        let start = begin;
        begin += part.value;
        start
    };
    parts.iter().map(start).collect()
}

fn drawn(bar: &Bar, top: u32, percent: &impl Fn(f64) -> String, domain: f64, unit: &str) -> Markup {
    let (bar_top, middle) = (top + BAR_TOP, top + BAR_TOP + BAR_HEIGHT / 2 + 4);
    html! {
        g role="group" aria-label={ (bar.name) ": " (bar.total) } {
            text class="name" x="0" y=(top + 17) { (bar.name) }
            text x="100%" y=(top + 17) text-anchor="end" { (bar.total) }
            rect class="track" x="0" y=(bar_top) width="100%" height=(BAR_HEIGHT) rx="3" {}
            @for (part, start) in bar.finer.iter().zip(starts(&bar.finer)) {
                rect class={ "finer c-" (part.key) } x=(percent(start)) y=(top + STRIP_TOP) width=(percent(part.value))
                    height=(STRIP_HEIGHT) {
                    title { (bar.name) ", " (part.label) ": " (digits(part.value)) " " (unit) }
                }
            }
            @for (part, start) in bar.parts.iter().zip(starts(&bar.parts)) {
                rect class={ "part c-" (part.key) } x=(percent(start)) y=(bar_top) width=(percent(part.value))
                    height=(BAR_HEIGHT) {
                    title { (bar.name) ", " (part.label) ": " (digits(part.value)) " " (unit) }
                }
                @if part.value > domain * 0.26 {
                    text class={ "inside i-" (part.key) } x=(percent(start + part.value / 2.0)) y=(middle) text-anchor="middle" {
                        (part.label)
                    }
                }
            }
            @if let Some((at, meaning)) = bar.mark {
                line class="mark" x1=(percent(at)) x2=(percent(at)) y1=(bar_top - 4) y2=(bar_top + BAR_HEIGHT + 4) {
                    title { (bar.name) ", " (meaning) ": " (digits(at)) " " (unit) }
                }
            }
        }
    }
}

/// A bar from zero, to the left where it is negative; values are in the unit shown.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    /// Over it at the left.
    pub(super) name: String,
    /// Over it at the right: its value in words.
    pub(super) told: String,
    /// Its end.
    pub(super) value: f64,
    /// Its 95 % interval.
    pub(super) interval: Option<[f64; 2]>,
    /// A difference was found: else it is pale.
    pub(super) found: bool,
}

impl Signed {
    /// Selects its colour.
    const fn key(&self) -> &'static str {
        match (self.found, self.value < 0.0) {
            (true, false) => "more",
            (true, true) => "less",
            (false, _) => "unfound",
        }
    }
}

/// Least and most of the scale that holds these bars: zero, a margin at the ends, and never nothing.
fn scale(bars: &[Signed]) -> (f64, f64) {
    let ends = bars.iter().flat_map(|bar| bar.interval.into_iter().flatten().chain([bar.value]));
    let (low, high) = ends.fold((0.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let margin = (high - low).max(1e-9) * 0.02;
    (low - margin, high + margin)
}

/// The bars on one linear scale that has zero on it, each with its interval.
pub(super) fn signed(about: &str, unit: &str, bars: &[Signed]) -> Markup {
    let (low, high) = scale(bars);
    let share = |value: f64| (value - low) / (high - low);
    let percent = |share: f64| format!("{:.3}%", share * 100.0);
    let axis_top = ROW * u32::try_from(bars.len()).unwrap_or(1);
    let ticks = ticks(low, high);
    html! {
        svg role="img" aria-label=(about) width="100%" height=(axis_top + 26) {
            @for tick in &ticks {
                line class="grid" x1=(percent(share(*tick))) x2=(percent(share(*tick))) y1=(BAR_TOP) y2=(axis_top - 6) {}
            }
            @for (row, bar) in (0_u32..).zip(bars) {
                @let (top, middle) = (row * ROW + BAR_TOP, row * ROW + BAR_TOP + BAR_HEIGHT / 2);
                @let (from, to) = (share(bar.value.min(0.0)), share(bar.value.max(0.0)));
                g role="group" aria-label={ (bar.name) ": " (bar.told) } {
                    text class="name" x="0" y=(top - 7) { (bar.name) }
                    text class="told" x="100%" y=(top - 7) text-anchor="end" { (bar.told) }
                    rect class="track" x="0" y=(top) width="100%" height=(BAR_HEIGHT) rx="3" {}
                    rect class={ "part c-" (bar.key()) } x=(percent(from)) y=(top) width=(percent(to - from)) height=(BAR_HEIGHT) {}
                    @if let Some([low, high]) = bar.interval.map(|ends| ends.map(|end| percent(share(end)))) {
                        line class="whisker" x1=(low) x2=(high) y1=(middle) y2=(middle) {}
                        @for end in [&low, &high] {
                            line class="whisker" x1=(end) x2=(end) y1=(middle - 5) y2=(middle + 5) {}
                        }
                    }
                }
            }
            @let zero = percent(share(0.0));
            line class="zero" x1=(zero) x2=(zero) y1=(BAR_TOP - 4) y2=(axis_top - 4) {}
            @for tick in labelled(&ticks) {
                @let anchor = if share(*tick) < 0.06 { "start" } else if share(*tick) > 0.94 { "end" } else { "middle" };
                text class="quiet" x=(percent(share(*tick))) y=(axis_top + 10) text-anchor=(anchor) {
                    (short(*tick)) @if *tick == 0.0 { " " (unit) }
                }
            }
        }
    }
}

/// The ticks that get a number: more than six leave no room between them on a telephone.
fn labelled(ticks: &[f64]) -> impl Iterator<Item = &f64> {
    let zero = ticks.iter().position(|tick| *tick == 0.0).unwrap_or(0);
    let every = if ticks.len() > 6 { 2 } else { 1 };
    ticks.iter().enumerate().filter(move |(i, _)| i.abs_diff(zero) % every == 0).map(|(_, tick)| tick)
}

/// Round numbers on a scale that has zero on it: four to eleven of them.
pub(super) fn ticks(low: f64, high: f64) -> Vec<f64> {
    let domain = high - low;
    let decade = 10_f64.powf((domain / 4.0).log10().floor());
    let step = [5.0, 2.0, 1.0].map(|m| m * decade).into_iter().find(|step| step * 4.0 <= domain);
    let step = step.unwrap_or(decade);
    let first = (low / step).ceil();
    (0..16).map(|i| (first + f64::from(i)) * step).take_while(|tick| *tick <= high).collect()
}

/// A round number without needless zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The meaning of the colours.
pub(super) fn legend(entries: &[(String, String)], mark: Option<&str>) -> Markup {
    html! {
        ul class="legend" {
            @for (key, label) in entries {
                li { span class={ "swatch c-" (key) } {} (label) }
            }
            @if let Some(mark) = mark { li { b { "| " } (mark) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn round_ticks_for_known_scales() {
        assert_eq!(ticks(0.0, 101.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(
            ticks(0.0, 1.5),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0, 1.2000000000000002, 1.4000000000000001]
        );
        assert_eq!(ticks(-0.3, 1.02), [-0.2, 0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(labelled(&[-2.0, -1.0, 0.0, 1.0]).count(), 4);
        assert!(labelled(&[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]).eq(&[-2.0, 0.0, 2.0]));
        assert_eq!(short(0.600_000_000_1), "0.6");
    }

    proptest! {
        #[test]
        fn a_scale_has_a_few_ticks_and_none_beyond_its_ends(domain in 1e-6_f64..1e9, below in 0.0_f64..1.0) {
            let (low, high) = (-below * domain, (1.0 - below) * domain);
            let ticks = ticks(low, high);
            prop_assert!((4..=11).contains(&ticks.len()), "{}", ticks.len());
            prop_assert!(ticks.iter().all(|t| (low..=high).contains(t)));
            prop_assert!(ticks.contains(&0.0));
        }
    }

    #[test]
    fn a_signed_bar_goes_from_zero_to_its_value_and_its_whisker_over_its_interval() {
        let bar = |value, interval, found| Signed {
            name: "n".to_owned(),
            told: "t".to_owned(),
            value,
            interval,
            found,
        };
        // The scale is -1 to 3 with a fiftieth of 4 at each end: -1.08 to 3.08, so that zero is at 1.08 / 4.16.
        let bars = [
            bar(2.0, Some([1.0, 3.0]), true),
            bar(-0.5, Some([-1.0, -0.2]), true),
            bar(0.1, Some([-0.1, 0.2]), false),
        ];
        assert_eq!(scale(&bars), (-1.08, 3.08));
        let svg = signed("about", "ms", &bars).into_string();
        for part in [
            r#"<rect class="part c-more" x="25.962%" y="24" width="48.077%" height="24">"#,
            r#"<line class="whisker" x1="50.000%" x2="98.077%" y1="36" y2="36">"#,
            r#"<rect class="part c-less" x="13.942%" y="86" width="12.019%" height="24">"#,
            r#"<rect class="part c-unfound" x="25.962%" y="148" width="2.404%" height="24">"#,
            r#"<line class="zero" x1="25.962%" x2="25.962%""#,
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        let nothing = signed("about", "ms", &[bar(0.0, None, false)]).into_string();
        assert!(!nothing.contains("NaN") && !nothing.contains("inf"), "{nothing}");
    }

    #[test]
    fn finer_parts_lie_below_their_bar_at_the_same_scale() {
        let part = |label: &str, value| Part { key: "a".to_owned(), label: label.to_owned(), value };
        let bar = Bar {
            name: "n".to_owned(),
            total: String::new(),
            parts: vec![part("whole", 100.0)],
            finer: vec![part("first", 40.0), part("second", 60.0)],
            mark: None,
        };
        let svg = stacked("about", "ms", &[bar]).into_string();
        let second = r#"<rect class="finer c-a" x="39.604%" y="50" width="59.406%" height="8">"#;
        assert!(svg.contains(second) && svg.contains("<title>n, second: 60.00 ms</title>"), "{svg}");
    }

    #[test]
    fn only_small_bars_get_a_drawing_of_their_own() {
        let bar = |value| Bar {
            name: String::new(),
            total: String::new(),
            parts: vec![Part { key: String::new(), label: String::new(), value }],
            finer: vec![],
            mark: None,
        };
        assert_eq!(dwarfed(&[bar(1.0), bar(2.0), bar(100.0)]).len(), 2);
        assert!(dwarfed(&[bar(1.0), bar(2.0), bar(7.0)]).is_empty());
    }
}
