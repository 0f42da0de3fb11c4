//! How many handshakes are under way on a reactor, how many begin in one of its turns, and who waits for that.
//!
//! ```text
//!                                                              +--------+ whatever else comes: a line too
//!                                                              v        |
//!   ClientHello is whole --> line, first come first served --> under way --> done
//!                                  ^                               |
//!                                  +---- no place: after a second, the oldest is given up
//! ```
//!
//! What a stranger gets for a ClientHello, a signature above all, is the dearest thing that can be had for so few
//! bytes. Therefore:
//!
//! * who has not sent one whole is nowhere here, and costs nothing but its connection;
//! * so many begin in a turn, and so many of those under way go on in it, since their signature may be due then (behind
//!   a HelloRetryRequest, or for a client's certificate): established connections have the rest of the turn;
//! * so many are under way, each with some five kilobytes of state. While others wait for a place, a handshake has a
//!   second, by far enough for an honest one: those who begin and fall silent keep nobody out for long.
//!
//! Places and their line are a server's own, so that one whose few are taken keeps nobody from another; how many begin
//! or go on in a turn is counted for all of them. A reactor is a thread, so all this is the thread's (reactors that
//! simulation runs in one thread have it together).

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::tasks::{drop_waiters, wake_waiter};

/// Handshakes that begin in one turn: some milliseconds, with the slowest signatures.
const BEGIN_PER_TURN: usize = 4;
/// Those under way that go on in one turn. Counted apart: neither of the two keeps the other out.
const GO_ON_PER_TURN: usize = 4;
/// What a handshake may take while others wait for its place.
const HASTE: Duration = Duration::from_secs(1);

thread_local! {
    static GATE: RefCell<Gate> = const { RefCell::new(Gate::new()) };
}

struct Gate {
    /// Of those with handshakes under way, or in their line.
    servers: BTreeMap<u64, Places>,
    /// Who is under way and waits to go on.
    going: Line,
    /// Of the next in a line, or under way.
    next: u64,
    /// The turn that runs, by its time, and how many have begun and gone on in it.
    turn: Duration,
    begun: usize,
    gone_on: usize,
}

/// Those of one server.
#[derive(Default)]
struct Places {
    under_way: VecDeque<Holder>,
    /// Who waits for one.
    line: Line,
}

/// Who waits: a number, in the order of arrival, and whom to wake unless that has been done.
#[derive(Default)]
struct Line(VecDeque<(u64, Option<Waker>)>);

impl Line {
    fn place(&self, number: u64) -> Option<usize> {
        self.0.binary_search_by_key(&number, |(waiter, _)| *waiter).ok()
    }

    fn wake_first(&mut self, behind: &mut Behind) {
        behind.wake.extend(self.0.front_mut().and_then(|(_, waker)| waker.take()));
    }

    /// Joins it as the last, or stays where it stands.
    fn wait(&mut self, place: Option<usize>, number: u64, behind: &mut Behind) {
        match place {
            Some(place) => std::mem::swap(&mut self.0[place].1, &mut behind.waker),
            None => self.0.push_back((number, behind.waker.take())),
        }
    }

    fn leave(&mut self, place: Option<usize>, behind: &mut Behind) {
        let left = place.and_then(|place| self.0.remove(place));
        behind.drop.extend(left.and_then(|(_, waker)| waker));
    }

    /// Whether who stands here, or would join now, is the first.
    fn is_first(&self, place: Option<usize>) -> bool {
        place.map_or(self.0.is_empty(), |place| place == 0)
    }
}

/// What is not done during a look at the gate. Wakers that are not ours may run any code when they are cloned, woken or
/// dropped: look at the gate again, take other handshakes with them, or panic.
#[derive(Default)]
struct Behind {
    /// Of who looks, until it is noted; then what stood there.
    waker: Option<Waker>,
    /// Who looks asks again in the next turn.
    asks_again: bool,
    wake: Vec<Waker>,
    drop: Vec<Waker>,
}

impl Behind {
    /// Each by itself: a panic of one would keep their wake-ups from the others.
    fn catch_up(self) {
        self.wake.into_iter().for_each(wake_waiter);
        drop_waiters(self.drop.into_iter().chain(self.waker));
    }
}

fn look<R>(cx: &Context<'_>, call: impl FnOnce(&mut Gate, &mut Behind) -> R) -> R {
    let mut behind = Behind { waker: Some(cx.waker().clone()), ..Behind::default() };
    let outcome = GATE.with_borrow_mut(|gate| call(gate, &mut behind));
    if behind.asks_again {
        behind.wake.push(cx.waker().clone());
    }
    behind.catch_up();
    outcome
}

/// A handshake under way, the oldest first.
struct Holder {
    number: u64,
    since: Duration,
    /// Whom to wake when it is given up.
    waker: Option<Waker>,
    is_given_up: bool,
}

impl Gate {
    const fn new() -> Self {
        Self {
            servers: BTreeMap::new(),
            going: Line(VecDeque::new()),
            next: 0,
            turn: Duration::ZERO,
            begun: 0,
            gone_on: 0,
        }
    }

    fn begin_turn(&mut self, now: Duration) {
        if now != self.turn {
            (self.turn, self.begun, self.gone_on) = (now, 0, 0);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Places {
    fn holder(&self, number: u64) -> Option<usize> {
        self.under_way.binary_search_by_key(&number, |holder| holder.number).ok()
    }

    /// Gives up the oldest handshake if it has had its second; otherwise, when that will be.
    fn give_up_oldest(&mut self, now: Duration, behind: &mut Behind) -> Result<(), Duration> {
        let Some(oldest) = self.under_way.iter_mut().find(|holder| !holder.is_given_up) else {
            return Ok(());
        };
        if oldest.since + HASTE > now {
            return Err(oldest.since + HASTE);
        }
        oldest.is_given_up = true;
        behind.wake.extend(oldest.waker.take());
        Ok(())
    }
}

/// What somebody in the line waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// To be woken.
    Wake,
    /// That too, and this time.
    Until(Duration),
}

/// A place in the line, then one under way. Dropping it gives up either.
#[derive(Debug)]
pub(super) struct Turn {
    at: At,
    /// Whose places it is about.
    server: u64,
    /// Its number among those who wait to go on.
    goes_on: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// Not in the line yet.
    New,
    /// In the line, under this number.
    Waits(u64),
    /// Under way, under this number.
    Begun(u64),
}

impl Turn {
    /// With this server, by its number.
    pub(super) fn new(server: u64) -> Self {
        Self { at: At::New, server, goes_on: None }
    }

    /// Whether its turn has come, at this time; wakes when it may have. What it waits for, if not.
    pub(super) fn poll(
        &mut self,
        cap: usize,
        now: Duration,
        cx: &mut Context<'_>,
    ) -> Result<(), Wait> {
        look(cx, |gate, behind| self.poll_at(gate, cap, now, behind))
    }

    fn poll_at(
        &mut self,
        gate: &mut Gate,
        cap: usize,
        now: Duration,
        behind: &mut Behind,
    ) -> Result<(), Wait> {
        gate.begin_turn(now);
        let (number, may_begin) = (gate.number(), gate.begun < BEGIN_PER_TURN);
        let places = gate.servers.entry(self.server).or_default();
        let place = match self.at {
            At::Begun(_) => return Ok(()),
            At::Waits(number) => places.line.place(number),
            At::New => None,
        };
        let (is_first, has_place) = (places.line.is_first(place), places.under_way.len() < cap);
        if is_first && may_begin && has_place {
            places.line.leave(place, behind);
            let holder = Holder { number, since: now, waker: None, is_given_up: false };
            places.under_way.push_back(holder);
            self.at = At::Begun(number);
            // There may be room for another.
            places.line.wake_first(behind);
            gate.begun += 1;
            return Ok(());
        }
        places.line.wait(place, number, behind);
        if place.is_none() {
            self.at = At::Waits(number);
        }
        match (is_first, has_place) {
            (false, _) => {}
            // In the next turn.
            (true, true) => behind.asks_again = true,
            (true, false) => places.give_up_oldest(now, behind).map_err(Wait::Until)?,
        }
        Err(Wait::Wake)
    }

    /// Whether one that is under way may go on at this time, by one piece of what its peer sent; wakes when it may. One
    /// that never asked for its turn, as a client's, always may.
    pub(super) fn poll_go_on(&mut self, now: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let At::Begun(_) = self.at else { return Poll::Ready(()) };
        look(cx, |gate, behind| self.poll_go_on_at(gate, now, behind))
    }

    fn poll_go_on_at(&mut self, gate: &mut Gate, now: Duration, behind: &mut Behind) -> Poll<()> {
        gate.begin_turn(now);
        let place = self.goes_on.and_then(|number| gate.going.place(number));
        let is_first = gate.going.is_first(place);
        if is_first && gate.gone_on < GO_ON_PER_TURN {
            gate.going.leave(place, behind);
            gate.gone_on += 1;
            self.goes_on = None;
            gate.going.wake_first(behind);
            return Poll::Ready(());
        }
        let number = gate.number();
        gate.going.wait(place, number, behind);
        if place.is_none() {
            self.goes_on = Some(number);
        }
        if is_first {
            // In the next turn.
            behind.asks_again = true;
        }
        Poll::Pending
    }

    /// Whether this handshake has been given up for another; wakes when it is.
    pub(super) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let At::Begun(number) = self.at else { return Poll::Pending };
        look(cx, |gate, behind| {
            let Some(places) = gate.servers.get_mut(&self.server) else { return Poll::Pending };
            let Some(place) = places.holder(number) else { return Poll::Pending };
            let holder = &mut places.under_way[place];
            if holder.is_given_up {
                return Poll::Ready(());
            }
            std::mem::swap(&mut holder.waker, &mut behind.waker);
            Poll::Pending
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut behind = Behind::default();
        // A thread that ends has no line any more.
        let _ = GATE.try_with(|gate| self.leave(&mut gate.borrow_mut(), &mut behind));
        behind.catch_up();
    }
}

impl Turn {
    fn leave(&self, gate: &mut Gate, behind: &mut Behind) {
        if let Some(place) = self.goes_on.and_then(|number| gate.going.place(number)) {
            gate.going.leave(Some(place), behind);
            gate.going.wake_first(behind);
        }
        let Some(places) = gate.servers.get_mut(&self.server) else { return };
        match self.at {
            At::New => return,
            At::Begun(number) => {
                let place = places.holder(number);
                let held = place.and_then(|place| places.under_way.remove(place));
                behind.drop.extend(held.and_then(|holder| holder.waker));
            }
            At::Waits(number) => {
                let place = places.line.place(number);
                places.line.leave(place, behind);
            }
        }
        places.line.wake_first(behind);
        if places.under_way.is_empty() && places.line.0.is_empty() {
            gate.servers.remove(&self.server);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Somebody who wants to pass. Each test has a thread, and so a gate, of its own.
    struct Somebody {
        turn: Turn,
        woken: Arc<Count>,
    }

    impl Somebody {
        fn new() -> Self {
            Self { turn: Turn::new(1), woken: Arc::default() }
        }

        fn poll(&mut self, cap: usize, now_ms: u64) -> Result<(), Wait> {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.turn.poll(cap, Duration::from_millis(now_ms), &mut Context::from_waker(&waker))
        }

        fn passes(&mut self) -> bool {
            self.poll(2, 0).is_ok()
        }

        fn goes_on(&mut self, now_ms: u64) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            let now = Duration::from_millis(now_ms);
            self.turn.poll_go_on(now, &mut Context::from_waker(&waker)).is_ready()
        }

        fn is_given_up(&self) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.turn.poll_given_up(&mut Context::from_waker(&waker)).is_ready()
        }

        fn was_woken(&self) -> bool {
            self.woken.0.swap(0, Ordering::Relaxed) > 0
        }
    }

    fn crowd(count: usize) -> Vec<Somebody> {
        std::iter::repeat_with(Somebody::new).take(count).collect()
    }

    #[test]
    fn as_many_as_may_pass_and_the_others_in_their_order() {
        let mut all = crowd(5);
        let passed: Vec<_> = all.iter_mut().map(Somebody::passes).collect();
        assert_eq!(passed, [true, true, false, false, false]);
        drop(all.remove(0)); // passed, and is done
        assert!(!all[2].passes(), "it is not the first in the line");
        assert!(all[1].was_woken() && all[1].passes());
        drop(all.remove(2)); // gives up its place in the line
        drop(all.remove(0));
        let last = &mut all[1];
        assert!(last.was_woken() && last.passes());
    }

    #[test]
    fn who_is_woken_and_leaves_wakes_the_next() {
        let mut all = crowd(4);
        for one in &mut all {
            one.passes();
        }
        drop(all.remove(0));
        assert!(all[1].was_woken());
        drop(all.remove(1)); // it was woken, and never polled
        assert!(all[1].was_woken() && all[1].passes());
        drop(all);
        let mut later = Somebody::new();
        assert!(later.passes(), "nobody is left behind");
    }

    #[test]
    fn so_many_begin_in_a_turn_and_the_first_of_the_others_asks_again() {
        let mut all = crowd(10);
        for (turn, begins) in [(1, 0..4), (2, 4..8), (3, 8..10)] {
            for (place, one) in all.iter_mut().enumerate().skip(begins.start) {
                let passes = one.poll(100, turn).is_ok();
                assert_eq!(passes, begins.contains(&place), "{place} in turn {turn}");
            }
            let first_left = all.get(begins.end);
            assert!(
                first_left.is_none_or(Somebody::was_woken),
                "nobody would begin in turn {turn}"
            );
        }
    }

    #[test]
    fn so_many_of_those_under_way_go_on_in_a_turn_each_in_its_order() {
        let mut all = crowd(8);
        for (place, one) in all.iter_mut().enumerate() {
            assert!(one.poll(100, place as u64 / 4).is_ok());
        }
        let goes_on: Vec<_> = all.iter_mut().map(|one| one.goes_on(2)).collect();
        assert_eq!(goes_on, [true, true, true, true, false, false, false, false]);
        assert!(all[4].was_woken(), "nobody would go on in the next turn");
        assert!(!all[0].goes_on(3), "others came first");
        drop(all.remove(4)); // it was woken, and never polled
        assert!(all[4].was_woken() && all[4].goes_on(3));
        assert!(!all[6].goes_on(3), "not the first");
        assert!(all[5].was_woken() && all[5].goes_on(3));
        assert!(all[6].was_woken() && all[6].goes_on(3));
        assert!(all[0].was_woken() && all[0].goes_on(3));
        assert!(!all[1].goes_on(3), "four have");
        let mut later = Somebody::new();
        assert!(later.poll(100, 3).is_ok(), "beginning is counted apart");
        assert!(Somebody::new().goes_on(3), "who never asked is not held back");
    }

    #[test]
    fn places_are_a_server_s_own_and_turns_are_not() {
        let mut all = crowd(8);
        for other in &mut all[4..] {
            other.turn = Turn::new(2);
        }
        let outcomes: Vec<_> = all.iter_mut().map(|one| one.poll(2, 1).is_ok()).collect();
        assert_eq!(outcomes, [true, true, false, false, true, true, false, false]);
        drop(all.remove(0));
        assert!(all[1].was_woken() && !all[5].was_woken(), "the next of its own line");
        assert!(all[1].poll(2, 1).is_err(), "four have begun");
        assert!(all[1].poll(2, 2).is_ok());
    }

    #[test]
    fn who_falls_silent_has_a_second_while_others_wait() {
        let mut all = crowd(4);
        assert!(all[0].poll(2, 0).is_ok() && all[1].poll(2, 400).is_ok());
        assert!(!all[0].is_given_up() && !all[1].is_given_up());
        let later = Duration::from_millis(1000);
        assert_eq!(all[2].poll(2, 900), Err(Wait::Until(later)), "each has its second");
        assert_eq!(all[3].poll(2, 950), Err(Wait::Wake));
        assert_eq!(all[2].poll(2, 1000), Err(Wait::Wake));
        assert!(all[0].was_woken() && all[0].is_given_up(), "the oldest goes");
        assert!(!all[1].is_given_up());
        drop(all.remove(0));
        assert!(all[1].was_woken() && all[1].poll(2, 1001).is_ok());
        assert!(all[2].was_woken());
        assert_eq!(all[2].poll(2, 1001), Err(Wait::Until(Duration::from_millis(1400))));
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }

    #[test]
    fn a_waker_that_panics_takes_no_other_handshake_with_it() {
        let mut all = crowd(2);
        assert!(all[0].poll(1, 0).is_ok());
        let waker = Waker::from(Arc::new(Panics));
        let mut turn = Turn::new(1);
        assert!(turn.poll(1, Duration::ZERO, &mut Context::from_waker(&waker)).is_err());
        assert!(all[1].poll(1, 0).is_err());
        drop(all.remove(0)); // wakes it
        drop(turn);
        assert!(all[0].was_woken() && all[0].poll(1, 0).is_ok());
    }

    /// A waker of somebody's own executor, whose last copy takes a handshake with it.
    #[derive(Default)]
    struct Holds(#[expect(dead_code, reason = "it is there to be dropped")] Option<Turn>);

    impl Wake for Holds {
        fn wake(self: Arc<Self>) {}
    }

    /// A turn that waits in all lines it can, for a waker that holds another.
    fn waits_for_another(cap: usize) -> Turn {
        let mut inner = Turn::new(1);
        let _ = inner.poll(cap, Duration::ZERO, &mut Context::from_waker(Waker::noop()));
        let waker = Waker::from(Arc::new(Holds(Some(inner))));
        let (mut turn, mut cx) = (Turn::new(1), Context::from_waker(&waker));
        let _ = turn.poll(cap, Duration::ZERO, &mut cx);
        let _ = turn.poll_given_up(&mut cx);
        for _ in 0..=GO_ON_PER_TURN {
            let _ = turn.poll_go_on(Duration::ZERO, &mut cx);
        }
        turn
    }

    #[test]
    fn a_waker_that_is_dropped_may_take_other_handshakes_with_it() {
        for cap in [0, 1, 2, 100] {
            drop(waits_for_another(cap));
            let mut turn = waits_for_another(cap);
            let mut cx = Context::from_waker(Waker::noop());
            let _ = turn.poll(cap, Duration::ZERO, &mut cx);
            let _ = turn.poll_given_up(&mut cx);
            let _ = turn.poll_go_on(Duration::ZERO, &mut cx);
            drop(turn);
            // In a later turn it passes, and leaves its lines.
            let mut turn = waits_for_another(cap);
            let _ = turn.poll(100, Duration::from_secs(1), &mut cx);
            let _ = turn.poll_go_on(Duration::from_secs(1), &mut cx);
            drop(turn);
            GATE.with_borrow(|gate| {
                assert!(gate.servers.is_empty() && gate.going.0.is_empty(), "something is left");
            });
        }
    }
}
