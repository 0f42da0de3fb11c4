//! Who waits on one reactor for a token of a cap: first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slipring_core::canary::{Canary, sings};

use super::Cap;
use crate::tasks::{put_aside, wake_waiter};

/// A token of a cap. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Token {
    /// Of the reactor, so that no count is written that others write too.
    line: Rc<Line>,
}

impl Drop for Token {
    fn drop(&mut self) {
        if !sings(Canary::CapTokenKept) {
            self.line.cap.give(self.line.reactor);
        }
    }
}

/// The line of one reactor.
#[derive(Debug)]
pub(crate) struct Line {
    cap: Arc<Cap>,
    reactor: usize,
    /// Who is woken while nobody waits here, when others want one.
    beside: RefCell<Option<Waker>>,
    /// In the order of arrival. The first is whom the cap wakes.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    arrivals: Cell<u64>,
}

impl Line {
    pub(crate) fn new(cap: Arc<Cap>, reactor: usize) -> Rc<Self> {
        let (beside, waiting) = (RefCell::default(), RefCell::default());
        Rc::new(Self { cap, reactor, beside, waiting, arrivals: Cell::new(0) })
    }

    /// Who is woken from now on when others want one, as long as nobody waits here.
    pub(crate) fn listen_beside(&self, waker: Option<Waker>) {
        put_aside(self.beside.replace(waker.clone()));
        if self.waiting.borrow().is_empty() {
            self.cap.listen(self.reactor, waker);
        }
    }

    /// Whether another reactor wants one.
    pub(crate) fn is_wanted_by_others(&self) -> bool {
        self.cap.is_wanted_by_others(self.reactor)
    }

    /// Whether this reactor, which has so many, is to give one up for another: see [`Cap::is_to_yield`].
    pub(crate) fn is_to_yield(&self, held: u32, had_for: Duration) -> bool {
        self.is_wanted_by_others() && self.cap.is_to_yield(held, had_for)
    }

    /// Whether anybody wants one that is not to be had: here, or on another reactor.
    pub(crate) fn is_pressed(&self) -> bool {
        !self.waiting.borrow().is_empty() || self.is_wanted_by_others()
    }

    fn token(self: &Rc<Self>) -> Token {
        Token { line: Rc::clone(self) }
    }

    /// Whether a token could not be had now, but by waiting.
    pub(crate) fn is_full(&self) -> bool {
        !self.waiting.borrow().is_empty() || self.cap.used() >= self.cap.cap()
    }

    /// One that is free, if nobody waits for it.
    pub(crate) fn try_take(self: &Rc<Self>) -> Option<Token> {
        (self.waiting.borrow().is_empty() && self.cap.try_take(self.reactor)).then(|| self.token())
    }

    /// The next one that is this caller's turn.
    pub(crate) fn take(self: &Rc<Self>) -> Taking {
        Taking { line: Rc::clone(self), number: None }
    }

    /// The next in the line is the first now, and tries by itself; with nobody, nobody is waited for.
    fn go_on(&self) {
        let next = self.waiting.borrow().front().map(|(_, waker)| waker.clone());
        match next {
            Some(waker) => {
                self.cap.listen(self.reactor, Some(waker.clone()));
                wake_waiter(waker);
            }
            None => {
                let beside = self.beside.borrow().clone();
                self.cap.listen(self.reactor, beside);
                self.cap.be_content(self.reactor);
            }
        }
    }
}

/// A wait in the line. Dropped, it is left.
pub(crate) struct Taking {
    line: Rc<Line>,
    number: Option<u64>,
}

impl Future for Taking {
    type Output = Token;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Token> {
        let waker = cx.waker().clone();
        let line = Rc::clone(&self.line);
        let Some(number) = self.number else {
            if let Some(token) = line.try_take() {
                return Poll::Ready(token);
            }
            let number = line.arrivals.get();
            line.arrivals.set(number + 1);
            self.number = Some(number);
            line.waiting.borrow_mut().push_back((number, waker));
            return self.poll_in_line(number);
        };
        let before = {
            let mut waiting = line.waiting.borrow_mut();
            let place = waiting.binary_search_by_key(&number, |(number, _)| *number);
            place.ok().map(|place| std::mem::replace(&mut waiting[place].1, waker))
        };
        put_aside(before);
        self.poll_in_line(number)
    }
}

impl Taking {
    fn poll_in_line(&mut self, number: u64) -> Poll<Token> {
        let line = Rc::clone(&self.line);
        let first = line.waiting.borrow().front().map(|(first, waker)| (*first, waker.clone()));
        let Some((_, waker)) = first.filter(|(first, _)| *first == number) else {
            return Poll::Pending;
        };
        // First: what is given back from here on wakes it.
        line.cap.listen(line.reactor, Some(waker));
        if !line.cap.take(line.reactor) {
            return Poll::Pending;
        }
        self.leave();
        Poll::Ready(line.token())
    }

    fn leave(&mut self) {
        let Some(number) = self.number.take() else { return };
        let (was_first, left) = {
            let mut waiting = self.line.waiting.borrow_mut();
            let place = waiting.binary_search_by_key(&number, |(number, _)| *number);
            let left = place.ok().and_then(|place| waiting.remove(place));
            (place == Ok(0), left)
        };
        put_aside(left.map(|(_, waker)| waker));
        if was_first {
            self.line.go_on();
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(taking: &mut Taking) -> Option<Token> {
        match Pin::new(taking).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(token) => Some(token),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_came_first_is_served_first_and_who_leaves_holds_up_nobody() {
        let cap = Arc::new(Cap::new(1, 1));
        let line = Line::new(Arc::clone(&cap), 0);
        let token = line.try_take().expect("free");
        let (mut first, mut second, mut third) = (line.take(), line.take(), line.take());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        assert!(poll(&mut third).is_none() && line.is_full());
        drop(token);
        assert!(line.try_take().is_none(), "it is for who waits");
        assert!(poll(&mut second).is_none(), "not its turn");
        drop(first);
        let token = poll(&mut second).expect("its turn");
        drop(third);
        drop(token);
        assert_eq!(cap.used(), 0);
        assert!(!cap.is_wanted_by_others(0) && line.try_take().is_some());
    }

    #[test]
    fn what_one_reactor_gives_back_another_gets() {
        let cap = Arc::new(Cap::new(1, 2));
        let (here, there) = (Line::new(Arc::clone(&cap), 0), Line::new(Arc::clone(&cap), 1));
        let token = here.try_take().expect("free");
        let mut taking = there.take();
        assert!(poll(&mut taking).is_none());
        let mut again = here.take();
        assert!(poll(&mut again).is_none());
        drop(token);
        assert!(poll(&mut again).is_none(), "it was passed to the other");
        drop(poll(&mut taking).expect("passed"));
        assert!(poll(&mut again).is_some());
    }
}
