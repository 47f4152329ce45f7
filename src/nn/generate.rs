//! Sampling text from a model.

use super::{Model, cache::Cache};
use crate::error::{Error, Result};
use crate::rng::Seed;
use crate::tensor::Tensor;
use rand::RngExt;

/// How the next token is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f64,
    /// Draw among this many likeliest tokens; all if none.
    pub top_k: Option<usize>,
    /// Draws are a function of it and of the position.
    pub seed: Seed,
}

/// `count` tokens after `prompt`, which must not be empty. Beyond the model's context, the older half is forgotten.
pub fn generate(model: &Model, prompt: &[u32], count: usize, sampling: Sampling) -> Result<Vec<u32>> {
    let mut written = Vec::new();
    if count == 0 {
        return Ok(written);
    }
    generate_while(model, prompt, sampling, |token| {
        written.push(token);
        written.len() < count
    })?;
    Ok(written)
}

/// The same, token by token, as long as `go_on` says so of the one it is given.
pub fn generate_while(
    model: &Model,
    prompt: &[u32],
    sampling: Sampling,
    mut go_on: impl FnMut(u32) -> bool,
) -> Result<()> {
    let config = model.config();
    config.check_writes()?;
    if prompt.is_empty() {
        return Err(Error::Config("an empty prompt: give at least one token to start from".into()));
    }
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= config.vocabulary) {
        return Err(Error::Config(format!("token {id} of the prompt is not in a vocabulary of {}", config.vocabulary)));
    }
    let mut tokens = prompt.to_vec();
    let mut cache = Cache::new(config.layers);
    loop {
        let unread = match cache.tokens() {
            0 => &tokens[tokens.len().saturating_sub(config.context)..],
            read if read == config.context => {
                cache = Cache::new(config.layers);
                &tokens[tokens.len() - config.context.div_ceil(2)..]
            }
            _ => &tokens[tokens.len() - 1..],
        };
        let logits = model.next(unread, &mut cache)?;
        tokens.push(draw(&logits, sampling, tokens.len() as u64));
        if !go_on(tokens[tokens.len() - 1]) {
            return Ok(());
        }
    }
}

/// One draw from softmax(logits / temperature) among the top k.
fn draw(logits: &[f32], sampling: Sampling, position: u64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if sampling.temperature <= 0.0 {
        return order[0] as u32;
    }
    order.truncate(sampling.top_k.unwrap_or(logits.len()).max(1));
    let highest = logits[order[0]] as f64;
    let weights: Vec<f64> =
        order.iter().map(|&i| ((logits[i] as f64 - highest) / sampling.temperature).exp()).collect();
    let mut left = sampling.seed.fold(position).stream().random::<f64>() * weights.iter().sum::<f64>();
    for (&token, weight) in order.iter().zip(&weights) {
        left -= weight;
        if left <= 0.0 {
            return token as u32;
        }
    }
    order[order.len() - 1] as u32
}

impl Model {
    /// Logits after the last of `tokens`, which follow what `cache` holds; an error for a model that writes no text.
    pub fn next(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        self.config().check_writes()?;
        let device = self.device();
        let ids = Tensor::new(tokens, [1, tokens.len()], &device);
        let last = |hidden: Tensor| hidden.slice(1, tokens.len() - 1, 1);
        let logits = match self {
            Model::Gpt2(model, _) => model.head(&last(model.continued(&ids, cache))),
            Model::Llama(model, _) => model.head(&last(model.continued(&ids, cache))),
            Model::Bert(..) => unreachable!("checked above"),
        };
        logits.cast(crate::DType::F32).to_vec()
    }
}
