//! Connections as tasks hold them: what they received and what their sends took is noted as it happens, with the time
//! that waits took.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use slipring::{Conn, End, Lease, Outgoing, ReadHalf, SendError, WriteHalf, timeout};
use slipring_core::Key;

use super::waits::{On, known};
use super::world::{Counted, World};

/// A connection or a half of it, whose handle the world knows of.
pub(super) struct Held<T: Handle> {
    thing: Option<T>,
    pub(super) key: Key,
    pub(super) world: Rc<World>,
}

/// What holds a connection.
pub(super) trait Handle {
    const RECEIVES: bool;
    const SENDS: bool;
}

impl Handle for Conn {
    const RECEIVES: bool = true;
    const SENDS: bool = true;
}

impl Handle for ReadHalf {
    const RECEIVES: bool = true;
    const SENDS: bool = false;
}

impl Handle for WriteHalf {
    const RECEIVES: bool = false;
    const SENDS: bool = true;
}

impl<T: Handle> Held<T> {
    pub(super) fn new(world: &Rc<World>, key: Key, thing: T) -> Self {
        world.told_of(key, |told| {
            told.handles += 1;
            told.is_new = false;
        });
        Self { thing: Some(thing), key, world: Rc::clone(world) }
    }

    /// The handle, which is held as something else from now on.
    pub(super) fn into_inner(mut self) -> T {
        self.world.told_of(self.key, |told| told.handles -= 1);
        self.thing.take().expect("it is held until it is dropped")
    }

    pub(super) fn get(&mut self) -> &mut T {
        self.thing.as_mut().expect("it is held until it is dropped")
    }
}

impl<T: Handle> Drop for Held<T> {
    fn drop(&mut self) {
        if self.thing.is_none() {
            return;
        }
        let panicking = self.world.is_panicking();
        self.world.told_of(self.key, |told| {
            told.handles -= 1;
            told.is_deaf |= T::RECEIVES;
            if panicking && !std::mem::replace(&mut told.is_condemned, true) {
                told.was_over = told.is_shut && told.is_ended;
            }
            told.is_asked |= !panicking && told.handles == 0;
        });
        if T::SENDS {
            self.world.ends_sending(self.key);
        }
    }
}

/// What receives.
pub(super) trait Source: Handle {
    fn recv(&mut self) -> impl Future<Output = Option<Lease>>;
    fn recv_into(&mut self, into: &mut [u8]) -> impl Future<Output = usize>;
    fn unrecv(&mut self, lease: Lease);
    fn end(&self) -> Option<End>;
}

/// What sends.
pub(super) trait Sink: Handle {
    fn send(&mut self, data: Outgoing) -> impl Future<Output = Result<(), SendError>>;
    fn send_all(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), SendError>>;
    fn shutdown(&mut self);
}

macro_rules! receives {
    ($of:ty) => {
        impl Source for $of {
            async fn recv(&mut self) -> Option<Lease> {
                <$of>::recv(self).await
            }

            async fn recv_into(&mut self, into: &mut [u8]) -> usize {
                <$of>::recv_into(self, into).await
            }

            fn unrecv(&mut self, lease: Lease) {
                <$of>::unrecv(self, lease);
            }

            fn end(&self) -> Option<End> {
                <$of>::end(self)
            }
        }
    };
}

macro_rules! sends {
    ($of:ty) => {
        impl Sink for $of {
            async fn send(&mut self, data: Outgoing) -> Result<(), SendError> {
                <$of>::send(self, data).await
            }

            async fn send_all(&mut self, bytes: &[u8]) -> Result<(), SendError> {
                <$of>::send_all(self, bytes).await
            }

            fn shutdown(&mut self) {
                <$of>::shutdown(self);
            }
        }
    };
}

receives!(Conn);
receives!(ReadHalf);
sends!(Conn);
sends!(WriteHalf);

// ------------------------------------------------------------------------------ receiving, sending

/// Receives, by one of the ways to do so. `None`: nothing more comes, or not now.
pub(super) async fn take<T: Source>(held: &mut Held<T>) -> Option<Lease> {
    let (world, key) = (Rc::clone(&held.world), held.key);
    let lease = known(&world, On::Bytes(key), held.get().recv()).await;
    let Some(mut lease) = lease else {
        world.heard_end(key, held.get().end());
        return None;
    };
    if world.throw(|dice| dice.permille(150)) {
        let at = world.throw(|dice| dice.below(lease.len() as u32 + 1)) as usize;
        let front = lease.split_to(at);
        held.get().unrecv(lease);
        lease = front;
    }
    world.take(key, &lease);
    Some(lease)
}

/// Receives into bytes of its own; how many.
pub(super) async fn take_into<T: Source>(held: &mut Held<T>) -> Vec<u8> {
    let (world, key) = (Rc::clone(&held.world), held.key);
    let mut into = vec![0; world.throw(|dice| dice.log_between(1, 600)) as usize];
    let count = known(&world, On::Bytes(key), held.get().recv_into(&mut into)).await;
    into.truncate(count);
    if count == 0 {
        world.heard_end(key, held.get().end());
    } else {
        world.take(key, &into);
    }
    into
}

pub(super) fn copied(data: &Outgoing) -> Vec<u8> {
    match data {
        Outgoing::Lease(lease) => lease.to_vec(),
        Outgoing::Owned(bytes) => bytes.clone(),
        Outgoing::Static(bytes) => bytes.to_vec(),
    }
}

/// Sends, and notes what was taken; whether anything can be sent still.
pub(super) async fn give<T: Sink>(held: &mut Held<T>, data: impl Into<Outgoing>) -> bool {
    let (world, key, data) = (Rc::clone(&held.world), held.key, data.into());
    let bytes = copied(&data);
    // For want of memory it tries again.
    let _timer = Counted::new(&world, |world| &world.timers);
    match known(&world, On::Room(key), held.get().send(data)).await {
        Ok(()) => {
            world.give(key, &bytes);
            true
        }
        Err(error) => {
            check_refusal(&world, key, error, bytes.len());
            matches!(error, SendError::TooMany { .. } | SendError::TooManyOwned { .. })
        }
    }
}

fn check_refusal(world: &World, key: Key, error: SendError, count: usize) {
    let told = world.told_of(key, |told| *told);
    let is_right = match error {
        SendError::Ended(reason) => told.ended == Some(reason),
        SendError::ShutDown => told.is_shut,
        SendError::TooMany { bytes, most } => bytes == count && bytes > most,
        SendError::TooManyOwned { bytes, most } => bytes == count && bytes as u64 > most,
        _ => told.ended.is_none(),
    };
    if !is_right {
        world.complain(format!("{key:?}: a send said {error:?}, and it stands so: {told:?}"));
    }
}

/// Bytes of which some may be sent: nothing is, behind them.
struct Pieces<'a, T: Sink> {
    held: &'a mut Held<T>,
    is_whole: bool,
}

impl<T: Sink> Drop for Pieces<'_, T> {
    fn drop(&mut self) {
        let (world, key) = (&self.held.world, self.held.key);
        if !self.is_whole {
            world.give_up(key);
            world.ends_sending(key);
            self.held.get().shutdown();
        }
    }
}

/// Sends many bytes in pieces.
pub(super) async fn give_all<T: Sink>(held: &mut Held<T>, bytes: Vec<u8>) {
    let (world, key) = (Rc::clone(&held.world), held.key);
    world.give(key, &bytes);
    let _timer = Counted::new(&world, |world| &world.timers);
    let mut pieces = Pieces { held, is_whole: false };
    let sent = known(&world, On::Room(key), pieces.held.get().send_all(&bytes)).await;
    match sent {
        Ok(()) => pieces.is_whole = true,
        Err(error @ (SendError::TooMany { .. } | SendError::TooManyOwned { .. })) => {
            world.complain(format!("{key:?}: `send_all` is to cut, and said {error:?}"));
        }
        Err(error) => check_refusal(&world, key, error, bytes.len()),
    }
}

pub(super) fn something(world: &World) -> Outgoing {
    world.throw(|dice| match dice.below(4) {
        0 => Outgoing::Static(b"constant bytes"),
        _ => {
            let (fill, count) = (dice.word() as u8, dice.log_between(1, 4_000) as usize);
            Outgoing::Owned((0..count).map(|place| fill.wrapping_add(place as u8)).collect())
        }
    })
}

pub(super) fn span(world: &World, most_us: u64) -> Duration {
    Duration::from_micros(world.throw(|dice| dice.log_between(1, most_us)))
}

/// Sleeps, neither too short nor unknown.
pub(super) async fn nap(world: &Rc<World>, most_us: u64) {
    let (span, from_us) = (span(world, most_us), world.now_us());
    let until_us = from_us + span.as_micros() as u64;
    let _timer = Counted::new(world, |world| &world.timers);
    known(world, On::Time(until_us.div_ceil(1000)), slipring::sleep(span)).await;
    if world.now_us() < until_us {
        world.complain(format!("a sleep of {span:?} ended {} us early", until_us - world.now_us()));
    }
}

/// Gives a future so long.
pub(super) async fn within<F: Future>(
    world: &Rc<World>,
    most_us: u64,
    future: F,
) -> Option<F::Output> {
    let (span, from_us) = (span(world, most_us), world.now_us());
    let _timer = Counted::new(world, |world| &world.timers);
    let output = timeout(span, future).await;
    if output.is_err() && world.now_us() < from_us + span.as_micros() as u64 {
        world.complain(format!("a timeout of {span:?} came early"));
    }
    output.ok()
}
