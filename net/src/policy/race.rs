//! Which of many addresses of one upstream is dialed when: Happy Eyeballs (RFC 8305, section 5).
//!
//! ```text
//!   v6 a ----x            refused: the next begins at once
//!   v4 b     ---------------------x
//!   v6 c         250 ms ->-------------------connected, the others are given up
//!   v4 d                    250 ms ->--------
//! ```
//!
//! ```
//! use std::time::Duration;
//! use slipring::policy::names::Target;
//! use slipring::policy::race::{Race, RaceLimits, Step};
//!
//! let [v4, v6] = ["192.0.2.1:80", "[2001:db8::1]:80"].map(|text| text.parse().unwrap());
//! let ms = Duration::from_millis;
//! let mut race = Race::new(&RaceLimits::default(), &[Target::new(v4), Target::new(v6)], ms(0), ms(10_000));
//! assert_eq!(race.step(ms(0)), Step::Start(v6));
//! assert_eq!(race.step(ms(1)), Step::Wait(ms(250)));
//! assert_eq!(race.step(ms(250)), Step::Start(v4));
//! race.failed(ms(300));
//! assert_eq!(race.step(ms(300)), Step::Wait(ms(10_000)), "the other may still come");
//! race.failed(ms(301));
//! assert_eq!(race.step(ms(301)), Step::Failed);
//! ```
//!
//! Is: the order of the addresses, when each is begun, and when it is over. Is not: how long one attempt may take,
//! which the caller says by [`failed`](Race::failed), nor who gets how much of the load, which is the balancer's. A
//! race wants the first that answers.
//!
//! *Order.* Lower tiers first. In a tier IPv6 and IPv4 take turns, IPv6 first; within a family the order is that given,
//! but those of weight 0 stand behind all others of their tier. Other weights are not looked at: who wants the load
//! spread by them shuffles first. Each address counts once.
//!
//! *The delay is fixed.* RFC 8305 lets it follow the round-trip times that were measured; that would need a memory of
//! them for each address, and save an attempt in a few cases only.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::names::Target;

/// RFC 8305, section 8: never less than 10 ms, and at most 2 s.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(2);
const ATTEMPTS: RangeInclusive<u32> = 1..=256;

/// How a race is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaceLimits {
    /// An attempt has so much start before the next, unless it fails. Default 250 ms (RFC 8305).
    pub delay: Duration,
    /// Addresses that are tried at most, one after the other or side by side. Default 16 †: with the default delay they
    /// have all begun after 4 s.
    pub attempts_max: u32,
}

impl Default for RaceLimits {
    fn default() -> Self {
        Self { delay: Duration::from_millis(250), attempts_max: 16 }
    }
}

/// Why [`RaceLimits`] make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RaceLimitsError {
    /// Attempts would flood the upstream, or hardly be a race.
    #[error("attempts begin {delay:?} after one another; say from 10 ms to 2 s (RFC 8305)")]
    Delay {
        /// How long.
        delay: Duration,
    },
    /// Nobody would be dialed, or too many.
    #[error("a race of at most {attempts_max} attempts; say from 1 to 256")]
    Attempts {
        /// How many.
        attempts_max: u32,
    },
}

impl RaceLimits {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`RaceLimitsError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), RaceLimitsError> {
        let Self { delay, attempts_max } = *self;
        if !DELAYS.contains(&delay) {
            return Err(RaceLimitsError::Delay { delay });
        }
        if !ATTEMPTS.contains(&attempts_max) {
            return Err(RaceLimitsError::Attempts { attempts_max });
        }
        Ok(())
    }
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An attempt at this address begins, beside those under way.
    Start(SocketAddr),
    /// Nothing, until an attempt ends or until this time on the runtime's clock.
    Wait(Duration),
    /// All have failed, or the time is up.
    Failed,
}

/// One race. Whoever connects first has won it, and drops it.
#[derive(Clone, Debug)]
pub struct Race {
    delay: Duration,
    queue: VecDeque<SocketAddr>,
    under_way: u32,
    /// When the next may begin.
    next_start: Duration,
    until: Duration,
    latest: Duration,
}

impl Race {
    /// Between these, from now until this time.
    #[must_use]
    pub fn new(limits: &RaceLimits, targets: &[Target], now: Duration, until: Duration) -> Self {
        Self {
            delay: limits.delay,
            queue: order(targets, limits.attempts_max as usize),
            under_way: 0,
            next_start: now,
            until,
            latest: now,
        }
    }

    /// What is to be done at this time. To be asked again until it is something else than [`Step::Start`].
    pub fn step(&mut self, now: Duration) -> Step {
        self.latest = self.latest.max(now);
        let now = self.latest;
        if now >= self.until || (self.queue.is_empty() && self.under_way == 0) {
            return Step::Failed;
        }
        if now < self.next_start {
            return match self.queue.is_empty() {
                true => Step::Wait(self.until),
                false => Step::Wait(self.until.min(self.next_start)),
            };
        }
        let Some(address) = self.queue.pop_front() else { return Step::Wait(self.until) };
        self.under_way = self.under_way.saturating_add(1);
        self.next_start = now.saturating_add(self.delay);
        Step::Start(address)
    }

    /// One of those under way has failed: the next may begin at once.
    pub fn failed(&mut self, now: Duration) {
        self.latest = self.latest.max(now);
        self.under_way = self.under_way.saturating_sub(1);
        self.next_start = self.next_start.min(self.latest);
    }

    /// Addresses that have not been tried.
    #[must_use]
    pub fn untried(&self) -> usize {
        self.queue.len()
    }
}

/// The addresses in the order in which they are tried, at most so many.
#[must_use]
pub fn order(targets: &[Target], most: usize) -> VecDeque<SocketAddr> {
    let rank = |target: &Target| (target.tier, target.weight == 0);
    let mut sorted: Vec<&Target> = targets.iter().collect();
    sorted.sort_by_key(|target| rank(target));
    // By the first mention, before families take turns: who is mentioned twice has no turn twice.
    let mut seen = BTreeSet::new();
    sorted.retain(|target| seen.insert(target.address));
    let mut queue = VecDeque::with_capacity(most.min(targets.len()));
    for same in sorted.chunk_by(|one, other| rank(one) == rank(other)) {
        let of = |wanted: bool| same.iter().filter(move |target| is_ipv6(target.address) == wanted);
        let (mut v6, mut v4) = (of(true), of(false));
        loop {
            let pair = [v6.next(), v4.next()];
            if pair == [None, None] {
                break;
            }
            for target in pair.into_iter().flatten() {
                if queue.len() == most {
                    return queue;
                }
                queue.push_back(target.address);
            }
        }
    }
    queue
}

/// Whether it is reached by IPv6: an IPv4 address written as one of IPv6 is not.
fn is_ipv6(address: SocketAddr) -> bool {
    matches!(address.ip().to_canonical(), IpAddr::V6(_))
}

#[cfg(test)]
mod tests;
