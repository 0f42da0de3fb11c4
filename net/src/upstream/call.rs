//! One attempt: an endpoint chosen, something done there, and what it says of the endpoint and the upstream.

use std::rc::Rc;
use std::time::Duration;

use slipring_core::canary::{Canary, sings};

use super::members::Member;
use super::parties::Party;
use super::room::{Known, UpstreamRoom};
use crate::cap::Line;
use crate::failure::Error;
use crate::policy::breaker::Ticket;
use crate::policy::outcome::Outcome;

/// Without an answer for so long, a dial that is given up counts as one that timed out †: about when a SYN is sent once
/// more, and a little less than pools wait for a dial that nobody needs.
const SILENCE: Duration = Duration::from_millis(900);
/// In less than this nobody is expected to answer †: farther than once around the world.
const SILENCE_MIN: Duration = Duration::from_millis(100);

/// A call under way. Dropped without a judgement, it says nothing of anybody.
pub(super) struct Call {
    pub(super) room: Rc<UpstreamRoom>,
    /// In this reactor's table.
    pub(super) endpoint: u32,
    known: Rc<Known>,
    ticket: Option<Ticket>,
    started: Duration,
}

impl Call {
    pub(super) fn new(
        room: Rc<UpstreamRoom>,
        endpoint: u32,
        known: Rc<Known>,
        ticket: Ticket,
        started: Duration,
    ) -> Self {
        Self { room, endpoint, known, ticket: Some(ticket), started }
    }

    pub(super) fn member(&self) -> &Member {
        &self.known.member
    }

    pub(super) fn started(&self) -> Duration {
        self.started
    }

    /// The line for dials to its endpoint.
    pub(super) fn dials(&self) -> Rc<Line> {
        Rc::clone(&self.known.dials)
    }

    /// Those of the pool of its endpoint.
    pub(super) fn pooled(&self) -> &Rc<Party> {
        &self.known.pooled
    }

    /// What came of it, once: told to all who judge. What a pool's dial has said of the endpoint itself is not said
    /// again for who waited for it.
    pub(super) fn judge(&mut self, outcome: Outcome, is_of_a_pool_s_dial: bool) {
        let Some(ticket) = self.ticket.take() else { return };
        let room = &self.room;
        let now = room.now_or_before();
        let took = now.saturating_sub(self.started);
        let told = if sings(Canary::FailuresUntold) { Outcome::Ignored } else { outcome };
        let change = {
            let verdicts = &mut *room.verdicts.borrow_mut();
            verdicts.balancer.note(&mut verdicts.endpoints, self.endpoint, now, took, outcome);
            verdicts.breaker.report(now, &room.upstream.breaker, ticket, told)
        };
        room.log_change(change);
        if !is_of_a_pool_s_dial {
            room.note_outcome(self.member().number, outcome);
        }
    }

    pub(super) fn failed(&mut self, error: &Error, is_of_a_pool_s_dial: bool) {
        self.judge(error.outcome(), is_of_a_pool_s_dial);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take()
            && !sings(Canary::ProbePermitKept)
        {
            self.room.upstream.breaker.give_back(self.room.now_or_before(), ticket);
        }
        if !sings(Canary::InFlightKept) {
            self.room.verdicts.borrow_mut().endpoints.ended(self.endpoint);
        }
        self.room.under_way.set(self.room.under_way.get() - 1);
    }
}

/// A dial under way. Given up before it has come to anything, it says something of the endpoint all the same, if nobody
/// has answered for long: a black hole would else be found by nobody who has less time than a dial may take.
pub(super) struct Trying {
    room: Rc<UpstreamRoom>,
    /// The endpoint's shared number.
    member: u32,
    begun: Duration,
    is_over: bool,
}

impl Trying {
    pub(super) fn begin(room: Rc<UpstreamRoom>, member: u32) -> Self {
        let begun = room.now_or_before();
        Self { room, member, begun, is_over: false }
    }

    /// It has come to something, which is said otherwise. How long it took.
    pub(super) fn ended(mut self) -> Duration {
        self.is_over = true;
        self.took()
    }

    /// The time of who it was for is over: as a dial that failed, one of several in a row, unless that was hardly any
    /// time.
    pub(super) fn cut_short(mut self) {
        if self.took() < SILENCE_MIN {
            self.is_over = true;
        } else if self.took() < SILENCE {
            self.is_over = true;
            self.note(Outcome::DialFailure);
        }
    }

    /// If the endpoint is still there: its number may be another's else.
    fn note(&self, outcome: Outcome) {
        if self.room.known_as(self.member).is_some() {
            self.room.note_outcome(self.member, outcome);
        }
    }

    fn took(&self) -> Duration {
        self.room.now_or_before().saturating_sub(self.begun)
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        if !self.is_over && !self.room.is_over.get() && self.took() >= SILENCE {
            self.note(Outcome::DialTimeout);
        }
    }
}
