//! `eval`: what a model makes of text that it did not learn from.

use crate::args;
use eckart::data::{Batches, Dataset, Examples, Layout, Reading};
use eckart::train::evaluate;
use eckart::{Device, Result};
use std::path::Path;
use std::process::ExitCode;

pub fn run(args: &args::Eval) -> Result<ExitCode> {
    let tokenizer = args.base.tokenizer()?;
    let sizes = args.base.sizes(args.max_length)?;
    let reading = Reading { max_length: sizes.context, mask_prompt: args.mask_prompt };
    let examples = held_out(&args.data, &tokenizer, reading)?;
    let device = Device::by_name(&args.device)?;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let found = rayon::scope(|_| {
        let batches = Batches::new(examples.examples, args.batch, reading.max_length, Layout::Padded);
        evaluate(&args.base.open(&sizes, &device)?, batches.validation(args.batch))
    })?;
    let found = found.expect("only the null device has no numbers");
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found).expect("plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    if examples.truncated > 0 {
        eprintln!("{} examples were cut to {} tokens", examples.truncated, reading.max_length);
    }
    println!("loss {:.5} nats a token, perplexity {:.3}, {} tokens", found.loss, found.perplexity, found.tokens);
    Ok(ExitCode::SUCCESS)
}

/// A file; of a folder the part for tests, else the one for validation.
fn held_out(path: &Path, tokenizer: &eckart::data::Tokenizer, reading: Reading) -> Result<Examples> {
    if path.is_file() {
        return Examples::read(path, tokenizer, reading);
    }
    let set = Dataset::open(path, tokenizer, reading)?;
    Ok(set.test.unwrap_or(set.validation))
}
