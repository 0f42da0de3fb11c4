//! Looks whether every reactor turns.
//!
//! A handler that blocks holds up all connections of its reactor. Nothing can be done for those, but the reactor
//! is named, with the callback that it is in and the connection which that is called for, and nobody else has to
//! wait: whoever notices says so to all ([`Loads`](crate::loads::Loads)), and the others
//! take what is in its mailbox, and accept the clients that come to its listeners, until it turns again.
//!
//! It also tells how busy each is, which placement asks.
//!
//! Not a part of any reactor, since it has to run while they do not: a thread of its own looks ten times a second
//! at one word of each. It holds nothing and decides nothing about connections.

use std::fmt;
use std::sync::Arc;

use crate::admission::Admission;
use crate::calling::Call;
use crate::front::Front;
use crate::loads::Business;

/// A reactor that is in one turn for this long has stalled, microseconds.
pub const STALL_US: u64 = 1_000_000;
/// How often somebody should look, microseconds.
pub const LOOK_US: u64 = 100_000;

/// A reactor that does not turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Its number.
    pub reactor: usize,
    /// For how long it has been in its turn, microseconds.
    pub for_us: u64,
    /// The callback that it is in. None if that has just ended, or if something else than a handler holds it up.
    pub call: Option<Call>,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reactor, seconds) = (self.reactor, self.for_us as f64 / 1e6);
        write!(f, "reactor {reactor} has not turned for {seconds:.1} s: ")?;
        match self.call {
            Some(call) => write!(f, "{call}"),
            None => f.write_str("it is in no callback of its handler"),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Watch {
    front: Arc<Front>,
    admission: Arc<Admission>,
    business: Vec<Business>,
}

impl Watch {
    pub(super) fn new(front: Arc<Front>, admission: Arc<Admission>) -> Self {
        let business = vec![Business::default(); front.loads().reactors()];
        Self { front, admission, business }
    }

    /// By `now_us` the thread of a reactor has run for so long: what share of the time it is busy.
    pub fn note_busy(&mut self, reactor: usize, now_us: u64, ran_us: u64) {
        self.business[reactor].note(self.front.loads(), reactor, now_us, ran_us);
    }

    /// Looks once, at `now_us` on the reactors' clock: those that have stalled since the last look. All others have
    /// been rung then.
    pub fn look(&mut self, now_us: u64) -> Vec<Stall> {
        let loads = self.front.loads();
        let stalls: Vec<Stall> = (0..loads.reactors())
            .map(|reactor| {
                let for_us = loads.turning_for_us(reactor, now_us);
                Stall { reactor, for_us, call: loads.calling(reactor).get() }
            })
            .filter(|stall| stall.for_us >= STALL_US && self.front.begin_stall(stall.reactor))
            .collect();
        if !stalls.is_empty() {
            self.admission.ring_all();
        }
        stalls
    }

    /// Whether every reactor has ended: there is nothing left to look at.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.front.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calling::Callback;
    use crate::mailbox::{Client, Message};
    use crate::token::{Descriptor, Key};

    #[test]
    fn who_stalls_is_named_once_and_its_mail_is_for_all() {
        let front = Arc::new(Front::new(2, 8));
        let mut watch = Watch::new(Arc::clone(&front), Arc::new(Admission::new(8, 0, 1, 2)));
        let client = || {
            let (listener, source) = (0, None);
            Client { descriptor: Descriptor(7), listener, source }
        };
        front.loads().add(1);
        let _ = front.mail(1).post(Message::Client(client()));
        front.loads().begin_turn(1, 100);
        assert_eq!(watch.look(100 + STALL_US - 1), []);
        assert!(front.take(0).is_none());
        front.loads().calling(1).begin(Callback::OnData, Key::new(17, 4));
        let call = front.loads().calling(1).get();
        let stall = Stall { reactor: 1, for_us: STALL_US, call };
        assert_eq!(stall.to_string(), "reactor 1 has not turned for 1.0 s: on_data of slot 17");
        assert_eq!(watch.look(100 + STALL_US), [stall]);
        assert_eq!(watch.look(100 + 2 * STALL_US), [], "told once");
        assert!(!front.is_empty(0));
        assert!(matches!(front.take(0), Some(Message::Client(it)) if it == client()));
        assert_eq!((front.loads().connections(0), front.loads().connections(1)), (1, 0));
        assert!(front.end_stall(1) && !front.end_stall(1));
        front.loads().calling(1).end();
        front.loads().begin_turn(1, 5 * STALL_US);
        let again = watch.look(7 * STALL_US);
        assert_eq!(again.len(), 1, "it can stall again");
        let line = "reactor 1 has not turned for 2.0 s: it is in no callback of its handler";
        assert_eq!(again[0].to_string(), line);
    }

    #[test]
    fn one_that_sleeps_has_not_stalled() {
        let front = Arc::new(Front::new(1, 8));
        let mut watch = Watch::new(Arc::clone(&front), Arc::new(Admission::new(8, 0, 1, 1)));
        front.loads().begin_turn(0, 100);
        front.loads().end_turn(0);
        assert_eq!(watch.look(100 * STALL_US), []);
        assert!(!watch.is_over());
        front.end(0);
        assert!(watch.is_over());
    }

    #[test]
    fn one_that_has_ended_while_others_drain_has_not_stalled() {
        let front = Arc::new(Front::new(2, 8));
        let mut watch = Watch::new(Arc::clone(&front), Arc::new(Admission::new(8, 0, 1, 2)));
        front.loads().begin_turn(0, 100);
        front.loads().begin_turn(1, 100);
        front.end(1);
        front.loads().end_turn(0);
        assert_eq!(watch.look(100 * STALL_US), []);
        assert!(!watch.is_over());
    }
}
