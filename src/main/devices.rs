//! `devices`: what there is to compute on.

use crate::args;
use eckart::Result;
use eckart::device::gpu::{Adapter, adapters};
use serde_json::json;
use std::process::ExitCode;

pub fn run(args: &args::Devices) -> Result<ExitCode> {
    let adapters = adapters();
    let auto = adapters.first().filter(|best| best.is_hardware()).map_or("cpu", |best| &best.name);
    match args.json {
        true => println!("{:#}", json!({ "auto": auto, "threads": rayon::current_num_threads(), "gpus": adapters })),
        false => print(&adapters, auto),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(adapters: &[Adapter], auto: &str) {
    println!("cpu{}", if auto == "cpu" { "  (taken by auto)" } else { "" });
    println!("    the host, {} threads, f32 and f64", rayon::current_num_threads());
    for (i, adapter) in adapters.iter().enumerate() {
        println!("{}{}", adapter.name, if i == 0 && auto != "cpu" { "  (taken by auto)" } else { "" });
        println!("    {} on {}, driver {}", adapter.kind, adapter.backend, adapter.driver);
        println!(
            "    storages up to {} MiB, {} to a kernel; workgroups of {} threads with {} KiB; subgroups of {} to {}",
            adapter.max_binding_bytes >> 20,
            adapter.max_bindings,
            adapter.workgroup_threads,
            adapter.workgroup_bytes >> 10,
            adapter.subgroup[0],
            adapter.subgroup[1],
        );
        println!(
            "    features: {}",
            if adapter.features.is_empty() { "none".into() } else { adapter.features.join(", ") }
        );
    }
    if !adapters.iter().any(Adapter::is_hardware) {
        println!("no GPU found; software drivers compute when asked for by name, for tests");
    }
}
