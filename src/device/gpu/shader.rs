//! Shader texts: the files of `shaders/`, their imports and the names that kernels fill in.

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Line that brings another file's text in, once.
const IMPORT: &str = "//!import ";

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
    fill(&text, names)
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
    fn whole_words_are_replaced() {
        let names = [("F", "exp".to_owned()), ("N", "4".to_owned())];
        assert_eq!(fill("y = F(x, N, NF, F_N);", &names), "y = exp(x, 4, NF, F_N);");
    }
}
