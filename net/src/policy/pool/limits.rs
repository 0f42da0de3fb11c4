//! How many connections a pool has, and for how long it keeps them: every knob, its default and where that is from.
//!
//! † = our own choice.

use std::time::Duration;

use crate::policy::backoff::{Backoff, BackoffError};

/// More places are taken for a mistake: a process has no descriptors for them.
const PLACES_MAX: u32 = 1 << 20;

/// How often a room looks after its pool ([`Book::maintain`](super::Book::maintain)): 1 s †. What is counted in seconds
/// cannot be shorter.
pub const MAINTENANCE: Duration = Duration::from_secs(1);

/// How many connections there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As many as are needed. The default, with none idle and 10 at most, for each endpoint (r2d2, bb8, HikariCP).
    Dynamic {
        /// So many are kept idle, for those who come next.
        min_idle: u32,
        /// So many there are at most.
        max: u32,
    },
    /// So many, always.
    Fixed(u32),
}

impl Mode {
    /// Connections at most.
    #[must_use]
    pub fn max(self) -> u32 {
        match self {
            Self::Dynamic { max, .. } | Self::Fixed(max) => max,
        }
    }

    /// Connections that are kept idle. All that are not in use, if their number is fixed.
    #[must_use]
    pub fn min_idle(self) -> u32 {
        match self {
            Self::Dynamic { min_idle, .. } => min_idle,
            Self::Fixed(max) => max,
        }
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self::Dynamic { min_idle: 0, max: 10 }
    }
}

/// The knobs of a pool. `None` is never.
///
/// ```
/// use std::time::Duration;
/// use slipring::policy::pool::{Mode, PoolLimits};
///
/// let limits = PoolLimits {
///     checkout_timeout: Some(Duration::from_secs(2)),
///     ..PoolLimits::of(Mode::Fixed(8))
/// };
/// assert_eq!(limits.check(), Ok(()));
/// let never_pinged = PoolLimits { keep_alive: Some(Duration::from_secs(120)), ..PoolLimits::default() };
/// assert!(never_pinged.check().unwrap_err().to_string().contains("never sent"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// How many connections. Default: none idle, 10 at most (HikariCP, r2d2, bb8).
    pub mode: Mode,
    /// Dials under way at the same time. Default 16 †.
    pub dials_max: u32,
    /// Callers that wait at the same time, for a connection or for a dial; who comes then is refused at once. Default
    /// 1024 (Envoy's pending requests).
    pub waiters_max: u32,
    /// For how long a caller waits. Default 5 s: a caller that waits for 30 s, as elsewhere, is gone before it is
    /// served. For the room: it has the timers.
    pub checkout_timeout: Option<Duration>,
    /// Idle for so long, a connection is closed, unless there would be fewer than `min_idle`. Default 90 s (Go); 10 min
    /// if some are kept idle (HikariCP). Without effect if the number is fixed.
    pub idle_timeout: Option<Duration>,
    /// So long after it was established, a connection is closed, minus 0..25 % that are drawn for each, so that they
    /// do not end together. One in use is not ended by it, but closed when it comes back. Default 30 min (HikariCP).
    pub max_lifetime: Option<Duration>,
    /// Idle for so long, minus 0..20 % that are drawn for each, a connection is pinged. Default: 2 min if some are kept
    /// idle (HikariCP), else never: the idle timeout comes before.
    pub keep_alive: Option<Duration>,
    /// Idle for so long, a connection is looked at before it is given out. Zero: always. Default 30 s (PgBouncer).
    pub validate_after: Option<Duration>,
    /// So long a look, or a ping, may take. Default 1 s †. For the room: it has the timers.
    pub validate_timeout: Duration,
    /// In use for so long, a connection is taken for leaked: there is a warning that says where it was taken. Default
    /// 60 s † (HikariCP has this too, off by default).
    pub leak_after: Option<Duration>,
    /// A dial that nobody needs any more is cancelled when it has been under way for so long; until then its connection
    /// is worth waiting for. Zero: at once. Default 1 s †: the first segment or its answer is lost by then.
    pub hung_after: Duration,
    /// For how long the pool dials none of its own after a dial that failed, longer with each failure in a row.
    /// Callers' dials are held up only while connections are in use that could come back to them. Default
    /// [`Backoff::refill`]: 100 ms, doubled up to 5 s, full jitter. Likewise, without jitter, after a connection of its
    /// own that ended before its first use.
    pub refill: Backoff,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self::of(Mode::default())
    }
}

impl PoolLimits {
    /// The defaults for so many connections: some of them depend on whether any are kept idle.
    #[must_use]
    pub fn of(mode: Mode) -> Self {
        let keeps_idle = mode.min_idle() > 0;
        Self {
            mode,
            dials_max: 16,
            waiters_max: 1024,
            checkout_timeout: Some(Duration::from_secs(5)),
            idle_timeout: Some(Duration::from_secs(if keeps_idle { 600 } else { 90 })),
            max_lifetime: Some(Duration::from_secs(30 * 60)),
            keep_alive: keeps_idle.then_some(Duration::from_secs(120)),
            validate_after: Some(Duration::from_secs(30)),
            validate_timeout: Duration::from_secs(1),
            leak_after: Some(Duration::from_secs(60)),
            hung_after: Duration::from_secs(1),
            refill: Backoff::refill(),
        }
    }

    /// For a database on a machine of its own: `cores * 2 + spindles` connections at most (HikariCP, from PostgreSQL's
    /// wiki). `cores` and `spindles` are those of the database; a solid-state disk is no spindle, or few.
    #[must_use]
    pub fn sized_for(cores: u32, spindles: u32) -> Self {
        let max = cores.saturating_mul(2).saturating_add(spindles).clamp(1, PLACES_MAX);
        Self::of(Mode::Dynamic { min_idle: 0, max })
    }

    /// Whether these can be met, and by themselves make sense.
    ///
    /// # Errors
    /// [`PoolLimitsError`]: the first thing that does not.
    pub fn check(&self) -> Result<(), PoolLimitsError> {
        let (max, min_idle) = (self.mode.max(), self.mode.min_idle());
        match max {
            0 => return Err(PoolLimitsError::NoPlaces),
            1..=PLACES_MAX => {}
            _ => return Err(PoolLimitsError::TooManyPlaces { max }),
        }
        if min_idle > max {
            return Err(PoolLimitsError::MinIdleAboveMax { min_idle, max });
        }
        if self.dials_max == 0 {
            return Err(PoolLimitsError::NoDials);
        }
        if self.waiters_max == 0 {
            return Err(PoolLimitsError::NoWaiters);
        }
        let seldom = [
            ("idle_timeout", self.idle_timeout),
            ("max_lifetime", self.max_lifetime),
            ("keep_alive", self.keep_alive),
            ("leak_after", self.leak_after),
        ];
        for (knob, value) in seldom {
            if let Some(value) = value.filter(|value| *value < MAINTENANCE) {
                return Err(PoolLimitsError::BelowMaintenance { knob, value });
            }
        }
        self.check_waits()?;
        self.check_ages(min_idle < max, min_idle > 0)
    }

    fn check_waits(&self) -> Result<(), PoolLimitsError> {
        let validate_timeout = self.validate_timeout;
        if validate_timeout.is_zero() {
            return Err(PoolLimitsError::NoTimeToValidate);
        }
        if let Some(checkout_timeout) = self.checkout_timeout {
            if checkout_timeout.is_zero() {
                return Err(PoolLimitsError::NoTimeToWait);
            }
            if validate_timeout >= checkout_timeout {
                return Err(PoolLimitsError::ValidateTimeoutTooLong {
                    validate_timeout,
                    checkout_timeout,
                });
            }
        }
        Ok(self.refill.check()?)
    }

    fn check_ages(&self, is_dynamic: bool, keeps_idle: bool) -> Result<(), PoolLimitsError> {
        let within =
            |value: Duration, bound: Option<Duration>| bound.filter(|bound| value >= *bound);
        if let Some(idle_timeout) = self.idle_timeout.filter(|_| is_dynamic)
            && let Some(max_lifetime) = within(idle_timeout, self.max_lifetime)
        {
            return Err(PoolLimitsError::IdleTimeoutTooLong { idle_timeout, max_lifetime });
        }
        let Some(keep_alive) = self.keep_alive else { return Ok(()) };
        if let Some(bound) = within(keep_alive, self.max_lifetime) {
            return Err(PoolLimitsError::NeverPinged { keep_alive, knob: "max_lifetime", bound });
        }
        if let Some(bound) = within(keep_alive, self.idle_timeout.filter(|_| !keeps_idle)) {
            return Err(PoolLimitsError::NeverPinged { keep_alive, knob: "idle_timeout", bound });
        }
        Ok(())
    }
}

/// Why limits of a pool make no sense. `Display` is one line: the cause, then the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolLimitsError {
    /// No connection may be had.
    #[error("a pool of 0 connections gives nobody one; let it have at least 1")]
    NoPlaces,
    /// More than a process has descriptors for.
    #[error(
        "a pool of {max} connections is more than a process has descriptors for; say at most {PLACES_MAX}"
    )]
    TooManyPlaces {
        /// Those asked for.
        max: u32,
    },
    /// More idle than there may be.
    #[error(
        "{min_idle} connections are to be kept idle and {max} may be had; lower the one or raise the other"
    )]
    MinIdleAboveMax {
        /// Those to be kept idle.
        min_idle: u32,
        /// Those there may be.
        max: u32,
    },
    /// None would ever be dialed.
    #[error("with 0 dials at the same time no connection ever comes about; allow at least 1")]
    NoDials,
    /// Nobody could wait for a dial.
    #[error(
        "with 0 waiters nobody can wait for a dial, so none is made; allow at least 1, and bound the wait by \
         checkout_timeout"
    )]
    NoWaiters,
    /// Shorter than it is looked at.
    #[error(
        "{knob} is {value:?}, but pools are looked after once a second; say at least 1 s, or never"
    )]
    BelowMaintenance {
        /// Which one.
        knob: &'static str,
        /// What it is.
        value: Duration,
    },
    /// Every look at a connection would fail.
    #[error("with 0 s for validating, all that is looked at is taken for dead; give it a second")]
    NoTimeToValidate,
    /// Every wait would fail.
    #[error(
        "with 0 s for a checkout, only idle connections can be had and none is dialed; give it more, or never"
    )]
    NoTimeToWait,
    /// One hung look would fail the checkout.
    #[error(
        "validating may take {validate_timeout:?}, and the whole checkout {checkout_timeout:?}: one dead connection \
         would fail it; make validate_timeout the shorter one"
    )]
    ValidateTimeoutTooLong {
        /// How long a look may take.
        validate_timeout: Duration,
        /// How long a caller waits.
        checkout_timeout: Duration,
    },
    /// The pauses before the pool dials on its own make no sense.
    #[error(transparent)]
    Refill(#[from] BackoffError),
    /// Idle connections would end by their lifetime only.
    #[error(
        "idle_timeout ({idle_timeout:?}) is not below max_lifetime ({max_lifetime:?}), so it ends nothing; lower it, \
         or set it to never"
    )]
    IdleTimeoutTooLong {
        /// How long a connection may be idle.
        idle_timeout: Duration,
        /// How long it may be.
        max_lifetime: Duration,
    },
    /// Connections are closed before it.
    #[error(
        "keep_alive ({keep_alive:?}) is not below {knob} ({bound:?}), which closes the connection first, so a ping is \
         never sent; lower it, or set it to never"
    )]
    NeverPinged {
        /// After how long a connection would be pinged.
        keep_alive: Duration,
        /// What closes it before.
        knob: &'static str,
        /// After how long.
        bound: Duration,
    },
}
