//! Files from outside with bytes changed at random: an error or a result, never a panic, never endless work.

use crate::published::{bytes, folder, tokenizer};
use eckart::Seed;
use eckart::data::{Batches, Columns, Examples, LabelledSet, Layout, Message, Reading, Tokenizer};
use rand::Rng;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// What is put in the place of something else.
const FRAGMENTS: [&[u8]; 22] = [
    b"\"",
    b"\n",
    b"\t",
    b"\\",
    b"\xFF",
    b"\x00",
    b"{",
    b"[[[[[[[[",
    b"null",
    b"-1",
    b"1e999",
    b"4294967295",
    b"18446744073709551615",
    b"\"\"",
    b"\\ud800",
    b"{\"text\":1}",
    "\u{FEFF}".as_bytes(),
    "日".as_bytes(),
    b"<s>",
    b"\"content\"",
    b"\"id\": 7",
    b"NaN",
];

struct Random(eckart::rng::Stream);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        ((self.0.next_u64() as u128 * bound.max(1) as u128) >> 64) as usize
    }

    /// A file with one to four changes.
    fn mutated(&mut self, original: &[u8]) -> Vec<u8> {
        let mut file = original.to_vec();
        for _ in 0..1 + self.below(4) {
            let start = self.below(file.len());
            let end = file.len().min(start + self.below(24));
            let replacement = match self.below(5) {
                0 => vec![self.below(256) as u8],
                1 => Vec::new(),
                2 => file[start..end].repeat(1 + self.below(40)),
                3 => {
                    let from = self.below(file.len());
                    file[from..file.len().min(from + self.below(200))].to_vec()
                }
                _ => FRAGMENTS[self.below(FRAGMENTS.len())].to_vec(),
            };
            file.splice(start..end, replacement);
        }
        if self.below(20) == 0 {
            file.truncate(self.below(file.len()));
        }
        file
    }
}

/// Tokenizers of every model, with parts that rewrite text in ways of their own.
fn tokenizers() -> Vec<Value> {
    let plain: Value = serde_json::from_str(&bytes()).unwrap();
    let with = |changes: Value| {
        let mut file = plain.clone();
        for (key, value) in changes.as_object().unwrap() {
            file[key] = value.clone();
        }
        file
    };
    let spaces = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    vec![
        plain.clone(),
        with(json!({
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Strip", "strip_left": true, "strip_right": true},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}, {"type": "Prepend", "prepend": "▁"},
            ]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}(?!a)|\\s+"}, "behavior": "Isolated", "invert": false},
                {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "MergedWithNext"},
                {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            ]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "ByteLevel", "add_prefix_space": true,
                "trim_offsets": true, "use_regex": true}, {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|",
                "cleanup": true},
            ]},
        })),
        with(json!({
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
                      "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.5], ["▁a", -1.5], ["b", -3.0]]},
            "pre_tokenizer": spaces, "decoder": spaces,
        })),
        with(json!({
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2, "##a": 3, "1": 4}},
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[UNK]", 0], "cls": ["a", 1]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        })),
        with(json!({
            "model": {"type": "BPE", "dropout": 0.1, "unk_token": null, "continuing_subword_prefix": "", "fuse_unk": false,
                      "end_of_word_suffix": "", "byte_fallback": false, "ignore_merges": true,
                      "vocab": {"a": 0, "b": 1, "ab": 2, "abab": 3, "Ġ": 4}, "merges": [["a", "b"], ["ab", "ab"]]},
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
            "post_processor": {"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["a", 0], "trim_offsets": true,
                               "add_prefix_space": true},
        })),
    ]
}

const CONFIG: &str = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null,
    "add_bos_token": true, "chat_template": [{"name": "default", "template":
    "{%- for m in messages %}{{ '<s>' + m['role'] | trim }}{% if loop.last %}{{ m.content.split('a')[0] }}{% endif %}{% endfor %}"}]}"#;

const LINES: &str = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Yes\\u00e9\"}]}
{\"messages\": [{\"role\": \"assistant\", \"content\": \"日\"}], \"id\": [1, 2, {\"a\": null}]}

{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}], \"text\": \"c\"}
";

const TABLE: &str = "index\ttext\tsecond\tlabel\n0\tone \"two\tthree\t1\n1\tété\t\t0\n2\tfour\tfive\t-1e3\n";

fn use_tokenizer(tokenizer: &Tokenizer) {
    for text in ["", "ab ba  12345 日本é\u{301}", "<s>a</s>\n\n▁a1"] {
        let ids = tokenizer.encode(text).unwrap_or_default();
        assert!(ids.len() < 1_000_000, "{} tokens", ids.len());
        tokenizer.decode(&ids);
        let mut pieces = tokenizer.pieces();
        ids.iter().for_each(|&id| drop(pieces.push(id)));
        pieces.finish();
    }
    tokenizer.decode(&[0, 3, u32::MAX, 258, 1 << 20]);
    let _ = tokenizer.framed("ab a", Some("b"), 5);
    let _ = tokenizer.chat(&[Message::new("user", "a"), Message::new("assistant", "b")], true);
}

fn use_examples(path: &Path, tokenizer: &Tokenizer) {
    for mask_prompt in [false, true] {
        if let Ok(read) = Examples::read(path, tokenizer, Reading { max_length: 24, mask_prompt }) {
            let batches = Batches::new(read.examples, 2, 24, Layout::Packed);
            (0..batches.batches_per_epoch()).for_each(|index| drop(batches.batch(Seed(1), index)));
        }
    }
    let columns = Columns { first: "text".into(), second: Some("second".into()), label: "label".into() };
    let _ = LabelledSet::read(path, tokenizer, &columns, 24, None);
}

fn mutate(rounds: usize, seed: u64) {
    let mut random = Random(Seed(seed).stream());
    let sound = tokenizer(Some("{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"));
    let tokenizers: Vec<String> = tokenizers().iter().map(Value::to_string).collect();
    for text in &tokenizers {
        use_tokenizer(
            &Tokenizer::open(folder(&[("tokenizer.json", text), ("tokenizer_config.json", "{}")]).path()).unwrap(),
        );
    }
    let files = folder(&[("tokenizer.json", &tokenizers[0]), ("tokenizer_config.json", CONFIG)]);
    let mut opened = 0;
    for round in 0..rounds {
        let start = Instant::now();
        let (name, original) = match round % 5 {
            0 => ("lines.jsonl", LINES.as_bytes()),
            1 => ("table.tsv", TABLE.as_bytes()),
            2 => ("table.csv", TABLE.as_bytes()),
            3 => ("tokenizer_config.json", CONFIG.as_bytes()),
            _ => ("tokenizer.json", tokenizers[random.below(tokenizers.len())].as_bytes()),
        };
        let path = files.path().join(name);
        let file = random.mutated(original);
        std::fs::write(&path, &file).unwrap();
        if round % 5 < 3 {
            use_examples(&path, &sound);
        } else {
            if let Ok(tokenizer) = Tokenizer::open(files.path()) {
                opened += 1;
                use_tokenizer(&tokenizer);
            }
            std::fs::write(&path, if round % 5 == 3 { CONFIG.as_bytes() } else { tokenizers[0].as_bytes() }).unwrap();
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "round {round} took {took:?} for {}", String::from_utf8_lossy(&file));
    }
    assert!(
        opened > rounds / 50,
        "only {opened} of {rounds} could be opened: the mutations go no deeper than the syntax"
    );
}

#[test]
fn changed_files_are_refused_or_read() {
    mutate(2000, 1);
}

#[test]
#[ignore = "minutes"]
fn changed_files_are_refused_or_read_at_length() {
    mutate(25_000, 2);
}
