//! Tasks that make requests of an upstream, in all ways there are, and look at what comes of each.
//!
//! Some are dropped at any point, some panic, some hold what they got for long. Each says in the ledger until when it
//! has to have an answer.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use slipring::failure::{Error, Kind, Transfer};
use slipring::policy::balancer::Availability;
use slipring::policy::breaker::Standing;
use slipring::pool::{Plain, Pool};
use slipring::upstream::{Request, Upstream};
use slipring::{Conn, Idempotency, Lease, connector::Stream};

use super::ledger::Ledger;
use super::promise::{self, Met};
use super::server::{HEAD_BYTES, request};
use super::standing::Seen;
use super::terms::{Deed, Terms};
use crate::dice::Dice;

/// How late a reactor may know of an end, if nothing holds it up.
const KNOWN_US: u64 = 100_000;

/// What a requester has.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) upstream: Upstream,
    pub(super) pool: Pool<Plain>,
    pub(super) terms: Terms,
    pub(super) reactor: usize,
}

/// Counts as a requester for as long as it is there.
struct Counted(Ledger);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open().requesters -= 1;
    }
}

/// Where a future is dropped.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Nowhere,
    Polls(u32),
    After(Duration),
}

impl Cut {
    fn draw(dice: &mut Dice, chance: u32) -> Self {
        match dice.permille(chance) {
            false => Self::Nowhere,
            true if dice.coin() => Self::Polls(dice.log_between(1, 16) as u32),
            true => Self::After(Duration::from_micros(dice.log_between(100, 2_000_000))),
        }
    }

    /// What comes of the future, if it is not dropped before.
    async fn of<F: Future>(self, future: F) -> Option<F::Output> {
        match self {
            Self::Nowhere => Some(future.await),
            Self::After(span) => slipring::timeout(span, future).await.ok(),
            Self::Polls(mut left) => {
                let mut future = pin!(future);
                poll_fn(|cx| {
                    if let Poll::Ready(done) = future.as_mut().poll(cx) {
                        return Poll::Ready(Some(done));
                    }
                    left = left.saturating_sub(1);
                    if left == 0 { Poll::Ready(None) } else { Poll::Pending }
                })
                .await
            }
        }
    }
}

/// A connection that requests go over, of whichever kind.
trait Line {
    async fn say(&mut self, bytes: &[u8]) -> Result<(), Error>;
    async fn hear(&mut self) -> Result<Lease, Error>;
    fn own(&self) -> Option<SocketAddr>;
}

impl Line for Stream {
    async fn say(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.send_all(bytes).await
    }

    async fn hear(&mut self) -> Result<Lease, Error> {
        self.recv_some().await
    }

    fn own(&self) -> Option<SocketAddr> {
        self.local()
    }
}

fn cut_off() -> Error {
    Error::new(Transfer::UnexpectedEof)
}

impl Line for Conn {
    async fn say(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.send_all(bytes).await.map_err(|_| cut_off())
    }

    async fn hear(&mut self) -> Result<Lease, Error> {
        self.recv().await.ok_or_else(cut_off)
    }

    fn own(&self) -> Option<SocketAddr> {
        self.local()
    }
}

fn now_us() -> u64 {
    slipring::now().as_micros() as u64
}

fn us(span: Duration) -> u64 {
    span.as_micros() as u64
}

/// All of one requester.
pub(super) async fn go(world: World, mut dice: Dice, starts_us: u64) {
    let _counted = Counted(world.ledger.clone());
    slipring::sleep(Duration::from_micros(starts_us)).await;
    for _ in 0..world.terms.requests_each {
        if world.ledger.open().is_healed {
            return;
        }
        let deed = dice.pick(&world.terms.deeds);
        let cut = Cut::draw(&mut dice, world.terms.cuts);
        let dice_of_it = dice.fork();
        let came = cut.of(world.one(deed, dice_of_it)).await;
        let what = match came {
            None => "dropped".to_owned(),
            Some(Ok(())) => "served".to_owned(),
            Some(Err(error)) => error.label().to_owned(),
        };
        world.ledger.open().note(format!("{deed:?} {what}"));
        world.look_at_ejected();
        let pause = Duration::from_millis(dice.log_between(1, world.terms.pause_ms));
        slipring::sleep(pause).await;
    }
}

/// A request that must be served: everything is well, and nobody else is there.
pub(super) async fn probe(world: World) {
    let _counted = Counted(world.ledger.clone());
    for number in 0..3 {
        let within = Some(Duration::from_secs(20));
        let asked = Request { within, hash: Some(number), ..Request::default() };
        let came = world.call(&asked, Idempotency::Idempotent, 0).await;
        if let Err(error) = came {
            // What others keep idle counts, too.
            if matches!(error.kind(), Kind::Admit(_) | Kind::Retry(_) | Kind::Checkout(_))
                && world.terms.are_connections_few()
            {
                continue;
            }
            let reactor = world.reactor;
            let snapshot = world.upstream.snapshot();
            let complaint = format!(
                "all is well, and a call of reactor {reactor} failed: {error} ({snapshot})"
            );
            return world.ledger.open().complain(complaint);
        }
    }
}

/// Leaves how the upstream stands on this reactor in the ledger.
pub(super) async fn tell(world: World) {
    let _counted = Counted(world.ledger.clone());
    let snapshot = world.upstream.snapshot();
    let mut pages = world.ledger.open();
    if pages.snapshots.len() <= world.reactor {
        pages.snapshots.resize(world.reactor + 1, None);
    }
    pages.snapshots[world.reactor] = Some(snapshot);
}

impl World {
    async fn one(&self, deed: Deed, mut dice: Dice) -> Result<(), Error> {
        let within = dice.coin().then(|| Duration::from_millis(dice.log_between(5, 8_000)));
        let hash = dice.coin().then(|| dice.word() % 8);
        let asked = Request { within, hash, ..Request::default() };
        match deed {
            Deed::Call => {
                let idempotency = dice.pick(&[
                    Idempotency::Idempotent,
                    Idempotency::Idempotent,
                    Idempotency::KeyedBy(7),
                    Idempotency::ConnectOnly,
                    Idempotency::Never,
                ]);
                let panics = if dice.permille(self.terms.panics) { dice.below(3) + 1 } else { 0 };
                self.call(&asked, idempotency, panics).await
            }
            Deed::Checkout => self.checkout(&asked, dice).await,
            Deed::Connect => self.connect(&asked, dice).await,
            Deed::Pool => self.pooled(dice).await,
        }
    }

    /// No more endpoints are left alone than may be.
    fn look_at_ejected(&self) {
        let endpoints = self.upstream.snapshot().endpoints;
        let ejected = endpoints.iter().filter(|it| it.availability == Availability::Ejected);
        let (ejected, most) = (ejected.count(), self.terms.ejected_max());
        if ejected > most {
            let all = endpoints.len();
            let complaint =
                format!("{ejected} of {all} endpoints are left alone, and {most} may be");
            self.ledger.open().complain(complaint);
        }
    }

    /// Until when there has to be an answer that may take so long.
    fn due_us(&self, span: Duration) -> u64 {
        now_us() + us(span) + self.terms.slack_us
    }

    async fn call(
        &self,
        asked: &Request,
        idempotency: Idempotency,
        panics: u32,
    ) -> Result<(), Error> {
        let (limits, act) = (&self.terms.limits, Duration::from_millis(self.terms.act_ms));
        let attempts_max = limits.retry.attempts_max;
        let most = if idempotency.may_repeat() { attempts_max } else { 1 };
        let number = self.ledger.open().add(most);
        let span = asked.within.unwrap_or(limits.connect_within + act * attempts_max);
        let _due = self.ledger.due(self.due_us(span), format!("call {number} ({asked:?})"));
        self.ledger.open().firsts.push((now_us(), self.reactor));
        let (mut met, mut since_us) = (Met::default(), now_us());
        let came = self
            .upstream
            .call(asked, idempotency, async |stream: &mut Stream| {
                met.acts += 1;
                if met.acts > 1 {
                    self.ledger.open().repeats.push((now_us(), self.reactor));
                }
                if met.acts > attempts_max {
                    let complaint =
                        format!("call {number} is made {} times, of {attempts_max}", met.acts);
                    self.ledger.open().complain(complaint);
                }
                let has_served = self.ledger.open().note_use(stream.local());
                let in_time = slipring::timeout(act, self.exchange(number, stream, true, since_us));
                let came = in_time.await;
                let since = std::mem::replace(&mut since_us, now_us());
                let has_heard = self.ledger.open().requests[number as usize].is_heard;
                met.has_heard |= has_heard;
                met.stale += u32::from(has_served && !has_heard && matches!(came, Ok(Err(_))));
                met.last = Some(stream.peer());
                if panics == met.acts {
                    self.panic();
                }
                // Of a call that panicked nobody is told.
                self.see(since, &came);
                let too_late = || Error::new(Transfer::ReadTimeout).with_traffic(stream.traffic());
                came.map_err(|_| too_late())?
            })
            .await;
        if asked.within.is_none() && idempotency.may_repeat() && promise::holds(&self.terms) {
            self.hold_to_promise(number, &met, came.as_ref().err());
        }
        came
    }

    /// What an attempt of a call has come to that began then, if it is known what that says of the upstream.
    fn see(&self, since_us: u64, came: &Result<Result<(), Error>, impl Sized>) {
        let is_well = match came {
            Ok(Ok(())) => true,
            Ok(Err(error)) => match error.kind() {
                Kind::Transfer(Transfer::UnexpectedEof | Transfer::ResetEarly) => false,
                _ => return,
            },
            Err(_) => return,
        };
        let (at_us, reactor) = (now_us(), self.reactor);
        self.ledger.open().see(Seen { at_us, since_us, reactor, is_well });
    }

    /// A connect or a checkout has come to a connection.
    fn see_connection(&self) {
        self.see(now_us(), &Ok::<_, ()>(Ok(())));
    }

    /// See `promise`.
    fn hold_to_promise(&self, number: u64, met: &Met, error: Option<&Error>) {
        let mut pages = self.ledger.open();
        if pages.is_healed {
            return;
        }
        pages.note(promise::MADE);
        // The counters of other reactors are told a tenth of a second later.
        let has_opened = pages.has_opened
            || self.upstream.breaker() != Standing::Closed
            || self.upstream.snapshot().counters.breaker_opened > 0;
        if let Some(error) = error
            && met.forbids(error, &self.terms, has_opened)
        {
            pages.complain(format!(
                "one endpoint is steady, and call {number} of reactor {} failed: {error} ({met:?})",
                self.reactor
            ));
        }
    }

    async fn checkout(&self, asked: &Request, mut dice: Dice) -> Result<(), Error> {
        let since_us = now_us();
        self.ledger.open().firsts.push((since_us, self.reactor));
        let span = asked.within.unwrap_or(self.terms.limits.connect_within);
        let due = self.ledger.due(self.due_us(span), format!("a checkout ({asked:?})"));
        let waits = self.ledger.wait(None);
        let mut lent = self.upstream.checkout(asked).await?;
        drop((due, waits));
        self.see_connection();
        if dice.permille(200) {
            // Held, and not used.
            self.hold(&mut dice).await;
            return Ok(());
        }
        for turn in 0..dice.between(1, 3) {
            lent.mark_unclean();
            if dice.permille(self.terms.panics) {
                self.panic();
            }
            let number = self.ledger.open().add(1);
            let act = Duration::from_millis(self.terms.act_ms);
            let exchange = self.exchange(number, &mut *lent, turn == 0, since_us);
            let came = slipring::timeout(act, exchange).await;
            if let Err(error) = came.unwrap_or_else(|_| Err(Error::new(Transfer::ReadTimeout))) {
                if dice.coin() {
                    lent.failed(&error);
                }
                return Err(error);
            }
            self.hold(&mut dice).await;
        }
        Ok(())
    }

    async fn connect(&self, asked: &Request, mut dice: Dice) -> Result<(), Error> {
        self.ledger.open().firsts.push((now_us(), self.reactor));
        let span = asked.within.unwrap_or(self.terms.limits.connect_within);
        let due = self.ledger.due(self.due_us(span), format!("a connect ({asked:?})"));
        let waits = self.ledger.wait(None);
        let connected = self.upstream.connect(asked).await?;
        drop((due, waits));
        self.see_connection();
        let (mut stream, held) = connected.into_parts();
        for turn in 0..dice.below(3) {
            let number = self.ledger.open().add(1);
            let act = Duration::from_millis(self.terms.act_ms);
            let exchange = self.exchange(number, &mut stream, turn == 0, u64::MAX);
            let came = slipring::timeout(act, exchange).await;
            came.unwrap_or_else(|_| Err(Error::new(Transfer::ReadTimeout)))?;
        }
        self.hold(&mut dice).await;
        drop(stream);
        drop(held);
        Ok(())
    }

    async fn pooled(&self, mut dice: Dice) -> Result<(), Error> {
        let limits = &self.terms.pool;
        let within = dice.coin().then(|| Duration::from_millis(dice.log_between(1, 5_000)));
        // A dial of one's own may come on top.
        let dial = Duration::from_secs(6);
        let due = |span: Option<Duration>| {
            let span = span.unwrap_or(Duration::from_secs(3_600));
            self.ledger.due(self.due_us(span), "a checkout of the pool")
        };
        let pooled = match (dice.below(6), within) {
            (0, _) => match self.pool.try_checkout() {
                Some(pooled) => Ok(pooled),
                None => return Ok(()),
            },
            (1, _) => {
                let _due = due(limits.checkout_timeout.map(|own| own + dial));
                self.pool.checkout_fresh().await
            }
            (_, Some(within)) => {
                let _due = (due(Some(within)), self.ledger.wait(Some(self.reactor)));
                self.pool.checkout_within(within).await
            }
            (_, None) => {
                let _due = (due(limits.checkout_timeout), self.ledger.wait(Some(self.reactor)));
                self.pool.checkout().await
            }
        };
        let mut pooled = pooled?;
        for turn in 0..dice.below(3) {
            pooled.mark_unclean();
            if dice.permille(self.terms.panics) {
                self.panic();
            }
            let number = self.ledger.open().add(1);
            let act = Duration::from_millis(self.terms.act_ms);
            let exchange = self.exchange(number, &mut *pooled, turn == 0, u64::MAX);
            let came = slipring::timeout(act, exchange).await;
            came.unwrap_or_else(|_| Err(Error::new(Transfer::ReadTimeout)))?;
            pooled.mark_clean();
            self.hold(&mut dice).await;
        }
        match dice.below(8) {
            0 => pooled.discard(),
            1 => drop(pooled.take()),
            _ => drop(pooled),
        }
        Ok(())
    }

    async fn hold(&self, dice: &mut Dice) {
        if dice.permille(400) && !self.ledger.open().is_healed {
            let span = Duration::from_millis(dice.log_between(1, self.terms.hold_ms));
            slipring::sleep(span).await;
        }
    }

    fn panic(&self) -> ! {
        self.ledger.open().panics += 1;
        std::panic::resume_unwind(Box::new("meant"))
    }

    /// A request and its answer. `is_new`: the connection has just been got.
    async fn exchange(
        &self,
        number: u64,
        line: &mut impl Line,
        is_new: bool,
        since_us: u64,
    ) -> Result<(), Error> {
        let own = line.own();
        let _in_use = self.ledger.begin(number, own, since_us);
        if is_new && let Some(own) = own {
            self.look_at(number, own);
        }
        line.say(&request(number)).await?;
        let mut came: Vec<u8> = Vec::new();
        loop {
            came.extend_from_slice(&line.hear().await?);
            self.ledger.open().requests[number as usize].is_heard = true;
            // What nobody asked for.
            if came[0] == b'X' {
                return Err(cut_off());
            }
            if came.len() < HEAD_BYTES {
                continue;
            }
            let of = u64::from_le_bytes(came[1..9].try_into().expect("eight bytes"));
            if came[0] != b'A' || of != number {
                let complaint =
                    format!("request {number} reads the answer of {of} ({:?})", came[0]);
                self.ledger.open().complain(complaint);
                return Err(cut_off());
            }
            let length = usize::from(u16::from_le_bytes([came[9], came[10]])) + HEAD_BYTES;
            if came.len() == length {
                return Ok(());
            }
            if came.len() > length {
                return Err(cut_off());
            }
        }
    }

    /// Who gives out a connection must not have known that it is of no use.
    fn look_at(&self, number: u64, own: SocketAddr) {
        let known_us = if self.terms.slack_us > 1_000_000 { self.terms.slack_us } else { KNOWN_US };
        let mut pages = self.ledger.open();
        let unfit_us = pages.unfit_us.get(&own).copied();
        if let Some(unfit_us) = unfit_us.filter(|unfit_us| unfit_us + known_us < now_us()) {
            let now_us = now_us();
            pages.complain(format!(
                "request {number} got the connection of {own} at {now_us} us, which ended at {unfit_us} us"
            ));
        }
    }
}
