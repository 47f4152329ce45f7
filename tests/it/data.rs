//! Texts of every kind.

use eckart::data::{Corpus, EMBEDDED, Vocabulary};
use std::path::{Path, PathBuf};

fn corpus(text: &[u8]) -> Corpus {
    Corpus::new(text, Path::new("text")).unwrap()
}

#[test]
fn few_characters_are_learnt_by_character_and_the_rest_by_byte() {
    let few = corpus("häßlich häßlich".as_bytes());
    assert_eq!(few.vocabulary.size(), 7);
    let text: String = (0..257).map(|i| char::from_u32(0x4E00 + i).unwrap()).collect();
    assert_eq!(corpus(text.as_bytes()).vocabulary, Vocabulary::Bytes);
    assert_eq!(corpus(&text.as_bytes()[..3 * 256]).vocabulary.size(), 256);
    assert_eq!(corpus(&[0xFF, 0xFE, b'a', 0x80]).vocabulary, Vocabulary::Bytes);
}

#[test]
fn tokens_come_back_as_text() {
    for text in ["häßlich, nicht?", EMBEDDED] {
        let vocabulary = Vocabulary::of(text.as_bytes());
        assert_eq!(vocabulary.decode(&vocabulary.encode(text.as_bytes()).unwrap()), text);
    }
    let unknown = Vocabulary::of(b"abc").encode("abπ".as_bytes()).unwrap_err();
    assert_eq!(unknown.to_string(), "'π' is not among the 3 characters this model knows");
}

#[test]
fn the_last_tenth_is_held_back() {
    let text: Vec<u8> = (0..=99).collect();
    let corpus = corpus(&text);
    assert_eq!(corpus.train, (0..90).collect::<Vec<u32>>());
    assert_eq!(corpus.validation, (90..100).collect::<Vec<u32>>());
}

#[test]
fn what_is_too_short_says_what_would_do() {
    assert!(Corpus::new(b"", Path::new("text")).unwrap_err().to_string().contains("empty"));
    let small = corpus(&[b'a'; 100]);
    assert!(small.check(9, Path::new("text")).is_ok());
    let message = small.check(10, Path::new("text")).unwrap_err().to_string();
    assert!(message.contains("a context of at most 9"), "{message}");
    let message = corpus(b"ab").check(1, Path::new("text")).unwrap_err().to_string();
    assert!(message.contains("at least 20 tokens"), "{message}");
}

#[test]
fn the_built_in_text_is_this_crate() {
    assert!(EMBEDDED.contains("//! Text as tokens, and which tokens each step sees"));
    assert!(EMBEDDED.contains("# Eckart"));
    assert!(EMBEDDED.len() > 100_000);
}

/// Shared data, where there is any: set, a missing file fails; unset, the test is skipped.
fn shared(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ECKART_DATA") else {
        crate::skipped(&format!("ECKART_DATA is not set, and {name} is needed"));
        return None;
    };
    Some(Path::new(&folder).join(name))
}

#[test]
fn shakespeare_has_65_characters() {
    let Some(path) = shared("tinyshakespeare/input.txt") else { return };
    let corpus = corpus(&std::fs::read(path).unwrap());
    assert_eq!(corpus.vocabulary.size(), 65);
    assert_eq!((corpus.train.len(), corpus.validation.len()), (1_003_855, 111_539));
}
