//! What a model is given.

use crate::tensor::Tensor;

/// Tokens, and what belongs to them. Tokens alone are made it by `into`: that is all a causal language model needs, whose
/// rows may be filled up behind a text without its noticing.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Tokens, [batch, time] u32.
    pub ids: Tensor,
    /// Which segment each token is in, [batch, time] u32, for encoders; all are in the first if none.
    pub segments: Option<Tensor>,
    /// 1 for tokens and 0 where rows are filled up, [batch, time] u32: what an encoder's attention sees; all if none.
    pub mask: Option<Tensor>,
    /// The states that the head is given, as places b · time + t, `[places]` u32. If none, a language model's head has all,
    /// an encoder's classifier the first of each row, and another classifier the last.
    pub places: Option<Tensor>,
}

impl From<&Tensor> for Inputs {
    fn from(ids: &Tensor) -> Inputs {
        Inputs { ids: ids.clone(), segments: None, mask: None, places: None }
    }
}

impl From<&Inputs> for Inputs {
    fn from(inputs: &Inputs) -> Inputs {
        inputs.clone()
    }
}

/// Which states a head reads of each row.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reads {
    All,
    First,
    Last,
}

impl Inputs {
    /// What the head is given of states [batch, time, width]: [places, width], or without places [batch, width], or all.
    #[track_caller]
    pub(super) fn of(&self, states: Tensor, reads: Reads) -> Tensor {
        let [batch, time, width] = states.shape()[..] else { panic!("states {:?} have no rows", states.shape()) };
        let row = |t: usize| states.slice(1, t, 1).reshape([batch, width]);
        match (&self.places, reads) {
            (Some(places), _) => states.reshape([batch * time, width]).gather(places),
            (None, Reads::All) => states,
            (None, Reads::First) => row(0),
            (None, Reads::Last) => row(time - 1),
        }
    }

    /// The mask as attention takes it, [batch, 1, 1, time].
    pub(super) fn visible(&self) -> Option<Tensor> {
        let [batch, time] = self.ids.shape()[..] else { panic!("tokens {:?} are not [batch, time]", self.ids.shape()) };
        self.mask.as_ref().map(|mask| mask.reshape([batch, 1, 1, time]))
    }
}
