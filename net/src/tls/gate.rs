//! How many handshakes are under way on a reactor, how many begin in one of its turns, and who waits for that.
//!
//! ```text
//!   ClientHello is whole --> line, first come first served --> under way --> done
//!                                  ^                               |
//!                                  +---- no place: after a second, the oldest is given up
//! ```
//!
//! What a stranger gets for a ClientHello, a signature above all, is the dearest thing that can be had for so few
//! bytes. Therefore:
//!
//! * who has not sent one whole is nowhere here, and costs nothing but its connection;
//! * so many begin in a turn, and established connections have the rest of it;
//! * so many are under way, each with some five kilobytes of state. While others wait for a place, a handshake has a
//!   second, by far enough for an honest one: those who begin and fall silent keep nobody out for long.
//!
//! A reactor is a thread, so the line is the thread's (reactors that simulation runs in one thread have one together).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Handshakes that begin in one turn: some milliseconds, with the slowest signatures.
const BEGIN_PER_TURN: usize = 4;
/// What a handshake may take while others wait for its place.
const HASTE: Duration = Duration::from_secs(1);

thread_local! {
    static GATE: RefCell<Gate> = const { RefCell::new(Gate::new()) };
}

struct Gate {
    under_way: VecDeque<Holder>,
    /// Who waits: a number, in the order of arrival, and whom to wake.
    line: VecDeque<(u64, Waker)>,
    /// Of the next in the line, or under way.
    next: u64,
    /// The turn that runs, by its time, and how many have begun in it.
    turn: Duration,
    begun: usize,
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
            under_way: VecDeque::new(),
            line: VecDeque::new(),
            next: 0,
            turn: Duration::ZERO,
            begun: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn first(&self) -> Option<Waker> {
        self.line.front().map(|(_, waker)| waker.clone())
    }

    fn in_line(&self, number: u64) -> Option<usize> {
        self.line.binary_search_by_key(&number, |(waiter, _)| *waiter).ok()
    }

    fn holder(&mut self, number: u64) -> Option<usize> {
        self.under_way.binary_search_by_key(&number, |holder| holder.number).ok()
    }

    /// Gives up the oldest handshake if it has had its second; otherwise, when that will be.
    fn give_up_oldest(&mut self, now: Duration) -> Result<Option<Waker>, Duration> {
        let Some(oldest) = self.under_way.iter_mut().find(|holder| !holder.is_given_up) else {
            return Ok(None);
        };
        if oldest.since + HASTE > now {
            return Err(oldest.since + HASTE);
        }
        oldest.is_given_up = true;
        Ok(oldest.waker.take())
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
    pub(super) fn new() -> Self {
        Self { at: At::New }
    }

    /// Whether its turn has come, at this time; wakes when it may have. What it waits for, if not.
    pub(super) fn poll(
        &mut self,
        cap: usize,
        now: Duration,
        cx: &mut Context<'_>,
    ) -> Result<(), Wait> {
        // Woken outside: who is woken may look at the gate.
        let (outcome, woken) = GATE.with_borrow_mut(|gate| self.poll_at(gate, cap, now, cx));
        if let Some(woken) = woken {
            woken.wake();
        }
        outcome
    }

    fn poll_at(
        &mut self,
        gate: &mut Gate,
        cap: usize,
        now: Duration,
        cx: &mut Context<'_>,
    ) -> (Result<(), Wait>, Option<Waker>) {
        if now != gate.turn {
            (gate.turn, gate.begun) = (now, 0);
        }
        let place = match self.at {
            At::Begun(_) => return (Ok(()), None),
            At::Waits(number) => gate.in_line(number),
            At::New => None,
        };
        let is_first = place.map_or(gate.line.is_empty(), |place| place == 0);
        let (may_begin, has_place) = (gate.begun < BEGIN_PER_TURN, gate.under_way.len() < cap);
        if is_first && may_begin && has_place {
            if place.is_some() {
                gate.line.pop_front();
            }
            gate.begun += 1;
            let number = gate.number();
            let holder = Holder { number, since: now, waker: None, is_given_up: false };
            gate.under_way.push_back(holder);
            self.at = At::Begun(number);
            // There may be room for another.
            return (Ok(()), gate.first());
        }
        match place {
            Some(place) => gate.line[place].1.clone_from(cx.waker()),
            None => {
                let number = gate.number();
                gate.line.push_back((number, cx.waker().clone()));
                self.at = At::Waits(number);
            }
        }
        match (is_first, has_place) {
            (false, _) => (Err(Wait::Wake), None),
            // In the next turn.
            (true, true) => (Err(Wait::Wake), Some(cx.waker().clone())),
            (true, false) => match gate.give_up_oldest(now) {
                Ok(woken) => (Err(Wait::Wake), woken),
                Err(at) => (Err(Wait::Until(at)), None),
            },
        }
    }

    /// Whether this handshake has been given up for another; wakes when it is.
    pub(super) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let At::Begun(number) = self.at else { return Poll::Pending };
        GATE.with_borrow_mut(|gate| {
            let Some(place) = gate.holder(number) else { return Poll::Pending };
            let holder = &mut gate.under_way[place];
            if holder.is_given_up {
                return Poll::Ready(());
            }
            holder.waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A thread that ends has no line any more.
        let next = GATE.try_with(|gate| {
            let mut gate = gate.borrow_mut();
            match self.at {
                At::New => return None,
                At::Begun(number) => {
                    let place = gate.holder(number)?;
                    gate.under_way.remove(place);
                }
                At::Waits(number) => {
                    let place = gate.in_line(number)?;
                    gate.line.remove(place);
                }
            }
            gate.first()
        });
        if let Ok(Some(next)) = next {
            next.wake();
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
            Self { turn: Turn::new(), woken: Arc::default() }
        }

        fn poll(&mut self, cap: usize, now_ms: u64) -> Result<(), Wait> {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.turn.poll(cap, Duration::from_millis(now_ms), &mut Context::from_waker(&waker))
        }

        fn passes(&mut self) -> bool {
            self.poll(2, 0).is_ok()
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
}
