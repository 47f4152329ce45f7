//! What is learnt from, one piece at a time.

/// A text as tokens, and from where on it is to be learnt. The first token is never a target, since nothing foretells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Tokens; a model reads all but the last.
    pub ids: Vec<u32>,
    /// The first token that counts as a target, at least 1.
    pub learnt_from: usize,
}

impl Example {
    /// A text of which everything is learnt.
    pub fn whole(ids: Vec<u32>) -> Example {
        Example { ids, learnt_from: 1 }
    }

    /// How many targets count.
    pub fn counted(&self) -> usize {
        self.ids.len().saturating_sub(self.learnt_from.max(1))
    }
}

/// Cuts a long text into windows of at most `max_length` tokens, the last shorter. With `bos` each is this token and then
/// `max_length - 1` of the text, so that every token of the text is a target once. Without, each begins with the last
/// token of the one before, so that every token but the first is.
///
/// Panics if `max_length` is below 2.
#[track_caller]
pub fn windows(text: &[u32], bos: Option<u32>, max_length: usize) -> Vec<Example> {
    assert!(max_length >= 2, "windows of {max_length} tokens have no target");
    let step = max_length - 1;
    let Some(bos) = bos else {
        let starts = (0..text.len().saturating_sub(1)).step_by(step);
        return starts.map(|start| Example::whole(text[start..text.len().min(start + max_length)].to_vec())).collect();
    };
    let window = |piece: &[u32]| Example::whole(std::iter::once(bos).chain(piece.iter().copied()).collect());
    text.chunks(step).map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_a_target_once() {
        for length in 0..40 {
            let text: Vec<u32> = (100..100 + length).collect();
            for max_length in 2..9 {
                let targets =
                    |windows: &[Example]| windows.iter().flat_map(|w| w.ids[1..].to_vec()).collect::<Vec<u32>>();
                let led = windows(&text, Some(1), max_length);
                assert_eq!(targets(&led), text);
                assert!(led.iter().all(|window| window.ids[0] == 1 && (2..=max_length).contains(&window.ids.len())));
                let bare = windows(&text, None, max_length);
                assert_eq!(targets(&bare), text.get(1..).unwrap_or_default());
                assert!(bare.iter().all(|window| (2..=max_length).contains(&window.ids.len())));
                assert_eq!(bare.iter().map(Example::counted).sum::<usize>(), text.len().saturating_sub(1));
            }
        }
    }
}
