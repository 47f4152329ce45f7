//! Small folders as models are published, for the tests that read them.

use eckart::data::Tokenizer;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

/// Special tokens of [`bytes`]; byte `b` is token `b + 3`.
pub const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// `tokenizer.json` of a tokenizer with one token for each byte, and `<s>` in front of every text.
pub fn bytes() -> String {
    let names = SPECIAL.iter().map(|name| name.to_string()).chain((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let vocabulary: serde_json::Map<_, _> = names.enumerate().map(|(id, name)| (name, json!(id))).collect();
    let added = SPECIAL.iter().enumerate().map(|(id, name)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": []},
    })
    .to_string()
}

/// The tokens of [`bytes`].
pub fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| byte as u32 + 3).collect()
}

/// A folder with these files.
pub fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The tokenizer of [`bytes`] with `<s>`, `</s>` and perhaps a chat template.
pub fn tokenizer(template: Option<&str>) -> Tokenizer {
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template});
    let folder = folder(&[("tokenizer.json", &bytes()), ("tokenizer_config.json", &config.to_string())]);
    Tokenizer::open(folder.path()).unwrap()
}

/// A file as text.
pub fn read(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap()).unwrap()
}
