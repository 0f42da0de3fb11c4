//! What is known of a name, and when to ask again.
//!
//! ```text
//!   asked --> answer, for its TTL ---> asked again a little before that ends
//!               |                        |
//!               |                        +--> failed: the answer goes on for 60 s more, asked every few seconds
//!               |                                 |
//!               +--> there is no such name        +--> the failure itself
//!                    (negative answer, 5 s)
//! ```
//!
//! ```
//! use std::time::Duration;
//! use slipring::failure::Resolve;
//! use slipring::policy::names::{Answer, Name, NameLimits, Target};
//!
//! let mut rng = fastrand::Rng::with_seed(1);
//! let mut name = Name::new(&NameLimits::default());
//! let target = Target::new("192.0.2.1:80".parse().expect("an address"));
//! let answer = Answer { targets: vec![target], ttl: Duration::from_secs(30) };
//! let second = Duration::from_secs;
//! name.answered(second(1), Ok(answer), &mut rng);
//! assert!(name.next_lookup() < second(31), "a little before the TTL ends");
//! // The name server fails: what was known still counts, for a minute.
//! name.answered(second(30), Err(Resolve::ServerFailure), &mut rng);
//! assert_eq!(name.targets(second(60)).map(<[_]>::len), Ok(1));
//! assert_eq!(name.targets(second(92)), Err(Resolve::ServerFailure));
//! ```
//!
//! Is: the answers to one name and how long each counts. Is not: who asks, nor a cache of many names.
//!
//! Why ask before the TTL ends: so that nobody waits for an answer, and those who asked together do not ask together
//! again. Why an old answer is better than none: name servers fail more often than the hosts they name, and who is gone
//! is found out by the dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::failure::Resolve;

/// The refresh comes at so much of the TTL, percent, and anywhere up to all of it.
const REFRESH_FROM_PERCENT: u32 = 80;
const TTL_MOST: Duration = Duration::from_secs(24 * 3600);

/// How long what is told of a name counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameLimits {
    /// An answer counts at least so long, whatever its TTL. Default 1 s †.
    pub ttl_min: Duration,
    /// And at most so long. Default 300 s †: an upstream that has moved is found within five minutes.
    pub ttl_max: Duration,
    /// That there is no such name counts so long; also how long it takes to ask again after a failure. Default 5 s †.
    pub negative: Duration,
    /// When asking fails, the last good answer counts so much longer than its TTL. Default 60 s †.
    pub stale: Duration,
    /// The upstream is somewhere in the internet: addresses of loopback, link-local and private ranges are refused.
    /// Default false.
    pub is_public: bool,
}

impl Default for NameLimits {
    fn default() -> Self {
        Self {
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(300),
            negative: Duration::from_secs(5),
            stale: Duration::from_secs(60),
            is_public: false,
        }
    }
}

/// Why [`NameLimits`] make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameLimitsError {
    /// Names would be asked for without end, or never again.
    #[error(
        "answers that count from {ttl_min:?} to {ttl_max:?}; say from 1 ms to a day, and no less at most than at least"
    )]
    Ttl {
        /// At least.
        ttl_min: Duration,
        /// At most.
        ttl_max: Duration,
    },
    /// What is not there would be asked for without end, or never again.
    #[error("that there is no such name counts for {negative:?}; say from 1 ms to a day")]
    Negative {
        /// How long.
        negative: Duration,
    },
}

impl NameLimits {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`NameLimitsError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), NameLimitsError> {
        let Self { ttl_min, ttl_max, negative, .. } = *self;
        let sane = Duration::from_millis(1)..=TTL_MOST;
        if !sane.contains(&ttl_min) || !sane.contains(&ttl_max) || ttl_min > ttl_max {
            return Err(NameLimitsError::Ttl { ttl_min, ttl_max });
        }
        if !sane.contains(&negative) {
            return Err(NameLimitsError::Negative { negative });
        }
        Ok(())
    }
}

/// One of those that a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Those of a lower tier first: SRV's priority. Others are all of tier 0.
    pub tier: u16,
    /// Where.
    pub address: SocketAddr,
    /// Its share among those of its tier: SRV's weight. Others have 1 each.
    pub weight: u16,
}

impl Target {
    /// Of tier 0, with weight 1.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { tier: 0, address, weight: 1 }
    }
}

/// What a source says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it leads; in any order, each counted once.
    pub targets: Vec<Target>,
    /// For how long, as the source has it.
    pub ttl: Duration,
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub struct Name {
    limits: NameLimits,
    /// The last good answer, sorted.
    targets: Vec<Target>,
    /// When its TTL ends. Zero as long as there was none.
    fresh_until: Duration,
    /// When it is no good any more, should asking fail. Zero as long as there was none.
    good_until: Duration,
    /// What came of asking last, if that was no answer. As long as nothing came, a timeout.
    failure: Option<Resolve>,
    next_lookup: Duration,
    latest: Duration,
}

impl Name {
    /// Nothing is known: it is to be asked for at once.
    #[must_use]
    pub fn new(limits: &NameLimits) -> Self {
        Self {
            limits: *limits,
            targets: Vec::new(),
            fresh_until: Duration::ZERO,
            good_until: Duration::ZERO,
            failure: Some(Resolve::Timeout),
            next_lookup: Duration::ZERO,
            latest: Duration::ZERO,
        }
    }

    /// When to ask again, on the runtime's clock.
    #[must_use]
    pub fn next_lookup(&self) -> Duration {
        self.next_lookup
    }

    /// What came of asking. Whether what [`targets`](Self::targets) gives is another than before.
    pub fn answered(
        &mut self,
        now: Duration,
        answer: Result<Answer, Resolve>,
        rng: &mut fastrand::Rng,
    ) -> bool {
        self.latest = self.latest.max(now);
        let now = self.latest;
        match answer.and_then(|answer| self.admit(answer)) {
            Ok(Answer { targets, ttl }) => {
                self.next_lookup =
                    now.saturating_add(between(rng, ttl * REFRESH_FROM_PERCENT / 100, ttl));
                self.fresh_until = now.saturating_add(ttl);
                self.good_until = self.fresh_until.saturating_add(self.limits.stale);
                let was_failing = self.failure.take().is_some();
                let is_new = was_failing || self.targets != targets;
                self.targets = targets;
                is_new
            }
            Err(failure) => {
                let again = self.limits.negative;
                self.next_lookup = now.saturating_add(between(rng, again / 2, again));
                let before = self.targets(now).map(<[Target]>::len);
                self.failure = Some(failure);
                if !is_passing(failure) {
                    // It is known not to be there: that is an answer, too.
                    self.targets = Vec::new();
                    self.fresh_until = Duration::ZERO;
                    self.good_until = Duration::ZERO;
                }
                before != self.targets(now).map(<[Target]>::len)
            }
        }
    }

    /// Where it leads now: sorted, each once, never empty.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn targets(&self, now: Duration) -> Result<&[Target], Resolve> {
        match self.failure {
            Some(failure) if now.max(self.latest) >= self.good_until => Err(failure),
            _ => Ok(&self.targets),
        }
    }

    /// Whether the last lookup failed, and an old answer stands in for it.
    #[must_use]
    pub fn is_stale(&self, now: Duration) -> bool {
        self.failure.is_some() && self.targets(now).is_ok()
    }

    /// Whether the last lookup brought an answer whose TTL has not ended.
    #[must_use]
    pub fn is_fresh(&self, now: Duration) -> bool {
        self.failure.is_none() && now.max(self.latest) < self.fresh_until
    }

    /// When an old answer that stands in for a failure will stand in no more: then [`targets`](Self::targets) changes
    /// without being told anything. `None` if no old answer stands in.
    #[must_use]
    pub fn runs_out(&self, now: Duration) -> Option<Duration> {
        Some(self.good_until).filter(|_| self.is_stale(now))
    }

    /// The answer as it counts here.
    fn admit(&self, answer: Answer) -> Result<Answer, Resolve> {
        let Answer { mut targets, ttl } = answer;
        let NameLimits { ttl_min, ttl_max, is_public, .. } = self.limits;
        if targets.is_empty() {
            return Err(Resolve::NoAddress);
        }
        if is_public {
            targets.retain(|target| is_public_address(target.address.ip()));
        }
        if targets.is_empty() {
            return Err(Resolve::NotPublic);
        }
        targets.sort_unstable();
        targets.dedup_by_key(|target| (target.tier, target.address));
        Ok(Answer { targets, ttl: ttl.max(ttl_min).min(ttl_max) })
    }
}

/// Whether a failure to resolve says nothing about the name.
fn is_passing(failure: Resolve) -> bool {
    matches!(failure, Resolve::ServerFailure | Resolve::Timeout)
}

/// Evenly drawn, both included.
fn between(rng: &mut fastrand::Rng, from: Duration, to: Duration) -> Duration {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.u64(micros(from)..=micros(to).max(micros(from))))
}

/// Whether an address can be one of the internet: not of loopback, link-local, private, shared, documentation,
/// benchmarking, multicast or reserved ranges (IANA's registries of special-purpose addresses), nor an IPv6 address
/// that stands for such an IPv4 address.
#[must_use]
pub fn is_public_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // This host, private, loopback, multicast, reserved and broadcast.
        (0 | 10 | 127 | 224.., _, _) => true,
        // Shared (RFC 6598).
        (100, 64..=127, _) => true,
        // Link-local, where clouds keep their metadata.
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        // Protocol assignments, documentation, 6to4 anycast, private.
        (192, 0, 0 | 2) | (192, 88, 99) | (192, 168, _) => true,
        // Benchmarking, documentation.
        (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4_of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        // Mapped, and translated by NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(v4_of(high, low))
        }
        // 6to4.
        [0x2002, high, low, ..] => is_public_v4(v4_of(high, low)),
        // Protocol assignments with Teredo, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // What IANA has given out of the unicast space.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
