//! Smooth weighted round robin: in turn, each as often in a cycle as its weight says.
//!
//! ```text
//!   weights 5, 1, 1    a at .1 .3 .5 .7 .9, b at .25, c at .75 of the cycle:   a b a a a c a
//! ```
//!
//! nginx adds all weights to all for each pick. Here each has places in the cycle, as many as its weight, evenly
//! spaced, and a heap says whose place is next: a logarithm of their number. Endpoints of one weight have their places
//! between each other's.
//!
//! What is promised, as long as nothing changes and nobody is passed over:
//! * In a cycle, each is picked exactly as often as its weight says.
//! * Nobody is picked twice in a row, also from one cycle to the next, unless one weighs more than all the others:
//!   whose place is next waits if it was last, and whoever has more than half of what is left of the cycle goes first.
//!   By this nobody is ever left with more than can be kept apart.
//!
//! It starts at a random place of a cycle: else the heaviest would get a call of each reactor at each change.
//!
//! Who is avoided keeps its turn until the end of the cycle. Who carries too much or starts slowly loses it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::asked::{Asked, NOBODY, PASSES_MAX, WHOLE};
use super::endpoints::WEIGHT_MAX;
use super::field::Field;

/// A cycle, in the unit of places times weights.
const CYCLE: u64 = 1 << 40;

/// One's share of the cycle.
#[derive(Debug)]
struct Turns {
    endpoint: u32,
    weight: u32,
    /// How often it is still to be picked in this cycle.
    left: u32,
    /// Where its first place is, of `CYCLE / weight`.
    phase: u64,
    /// Parts of a turn that it has saved while it starts slowly.
    saved: u32,
}

impl Turns {
    /// Of its turns, those that come before a moment of the cycle.
    fn before(&self, moment: u64) -> u32 {
        let passed = (moment * u64::from(self.weight)).saturating_sub(self.phase).div_ceil(CYCLE);
        (passed as u32).min(self.weight)
    }

    /// Where its place is, of so many before it.
    fn place(&self, before: u64) -> u64 {
        (before * CYCLE + self.phase) / u64::from(self.weight)
    }

    /// Where its next place is.
    fn next(&self) -> u64 {
        self.place(u64::from(self.weight - self.left))
    }
}

/// A place in the cycle, and whose: the index of its turns. Of two at the same, the heavier one's comes first.
type Place = (u64, u32);

#[derive(Debug)]
pub(super) struct Rotation {
    /// Heavier ones first.
    turns: Vec<Turns>,
    /// The next place of each that has turns left.
    line: BinaryHeap<Reverse<Place>>,
    /// Taken out of the line for the moment.
    aside: Vec<Place>,
    /// Picks left in this cycle.
    left: u64,
    /// How many have so many turns left.
    by_left: Vec<u32>,
    /// The most that anyone has left.
    most: u32,
    /// Who was picked last; `NOBODY` at first.
    last: u32,
    /// The heaviest weighs more than all others together.
    has_dominant: bool,
    is_fresh: bool,
}

impl Rotation {
    pub(super) fn new(field: &Field) -> Self {
        let mut turns: Vec<Turns> = field
            .members
            .iter()
            .map(|member| {
                let (endpoint, weight) = (member.endpoint, member.weight.clamp(1, WEIGHT_MAX));
                Turns { endpoint, weight, left: 0, phase: 0, saved: 0 }
            })
            .collect();
        turns.sort_by_key(|turns| Reverse(turns.weight));
        for class in turns.chunk_by_mut(|one, next| one.weight == next.weight) {
            let spaces = 2 * class.len() as u64;
            for (at, turns) in class.iter_mut().enumerate() {
                turns.phase = CYCLE / spaces * (2 * at as u64 + 1);
            }
        }
        let heaviest = turns.first().map_or(0, |turns| u64::from(turns.weight));
        let (line, aside) =
            (BinaryHeap::with_capacity(turns.len()), Vec::with_capacity(turns.len()));
        Self {
            line,
            aside,
            left: 0,
            by_left: vec![0; WEIGHT_MAX as usize + 1],
            most: 0,
            last: NOBODY,
            has_dominant: 2 * heaviest > field.weight,
            is_fresh: true,
            turns,
        }
    }

    /// Of what grows and shrinks with the picks.
    #[cfg(test)]
    pub(super) fn capacities(&self) -> (usize, usize) {
        (self.line.capacity(), self.aside.capacity())
    }

    /// The endpoint whose turn it is; `None` if all are to be avoided.
    pub(super) fn next(&mut self, asked: &Asked<'_>, rng: &mut fastrand::Rng) -> Option<u32> {
        if self.is_fresh {
            self.is_fresh = false;
            self.begin(self.any_place(rng));
        }
        let mut passes = 0;
        let mut has_begun = false;
        loop {
            let Some(turn) = self.take(asked) else {
                // What is left of the cycle is for those that are avoided. A whole one has a turn of everybody.
                if has_begun {
                    return None;
                }
                has_begun = true;
                self.begin((0, 0));
                continue;
            };
            has_begun = false;
            let turns = &mut self.turns[turn as usize];
            passes += 1;
            if asked.is_over(turns.endpoint) {
                if passes <= PASSES_MAX {
                    continue;
                }
                return asked.walk(rng.usize(..asked.field.members.len()), NOBODY);
            }
            if passes <= PASSES_MAX {
                turns.saved += asked.parts(turns.endpoint);
                if turns.saved < WHOLE {
                    continue;
                }
                turns.saved -= WHOLE;
            }
            self.last = turn;
            return Some(turns.endpoint);
        }
    }

    /// A place of the cycle: of each endpoint as likely as it has places.
    fn any_place(&self, rng: &mut fastrand::Rng) -> Place {
        let all: u64 = self.turns.iter().map(|turns| u64::from(turns.weight)).sum();
        let mut drawn = rng.u64(..all.max(1));
        for (turn, turns) in (0..).zip(&self.turns) {
            if drawn < u64::from(turns.weight) {
                return (turns.place(drawn), turn);
            }
            drawn -= u64::from(turns.weight);
        }
        (0, 0)
    }

    /// Begins a cycle, at a place of it.
    fn begin(&mut self, first: Place) {
        self.line.clear();
        self.by_left.fill(0);
        (self.left, self.most) = (0, 0);
        for (turn, turns) in (0..).zip(&mut self.turns) {
            // Of those at the same moment, the heavier ones have been there.
            let moment = first.0 + u64::from(turn < first.1);
            turns.left = turns.weight - turns.before(moment);
            self.left += u64::from(turns.left);
            self.by_left[turns.left as usize] += 1;
            self.most = self.most.max(turns.left);
            if turns.left > 0 {
                self.line.push(Reverse((turns.next(), turn)));
            }
        }
    }

    /// Takes the next turn of this cycle that is not of one to be avoided.
    fn take(&mut self, asked: &Asked<'_>) -> Option<u32> {
        let is_urgent = self.is_one_urgent();
        let mut found = None;
        while let Some(Reverse(place)) = self.line.pop() {
            let turns = &self.turns[place.1 as usize];
            let has_to_wait = place.1 == self.last && !(self.has_dominant && place.1 == 0)
                || is_urgent && turns.left != self.most;
            if asked.is_avoided(turns.endpoint) || has_to_wait {
                self.aside.push(place);
            } else {
                found = Some(place.1);
                break;
            }
        }
        let found = found.or_else(|| self.take_aside(asked));
        for place in self.aside.drain(..) {
            self.line.push(Reverse(place));
        }
        let turn = found?;
        self.count(turn);
        Some(turn)
    }

    /// Someone has more than half of what is left, and not because it weighs more than all others.
    fn is_one_urgent(&self) -> bool {
        let is_dominant = self.has_dominant && self.turns[0].left == self.most;
        2 * u64::from(self.most) > self.left && !is_dominant
    }

    /// Nobody else is left: the first of those set aside who is not avoided, rather not the last one picked.
    fn take_aside(&mut self, asked: &Asked<'_>) -> Option<u32> {
        let will_do = |place: &Place| !asked.is_avoided(self.turns[place.1 as usize].endpoint);
        let other = self.aside.iter().position(|place| will_do(place) && place.1 != self.last);
        let at = other.or_else(|| self.aside.iter().position(will_do))?;
        Some(self.aside.remove(at).1)
    }

    /// A turn that was taken out of the line is used.
    fn count(&mut self, turn: u32) {
        let turns = &mut self.turns[turn as usize];
        self.by_left[turns.left as usize] -= 1;
        turns.left -= 1;
        self.by_left[turns.left as usize] += 1;
        self.left -= 1;
        while self.most > 0 && self.by_left[self.most as usize] == 0 {
            self.most -= 1;
        }
        if turns.left > 0 {
            self.line.push(Reverse((turns.next(), turn)));
        }
    }
}

#[cfg(test)]
mod tests;
