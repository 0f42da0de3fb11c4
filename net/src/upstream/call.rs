//! One attempt: an endpoint chosen, something done there, and what it says of the endpoint and the upstream.

use std::rc::Rc;
use std::time::Duration;

use super::members::Member;
use super::room::{Known, UpstreamRoom};
use crate::cap::Line;
use crate::failure::Error;
use crate::policy::breaker::Ticket;
use crate::policy::outcome::Outcome;

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

    /// The line for dials to its endpoint.
    pub(super) fn dials(&self) -> Rc<Line> {
        Rc::clone(&self.known.dials)
    }

    /// What came of it, once: told to all who judge. What a pool's dial has said of the endpoint itself is not said
    /// again for who waited for it.
    pub(super) fn judge(&mut self, outcome: Outcome, is_of_a_pool_s_dial: bool) {
        let Some(ticket) = self.ticket.take() else { return };
        let room = &self.room;
        let now = room.now_or_before();
        let took = now.saturating_sub(self.started);
        let change = {
            let verdicts = &mut *room.verdicts.borrow_mut();
            verdicts.balancer.note(&mut verdicts.endpoints, self.endpoint, now, took, outcome);
            verdicts.breaker.report(now, &room.upstream.breaker, ticket, outcome)
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
        if let Some(ticket) = self.ticket.take() {
            self.room.upstream.breaker.give_back(self.room.now_or_before(), ticket);
        }
        self.room.verdicts.borrow_mut().endpoints.ended(self.endpoint);
        self.room.under_way.set(self.room.under_way.get() - 1);
    }
}
