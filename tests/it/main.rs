//! What the whole crate promises, one file for each theme.

mod adam_8bit;
mod adapt;
mod adapted;
mod allocate;
mod allocations;
mod bank;
#[cfg(feature = "hub")]
mod chat;
mod checker;
#[cfg(feature = "hub")]
mod classify;
#[cfg(feature = "cli")]
mod cli;
mod curvature;
mod data;
#[cfg(feature = "cli")]
mod each;
mod epochs;
#[cfg(feature = "hub")]
mod examples;
#[cfg(feature = "cli")]
mod factorise;
mod factorize;
#[cfg(feature = "hub")]
mod factors;
#[cfg(feature = "hub")]
mod finetune;
mod flip;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod gpu_attention;
#[cfg(feature = "gpu")]
mod gpu_bank;
#[cfg(feature = "gpu")]
mod gpu_edges;
#[cfg(feature = "gpu")]
mod gpu_functions;
#[cfg(feature = "gpu")]
mod gpu_index;
#[cfg(feature = "gpu")]
mod gpu_large;
#[cfg(feature = "gpu")]
mod gpu_matmul;
#[cfg(feature = "gpu")]
mod gpu_ops;
#[cfg(feature = "gpu")]
mod gpu_project;
#[cfg(feature = "gpu")]
mod gpu_quantised;
#[cfg(feature = "gpu")]
mod gpu_rows;
#[cfg(feature = "gpu")]
mod gpu_shaders;
#[cfg(all(feature = "gpu", feature = "cli"))]
mod gpu_train;
mod hadamard;
mod hessian;
#[cfg(feature = "hub")]
mod hidden;
mod hub;
mod hub_bits;
mod hub_files;
#[cfg(feature = "cli")]
mod kill;
mod large;
mod ledger;
mod lora;
#[cfg(feature = "hub")]
mod loralib;
mod low_rank;
mod methods;
#[cfg(feature = "hub")]
mod mutations;
mod ops;
#[cfg(feature = "hub")]
mod peft;
#[cfg(feature = "hub")]
mod peft_files;
#[cfg(feature = "hub")]
mod peft_steps;
#[cfg(feature = "hub")]
mod peft_written;
mod plan;
mod project;
#[cfg(feature = "hub")]
mod published;
mod qlora;
mod quantised;
#[cfg(feature = "hub")]
mod ranks;
mod refusals;
mod resume;
mod second_order;
mod shared;
#[cfg(feature = "hub")]
mod starts;
mod style;
mod survey;
mod tiny;
mod together;
#[cfg(feature = "hub")]
mod tokenizers;
mod torch;
mod trajectories;
mod views;

/// Says so on stderr itself: what `eprintln!` writes is only shown of tests that fail.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
