//! `eval`: what a model makes of text that it did not learn from.

use crate::args;
use eckart::train::{Evaluation, Figures, Questions, Scores, evaluate};
use eckart::{Device, Result};
use std::process::ExitCode;

pub fn run(args: &args::Eval) -> Result<ExitCode> {
    let tokenizer = args.base.tokenizer()?;
    let sizes = args.base.sizes(args.max_length)?;
    let (mask_prompt, columns) = (args.mask_prompt, args.columns.clone());
    let questions = Questions { mask_prompt, columns, batch: args.batch, seed: args.seed };
    let exam = questions.read(&args.data, &tokenizer, &sizes)?;
    let device = Device::by_name(&args.device)?;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let found = rayon::scope(|_| evaluate(&args.base.open(&sizes, &device)?, exam.batches.into_iter()))?;
    let found = found.expect("only the null device has no numbers");
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found).expect("plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    if exam.truncated > 0 {
        eprintln!("{} examples were cut to {} tokens", exam.truncated, sizes.context);
    }
    println!("{}", in_words(&found, sizes.labels.as_deref().unwrap_or_default()));
    Ok(ExitCode::SUCCESS)
}

fn in_words(found: &Evaluation, labels: &[String]) -> String {
    let loss = found.loss;
    match &found.figures {
        Figures::Tokens { perplexity, tokens } => {
            format!("loss {loss:.5} nats a token, perplexity {perplexity:.3}, {tokens} tokens")
        }
        Figures::Classes(Scores { examples, accuracy, f1, matthews, .. }) => {
            let of = match labels {
                [_, second] => format!("F1 of {second}"),
                _ => "macro F1".into(),
            };
            format!(
                "loss {loss:.5} nats a text, accuracy {accuracy:.4}, {of} {f1:.4}, Matthews {matthews:.4}, {examples} texts"
            )
        }
    }
}
