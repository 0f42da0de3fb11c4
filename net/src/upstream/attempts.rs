//! The loop of retries, and what one attempt of each kind is.

use std::panic::Location;
use std::time::Duration;

use slipring_core::canary::{Canary, sings};

use super::Request;
use super::call::{Call, Trying};
use super::dialer::{Counted, Dialer};
use super::lent::{Connected, Lent};
use super::room::UpstreamRoom;
use crate::connector::Stream;
use crate::failure::{self, Checkout, Error, Idempotency, Kind, Phase, Traffic};
use crate::policy::budget::{Budget, BudgetLimits};
use crate::policy::outcome::Outcome;
use crate::policy::retry::{Attempts, Next, Wants, Why};
use crate::pool::Pooled;
use crate::tasks::{now, sleep_until, timeout};

impl UpstreamRoom {
    /// Attempts until one succeeds, or no further one is allowed. `deadline` is when all has to be over.
    async fn attempt<T>(
        &self,
        request: &Request,
        idempotency: Idempotency,
        deadline: Option<Duration>,
        begun: Begun,
        mut act: impl AsyncFnMut(Call, Wants) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let idempotency = match sings(Canary::RepeatsAnything) {
            true => Idempotency::Idempotent,
            false => idempotency,
        };
        // Of those tried, so many are avoided; of the last one it is not known yet.
        let (mut tried, mut avoided) = (Vec::new(), 0);
        let (started, mut result) = match begun {
            Begun::Failed { started, endpoint, error } => {
                tried.push(endpoint);
                (started, Err(error))
            }
            Begun::Chosen(_) | Begun::Nothing => {
                let started = now();
                self.note_request(started);
                let chosen = match begun {
                    Begun::Chosen(chosen) => chosen,
                    _ => self.begin(request, &[]),
                };
                (started, self.try_once(chosen, Wants::Any, &mut tried, &mut act).await)
            }
        };
        let mut attempts =
            Attempts::new(&self.upstream.limits.retry, idempotency, started, deadline);
        loop {
            let error = match result {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let others = self.has_others(&tried);
            let next = {
                let verdicts = &mut *self.verdicts.borrow_mut();
                if sings(Canary::BudgetIgnored) {
                    verdicts.budget = Budget::new(&BudgetLimits::default(), 0, 1);
                }
                attempts.failed(&error, others, now(), &mut verdicts.budget, &mut verdicts.rng)
            };
            match next {
                Next::Retry { at, wants } => {
                    tracing::debug!(upstream = %self.upstream.name, %error, ?wants, "is tried again");
                    self.count(|counters| counters.retries += 1);
                    if at > now() {
                        sleep_until(at).await;
                    }
                    if sings(Canary::TriedForgotten) {
                        tried.clear();
                        avoided = 0;
                    }
                    // Whom another was wanted instead of is not asked again, as long as there are others. Who failed
                    // for the connection's sake may be, for a fresh one.
                    let avoid = match wants {
                        Wants::Any if !others => &[],
                        Wants::Any | Wants::Fresh => {
                            tried.truncate(avoided);
                            &tried[..]
                        }
                        Wants::Other => {
                            avoided = tried.len();
                            &tried[..]
                        }
                    };
                    let chosen = self.begin(request, avoid);
                    result = self.try_once(chosen, wants, &mut tried, &mut act).await;
                }
                Next::GiveUp(why) => {
                    self.count(|counters| counters.note_end(why));
                    return Err(match why {
                        Why::Budget => Error::new(failure::Retry::BudgetExhausted).over(error),
                        Why::Verdict(_) | Why::Attempts | Why::Deadline | Why::Waited => error,
                    });
                }
            }
        }
    }

    /// One attempt, with whom is chosen for it.
    async fn try_once<T>(
        &self,
        chosen: Result<Call, Error>,
        wants: Wants,
        tried: &mut Vec<u32>,
        act: &mut impl AsyncFnMut(Call, Wants) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let call = match chosen {
            Ok(call) => call,
            Err(error) => {
                self.count(|counters| counters.note_nobody(&error));
                return Err(error);
            }
        };
        let endpoint = call.endpoint;
        self.count(|counters| counters.attempts += 1);
        let result = act(call, wants).await;
        match &result {
            Ok(_) => self.count(|counters| counters.succeeded += 1),
            Err(_) => tried.push(endpoint),
        }
        result
    }

    /// A connection that is kept where a request goes to. Most find one: what the others need, who have to wait, is not
    /// moved about with every one of them.
    fn at_once(&self, request: &Request, at: &'static Location<'static>) -> Result<Lent, Begun> {
        if !self.is_known() {
            return Err(Begun::Nothing);
        }
        let call = match self.begin(request, &[]) {
            Ok(call) => call,
            Err(error) => return Err(Begun::Chosen(Err(error))),
        };
        let Some(pooled) = call.member().pool.room().try_checkout(at) else {
            return Err(Begun::Chosen(Ok(call)));
        };
        self.note_request(call.started());
        self.count(|counters| counters.attempts += 1);
        Ok(lent(pooled, call))
    }

    fn note_request(&self, now: Duration) {
        self.verdicts.borrow_mut().budget.note_first(now);
        self.count(|counters| counters.requests += 1);
    }

    /// What is waited for while a connection is got: the names, and then it, in all within the time.
    async fn within<T>(
        &self,
        request: &Request,
        get: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let within = request.within.unwrap_or(self.upstream.limits.connect_within);
        let _pending = self.pend()?;
        let begun = now();
        let mut is_tried = false;
        let got = timeout(within, async {
            self.known().await;
            is_tried = true;
            get.await
        });
        match got.await {
            Ok(result) => result,
            Err(_) => {
                self.count(|counters| counters.note_time_up(is_tried));
                let error = match self.upstream.roster().is_known {
                    true => Error::new(failure::Dial::Timeout),
                    false => Error::new(failure::Resolve::Timeout),
                };
                Err(error.after(now().saturating_sub(begun)))
            }
        }
    }

    fn deadline(&self, request: &Request) -> Duration {
        let within = request.within.unwrap_or(self.upstream.limits.connect_within);
        now().saturating_add(within)
    }

    // ------------------------------------------------------------------------------ connect

    pub(super) async fn connect(&self, request: &Request) -> Result<Connected, Error> {
        let deadline = self.deadline(request);
        let get = self.attempt(
            request,
            Idempotency::ConnectOnly,
            Some(deadline),
            Begun::Nothing,
            async |call, _| self.dial(call, request, deadline).await,
        );
        self.within(request, get).await
    }

    async fn dial(
        &self,
        mut call: Call,
        request: &Request,
        deadline: Duration,
    ) -> Result<Connected, Error> {
        let (begun, address) = (now(), call.member().address());
        let late = |kind: failure::Kind| Error::new(kind).after(now().saturating_sub(begun));
        let left = || deadline.saturating_sub(now());
        let limit = self.upstream.limits.connections_max;
        let limited = failure::Kind::from(failure::Admit::UpstreamLimit { limit });
        // First a place among the dials of this endpoint: who holds a connection's meanwhile keeps it from all others.
        let Ok(dial) = timeout(left(), call.dials().take()).await else {
            // Those who are first there may wait for a place themselves.
            return Err(match self.connections.is_full() {
                true => late(limited),
                false => late(failure::Dial::Timeout.into()).at(address),
            });
        };
        let Ok(place) = timeout(left(), self.connection(&self.own)).await else {
            return Err(late(limited));
        };
        let trying = Trying::begin(self.me(), call.member().number);
        let connector = &call.member().connector;
        let connected = connector.connect_within(address, &request.about, left()).await;
        match connected {
            Ok(stream) => {
                trying.ended();
                drop(dial);
                call.judge(Outcome::Success, false);
                Ok(Connected::new(Counted::new(stream, place), call))
            }
            // The request's time was over: the endpoint might have answered a moment later.
            Err(error) if error.outcome() == Outcome::DialTimeout && left().is_zero() => {
                trying.cut_short();
                Err(error.after(now().saturating_sub(begun)))
            }
            Err(error) => {
                trying.ended();
                drop(dial);
                call.failed(&error, false);
                Err(error)
            }
        }
    }

    // ------------------------------------------------------------------------------ checkout

    pub(super) async fn checkout(
        &self,
        request: &Request,
        at: &'static Location<'static>,
    ) -> Result<Lent, Error> {
        match self.at_once(request, at) {
            Ok(lent) => {
                self.count(|counters| counters.succeeded += 1);
                Ok(lent)
            }
            Err(begun) => Box::pin(self.checkout_in_time(request, at, begun)).await,
        }
    }

    async fn checkout_in_time(
        &self,
        request: &Request,
        at: &'static Location<'static>,
        begun: Begun,
    ) -> Result<Lent, Error> {
        let deadline = self.deadline(request);
        let only = Idempotency::ConnectOnly;
        let get = self.attempt(request, only, Some(deadline), begun, async |call, wants| {
            self.take(call, wants, at, deadline).await
        });
        self.within(request, get).await
    }

    async fn take(
        &self,
        mut call: Call,
        wants: Wants,
        at: &'static Location<'static>,
        deadline: Duration,
    ) -> Result<Lent, Error> {
        let pool = &call.member().pool;
        let left = deadline.saturating_sub(now());
        let within = pool.limits().checkout_timeout.map_or(left, |own| own.min(left));
        let taken = match wants {
            Wants::Fresh => pool.take_fresh(at, within).await,
            Wants::Any | Wants::Other => pool.take(at, within).await,
        };
        match taken {
            Ok(pooled) => Ok(lent(pooled, call)),
            Err(error) => {
                let is_a_dial =
                    matches!(error.phase(), Phase::Dial | Phase::TlsHandshake | Phase::ProxyHeader);
                call.failed(&error, is_a_dial);
                let is_late = matches!(error.kind(), Kind::Checkout(Checkout::Timeout { .. }));
                if is_late && call.pooled().is_wanting() {
                    // The pool is not full: its dial waits for a place of the upstream's.
                    let limit = self.upstream.limits.connections_max;
                    let limit = Error::new(failure::Admit::UpstreamLimit { limit });
                    return Err(error.over(limit.at(call.member().address())));
                }
                Err(error)
            }
        }
    }

    // ------------------------------------------------------------------------------ call

    pub(super) async fn call<T>(
        &self,
        request: &Request,
        idempotency: Idempotency,
        at: &'static Location<'static>,
        mut act: impl AsyncFnMut(&mut Stream) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let times = Times {
            get_by: self.deadline(request),
            end_by: request.within.map(|within| now().saturating_add(within)),
        };
        let begun = match self.at_once(request, at) {
            Ok(lent) => {
                let (started, endpoint) = lent.begun();
                match times.act(lent, &mut act).await {
                    Ok(done) => {
                        self.count(|counters| counters.succeeded += 1);
                        return Ok(done);
                    }
                    Err(error) => Begun::Failed { started, endpoint, error },
                }
            }
            Err(begun) => begun,
        };
        Box::pin(self.call_in_time(request, idempotency, at, begun, times, act)).await
    }

    async fn call_in_time<T>(
        &self,
        request: &Request,
        idempotency: Idempotency,
        at: &'static Location<'static>,
        begun: Begun,
        times: Times,
        mut act: impl AsyncFnMut(&mut Stream) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Until it has its first connection; who tries again has waited before.
        let mut pending = match begun {
            Begun::Failed { .. } => None,
            Begun::Chosen(_) | Begun::Nothing => Some(self.pend()?),
        };
        let left = times.get_by.saturating_sub(now());
        if !self.is_known() && timeout(left, self.known()).await.is_err() {
            self.count(|counters| counters.note_time_up(false));
            return Err(Error::new(failure::Resolve::Timeout).after(left));
        }
        self.attempt(request, idempotency, Some(times.last()), begun, async |call, wants| {
            let lent = self.take(call, wants, at, times.get_by.max(now())).await;
            drop(pending.take());
            times.act(lent?, &mut act).await
        })
        .await
    }
}

/// How far a request has come before it waits for anything.
enum Begun {
    /// Nowhere.
    Nothing,
    /// To whom its first attempt is for, or why there is nobody.
    Chosen(Result<Call, Error>),
    /// Its first attempt has failed, over a kept connection.
    Failed { started: Duration, endpoint: u32, error: Error },
}

/// Until when a call is to have a connection, and until when it is to be over, if that was said.
#[derive(Clone, Copy)]
struct Times {
    get_by: Duration,
    end_by: Option<Duration>,
}

impl Times {
    /// Retries end when the request has to be over; without such a time, when a connection should have been had.
    fn last(self) -> Duration {
        self.end_by.unwrap_or(self.get_by)
    }

    /// What the caller does with a connection, in the time that it has.
    async fn act<T>(
        self,
        mut lent: Lent,
        act: &mut impl AsyncFnMut(&mut Stream) -> Result<T, Error>,
    ) -> Result<T, Error> {
        lent.begins();
        let acted = match self.end_by {
            Some(end_by) => timeout(end_by.saturating_sub(now()), act(&mut lent)).await,
            None => Ok(act(&mut lent).await),
        };
        match acted {
            Ok(Ok(done)) => {
                lent.succeeded();
                Ok(done)
            }
            Ok(Err(error)) => {
                let error = knowing(error, lent.traffic());
                lent.failed(&error);
                Err(error)
            }
            Err(elapsed) => {
                let error = Error::new(failure::Transfer::ReadTimeout)
                    .at(lent.peer())
                    .after(elapsed.within)
                    .with_traffic(lent.traffic());
                lent.failed(&error);
                Err(error)
            }
        }
    }
}

/// A connection of a pool, for one request.
fn lent(mut pooled: Pooled<Dialer>, call: Call) -> Lent {
    let is_reused = pooled.is_reused();
    pooled.begin_request(is_reused);
    Lent::new(pooled, call)
}

/// The error with all that was under way. One that the caller has made itself may know nothing of it, and a request
/// that may not be carried out twice would be made again.
fn knowing(error: Error, traffic: Traffic) -> Error {
    let told = error.traffic();
    let traffic = Traffic {
        bytes_sent: traffic.bytes_sent.max(told.bytes_sent),
        bytes_received: traffic.bytes_received.max(told.bytes_received),
        is_reused: traffic.is_reused || told.is_reused,
        is_partial: traffic.is_partial || told.is_partial,
    };
    error.with_traffic(traffic)
}
