//! `generate`: text from a checkpoint, or from a model of files.

use crate::args;
use crate::base::Base;
use eckart::data::{Message, Tokenizer, Vocabulary};
use eckart::nn::{Model, Sampling, generate, generate_while};
use eckart::train::Checkpoint;
use eckart::{Device, Error, Module, Result, Seed};
use std::io::Write;
use std::process::ExitCode;

pub fn run(args: &args::Generate) -> Result<ExitCode> {
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        let problem = format!("temperature is {}: it must be a number that is not negative", args.temperature);
        return Err(Error::Config(problem));
    }
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, seed: Seed(args.seed) };
    let device = Device::by_name(&args.device)?;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    rayon::scope(|_| match (&args.model, &args.checkpoint) {
        (Some(model), _) => {
            let base = Base { model: model.clone(), adapter: args.adapter.clone() };
            from_files(args, &base, sampling, &device)
        }
        (None, Some(path)) => from_checkpoint(args, &Checkpoint::open(path)?, sampling, &device),
        (None, None) => unreachable!("one of them is required"),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn from_checkpoint(args: &args::Generate, from: &Checkpoint, sampling: Sampling, device: &Device) -> Result<()> {
    let model = from.model(device)?;
    model.config().check_writes()?;
    if let Some(vocabulary) = &from.state.vocabulary {
        println!("{}", write(&model, vocabulary, args.prompt.as_deref(), args.tokens, sampling)?);
        return Ok(());
    }
    let config = &from.state.config;
    let folder = config.model.as_deref().or(config.tokenizer.as_deref());
    let tokenizer = Tokenizer::open(folder.expect("what has no vocabulary has a tokenizer"))?;
    stream(&model, &tokenizer, args, sampling)
}

fn from_files(args: &args::Generate, base: &Base, sampling: Sampling, device: &Device) -> Result<()> {
    let sizes = base.sizes(usize::MAX)?;
    sizes.check_writes()?;
    let tokenizer = base.tokenizer()?;
    stream(&base.open(&sizes, device)?, &tokenizer, args, sampling)
}

/// Writes tokens as they come, up to one that ends a text.
fn stream(model: &Model, tokenizer: &Tokenizer, args: &args::Generate, sampling: Sampling) -> Result<()> {
    let prompt = prompt(tokenizer, args)?;
    let (mut pieces, mut left) = (tokenizer.pieces(), args.tokens);
    let mut out = std::io::stdout();
    let mut show = |text: &str| {
        // Nobody reads on: what was written is what was asked for.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    };
    if let Some(text) = args.prompt.as_deref().filter(|_| !args.chat) {
        show(text);
    }
    if left > 0 {
        generate_while(&model.frozen(), &prompt, sampling, |token| {
            if tokenizer.ends().contains(&token) {
                return false;
            }
            show(&pieces.push(token));
            left -= 1;
            left > 0
        })?;
    }
    show(&pieces.finish());
    show("\n");
    Ok(())
}

/// Tokens to go on from.
fn prompt(tokenizer: &Tokenizer, args: &args::Generate) -> Result<Vec<u32>> {
    let text = args.prompt.clone().unwrap_or_default();
    if args.chat {
        let message = Message::new("user", &text);
        return tokenizer.encode(&tokenizer.chat(&[message], true)?);
    }
    let begins = tokenizer.begins().or(tokenizer.bos().filter(|_| text.is_empty()));
    let mut tokens: Vec<u32> = begins.into_iter().collect();
    tokens.extend(tokenizer.encode(&text)?);
    match tokens.is_empty() {
        true => Err(Error::Config("prompt: this model has no token that begins a text, so give some".into())),
        false => Ok(tokens),
    }
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
