//! Statistics judged by simulation: what is drawn is known, so that it can be counted how often the interval, the test and the
//! finding are right.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::paired::{Finding, Measure, NoiseFloor, Paired, judge};
use crate::statistics::{Resampling, count, hodges_lehmann, median_with_interval, sign_flip_p};

/// Resamples in a simulation: the ends of an interval move by little over that.
const RESAMPLES: usize = 1000;

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    Normal::standard().inverse_cdf(rng.random_range(1e-12..1.0))
}

/// A start-up time: log-normal with this coefficient of variation, now and then much later. Its median is `median` and a bit.
fn startup(rng: &mut ChaCha8Rng, median: f64, cv: f64) -> f64 {
    let late = if rng.random_range(0..25) == 0 { 1.0 + 2.0 * rng.random::<f64>() } else { 1.0 };
    median * (cv * normal(rng)).exp() * late
}

fn share(trials: u64, mut hit: impl FnMut(u64) -> bool) -> f64 {
    count((0..trials).filter(|trial| hit(*trial)).count()) / count(usize::try_from(trials).expect("few"))
}

/// Pairs on a machine that drifts: both values of a pair move together.
fn pairs(rng: &mut ChaCha8Rng, n: usize, effect: f64, cv: f64, drift: f64) -> Vec<(f64, f64)> {
    (0..n)
        .map(|i| {
            let here = 1e8 * (1.0 + drift * count(i) / count(n));
            (startup(rng, here, cv), startup(rng, here * effect, cv))
        })
        .collect()
}

fn interval_of_ratio(pairs: &[(f64, f64)], trial: u64) -> [f64; 2] {
    let ratio = Paired::with_resamples(pairs, &[], trial, RESAMPLES).and_then(|p| p.ratio);
    ratio.and_then(|ratio| ratio.ci95).expect("enough pairs")
}

#[test]
fn the_interval_of_a_median_covers_it_as_often_as_it_says() {
    for (n, seed) in [(9, 1), (10, 12), (30, 2), (31, 3), (100, 4)] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // exp(normal / 2): skewed, with median 1.
        let covered = share(2000, |trial| {
            let values: Vec<f64> = (0..n).map(|_| (0.5 * normal(&mut rng)).exp()).collect();
            let found =
                median_with_interval(&values, Resampling::Independent, trial, RESAMPLES).expect("values");
            let [low, high] = found.estimate.ci95.expect("enough");
            (low..=high).contains(&1.0)
        });
        assert!((0.93..=0.97).contains(&covered), "n = {n}: covered {covered}");
    }
}

#[test]
fn the_interval_of_a_ratio_covers_it_also_where_the_machine_drifts() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let covered = share(2000, |trial| {
        let pairs = pairs(&mut rng, 30, 1.25, 0.03, 0.03);
        let [low, high] = interval_of_ratio(&pairs, trial);
        (low..=high).contains(&1.25)
    });
    assert!((0.93..=0.97).contains(&covered), "covered {covered}");
}

#[test]
fn the_interval_of_the_shift_covers_it() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let covered = share(2000, |_| {
        let values: Vec<f64> = (0..30).map(|_| 7.0 + normal(&mut rng)).collect();
        let [low, high] = hodges_lehmann(&values).and_then(|e| e.ci95).expect("enough");
        (low..=high).contains(&7.0)
    });
    assert!((0.93..=0.97).contains(&covered), "covered {covered}");
}

#[test]
fn an_arm_against_itself_differs_as_rarely_as_it_should() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let differs = share(2000, |trial| {
        let pairs = pairs(&mut rng, 40, 1.0, 0.03, 0.03);
        let [low, high] = interval_of_ratio(&pairs, trial);
        low > 1.0 || high < 1.0
    });
    assert!((0.03..=0.07).contains(&differs), "differs in {differs}");
}

#[test]
fn all_of_one_arm_and_then_all_of_the_other_would_differ_in_a_third_of_the_cases() {
    // Why pairs are interleaved: the same runs, in blocks, on the same drifting machine.
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let differs = share(300, |trial| {
        let runs: Vec<f64> =
            (0..80).map(|i| startup(&mut rng, 1e8 * (1.0 + 0.03 * f64::from(i) / 80.0), 0.03)).collect();
        let blocked: Vec<(f64, f64)> = runs[..40].iter().copied().zip(runs[40..].iter().copied()).collect();
        let [low, high] = interval_of_ratio(&blocked, trial);
        low > 1.0 || high < 1.0
    });
    assert!(differs > 0.25, "differs in {differs}");
}

#[test]
fn p_values_of_nothing_are_uniform() {
    for n in [10, 30] {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut p: Vec<f64> = (0..500)
            .map(|trial| {
                let logs: Vec<f64> =
                    pairs(&mut rng, n, 1.0, 0.03, 0.0).iter().map(|(a, b)| (b / a).ln()).collect();
                sign_flip_p(&logs, trial)
            })
            .collect();
        p.sort_unstable_by(f64::total_cmp);
        // Kolmogorov-Smirnov; patterns of ten signs come in steps of 2/1024.
        let distance = p
            .iter()
            .enumerate()
            .map(|(i, p)| (count(i + 1) / 500.0 - p).abs().max((count(i) / 500.0 - p).abs()));
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 1.63 / 500.0_f64.sqrt(), "n = {n}: distance {distance}");
    }
}

/// What a whole comparison with its control finds.
fn finding(rng: &mut ChaCha8Rng, n: usize, effect: f64, trial: u64) -> Finding {
    let control =
        Paired::with_resamples(&pairs(rng, n, 1.0, 0.03, 0.01), &[], trial, RESAMPLES).expect("pairs");
    let floor =
        NoiseFloor { arm: "a".to_owned(), pairs: n, difference: control.difference, ratio: control.ratio };
    let numbers =
        Paired::with_resamples(&pairs(rng, n, effect, 0.03, 0.01), &[], trial, RESAMPLES).expect("pairs");
    let by =
        Measure { margin: 0.02, time: true, floor: Some(&floor), p_value: numbers.p_value, needs_p: false };
    judge(&numbers, by).0
}

#[test]
fn five_percent_more_are_found_with_sixty_pairs_and_nothing_is_not() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let found = share(400, |trial| finding(&mut rng, 60, 1.05, trial) == Finding::Slower);
    assert!(found > 0.95, "found in {found}");
    let false_alarm = share(1000, |trial| finding(&mut rng, 30, 1.0, trial).is_difference());
    assert!(false_alarm < 0.02, "a difference of nothing in {false_alarm}");
    let same = share(200, |trial| finding(&mut rng, 200, 1.0, trial) == Finding::Same);
    assert!(same > 0.9, "the same in {same}");
}

#[test]
fn blocks_cover_where_values_depend_on_the_one_before() {
    let covered = |how: fn(usize) -> Resampling<'static>| {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        share(600, |trial| {
            let mut level = 0.0;
            let values: Vec<f64> = (0..100)
                .map(|_| {
                    level = 0.5 * level + normal(&mut rng);
                    level
                })
                .collect();
            let found = median_with_interval(&values, how(values.len()), trial, RESAMPLES).expect("values");
            let [low, high] = found.estimate.ci95.expect("enough");
            (low..=high).contains(&0.0)
        })
    };
    let (single, blocks) = (covered(|_| Resampling::Independent), covered(Resampling::blocks_for));
    assert!(blocks > 0.88 && blocks > single + 0.04, "blocks {blocks}, single values {single}");
}
