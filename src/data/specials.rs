//! Special tokens of an encoder whose vocabulary is made from its text.

use super::{Framing, Masking};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Special tokens that stand before a vocabulary's own, for an encoder.
#[derive(Debug)]
pub struct Specials {
    /// Their texts, from token 0 on.
    pub names: [&'static str; 5],
    /// The one in front of a text.
    first: &'static str,
    /// The one behind a text.
    last: &'static str,
    /// The one for what is hidden.
    mask: &'static str,
    pub(super) unknown: &'static str,
    padding: &'static str,
    /// How many stand between two texts, and the second's segment.
    between: usize,
    segment: u32,
}

impl Specials {
    /// As BERT has them.
    pub const BERT: Specials = Specials {
        names: ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        first: "[CLS]",
        last: "[SEP]",
        mask: "[MASK]",
        unknown: "[UNK]",
        padding: "[PAD]",
        between: 1,
        segment: 1,
    };

    /// As RoBERTa has them.
    pub const ROBERTA: Specials = Specials {
        names: ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        first: "<s>",
        last: "</s>",
        mask: "<mask>",
        unknown: "<unk>",
        padding: "<pad>",
        between: 2,
        segment: 0,
    };

    fn number(&self, name: &str) -> u32 {
        self.names.iter().position(|one| *one == name).expect("one of them") as u32
    }

    /// What stands around a text of `vocabulary` tokens, these among them, and how it is hidden.
    pub fn framing(&self, vocabulary: usize) -> Framing {
        let around = [self.first, self.last].map(|name| vec![self.number(name)]);
        Framing { around, masking: Masking::new(self.number(self.mask), &[0, 1, 2, 3, 4], vocabulary) }
    }

    /// What other programs call them, for `tokenizer_config.json`.
    pub fn roles(&self) -> [(&'static str, &'static str); 5] {
        let Specials { first, last, mask, unknown, padding, .. } = self;
        [
            ("cls_token", first),
            ("sep_token", last),
            ("mask_token", mask),
            ("unk_token", unknown),
            ("pad_token", padding),
        ]
    }

    /// Entries of a `tokenizer.json`.
    pub(super) fn added(&self) -> Vec<Value> {
        let flags =
            json!({"single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
        let token = |(id, name): (usize, &&str)| {
            let mut token = json!({"id": id, "content": name});
            token.as_object_mut().expect("an object").extend(flags.as_object().expect("an object").clone());
            token
        };
        self.names.iter().enumerate().map(token).collect()
    }

    /// What a `tokenizer.json` puts around one text and around two.
    pub(super) fn frame(&self) -> Value {
        let special = |name: &str, segment: u32| json!({"SpecialToken": {"id": name, "type_id": segment}});
        let text = |name: &str, segment: u32| json!({"Sequence": {"id": name, "type_id": segment}});
        let single = vec![special(self.first, 0), text("A", 0), special(self.last, 0)];
        let mut pair = single[..2].to_vec();
        pair.extend(vec![special(self.last, 0); self.between]);
        pair.extend([text("B", self.segment), special(self.last, self.segment)]);
        let known = |name: &'static str| (name, json!({"id": name, "ids": [self.number(name)], "tokens": [name]}));
        let tokens: BTreeMap<&str, Value> = [known(self.first), known(self.last)].into();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
    }
}
