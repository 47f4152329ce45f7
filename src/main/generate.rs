//! `generate`: text from a checkpoint.

use crate::args;
use eckart::data::Vocabulary;
use eckart::nn::{Model, Sampling, generate};
use eckart::train::Checkpoint;
use eckart::{Device, Error, Module, Result, Seed};
use std::process::ExitCode;

pub fn run(args: &args::Generate) -> Result<ExitCode> {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        let problem = format!("temperature is {}: it must be a number that is not negative", args.temperature);
        return Err(Error::Config(problem));
    }
    let Some(vocabulary) = &checkpoint.state.vocabulary else {
        let problem = "its tokens are those of the model it began with: use --model and --adapter".into();
        return Err(Error::Checkpoint { path: checkpoint.path.clone(), problem });
    };
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, seed: Seed(args.seed) };
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let text = rayon::scope(|_| {
        let model = checkpoint.model(&Device::cpu())?;
        write(&model, vocabulary, args.prompt.as_deref(), args.tokens, sampling)
    })?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The prompt, or a new line, and what the model writes after it.
pub fn write(
    model: &Model,
    vocabulary: &Vocabulary,
    prompt: Option<&str>,
    tokens: usize,
    sampling: Sampling,
) -> Result<String> {
    let mut text = match prompt {
        Some(prompt) => vocabulary.encode(prompt.as_bytes())?,
        None => vocabulary.encode(b"\n").unwrap_or(vec![0]),
    };
    text.extend(generate(&model.frozen(), &text, tokens, sampling)?);
    let start = if prompt.is_none() { 1 } else { 0 };
    Ok(vocabulary.decode(&text[start..]))
}
