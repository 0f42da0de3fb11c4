//! The end of a simulation: everybody leaves in order, and nothing may be left behind.
//!
//! ```text
//!   scripts of clients --> peers leave --> connections end by themselves --> drain --> nothing is left
//! ```

use std::time::Duration;

use slipring_core::Handler;

use super::{Failure, Sim};
use crate::knobs::Knobs;
use crate::peer::Cast;

/// How long connections have to end by themselves once their peers have, before a drain asks them to,
/// microseconds. Less than any timeout that ends them instead, by default.
const PARTING_US: u64 = 5_000_000;
/// How much longer than it may a drain is waited for, and what is under way after it, microseconds.
const SLACK_US: u64 = 10_000_000;

impl<H: Handler> Sim<H> {
    /// Ends the simulation in order: the scripts of all peers that connect are played to their
    /// ends, the faults are off, peers leave, the reactors drain. Then nothing may be left: no
    /// connection, no buffer, no operation under way, and no script of a service that was not met.
    ///
    /// A connection that is open five seconds after its peer has ended its stream is a failure: the handler
    /// forgot it, unless
    /// [`tolerate_lingering`](crate::SimBuilder::tolerate_lingering) says that it may stay.
    ///
    /// # Panics
    /// With a [`Failure`], as [`run`](Self::run) does, or because something is left behind.
    #[track_caller]
    pub fn finish(&mut self) {
        if let Err(failure) = self.try_finish() {
            panic!("{failure}");
        }
    }

    /// [`finish`](Self::finish), with the failure as a value.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn try_finish(&mut self) -> Result<(), Failure> {
        self.try_scripts(Cast::are_clients_at_rest)?;
        {
            let mut kernel = self.engine.kernel.borrow_mut();
            kernel.knobs = Knobs::calm();
            kernel.whole_segments = true;
        }
        self.cast.borrow_mut().shared.closing = true;
        self.engine.nudge_actors();
        let until_us = self.engine.now_us() + PARTING_US;
        // One that has just connected may still have to be accepted.
        let clients = self.cast.borrow().connected_clients();
        let accepted = |sim: &Self| sim.engine.counters().map(|c| c.accepted).sum::<u64>();
        let goes_on = |sim: &Self| sim.open_connections() > 0 || accepted(sim) < clients;
        while goes_on(self) && self.step(until_us)? {}
        self.look_for_lingering()?;
        self.engine.order_drain();
        let drain_us = u64::from(self.plan.drain_ms) * 1000;
        let until_us = self.engine.now_us().saturating_add(drain_us + SLACK_US);
        while !self.engine.is_over() && self.step(until_us)? {}
        if !self.engine.is_over() {
            return self.fail("the drain does not end by its deadline".to_owned());
        }
        // What is under way to peers arrives.
        let until_us = self.engine.now_us() + SLACK_US;
        while self.step(until_us)? {}
        self.engine.check_end();
        self.look_for_failure()?;
        if !self.cast.borrow().is_at_rest() {
            let waiting = self.cast.borrow().waiting();
            return self.fail(format!("the reactors have ended, but:\n  {waiting}"));
        }
        Ok(())
    }

    /// Peers have left: a connection that goes on has been forgotten.
    fn look_for_lingering(&mut self) -> Result<(), Failure> {
        if self.tolerates_lingering {
            return Ok(());
        }
        let open = self.open_parties();
        let lingering = self.cast.borrow().left_behind(&self.engine.kernel.borrow(), &open);
        if lingering.is_empty() {
            return Ok(());
        }
        let span = Duration::from_micros(PARTING_US);
        self.fail(format!("still open {span:?} after the end of its peer: {lingering:?}"))
    }
}
