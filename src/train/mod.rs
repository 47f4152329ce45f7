//! Training: configuration, one step, evaluation, checkpoints, memory plan, report.
//!
//! A run is a function of its configuration and its text. Everything random is a function of seed, step and
//! micro-batch, so a run resumed at any checkpoint goes on as if it had never stopped, bit for bit.

mod adapter;
mod begin;
mod budget;
mod checkpoint;
mod config;
mod evaluate;
#[cfg(feature = "hub")]
mod exam;
mod export;
#[cfg(feature = "hub")]
mod fold;
mod growth;
#[cfg(feature = "hub")]
mod lessons;
mod method;
mod methods;
mod metrics;
mod micro_batch;
mod pace;
mod place;
mod plan;
mod ranks;
mod replay;
mod report;
mod run;
mod sample;
mod scores;
mod search;
mod size;
mod source;
mod start;
mod state;
mod subject;
mod task;
#[cfg(feature = "hub")]
mod text_lessons;
mod trainer;
mod windows;

pub use adapter::Adapter;
pub use budget::Budget;
pub use checkpoint::{Checkpoint, Newest, Store};
pub use config::Config;
pub use evaluate::{Evaluation, Figures, evaluate, evaluate_each};
#[cfg(feature = "hub")]
pub use exam::{Exam, Questions};
pub use export::tokenizer_files;
pub use growth::Growth;
#[cfg(feature = "hub")]
pub use lessons::Lessons;
pub use method::{Defaults, Method};
pub use methods::{Planned, VARIANTS, Variant, beside_adamw, plan_all};
pub use metrics::Metrics;
pub use place::{latest, next_free, previous};
pub use plan::{Plan, what_fits};
pub use ranks::{Ranks, Sharing, look, share_out, survey};
pub use report::Report;
pub use run::{Control, Event, Row, Trained, run, run_on};
pub use sample::Sample;
pub use scores::{Confusion, Scores};
pub use search::{Search, Searching, Trial};
pub use size::{MemoryUse, Size};
pub use source::Source;
pub use start::AdapterStart;
pub use state::{Best, FORMAT, Interval, Progress, State};
pub use subject::{Names, Subject, subject};
pub use task::Task;
#[cfg(feature = "hub")]
pub use text_lessons::TextLessons;
pub use windows::Windows;
