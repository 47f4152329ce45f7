//! `eval`: what a model makes of text that it did not learn from; with named adapters, what each makes of its own part.

use crate::args;
use crate::base::{BASE, Choice};
use eckart::nn::Model;
use eckart::train::{Evaluation, Exam, Figures, Questions, Scores, evaluate, evaluate_each};
use eckart::{Device, Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

pub fn run(args: &args::Eval) -> Result<ExitCode> {
    let tokenizer = args.base.tokenizer()?;
    let sizes = args.base.sizes(args.max_length)?;
    let args::Eval { mask_prompt, batch, mlm_probability, seed, .. } = *args;
    let questions = Questions { mask_prompt, columns: args.columns.clone(), batch, mlm_probability, seed };
    let exam = questions.read(&args.data, &tokenizer, &sizes)?;
    let device = Device::by_name(&args.device)?;
    let truncated = exam.truncated;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let (all, parts) = rayon::scope(|_| {
        let (model, choice) = args.base.open_to_choose(&sizes, &device)?;
        let numbers = choice.numbers(&exam, &args.data)?;
        found(&model, &choice, exam, &numbers, args.batch)
    })?;
    if truncated > 0 {
        eprintln!("{truncated} examples were cut to {} tokens", sizes.context);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&as_json(&all, &parts)).expect("plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    let labels = sizes.labels.as_deref().unwrap_or_default();
    parts.iter().for_each(|(name, part)| println!("{name}: {}", in_words(part, labels)));
    println!("{}{}", if parts.is_empty() { "" } else { "all: " }, in_words(&all, labels));
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

impl Choice {
    /// The number of the adapter that each example is read by; the model itself where a line names none.
    fn numbers(&self, exam: &Exam, data: &Path) -> Result<Vec<u32>> {
        let Some(first) = self.names().first() else { return Ok(Vec::new()) };
        let Some(named) = &exam.adapters else {
            let problem =
                format!("adapter {first}=…: only lines for a model that writes text name adapters: give DIR alone");
            return Err(Error::Config(problem));
        };
        let number = |name: &Option<String>| self.number(name.as_deref().unwrap_or(BASE));
        let numbers: Result<Vec<u32>> = named.iter().map(number).collect();
        numbers.map_err(|error| Error::Data { path: data.into(), problem: error.to_string() })
    }
}

/// The figures of all, and of each adapter by its name.
type Found = (Evaluation, BTreeMap<String, Evaluation>);

fn found(model: &Model, choice: &Choice, exam: Exam, numbers: &[u32], rows: usize) -> Result<Found> {
    let batches = exam.batches.into_iter();
    if choice.is_empty() {
        let all = evaluate(model, batches)?;
        return Ok((all.expect("only the null device has no numbers"), BTreeMap::new()));
    }
    let parts = evaluate_each(model, batches.zip(numbers.chunks(rows).map(<[u32]>::to_vec)))?;
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
