//! Up or down, by checks.
//!
//! ```
//! use std::time::Duration;
//!
//! use slipring::policy::health::{Changed, Health, HealthLimits, Initially};
//!
//! let mut health = Health::new(HealthLimits::default(), Initially::Up);
//! let at = Duration::from_secs;
//! assert_eq!(health.checked(at(1), true), None);
//! assert_eq!(health.checked(at(6), false), None);
//! assert_eq!(health.checked(at(7), false), None);
//! assert_eq!(health.checked(at(8), false), Some(Changed::Down), "three in a row");
//! ```
//!
//! ```text
//!              fall failures in a row
//!   [ up ] ----------------------------> [ down ]        before its first check it is what it is taken for,
//!     ^                                     |            and the first check decides
//!     +---------- rise successes in a row --+
//! ```
//!
//! Is: what HAProxy says of a server, and when it checks it. Is not: a check; `health` on floor 8 makes them, and tells
//! how they ended. Down means [`Availability::Down`](super::balancer::Availability::Down).
//!
//! *The first check decides at once*, whatever the endpoint was taken for: as HAProxy's `init-state up` and `down`. A
//! process that starts takes endpoints for up, else it would refuse calls until it has checked, and one that is not up
//! is found by one check. One that is added later had better be taken for down.
//!
//! *When.* An interval after the last check ended, give or take the jitter; a shorter one while checks speak against
//! what it is taken for (HAProxy's `fastinter`), so that down is found in one interval and two short ones. The first
//! checks of many endpoints are spread over the interval, or over the short one where somebody waits for them.

use std::time::Duration;

/// When checks are made, and how many decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// From the end of a check to the next. More than zero. Default 5 s †.
    pub interval: Duration,
    /// The same, while checks speak against what the endpoint is taken for. More than zero, not more than the interval.
    /// Default 1 s †.
    pub fast_interval: Duration,
    /// Percent of the interval by which it is shorter or longer, drawn each time. Up to 50. Default 10 †.
    pub jitter_percent: u32,
    /// How long a check may take; no answer in time is a failure. More than zero. Default 1 s †.
    pub timeout: Duration,
    /// Failures in a row until it is down. From 1. Default 3 (HAProxy).
    pub fall: u32,
    /// Successes in a row until it is up. From 1. Default 2 (HAProxy).
    pub rise: u32,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            fast_interval: Duration::from_secs(1),
            jitter_percent: 10,
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
        }
    }
}

/// Why limits of checks are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HealthLimitsError {
    /// Checks without a pause.
    #[error(
        "checks every {interval:?} or {fast:?}; say an `interval` and a `fast_interval` of more than zero"
    )]
    Interval {
        /// The interval given.
        interval: Duration,
        /// The short one given.
        fast: Duration,
    },
    /// In doubt it would look less often.
    #[error(
        "in doubt checks every {fast:?}, else every {interval:?}; say a `fast_interval` of at most the `interval`"
    )]
    Fast {
        /// The interval given.
        interval: Duration,
        /// The short one given.
        fast: Duration,
    },
    /// Checks could come almost without a pause.
    #[error("a jitter of {percent} %; say from 0 to 50")]
    Jitter {
        /// The percentage given.
        percent: u32,
    },
    /// No check could succeed.
    #[error("checks that may take no time; say a `timeout` of more than zero")]
    Timeout,
    /// It would be down or up without a check.
    #[error("down after {fall} checks and up after {rise}; say at least 1 of each")]
    Count {
        /// The failures given.
        fall: u32,
        /// The successes given.
        rise: u32,
    },
}

impl HealthLimits {
    /// Whether they make sense. Those that do not are taken for the nearest that do.
    ///
    /// # Errors
    /// [`HealthLimitsError`], for the first that does not.
    pub fn check(&self) -> Result<(), HealthLimitsError> {
        let Self { interval, fast_interval: fast, jitter_percent: percent, fall, rise, .. } = *self;
        if interval.is_zero() || fast.is_zero() {
            return Err(HealthLimitsError::Interval { interval, fast });
        }
        if fast > interval {
            return Err(HealthLimitsError::Fast { interval, fast });
        }
        if percent > 50 {
            return Err(HealthLimitsError::Jitter { percent });
        }
        if self.timeout.is_zero() {
            return Err(HealthLimitsError::Timeout);
        }
        if fall == 0 || rise == 0 {
            return Err(HealthLimitsError::Count { fall, rise });
        }
        Ok(())
    }

    fn clamped(self) -> Self {
        let least = Duration::from_millis(1);
        let interval = self.interval.max(least);
        Self {
            interval,
            fast_interval: self.fast_interval.clamp(least, interval),
            jitter_percent: self.jitter_percent.min(50),
            timeout: self.timeout.max(least),
            fall: self.fall.max(1),
            rise: self.rise.max(1),
        }
    }
}

/// What an endpoint is taken for before its first check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Initially {
    /// Up. The default (HAProxy).
    #[default]
    Up,
    /// Unknown, and so down.
    Unknown,
}

/// A check has changed what an endpoint is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Changed {
    /// It is up now.
    Up,
    /// It is down now.
    Down,
}

/// What checks say of one endpoint.
#[derive(Clone, Debug)]
pub struct Health {
    limits: HealthLimits,
    is_up: bool,
    is_checked: bool,
    /// Checks in a row that spoke against it.
    against: u32,
    /// When a check last changed what it is taken for.
    changed_at: Option<Duration>,
    /// The latest time that it was told.
    latest: Duration,
}

impl Health {
    /// Of an endpoint that was not checked yet.
    #[must_use]
    pub fn new(limits: HealthLimits, initially: Initially) -> Self {
        Self {
            limits: limits.clamped(),
            is_up: initially == Initially::Up,
            is_checked: false,
            against: 0,
            changed_at: None,
            latest: Duration::ZERO,
        }
    }

    /// A check has ended. `Some` if that changes what the endpoint is taken for.
    pub fn checked(&mut self, now: Duration, is_ok: bool) -> Option<Changed> {
        self.latest = self.latest.max(now);
        let is_first = !std::mem::replace(&mut self.is_checked, true);
        if is_ok == self.is_up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.is_up { self.limits.fall } else { self.limits.rise };
        if !is_first && self.against < needed {
            return None;
        }
        self.against = 0;
        self.is_up = is_ok;
        self.changed_at = Some(self.latest);
        Some(if is_ok { Changed::Up } else { Changed::Down })
    }

    /// How long from now, which is the end of a check or the beginning of all, until the next check is to begin.
    #[must_use]
    pub fn next_check(&self, rng: &mut fastrand::Rng) -> Duration {
        let HealthLimits { interval, fast_interval, jitter_percent, .. } = self.limits;
        if !self.is_checked {
            let within = if self.is_up { interval } else { fast_interval };
            return times(within, rng.f64());
        }
        let mean = if self.against > 0 { fast_interval } else { interval };
        let jitter = f64::from(jitter_percent) / 100.0;
        times(mean, 1.0 + jitter * (2.0 * rng.f64() - 1.0))
    }

    /// Whether it is taken for up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether anything is known of it: one check has ended.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.is_checked
    }

    /// Since when it is up, for its slow start; `None` if it is down, or has always been taken for up.
    #[must_use]
    pub fn up_since(&self) -> Option<Duration> {
        self.changed_at.filter(|_| self.is_up)
    }

    /// How long a check may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.limits.timeout
    }
}

/// The time itself, if there is none so long.
fn times(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(time)
}

#[cfg(test)]
mod tests;
