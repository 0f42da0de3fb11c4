//! The naive model: what the rules say, with lists that are searched.

use super::*;

#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) state: State,
    pub(super) is_told: bool,
    pub(super) since: Duration,
    pub(super) opened: Option<Duration>,
    pub(super) used: Duration,
    pub(super) seen: Duration,
    pub(super) lifetime: Option<Duration>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) ticket: Option<Ticket>,
    pub(super) at: Option<&'static Location<'static>>,
    /// Dialed for one caller alone.
    pub(super) is_fresh: bool,
    pub(super) is_ended: bool,
    pub(super) is_warned: bool,
    pub(super) is_pinged: bool,
    pub(super) cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Had {
    Nothing,
    Place(Place),
    Error,
    Draining,
}

pub(super) struct Model {
    pub(super) limits: PoolLimits,
    pub(super) now: Duration,
    pub(super) conns: BTreeMap<Place, Conn>,
    /// Used last, last.
    pub(super) idle: Vec<Place>,
    /// All tickets there are: arrival, since, where, and what it has.
    pub(super) tickets: BTreeMap<Ticket, (usize, Duration, &'static Location<'static>, Had)>,
    pub(super) to_wake: BTreeSet<Ticket>,
    pub(super) spare: usize,
    /// Tokens for other reactors.
    pub(super) owed: usize,
    pub(super) arrivals: usize,
    pub(super) is_draining: bool,
    pub(super) has_failed: bool,
    /// When the dial failed behind which there may be a pause; none since one went well.
    pub(super) failed_at: Option<Duration>,
    pub(super) stale: u64,
}

impl Model {
    pub(super) fn count(&self, state: State) -> usize {
        self.conns.values().filter(|conn| conn.state == state).count()
    }

    /// Dials that are the pool's.
    pub(super) fn dialing(&self) -> usize {
        self.conns.values().filter(|conn| conn.state == State::Dialing && !conn.is_fresh).count()
    }

    /// One whose dial has just been begun.
    pub(super) fn begin(&mut self, place: Place, for_one_at: Option<&'static Location<'static>>) {
        let conn = Conn {
            state: State::Dialing,
            is_told: true,
            since: self.now,
            opened: None,
            used: self.now,
            seen: self.now,
            lifetime: None,
            keep_alive: None,
            ticket: None,
            at: for_one_at,
            is_fresh: for_one_at.is_some(),
            is_ended: false,
            is_warned: false,
            is_pinged: false,
            cause: None,
        };
        assert!(self.conns.insert(place, conn).is_none(), "{place:?} twice");
    }

    /// In the order of arrival.
    pub(super) fn waiting(&self) -> Vec<Ticket> {
        let mut waiting: Vec<_> = self
            .tickets
            .iter()
            .filter(|(_, ticket)| ticket.3 == Had::Nothing)
            .map(|(ticket, (arrival, ..))| (*arrival, *ticket))
            .collect();
        waiting.sort();
        waiting.into_iter().map(|(_, ticket)| ticket).collect()
    }

    pub(super) fn max(&self) -> usize {
        self.limits.mode.max() as usize
    }

    pub(super) fn is_above_max(&self) -> bool {
        self.conns.len() - self.count(State::Closing) > self.max()
    }

    pub(super) fn resting(&self) -> usize {
        self.idle.len() + self.count(State::Validating).saturating_sub(self.waiting().len())
    }

    pub(super) fn for_waiters(&self) -> usize {
        self.waiting().len().saturating_sub(self.count(State::Validating))
    }

    pub(super) fn for_rest(&self) -> usize {
        (self.limits.mode.min_idle() as usize).saturating_sub(self.resting())
    }

    pub(super) fn dials_wanted(&self) -> usize {
        if self.is_draining { 0 } else { self.for_waiters() + self.for_rest() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.conns.len() < self.max()
            && self.count(State::Dialing) < self.limits.dials_max as usize
            && !self.is_draining
    }

    /// Whether callers' dials may be held up. For how long was drawn: it may be over before.
    pub(super) fn may_pause(&self) -> bool {
        self.count(State::CheckedOut) > 0 && self.now < self.paused_until()
    }

    pub(super) fn paused_until(&self) -> Duration {
        let pause = |failed_at: Duration| failed_at.saturating_add(self.limits.refill.most);
        self.failed_at.map_or(Duration::ZERO, pause)
    }

    pub(super) fn unfit(&self, place: Place) -> Option<Cause> {
        let conn = &self.conns[&place];
        if self.is_draining {
            return Some(Cause::Drained);
        }
        if conn.is_ended {
            return Some(Cause::Ended);
        }
        if self.is_above_max() {
            return Some(Cause::Shrunk);
        }
        let age = self.now - conn.opened.unwrap_or(self.now);
        conn.lifetime.filter(|lifetime| age >= *lifetime).map(|_| Cause::Lifetime)
    }

    pub(super) fn close(&mut self, place: Place, cause: Cause) {
        self.idle.retain(|other| *other != place);
        let conn = self.conns.get_mut(&place).expect("there");
        (conn.state, conn.is_told, conn.cause) = (State::Closing, false, Some(cause));
    }

    pub(super) fn give(&mut self, place: Place, ticket: Ticket) {
        let entry = self.tickets.get_mut(&ticket).expect("there");
        entry.3 = Had::Place(place);
        let at = entry.2;
        self.to_wake.insert(ticket);
        self.take(place, at, Some(ticket));
    }

    pub(super) fn take(
        &mut self,
        place: Place,
        at: &'static Location<'static>,
        ticket: Option<Ticket>,
    ) {
        self.idle.retain(|other| *other != place);
        let now = self.now;
        let conn = self.conns.get_mut(&place).expect("there");
        (conn.state, conn.since, conn.at, conn.ticket) = (State::CheckedOut, now, Some(at), ticket);
        (conn.is_warned, conn.is_told, conn.is_pinged) = (false, true, false);
    }

    pub(super) fn offer(&mut self, place: Place) {
        if let Some(cause) = self.unfit(place) {
            return self.close(place, cause);
        }
        if let Some(first) = self.waiting().first() {
            return self.give(place, *first);
        }
        let now = self.now;
        let conn = self.conns.get_mut(&place).expect("there");
        (conn.state, conn.is_told) = (State::Idle, true);
        if conn.is_pinged {
            let used = conn.used;
            conn.is_pinged = false;
            // Behind those that were used before.
            let behind = self.idle.iter().take_while(|other| self.conns[other].used < used).count();
            self.idle.insert(behind, place);
        } else {
            conn.used = now;
            self.idle.push(place);
        }
    }

    pub(super) fn top(&mut self) -> Option<Place> {
        while let Some(top) = self.idle.last().copied() {
            match self.unfit(top) {
                Some(cause) => self.close(top, cause),
                None => return Some(top),
            }
        }
        None
    }

    pub(super) fn fresh_top(&mut self) -> Option<Place> {
        let top = self.top()?;
        let unseen = self.now - self.conns[&top].seen;
        self.limits.validate_after.is_none_or(|after| unseen < after).then_some(top)
    }

    pub(super) fn maintain(&mut self) {
        for place in self.idle.clone() {
            let conn = &self.conns[&place];
            let is_past = |since: Duration, span: Option<Duration>| {
                span.is_some_and(|span| self.now - since >= span)
            };
            if let Some(cause) = self.unfit(place) {
                self.close(place, cause);
            } else if is_past(conn.used, self.limits.idle_timeout)
                && self.resting() > self.limits.mode.min_idle() as usize
            {
                self.close(place, Cause::IdleTimeout);
            } else if is_past(conn.seen, conn.keep_alive) {
                self.idle.retain(|other| *other != place);
                let conn = self.conns.get_mut(&place).expect("there");
                (conn.state, conn.is_told, conn.is_pinged) = (State::Validating, false, true);
            }
        }
        for conn in self.conns.values_mut() {
            let is_late =
                self.limits.leak_after.is_some_and(|after| self.now - conn.since >= after);
            if conn.state == State::CheckedOut && !conn.is_warned && is_late {
                (conn.is_warned, conn.is_told) = (true, false);
            }
        }
    }
}
