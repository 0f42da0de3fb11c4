//! How long it may take to establish a connection, and which of these limits has passed.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::policy::race::{RaceLimits, RaceLimitsError};

const SPANS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);

/// How long what may take. None of these waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectLimits {
    /// One attempt to connect to one address, by TCP. Default 3 s (Sozu): covers one lost SYN.
    pub attempt: Duration,
    /// The TLS handshake. What the `TlsClient` allows itself counts if it is less. Default 5 s †.
    pub tls: Duration,
    /// Everything: all attempts, the PROXY header and the handshake. Looking a name up is no part of it. Default
    /// 10 s †.
    pub total: Duration,
    /// When several addresses are tried side by side: see [`Connector::race`](super::Connector::race).
    pub race: RaceLimits,
}

impl Default for ConnectLimits {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(3),
            tls: Duration::from_secs(5),
            total: Duration::from_secs(10),
            race: RaceLimits::default(),
        }
    }
}

/// Why [`ConnectLimits`] make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectLimitsError {
    /// Nothing would ever be done in time, or it would be waited for without end.
    #[error("the limit `{limit}` is {span:?}; say from 1 ms to an hour")]
    Span {
        /// The limit's name.
        limit: &'static str,
        /// How long it is.
        span: Duration,
    },
    /// A part may take longer than the whole.
    #[error(
        "the limit `{limit}` is {span:?}, and everything together has {total:?}; make `total` at least as long"
    )]
    Longer {
        /// The part's name.
        limit: &'static str,
        /// How long it may take.
        span: Duration,
        /// How long the whole may take.
        total: Duration,
    },
    /// Races cannot be run so.
    #[error(transparent)]
    Race(#[from] RaceLimitsError),
}

impl ConnectLimits {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`ConnectLimitsError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), ConnectLimitsError> {
        let Self { attempt, tls, total, race } = *self;
        let parts = [("attempt", attempt), ("tls", tls)];
        for (limit, span) in [("total", total)].into_iter().chain(parts) {
            if !SPANS.contains(&span) {
                return Err(ConnectLimitsError::Span { limit, span });
            }
        }
        for (limit, span) in parts {
            if span > total {
                return Err(ConnectLimitsError::Longer { limit, span, total });
            }
        }
        race.check()?;
        Ok(())
    }
}

/// Which limit has passed: the source of an error that is a timeout of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Passed {
    /// That of one attempt to connect.
    #[error("an attempt has {0:?} (ConnectLimits::attempt)")]
    Attempt(Duration),
    /// That of the TLS handshake.
    #[error("the TLS handshake has {0:?} (ConnectLimits::tls, and the TlsClient's own)")]
    Tls(Duration),
    /// That of everything together.
    #[error("everything together has {0:?} (ConnectLimits::total)")]
    Total(Duration),
    /// That of the request it was for.
    #[error("what it was for had {0:?} left")]
    Request(Duration),
}

/// The time of one establishment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub(super) begun: Duration,
    pub(super) until: Duration,
    /// What has passed then.
    passed: Passed,
}

impl Whole {
    pub(super) fn new(limits: &ConnectLimits, now: Duration) -> Self {
        let total = limits.total;
        Self { begun: now, until: now.saturating_add(total), passed: Passed::Total(total) }
    }

    /// The same for a request that has so long.
    pub(super) fn within(limits: &ConnectLimits, now: Duration, left: Duration) -> Self {
        match left < limits.total {
            true => {
                Self { begun: now, until: now.saturating_add(left), passed: Passed::Request(left) }
            }
            false => Self::new(limits, now),
        }
    }

    /// When a part that begins now has to be done, and what has passed by then.
    pub(super) fn part(
        &self,
        now: Duration,
        span: Duration,
        passed: fn(Duration) -> Passed,
    ) -> (Duration, Passed) {
        let until = now.saturating_add(span);
        match until < self.until {
            true => (until, passed(span)),
            false => (self.until, self.passed()),
        }
    }

    /// What has passed when all of it has.
    pub(super) fn passed(&self) -> Passed {
        self.passed
    }

    pub(super) fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::Connector;

    #[test]
    fn limits_that_make_no_sense_are_refused_with_a_remedy() {
        let good = ConnectLimits::default();
        assert_eq!(good.check(), Ok(()));
        let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
        for (limits, cause) in [
            (ConnectLimits { attempt: zero, ..good }, "`attempt` is 0ns; say"),
            (ConnectLimits { tls: zero, ..good }, "`tls` is 0ns; say"),
            (ConnectLimits { total: Duration::MAX, ..good }, "; say from 1 ms to an hour"),
            (
                ConnectLimits { total: second, ..good },
                "`attempt` is 3s, and everything together has 1s; make",
            ),
            (
                ConnectLimits { total: second, attempt: second, ..good },
                "`tls` is 5s, and everything together has 1s; make",
            ),
            (
                ConnectLimits { race: RaceLimits { delay: zero, ..good.race }, ..good },
                "; say from 10 ms to 2 s",
            ),
        ] {
            let text = limits.check().expect_err("no sense").to_string();
            assert!(text.contains(cause), "{text}");
            let built = Connector::builder().limits(limits).build().expect_err("no sense");
            assert_eq!(built.to_string(), text);
        }
    }

    #[test]
    fn a_part_ends_with_the_whole_at_the_latest() {
        let limits = ConnectLimits::default();
        let s = Duration::from_secs;
        let whole = Whole::new(&limits, s(100));
        assert_eq!(whole.part(s(100), s(3), Passed::Attempt), (s(103), Passed::Attempt(s(3))));
        assert_eq!(whole.part(s(108), s(3), Passed::Attempt), (s(110), Passed::Total(s(10))));
        let request = Whole::within(&limits, s(100), s(2));
        assert_eq!(request.part(s(100), s(3), Passed::Attempt), (s(102), Passed::Request(s(2))));
        let patient = Whole::within(&limits, s(100), s(11));
        assert_eq!(patient.part(s(108), s(3), Passed::Attempt), (s(110), Passed::Total(s(10))));
        let late = Whole::new(&limits, Duration::MAX);
        assert_eq!(late.part(Duration::MAX, s(3), Passed::Tls).0, Duration::MAX);
        assert_eq!(late.elapsed(s(1)), Duration::ZERO);
    }
}
