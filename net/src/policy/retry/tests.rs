//! Each row of the table of retries, each reason to give up, and any sequence of failures.

use proptest::prelude::*;

use super::*;
use crate::failure::{
    Admit, Breaker, Dial, Drain, Kind, Phase, Resolve, Retry, Tls, Traffic, Transfer,
};
use crate::policy::backoff::Jitter;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Without jitter, so that delays are 100 ms, 200 ms and so on.
fn policy(attempts_max: u32) -> RetryPolicy {
    let backoff = Backoff { jitter: Jitter::None, ..Backoff::default() };
    RetryPolicy { attempts_max, backoff, ..RetryPolicy::default() }
}

/// One request, with a budget of its own.
struct Request {
    attempts: Attempts,
    budget: Budget,
    rng: fastrand::Rng,
}

impl Request {
    fn of(policy: &RetryPolicy, idempotency: Idempotency, deadline: Option<Duration>) -> Self {
        Self {
            attempts: Attempts::new(policy, idempotency, at(1000), deadline),
            budget: Budget::new(&policy.budget, 0, 1),
            rng: fastrand::Rng::with_seed(1),
        }
    }

    /// Of so many attempts, which may be carried out twice.
    fn new(attempts_max: u32) -> Self {
        Self::of(&policy(attempts_max), Idempotency::Idempotent, None)
    }

    fn failed(&mut self, error: &Error, others: bool, now: Duration) -> Next {
        self.attempts.failed(error, others, now, &mut self.budget, &mut self.rng)
    }

    /// Retries it has paid for.
    fn spent(&mut self) -> u64 {
        100 - self.budget.left(at(1000))
    }
}

fn refused() -> Error {
    Error::new(Dial::Refused)
}

fn stale() -> Error {
    Error::new(Transfer::StaleReuse).with_traffic(Traffic {
        bytes_sent: 9,
        is_reused: true,
        ..Traffic::default()
    })
}

fn retry(at: Duration, wants: Wants) -> Next {
    Next::Retry { at, wants }
}

#[test]
fn who_has_waited_for_a_pool_s_connection_is_not_made_to_wait_again() {
    let mut request = Request::new(3);
    let waited =
        Error::new(Checkout::Timeout { snapshot: Default::default(), last_dial_error: None });
    assert_eq!(request.failed(&waited, true, at(6000)), Next::GiveUp(Why::Waited));
    assert_eq!(request.spent(), 0);
}

#[test]
fn elsewhere_is_at_once_the_first_time_and_after_a_delay_from_then_on() {
    let mut request = Request::new(9);
    assert_eq!(request.failed(&refused(), true, at(1000)), retry(at(1000), Wants::Other));
    assert_eq!(request.failed(&refused(), true, at(1005)), retry(at(1105), Wants::Other));
    assert_eq!(request.failed(&refused(), true, at(1110)), retry(at(1310), Wants::Other));
    assert_eq!(request.failed(&refused(), false, at(1310)), retry(at(1710), Wants::Any));
    assert_eq!(request.spent(), 4);
}

#[test]
fn elsewhere_without_another_endpoint_is_after_a_delay() {
    let mut request = Request::new(9);
    assert_eq!(request.failed(&refused(), false, at(1000)), retry(at(1100), Wants::Any));
    // One has come meanwhile: nothing was tried there.
    assert_eq!(request.failed(&refused(), true, at(1100)), retry(at(1100), Wants::Other));
}

#[test]
fn fresh_is_at_once_and_granted_once() {
    let mut request = Request::new(9);
    assert_eq!(request.failed(&stale(), true, at(1000)), retry(at(1000), Wants::Fresh));
    assert_eq!(request.failed(&refused(), true, at(1001)), retry(at(1001), Wants::Other));
    assert_eq!(request.failed(&stale(), true, at(1002)), Next::GiveUp(Why::Attempts));
    assert_eq!(request.spent(), 2);
}

#[test]
fn later_is_after_a_delay_wherever_it_goes() {
    let mut request = Request::new(9);
    let error = Error::new(Resolve::Timeout);
    assert_eq!(request.failed(&error, true, at(1000)), retry(at(1100), Wants::Any));
    assert_eq!(request.failed(&error, false, at(1100)), retry(at(1300), Wants::Any));
    let full = Error::new(Admit::UpstreamLimit { limit: 9 });
    assert_eq!(request.failed(&full, true, at(1300)), retry(at(1700), Wants::Any));
    // The first to go elsewhere does so at once, however many delays there were.
    assert_eq!(request.failed(&refused(), true, at(1700)), retry(at(1700), Wants::Other));
}

#[test]
fn at_a_time_is_then_and_not_in_the_past() {
    let mut request = Request::new(9);
    let open = |until| Error::new(Breaker::Open { until });
    assert_eq!(request.failed(&open(at(31_000)), true, at(1000)), retry(at(31_000), Wants::Any));
    assert_eq!(request.failed(&open(at(900)), true, at(31_000)), retry(at(31_000), Wants::Any));
    // It cost no delay: the first is still to come.
    let next = request.failed(&refused(), false, at(31_000));
    assert_eq!(next, retry(at(31_100), Wants::Any));
}

#[test]
fn what_the_error_forbids_is_not_made_again() {
    let sent = Traffic { bytes_sent: 1, ..Traffic::default() };
    for (error, idempotency, never) in [
        (Error::new(Drain::Refusing), Idempotency::Idempotent, Never::Final),
        (Error::new(Tls::PeerCert), Idempotency::Idempotent, Never::Final),
        (Error::new(Retry::BudgetExhausted), Idempotency::Idempotent, Never::Final),
        (refused(), Idempotency::Never, Never::Forbidden),
        (stale(), Idempotency::ConnectOnly, Never::NotIdempotent),
        (
            Error::new(Transfer::ResetEarly).with_traffic(sent),
            Idempotency::ConnectOnly,
            Never::NotIdempotent,
        ),
        (
            refused().with_traffic(Traffic { bytes_received: 1, ..sent }),
            Idempotency::KeyedBy(7),
            Never::Replied,
        ),
        (
            refused().with_traffic(Traffic { is_partial: true, ..sent }),
            Idempotency::Idempotent,
            Never::Partial,
        ),
    ] {
        let mut request = Request::of(&policy(1), idempotency, Some(at(0)));
        // That is said first, though there are neither attempts, time nor budget left.
        while request.budget.try_retry(at(1000)) {}
        let next = request.failed(&error, true, at(1000));
        assert_eq!(next, Next::GiveUp(Why::Verdict(never)), "{error}");
    }
}

#[test]
fn what_was_sent_is_repeated_if_it_may_be() {
    for (idempotency, wants) in
        [(Idempotency::Idempotent, Wants::Fresh), (Idempotency::KeyedBy(1), Wants::Fresh)]
    {
        let mut request = Request::of(&policy(3), idempotency, None);
        assert_eq!(request.failed(&stale(), false, at(1000)), retry(at(1000), wants));
    }
}

#[test]
fn no_more_attempts_than_may_be() {
    for attempts_max in [1, 2, 3, 7] {
        let mut request = Request::new(attempts_max);
        let granted = (0..20)
            .take_while(|_| {
                request.failed(&refused(), true, at(1000)) != Next::GiveUp(Why::Attempts)
            })
            .count() as u32;
        assert_eq!(granted + 1, attempts_max);
        assert_eq!(request.attempts.failed_so_far(), attempts_max);
        assert_eq!(request.spent(), u64::from(attempts_max - 1));
        assert_eq!(request.failed(&refused(), true, at(1000)), Next::GiveUp(Why::Attempts));
    }
    // A policy that is refused: no retry, and no panic.
    assert_eq!(Request::new(0).failed(&refused(), true, at(1000)), Next::GiveUp(Why::Attempts));
    let mut never = Request::of(&RetryPolicy::never(), Idempotency::Idempotent, None);
    assert_eq!(never.failed(&refused(), true, at(1000)), Next::GiveUp(Why::Attempts));
}

#[test]
fn an_attempt_that_would_begin_at_the_deadline_is_not_made_and_costs_nothing() {
    let with_deadline = |deadline| Request::of(&policy(9), Idempotency::Idempotent, Some(deadline));
    let mut request = with_deadline(at(1100));
    assert_eq!(request.failed(&refused(), false, at(1000)), Next::GiveUp(Why::Deadline));
    assert_eq!(request.spent(), 0);
    let mut request = with_deadline(at(1101));
    assert_eq!(request.failed(&refused(), false, at(1000)), retry(at(1100), Wants::Any));
    assert_eq!(request.spent(), 1);
    // At once is not soon enough either.
    let mut request = with_deadline(at(1000));
    assert_eq!(request.failed(&refused(), true, at(1000)), Next::GiveUp(Why::Deadline));
    assert_eq!(request.failed(&stale(), true, at(1000)), Next::GiveUp(Why::Deadline));
    let open = Error::new(Breaker::Open { until: at(31_000) });
    let mut request = with_deadline(at(31_000));
    assert_eq!(request.failed(&open, true, at(1000)), Next::GiveUp(Why::Deadline));
    assert_eq!(request.spent(), 0);
    // The deadline is asked about before the budget.
    while request.budget.try_retry(at(1000)) {}
    assert_eq!(request.failed(&open, true, at(1000)), Next::GiveUp(Why::Deadline));
}

#[test]
fn without_budget_nothing_is_made_again() {
    let mut request = Request::new(9);
    while request.budget.try_retry(at(1000)) {}
    assert_eq!(request.failed(&refused(), true, at(1000)), Next::GiveUp(Why::Budget));
    let none = RetryPolicy { budget: BudgetLimits::never(), ..policy(3) };
    let mut request = Request::of(&none, Idempotency::Idempotent, None);
    assert_eq!(request.failed(&refused(), true, at(1000)), Next::GiveUp(Why::Budget));
    request.budget = Budget::new(&BudgetLimits { percent: 100, ..none.budget }, 0, 1);
    request.budget.note_first(at(1000));
    assert_eq!(request.failed(&refused(), false, at(1000)), retry(at(1100), Wants::Any));
    assert_eq!(request.budget.left(at(1000)), 0);
}

#[test]
fn a_request_knows_no_earlier_time_than_its_start() {
    let mut request = Request::new(9);
    assert_eq!(request.failed(&refused(), true, at(3)), retry(at(1000), Wants::Other));
    assert_eq!(request.failed(&refused(), true, at(1500)), retry(at(1600), Wants::Other));
    assert_eq!(request.failed(&refused(), true, at(1200)), retry(at(1700), Wants::Other));
}

#[test]
fn the_end_of_time_is_no_panic() {
    let mut request = Request::new(u32::MAX);
    let never = Error::new(Breaker::Open { until: Duration::MAX });
    assert_eq!(request.failed(&never, true, at(1000)), retry(Duration::MAX, Wants::Any));
    assert_eq!(request.failed(&refused(), false, Duration::MAX), retry(Duration::MAX, Wants::Any));
    let mut request = Request::of(&policy(9), Idempotency::Idempotent, Some(Duration::MAX));
    assert_eq!(request.failed(&never, true, at(1000)), Next::GiveUp(Why::Deadline));
    let mut request = Request::new(u32::MAX);
    request.attempts.failed = u32::MAX;
    assert_eq!(request.failed(&refused(), true, at(1000)), Next::GiveUp(Why::Attempts));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_remedy() {
    let good = RetryPolicy::default();
    assert_eq!((good.check(), RetryPolicy::never().check()), (Ok(()), Ok(())));
    let error = RetryPolicy { attempts_max: 0, ..good }.check().expect_err("there is none");
    assert_eq!(error.to_string(), "0 attempts in all; say 1 for no retries, or more");
    let backoff = Backoff { factor: 0, ..good.backoff };
    let error = RetryPolicy { backoff, ..good }.check().expect_err("they become nothing");
    assert_eq!(error, RetryPolicyError::Backoff(BackoffError::Factor));
    assert_eq!(error.to_string(), BackoffError::Factor.to_string());
    let budget = BudgetLimits { percent: 1001, ..good.budget };
    let error = RetryPolicy { budget, ..good }.check();
    let percent = BudgetLimitsError::Percent { percent: 1001 };
    assert_eq!(error, Err(RetryPolicyError::Budget(percent)));
}

#[test]
fn reasons_read_as_sentences() {
    assert_eq!(Why::Verdict(Never::Partial).to_string(), "only some of it was sent");
    assert_eq!(Why::Attempts.to_string(), "as many attempts were made as may be");
    assert_eq!(Why::Deadline.to_string(), "its deadline comes before the next attempt");
    assert_eq!(Why::Budget.to_string(), "the retry budget is empty");
    assert!(Why::Waited.to_string().contains("for as long as it may"));
}

fn errors() -> impl Strategy<Value = Error> {
    let kinds = prop_oneof![
        Just(Kind::from(Dial::Refused)),
        Just(Kind::from(Transfer::StaleReuse)),
        Just(Kind::from(Resolve::Timeout)),
        Just(Kind::from(Drain::Refusing)),
        Just(Kind::from(Checkout::Timeout { snapshot: Default::default(), last_dial_error: None })),
        (0..5000_u64).prop_map(|ms| Kind::from(Breaker::Open { until: at(ms) })),
    ];
    (kinds, any::<bool>(), any::<bool>()).prop_map(|(kind, was_sent, has_reply)| {
        Error::new(kind).with_traffic(Traffic {
            bytes_sent: was_sent.into(),
            bytes_received: (was_sent && has_reply).into(),
            ..Traffic::default()
        })
    })
}

proptest! {
    /// Whatever fails in whatever order: never too many, never too late, never unpaid, never in the past, and each kind
    /// of retry that is made at once only once.
    #[test]
    fn a_request_keeps_to_its_policy(
        attempts_max in 0..6_u32, deadline in prop::option::of(500..4000_u64), per_second in 0..2_u32,
        idempotency in prop_oneof![
            Just(Idempotency::ConnectOnly), Just(Idempotency::Idempotent),
            Just(Idempotency::KeyedBy(3)), Just(Idempotency::Never),
        ],
        failures in prop::collection::vec((errors(), any::<bool>(), 0..600_u64), 1..12),
        seed: u64,
    ) {
        let budget = BudgetLimits { per_second, ..BudgetLimits::default() };
        let policy = RetryPolicy { attempts_max, budget, ..RetryPolicy::default() };
        let mut attempts = Attempts::new(&policy, idempotency, at(1000), deadline.map(at));
        let mut budget = Budget::new(&policy.budget, 0, 1);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut now, mut granted, mut fresh) = (at(1000), 0, 0);
        for (error, others, step) in failures {
            now += at(step);
            let before = budget.left(now);
            let next = attempts.failed(&error, others, now, &mut budget, &mut rng);
            let paid = before - budget.left(now);
            let allowed = error.retry(idempotency);
            match next {
                Next::GiveUp(why) => {
                    prop_assert_eq!(paid, 0);
                    match why {
                        Why::Verdict(never) => prop_assert_eq!(allowed, Repeat::Never(never)),
                        Why::Attempts => prop_assert!(
                            granted + 1 >= attempts_max || (allowed == Repeat::Fresh && fresh == 1)
                        ),
                        Why::Deadline => prop_assert!(deadline.is_some()),
                        Why::Budget => prop_assert_eq!(before, 0),
                        Why::Waited => {
                            let is_a_wait = error.phase() == Phase::Checkout;
                            prop_assert!(is_a_wait);
                        }
                    }
                    break;
                }
                Next::Retry { at: begins, wants } => {
                    granted += 1;
                    fresh += u32::from(wants == Wants::Fresh);
                    prop_assert_eq!(paid, 1);
                    prop_assert!(allowed.is_allowed());
                    prop_assert!(granted < attempts_max);
                    prop_assert!(begins >= now && deadline.is_none_or(|deadline| begins < at(deadline)));
                    prop_assert_eq!(wants == Wants::Fresh, allowed == Repeat::Fresh);
                    prop_assert_eq!(wants == Wants::Other, allowed == Repeat::Elsewhere && others);
                    prop_assert!(fresh <= 1);
                    now = begins;
                }
            }
        }
    }
}
