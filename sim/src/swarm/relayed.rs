//! A service of tasks that relay: a client's task dials upstreams in turn, and bridges the two connections.
//!
//! Peers expect of it what they expect of the relay that is a handler. And some are given up in the middle, as long as
//! clients still come: both sides have to see a reset then, whatever was under way.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slipring::{Conn, DialError, dial, relay, sleep, timeout};

use crate::dice::Dice;

/// A client for whom no dial is free asks again after this long.
const RETRY: Duration = Duration::from_millis(20);
/// How long a relay goes on that is given up, at the most, microseconds.
const GIVEN_UP_US: u64 = 2_000_000;

/// What the tasks of one reactor share.
#[derive(Debug)]
pub(super) struct Relayed {
    upstreams: Vec<SocketAddr>,
    next: Cell<usize>,
    dice: RefCell<Dice>,
    /// Nothing is given up from this time on.
    calm_from: Duration,
}

impl Relayed {
    pub(super) fn new(
        reactor: usize,
        upstreams: Vec<SocketAddr>,
        dice: Dice,
        calm_from: Duration,
    ) -> Rc<Self> {
        let (next, dice) = (Cell::new(reactor), RefCell::new(dice));
        Rc::new(Self { upstreams, next, dice, calm_from })
    }

    fn gives_up_after(&self) -> Option<Duration> {
        let dice = &mut *self.dice.borrow_mut();
        let gives_up = slipring::now() < self.calm_from && dice.permille(150);
        gives_up.then(|| Duration::from_micros(dice.log_between(1_000, GIVEN_UP_US)))
    }

    /// Serves a client: what a task of the runtime does.
    pub(super) async fn serve(self: Rc<Self>, mut client: Conn) {
        let first = self.next.get();
        self.next.set(first + 1);
        for turn in first..first + self.upstreams.len() {
            let upstream = loop {
                match dial(self.upstreams[turn % self.upstreams.len()]).await {
                    Err(DialError::NotBegun(_)) => sleep(RETRY).await,
                    dialed => break dialed,
                }
            };
            let Ok(upstream) = upstream else { continue };
            match self.gives_up_after() {
                Some(after) => drop(timeout(after, relay(client, upstream)).await),
                None => drop(relay(client, upstream).await),
            }
            return;
        }
        client.abort();
    }
}
