//! Density: total charge and start latency against the number of instances, every level on one chart, and the readings.

use maud::{Markup, html};

use super::apart;
use super::chart::{is_dwarfed, legend};
use super::plot::{Axis, Curve, Labels, SHOW_POINTS, chart};
use crate::density::{Density, Point};
use crate::report::density::{ABOUT, numbers, sentences, titles};
use crate::report::quantity::{Shown, raw};
use crate::report::words::{capital, printable};
use crate::statistics::median;
use crate::suite::lines::SuiteRecord;

/// A level's curve with its name.
struct Named {
    name: String,
    curve: Curve,
}

/// The section; nothing where no density was measured.
pub(super) fn section(record: &SuiteRecord) -> Markup {
    if record.densities.is_empty() {
        return html! {};
    }
    let time = Shown::time(&record.run.host);
    let of = |curve: &dyn Fn(&Density, usize) -> Curve| -> Vec<Named> {
        let levels = record.densities.iter();
        let named = levels.map(|d| Named { name: printable(&d.level), curve: curve(d, colour(record, d)) });
        named.filter(|named| !named.curve.line.is_empty()).collect()
    };
    let (charges, starts) = (of(&charge), of(&|density, colour| start(density, colour, time)));
    html! {
        section {
            h2 { "Density" }
            (apart(record.end.verdict))
            p class="caption" { (capital(ABOUT)) "." }
            h3 { "Total charge" }
            p class="caption" {
                "Sum of the charges of all instances' cgroups with so many running: each dot is a reading, and the slope of the \
                 line is what one more instance costs."
            }
            (drawn("Sum of charges against the number of instances", &format!("charge, {}", Shown::MiB.name()), &charges))
            h3 { "Start latency" }
            p class="caption" {
                "Time from request to ready of instances that start beside those that run already: the line joins the medians of \
                 the steps"
                @if starts.iter().all(|named| named.curve.points.len() <= SHOW_POINTS) { ", and each dot is a start" } "."
            }
            (drawn("Start latency against the number of instances", &format!("start, {}", time.name()), &starts))
            @for density in &record.densities { (readings(record, density)) }
        }
    }
}

/// The number of a level's colour, as everywhere on the page.
fn colour(record: &SuiteRecord, density: &Density) -> usize {
    record.run.plan.arms.iter().position(|arm| *arm == density.level).unwrap_or(0)
}

/// The readings of the charge, and the line through them.
fn charge(density: &Density, colour: usize) -> Curve {
    let reading = |p: &Point| Some((f64::from(p.instances), Shown::MiB.scaled(raw(p.charge_bytes?))));
    let points: Vec<(f64, f64)> = density.points.iter().filter_map(reading).collect();
    let line = match (density.charge, points.first(), points.last()) {
        (Some(slope), Some(first), Some(last)) => {
            let at =
                |n: f64| (n, Shown::MiB.scaled(slope.bytes_per_instance.mul_add(n, slope.intercept_bytes)));
            vec![at(first.0), at(last.0)]
        }
        _ => points.clone(),
    };
    Curve { colour, line, points }
}

/// Every start, and the medians of the steps.
fn start(density: &Density, colour: usize, time: Shown) -> Curve {
    let (mut line, mut points) = (Vec::new(), Vec::new());
    for point in density.points.iter().filter(|point| !point.start_ns.is_empty()) {
        let (n, starts) = (f64::from(point.instances), point.start_ns.iter().copied().map(raw));
        let starts: Vec<f64> = starts.map(|ns| time.scaled(ns)).collect();
        line.push((n, median(&starts)));
        points.extend(starts.into_iter().map(|value| (n, value)));
    }
    Curve { colour, line, points }
}

/// The curves on one chart, linear and from zero, and again those that the largest one dwarfs.
fn drawn(about: &str, title: &str, levels: &[Named]) -> Markup {
    let reach = |named: &Named| named.curve.points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
    let most = levels.iter().map(reach).fold(0.0, f64::max);
    let small: Vec<&Named> = levels.iter().filter(|named| is_dwarfed(reach(named), most)).collect();
    let names: Vec<&str> = small.iter().map(|named| named.name.as_str()).collect();
    let entries: Vec<(String, String)> =
        levels.iter().map(|named| ((named.curve.colour % 5).to_string(), named.name.clone())).collect();
    html! {
        figure {
            (together(about, title, &levels.iter().collect::<Vec<_>>()))
            (legend(&entries, None))
        }
        @if !small.is_empty() {
            figure {
                h3 { "Enlarged: " (names.join(" and ")) }
                p class="caption" { "The same on a scale of its own, also linear and from zero." }
                (together(about, title, &small))
            }
        }
    }
}

fn together(about: &str, title: &str, levels: &[&Named]) -> Markup {
    let all = || levels.iter().flat_map(|named| named.curve.line.iter().chain(&named.curve.points));
    let axis =
        |title: &str, values: &mut dyn Iterator<Item = f64>| Axis::around(title.to_owned(), values, false);
    let x = axis("instances", &mut all().map(|(x, _)| *x));
    let (Some(x), Some(y)) = (x, axis(title, &mut all().map(|(_, y)| *y))) else {
        return html! { p class="note" { "Nothing was read." } };
    };
    let curves: Vec<Curve> = levels.iter().map(|named| named.curve.clone()).collect();
    chart(about, &Axis { labels: Labels::Whole, ..x }, &y, &curves)
}

/// The numbers of a level's curve.
fn readings(record: &SuiteRecord, density: &Density) -> Markup {
    let host = &record.run.host;
    html! {
        h3 class="level" { span class={ "swatch c-" (colour(record, density) % 5) } {} (printable(&density.level)) }
        ul class="plain" { @for sentence in sentences(density) { li { (capital(&sentence)) "." } } }
        div class="scroll" { table class="compact tight" {
            thead { tr { @for title in titles(host) { th { (title.trim()) } } } }
            tbody { @for point in &density.points { tr { @for number in numbers(point, host) { td { (number) } } } } }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::density::StopRule;

    fn point(instances: u32, charge_mib: Option<u64>, start_ns: &[u64]) -> Point {
        Point {
            instances,
            start_ns: start_ns.to_vec(),
            charge_bytes: charge_mib.map(|mib| mib << 20),
            system_bytes: 0,
            available_bytes: 0,
        }
    }

    fn level(points: Vec<Point>) -> Density {
        Density::new("vm", points, StopRule::MaxInstances, None)
    }

    #[test]
    fn the_line_is_the_slope_and_the_dots_are_the_readings() {
        let readings = vec![
            point(1, Some(12), &[3_000_000, 1_000_000, 2_000_000]),
            point(2, Some(22), &[5_000_000]),
            point(4, Some(42), &[]),
        ];
        let curve = charge(&level(readings.clone()), 2);
        assert_eq!(curve.points, [(1.0, 12.0), (2.0, 22.0), (4.0, 42.0)]);
        assert_eq!(curve.line, [(1.0, 12.0), (4.0, 42.0)]);
        let curve = start(&level(readings), 2, Shown::Ms);
        assert_eq!(curve.line, [(1.0, 2.0), (2.0, 5.0)]);
        assert_eq!(curve.points, [(1.0, 3.0), (1.0, 1.0), (1.0, 2.0), (2.0, 5.0)]);
    }

    #[test]
    fn a_level_without_charges_and_one_of_a_single_reading_have_what_they_have() {
        assert!(charge(&level(vec![point(1, None, &[1])]), 0).line.is_empty());
        assert_eq!(charge(&level(vec![point(1, Some(3), &[1])]), 0).line, [(1.0, 3.0)]);
        assert!(together("about", "charge, MiB", &[]).into_string().contains("Nothing was read"));
    }

    #[test]
    fn levels_that_the_largest_dwarfs_are_drawn_again_by_themselves() {
        let named = |name: &str, colour, most| Named {
            name: name.to_owned(),
            curve: Curve { colour, line: vec![(1.0, 1.0), (2.0, most)], points: vec![(2.0, most)] },
        };
        let page = drawn("about", "charge, MiB", &[named("<small>", 0, 2.0), named("large", 1, 17.0)]);
        let page = page.into_string();
        assert!(page.contains("Enlarged: &lt;small&gt;</h3>"), "{page}");
        // Each wide and narrow; the large one is not in the second.
        let lines = |colour: &str| page.matches(&format!("stroke=\"var({colour})\"")).count();
        assert_eq!((lines("--blue"), lines("--green")), (4, 2), "{page}");
        let page = drawn("about", "charge, MiB", &[named("a", 0, 3.0), named("b", 1, 17.0)]);
        assert!(!page.into_string().contains("Enlarged"));
    }
}
