//! Tokenizers as models come with them.

use crate::published::{bytes, folder, read, tokenizer, tokens};
use crate::shared;
use eckart::data::{Tokenizer, Vocabulary};
use serde_json::json;
use std::path::Path;

/// Strings and tokens that llama.cpp tests its vocabularies with; without tokens around the texts.
fn published_strings(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
    let path = |end: &str| shared::file(&format!("tokenizers/llama.cpp-vocab/ggml-vocab-{name}.gguf.{end}"));
    let (texts, ids) = (read(&path("inp")?), read(&path("out")?));
    let numbers = |line: &str| line.split_whitespace().map(|id| id.parse().unwrap()).collect();
    let mut texts: Vec<String> = texts.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    assert_eq!(texts.pop().as_deref(), Some(""), "each text has its end");
    let ids: Vec<Vec<u32>> = ids.lines().map(numbers).collect();
    assert_eq!((texts.len(), ids.len()), (46, 46));
    Some(texts.into_iter().zip(ids).collect())
}

fn agrees(name: &str, folder: &Path, exact: bool) {
    let tokenizer = Tokenizer::open(folder).unwrap();
    for (text, expected) in published_strings(name).unwrap() {
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(ids, expected, "{text:?}");
        let decoded = tokenizer.decode(&ids);
        assert!(!exact || decoded == text, "{text:?} comes back as {decoded:?}");
        let mut pieces = tokenizer.pieces();
        let mut streamed: String = ids.iter().map(|&id| pieces.push(id)).collect();
        streamed += &pieces.finish();
        assert!(!exact || streamed == text, "{text:?} is streamed as {streamed:?}");
    }
}

/// Only some of a folder's files.
fn part(from: &Path, names: &[&str]) -> tempfile::TempDir {
    let files: Vec<(&str, String)> = names.iter().map(|&name| (name, read(&from.join(name)))).collect();
    folder(&files.iter().map(|(name, text)| (*name, text.as_str())).collect::<Vec<_>>())
}

#[test]
fn gpt2_gives_the_published_tokens() {
    let Some(path) = shared::file("tokenizers/gpt2") else { return };
    agrees("gpt-2", &path, true);
    let first = part(&path, &["vocab.json", "merges.txt"]);
    agrees("gpt-2", first.path(), true);
    let tokenizer = Tokenizer::open(first.path()).unwrap();
    assert_eq!(tokenizer.size(), 50257);
    assert_eq!(tokenizer.encode("a<|endoftext|>b").unwrap(), [64, 50256, 65]);
    assert_eq!(tokenizer.begins(), None);
}

#[test]
fn bert_gives_the_published_tokens() {
    let Some(path) = shared::file("tokenizers/bert-uncased") else { return };
    agrees("bert-bge", &path, false);
    let first = part(&path, &["vocab.txt"]);
    agrees("bert-bge", first.path(), false);
    for folder in [&*path, first.path()] {
        let tokenizer = Tokenizer::open(folder).unwrap();
        assert_eq!(tokenizer.size(), 30522);
        let pair = tokenizer.framed("Hello", Some("world!"), 16).unwrap();
        assert_eq!((pair.ids, pair.second), (vec![101, 7592, 102, 2088, 999, 102], Some(3)));
    }
}

#[test]
fn stories260k_has_its_special_tokens() {
    let Some(path) = shared::file("stories260k") else { return };
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.unk()), (Some(1), Some(2), Some(0)));
    assert_eq!((tokenizer.pad(), tokenizer.begins(), tokenizer.size()), (None, Some(1), 512));
    assert_eq!(tokenizer.ends(), [2]);
    let expected: serde_json::Value = serde_json::from_str(&read(&path.join("expected_greedy.json"))).unwrap();
    let ids: Vec<u32> = expected["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let text = expected["text"].as_str().unwrap();
    assert_eq!(tokenizer.decode(&ids[1..]), text);
    let mut pieces = tokenizer.pieces();
    let streamed: String = ids[1..].iter().map(|&id| pieces.push(id)).collect();
    assert_eq!(streamed + &pieces.finish(), text);
    for cut in 2..ids.len().min(30) {
        let (before, behind) = ids[1..].split_at(cut - 1);
        let mut pieces = tokenizer.pieces_after(before);
        let streamed: String = behind.iter().map(|&id| pieces.push(id)).collect();
        assert_eq!(tokenizer.decode(before) + &streamed + &pieces.finish(), text, "cut behind {cut} tokens");
    }
    assert!(tokenizer.chat(&[], true).unwrap_err().to_string().contains("no chat template"));
}

#[test]
fn pieces_are_whole_characters() {
    let tokenizer = tokenizer(None);
    let text = "é日𝄞a";
    let mut pieces = tokenizer.pieces();
    let given: Vec<String> = tokens(text).into_iter().map(|id| pieces.push(id)).collect();
    assert_eq!(given, ["", "é", "", "", "日", "", "", "", "𝄞", "a"]);
    assert_eq!(pieces.finish(), "");
    let mut pieces = tokenizer.pieces();
    assert_eq!(pieces.push(0xE6 + 3), "");
    assert_eq!(pieces.finish(), "\u{FFFD}", "an unfinished character is not lost");
    let mut pieces = tokenizer.pieces();
    let invalid: String = (0..40).map(|_| pieces.push(0xFF + 3)).collect();
    assert!(invalid.len() > 60, "what never becomes text is given too");
}

#[test]
fn special_tokens_come_from_every_file() {
    let tokenizer_json = bytes();
    let open = |files: &[(&str, &str)]| {
        let files = [&[("tokenizer.json", &*tokenizer_json)], files].concat();
        Tokenizer::open(folder(&files).path())
    };
    let special = |files: &[(&str, &str)]| {
        let tokenizer = open(files).unwrap();
        (tokenizer.bos(), tokenizer.eos(), tokenizer.ends().to_vec())
    };
    assert_eq!(special(&[]), (None, None, vec![]));
    let map = ("special_tokens_map.json", r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}"#);
    assert_eq!(special(&[map]), (Some(1), Some(2), vec![2]));
    let config = ("config.json", r#"{"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": -1}"#);
    assert_eq!(special(&[config]), (Some(1), Some(2), vec![2, 5]));
    let generation = ("generation_config.json", r#"{"eos_token_id": 7}"#);
    assert_eq!(special(&[config, generation]), (Some(1), Some(7), vec![2, 5, 7]));
    let none = ("tokenizer_config.json", r#"{"bos_token": null, "eos_token": "</s>"}"#);
    assert_eq!(special(&[none, config]), (None, Some(2), vec![2, 5]), "null says that there is none");
    let wrong = ("tokenizer_config.json", r#"{"eos_token": "<end>"}"#);
    let message = open(&[wrong]).err().unwrap().to_string();
    assert!(message.contains("eos_token is \"<end>\""), "{message}");
    let wrong = ("config.json", r#"{"eos_token_id": 9999}"#);
    assert!(open(&[wrong]).err().unwrap().to_string().contains("eos_token_id is 9999"));
    let never = ("tokenizer_config.json", r#"{"bos_token": "<s>", "add_bos_token": false}"#);
    assert_eq!(open(&[never]).unwrap().begins(), None);
    assert_eq!(open(&[map]).unwrap().begins(), Some(1));
}

#[test]
fn pairs_are_cut_where_they_are_longest() {
    let tokenizer = tokenizer(None);
    let cut = |first: &str, second: &str, room| {
        let framed = tokenizer.framed(first, Some(second), room).unwrap();
        (tokenizer.decode(&framed.ids), framed.second.unwrap(), framed.truncated)
    };
    assert_eq!(cut("abc", "de", 7), ("<s>abc</s>de".into(), 5, false));
    assert_eq!(cut("abcdef", "xy", 7), ("<s>abc</s>xy".into(), 5, true));
    assert_eq!(cut("ab", "uvwxyz", 7), ("<s>ab</s>uvw".into(), 4, true));
    assert_eq!(cut("abcdef", "uvwxyz", 7), ("<s>abc</s>uv".into(), 5, true));
    assert!(tokenizer.framed("a", Some("b"), 3).is_err());
    let alone = tokenizer.framed("abc", None, 3).unwrap();
    assert_eq!((tokenizer.decode(&alone.ids), alone.second, alone.truncated), ("<s>ab".into(), None, true));
}

#[test]
fn what_a_file_asks_for_beyond_tokens_is_not_done() {
    let mut file: serde_json::Value = serde_json::from_str(&bytes()).unwrap();
    file["padding"] = json!({"strategy": {"Fixed": 4_000_000_000u64}, "direction": "Right", "pad_to_multiple_of": null,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    let open = |file: &serde_json::Value| Tokenizer::open(folder(&[("tokenizer.json", &file.to_string())]).path());
    assert_eq!(open(&file).unwrap().encode("abc").unwrap(), tokens("abc"));
    let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let chain = |length| json!({"type": "Sequence", "normalizers": vec![doubling.clone(); length]});
    file["normalizer"] = chain(8);
    assert_eq!(open(&file).unwrap().encode("a").unwrap().len(), 256);
    file["normalizer"] = chain(60);
    let message = open(&file).err().unwrap().to_string();
    assert!(message.contains("more than 256"), "{message}");
}

#[test]
fn a_folder_without_a_tokenizer_says_what_it_lacks() {
    let empty = folder(&[]);
    let message = Tokenizer::open(empty.path()).err().unwrap().to_string();
    assert!(message.ends_with("no tokenizer.json, vocab.json with merges.txt, or vocab.txt"), "{message}");
    let broken = folder(&[("tokenizer.json", "{")]);
    let message = Tokenizer::open(broken.path()).err().unwrap().to_string();
    assert!(message.contains("tokenizer.json: is not JSON"), "{message}");
    let words = folder(&[("vocab.txt", "one\ntwo\n")]);
    let message = Tokenizer::open(words.path()).err().unwrap().to_string();
    assert!(message.contains("[CLS]"), "{message}");
}

/// What `train` learns by is read by this library as it was: by characters and by bytes.
#[test]
fn own_vocabularies_are_tokenizers() {
    let text = "häßlich, and\nsome lines\r\n\t ~\u{7f}\u{1F980}";
    let every: String = (0..0x300).filter_map(char::from_u32).collect();
    let bytes = Vocabulary::Bytes;
    for (vocabulary, text) in [(&Vocabulary::of(text.as_bytes()), text), (&bytes, text), (&bytes, &every)] {
        let folder = folder(&[("tokenizer.json", &vocabulary.to_hugging_face(None).to_string())]);
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokens, vocabulary.encode(text.as_bytes()).unwrap());
        assert_eq!((tokenizer.decode(&tokens).as_str(), tokenizer.size()), (text, vocabulary.size()));
    }
}
