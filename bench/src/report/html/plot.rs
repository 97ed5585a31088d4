//! Line charts with two number axes, by `plotters` as SVG.
//!
//! A chart is drawn twice, wide and narrow, and the page's style shows the one that fits, so that letters keep their size
//! on a telephone. The library writes fixed colours; those used here stand for roles and give way to the variables of the
//! page's style, which differ for light, dark and print.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::report::quantity::digits;

/// Roles of lines and letters: values that no palette has.
const TEXT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
/// The variable of the style for each role; the curves' come in the order of `c-0` to `c-4`.
const VARIABLES: [(&str, &str); 8] = [
    // What the library gives no choice for.
    ("\"#000000\"", "\"var(--muted)\""),
    ("\"#010101\"", "\"var(--muted)\""),
    ("\"#020202\"", "\"var(--line)\""),
    ("\"#00000A\"", "\"var(--blue)\""),
    ("\"#00000B\"", "\"var(--green)\""),
    ("\"#00000C\"", "\"var(--red)\""),
    ("\"#00000D\"", "\"var(--purple)\""),
    ("\"#00000E\"", "\"var(--yellow)\""),
];
const CURVES: usize = 5;

/// Widths and height in pixels.
const WIDE: (u32, u32) = (920, 300);
const NARROW: (u32, u32) = (340, 260);

/// Curves of no more points show each of them.
pub(super) const SHOW_POINTS: usize = 80;

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it counts, with its unit.
    pub(super) title: String,
    /// From its beginning to its end; a logarithmic one begins above zero.
    pub(super) range: Range<f64>,
    /// Equal steps are equal factors.
    pub(super) log: bool,
    /// How its numbers are written.
    pub(super) labels: Labels,
}

/// How an axis writes its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// As they are.
    Numbers,
    /// As percent.
    Percent,
    /// Whole ones only: it counts things.
    Whole,
}

/// A line through points.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// Number of its colour, as in the legend.
    pub(super) colour: usize,
    /// Its points.
    pub(super) line: Vec<(f64, f64)>,
    /// What was measured, where that is not the line's own points.
    pub(super) points: Vec<(f64, f64)>,
}

impl Axis {
    /// An axis that holds these values; nothing for none, or for what no axis can hold.
    pub(super) fn around(title: String, values: impl Iterator<Item = f64>, log: bool) -> Option<Self> {
        let (mut low, mut high, mut positive) = (f64::INFINITY, 0.0_f64, f64::INFINITY);
        for value in values.filter(|v| v.is_finite() && *v >= 0.0) {
            (low, high) = (low.min(value), high.max(value));
            if value > 0.0 {
                positive = positive.min(value);
            }
        }
        if low > high || high <= 0.0 {
            return None;
        }
        let range = if log { positive / 1.5..high * 1.5 } else { 0.0..high * 1.05 };
        Some(Self { title, range, log, labels: Labels::Numbers })
    }

    fn label(&self, value: f64) -> String {
        match self.labels {
            Labels::Percent => return format!("{:.0} %", value * 100.0),
            Labels::Whole if value.fract().abs() > 1e-6 => return String::new(),
            Labels::Whole => return format!("{value:.0}"),
            Labels::Numbers => {}
        }
        let text = digits(value);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

/// The chart; nothing where it can't be drawn.
pub(super) fn chart(about: &str, x: &Axis, y: &Axis, curves: &[Curve]) -> Markup {
    let drawn = |size| {
        let mut svg = String::new();
        draw(&mut svg, size, x, y, curves).map(|()| themed(&svg))
    };
    let (Ok(wide), Ok(narrow)) = (drawn(WIDE), drawn(NARROW)) else { return html! {} };
    html! {
        div class="plot wide" role="img" aria-label=(about) { (PreEscaped(wide)) }
        div class="plot narrow" role="img" aria-label=(about) { (PreEscaped(narrow)) }
    }
}

/// With the style's colours, and without the address of a namespace that is known inside a page.
fn themed(svg: &str) -> String {
    let svg = svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    VARIABLES.iter().fold(svg, |svg, (role, variable)| svg.replace(role, variable))
}

fn draw(svg: &mut String, size: (u32, u32), x: &Axis, y: &Axis, curves: &[Curve]) -> Result<(), String> {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    let mut builder = ChartBuilder::on(&area);
    builder.margin(6).margin_right(20).x_label_area_size(42).y_label_area_size(66);
    let range = y.range.clone();
    if x.log {
        let chart = builder.build_cartesian_2d(x.range.clone().log_scale(), range).map_err(words)?;
        fill(chart, size.0, (x, y), curves)?;
    } else {
        let chart = builder.build_cartesian_2d(x.range.clone(), range).map_err(words)?;
        fill(chart, size.0, (x, y), curves)?;
    }
    area.present().map_err(words)
}

fn words<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> String {
    error.to_string()
}

type Chart<'a, X> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>;

fn fill<X>(
    mut chart: Chart<'_, X>,
    width: u32,
    (x, y): (&Axis, &Axis),
    curves: &[Curve],
) -> Result<(), String>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let letters = ("sans-serif", 13).into_font().color(&TEXT);
    chart
        .configure_mesh()
        .x_labels(if width < 500 { 4 } else { 9 })
        .y_labels(5)
        .max_light_lines(0)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(letters.clone())
        .axis_desc_style(letters)
        .x_desc(&x.title)
        .y_desc(&y.title)
        .x_label_formatter(&|value| x.label(*value))
        .y_label_formatter(&|value| y.label(*value))
        .draw()
        .map_err(words)?;
    for curve in curves {
        let colour = RGBColor(0, 0, 10 + u8::try_from(curve.colour % CURVES).unwrap_or(0));
        let line = LineSeries::new(curve.line.iter().copied(), colour.stroke_width(2));
        chart.draw_series(line).map_err(words)?;
        if curve.points.len() <= SHOW_POINTS {
            let dots = curve.points.iter().map(|at| Circle::new(*at, 3, colour.filled()));
            chart.draw_series(dots).map_err(words)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_its_values_and_a_logarithmic_one_begins_above_zero() {
        let of = |values: &[f64], log| Axis::around("t".to_owned(), values.iter().copied(), log);
        assert!(of(&[], false).is_none() && of(&[0.0], true).is_none() && of(&[f64::NAN], false).is_none());
        assert_eq!(of(&[0.0, 2.0], false).expect("a value").range.start, 0.0);
        let log = of(&[0.0, 3.0, 300.0], true).expect("values").range;
        assert_eq!(log, 2.0..450.0);
        let whole = Axis { labels: Labels::Whole, ..of(&[4.0], false).expect("a value") };
        assert_eq!([whole.label(2.0), whole.label(2.5)], ["2", ""]);
    }

    #[test]
    fn a_chart_has_its_labels_and_only_colours_of_the_style() {
        let axis = |title: &str, log| {
            Axis::around(title.to_owned(), [1.0, 50.0, 1000.0].into_iter(), log).expect("values")
        };
        let points = vec![(1.0, 1.0), (1000.0, 50.0)];
        let curves = [Curve { colour: 7, line: points.clone(), points }];
        let svg = chart("about", &axis("time, ms", true), &axis("share", false), &curves).into_string();
        assert!(svg.contains("time, ms") && svg.contains("about") && svg.contains("var(--red)"), "{svg}");
        assert!(!svg.contains('#') && !svg.contains("http"), "{svg}");
    }
}
