//! Which modules a name or a regular expression means, as PEFT has it.

use super::config::Config;
use crate::error::{Error, Result};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What PEFT calls all linear maps but the head.
const ALL_LINEAR: &str = "all-linear";

/// Bytes that a compiled expression may take, and the tables that matching fills.
const COMPILED: usize = 1 << 17;

/// Bytes of an expression: those that it is read from take some hundred each.
const LONGEST: usize = 4096;

/// Pairs of a pattern and a module that are compared.
const MOST_MATCHES: usize = 1 << 26;

/// How `target_modules` and `exclude_modules` name modules.
#[derive(Clone, Debug, PartialEq)]
pub enum Names {
    /// All linear maps but embeddings and the head.
    AllLinear,
    /// Paths, or ends of paths behind a dot.
    List(BTreeSet<String>),
    /// A regular expression for whole paths.
    Pattern(String),
}

/// An expression of Python's, for names of letters that ASCII has: classes are small then. Look-around and references to
/// groups do not exist here, which makes every match take time in proportion to the text.
pub(super) fn compile(pattern: &str) -> Result<Regex> {
    if pattern.len() > LONGEST {
        let (begin, length) = (excerpt(pattern), pattern.len());
        let problem = format!("regular expression {begin:?}… has {length} bytes, at most {LONGEST} are read");
        return Err(Error::Config(format!("{problem}: name the modules in a list")));
    }
    let mut builder = RegexBuilder::new(&flat(pattern));
    builder.unicode(false).size_limit(COMPILED).dfa_size_limit(COMPILED).nest_limit(64);
    builder.build().map_err(|error| {
        let reason = error.to_string();
        let last = reason.lines().last().unwrap_or_default().trim().to_string();
        Error::Config(format!("regular expression {:?}: {last}", excerpt(pattern)))
    })
}

/// The same with classes that mean what they do in Python, where they neither nest nor intersect.
fn flat(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let (mut class, mut escaped) = (false, false);
    for c in pattern.chars() {
        if class && !escaped && "[&~".contains(c) {
            text.push('\\');
        }
        text.push(c);
        class = if escaped { class } else { class && c != ']' || !class && c == '[' };
        escaped = c == '\\' && !escaped;
    }
    text
}

/// The beginning of a text that may be long.
fn excerpt(text: &str) -> String {
    text.chars().take(120).collect()
}

/// An expression that has to match all of a path.
fn whole(pattern: &str) -> Result<Regex> {
    // Compiled by itself first, so that no bracket of it closes ours.
    compile(pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}

/// Whether a name is this path or the end of it behind a dot.
fn ends(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Names {
    /// A string as it stands in a configuration.
    pub(super) fn from_text(text: &str) -> Result<Names> {
        if text.to_lowercase() == ALL_LINEAR {
            return Ok(Names::AllLinear);
        }
        whole(text)?;
        Ok(Names::Pattern(text.into()))
    }

    /// From a command line: `all-linear`, names with commas between them, or else a regular expression.
    pub fn parse(text: &str) -> Result<Names> {
        let name = |c: char| c.is_ascii_alphanumeric() || "_.-,".contains(c);
        if text.to_lowercase() != ALL_LINEAR && text.chars().all(name) {
            return Ok(Names::List(text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()));
        }
        Names::from_text(text)
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Names::AllLinear => false,
            Names::List(names) => names.is_empty(),
            Names::Pattern(pattern) => pattern.is_empty(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Names::AllLinear => json!(ALL_LINEAR),
            Names::List(names) => json!(names),
            Names::Pattern(pattern) => json!(pattern),
        }
    }

    /// For error messages.
    pub(super) fn words(&self) -> String {
        match self {
            Names::AllLinear => ALL_LINEAR.into(),
            Names::List(names) => excerpt(&names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
            Names::Pattern(pattern) => excerpt(pattern),
        }
    }
}

/// A module that could have an adapter.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub module: &'a str,
    /// Neither an embedding nor the head.
    pub inner: bool,
}

/// Which of these modules a configuration gives adapters.
pub(super) fn targets(config: &Config, all: &[Candidate<'_>]) -> Result<Vec<bool>> {
    let excluded = match &config.exclude {
        Some(names) => named(names, all)?,
        None => vec![false; all.len()],
    };
    let whole = inside(&config.whole, all)?;
    let mut found = named(&config.targets, all)?;
    if let (Names::List(names), false) = (&config.targets, config.blocks.is_empty()) {
        let numbers = blocks(config, all)?;
        for (i, candidate) in all.iter().enumerate() {
            let listed = names.contains(candidate.module);
            found[i] &= listed || numbers[i].is_some_and(|number| config.blocks.contains(&number));
        }
    }
    Ok((0..all.len()).map(|i| found[i] && !excluded[i] && !whole[i]).collect())
}

pub(super) fn named(names: &Names, all: &[Candidate<'_>]) -> Result<Vec<bool>> {
    Ok(match names {
        Names::AllLinear => all.iter().map(|candidate| candidate.inner).collect(),
        Names::List(names) => all.iter().map(|one| names.iter().any(|name| ends(one.module, name))).collect(),
        Names::Pattern(pattern) => {
            let expression = whole(pattern)?;
            all.iter().map(|candidate| expression.is_match(candidate.module.as_bytes())).collect()
        }
    })
}

/// Whether modules are, or lie in, some that are trained whole.
fn inside(names: &[String], all: &[Candidate<'_>]) -> Result<Vec<bool>> {
    let mut found = vec![false; all.len()];
    for name in names {
        compile(name)?;
        let expression = compile(&format!(r"\A(?:.*\.)?(?:{name})(?:\..*)?\z"))?;
        all.iter().zip(&mut found).for_each(|(one, found)| *found |= expression.is_match(one.module.as_bytes()));
    }
    Ok(found)
}

/// The number of the block that each module lies in: the first in its path.
fn blocks(config: &Config, all: &[Candidate<'_>]) -> Result<Vec<Option<usize>>> {
    let mut expressions = Vec::new();
    for name in &config.block_names {
        compile(name)?;
        expressions.push(compile(&format!(r"\A(?:|.*?\.)(?:{name})\.(?P<block>\d+)\."))?);
    }
    if expressions.is_empty() {
        expressions.push(compile(r"\A.*?\.[^.]*\.(?P<block>\d+)\.")?);
    }
    let number = |module: &str| {
        let found = expressions.iter().find_map(|one| one.captures(module.as_bytes()))?;
        std::str::from_utf8(&found["block"]).ok()?.parse().ok()
    };
    Ok(all.iter().map(|one| number(one.module)).collect())
}

/// For each module the value of the first pattern that matches its end behind a dot, if one does.
pub(super) fn by_pattern<T: Copy>(patterns: &[(String, T)], modules: &[&str]) -> Result<Vec<Option<T>>> {
    if patterns.len().saturating_mul(modules.len()) > MOST_MATCHES {
        let sizes = format!("{} patterns of ranks or alphas for {} modules", patterns.len(), modules.len());
        return Err(Error::Config(format!("{sizes}: more than {MOST_MATCHES} pairs are not compared")));
    }
    let mut found = vec![None; modules.len()];
    // One expression at a time: a file may have many.
    for (pattern, value) in patterns {
        compile(pattern)?;
        let expression = compile(&format!(r"\A(?:.*\.)?(?:{pattern})\z"))?;
        for (module, found) in modules.iter().zip(&mut found) {
            if found.is_none() && expression.is_match(module.as_bytes()) {
                *found = Some(*value);
            }
        }
    }
    Ok(found)
}

/// A pattern that means this module alone.
pub(super) fn exactly(module: &str) -> String {
    format!("^{}", regex::escape(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: [&str; 6] = [
        "transformer.wte",
        "transformer.h.1.attn.c_attn",
        "transformer.h.1.attn.c_proj",
        "transformer.h.1.mlp.c_proj",
        "transformer.h.11.mlp.c_proj",
        "lm_head",
    ];

    fn all() -> Vec<Candidate<'static>> {
        let inner = |module: &str| !module.ends_with("wte") && module != "lm_head";
        MODULES.iter().map(|module| Candidate { module, inner: inner(module) }).collect()
    }

    fn chosen(text: &str) -> Vec<usize> {
        let found = named(&Names::parse(text).unwrap(), &all()).unwrap();
        (0..MODULES.len()).filter(|i| found[*i]).collect()
    }

    #[test]
    fn names_lists_and_expressions() {
        assert_eq!(chosen("all-linear"), [1, 2, 3, 4]);
        assert_eq!(chosen("All-Linear"), [1, 2, 3, 4]);
        assert_eq!(chosen("c_proj"), [2, 3, 4]);
        assert_eq!(chosen("attn.c_proj,wte"), [0, 2]);
        assert_eq!(chosen("proj,attn"), [0_usize; 0], "ends of paths begin behind a dot");
        assert_eq!(chosen(r".*\.1\..*c_(attn|proj)"), [1, 2, 3]);
        assert_eq!(chosen(r".*\.1\.(attn|mlp)"), [0_usize; 0], "all of a path has to match");
        assert_eq!(chosen("wte|lm_head|transformer.wte"), [0, 5], "alternatives are of the whole path");
    }

    #[test]
    fn the_first_pattern_counts_and_exact_ones_are_unique() {
        let patterns = [("c_proj".to_string(), 1), ("attn.c_.*".into(), 2), (r"^mlp\.c_proj".into(), 3)];
        assert_eq!(by_pattern(&patterns, &MODULES).unwrap(), [None, Some(2), Some(1), Some(1), Some(1), None]);
        for (i, module) in MODULES.iter().enumerate() {
            let found = by_pattern(&[(exactly(module), 0)], &MODULES).unwrap();
            assert!((0..MODULES.len()).all(|j| found[j].is_some() == (i == j)), "{module}");
        }
    }

    #[test]
    fn classes_are_those_of_python() {
        let means = |pattern: &str, text: &str| whole(pattern).unwrap().is_match(text.as_bytes());
        assert!(means("[[a]b", "[b") && means("[[a]b", "ab") && means("[a&&b]", "&") && means("[a&&b]", "a"));
        assert!(means(r"[\]a]+", "]a") && means(r"\[a]", "[a]") && means(r"[q-v]_proj", "r_proj"));
        assert!(!means("[^[]", "[") && means(r"\\[[]", r"\["));
    }

    /// As long as those that trainers write for models of several parts.
    #[test]
    fn long_expressions_fit() {
        let part = |block: &str| {
            format!(
                r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?
                (?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)|(?:\b{block}\.layers\.[\d]{{1,}}\.
                (?:self_attn|attention|attn|mlp)\.(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))"
            )
        };
        let text = ["model", "model.language_model", "decoder"].map(part).join("|").replace(['\n', ' '], "");
        assert!(whole(&text).unwrap().is_match(b"model.layers.17.self_attn.q_proj"), "{text}");
        assert!(!whole(&text).unwrap().is_match(b"model.layers.x.self_attn.q_proj"));
    }

    #[test]
    fn expressions_that_cannot_be_are_refused() {
        for bad in ["(", "a)(b", "(?=a)b", r"(a)\1", "(((((a{99}){99}){99}){99}){99})", "[z-a]"] {
            let error = Names::from_text(bad).unwrap_err().to_string();
            assert!(error.starts_with("regular expression") && !error.contains('\n'), "{error}");
        }
    }
}
