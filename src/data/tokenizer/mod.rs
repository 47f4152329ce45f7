//! Tokenizers as they come with published models.
//!
//! A folder has `tokenizer.json`, or `vocab.json` with `merges.txt` as GPT-2 was published, or `vocab.txt` as BERT was.
//! Choices, all of them so that tokens are a function of the files and the text alone:
//! * nothing is added around a text, cut off or filled up, whatever the file asks for; what a model expects in front of
//!   a text is [`Tokenizer::begins`], and around texts that are classified, [`Tokenizer::framed`];
//! * special tokens written out in a text become these tokens, since chat templates write them so;
//! * a merge dropout that the file asks for is switched off: it would draw from hidden state;
//! * the clock that a chat template may ask for stands still, see [`Tokenizer::at`].
//!
//! Files are not trusted. What one of them makes the library panic about is an error, and a chain of replacements that
//! could make a text grow beyond all bounds is refused. Patterns with look-around or back references step at most a
//! million times at each place of a text, which is the library's own limit.

mod folder;
mod frame;
mod library;
mod pieces;
mod special;

use super::chat::{Message, Template};
use super::{Framing, Masking};
use crate::error::{Error, Result};
use folder::Folder;
use frame::Frame;
use special::Special;
use std::path::{Path, PathBuf};

pub use pieces::Pieces;

/// Between text and the tokens of a published model.
pub struct Tokenizer {
    library: tokenizers::Tokenizer,
    special: Special,
    frame: Frame,
    template: Option<Template>,
    folder: PathBuf,
    size: usize,
    now: i64,
}

impl Tokenizer {
    /// The tokenizer of a folder, with special tokens and chat template where it has them, or one file alone, a
    /// `tokenizer.json` or a `vocab.txt`, whatever its name before the dot. An error names the file that is missing or
    /// broken.
    pub fn open(folder: &Path) -> Result<Tokenizer> {
        let files = Folder::open(folder)?;
        let (library, processor) = library::load(&files)?;
        let frame = Frame::of(processor).map_err(|problem| files.broken(problem))?;
        let special = Special::of(&files, &library)?;
        let template = files.chat_template()?.map(Template::new);
        let largest = library.get_vocab(true).into_values().max();
        let size = largest.map_or(0, |id| id as usize + 1);
        let clock = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64);
        Ok(Tokenizer { library, special, frame, template, folder: folder.into(), size, now: clock })
    }

    /// The name that a tokenizer's one file has in a model's folder; an error if it can be none.
    pub fn file_name(path: &Path) -> Result<&'static str> {
        Folder::name_of(path)
    }

    /// Lets chat templates that ask for the date see this one, in seconds since 1970 (UTC), and not that of opening.
    pub fn at(mut self, seconds: i64) -> Tokenizer {
        self.now = seconds;
        self
    }

    /// The tokens of a text, nothing added in front or behind.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = |text: &str| library::guarded(|| self.library.encode_fast(text, false));
        let tokens = encoded(text).map(|encoding| encoding.get_ids().to_vec());
        tokens.map_err(|problem| {
            // A vocabulary of characters has no token for others.
            let other = text.chars().find(|character| encoded(&character.to_string()).is_err());
            match other {
                Some(other) => self.failed(&format!("cannot encode {other:?}, which its vocabulary lacks"), problem),
                None => self.failed("cannot encode", problem),
            }
        })
    }

    /// The text of tokens, special ones written out. Numbers that are no token are left out; U+FFFD stands for what is
    /// no text.
    pub fn decode(&self, tokens: &[u32]) -> String {
        // Some decoders count back from the last token.
        if tokens.is_empty() {
            return String::new();
        }
        library::guarded(|| self.library.decode(tokens, false)).unwrap_or_else(|_| '\u{FFFD}'.into())
    }

    /// Decodes tokens one after the other, in complete characters, as those of a text of their own.
    pub fn pieces(&self) -> Pieces<'_> {
        self.pieces_after(&[])
    }

    /// The same for tokens that go on from these, with the space between where there is one.
    pub fn pieces_after(&self, tokens: &[u32]) -> Pieces<'_> {
        Pieces::after(self, tokens)
    }

    /// One more than the largest token, which is how many rows an embedding needs.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The token that stands for the beginning of a text.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// The token that fills up batches.
    pub fn pad(&self) -> Option<u32> {
        self.special.pad
    }

    /// The token for what has none.
    pub fn unk(&self) -> Option<u32> {
        self.special.unk
    }

    /// The token that stands for a hidden one.
    pub fn mask(&self) -> Option<u32> {
        self.special.mask
    }

    /// What an encoder expects around a text, and how it is hidden from it; an error where there is no token for that.
    pub fn framing(&self) -> Result<Framing> {
        let problem = "its tokenizer has no mask token, by which an encoder learns";
        let Some(mask) = self.mask() else {
            return Err(Error::Data { path: self.folder.clone(), problem: problem.into() });
        };
        let around = self.frame.single().clone();
        let special = [&*self.special.all, &around.concat()].concat();
        Ok(Framing { around, masking: Masking::new(mask, &special, self.size) })
    }

    /// Every token that ends what a model writes: [`Tokenizer::eos`] and those of `generation_config.json`, ascending.
    pub fn ends(&self) -> &[u32] {
        &self.special.ends
    }

    /// The token that this model expects in front of every text: the one for its beginning, if the files say that it is
    /// added (`add_bos_token`, else what `tokenizer.json` puts in front), and none otherwise, as with GPT-2.
    pub fn begins(&self) -> Option<u32> {
        let framed = self.special.bos.filter(|&bos| self.frame.single()[0].first() == Some(&bos));
        match self.special.add_bos {
            Some(true) => self.special.bos,
            Some(false) => None,
            None => framed,
        }
    }

    /// One text or two, as a classifier of this kind expects them, in at most `max_length` tokens; of two the longer is
    /// cut first, from its end. With it where the second segment begins, if this kind tells segments apart, and whether
    /// something was cut off.
    pub fn framed(&self, first: &str, second: Option<&str>, max_length: usize) -> Result<Framed> {
        let second = second.map(|text| self.encode(text)).transpose()?;
        let framed = self.frame.around(self.encode(first)?, second, max_length);
        framed.ok_or_else(|| {
            let problem =
                format!("max_length {max_length} has no room for the tokens around a text; take a longer one");
            Error::Config(problem)
        })
    }

    /// Whether there is a chat template.
    pub fn chats(&self) -> bool {
        self.template.is_some()
    }

    /// Messages as the model was taught to read them: its chat template, rendered. `add_generation_prompt` ends the text
    /// where the assistant is to go on. Encode it as it is: the template writes special tokens out.
    pub fn chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let Some(template) = &self.template else {
            let problem = "no chat template in tokenizer_config.json or chat_template.jinja; take data with text, or \
                           with prompt and completion";
            return Err(Error::Data { path: self.folder.clone(), problem: problem.into() });
        };
        let rendered = template.render(messages, add_generation_prompt, &self.special.names, self.now);
        rendered.map_err(|problem| self.failed("chat template", problem))
    }

    fn failed(&self, what: &str, problem: String) -> Error {
        Error::Data { path: self.folder.clone(), problem: format!("{what}: {problem}") }
    }
}

/// What a classifier reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// Tokens, special ones included.
    pub ids: Vec<u32>,
    /// First place of the second segment, where there are two and this kind of model tells them apart.
    pub second: Option<usize>,
    /// Whether the texts were longer.
    pub truncated: bool,
}
