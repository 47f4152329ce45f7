//! From files to the tokenizers of the `tokenizers` crate, without what would make them unpredictable.

use super::folder::Folder;
use super::special;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::models::{ModelWrapper, bpe::BPE, wordpiece::WordPiece};
use tokenizers::processors::{PostProcessorWrapper, bert::BertProcessing};
use tokenizers::{AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers};

/// How many times as long as a text what is made of it may become; ▁ for each space makes it three times.
const GROWTH: f64 = 256.0;

/// The tokenizer, and what it would put around texts.
pub fn load(files: &Folder) -> Result<(Tokenizer, Option<PostProcessorWrapper>)> {
    let mut library = match (files.file("tokenizer.json"), files.file("vocab.json"), files.file("merges.txt")) {
        (Some(path), _, _) => published(&path)?,
        (None, Some(vocabulary), Some(merges)) => gpt2(&vocabulary, &merges, files)?,
        _ => match files.file("vocab.txt") {
            Some(path) => bert(&path, files)?,
            None => return Err(files.broken("no tokenizer.json, vocab.json with merges.txt, or vocab.txt")),
        },
    };
    let processor = library.get_post_processor().cloned();
    library.with_post_processor(None::<PostProcessorWrapper>).with_padding(None);
    library.with_truncation(None).map_err(|error| files.broken(error.to_string()))?;
    if let ModelWrapper::BPE(model) = library.get_model()
        && model.dropout.is_some()
    {
        let mut model = model.clone();
        model.dropout = None;
        library.with_model(model);
    }
    Ok((library, processor))
}

/// Runs foreign code on foreign data; the problem in words, a panic's too.
pub fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer's files contradict themselves".into()),
    }
}

fn broken(path: &Path, problem: impl Into<String>) -> Error {
    Error::Data { path: path.into(), problem: problem.into() }
}

/// The parts of `tokenizer.json` that rewrite text.
#[derive(Deserialize)]
struct Rewriting {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

fn published(path: &Path) -> Result<Tokenizer> {
    let text = std::fs::read(path).map_err(Error::file(path))?;
    let parts: Rewriting =
        serde_json::from_slice(&text).map_err(|error| broken(path, format!("is not JSON: {error}")))?;
    let encoding = growth(&parts.normalizer) * growth(&parts.pre_tokenizer);
    for (what, times) in [("a text", encoding), ("decoded tokens", growth(&parts.decoder))] {
        if times > GROWTH {
            let problem = format!("its replacements may make {what} {times:.0} times as long, more than {GROWTH}");
            return Err(broken(path, problem));
        }
    }
    guarded(|| Tokenizer::from_bytes(&text)).map_err(|problem| broken(path, problem))
}

/// A bound on how many times as long a text becomes, from one character on.
fn growth(part: &Value) -> f64 {
    let nested = part.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_array());
    let nested: f64 = nested.flatten().map(growth).product();
    let content = part["content"].as_str().map_or(0, str::len) as f64;
    nested
        * match part["type"].as_str() {
            // A pattern that matches the empty string puts its content before every character.
            Some("Replace") => match part["pattern"]["String"].as_str().map_or(0, str::len) {
                0 => 1.0 + content,
                pattern => (content / pattern as f64).max(1.0),
            },
            Some("Prepend") => 1.0 + part["prepend"].as_str().map_or(0, str::len) as f64,
            Some("ByteLevel") => 2.0,
            Some("Metaspace") => 4.0,
            _ => 1.0,
        }
}

/// GPT-2 as published: byte-level pairs in the order of `merges.txt`.
fn gpt2(vocabulary: &Path, merges: &Path, files: &Folder) -> Result<Tokenizer> {
    let (Some(vocabulary), Some(merges)) = (vocabulary.to_str(), merges.to_str()) else {
        return Err(files.broken("the path is not UTF-8"));
    };
    let read = || BPE::from_file(vocabulary, merges).build();
    let mut library = Tokenizer::new(guarded(read).map_err(|problem| files.broken(problem))?);
    let bytes = pre_tokenizers::byte_level::ByteLevel::new(false, true, true);
    library.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    mark(&mut library, files, &["<|endoftext|>"])?;
    Ok(library)
}

/// BERT as published: one piece in each line of `vocab.txt`, in lower case unless `do_lower_case` says otherwise.
fn bert(path: &Path, files: &Folder) -> Result<Tokenizer> {
    let text = std::fs::read(path).map_err(Error::file(path))?;
    let build = || WordPiece::builder().vocab(WordPiece::read_bytes(&text)?).build();
    let mut library = Tokenizer::new(guarded(build).map_err(|problem| broken(path, problem))?);
    let lowercase = files.names[0]["do_lower_case"].as_bool().unwrap_or(true);
    let normalizer = normalizers::BertNormalizer::new(true, true, None, lowercase);
    library.with_normalizer(Some(normalizer)).map_err(|error| files.broken(error.to_string()))?;
    library.with_pre_tokenizer(Some(pre_tokenizers::bert::BertPreTokenizer));
    library.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    let token = |name: &str| library.token_to_id(name).map(|id| (name.to_owned(), id));
    let (Some(sep), Some(cls)) = (token("[SEP]"), token("[CLS]")) else {
        return Err(broken(path, "has no lines [CLS] and [SEP]: is it BERT's?"));
    };
    library.with_post_processor(Some(BertProcessing::new(sep, cls)));
    mark(&mut library, files, &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])?;
    Ok(library)
}

/// Makes tokens special that the vocabulary has and the settings, or this kind of model, name so.
fn mark(library: &mut Tokenizer, files: &Folder, usual: &[&str]) -> Result<()> {
    let mut names = special::named(files);
    names.extend(usual.iter().map(|&name| name.to_owned()));
    names.retain(|name| library.token_to_id(name).is_some());
    let tokens: Vec<AddedToken> = names.into_iter().map(|name| AddedToken::from(name, true)).collect();
    guarded(|| library.add_special_tokens(tokens)).map(|_| ()).map_err(|problem| files.broken(problem))
}
