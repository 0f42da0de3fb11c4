//! Back-pressure between connections: who is held back for whose outbox.
//!
//! When bytes that came from A fill the outbox of B above its watermark, A is held back for B; when B's outbox
//! is low again, or B ends, A goes on. Any number may feed one outbox, and one may feed any number: it goes on
//! when none of them holds it back any more. So an outbox comes to its watermark and, for each that feeds it,
//! what that one had been delivered already; never to more, however many there are.

use std::collections::{BTreeMap, VecDeque};

use super::Connections;
use super::stalled::forget_the_dead;
use crate::canary::{Canary, sings};
use crate::connection::Pause;
use crate::token::Key;

/// For whose outbox, and who is held back for it: each once. Only of those that are high: few.
pub(crate) type Feeders = BTreeMap<Key, VecDeque<Key>>;

impl<S> Connections<S> {
    /// `to` has an outbox that is high: `from`, which fills it, waits.
    #[cold]
    pub(super) fn hold_back(&mut self, from: Key, to: Key) {
        let Some(feeder) = self.slots.get_mut(from) else { return };
        let feeders = self.feeders.entry(to).or_default();
        // Whoever is held back by nobody need not be looked for.
        if feeder.held_by > 0 && feeders.contains(&from) {
            return;
        }
        feeder.held_by += 1;
        feeder.connection.pause(Pause::Outbox);
        forget_the_dead(feeders, &self.slots);
        if sings(Canary::FeederReplaced) {
            let before = std::mem::take(feeders);
            self.release_all(before);
        }
        let feeders = self.feeders.entry(to).or_default();
        feeders.push_back(from);
        if let Some(target) = self.slots.get_mut(to) {
            target.holds_others = true;
        }
        self.mark_dirty(from);
    }

    /// The outbox of `to` is low, or will never be: who was held back for it goes on.
    #[cold]
    pub(super) fn let_go(&mut self, to: Key) {
        if let Some(target) = self.slots.get_mut(to) {
            target.holds_others = false;
        }
        let feeders = self.feeders.remove(&to).unwrap_or_default();
        self.release_all(feeders);
    }

    fn release_all(&mut self, feeders: VecDeque<Key>) {
        for key in feeders {
            let Some(feeder) = self.slots.get_mut(key) else { continue };
            feeder.held_by -= 1;
            if feeder.held_by == 0 {
                feeder.connection.resume(Pause::Outbox);
                self.mark_dirty(key);
            }
        }
    }
}
