//! What has to hold after each step, and when the book has nothing more to do.

use super::*;

impl Rig {
    /// Polls until there is nothing to do. Every act has to be one that the model allows.
    pub(super) fn settle(&mut self) {
        for step in 0.. {
            assert!(step < 10_000, "it never ends");
            let (free, mut asked) = (self.free, false);
            let act = self.book.poll_act(self.now(), || {
                asked = true;
                free > 0
            });
            // Who waits is served from what is idle first.
            self.serve();
            assert!(!asked || self.model.owed == 0, "asks for one, and owes one");
            let took = asked && free > 0;
            if asked && !took {
                self.is_refused = true;
            }
            if took {
                self.free -= 1;
                self.taken += 1;
                assert!(matches!(act, Some(Act::Dial(_))), "{act:?} with a token");
            }
            let Some(act) = act else { break };
            self.check(act, took);
            self.agree();
        }
        self.check_settled();
    }

    fn check(&mut self, act: Act, took: bool) {
        let model = &mut self.model;
        let dialing = model.dialing();
        match act {
            Act::Wake(ticket) => {
                assert!(model.to_wake.remove(&ticket), "{ticket:?} woken for nothing");
            }
            Act::Dial(place) => {
                assert!(model.has_room(), "a dial too many");
                assert!(dialing < model.dials_wanted(), "nobody wants a dial");
                assert!(!self.gone_places.contains(&place), "{place:?} once more");
                assert_eq!(model.owed, 0, "dialed before it gave what it owes");
                if !took {
                    model.spare = model.spare.checked_sub(1).expect("a dial without a token");
                }
                model.begin(place, None);
            }
            Act::Validate(place) => {
                assert!(model.waiting().len() > model.count(State::Validating));
                assert_eq!(model.top(), Some(place));
                model.idle.pop();
                let conn = model.conns.get_mut(&place).expect("there");
                (conn.state, conn.is_told, conn.is_pinged) = (State::Validating, true, false);
            }
            Act::Ping(place) => {
                let conn = model.conns.get_mut(&place).expect("there");
                assert!(conn.state == State::Validating && !conn.is_told && conn.is_pinged);
                conn.is_told = true;
            }
            Act::CancelDial(place) => {
                let wanted = model.dials_wanted();
                let (is_above_max, is_draining) = (model.is_above_max(), model.is_draining);
                let (now, hung_after) = (model.now, model.limits.hung_after);
                let conn = model.conns.get_mut(&place).expect("there");
                assert!(conn.state == State::Dialing && !conn.is_fresh, "{conn:?}");
                let is_hung = now - conn.since >= hung_after;
                assert!(
                    is_above_max || is_draining || (dialing > wanted && is_hung),
                    "a dial cancelled that is wanted, or young"
                );
                (conn.state, conn.is_told) = (State::Closing, true);
            }
            Act::Close(place, cause) => {
                let conn = model.conns.get_mut(&place).expect("there");
                assert!(conn.state == State::Closing && !conn.is_told, "{place:?} {conn:?}");
                assert_eq!(conn.cause, Some(cause));
                conn.is_told = true;
            }
            Act::Leaked { place, held, at } => {
                let now = model.now;
                let conn = model.conns.get_mut(&place).expect("there");
                assert!(conn.state == State::CheckedOut && conn.is_warned && !conn.is_told);
                assert_eq!((held, Some(at)), (now - conn.since, conn.at));
                conn.is_told = true;
            }
            Act::Release => {
                if model.owed > 0 {
                    model.owed -= 1;
                } else {
                    let is_wanted = dialing < model.for_waiters() && model.has_room();
                    assert!(!is_wanted || model.may_pause(), "given back, and a dial is wanted");
                    model.spare = model.spare.checked_sub(1).expect("no token to give back");
                }
                self.free += 1;
                self.taken -= 1;
            }
        }
    }

    fn check_settled(&mut self) {
        let model = &mut self.model;
        assert!(model.to_wake.is_empty(), "not woken: {:?}", model.to_wake);
        assert!(model.conns.values().all(|conn| conn.is_told), "not told: {:?}", model.conns);
        assert_eq!((model.spare, model.owed), (0, 0), "tokens not given back");
        assert_eq!(model.conns.len(), self.taken, "tokens are lost, or made");
        let (dialing, waiting) = (model.dialing(), model.waiting().len());
        if waiting > 0 {
            assert_eq!(model.fresh_top(), None, "somebody waits beside an idle connection");
        }
        if waiting > model.count(State::Validating) {
            assert!(model.idle.is_empty(), "somebody waits beside an idle connection");
        }
        if dialing < model.for_waiters() && model.has_room() {
            if model.may_pause() && self.book.lacks() == 0 {
                let due = self.book.next_maintenance();
                assert!(
                    due.is_some_and(|due| due <= model.paused_until()),
                    "nobody comes back to it: {due:?}"
                );
            } else {
                assert_eq!(self.free, 0, "somebody waits, and there is room");
                let room = model.max() - model.conns.len();
                let room = room.min(model.limits.dials_max as usize - model.count(State::Dialing));
                let lacks = (model.for_waiters() - dialing).min(room);
                assert_eq!(self.book.lacks() as usize, lacks, "it says that it lacks others");
            }
        } else {
            assert_eq!(self.book.lacks(), 0);
        }
        if dialing < model.dials_wanted()
            && model.has_room()
            && !model.has_failed
            && !self.is_refused
        {
            assert_eq!(self.free, 0, "fewer idle than there should be, and there is room");
        }
        let oldest = model.conns.values();
        let oldest = oldest.filter(|conn| conn.state == State::Dialing && !conn.is_fresh);
        let oldest = oldest.map(|conn| model.now - conn.since).max();
        let is_hung = oldest.is_some_and(|age| age >= model.limits.hung_after);
        assert!(dialing <= model.dials_wanted() || !is_hung, "a hung dial that nobody needs");
        assert!(!model.is_draining || (dialing == 0 && model.idle.is_empty()));
        if let Some(due) = self.next_due() {
            let said = self.book.next_maintenance();
            assert!(said.is_some_and(|said| said <= due), "{said:?}, but due at {due:?}");
        }
    }

    /// Everything there is, and how it stands.
    pub(super) fn agree(&self) {
        let (book, model) = (&self.book, &self.model);
        for (place, conn) in &model.conns {
            assert_eq!(book.state(*place), Some(conn.state), "{place:?} {conn:?}");
        }
        for place in self.gone_places.iter().rev().take(8) {
            assert_eq!(book.state(*place), None, "{place:?} is no more");
        }
        let (snapshot, census) = (book.snapshot(model.now), book.census(model.now));
        assert_eq!(snapshot, census);
        let count = |state| model.count(state) as u32;
        assert_eq!(snapshot.dialing, count(State::Dialing));
        assert_eq!(snapshot.idle as usize, model.idle.len());
        assert_eq!(snapshot.idle, count(State::Idle));
        assert_eq!(snapshot.checked_out, count(State::CheckedOut));
        assert_eq!(snapshot.validating, count(State::Validating));
        assert_eq!(snapshot.closing, count(State::Closing));
        assert_eq!(book.held() as usize, model.conns.len());
        let waiting = model.waiting();
        assert_eq!(snapshot.waiting as usize, waiting.len());
        let first = waiting.first().map_or(model.now, |first| model.tickets[first].1);
        assert_eq!(snapshot.oldest_waiter, model.now - first);
        let out = model.conns.values().filter(|conn| conn.state == State::CheckedOut);
        let oldest = out.map(|conn| model.now - conn.since).max();
        assert_eq!(snapshot.oldest_checkout, oldest.unwrap_or_default());
        for (ticket, (.., had)) in &model.tickets {
            let place = if let Had::Place(place) = had { Some(*place) } else { None };
            assert_eq!(book.granted(*ticket), place, "{ticket:?} has {had:?}");
        }
        for ticket in self.gone_tickets.iter().rev().take(8) {
            assert_eq!(book.granted(*ticket), None, "{ticket:?} is no more");
        }
        let counters = book.counters();
        let served = counters.hits + counters.waits + counters.saturated + counters.refused;
        assert_eq!(served, self.checkouts);
        let over = counters.claimed + counters.failed + counters.timeouts + counters.left;
        assert_eq!(counters.waits, over + model.tickets.len() as u64);
        assert_eq!(counters.stale, model.stale);
        assert_eq!(counters.fresh, self.fresh);
        let ended = self.established + counters.dials_failed + counters.dials_cancelled;
        assert_eq!(counters.dials, ended + u64::from(snapshot.dialing));
    }

    // ----------------------------------------------------------------------- one step
}
