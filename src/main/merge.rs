//! `merge`: a model with adapters made part of it.

use crate::args;
use eckart::io::hub;
use eckart::train::tokenizer_files;
use eckart::{Device, Result};
use std::process::ExitCode;

pub fn run(args: &args::Merge) -> Result<ExitCode> {
    let mut model = args.base.open(&args.base.sizes(usize::MAX)?, &Device::cpu())?;
    if args.dense {
        hub::multiply_out(&mut model);
    }
    hub::save(&model, &args.out, &tokenizer_files(&args.base.model)?)?;
    println!("{}", args.out.display());
    Ok(ExitCode::SUCCESS)
}
