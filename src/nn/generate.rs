//! Sampling text from a model.

use super::{Model, ModelConfig, cache::Cache};
use crate::error::{Error, Result};
use crate::lowrank::select;
use crate::module::Module;
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
    let mut sequence = Sequence::new(prompt, model.config())?;
    loop {
        let unread = sequence.unread(model.config());
        let logits = model.next(&unread, &mut sequence.cache)?;
        if !go_on(sequence.push(&logits, sampling)) {
            return Ok(());
        }
    }
}

/// What a text of several goes on from, and by which adapter of a model's banks.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Tokens, at least one.
    pub tokens: Vec<u32>,
    /// Its number, see [`select`]; none where the model has no banks.
    pub adapter: Option<u32>,
}

/// Writes several texts at once, each as it would be by itself: what is drawn for one does not depend on the others.
/// `go_on` is given the number of a text and its next token, and says whether that text goes on.
///
/// Prompts may be of any lengths; each is read by itself, and from then on all together read one token each.
pub fn generate_together(
    model: &Model,
    prompts: &[Prompt],
    sampling: Sampling,
    mut go_on: impl FnMut(usize, u32) -> bool,
) -> Result<()> {
    let new = |prompt: &Prompt| Sequence::new(&prompt.tokens, model.config());
    let sequences = prompts.iter().map(new).collect::<Result<_>>()?;
    let mut writing = Writing { model: model.frozen(), prompts, sequences, sampling };
    let mut going: Vec<usize> = (0..prompts.len()).collect();
    while !going.is_empty() {
        let mut next = Vec::new();
        for group in writing.groups(&going) {
            let drawn = writing.next(&group)?;
            next.extend(group.into_iter().zip(drawn).filter(|(i, token)| go_on(*i, *token)).map(|(i, _)| i));
        }
        next.sort_unstable();
        going = next;
    }
    Ok(())
}

/// Texts that are being written together.
struct Writing<'a> {
    model: Model,
    prompts: &'a [Prompt],
    sequences: Vec<Sequence>,
    sampling: Sampling,
}

impl Writing<'_> {
    /// Those of these texts that begin, each by itself; then all others.
    fn groups(&self, going: &[usize]) -> Vec<Vec<usize>> {
        let begins = |&i: &usize| self.sequences[i].begins(self.model.config());
        let (alone, together): (Vec<usize>, Vec<usize>) = going.iter().partition(|i| begins(i));
        alone.into_iter().map(|i| vec![i]).chain([together]).filter(|group| !group.is_empty()).collect()
    }

    /// The next token of each of a group, ascending.
    fn next(&mut self, group: &[usize]) -> Result<Vec<u32>> {
        choose(&mut self.model, group.iter().map(|&i| self.prompts[i].adapter))?;
        let (model, sampling) = (&self.model, self.sampling);
        let members = self.sequences.iter_mut().enumerate().filter(|(i, _)| group.contains(i));
        let mut members: Vec<&mut Sequence> = members.map(|(_, sequence)| sequence).collect();
        let unread: Vec<u32> = members.iter_mut().flat_map(|sequence| sequence.unread(model.config())).collect();
        let mut caches: Vec<&mut Cache> = members.iter_mut().map(|sequence| &mut sequence.cache).collect();
        let logits = model.next_of_each(&unread, &mut caches)?;
        let each = members.iter_mut().zip(logits.chunks(model.config().vocabulary));
        Ok(each.map(|(sequence, logits)| sequence.push(logits, sampling)).collect())
    }
}

/// Chooses the adapters of a batch, if there are any to choose from.
fn choose(model: &mut Model, adapters: impl Iterator<Item = Option<u32>>) -> Result<()> {
    match adapters.collect::<Option<Vec<u32>>>() {
        Some(ids) => select(model, &ids),
        None => Ok(()),
    }
}

/// A text that is being written.
struct Sequence {
    tokens: Vec<u32>,
    /// Of all tokens but those that are still unread.
    cache: Cache,
}

impl Sequence {
    fn new(prompt: &[u32], config: &ModelConfig) -> Result<Sequence> {
        config.check_writes()?;
        if prompt.is_empty() {
            return Err(Error::Config("an empty prompt: give at least one token to start from".into()));
        }
        match prompt.iter().find(|&&id| id as usize >= config.vocabulary) {
            Some(id) => {
                let vocabulary = config.vocabulary;
                Err(Error::Config(format!("token {id} of the prompt is not in a vocabulary of {vocabulary}")))
            }
            None => Ok(Sequence { tokens: prompt.to_vec(), cache: Cache::new(config.layers) }),
        }
    }

    /// Whether nothing is read of it, or the context is full, so that it has to be read anew.
    fn begins(&self, config: &ModelConfig) -> bool {
        [0, config.context].contains(&self.cache.tokens())
    }

    /// What the model has to read before it knows the next token: the last one, or as it begins all that goes with it.
    fn unread(&mut self, config: &ModelConfig) -> Vec<u32> {
        let count = match self.cache.tokens() {
            0 => self.tokens.len().min(config.context),
            read if read == config.context => config.context.div_ceil(2),
            _ => 1,
        };
        if self.begins(config) {
            self.cache = Cache::new(config.layers);
        }
        self.tokens[self.tokens.len() - count..].to_vec()
    }

    fn push(&mut self, logits: &[f32], sampling: Sampling) -> u32 {
        let token = draw(logits, sampling, self.tokens.len() as u64);
        self.tokens.push(token);
        token
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
        self.next_of_each(tokens, &mut [cache])
    }

    /// The same of several sequences, each with as many new tokens: one row of logits after the other.
    fn next_of_each(&self, tokens: &[u32], caches: &mut [&mut Cache]) -> Result<Vec<f32>> {
        self.config().check_writes()?;
        let new = tokens.len() / caches.len();
        let ids = Tensor::new(tokens, [caches.len(), new], &self.device());
        let last = |hidden: Tensor| hidden.slice(1, new - 1, 1);
        let logits = match self {
            Model::Gpt2(model, _) => model.head(&last(model.continued(&ids, caches))),
            Model::Llama(model, _) => model.head(&last(model.continued(&ids, caches))),
            Model::Bert(..) => unreachable!("checked above"),
        };
        logits.cast(crate::DType::F32).to_vec()
    }
}
