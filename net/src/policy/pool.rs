//! The book of a pool: which of its places has what, who waits, and what is to be done next.
//!
//! ```text
//!             dialed            checkout, or to the first who waits
//!   Dialing ----------> Idle ---------------------------------------> CheckedOut
//!      |  |             | ^  <-------------------------------------  ^   |
//!      |  |        idle | |                 checkin                  |   |
//!      |  |    for long v | alive                                    |   |
//!      |  |         Validating ------------- to the first who waits -+   |
//!      |  | cancelled     | ended, dead, old, too many                   | ended, unclean, old, too many
//!      |  +------------> Closing <---------------------------------------+
//!      | failed           | closed
//!      +-------> free <---+
//! ```
//!
//! A place dialed for one caller alone (`dial_fresh`) goes from `Dialing` to `CheckedOut`, or is free when it is left.
//!
//! Is: numbers of the places of one pool, for one endpoint, on one reactor; each is in exactly one [`State`], and each
//! state is a list. Is not: the connections. Those are the room's, in an array by the same numbers; nor timers: the
//! room wakes who waits for too long and calls [`Book::expire`].
//!
//! *How it is used.* The room tells what happened, and then calls [`Book::poll_act`] until there is nothing to do: that
//! is the only place where the book asks for anything, so no call has an answer that could be forgotten.
//!
//! | the book says | the room |
//! |---|---|
//! | `Checkout::Hit(place)` | takes the connection out of its array and hands it over; `checkin` when it comes back |
//! | `Checkout::Wait(ticket)` | waits to be woken, or for its timer; then `claim`, or `expire`; `leave` when dropped |
//! | `Checkout::Saturated`, `Draining` | fails the checkout |
//! | `granted`: a place | looks at the connection before it claims it: one that is dead has `ended`, and it waits on |
//! | `Claim::Place` | as `Hit`; all others but `Wait` end the checkout with an error |
//! | `dial_fresh`: a place | dials, for that caller alone: `dialed`, `dial_failed`, or `leave_fresh` when dropped |
//! | `dial_fresh`: `None` | calls `distrust`, and then `checkout`, as any other caller |
//! | `Act::Wake(ticket)` | wakes that task |
//! | `Act::Dial(place)` | dials, not for anybody: `dialed` or `dial_failed`, also if who waited is gone |
//! | `Act::Validate(place)`, `Ping(place)` | looks, within `validate_timeout`: `validated` |
//! | `Act::CancelDial(place)` | cancels it: `closed` when it is gone; if it has been established after all, closes it |
//! | `Act::Close(place, cause)` | takes the connection out of its array and closes it: `closed` when it is gone |
//! | `Act::Leaked { .. }` | warns |
//! | `Act::Release` | gives one token back to the cap |
//! | `false`: the place is no more | closes what it has there; that is the book's no longer |
//!
//! *Tokens.* A place that is not free holds one token of a cap that reactors share. `may_grow` takes one, and is asked
//! only if a dial is wanted. The token of a place that becomes free goes to the next dial if one is wanted, without
//! being shown to others in between; else it is released. That of a connection given up for another reactor
//! ([`Cause::GivenUp`]) is *owed*: it is released before anything is dialed here, whoever waits. Whether callers here
//! may then take one again is `may_grow`'s to say: it knows who else waits for one.
//!
//! *Why a waiter is given its connection when it claims it*, and not when it is woken: a task that is woken may be
//! dropped before it is polled, and the connection may end. Until then it is the book's to give to somebody else, and
//! one that has ended is taken back: the waiter waits on, where it stood.
//!
//! *Why a dial that nobody needs goes on for a while* (`hung_after`): callers that give up a little sooner than a dial
//! takes would otherwise cancel each other's dials for ever, and no connection would ever come about.
//!
//! *Cost.* All is O(1), and a hit allocates nothing, with these exceptions: [`Book::maintain`] looks at all places when
//! something may be due; a connection that was pinged goes back behind those idle for less, past those idle for
//! longer; [`Book::drain`], [`Book::set_limits`] and [`Book::distrust`] close what they have to.

mod acts;
mod fresh;
mod limits;
mod lists;
mod refill;
mod snapshot;
mod upkeep;
mod waiters;
mod words;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

pub use limits::{MAINTENANCE, Mode, PoolLimits, PoolLimitsError};
pub use snapshot::PoolSnapshot;
pub use words::{Act, Cause, Checkout, Claim, Place, PoolCounters, Return, State, Ticket};

use crate::failure::Error;
use lists::{FREE, Lists};
use refill::Refill;
use waiters::{Outcome, Waiters};

/// The part of a lifetime that is drawn (HikariCP).
const LIFETIME_DRAWN: f64 = 0.25;
/// The part of the time between pings that is drawn (HikariCP).
const KEEP_ALIVE_DRAWN: f64 = 0.2;

// The lists of places: a state each, or a part of one of which the room has not been told.

const DIALING: usize = FREE + 1;
/// The front was used last: it is taken first, and the back ages.
const IDLE: usize = FREE + 2;
const VALIDATING: usize = FREE + 3;
/// Validating, and the ping is to be asked for.
const TO_PING: usize = FREE + 4;
/// In the order in which they were given out, as are the next two.
const OUT: usize = FREE + 5;
/// Checked out, and the warning is to be asked for.
const TO_WARN: usize = FREE + 6;
/// Checked out, and warned of.
const LEAKED: usize = FREE + 7;
/// Closing, and the closing is to be asked for.
const TO_CLOSE: usize = FREE + 8;
const CLOSING: usize = FREE + 9;
/// Dialing, for one caller alone.
const FRESH: usize = FREE + 10;

/// What is known of a place.
struct Kept {
    /// When its dial was begun, or the connection given out.
    since: Duration,
    /// When its connection was established; `None`: it is not yet.
    opened_at: Option<Duration>,
    /// When it last became idle: after use, mostly.
    used_at: Duration,
    /// When it was last known to be alive.
    seen_at: Duration,
    max_lifetime: Option<Duration>,
    keep_alive: Option<Duration>,
    /// Where it was taken.
    at: Option<&'static Location<'static>>,
    /// To whom it was given, who has not come for it yet.
    ticket: Option<Ticket>,
    /// Ended while somebody had it.
    is_ended: bool,
    /// What it is looked at for: a ping, nobody waits for it.
    is_pinged: bool,
    /// Why it is closing; of no meaning before.
    cause: Cause,
}

/// The book of one pool.
///
/// ```
/// use std::panic::Location;
/// use std::time::Duration;
/// use slipring::policy::pool::{Act, Book, Checkout, Claim, PoolLimits, Return};
///
/// let mut book = Book::new(PoolLimits::default())?;
/// let (now, mut rng) = (Duration::ZERO, fastrand::Rng::with_seed(1));
///
/// // Nothing is there yet: the caller waits, and a connection is dialed.
/// let Checkout::Wait(ticket) = book.checkout(now, Location::caller()) else { unreachable!() };
/// let Some(Act::Dial(place)) = book.poll_act(now, || true) else { unreachable!() };
/// assert!(book.dialed(place, now, &mut rng));
/// assert_eq!(book.poll_act(now, || true), Some(Act::Wake(ticket)));
/// assert!(matches!(book.claim(ticket, now), Claim::Place(it) if it == place));
///
/// // It comes back, and the next one has it at once.
/// assert!(book.checkin(place, now, Return::Clean));
/// assert!(matches!(book.checkout(now, Location::caller()), Checkout::Hit(it) if it == place));
/// assert_eq!(book.poll_act(now, || true), None);
/// # Ok::<(), slipring::policy::pool::PoolLimitsError>(())
/// ```
pub struct Book {
    limits: PoolLimits,
    places: Lists<Kept, 11>,
    waiters: Waiters,
    /// Tokens of places that have become free, for the next dials.
    spare: u32,
    /// Those of them that are for other reactors.
    owed: u32,
    refill: Refill,
    last_dial_error: Option<Arc<Error>>,
    counters: PoolCounters,
    is_draining: bool,
    /// The latest time seen.
    now: Duration,
    /// Nothing that [`Book::maintain`] looks for is due before.
    due: Option<Duration>,
}

impl Book {
    /// A pool without a connection. Those that it is to have are asked for by the first [`poll_act`](Self::poll_act).
    ///
    /// # Errors
    /// [`PoolLimitsError`], as [`PoolLimits::check`].
    pub fn new(limits: PoolLimits) -> Result<Self, PoolLimitsError> {
        limits.check()?;
        Ok(Self {
            limits,
            places: Lists::new(),
            waiters: Waiters::new(),
            spare: 0,
            owed: 0,
            refill: Refill::new(&limits.refill),
            last_dial_error: None,
            counters: PoolCounters::default(),
            is_draining: false,
            now: Duration::ZERO,
            due: None,
        })
    }

    // --------------------------------------------------------------------------- callers

    /// Somebody wants a connection: the one used last, if nobody waits and it was not idle for too long; else to wait.
    /// `at` is where in the code, for warnings and snapshots.
    pub fn checkout(&mut self, now: Duration, at: &'static Location<'static>) -> Checkout {
        self.see(now);
        if self.is_draining {
            self.counters.refused += 1;
            return Checkout::Draining;
        }
        if let Some(place) = self.try_checkout(now, at) {
            return Checkout::Hit(place);
        }
        if self.waiters.len() >= self.limits.waiters_max {
            self.counters.saturated += 1;
            return Checkout::Saturated(self.snapshot(self.now));
        }
        self.counters.waits += 1;
        Checkout::Wait(self.waiters.enter(self.now, at))
    }

    /// The same for somebody who would not wait: as long as others do, there is nothing for them.
    pub fn try_checkout(&mut self, now: Duration, at: &'static Location<'static>) -> Option<Place> {
        self.see(now);
        if self.is_draining || self.waiters.len() > 0 {
            return None;
        }
        let index = self.first_idle().filter(|index| self.is_fresh(*index))?;
        self.hand_out(index, at);
        self.counters.hits += 1;
        Some(self.place(index))
    }

    /// What came of waiting.
    pub fn claim(&mut self, ticket: Ticket, now: Duration) -> Claim {
        self.see(now);
        match self.waiters.is_waiting(ticket) {
            None => {
                self.counters.stale += 1;
                Claim::Stale
            }
            Some(true) => Claim::Wait,
            Some(false) => match self.waiters.remove(ticket) {
                Outcome::None => unreachable!("who does not wait has been told something"),
                Outcome::Granted(place) => {
                    self.places[place.index].ticket = None;
                    self.counters.claimed += 1;
                    Claim::Place(place)
                }
                Outcome::Failed(error) => {
                    self.counters.failed += 1;
                    Claim::Failed(error)
                }
                Outcome::Draining => {
                    self.counters.failed += 1;
                    Claim::Draining
                }
            },
        }
    }

    /// The caller's time is up: it waits no more. If something had come of its waiting just now, that is what it gets.
    pub fn expire(&mut self, ticket: Ticket, now: Duration) -> Claim {
        self.see(now);
        if self.waiters.is_waiting(ticket) != Some(true) {
            return self.claim(ticket, now);
        }
        let snapshot = self.snapshot(self.now);
        self.waiters.remove(ticket);
        self.counters.timeouts += 1;
        Claim::TimedOut { snapshot, last_dial_error: self.last_dial_error.clone() }
    }

    /// The caller does not wait any more. What it was given and had not claimed goes to the next one.
    pub fn leave(&mut self, ticket: Ticket, now: Duration) -> bool {
        self.see(now);
        if self.waiters.is_waiting(ticket).is_none() {
            return self.is_stale();
        }
        self.counters.left += 1;
        if let Outcome::Granted(place) = self.waiters.remove(ticket) {
            self.places[place.index].ticket = None;
            self.offer(place.index);
        }
        true
    }

    /// A connection comes back from who had it.
    pub fn checkin(&mut self, place: Place, now: Duration, as_it_is: Return) -> bool {
        self.see(now);
        let Place { index, .. } = place;
        // One that nobody has come for is nobody's to give back.
        if self.state(place) != Some(State::CheckedOut) || self.places[index].ticket.is_some() {
            return self.is_stale();
        }
        self.places[index].seen_at = self.now;
        if as_it_is == Return::Clean {
            self.refill.served();
        }
        match as_it_is {
            Return::Clean => self.offer(index),
            Return::Unclean => self.retire(index, Cause::Unclean),
            Return::Discard => self.retire(index, Cause::Discarded),
            Return::Yielded => self.give_up(index),
        }
        true
    }

    // --------------------------------------------------------------------------- connections

    /// A dial has led to a connection. `false`: it was cancelled before; close the connection, then say `closed`. One
    /// of [`dial_fresh`](Self::dial_fresh) is in use by its caller from now on.
    pub fn dialed(&mut self, place: Place, now: Duration, rng: &mut fastrand::Rng) -> bool {
        self.see(now);
        let list = self.list(place);
        if !matches!(list, Some(DIALING | FRESH)) {
            return self.is_stale();
        }
        let (now, limits) = (self.now, self.limits);
        let kept = &mut self.places[place.index];
        (kept.opened_at, kept.seen_at) = (Some(now), now);
        let mut shorter = |span: Duration, part: f64| share(span, 1.0 - part * rng.f64());
        kept.max_lifetime = limits.max_lifetime.map(|span| shorter(span, LIFETIME_DRAWN));
        kept.keep_alive = limits.keep_alive.map(|span| shorter(span, KEEP_ALIVE_DRAWN));
        self.refill.succeeded();
        self.last_dial_error = None;
        if list == Some(FRESH) {
            self.hand_over(place.index);
        } else {
            self.offer(place.index);
        }
        true
    }

    /// A dial has failed. If more wait now than there is something to hope for, under way or in use, the first of them
    /// is told so: the error is its own to judge, and others have their own dials. As long as some are in use, an
    /// upstream that lets no more in is no reason to fail who waits: one comes back, or the wait ends. A dial of
    /// [`dial_fresh`](Self::dial_fresh) is nobody's hope, and its error its caller's alone.
    pub fn dial_failed(
        &mut self,
        place: Place,
        now: Duration,
        error: Arc<Error>,
        rng: &mut fastrand::Rng,
    ) -> bool {
        self.see(now);
        let list = self.list(place);
        match list {
            Some(DIALING | FRESH) => {}
            // Cancelled: it says nothing of the endpoint.
            Some(CLOSING) if self.places[place.index].opened_at.is_none() => {
                return self.closed(place, now);
            }
            _ => return self.is_stale(),
        }
        self.refill.failed(self.places[place.index].since, self.now, rng);
        self.counters.dials_failed += 1;
        self.last_dial_error = Some(Arc::clone(&error));
        self.free(place.index);
        let under_way = self.places.len(DIALING) + self.validating();
        let hopes = under_way + self.places.len(IDLE) + self.in_use();
        if list == Some(DIALING) && self.waiters.len() > hopes {
            self.waiters.settle_first(Outcome::Failed(error));
        }
        true
    }

    /// What came of a look, or a ping. `is_alive`: within `validate_timeout`.
    pub fn validated(&mut self, place: Place, is_alive: bool, now: Duration) -> bool {
        self.see(now);
        if self.list(place) != Some(VALIDATING) {
            return self.is_stale();
        }
        if is_alive {
            self.places[place.index].seen_at = self.now;
            self.offer(place.index);
        } else {
            self.retire(place.index, Cause::Invalid);
        }
        true
    }

    /// A connection has ended by itself, or something came that nobody asked for. It is given to nobody any more. Who
    /// has it keeps it, until it comes back; who was given it and has not come for it waits on. A dial ends by
    /// [`dial_failed`](Self::dial_failed) or [`leave_fresh`](Self::leave_fresh) only.
    pub fn ended(&mut self, place: Place, now: Duration) -> bool {
        self.see(now);
        let Some(list) = self.list(place).filter(|list| ![DIALING, FRESH].contains(list)) else {
            return self.is_stale();
        };
        let kept = &mut self.places[place.index];
        match (list, kept.ticket.take()) {
            (CLOSING | TO_CLOSE, _) => {}
            (OUT | TO_WARN | LEAKED, None) => kept.is_ended = true,
            (_, ticket) => {
                if let Some(opened_at) =
                    kept.opened_at.filter(|opened_at| kept.seen_at == *opened_at)
                {
                    // Nobody has seen it alive since: the upstream may be full, or not want us.
                    self.refill.turned_away(self.now.saturating_sub(opened_at), self.now);
                }
                self.retire(place.index, Cause::Ended);
                if let Some(ticket) = ticket {
                    self.waiters.withdraw(ticket);
                    self.serve_from_idle();
                    if self.is_draining {
                        self.waiters.settle_first(Outcome::Draining);
                    }
                }
            }
        }
        true
    }

    /// The closing is complete, or the cancelled dial is gone: the place is free.
    pub fn closed(&mut self, place: Place, now: Duration) -> bool {
        self.see(now);
        if self.state(place) != Some(State::Closing) {
            return self.is_stale();
        }
        self.free(place.index);
        true
    }

    // --------------------------------------------------------------------------- the owner

    /// Another reactor wants a token: closes the connection that is idle for longest, if nobody waits here. Whether
    /// there was one. Its token is released, also if somebody waits by then. The pool dials none of its own for as long
    /// as its longest pause: it would take the token back.
    pub fn give_up_idle(&mut self, now: Duration) -> bool {
        self.see(now);
        if self.waiters.len() > 0 {
            return false;
        }
        let Some(index) = self.places.back(IDLE) else { return false };
        self.give_up(index);
        true
    }

    /// From now on other limits. If there are more connections than may be, idle ones are closed, from the one idle for
    /// longest on, then dials cancelled; those in use are closed when they come back. Lifetimes that were drawn stay.
    ///
    /// # Errors
    /// [`PoolLimitsError`]: they are as before.
    pub fn set_limits(&mut self, limits: PoolLimits, now: Duration) -> Result<(), PoolLimitsError> {
        limits.check()?;
        self.see(now);
        self.limits = limits;
        self.refill.set_backoff(&limits.refill);
        self.due = Some(Duration::ZERO);
        while self.is_above_max()
            && let Some(index) = self.places.back(IDLE)
        {
            self.retire(index, Cause::Shrunk);
        }
        Ok(())
    }

    /// Gives nothing out any more: who waits is told so, what is idle or being looked at is closed, dials are
    /// cancelled, and what is in use is closed when it comes back. What was given to a waiter before is still its own.
    pub fn drain(&mut self, now: Duration) {
        self.see(now);
        self.is_draining = true;
        while self.waiters.settle_first(Outcome::Draining).is_some() {}
        for list in [IDLE, VALIDATING, TO_PING] {
            while let Some(index) = self.places.front(list) {
                self.retire(index, Cause::Drained);
            }
        }
    }

    // --------------------------------------------------------------------------- steps

    fn see(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    fn is_stale(&mut self) -> bool {
        self.counters.stale += 1;
        false
    }

    /// A connection is there to be used: by the first who waits, or by who comes.
    fn offer(&mut self, index: u32) {
        if let Some(cause) = self.unfit(index) {
            self.retire(index, cause);
        } else if self.waiters.len() > 0 {
            self.grant(index);
        } else {
            self.rest(index);
        }
    }

    /// Gives a connection to the first who waits.
    fn grant(&mut self, index: u32) {
        let Some(at) = self.waiters.first().map(|waiter| waiter.at) else { return };
        let place = self.place(index);
        let ticket = self.waiters.settle_first(Outcome::Granted(place));
        self.hand_out(index, at);
        self.places[index].ticket = ticket;
    }

    fn hand_out(&mut self, index: u32, at: &'static Location<'static>) {
        self.places.move_back(index, OUT);
        let kept = &mut self.places[index];
        (kept.since, kept.at, kept.is_pinged) = (self.now, Some(at), false);
        self.note_due(self.now, self.limits.leak_after);
    }

    /// Who waits gets what is idle, unless it has to be looked at first.
    fn serve_from_idle(&mut self) {
        while self.waiters.len() > 0
            && let Some(index) = self.first_idle().filter(|index| self.is_fresh(*index))
        {
            self.grant(index);
        }
    }

    /// The idle one used last. Those that are too old on the way to it are closed.
    fn first_idle(&mut self) -> Option<u32> {
        loop {
            let index = self.places.front(IDLE)?;
            let Some(cause) = self.unfit(index) else { return Some(index) };
            self.retire(index, cause);
        }
    }

    fn is_fresh(&self, index: u32) -> bool {
        let unseen = self.now.saturating_sub(self.places[index].seen_at);
        self.limits.validate_after.is_none_or(|after| unseen < after)
    }

    fn retire(&mut self, index: u32, cause: Cause) {
        self.places.move_back(index, TO_CLOSE);
        self.places[index].cause = cause;
        self.counters.closes[cause as usize] += 1;
    }

    /// For another reactor.
    fn give_up(&mut self, index: u32) {
        self.retire(index, Cause::GivenUp);
        self.refill.put_off(self.now);
    }

    fn free(&mut self, index: u32) {
        let is_owed = self.places[index].cause == Cause::GivenUp;
        *(if is_owed { &mut self.owed } else { &mut self.spare }) += 1;
        self.places.free(index);
    }

    // --------------------------------------------------------------------------- sums

    fn place(&self, index: u32) -> Place {
        Place { index, generation: self.places.generation(index) }
    }

    fn list(&self, place: Place) -> Option<usize> {
        self.places.list(place.index, place.generation)
    }

    #[inline]
    fn sum(&self, lists: &[usize]) -> u32 {
        lists.iter().map(|list| self.places.len(*list)).sum()
    }
}

/// A part of a span, from 0 to 1.
fn share(span: Duration, part: f64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * part).map_or(span, |share| share.min(span))
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book")
            .field("snapshot", &self.snapshot(self.now))
            .field("is_draining", &self.is_draining)
            .field("spare", &self.spare)
            .field("owed", &self.owed)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
