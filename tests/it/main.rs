//! What the whole crate promises, one file for each theme.

mod adam_8bit;
mod adapt;
mod adapted;
mod bank;
mod checker;
#[cfg(feature = "cli")]
mod cli;
mod data;
mod factorize;
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
#[cfg(feature = "cli")]
mod kill;
mod large;
mod ledger;
mod lora;
mod low_rank;
mod methods;
mod ops;
mod plan;
mod project;
mod qlora;
mod quantised;
mod refusals;
mod resume;
mod second_order;
mod shared;
mod style;
mod tiny;
mod torch;
mod trajectories;
mod views;

/// Says so on stderr itself: what `eprintln!` writes is only shown of tests that fail.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
