//! At a full process nobody waits for long while somebody is idle, on whichever reactor, if the listener evicts.

use slipring_core::{Handler, OnFull};

use super::{Doing, Engine, Lane};

/// How long nobody may be let in, nor anybody end, while one waits and another is idle: the reactors ask each other
/// once a second, and one that is closed for another may linger for two.
const PATIENCE_US: u64 = 10_000_000;
/// The same where reactors do not turn for seconds, several times in a row.
const PATIENCE_STALLED_US: u64 = 60_000_000;

/// Somebody who waits while another is idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neglected {
    since_us: u64,
    /// Connections begun and ended by then.
    moves: u64,
}

impl<H: Handler> Engine<H> {
    /// Looks after a turn.
    pub(super) fn check_evicting(&mut self) {
        let Some(what) = self.find_neglected() else {
            self.neglected = None;
            return;
        };
        let now_us = self.now_us();
        let moved = |lane: &Lane<H>| lane.before.accepted + lane.before.closed;
        let moves = self.lanes.iter().map(moved).sum();
        let new = Neglected { since_us: now_us, moves };
        let since = self.neglected.filter(|since| since.moves == moves).unwrap_or(new);
        self.neglected = Some(since);
        let knobs = self.kernel.borrow().knobs;
        let patience_us = match (knobs.stalled_turn, knobs.stalled_reactor) {
            (0, 0) => PATIENCE_US,
            _ => PATIENCE_STALLED_US,
        };
        let waited_us = now_us - since.since_us;
        if waited_us > patience_us {
            self.fail(format!("{what}, for {} ms", waited_us / 1_000));
        }
    }

    fn find_neglected(&self) -> Option<String> {
        self.evicting.iter().find_map(|listener| self.find_neglected_at(*listener))
    }

    fn find_neglected_at(&self, listener: u16) -> Option<String> {
        if !self.admission.is_full(listener) {
            return None;
        }
        let own = self.admission.is_own_full(listener);
        let kernel = self.kernel.borrow();
        let now_ms = kernel.now_us / 1_000;
        let turns = |lane: &Lane<H>| !matches!(lane.doing, Doing::Ended) && !lane.failed;
        let waits = |lane: &Lane<H>| {
            let at = lane.listeners[usize::from(listener)];
            turns(lane) && lane.reactor.is_accepting() && kernel.waiting_at(at) > 0
        };
        let place = self.lanes.iter().position(waits)?;
        let idle = |lane: &Lane<H>| {
            turns(lane) && lane.reactor.longest_idle_ms(own.then_some(listener), now_ms).is_some()
        };
        let other = self.lanes.iter().position(idle)?;
        Some(format!(
            "a client waits at listener {listener} of reactor {place}, and one of reactor {other} is idle"
        ))
    }
}

/// The listeners that evict, as often as somebody waits.
pub(super) fn evicting(plan: &super::Plan) -> Vec<u16> {
    let evicts = |how: &slipring_core::Listen| {
        how.on_full == Some(OnFull::EvictIdle) && how.accept_rate.is_none()
    };
    let numbers = (0..).zip(&plan.listen_as).filter(|(_, how)| evicts(how));
    let numbers = numbers.filter(|_| plan.accept_rate.is_none());
    numbers.map(|(number, _)| number).collect()
}
