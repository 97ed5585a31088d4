//! The JSON Lines of a bench run: one `run`, then `sample`s as they are taken, then `summary` lines and one `end`. The
//! schema is `bench/schema/bench.schema.json`; rules as for `isolab.result/1`: units in the key, whole numbers in raw
//! samples, raw samples always kept, unknown is null or absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::SuitePlan;
use super::sample::SuiteSample;
use super::summary::SuiteSummary;
use crate::comparability::{Check, Verdict};
use crate::density::Density;
use crate::environment::{Host, Noise};
use crate::record::{Arm, Skipped, Tool};

/// Name and version of the format.
pub const SCHEMA: &str = "isolab.bench/1";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// Which run, on which machine, by which plan.
    Run(Box<RunLine>),
    /// One run of one workload.
    Sample(Box<SuiteSample>),
    /// One metric of one workload.
    Summary(SuiteSummary),
    /// One level's density curve.
    Density(Density),
    /// What is known only at the end.
    End(Box<EndLine>),
}

/// Which run; written before the first sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// [`SCHEMA`].
    pub schema: String,
    /// ULID: sorts by time.
    pub id: String,
    /// Wall clock at the start.
    pub started_unix_ns: u64,
    /// The program that measured.
    pub tool: Tool,
    /// Its command line.
    pub argv: Vec<String>,
    /// The image.
    pub image: String,
    /// What is run; batch sizes included.
    pub plan: SuitePlan,
    /// The machine.
    pub host: Host,
    /// Levels that can't run here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// What is known only at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndLine {
    /// The arms.
    pub arms: BTreeMap<String, Arm>,
    /// Whether they may be compared.
    pub verdict: Verdict,
    /// How that was found.
    pub checks: Vec<Check>,
    /// What else the machine did.
    pub noise: Noise,
    /// Number of the signal that ended the measuring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<u8>,
    /// Why a density curve is missing; what was measured before it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// All lines of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct SuiteRecord {
    /// The first.
    pub run: RunLine,
    /// Every sample.
    pub samples: Vec<SuiteSample>,
    /// The numbers.
    pub summaries: Vec<SuiteSummary>,
    /// Density curves.
    pub densities: Vec<Density>,
    /// The last.
    pub end: EndLine,
}

/// Lines that are no whole run.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// Not such a line.
    #[error("read line {number} of the bench record")]
    Json {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Another format or version.
    #[error("read the bench record: its schema is {0:?}, this isolab reads {SCHEMA:?}")]
    Schema(String),
    /// No first or no last line.
    #[error("read the bench record: it has no {0} line")]
    Cut(&'static str),
    /// The serializer's own.
    #[error("write a line of the bench record")]
    Write(#[source] serde_json::Error),
}

impl Line {
    /// The line, with its newline.
    ///
    /// # Errors
    /// [`LinesError::Write`].
    pub fn to_text(&self) -> Result<String, LinesError> {
        let mut text = isolab_images::escape::json_line(self).map_err(LinesError::Write)?;
        text.push('\n');
        Ok(text)
    }
}

impl SuiteRecord {
    /// All lines, in the order in which they are written.
    ///
    /// # Errors
    /// [`LinesError::Write`].
    pub fn to_text(&self) -> Result<String, LinesError> {
        let Self { run, samples, summaries, densities, end } = self.clone();
        let samples = samples.into_iter().map(|sample| Line::Sample(Box::new(sample)));
        let numbers =
            summaries.into_iter().map(Line::Summary).chain(densities.into_iter().map(Line::Density));
        let (first, last) = (Line::Run(Box::new(run)), Line::End(Box::new(end)));
        let lines = std::iter::once(first).chain(samples).chain(numbers).chain([last]);
        lines.map(|line| line.to_text()).collect()
    }

    /// Reads all lines of a run.
    ///
    /// # Errors
    /// [`LinesError`].
    pub fn from_text(text: &[u8]) -> Result<Self, LinesError> {
        let (mut run, mut end) = (None, None);
        let (mut samples, mut summaries, mut densities) = (Vec::new(), Vec::new(), Vec::new());
        let lines = text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        for (i, line) in lines {
            let read = serde_json::from_slice(line);
            match read.map_err(|source| LinesError::Json { number: i + 1, source })? {
                Line::Run(line) if line.schema != SCHEMA => return Err(LinesError::Schema(line.schema)),
                Line::Run(line) => run = Some(*line),
                Line::Sample(line) => samples.push(*line),
                Line::Summary(line) => summaries.push(line),
                Line::Density(line) => densities.push(line),
                Line::End(line) => end = Some(*line),
            }
        }
        let (run, end) = (run.ok_or(LinesError::Cut("run"))?, end.ok_or(LinesError::Cut("end"))?);
        Ok(Self { run, samples, summaries, densities, end })
    }
}
