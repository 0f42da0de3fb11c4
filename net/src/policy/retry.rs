//! Whether a failed attempt is made again: where, and when.
//!
//! ```
//! use std::time::Duration;
//! use slipring::failure::Dial;
//! use slipring::policy::budget::Budget;
//! use slipring::policy::retry::{Attempts, Next, RetryPolicy, Wants, Why};
//! use slipring::{Error, Idempotency};
//!
//! let policy = RetryPolicy { attempts_max: 2, ..RetryPolicy::default() };
//! let mut budget = Budget::new(&policy.budget, 0, 1);
//! let mut rng = fastrand::Rng::with_seed(1);
//! let now = Duration::from_secs(5);
//! let mut attempts = Attempts::new(&policy, Idempotency::ConnectOnly, now, None);
//!
//! // Refused, and there is another endpoint: there, at once.
//! let error = Error::new(Dial::Refused);
//! let next = attempts.failed(&error, true, now, &mut budget, &mut rng);
//! assert_eq!(next, Next::Retry { at: now, wants: Wants::Other });
//! // Refused there too, and that was the second of two.
//! let next = attempts.failed(&error, true, now, &mut budget, &mut rng);
//! assert_eq!(next, Next::GiveUp(Why::Attempts));
//! ```
//!
//! Is: what the error allows ([`Error::retry`]), held to a number of attempts, a deadline and a budget, in this order.
//! Is not: who waits, chooses an endpoint or sends. Nor a count of first attempts: whoever sends one tells the budget.
//!
//! | the error allows | when | where |
//! |---|---|---|
//! | elsewhere, for the first time, and an endpoint was not tried | at once | another |
//! | elsewhere, otherwise | after a delay | another if there is one, or any |
//! | fresh, for the first time | at once | a connection that was not kept |
//! | fresh, again | never: [`Why::Attempts`] | |
//! | later | after a delay | any |
//! | later, after the wait for a pool's connection | never: [`Why::Waited`] | |
//! | at a time | then, or now if it is over | any |
//!
//! Why no delay before the first try elsewhere: who was refused by one endpoint knows nothing of the others, and most
//! failures are those of one. From then on it is likely that all are in trouble. Nor before a fresh connection: a kept
//! one that its peer gave up says nothing of the peer's health. Both can happen to one request, so at most two of its
//! retries are made at once, and the budget pays for both.

use std::time::Duration;

use crate::failure::{Checkout, Error, Idempotency, Kind, Never, Repeat};
use crate::policy::backoff::{Backoff, BackoffError, Delays};
use crate::policy::budget::{Budget, BudgetLimits, BudgetLimitsError};

/// How often, how fast, and at what cost to an upstream a request is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts of a request in all, the first among them. Default 3 †; 1 for no retries.
    pub attempts_max: u32,
    /// The delays between attempts that are not made at once. Default: see [`Backoff`].
    pub backoff: Backoff,
    /// How many retries an upstream may have, of all requests together. Default: see [`BudgetLimits`].
    pub budget: BudgetLimits,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 3, backoff: Backoff::default(), budget: BudgetLimits::default() }
    }
}

/// Why a [`RetryPolicy`] makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryPolicyError {
    /// Not even a first attempt.
    #[error("0 attempts in all; say 1 for no retries, or more")]
    Attempts,
    /// The delays make no sense.
    #[error(transparent)]
    Backoff(#[from] BackoffError),
    /// The budget makes no sense.
    #[error(transparent)]
    Budget(#[from] BudgetLimitsError),
}

impl RetryPolicy {
    /// No retries: one attempt, whatever comes of it.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts_max: 1, budget: BudgetLimits::never(), ..Self::default() }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`RetryPolicyError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), RetryPolicyError> {
        if self.attempts_max == 0 {
            return Err(RetryPolicyError::Attempts);
        }
        self.backoff.check()?;
        self.budget.check()?;
        Ok(())
    }
}

/// Why a request is not made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// What went wrong forbids it.
    #[error("{0}")]
    Verdict(#[from] Never),
    /// As many attempts have been made as may be, in all or on a fresh connection.
    #[error("as many attempts were made as may be")]
    Attempts,
    /// The next attempt would begin when the request has to be over.
    #[error("its deadline comes before the next attempt")]
    Deadline,
    /// It has waited for a connection of a pool for as long as one may. To wait as long again is for the caller to say:
    /// who may wait for 5 s does not expect to be told after 10.
    #[error("it has waited for a connection for as long as it may")]
    Waited,
    /// The upstream has had as many retries as it may lately.
    #[error("the retry budget is empty")]
    Budget,
}

/// Where the next attempt has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// To an endpoint that was not tried.
    Other,
    /// Wherever the balancer says.
    Any,
    /// Wherever the balancer says, on a connection that was not kept.
    Fresh,
}

/// What comes after an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the error is the request's.
    GiveUp(Why),
    /// Another attempt. The budget has paid for it.
    Retry {
        /// When it begins, on the runtime's clock. Never before the failure, always before the deadline.
        at: Duration,
        /// Where it goes.
        wants: Wants,
    },
}

/// The attempts of one request.
#[derive(Clone, Debug)]
pub struct Attempts {
    idempotency: Idempotency,
    deadline: Option<Duration>,
    attempts_max: u32,
    /// Those that failed.
    failed: u32,
    delays: Delays,
    /// The latest time seen.
    latest: Duration,
    has_gone_elsewhere: bool,
    has_been_fresh: bool,
}

impl Attempts {
    /// Of a request that begins now, at `started`, and has to be over at the deadline, if there is one. Both are on the
    /// runtime's clock.
    #[must_use]
    pub fn new(
        policy: &RetryPolicy,
        idempotency: Idempotency,
        started: Duration,
        deadline: Option<Duration>,
    ) -> Self {
        Self {
            idempotency,
            deadline,
            attempts_max: policy.attempts_max,
            failed: 0,
            delays: policy.backoff.delays(),
            latest: started,
            has_gone_elsewhere: false,
            has_been_fresh: false,
        }
    }

    /// How many attempts have failed so far.
    #[must_use]
    pub fn failed_so_far(&self) -> u32 {
        self.failed
    }

    /// An attempt has failed like this. `others` says whether the upstream has an endpoint that may be used and was not
    /// tried by this request. The budget pays for a retry when it is granted, and for nothing else.
    pub fn failed(
        &mut self,
        error: &Error,
        others: bool,
        now: Duration,
        budget: &mut Budget,
        rng: &mut fastrand::Rng,
    ) -> Next {
        self.latest = self.latest.max(now);
        self.failed = self.failed.saturating_add(1);
        match self.plan(error, others, rng) {
            Err(why) => Next::GiveUp(why),
            Ok((at, _)) if self.deadline.is_some_and(|deadline| at >= deadline) => {
                Next::GiveUp(Why::Deadline)
            }
            Ok(_) if !budget.try_retry(self.latest) => Next::GiveUp(Why::Budget),
            Ok((at, wants)) => Next::Retry { at, wants },
        }
    }

    /// When and where the next attempt would be made.
    fn plan(
        &mut self,
        error: &Error,
        others: bool,
        rng: &mut fastrand::Rng,
    ) -> Result<(Duration, Wants), Why> {
        let repeat = error.retry(self.idempotency);
        if let Repeat::Never(never) = repeat {
            return Err(Why::Verdict(never));
        }
        if self.failed >= self.attempts_max {
            return Err(Why::Attempts);
        }
        if matches!(error.kind(), Kind::Checkout(Checkout::Timeout { .. })) {
            return Err(Why::Waited);
        }
        let now = self.latest;
        Ok(match repeat {
            Repeat::Elsewhere if others && !self.has_gone_elsewhere => {
                self.has_gone_elsewhere = true;
                (now, Wants::Other)
            }
            Repeat::Elsewhere if others => (self.after_a_delay(rng), Wants::Other),
            Repeat::Fresh if self.has_been_fresh => return Err(Why::Attempts),
            Repeat::Fresh => {
                self.has_been_fresh = true;
                (now, Wants::Fresh)
            }
            Repeat::At(at) => (at.max(now), Wants::Any),
            Repeat::Elsewhere | Repeat::Later | Repeat::Never(_) => {
                (self.after_a_delay(rng), Wants::Any)
            }
        })
    }

    fn after_a_delay(&mut self, rng: &mut fastrand::Rng) -> Duration {
        self.latest.saturating_add(self.delays.next(rng))
    }
}

#[cfg(test)]
mod tests;
