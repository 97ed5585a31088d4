//! Stacked bars as SVG. Widths are percentages, so the drawing follows the page and its text keeps its size.
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

/// Times the next smaller bar from which on a bar dwarfs the others.
const DWARFS: f64 = 8.0;

/// The bars that the largest ones dwarf, for a second drawing with a scale of its own.
pub(super) fn dwarfed(bars: &[Bar]) -> Vec<Bar> {
    let most = bars.iter().map(Bar::reach).fold(0.0, f64::max);
    bars.iter().filter(|bar| bar.reach() * DWARFS < most).cloned().collect()
}

const ROW: u32 = 62;
const BAR_TOP: u32 = 24;
const BAR_HEIGHT: u32 = 24;

/// The bars on one linear scale from zero.
pub(super) fn stacked(about: &str, unit: &str, bars: &[Bar]) -> Markup {
    let domain = bars.iter().map(Bar::reach).fold(0.0, f64::max).max(1e-9) * 1.01;
    let percent = |value: f64| format!("{:.3}%", value / domain * 100.0);
    let axis_top = ROW * u32::try_from(bars.len()).unwrap_or(1);
    let ticks = ticks(domain);
    html! {
        svg role="img" aria-label=(about) width="100%" height=(axis_top + 26) {
            @for tick in &ticks {
                line class="grid" x1=(percent(*tick)) x2=(percent(*tick)) y1=(BAR_TOP) y2=(axis_top - 6) {}
            }
            @for (row, bar) in (0_u32..).zip(bars) {
                (drawn(bar, row * ROW, &percent, domain, unit))
            }
            @for tick in &ticks {
                @let anchor = if *tick == 0.0 { "start" } else if *tick > 0.94 * domain { "end" } else { "middle" };
                text class="quiet" x=(percent(*tick)) y=(axis_top + 10) text-anchor=(anchor) {
                    (short(*tick)) @if *tick == 0.0 { " " (unit) }
                }
            }
        }
    }
}

fn drawn(bar: &Bar, top: u32, percent: &impl Fn(f64) -> String, domain: f64, unit: &str) -> Markup {
    let mut begin = 0.0;
    let starts: Vec<f64> = bar
        .parts
        .iter()
        .map(|part| {
            let start = begin;
            begin += part.value;
            start
        })
        .collect();
    let (bar_top, middle) = (top + BAR_TOP, top + BAR_TOP + BAR_HEIGHT / 2 + 4);
    html! {
        g role="group" aria-label={ (bar.name) ": " (bar.total) } {
            text class="name" x="0" y=(top + 17) { (bar.name) }
            text x="100%" y=(top + 17) text-anchor="end" { (bar.total) }
            rect class="track" x="0" y=(bar_top) width="100%" height=(BAR_HEIGHT) rx="3" {}
            @for (part, start) in bar.parts.iter().zip(starts) {
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

/// Round numbers from zero up to the end of the scale: four to eight of them.
pub(super) fn ticks(domain: f64) -> Vec<f64> {
    let decade = 10_f64.powf((domain / 4.0).log10().floor());
    let step = [5.0, 2.0, 1.0].map(|m| m * decade).into_iter().find(|step| step * 4.0 <= domain);
    let step = step.unwrap_or(decade);
    (0..16).map(|i| f64::from(i) * step).take_while(|tick| *tick <= domain).collect()
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
        assert_eq!(ticks(101.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(
            ticks(1.5),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0, 1.2000000000000002, 1.4000000000000001]
        );
        assert_eq!(short(0.600_000_000_1), "0.6");
    }

    proptest! {
        #[test]
        fn a_scale_has_a_few_ticks_and_none_beyond_its_end(domain in 1e-6_f64..1e9) {
            let ticks = ticks(domain);
            prop_assert!((4..=11).contains(&ticks.len()), "{}", ticks.len());
            prop_assert!(ticks.iter().all(|t| (0.0..=domain).contains(t)));
        }
    }

    #[test]
    fn only_small_bars_get_a_drawing_of_their_own() {
        let bar = |value| Bar {
            name: String::new(),
            total: String::new(),
            parts: vec![Part { key: String::new(), label: String::new(), value }],
            mark: None,
        };
        assert_eq!(dwarfed(&[bar(1.0), bar(2.0), bar(100.0)]).len(), 2);
        assert!(dwarfed(&[bar(1.0), bar(2.0), bar(7.0)]).is_empty());
    }
}
