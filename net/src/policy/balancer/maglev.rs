//! Consistent hashing by a table: Maglev's (Eisenbud and others, 2016, section 3.4), with weights.
//!
//! ```text
//!   hash --> slot of 65537 --> endpoint; if that is avoided, or carries too much: the next slot's, and so on
//! ```
//!
//! Each endpoint has an order of its own in which it wants slots, from its identity and the seed alone. They take
//! turns, heavier ones more of them, and each takes the first of its order that is free. When one goes, its slots fall
//! to others, and few besides change hands; who is there under which number plays no part.
//!
//! Why not a ring of points: it spreads as evenly only with many hundred points an endpoint, and a look-up is a search.
//!
//! *Turns by class*: endpoints of one weight have their turns at the same time, so a round costs the number of
//! different weights, 256 at most, and not of endpoints. All rounds together are in proportion to the table.

use super::asked::{Asked, WHOLE};
use super::endpoints::WEIGHT_MAX;
use super::field::{Field, Member};

/// Slots: a prime, so that every step walks through all of them.
const SLOTS: u32 = 65_537;
/// Slots looked at until the field is walked.
const STEPS_MAX: u32 = 64;

#[derive(Debug)]
pub(super) struct Maglev {
    /// The number of its endpoint, each. Empty if there is nobody.
    slots: Vec<u32>,
}

/// One's order of slots, as far as it has come.
struct Order {
    endpoint: u32,
    at: u32,
    step: u32,
}

impl Order {
    fn new(member: &Member, seed: u64) -> Self {
        let first = mix(member.identity ^ seed);
        let second = mix(first);
        let at = reduce(first, SLOTS);
        Self { endpoint: member.endpoint, at, step: 1 + reduce(second, SLOTS - 1) }
    }

    /// The slot that it wants now; then the next.
    #[inline]
    fn next(&mut self) -> u32 {
        let wanted = self.at;
        self.at += self.step;
        if self.at >= SLOTS {
            self.at -= SLOTS;
        }
        wanted
    }
}

impl Maglev {
    pub(super) fn new(field: &Field, seed: u64) -> Self {
        let mut members = field.members.clone();
        // Whose turn is first must not hang on numbers, which are given anew.
        let rank = |member: &Member| {
            (WEIGHT_MAX - member.weight.min(WEIGHT_MAX), mix(member.identity ^ seed))
        };
        members.sort_by_cached_key(|member| (rank(member), member.endpoint));
        let Some(heaviest) = members.first().map(|member| member.weight) else {
            return Self { slots: Vec::new() };
        };
        let mut classes: Vec<(u32, u32, Vec<Order>)> = Vec::new();
        for member in &members {
            if classes.last().is_none_or(|(weight, ..)| *weight != member.weight) {
                classes.push((member.weight, 0, Vec::new()));
            }
            let (.., orders) = classes.last_mut().expect("one was just put there");
            orders.push(Order::new(member, seed));
        }

        let mut slots = vec![0; SLOTS as usize];
        let mut taken = vec![0u64; SLOTS as usize / 64 + 1];
        let mut free = SLOTS;
        loop {
            for (weight, saved, orders) in &mut classes {
                *saved += *weight;
                if *saved < heaviest {
                    continue;
                }
                *saved -= heaviest;
                for order in orders {
                    let slot = loop {
                        let wanted = order.next();
                        let (word, bit) = (&mut taken[wanted as usize / 64], 1 << (wanted % 64));
                        if *word & bit == 0 {
                            *word |= bit;
                            break wanted;
                        }
                    };
                    slots[slot as usize] = order.endpoint;
                    free -= 1;
                    if free == 0 {
                        return Self { slots };
                    }
                }
            }
        }
    }

    /// By a hash that is mixed already.
    pub(super) fn pick(&self, asked: &Asked<'_>, hash: u64) -> Option<u32> {
        let slot = reduce(hash, SLOTS) as usize;
        for step in 0..STEPS_MAX as usize {
            let endpoint = *self.slots.get((slot + step) % SLOTS as usize)?;
            if asked.is_avoided(endpoint) || asked.is_over(endpoint) {
                continue;
            }
            // A coin that falls the same for a key and an endpoint each time, and from some moment on the other way.
            let parts = asked.parts(endpoint);
            if parts == WHOLE
                || reduce(mix(hash ^ asked.endpoints.identity(endpoint)), WHOLE) < parts
            {
                return Some(endpoint);
            }
        }
        asked.walk(reduce(hash, asked.field.members.len() as u32) as usize, super::NOBODY)
    }
}

/// Bits of which each depends on all of `bits`: the last steps of splitmix64.
#[inline]
pub(super) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// One of `0..below`, from mixed bits.
#[inline]
fn reduce(bits: u64, below: u32) -> u32 {
    ((u128::from(bits) * u128::from(below)) >> 64) as u32
}

#[cfg(test)]
mod tests;
