//! Shader texts: the files of `shaders/`, their imports and the names that kernels fill in.

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Line that brings another file's text in, once.
const IMPORT: &str = "//!import ";
/// Lines between which text stands as often as the name says, with `#` for the number of the copy.
const REPEAT: &str = "//!repeat ";
const END: &str = "//!end";

fn file(name: &str) -> &'static str {
    let found = SHADERS.iter().find(|(file, _)| *file == name);
    found.unwrap_or_else(|| panic!("there is no shaders/{name}.wgsl")).1
}

/// The text of a shader with its imports before it and `names` replaced. Parameters are immediates, or a uniform of
/// group 1 where an adapter has none.
pub fn source(name: &str, names: &[(&str, String)], immediates: bool) -> String {
    let mut text = String::new();
    append(name, &mut Vec::new(), &mut text);
    if !immediates {
        text = text.replace("var<immediate>", "@group(1) @binding(0) var<uniform>");
    }
    fill(&repeat(&text, names), names)
}

fn repeat(text: &str, names: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(REPEAT) {
        let (head, tail) = rest[start..].split_once('\n').expect("a repeated part has lines");
        let (body, after) = tail.split_once(END).expect("a repeated part has an end");
        let name = head[REPEAT.len()..].trim();
        let copies = names.iter().find(|(other, _)| *other == name).map_or(1, |(_, n)| n.parse().expect("a number"));
        out.push_str(&rest[..start]);
        (0..copies).for_each(|copy: usize| out.push_str(&body.replace('#', &copy.to_string())));
        rest = after;
    }
    out + rest
}

fn append(name: &str, seen: &mut Vec<String>, text: &mut String) {
    if seen.iter().any(|other| other == name) {
        return;
    }
    seen.push(name.to_owned());
    for import in file(name).lines().filter_map(|line| line.strip_prefix(IMPORT)) {
        append(import.trim(), seen, text);
    }
    text.push_str(file(name));
    text.push('\n');
}

/// Replaces whole words.
fn fill(text: &str, names: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    while let Some(start) = rest.find(of_word) {
        let end = rest[start..].find(|c| !of_word(c)).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        out.push_str(&rest[..start]);
        out.push_str(names.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| value));
        rest = &rest[end..];
    }
    out + rest
}

/// Names of all shaders.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHADERS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_repeated() {
        let names = [("N", "2".to_owned())];
        assert_eq!(repeat("a\n//!repeat N\nb# c#\n//!end\nd", &names), "a\nb0 c0\nb1 c1\n\nd");
    }

    #[test]
    fn whole_words_are_replaced() {
        let names = [("F", "exp".to_owned()), ("N", "4".to_owned())];
        assert_eq!(fill("y = F(x, N, NF, F_N);", &names), "y = exp(x, 4, NF, F_N);");
    }
}
