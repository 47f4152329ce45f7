//! `generate`: text from a checkpoint, or from a model of files; several texts at once, each by the adapter that it names.

use crate::args;
use crate::base::{Base, Choice};
use eckart::data::{Message, Pieces, Tokenizer, Vocabulary};
use eckart::nn::{Model, Prompt, Sampling, generate, generate_together, generate_while};
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
        for prompt in texts(args) {
            println!("{}", write(&model, vocabulary, prompt, args.tokens, sampling)?);
        }
        return Ok(());
    }
    let config = &from.state.config;
    let folder = config.model.as_deref().or(config.tokenizer.as_deref());
    let tokenizer = Tokenizer::open(folder.expect("what has no vocabulary has a tokenizer"))?;
    answer(&model, &tokenizer, &texts(args).into_iter().map(|text| (text, None)).collect::<Vec<_>>(), args, sampling)
}

fn from_files(args: &args::Generate, base: &Base, sampling: Sampling, device: &Device) -> Result<()> {
    let sizes = base.sizes(usize::MAX)?;
    sizes.check_writes()?;
    let tokenizer = base.tokenizer()?;
    let (model, choice) = base.open_to_choose(&sizes, device)?;
    answer(&model, &tokenizer, &pairs(args, &choice)?, args, sampling)
}

/// The prompts; one that is not there if none are given.
fn texts(args: &args::Generate) -> Vec<Option<&str>> {
    if args.prompt.is_empty() { vec![None] } else { args.prompt.iter().map(|text| Some(text.as_str())).collect() }
}

/// What to go on from, and the adapter to do it by, if there are some to choose among: its name and its number.
type Pair<'a> = (Option<&'a str>, Option<(&'a str, u32)>);

/// Each prompt with the adapter of the same place; one of either goes with all of the other.
fn pairs<'a>(args: &'a args::Generate, choice: &'a Choice) -> Result<Vec<Pair<'a>>> {
    let (texts, named) = (texts(args), if args.with.is_empty() { choice.names() } else { &args.with });
    let number = |name: &'a String| Ok((name.as_str(), choice.number(name)?));
    let named = named.iter().map(number).collect::<Result<Vec<_>>>()?;
    match (texts.len(), named.len()) {
        (_, 0) => Ok(texts.into_iter().map(|text| (text, None)).collect()),
        (1, _) => Ok(named.into_iter().map(|adapter| (texts[0], Some(adapter))).collect()),
        (_, 1) => Ok(texts.into_iter().map(|text| (text, Some(named[0]))).collect()),
        (a, b) if a == b => Ok(texts.into_iter().zip(named.into_iter().map(Some)).collect()),
        (a, b) => Err(Error::Config(format!("with: {b} adapters for {a} prompts: name one for each, or one for all"))),
    }
}

/// One text as it comes; several together.
fn answer(
    model: &Model,
    tokenizer: &Tokenizer,
    pairs: &[Pair<'_>],
    args: &args::Generate,
    sampling: Sampling,
) -> Result<()> {
    if let [(text, None)] = pairs {
        return stream(model, tokenizer, text.unwrap_or_default(), args, sampling);
    }
    let mut texts = Vec::new();
    for (i, (text, adapter)) in pairs.iter().enumerate() {
        let text = text.unwrap_or_default();
        let (name, number) = adapter.map_or((format!("{}", i + 1), None), |(name, number)| (name.into(), Some(number)));
        let prompt = Prompt { tokens: prompt(tokenizer, text, args.chat)?, adapter: number };
        let (shown, pieces) = shown(tokenizer, text, &prompt.tokens, args.chat);
        texts.push(Text { name, prompt, text: shown.into(), pieces, left: args.tokens });
    }
    let prompts: Vec<Prompt> = texts.iter().map(|text| text.prompt.clone()).collect();
    if args.tokens > 0 {
        generate_together(model, &prompts, sampling, |i, token| texts[i].push(token, tokenizer))?;
    }
    let texts: Vec<String> = texts.into_iter().map(Text::finish).collect();
    println!("{}", texts.join("\n\n"));
    Ok(())
}

/// A text that is written beside others.
struct Text<'a> {
    /// The adapter's, or its own number.
    name: String,
    prompt: Prompt,
    text: String,
    pieces: Pieces<'a>,
    /// Tokens that are still to be written.
    left: usize,
}

impl Text<'_> {
    /// Whether it goes on.
    fn push(&mut self, token: u32, tokenizer: &Tokenizer) -> bool {
        if tokenizer.ends().contains(&token) {
            return false;
        }
        self.text += &self.pieces.push(token);
        self.left -= 1;
        self.left > 0
    }

    /// Under its name.
    fn finish(self) -> String {
        format!("{}:\n{}{}", self.name, self.text, self.pieces.finish())
    }
}

/// Writes tokens as they come, up to one that ends a text.
fn stream(model: &Model, tokenizer: &Tokenizer, text: &str, args: &args::Generate, sampling: Sampling) -> Result<()> {
    let tokens = prompt(tokenizer, text, args.chat)?;
    let (shown, mut pieces) = shown(tokenizer, text, &tokens, args.chat);
    let mut left = args.tokens;
    let mut out = std::io::stdout();
    let mut show = |text: &str| {
        // Nobody reads on: what was written is what was asked for.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    };
    show(shown);
    if left > 0 {
        generate_while(&model.frozen(), &tokens, sampling, |token| {
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

/// What is shown of a prompt, and what comes behind it: an answer in a chat stands alone.
fn shown<'a>(tokenizer: &'a Tokenizer, text: &'a str, tokens: &[u32], chat: bool) -> (&'a str, Pieces<'a>) {
    match chat || text.is_empty() {
        true => ("", tokenizer.pieces()),
        false => (text, tokenizer.pieces_after(tokens)),
    }
}

/// Tokens to go on from.
fn prompt(tokenizer: &Tokenizer, text: &str, chat: bool) -> Result<Vec<u32>> {
    if chat {
        let message = Message::new("user", text);
        return tokenizer.encode(&tokenizer.chat(&[message], true)?);
    }
    let begins = tokenizer.begins().or(tokenizer.bos().filter(|_| text.is_empty()));
    let mut tokens: Vec<u32> = begins.into_iter().collect();
    tokens.extend(tokenizer.encode(text)?);
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
