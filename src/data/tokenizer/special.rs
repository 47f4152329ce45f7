//! Which tokens are special, by name and by number.

use super::folder::Folder;
use crate::error::Result;
use serde_json::Value;

/// Special tokens of a model. A name counts before a number, and a name that is `null` says that there is none.
pub struct Special {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
    pub unk: Option<u32>,
    /// The token that stands for a hidden one.
    pub mask: Option<u32>,
    /// Every token that is no part of a text, ascending.
    pub all: Vec<u32>,
    /// Every token that ends a generated text, ascending.
    pub ends: Vec<u32>,
    /// What the configuration says about a token in front of every text.
    pub add_bos: Option<bool>,
    /// Names of tokens as chat templates know them: `bos_token` and so on, with the text.
    pub names: Vec<(String, String)>,
}

impl Special {
    /// Looks names and numbers up. A beginning or an end that the vocabulary lacks is an error, since a model would never
    /// see it; for padding and unknown tokens it means that there are none.
    pub fn of(files: &Folder, library: &tokenizers::Tokenizer) -> Result<Special> {
        let find = |kind: &str| find(files, library, kind);
        let (bos, eos) = (find("bos")?, find("eos")?);
        let (pad, unk) = (find("pad").unwrap_or(None), find("unk").unwrap_or(None));
        // Some files name none, and have one that is called as it always is.
        let mask = find("mask").unwrap_or(None);
        let mask = mask.or_else(|| ["[MASK]", "<mask>"].iter().find_map(|name| library.token_to_id(name)));
        let added = library.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id);
        let mut all: Vec<u32> = special.chain([bos, eos, pad, unk, mask].into_iter().flatten()).collect();
        all.sort_unstable();
        all.dedup();
        let known = |id: &u32| library.id_to_token(*id).is_some();
        let mut ends: Vec<u32> =
            files.numbers.iter().flat_map(|file| numbers(&file["eos_token_id"])).filter(known).collect();
        ends.extend(eos);
        ends.sort_unstable();
        ends.dedup();
        let by_name = [("bos_token", bos), ("eos_token", eos), ("pad_token", pad), ("unk_token", unk)];
        let named = |(name, id): (&str, Option<u32>)| Some((name.to_owned(), library.id_to_token(id?)?));
        let names = by_name.into_iter().filter_map(named).collect();
        Ok(Special { bos, eos, pad, unk, mask, all, ends, add_bos: files.names[0]["add_bos_token"].as_bool(), names })
    }
}

/// Every text that the settings name as a special token.
pub fn named(files: &Folder) -> Vec<String> {
    let settings = files.names.iter().filter_map(Value::as_object).flatten();
    let tokens = settings.filter(|(key, _)| key.ends_with("_token")).filter_map(|(_, value)| content(value));
    tokens.map(str::to_owned).collect()
}

fn find(files: &Folder, library: &tokenizers::Tokenizer, kind: &str) -> Result<Option<u32>> {
    let name = format!("{kind}_token");
    let mut settings = files.names.iter().filter_map(|file| file.get(&name));
    if let Some(value) = settings.next() {
        let Some(token) = content(value) else { return Ok(None) };
        let missing = || files.broken(format!("{name} is {token:?}, which is not in the vocabulary"));
        return library.token_to_id(token).map(Some).ok_or_else(missing);
    }
    let number = format!("{kind}_token_id");
    let Some(id) = files.numbers.iter().find_map(|file| numbers(&file[&number]).next()) else { return Ok(None) };
    let missing = || files.broken(format!("{number} is {id}, which is not in the vocabulary"));
    library.id_to_token(id).map(|_| Some(id)).ok_or_else(missing)
}

/// A token is given as its text or as an object that holds the text.
fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A number is given alone or as one of several; a negative one says that there is none.
fn numbers(value: &Value) -> impl Iterator<Item = u32> {
    let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    several.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok())
}
