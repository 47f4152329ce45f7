//! Data sets, tokenizers and chat templates.

use super::damage::Random;
use super::{Files, Kind};
use crate::published::{bytes, folder, tokenizer};
use eckart::Seed;
use eckart::data::{Batches, Columns, Examples, LabelledSet, Layout, Message, Reading, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

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

const TEXTS: &str = "{\"text\": \"Hi\\n日\", \"adapter\": \"a\"}
{\"text\": \"a\", \"adapter\": null, \"id\": 1e3}
";

const PAIRS: &str = "{\"prompt\": \"Hi\", \"completion\": \" there\"}
{\"completion\": \"b\", \"prompt\": \"\", \"adapter\": \"b\"}
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

/// A file of lines or a table.
pub struct Table {
    name: &'static str,
    tokenizer: Tokenizer,
    read: Option<Examples>,
}

impl Table {
    pub fn new(name: &'static str) -> Table {
        let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}";
        Table { name, tokenizer: tokenizer(Some(template)), read: None }
    }
}

impl Kind for Table {
    fn files(&self, random: &mut Random) -> (Files, usize) {
        let lines = [LINES, TEXTS, PAIRS][random.below(3)];
        let original = if self.name.ends_with("jsonl") { lines } else { TABLE };
        let original = if self.name.ends_with("csv") { original.replace('\t', ",") } else { original.into() };
        (vec![(self.name.into(), original.into_bytes())], 1)
    }

    fn open(&mut self, folder: &Path) -> eckart::Result<()> {
        let path = folder.join(self.name);
        let reading = Reading { max_length: 24, mask_prompt: false };
        self.read = None;
        if !self.name.ends_with("jsonl") {
            let columns = Columns { first: "text".into(), second: Some("second".into()), label: "label".into() };
            LabelledSet::read(&path, &self.tokenizer, &columns, 24, None)?;
        }
        self.read = Some(Examples::read(&path, &self.tokenizer, reading)?);
        Ok(())
    }

    fn try_out(&mut self, folder: &Path) {
        let masked = Reading { max_length: 24, mask_prompt: true };
        let masked = Examples::read(&folder.join(self.name), &self.tokenizer, masked).ok();
        for read in self.read.take().into_iter().chain(masked) {
            let batches = Batches::new(read.examples, 2, 24, Layout::Packed);
            (0..batches.batches_per_epoch()).for_each(|index| drop(batches.batch(Seed(1), index)));
        }
    }
}

/// `tokenizer.json`, of every model that there is.
pub struct Vocabulary {
    originals: Vec<String>,
}

impl Vocabulary {
    pub fn new() -> Vocabulary {
        let originals: Vec<String> = tokenizers().iter().map(Value::to_string).collect();
        for text in &originals {
            let sound = folder(&[("tokenizer.json", text), ("tokenizer_config.json", "{}")]);
            use_tokenizer(&Tokenizer::open(sound.path()).unwrap());
        }
        Vocabulary { originals }
    }
}

/// A published tokenizer's parts are those of the `tokenizers` crate, whose tables and expressions take what they take.
const LIBRARY: [usize; 2] = [16, 128 << 20];

impl Kind for Vocabulary {
    fn files(&self, random: &mut Random) -> (Files, usize) {
        let original = self.originals[random.below(self.originals.len())].clone();
        (vec![("tokenizer.json".into(), original.into_bytes()), ("tokenizer_config.json".into(), CONFIG.into())], 1)
    }

    fn open(&mut self, folder: &Path) -> eckart::Result<()> {
        Tokenizer::open(folder).map(drop)
    }

    fn try_out(&mut self, folder: &Path) {
        use_tokenizer(&Tokenizer::open(folder).unwrap());
    }

    fn allowance(&self) -> [usize; 2] {
        LIBRARY
    }
}

/// A tokenizer's settings, and the chat template in them or beside them.
pub struct Template;

impl Kind for Template {
    fn files(&self, random: &mut Random) -> (Files, usize) {
        let mut files = vec![("tokenizer_config.json".to_string(), CONFIG.into())];
        if random.below(2) == 0 {
            let beside = "{%- for m in messages %}{{ bos_token + m['role'] }}\n{{ m.content | trim }}{% endfor %}";
            files.push(("chat_template.jinja".into(), beside.into()));
        }
        let damaged = files.len();
        files.push(("tokenizer.json".into(), bytes().into_bytes()));
        (files, damaged)
    }

    fn open(&mut self, folder: &Path) -> eckart::Result<()> {
        Tokenizer::open(folder).map(drop)
    }

    fn try_out(&mut self, folder: &Path) {
        use_tokenizer(&Tokenizer::open(folder).unwrap());
    }
}
