//! Which layers are meant.

use crate::error::{Error, Result};
use crate::module::{Module, Path};

/// All layers but embeddings and the head.
pub const ALL_LINEAR: &str = "all-linear";

/// What layers that `ALL_LINEAR` leaves out are called.
const TABLES: [&str; 4] = ["wte", "wpe", "embed_tokens", "lm_head"];

/// Whether a name is this path, or the end of it behind a dot, as in PEFT's `target_modules`.
fn means(name: &str, path: &str) -> bool {
    let ends = |name: &str| path == name || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    if name == ALL_LINEAR { !TABLES.into_iter().any(ends) } else { ends(name) }
}

/// Paths of the linear maps that are meant, in the order of the model; an error names what is not there.
pub(super) fn chosen(model: &mut impl Module, names: &[&str]) -> Result<Vec<String>> {
    let all = paths(model);
    for name in names {
        if !all.iter().any(|path| means(name, path)) {
            return Err(Error::Config(format!("there is no layer {name:?}; there are {}", all.join(", "))));
        }
    }
    Ok(all.into_iter().filter(|path| names.iter().any(|name| means(name, path))).collect())
}

/// Paths of all linear maps.
pub(super) fn paths(model: &mut impl Module) -> Vec<String> {
    let mut all = Vec::new();
    model.visit_maps(&Path::root(), &mut |path, _| all.push(path.to_string()));
    all
}

#[cfg(test)]
mod tests {
    use super::means;

    #[test]
    fn names_are_paths_or_their_ends() {
        assert!(means("h.0.attn.c_attn", "h.0.attn.c_attn") && means("c_attn", "h.0.attn.c_attn"));
        assert!(means("attn.c_proj", "h.0.attn.c_proj") && !means("attn.c_proj", "h.0.mlp.c_proj"));
        assert!(!means("attn", "h.0.attn.c_attn") && !means("_attn", "h.0.attn.c_attn"));
        assert!(means("all-linear", "h.0.mlp.c_fc") && !means("all-linear", "model.embed_tokens"));
    }
}
