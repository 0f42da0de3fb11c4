//! How often something may happen: so many a second, and so many at once after a rest.
//!
//! Is: a [`Rate`] as users write it, and the token bucket of it, for one owner ([`Bucket`]) or for all
//! reactors without a lock ([`SharedBucket`]). Is not: a queue: who finds no token is told when to ask again,
//! and in what order those who wait ask is their affair.
//!
//! A bucket holds `burst` tokens at most, is full at first, and gains `per_second` a second. It is kept as the
//! generic cell rate algorithm does, as one number: the *arrival*, the time at which the bucket will be full
//! again. Each token taken puts it off by what a token takes to grow.
//!
//! ```text
//! g = gcd(1_000_000, per_second)      T = 1_000_000 / g      M = per_second / g      D = burst * T
//!
//! a token takes T units to grow, a microsecond has M of them, a bucket is D units deep
//!
//!   now units = now_us * M                                    mod 2^64
//!   ahead     = arrival - now units                           mod 2^64, and 0 if that is in the past
//!   take      : ahead + T <= D  ?  arrival = now units + ahead + T
//!                               :  wait ceil((ahead + T - D) / M) microseconds
//! ```
//!
//! Why units: a token of 3 a second takes 333,333 1/3 us. In units it is a whole number at any rate, so
//! nothing is rounded, ever, and a bucket is as exact after a year as at first. Within any time `t` at most
//! `burst + t * per_second` tokens are taken, rounded down, and with enough demand exactly so many.
//!
//! Why modulo 2^64: the clock's full range times `M` is more than a word holds, but a difference of two times
//! is not. What a word cannot tell is an arrival in the future from one 2^64 units ago. The future is taken to
//! be what a bucket can be ahead by, and [`LAG_US_MAX`]; all else is the past. So a bucket that nobody used
//! for 213 days (rates that share no divisor with a million) or up to 580,000 years (rates that divide it) can
//! look emptier than it is: at most for as long as it takes to fill, and that minute. It never looks fuller.
//!
//! The time is a parameter, and no two reactors have read the clock at the same moment: one that is behind
//! finds the bucket emptier by as much, up to that minute; never fuller. Behind by more it finds it full,
//! which is wrong, but not for long: nothing panics, and the next arrival counts from there. All have to
//! count from the same zero, though: one that is behind for ever gets only what the others leave.

use std::fmt;
use std::str::FromStr;

use crate::sync::{AtomicU64, Ordering};

/// The highest rate. The clock counts microseconds, and would not tell a higher one from none.
pub const PER_SECOND_MAX: u32 = 1_000_000;

/// How far behind the latest a clock may be and still be told from one that is ahead, microseconds: longer
/// than any turn.
pub const LAG_US_MAX: u64 = 60_000_000;

const SECOND_US: u32 = 1_000_000;

// What a bucket can be ahead by is a small part of what a word holds, so there is much more past than future.
const _: () = assert!(
    u32::MAX as u64 * SECOND_US as u64 + LAG_US_MAX * (PER_SECOND_MAX as u64) < 1 << 53,
    "the future has to be small"
);

// -------------------------------------------------------------------------------------- the words

/// So many a second, and so many at once. Written `1000` or `1000/s`, with another burst than a second's
/// worth `1000:50` or `1000/s:50`.
///
/// ```
/// use slipring_core::Rate;
///
/// let rate: Rate = "1000/s:50".parse()?;
/// assert_eq!((rate.per_second(), rate.burst()), (1000, 50));
/// assert_eq!("1000".parse::<Rate>()?.burst(), 1000);
/// # Ok::<(), slipring_core::RateError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
    /// Units that a token takes to grow.
    token: u64,
    /// Units of a microsecond.
    micro: u64,
}

/// Why something is no rate. `Display` is one line: the cause, then the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// Nobody would ever come.
    #[error("a rate of 0 lets nobody in; write at least 1, or leave it out for no limit")]
    Zero,
    /// More than can be told apart.
    #[error(
        "{per_second} a second is more than is told apart; write at most 1000000, or leave it out for \
         no limit"
    )]
    TooFast {
        /// The rate asked for.
        per_second: u64,
    },
    /// A bucket without room for a token.
    #[error(
        "a burst of 0 lets nobody in; write at least 1, or leave it out for one second's worth"
    )]
    NoBurst,
    /// More tokens at once than are counted.
    #[error("a burst of {burst} is too much; write at most 4294967295")]
    BurstTooLarge {
        /// The burst asked for.
        burst: u64,
    },
    /// Per something other than a second.
    #[error("`/{unit}` is not /s; say how many a second, so 600 a minute are 10/s")]
    NotPerSecond {
        /// What stands behind the slash.
        unit: String,
    },
    /// No number.
    #[error(
        "`{text}` is not a whole number; write how many a second, such as 1000 or 1000/s, or 1000:50 \
         with a burst of 50"
    )]
    NotANumber {
        /// What was written.
        text: String,
    },
}

impl Rate {
    /// So many a second, and a second's worth at once.
    ///
    /// # Errors
    /// [`RateError`] for a rate of 0 or of more than [`PER_SECOND_MAX`].
    pub fn new(per_second: u32) -> Result<Self, RateError> {
        match per_second {
            0 => Err(RateError::Zero),
            per_second => Self::with_burst(per_second, per_second),
        }
    }

    /// So many a second, and `burst` at once.
    ///
    /// # Errors
    /// [`RateError`] for those of [`new`](Self::new), and a burst of 0.
    pub fn with_burst(per_second: u32, burst: u32) -> Result<Self, RateError> {
        if per_second == 0 {
            return Err(RateError::Zero);
        }
        if per_second > PER_SECOND_MAX {
            return Err(RateError::TooFast { per_second: per_second.into() });
        }
        if burst == 0 {
            return Err(RateError::NoBurst);
        }
        let shared = common_divisor(SECOND_US, per_second);
        Ok(Self {
            per_second,
            burst,
            token: u64::from(SECOND_US / shared),
            micro: u64::from(per_second / shared),
        })
    }

    /// Tokens a second.
    #[must_use]
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Tokens at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.per_second)?;
        if self.burst == self.per_second { Ok(()) } else { write!(f, ":{}", self.burst) }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (rate, burst) = match text.split_once(':') {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let (rate, unit) = rate.split_once('/').unwrap_or((rate, "s"));
        let per_second = number(rate, text)?;
        if unit != "s" {
            return Err(RateError::NotPerSecond { unit: unit.to_owned() });
        }
        let per_second =
            u32::try_from(per_second).map_err(|_| RateError::TooFast { per_second })?;
        let Some(burst) = burst else {
            return Self::new(per_second);
        };
        let burst = number(burst, text)?;
        let burst = u32::try_from(burst).map_err(|_| RateError::BurstTooLarge { burst })?;
        Self::with_burst(per_second, burst)
    }
}

/// Digits as a number; more than a word holds are as many as it holds.
fn number(digits: &str, text: &str) -> Result<u64, RateError> {
    // `parse` would take a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RateError::NotANumber { text: text.to_owned() });
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

// ---------------------------------------------------------------------------------- the arithmetic

/// When a bucket will be full, in units, modulo 2^64. Means something beside its rate only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival(u64);

impl Rate {
    /// The arrival of a bucket that is full at `now_us`.
    pub(crate) fn full(&self, now_us: u64) -> Arrival {
        Arrival(now_us.wrapping_mul(self.micro))
    }

    fn depth(&self) -> u64 {
        u64::from(self.burst) * self.token
    }

    /// Units until the bucket is full.
    fn ahead(&self, arrival: Arrival, now_us: u64) -> u64 {
        let ahead = arrival.0.wrapping_sub(self.full(now_us).0);
        if ahead <= self.depth() + LAG_US_MAX * self.micro { ahead } else { 0 }
    }

    /// The arrival after a token was taken; none if there is no token.
    pub(crate) fn after_take(&self, arrival: Arrival, now_us: u64) -> Option<Arrival> {
        let ahead = self.ahead(arrival, now_us) + self.token;
        (ahead <= self.depth()).then(|| Arrival(self.full(now_us).0.wrapping_add(ahead)))
    }

    /// Microseconds until there is a token; 0 if there is one.
    pub(crate) fn wait_us(&self, arrival: Arrival, now_us: u64) -> u64 {
        let ahead = self.ahead(arrival, now_us) + self.token;
        ahead.saturating_sub(self.depth()).div_ceil(self.micro)
    }

    /// When the bucket will be full: `now_us` if it is.
    pub(crate) fn full_at_us(&self, arrival: Arrival, now_us: u64) -> u64 {
        now_us.saturating_add(self.ahead(arrival, now_us).div_ceil(self.micro))
    }
}

// ------------------------------------------------------------------------------------- the buckets

/// A token bucket with one owner.
///
/// ```
/// use slipring_core::rates::{Bucket, Rate};
///
/// let mut bucket = Bucket::new(Rate::with_burst(10, 2)?, 0);
/// assert_eq!(bucket.take(0), Ok(()));
/// assert_eq!(bucket.take(0), Ok(()));
/// assert_eq!(bucket.take(0), Err(100_000), "the next token is there in 100 ms");
/// assert_eq!(bucket.take(100_000), Ok(()));
/// # Ok::<(), slipring_core::RateError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    arrival: Arrival,
}

impl Bucket {
    /// A bucket that is full at `now_us`.
    #[must_use]
    pub fn new(rate: Rate, now_us: u64) -> Self {
        Self { rate, arrival: rate.full(now_us) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The microseconds after which there is one, if nobody else takes it.
    pub fn take(&mut self, now_us: u64) -> Result<(), u64> {
        match self.rate.after_take(self.arrival, now_us) {
            Some(arrival) => {
                self.arrival = arrival;
                Ok(())
            }
            None => Err(self.rate.wait_us(self.arrival, now_us)),
        }
    }
}

/// A token bucket that all reactors take from, without a lock: one word.
#[derive(Debug)]
pub struct SharedBucket {
    rate: Rate,
    /// An `Arrival`. Relaxed throughout: the word is all there is to know, it announces nothing else.
    arrival: AtomicU64,
}

impl SharedBucket {
    /// A bucket that is full at `now_us`, on the clock that all takers read.
    #[must_use]
    pub fn new(rate: Rate, now_us: u64) -> Self {
        Self { rate, arrival: AtomicU64::new(rate.full(now_us).0) }
    }

    /// Its rate.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The microseconds after which there is one, if nobody else takes it.
    pub fn take(&self, now_us: u64) -> Result<(), u64> {
        let take = |arrival| self.rate.after_take(Arrival(arrival), now_us).map(|next| next.0);
        match self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(arrival) => Err(self.rate.wait_us(Arrival(arrival), now_us)),
        }
    }

    /// Gives back a token that was taken for nothing: nobody came after all. To be done as soon as that is
    /// known: within a time that begins between the two, one more can be taken than the rate says.
    pub fn give_back(&self) {
        // A bucket that has filled up since stays full: an arrival in the past is one more in the past.
        self.arrival.fetch_sub(self.rate.token, Ordering::Relaxed);
    }
}
