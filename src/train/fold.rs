//! One of several parts of what there is to learn, held back in turn.

use crate::error::{Error, Result};
use std::path::Path;

/// Examples to learn from, and examples held back: of `[fold, folds]` every `folds`-th from number `fold` on is held back in
/// the place of `validation`; as they are without. An error where a part would be empty.
pub(super) fn folded<T>(
    train: Vec<T>,
    validation: Vec<T>,
    fold: Option<[usize; 2]>,
    path: &Path,
) -> Result<[Vec<T>; 2]> {
    let Some([fold, folds]) = fold else { return Ok([train, validation]) };
    let (held, kept): (Vec<_>, Vec<_>) = train.into_iter().enumerate().partition(|(number, _)| number % folds == fold);
    if kept.is_empty() || held.is_empty() {
        let problem = format!("has too few examples to hold one of {folds} parts back");
        return Err(Error::Data { path: path.into(), problem });
    }
    Ok([kept, held].map(|part| part.into_iter().map(|(_, example)| example).collect()))
}

#[cfg(test)]
mod tests {
    use super::folded;
    use std::path::Path;

    #[test]
    fn each_example_is_held_back_in_one_part() {
        let of = |fold, count: usize| folded((0..count).collect(), vec![99], fold, Path::new("texts"));
        assert_eq!(of(None, 4).unwrap(), [vec![0, 1, 2, 3], vec![99]]);
        let parts: Vec<[Vec<usize>; 2]> = (0..3).map(|fold| of(Some([fold, 3]), 7).unwrap()).collect();
        let held: Vec<&[usize]> = parts.iter().map(|[_, held]| &**held).collect();
        assert_eq!(held, [&[0, 3, 6][..], &[1, 4], &[2, 5]]);
        assert!(
            parts.iter().all(|[kept, held]| kept.len() + held.len() == 7 && held.iter().all(|n| !kept.contains(n)))
        );
        assert!(of(Some([2, 3]), 2).unwrap_err().to_string().contains("too few examples to hold one of 3 parts back"));
    }
}
