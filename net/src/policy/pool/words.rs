//! The words a pool's book and its room talk in: numbers of places and waiters, answers, acts, counts.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::PoolSnapshot;
use crate::failure::Error;

/// Where one connection is kept, from the beginning of its dial to the end of its closing. Of the next connection that
/// is kept there, the generation is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of the room's array. Below the most places there have ever been.
    pub index: u32,
    /// Which use of that index this is.
    pub generation: u32,
}

/// Who waits for a connection, from [`Checkout::Wait`] until what came of it is claimed, or nobody wants it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Of the room's array of wakers.
    pub index: u32,
    /// Which use of that index this is.
    pub generation: u32,
}

/// How a place stands. One that is free has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its connection is being established.
    Dialing,
    /// It waits to be taken.
    Idle,
    /// Somebody has it, or has been given it and not come for it yet.
    CheckedOut,
    /// It is being looked at, before it is given out or because it was idle for long.
    Validating,
    /// Its connection is being closed, or its dial cancelled.
    Closing,
}

/// What came of asking for a connection.
#[derive(Clone, Debug)]
#[must_use]
pub enum Checkout {
    /// Take this one.
    Hit(Place),
    /// Wait until the ticket is called ([`Act::Wake`]), and claim it.
    Wait(Ticket),
    /// As many wait already as may.
    Saturated(PoolSnapshot),
    /// Nothing is given out any more.
    Draining,
}

/// What came of waiting for one. All but `Wait` end the ticket.
#[derive(Clone, Debug)]
#[must_use]
pub enum Claim {
    /// Take this one.
    Place(Place),
    /// Nothing yet.
    Wait,
    /// A dial failed, and nothing else is under way for it.
    Failed(Arc<Error>),
    /// The pool drains.
    Draining,
    /// Time is up ([`Book::expire`](super::Book::expire) only).
    TimedOut {
        /// The pool at that moment, who waited included.
        snapshot: PoolSnapshot,
        /// Why the last dial failed, if none went well since.
        last_dial_error: Option<Arc<Error>>,
    },
    /// There is no such ticket any more.
    Stale,
}

/// How a connection comes back from who had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Ready for the next.
    Clean,
    /// With something on its way: what comes next would not be the next one's.
    Unclean,
    /// Not to be used again, says who had it.
    Discard,
    /// Another reactor waits for a token, and this one has more than its share: closed ([`Cause::GivenUp`]), also if
    /// callers wait here, and its token is released. The pool dials none of its own for as long as its longest pause.
    Yielded,
}

/// What the room has to do. The table is at the top of [`Book`](super::Book)'s module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Act {
    /// Wake who waits with this ticket: a claim has an answer now.
    Wake(Ticket),
    /// Begin a dial, for the pool.
    Dial(Place),
    /// Look whether the connection is alive: somebody waits for it.
    Validate(Place),
    /// Look whether the connection is alive: it has been idle for long.
    Ping(Place),
    /// Give up this dial.
    CancelDial(Place),
    /// Close the connection, and end what is being done with it.
    Close(Place, Cause),
    /// Warn: a connection has been in use for too long.
    Leaked {
        /// Where it is kept.
        place: Place,
        /// For how long.
        held: Duration,
        /// Where it was taken.
        at: &'static Location<'static>,
    },
    /// Give one token back.
    Release,
}

/// Why a pool closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody wanted it for long.
    IdleTimeout,
    /// It is old.
    Lifetime,
    /// It did not pass a look, or a ping.
    Invalid,
    /// It was quiet for as long as another one that turned out to be dead.
    Distrusted,
    /// It came back with something on its way.
    Unclean,
    /// Who had it said so.
    Discarded,
    /// It has ended by itself, or something came that nobody asked for.
    Ended,
    /// There may be fewer now.
    Shrunk,
    /// Another reactor needs its token, and gets it: nothing is dialed here in between.
    GivenUp,
    /// The pool drains.
    Drained,
}

impl Cause {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::IdleTimeout,
        Self::Lifetime,
        Self::Invalid,
        Self::Distrusted,
        Self::Unclean,
        Self::Discarded,
        Self::Ended,
        Self::Shrunk,
        Self::GivenUp,
        Self::Drained,
    ];

    /// What it is called in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle",
            Self::Lifetime => "lifetime",
            Self::Invalid => "invalid",
            Self::Distrusted => "distrusted",
            Self::Unclean => "unclean",
            Self::Discarded => "discarded",
            Self::Ended => "ended",
            Self::Shrunk => "shrunk",
            Self::GivenUp => "given_up",
            Self::Drained => "drained",
        }
    }
}

/// How often what has happened, since the pool was made. `hits + waits + saturated + refused` are all checkouts;
/// `claimed + failed + timeouts + left`, and those that wait still, are all waits. A connection dialed for one caller
/// alone is neither a checkout nor a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolCounters {
    /// Checkouts that were served at once.
    pub hits: u64,
    /// Those that had to wait, be it for a dial.
    pub waits: u64,
    /// Those refused because as many waited as may.
    pub saturated: u64,
    /// Those refused because the pool drains.
    pub refused: u64,
    /// Waits that ended with a connection.
    pub claimed: u64,
    /// Waits that ended with a dial's error, or with a drain.
    pub failed: u64,
    /// Waits that ended because time was up.
    pub timeouts: u64,
    /// Waits that were given up by who waited.
    pub left: u64,
    /// Dials begun.
    pub dials: u64,
    /// Those of them that nobody waited for.
    pub refills: u64,
    /// Those of them for one caller alone ([`Book::dial_fresh`](super::Book::dial_fresh)).
    pub fresh: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Dials that were cancelled, or left by the one caller they were for.
    pub dials_cancelled: u64,
    /// Looks at connections before they were given out.
    pub validations: u64,
    /// Pings.
    pub pings: u64,
    /// Checkouts that were warned of.
    pub leaks: u64,
    /// Calls about a place or a ticket that was no more.
    pub stale: u64,
    /// Connections closed, by their causes in the order of [`Cause::ALL`].
    pub closes: [u64; Cause::ALL.len()],
}

impl PoolCounters {
    /// Connections closed for this cause.
    #[must_use]
    pub fn closed(&self, cause: Cause) -> u64 {
        self.closes[cause as usize]
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            waits: self.waits + other.waits,
            saturated: self.saturated + other.saturated,
            refused: self.refused + other.refused,
            claimed: self.claimed + other.claimed,
            failed: self.failed + other.failed,
            timeouts: self.timeouts + other.timeouts,
            left: self.left + other.left,
            dials: self.dials + other.dials,
            refills: self.refills + other.refills,
            fresh: self.fresh + other.fresh,
            dials_failed: self.dials_failed + other.dials_failed,
            dials_cancelled: self.dials_cancelled + other.dials_cancelled,
            validations: self.validations + other.validations,
            pings: self.pings + other.pings,
            leaks: self.leaks + other.leaks,
            stale: self.stale + other.stale,
            closes: std::array::from_fn(|cause| self.closes[cause] + other.closes[cause]),
        }
    }
}
