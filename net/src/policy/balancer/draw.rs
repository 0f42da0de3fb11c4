//! Drawing one by weight, in the same time whatever their number: Walker's alias method.
//!
//! ```text
//!   weights 1, 2, 3: three slots of weight 2, each shared by two at most
//!   [ a . b ] [ b . c ] [ c . . ]     a slot is drawn, and a coin says who of the two
//! ```
//!
//! Why not a sum tree: its logarithm of steps, and nothing gained, for weights change seldom. What changes by the
//! moment, slow start, is done by passing over who was drawn (`asked`).

use super::field::Field;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Below it the coin says `own`, out of 2^32.
    own_below: u32,
    own: u32,
    other: u32,
}

#[derive(Debug)]
pub(super) struct Draw {
    slots: Vec<Slot>,
}

impl Draw {
    pub(super) fn new(field: &Field) -> Self {
        let members = &field.members;
        // In units of which a slot holds the weight of all, and all slots together hold that as often as there are.
        let held = field.weight;
        let weigh = |at: usize| u64::from(members[at].weight) * members.len() as u64;
        let mut left: Vec<u64> = (0..members.len()).map(weigh).collect();
        let own = |at: usize| members[at].endpoint;
        let mut slots: Vec<Slot> = (0..members.len())
            .map(|at| Slot { own_below: u32::MAX, own: own(at), other: own(at) })
            .collect();
        let (mut small, mut big): (Vec<usize>, Vec<usize>) =
            (0..members.len()).partition(|at| left[*at] < held);
        while let (Some(&lacking), Some(&giving)) = (small.last(), big.last()) {
            small.pop();
            slots[lacking].own_below =
                ((u128::from(left[lacking]) << 32) / u128::from(held)) as u32;
            slots[lacking].other = own(giving);
            left[giving] -= held - left[lacking];
            if left[giving] < held {
                big.pop();
                small.push(giving);
            }
        }
        Self { slots }
    }

    /// `None` if there is nobody.
    #[inline]
    pub(super) fn one(&self, rng: &mut fastrand::Rng) -> Option<u32> {
        let random = rng.u64(..);
        let at = ((random >> 32) * self.slots.len() as u64) >> 32;
        let slot = self.slots.get(at as usize)?;
        Some(if (random as u32) < slot.own_below { slot.own } else { slot.other })
    }
}
