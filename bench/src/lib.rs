//! Measuring: the port that every level implements, plans, samples, statistics, the record and its reports.
//!
//! Order of events: a [`plan::Plan`] is written; [`measure::measure`] asks an [`measure::Executor`] for one fresh
//! run after the other, each of which sends back a [`run_report::RunReport`]; it becomes a [`sample::Sample`]
//! with a contiguous [`timeline`]; the record joins plan, host, arms, raw samples, the
//! comparability verdict and the summary; the reports are pure functions of the record.
//!
//! This library never starts a process: who runs what is the executor's affair.
#![forbid(unsafe_code)]

pub mod check;
pub mod choose;
pub mod comparability;
pub mod comparison;
pub mod conditions;
pub mod crosscheck;
pub mod density;
pub mod diff;
pub mod environment;
pub mod export;
pub mod measure;
pub mod noise;
pub mod paired;
pub mod plan;
pub mod port;
pub mod probe;
pub mod record;
pub mod recorded;
pub mod report;
pub mod run_report;
pub mod sample;
pub mod stop;
pub mod subphase;
pub mod suite;
pub mod summary;
pub mod surface;
pub mod timeline;
pub mod vary;

pub use isolab_statistics as statistics;

#[cfg(test)]
mod simulation;
