//! `eval`: what a model makes of text that it did not learn from; with named adapters, what each makes of its own part.

use crate::args;
use crate::base::{BASE, Choice};
use eckart::data::{Batches, Dataset, Examples, Layout, Reading, Tokenizer};
use eckart::nn::Model;
use eckart::train::{Evaluation, evaluate, evaluate_each};
use eckart::{Device, Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

pub fn run(args: &args::Eval) -> Result<ExitCode> {
    let tokenizer = args.base.tokenizer()?;
    let sizes = args.base.sizes(args.max_length)?;
    let reading = Reading { max_length: sizes.context, mask_prompt: args.mask_prompt };
    let examples = held_out(&args.data, &tokenizer, reading)?;
    let truncated = examples.truncated;
    let device = Device::by_name(&args.device)?;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let (all, parts) = rayon::scope(|_| {
        let (model, choice) = args.base.open_to_choose(&sizes, &device)?;
        let numbers = choice.numbers(&examples, &args.data)?;
        let batches = Batches::new(examples.examples, args.batch, reading.max_length, Layout::Padded);
        found(&model, &choice, &batches, &numbers, args.batch)
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&as_json(&all, &parts)).expect("plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    if truncated > 0 {
        eprintln!("{truncated} examples were cut to {} tokens", reading.max_length);
    }
    parts.iter().for_each(|(name, part)| println!("{name}: {}", words(part)));
    println!("{}{}", if parts.is_empty() { "" } else { "all: " }, words(&all));
    Ok(ExitCode::SUCCESS)
}

/// A file; of a folder the part for tests, else the one for validation.
fn held_out(path: &Path, tokenizer: &Tokenizer, reading: Reading) -> Result<Examples> {
    if path.is_file() {
        return Examples::read(path, tokenizer, reading);
    }
    let set = Dataset::open(path, tokenizer, reading)?;
    Ok(set.test.unwrap_or(set.validation))
}

impl Choice {
    /// The number of the adapter that each example is read by; the model itself where a line names none.
    fn numbers(&self, examples: &Examples, data: &Path) -> Result<Vec<u32>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let number = |name: &Option<String>| self.number(name.as_deref().unwrap_or(BASE));
        let numbers: Result<Vec<u32>> = examples.adapters.iter().map(number).collect();
        numbers.map_err(|error| Error::Data { path: data.into(), problem: error.to_string() })
    }
}

/// The figures of all, and of each adapter by its name.
type Found = (Evaluation, BTreeMap<String, Evaluation>);

fn found(model: &Model, choice: &Choice, batches: &Batches, numbers: &[u32], rows: usize) -> Result<Found> {
    let validation = batches.validation(rows);
    if choice.is_empty() {
        let all = evaluate(model, validation)?;
        return Ok((all.expect("only the null device has no numbers"), BTreeMap::new()));
    }
    let parts = evaluate_each(model, validation.zip(numbers.chunks(rows).map(<[u32]>::to_vec)))?;
    let all = Evaluation::of_all(parts.values());
    Ok((all, parts.into_iter().map(|(number, part)| (choice.name(number).to_owned(), part)).collect()))
}

fn as_json(all: &Evaluation, parts: &BTreeMap<String, Evaluation>) -> Value {
    let mut object = json!(all);
    if !parts.is_empty() {
        object["adapters"] = json!(parts);
    }
    object
}

fn words(found: &Evaluation) -> String {
    format!("loss {:.5} nats a token, perplexity {:.3}, {} tokens", found.loss, found.perplexity, found.tokens)
}
