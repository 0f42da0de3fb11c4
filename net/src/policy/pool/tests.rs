//! The book of a pool: every state with every call, and what each rule is for, a topic a file. `tests/model.rs` has the
//! sequences that nobody thought of, `tests/knobs.rs` the limits.

mod callers;
mod cells;
mod connections;
mod dials;
mod fresh;
mod knobs;
mod model;
mod owner;

use super::*;
use crate::failure::Dial;
use crate::policy::backoff::Backoff;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A book, and a room that does nothing but note what it is asked for. Tokens are free for all.
struct Room {
    book: Book,
    now: Duration,
    rng: fastrand::Rng,
}

impl Room {
    fn new(limits: PoolLimits) -> Self {
        let rng = fastrand::Rng::with_seed(3);
        Self { book: Book::new(limits).expect("sound limits"), now: Duration::ZERO, rng }
    }

    fn of(mode: Mode) -> Self {
        Self::new(PoolLimits::of(mode))
    }

    #[track_caller]
    fn checkout(&mut self) -> Checkout {
        self.book.checkout(self.now, Location::caller())
    }

    #[track_caller]
    fn hit(&mut self) -> Place {
        let Checkout::Hit(place) = self.checkout() else { panic!("not at once") };
        place
    }

    #[track_caller]
    fn wait(&mut self) -> Ticket {
        let Checkout::Wait(ticket) = self.checkout() else { panic!("not to wait") };
        ticket
    }

    fn acts(&mut self) -> Vec<Act> {
        std::iter::from_fn(|| self.book.poll_act(self.now, || true)).collect()
    }

    fn dials(&mut self) -> Vec<Place> {
        let of = |act| if let Act::Dial(place) = act { place } else { panic!("{act:?}") };
        self.acts().into_iter().map(of).collect()
    }

    #[track_caller]
    fn dialed(&mut self, place: Place) {
        assert!(self.book.dialed(place, self.now, &mut self.rng));
    }

    fn fail(&mut self, place: Place) -> bool {
        let error = Arc::new(Error::new(Dial::Refused));
        self.book.dial_failed(place, self.now, error, &mut self.rng)
    }

    #[track_caller]
    fn claim(&mut self, ticket: Ticket) -> Place {
        let Claim::Place(place) = self.book.claim(ticket, self.now) else { panic!("no place") };
        place
    }

    fn waits(&mut self, ticket: Ticket) -> bool {
        matches!(self.book.claim(ticket, self.now), Claim::Wait)
    }

    #[track_caller]
    fn checkin(&mut self, place: Place) {
        assert!(self.book.checkin(place, self.now, Return::Clean));
    }

    /// So many connections in use.
    #[track_caller]
    fn out(&mut self, count: usize) -> Vec<Place> {
        let tickets: Vec<_> = (0..count).map(|_| self.wait()).collect();
        for place in self.dials() {
            self.dialed(place);
        }
        assert_eq!(self.acts().len(), count, "each is woken");
        tickets.into_iter().map(|ticket| self.claim(ticket)).collect()
    }

    /// So many idle ones, the last of which is taken first.
    #[track_caller]
    fn idle(&mut self, count: usize) -> Vec<Place> {
        let places = self.out(count);
        for place in &places {
            self.checkin(*place);
        }
        places
    }

    fn pass(&mut self, span: Duration) -> Vec<Act> {
        self.now += span;
        self.book.maintain(self.now);
        self.acts()
    }
}

fn up_to(max: u32) -> Mode {
    Mode::Dynamic { min_idle: 0, max }
}
