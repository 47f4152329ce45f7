//! What a model expects around texts, found by showing two marks to the file's own rule.

use super::{Framed, library};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{Encoding, PostProcessor, Token};

/// Tokens that no vocabulary reaches, in the place of texts.
const MARKS: [u32; 2] = [u32::MAX - 1, u32::MAX];

/// Tokens around one text and around two.
pub struct Frame {
    /// In front of the text and behind it.
    single: [Vec<u32>; 2],
    /// In front of two texts, between them, behind them.
    pair: [Vec<u32>; 3],
    /// After how many of those between two texts the second segment begins.
    segment: Option<usize>,
}

impl Frame {
    /// What the rule puts around texts: nothing without a rule.
    pub fn of(processor: Option<PostProcessorWrapper>) -> Result<Frame, String> {
        let Some(processor) = processor else {
            return Ok(Frame { single: Default::default(), pair: Default::default(), segment: None });
        };
        let (alone, _) = shown(&processor, 1)?;
        let (both, kinds) = shown(&processor, 2)?;
        let [first, second] = [place(&both, MARKS[0])?, place(&both, MARKS[1])?];
        let only = place(&alone, MARKS[0])?;
        if second < first {
            return Err("its post-processor puts the second text first".into());
        }
        let single = [alone[..only].to_vec(), alone[only + 1..].to_vec()];
        let pair = [both[..first].to_vec(), both[first + 1..second].to_vec(), both[second + 1..].to_vec()];
        // Without tokens around them, texts are told apart by nothing that the model has seen.
        let told_apart = pair.iter().any(|around| !around.is_empty());
        let segment = kinds[first + 1..=second].iter().position(|&kind| kind == 1).filter(|_| told_apart);
        Ok(Frame { single, pair, segment })
    }

    /// What stands in front of a text, and behind it.
    pub fn single(&self) -> &[Vec<u32>; 2] {
        &self.single
    }

    /// One text or two with all around them, in at most `max_length` tokens; none if there is no room at all.
    pub fn around(&self, mut first: Vec<u32>, second: Option<Vec<u32>>, max_length: usize) -> Option<Framed> {
        let around: usize = match second {
            None => self.single.iter().map(Vec::len).sum(),
            Some(_) => self.pair.iter().map(Vec::len).sum(),
        };
        let texts = 1 + second.is_some() as usize;
        let room = max_length.checked_sub(around).filter(|&room| room >= texts)?;
        let Some(mut second) = second else {
            let truncated = first.len() > room;
            first.truncate(room);
            return Some(Framed { ids: [&*self.single[0], &first, &self.single[1]].concat(), second: None, truncated });
        };
        let truncated = first.len() + second.len() > room;
        // The longer one gives way until both are equal.
        let half = room / 2;
        first.truncate(room - second.len().min(half));
        second.truncate(room - first.len());
        let start = self.segment.map(|after| self.pair[0].len() + first.len() + after);
        let ids = [&*self.pair[0], &first, &self.pair[1], &second, &self.pair[2]].concat();
        Some(Framed { ids, second: start, truncated })
    }
}

/// Tokens and segments of what the rule makes of one mark or two.
fn shown(processor: &PostProcessorWrapper, texts: usize) -> Result<(Vec<u32>, Vec<u32>), String> {
    let text = |id| Encoding::from_tokens(vec![Token::new(id, String::new(), (0, 0))], 0);
    let second = (texts == 2).then(|| text(MARKS[1]));
    let encoding = library::guarded(|| processor.process(text(MARKS[0]), second, true))?;
    Ok((encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec()))
}

fn place(ids: &[u32], mark: u32) -> Result<usize, String> {
    let mut places = (0..ids.len()).filter(|&place| ids[place] == mark);
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        _ => Err("its post-processor does not keep each text once".into()),
    }
}
