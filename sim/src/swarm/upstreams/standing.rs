//! The breaker, held to what requesters have seen: why it opens, for how long, what passes it, and what closes it.
//!
//! | when | must be |
//! |---|---|
//! | closed | not for longer than until so many calls have failed, as requesters know, that it has to open |
//! | it opens | as many requests were made as it wants; longer than the last time, if it did not close |
//! | open | nothing passes, and not before the time that it has named |
//! | half-open | as many calls as it has permits; until one of them fails |
//! | it closes | as many calls went well since as it wants |
//!
//! Requesters know less than the breaker does: what went wrong before there was a connection they do not see. So each
//! is held to on the side on which they are sure.

use slipring::policy::breaker::{BreakerLimits, Standing};

use super::Run;

/// By how much a reactor's clock and the times of the word may be off.
const OFF_US: u64 = 3_000;
/// What a probe that failed says counts for at least so many times the shortest time open, and so many rounds of
/// permits.
const COUNTS_FOR: u64 = 2_000;
const ROUNDS: u64 = 15;

/// What is remembered from step to step.
#[derive(Debug)]
pub(super) struct Watch {
    last: Standing,
    /// Since when the breaker is closed, open or half-open.
    since_us: u64,
    /// When it last opened. What began since, and passed, is a probe.
    opened_us: u64,
    /// It is open for so long at least, this time or the last.
    open_us: u64,
    /// What had gone well by the last step before it was half-open.
    well: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { last: Standing::Closed, since_us: 0, opened_us: 0, open_us: 0, well: 0 }
    }
}

/// A call that came to something, as its requester knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) at_us: u64,
    /// Its attempt began not before.
    pub(super) since_us: u64,
    pub(super) reactor: usize,
    pub(super) is_well: bool,
}

fn until_us(standing: Standing) -> Option<u64> {
    match standing {
        Standing::Open { until } => Some(until.as_micros() as u64),
        Standing::Closed | Standing::HalfOpen { .. } => None,
    }
}

impl Run<'_> {
    pub(super) fn check_breaker(&mut self) {
        let Some(upstream) = &self.upstream else { return };
        let (standing, now_us) = (upstream.breaker(), self.engine.now_us());
        if std::mem::discriminant(&standing) != std::mem::discriminant(&self.watch.last)
            || until_us(standing) != until_us(self.watch.last)
        {
            if let Some(complaint) = self.find_wrong_change(standing, now_us) {
                return self.engine.fail(complaint);
            }
            self.watch.since_us = now_us;
            if matches!(standing, Standing::Open { .. }) {
                self.watch.opened_us = now_us;
            }
        }
        self.watch.last = standing;
        if !matches!(standing, Standing::HalfOpen { .. }) {
            self.watch.well = self.ledger.open().well;
        }
        let complaint = self.find_too_many_calls(standing).or_else(|| match standing {
            Standing::Closed => self.find_blind(now_us),
            Standing::HalfOpen { .. } => self.find_deaf(now_us),
            Standing::Open { .. } => None,
        });
        let mut pages = self.ledger.open();
        pages.has_news = false;
        pages.has_opened |= standing != Standing::Closed;
        drop(pages);
        if let Some(complaint) = complaint {
            self.engine.fail(complaint);
        }
    }

    fn find_wrong_change(&mut self, standing: Standing, now_us: u64) -> Option<String> {
        let limits = &self.terms.limits.breaker;
        let (last, first_us) = (self.watch.last, limits.open.as_micros() as u64);
        if let Some(ends_us) = until_us(last).filter(|ends_us| now_us + OFF_US < *ends_us) {
            return Some(format!("open until {ends_us} us, and {standing:?} at {now_us} us"));
        }
        let pages = self.ledger.open();
        match standing {
            Standing::Closed => {
                let well = pages.well - self.watch.well;
                (well < u64::from(limits.successes)).then(|| {
                    format!("closed by {well} calls that went well, of {}", limits.successes)
                })
            }
            Standing::HalfOpen { .. } => None,
            Standing::Open { until } => {
                let tries =
                    pages.firsts.len() as u64 * u64::from(self.terms.limits.retry.attempts_max);
                if self.terms.is_quiet() {
                    return Some(format!(
                        "nothing has gone wrong, and the breaker is {standing:?}"
                    ));
                }
                if tries < u64::from(limits.calls_min) {
                    return Some(format!("opened by {tries} calls, of {}", limits.calls_min));
                }
                let is_again = !matches!(last, Standing::Closed);
                let doubled_us = (self.watch.open_us * 2).min(limits.open_max.as_micros() as u64);
                let least_us = if is_again { doubled_us } else { first_us };
                self.watch.open_us = least_us;
                let lasts_us = (until.as_micros() as u64).saturating_sub(now_us);
                let off_us = if self.terms.is_late() { u64::MAX } else { OFF_US };
                (lasts_us.saturating_add(off_us) < least_us).then(|| {
                    format!("open for {lasts_us} us from {now_us} us on, and {least_us} are due")
                })
            }
        }
    }

    /// Open, no call is under way that began since; half-open, as many as there are permits.
    fn find_too_many_calls(&self, standing: Standing) -> Option<String> {
        let (since_us, most) = match standing {
            Standing::Closed => return None,
            // In the turn in which it opened, others may have begun before.
            Standing::Open { .. } => (self.watch.since_us + 1, 0),
            Standing::HalfOpen { .. } if !self.terms.are_permits_kept => return None,
            Standing::HalfOpen { .. } => {
                (self.watch.since_us, self.terms.limits.breaker.permits as usize)
            }
        };
        let pages = self.ledger.open();
        let acts = pages.requests.iter().filter_map(|request| request.acts_since_us);
        let calls = acts.filter(|began_us| (since_us..u64::MAX).contains(began_us)).count();
        (calls > most).then(|| {
            format!("{calls} calls have passed a breaker that lets {most} pass: {standing:?}")
        })
    }

    /// Closed, though a reactor has had failures enough that it knows of.
    fn find_blind(&self, now_us: u64) -> Option<String> {
        let limits = &self.terms.limits.breaker;
        let pages = self.ledger.open();
        if !limits.is_enabled || !pages.has_news {
            return None;
        }
        // A bucket of the window is a tenth of it.
        let from_us = now_us.saturating_sub(limits.window.as_micros() as u64 * 8 / 10);
        let closed_us = self.watch.since_us;
        (0..self.terms.plan.reactors).find_map(|reactor| {
            let own = pages.seen.iter().filter(|seen| seen.reactor == reactor);
            // What went well before may have been told only now: all of it speaks for the upstream.
            let well = own.clone().filter(|seen| seen.is_well && seen.at_us >= closed_us).count();
            let failed = own
                .filter(|seen| !seen.is_well && seen.at_us >= from_us && seen.since_us > closed_us)
                .count();
            let is_enough = failed >= limits.calls_min as usize
                && failed * 100 >= (failed + well) * limits.failures_percent as usize;
            is_enough.then(|| {
                format!(
                    "{failed} calls of reactor {reactor} have failed, {well} went well, and the breaker is closed"
                )
            })
        })
    }

    /// Half-open, though a call that it let pass has failed.
    fn find_deaf(&self, now_us: u64) -> Option<String> {
        let BreakerLimits { open, permit_timeout, .. } = self.terms.limits.breaker;
        let permit_us = permit_timeout.min(open * 1_024).as_micros() as u64;
        let counts_us = (open.as_micros() as u64 * COUNTS_FOR).min(permit_us * ROUNDS);
        let Watch { since_us, opened_us, .. } = self.watch;
        let pages = self.ledger.open();
        let is_probe = |seen: &&Seen| {
            !seen.is_well
                && seen.since_us > opened_us
                && (since_us..now_us).contains(&seen.at_us)
                && seen.at_us - seen.since_us < counts_us
        };
        let probe = pages.seen.iter().rev().take(8).find(is_probe)?;
        Some(format!("half-open since {since_us} us, and a call has failed: {probe:?}"))
    }

    /// Nobody asks, so nobody has a permit of the breaker's.
    pub(super) fn check_no_permit_is_out(&mut self) {
        let standing = self.upstream.as_ref().map(|upstream| upstream.breaker());
        if let Some(Standing::HalfOpen { permits: 1.., .. }) = standing
            && self.terms.are_permits_kept
        {
            self.engine
                .fail(format!("nobody asks, and permits of the breaker are out: {standing:?}"));
        }
    }
}
