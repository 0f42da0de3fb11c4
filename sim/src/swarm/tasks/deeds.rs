//! What tasks do, drawn one deed after the other: everything that code on connections may do, dropped, cancelled and
//! panicking anywhere.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use slipring::{Conn, End, JoinError, Lease, Scope};
use slipring_core::{SendRefused, Timeout};

use super::held::{Held, copied, give, give_all, nap, something, span, take, take_into, within};
use super::waits::{First, On, anyhow, known, once, race};
use super::world::{Counted, World};
use crate::dice::Dice;

/// Leases that a task keeps at the most: each keeps a buffer.
const KEPT_MAX: usize = 2;
/// How deep tasks hand connections on.
const DEPTH_MAX: u32 = 3;
/// How long a task does nothing at the most, microseconds.
const NAP_US: u64 = 5_000_000;

type Deed = Pin<Box<dyn Future<Output = ()>>>;

/// Panics when it is dropped, now and then; or starts a task.
struct Bomb(Rc<World>);

impl Drop for Bomb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if !self.0.is_healed() && self.0.throw(|dice| dice.permille(50)) {
            let world = Rc::clone(&self.0);
            drop(spawn(&self.0, async move { nap(&world, 100_000).await }));
        }
        if self.0.means_to_panic(8) {
            resume_unwind(Box::new("meant"));
        }
    }
}

/// Serves a client: what a task of the runtime does.
pub(in super::super) fn serve(world: Rc<World>, conn: Conn) -> impl Future<Output = ()> {
    let (alive, held) = (alive(&world), Held::new(&world, conn.key(), conn));
    // What makes the future is user code, too.
    world.may_panic();
    rooted(world, alive, async move { act(held, 0).await })
}

fn alive(world: &Rc<World>) -> Counted {
    Counted::new(world, |world| &world.alive)
}

/// A task's whole future: whatever was dropped before it is polled has been dropped.
async fn rooted<F: Future>(world: Rc<World>, alive: Counted, future: F) -> F::Output {
    let mut future = Box::pin(future);
    let output = poll_fn(|cx| {
        world.calm_down();
        future.as_mut().poll(cx)
    })
    .await;
    drop((future, alive));
    output
}

fn spawn<F: Future<Output: 'static> + 'static>(
    world: &Rc<World>,
    future: F,
) -> slipring::JoinHandle<F::Output> {
    slipring::spawn_local(rooted(Rc::clone(world), alive(world), future))
}

/// Deeds, until there were enough, everything is well, or nothing more can be done.
fn act(mut held: Held<Conn>, depth: u32) -> Deed {
    Box::pin(async move {
        let world = Rc::clone(&held.world);
        let deeds = world.throw(|dice| dice.log_between(1, 24));
        let mut kept = Vec::new();
        for _ in 0..deeds {
            if world.is_healed() {
                break;
            }
            world.book.borrow_mut().words += 1;
            world.may_panic();
            match world.throw(|dice| dice.below(30)) {
                0..8 => receive(&mut held, &mut kept).await,
                8..12 => send(&mut held, &mut kept).await,
                12..14 => nap(&world, NAP_US).await,
                14 => slipring::yield_now().await,
                15 => within_reads(&mut held).await,
                16..18 => {
                    held = match halve(held).await {
                        Some(whole) => whole,
                        None => return,
                    }
                }
                18..20 => children(&world).await,
                20 => scope(&world).await,
                21 if depth < DEPTH_MAX => return hand_on(held, depth).await,
                22 => call_out(&world, depth).await,
                23 if world.throw(|dice| dice.permille(300)) => end(&mut held).await,
                24 => wait_for_drain(&world).await,
                25 => set_deadlines(&mut held),
                26 => join_remote(&world).await,
                _ => kept.clear(),
            }
        }
        drop(kept);
        if !world.is_healed() && world.throw(|dice| dice.permille(300)) {
            return;
        }
        settle(held).await;
    })
}

/// Gives back what comes, to the end.
async fn settle(mut held: Held<Conn>) {
    let world = Rc::clone(&held.world);
    held.get().set_read_deadline(Timeout::Never);
    loop {
        let Some(lease) = take(&mut held).await else {
            if held.get().end() == Some(End::ReadTimeout) {
                continue;
            }
            return;
        };
        if !lease.is_empty() && !give(&mut held, lease).await && !world.is_healed() {
            return;
        }
    }
}

async fn receive(held: &mut Held<Conn>, kept: &mut Vec<Lease>) {
    let world = Rc::clone(&held.world);
    let way = world.throw(|dice| dice.below(8));
    let lease = match way {
        0 => once(take(held)).await.flatten(),
        1 => once(anyhow(&world, take(held))).await.flatten(),
        2 => match race(&world, take(held), nap(&world, 50_000)).await {
            First::One(lease) => lease,
            First::Other(()) => None,
        },
        3 => {
            // Others wait for the buffers that it keeps, and it for bytes.
            kept.clear();
            anyhow(&world, take(held)).await
        }
        4 => {
            let bytes = within(&world, 100_000, take_into(held)).await.unwrap_or_default();
            if !bytes.is_empty() {
                let _ = within(&world, 1_000_000, give(held, bytes)).await;
            }
            None
        }
        5 => {
            kept.clear();
            drop(anyhow(&world, take_into(held)).await);
            None
        }
        _ => within(&world, 200_000, anyhow(&world, take(held))).await.flatten(),
    };
    let Some(lease) = lease else { return };
    world.may_panic();
    match world.throw(|dice| dice.below(6)) {
        0 if kept.len() < KEPT_MAX => kept.push(lease),
        1 => drop(lease),
        2 => {
            within(&world, 1_000_000, give(held, lease.to_vec())).await;
        }
        _ => {
            kept.clear();
            anyhow(&world, give(held, lease)).await;
        }
    }
}

async fn send(held: &mut Held<Conn>, kept: &mut Vec<Lease>) {
    let (world, key) = (Rc::clone(&held.world), held.key);
    match world.throw(|dice| dice.below(7)) {
        0 => {
            if let Some(lease) = kept.pop() {
                within(&world, 500_000, anyhow(&world, give(held, lease))).await;
            }
        }
        1 => {
            once(give(held, something(&world))).await;
        }
        2 => {
            let data = something(&world);
            race(&world, give(held, data), nap(&world, 20_000)).await;
        }
        3 => {
            let count = world.throw(|dice| dice.log_between(1, 40_000)) as usize;
            let bytes = (0..count).map(|place| place as u8).collect();
            within(&world, 2_000_000, give_all(held, bytes)).await;
        }
        4 => {
            let ready = known(&world, On::Room(key), poll_fn(|cx| held.get().poll_ready(cx)));
            if let Some(Ok(())) = within(&world, 500_000, ready).await {
                let data = something(&world);
                let (bytes, sent) = (copied(&data), held.get().try_send(data));
                match sent {
                    Ok(()) => world.give(key, &bytes),
                    Err(SendRefused::Ended(_)) => world.complain(format!("{key:?}: not ready")),
                    Err(SendRefused::Full(_)) => {}
                }
            }
        }
        5 => {
            // More than it may hold.
            let bytes = vec![0; held.world.outbox_bytes_max + 1];
            within(&world, 500_000, give(held, bytes)).await;
        }
        _ => {
            kept.clear();
            anyhow(&world, give(held, something(&world))).await;
        }
    }
}

/// Waits for bytes by a deadline of the connection's own.
async fn within_reads(held: &mut Held<Conn>) {
    let world = Rc::clone(&held.world);
    let within_ms = world.throw(|dice| dice.log_between(1, 500));
    held.get().set_read_deadline(Timeout::After(Duration::from_millis(within_ms)));
    let _timer = Counted::new(&world, |world| &world.timers);
    let mut from_us = world.now_us();
    if world.throw(Dice::coin) {
        once(take(held)).await;
        nap(&world, 1_000_000).await;
        // What is left of it goes on, if any is.
        if world.now_us() >= from_us + within_ms * 1000 + 1000 {
            from_us = world.now_us();
        }
    }
    let nothing = take(held).await.is_none();
    let waited_us = world.now_us() - from_us;
    if nothing && held.get().end() == Some(End::ReadTimeout) && waited_us < within_ms * 1000 {
        let text = format!("a read deadline of {within_ms} ms came after {waited_us} us");
        world.complain(text);
    }
    held.get().set_read_deadline(Timeout::Never);
}

/// Two tasks have a half each; the whole, if it comes together again.
async fn halve(held: Held<Conn>) -> Option<Held<Conn>> {
    let (world, key) = (Rc::clone(&held.world), held.key);
    let (receives, sends) = held.into_inner().split();
    let mut receives = Held::new(&world, key, receives);
    let mut sends = Held::new(&world, key, sends);
    if world.throw(|dice| dice.permille(200)) {
        // Which of them goes first.
        if world.throw(Dice::coin) {
            drop(receives);
            within(&world, 200_000, give(&mut sends, something(&world))).await;
        } else {
            drop(sends);
            within(&world, 200_000, take(&mut receives)).await;
        }
        return None;
    }
    let of_child = Rc::clone(&world);
    let child = spawn(&world, async move {
        let (world, _bomb) = (Rc::clone(&of_child), Bomb(of_child));
        for _ in 0..world.throw(|dice| dice.below(4)) {
            world.may_panic();
            within(&world, 300_000, give(&mut sends, something(&world))).await;
        }
        match world.throw(|dice| dice.below(4)) {
            0 => None,
            1 => {
                world.ends_sending(key);
                sends.get().shutdown();
                Some(sends)
            }
            _ => Some(sends),
        }
    });
    for _ in 0..world.throw(|dice| dice.below(4)) {
        world.may_panic();
        if world.throw(Dice::coin) {
            within(&world, 100_000, take(&mut receives)).await;
        } else {
            drop(within(&world, 100_000, take_into(&mut receives)).await);
        }
    }
    if world.throw(|dice| dice.permille(200)) {
        cancel(&world, &child);
    }
    let sends = child.await.ok().flatten()?;
    let receives = receives.into_inner();
    let whole = receives.reunite(sends.into_inner());
    Some(Held::new(&world, key, whole))
}

/// Cancels a task; what is dropped by that may panic.
fn cancel<T>(world: &World, child: &slipring::JoinHandle<T>) {
    world.apart(|| child.cancel());
}

/// Tasks beside, waited for, cancelled or forgotten.
async fn children(world: &Rc<World>) {
    let of_child = Rc::clone(world);
    let panics = world.may_panic_later();
    let child = spawn(world, async move {
        let bomb = Bomb(Rc::clone(&of_child));
        anyhow(&of_child, nap(&of_child, 300_000)).await;
        if panics {
            of_child.may_panic();
        }
        drop(bomb);
        7
    });
    match world.throw(|dice| dice.below(5)) {
        0 => ends_itself(world).await,
        1 => {
            let was_over = child.is_finished();
            cancel(world, &child);
            if !child.is_finished() && !was_over {
                world.complain("a task was cancelled that waits, and goes on");
            }
            if let Ok(7) = child.await {
                world.complain("a task that was cancelled has come to its end");
            }
        }
        2 => {
            if let Some(Ok(other)) = within(world, 200_000, child).await
                && other != 7
            {
                world.complain("the result of another task");
            }
        }
        3 => drop(child),
        _ => {
            nap(world, 200_000).await;
            cancel(world, &child);
            if matches!(child.await, Ok(result) if result != 7) {
                world.complain("the result of another task");
            }
        }
    }
}

/// A task that is cancelled by what it polls.
async fn ends_itself(world: &Rc<World>) {
    let own: Rc<RefCell<Option<slipring::JoinHandle<()>>>> = Rc::default();
    let (of_child, handle) = (Rc::clone(world), Rc::clone(&own));
    let child = spawn(world, async move {
        let _bomb = Bomb(Rc::clone(&of_child));
        if of_child.throw(Dice::coin) {
            nap(&of_child, 50_000).await;
        }
        match &*handle.borrow() {
            Some(own) => own.cancel(),
            None => return,
        }
        slipring::yield_now().await;
        of_child.complain("a task that has cancelled itself is polled");
    });
    *own.borrow_mut() = Some(child);
    nap(world, 60_000).await;
    drop(own.take());
}

/// Tasks that end with it, some of them by a panic that is not that of whoever drops it.
struct Scoped {
    scope: Option<Scope>,
    world: Rc<World>,
}

impl Drop for Scoped {
    fn drop(&mut self) {
        self.world.apart(|| self.scope = None);
    }
}

/// Tasks that end together.
async fn scope(world: &Rc<World>) {
    let mut scoped = Scoped { scope: Some(Scope::new()), world: Rc::clone(world) };
    let scope = scoped.scope.as_mut().expect("it is dropped with its owner");
    // More than are looked at in one go, of timers and of tasks, now and then.
    let is_crowd = world.throw(|dice| dice.permille(20));
    let count = world.throw(|dice| dice.between(1, if is_crowd { 1_500 } else { 5 }));
    let until = Duration::from_micros(world.now_us()) + span(world, 200_000);
    for _ in 0..count {
        let of_child = Rc::clone(world);
        scope.spawn(rooted(Rc::clone(world), alive(world), async move {
            let _bomb = Bomb(Rc::clone(&of_child));
            if is_crowd {
                let _timer = Counted::new(&of_child, |world| &world.timers);
                slipring::sleep_until(until).await;
                return;
            }
            nap(&of_child, 200_000).await;
            of_child.may_panic();
        }));
    }
    let joined = world.throw(|dice| dice.below(count.min(5) as u32 + 2));
    for _ in 0..joined {
        match within(world, 300_000, scope.join_next()).await {
            Some(Some(Err(JoinError::Cancelled))) => {
                world.complain("nobody has cancelled a task of the scope");
            }
            Some(Some(_)) => {}
            Some(None) | None => break,
        }
    }
    world.may_panic();
}

/// A place for a connection that goes from task to task.
#[derive(Default)]
struct Channel {
    held: Option<Held<Conn>>,
    waker: Option<Waker>,
    is_closed: bool,
}

/// Its end that something is put in.
struct Giver(Rc<RefCell<Channel>>);

impl Drop for Giver {
    fn drop(&mut self) {
        let waker = {
            let mut channel = self.0.borrow_mut();
            channel.is_closed = true;
            channel.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Another task goes on with the connection, whose bytes this one may have been waiting for.
async fn hand_on(mut held: Held<Conn>, depth: u32) {
    let world = Rc::clone(&held.world);
    if world.throw(Dice::coin) {
        once(take(&mut held)).await;
    }
    let channel = Rc::new(RefCell::new(Channel::default()));
    let (of_child, giver) = (Rc::clone(&channel), Giver(channel));
    let child = spawn(&world, async move {
        let held = poll_fn(|cx| {
            let mut channel = of_child.borrow_mut();
            match channel.held.take() {
                Some(held) => Poll::Ready(Some(held)),
                None if channel.is_closed => Poll::Ready(None),
                None => {
                    channel.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        if let Some(held) = held {
            act(held, depth + 1).await;
        }
    });
    if world.throw(Dice::coin) {
        nap(&world, 20_000).await;
    }
    giver.0.borrow_mut().held = Some(held);
    drop(giver);
    match world.throw(|dice| dice.below(4)) {
        0 => {
            nap(&world, 500_000).await;
            cancel(&world, &child);
        }
        1 => drop(child.await),
        _ => drop(child),
    }
}

/// Dials, and talks to whoever is there.
async fn call_out(world: &Rc<World>, depth: u32) {
    let left = world.dials_left.get();
    if world.upstreams.is_empty() || left == 0 || depth >= DEPTH_MAX {
        return;
    }
    world.dials_left.set(left - 1);
    let at = world.throw(|dice| dice.pick(&world.upstreams));
    let dialed = {
        let _dialing = Counted::new(world, |world| &world.dialing);
        let dial = async {
            let conn = slipring::dial(at).await?;
            Ok::<_, slipring::DialError>(Held::new(world, conn.key(), conn))
        };
        match world.throw(|dice| dice.below(4)) {
            0 => once(dial).await,
            1 => within(world, 100_000, dial).await,
            2 => within(world, 10_000_000, anyhow(world, dial)).await,
            _ => Some(dial.await),
        }
    };
    match dialed {
        Some(Ok(mut held)) => {
            world.may_panic();
            within(world, 100_000, give(&mut held, something(world))).await;
            drop(spawn(world, act(held, depth + 1)));
        }
        Some(Err(error)) => world.book.borrow_mut().words += error.to_string().len() as u64,
        None => {}
    }
}

/// Ends the connection in one of the ways, and may wait for it.
async fn end(held: &mut Held<Conn>) {
    let (world, key) = (Rc::clone(&held.world), held.key);
    let way = world.throw(|dice| dice.below(3));
    world.ends_sending(key);
    world.told_of(key, |told| told.is_asked |= way > 0);
    match way {
        0 => held.get().shutdown(),
        1 => held.get().close(),
        _ => held.get().abort(),
    }
    let closed = known(&world, On::End(key), held.get().closed());
    if let Some(reason) = within(&world, 10_000_000, closed).await {
        let told = world.told_of(key, |told| told.ended);
        if told != Some(reason) {
            world.complain(format!("{key:?}: `closed` said {reason:?}, and it was told {told:?}"));
        }
    }
}

async fn wait_for_drain(world: &Rc<World>) {
    let _waiter = Counted::new(world, |world| &world.drain_waiters);
    if world.throw(Dice::coin) {
        once(slipring::draining()).await;
    } else {
        race(world, anyhow(world, slipring::draining()), nap(world, 300_000)).await;
    }
}

fn set_deadlines(held: &mut Held<Conn>) {
    let (world, key) = (Rc::clone(&held.world), held.key);
    let ms = world.throw(|dice| dice.log_between(50, 20_000));
    let party = super::super::book::party(world.reactor, key);
    world.book.borrow_mut().set_idle(party, world.now_us() / 1000, ms);
    held.get().set_idle_timeout(Duration::from_millis(ms).into());
}

/// Waits for a task that another thread has started.
async fn join_remote(world: &Rc<World>) {
    let Some(join) = world.remote_joins.borrow_mut().pop() else { return };
    if let Some(Err(error)) = within(world, 3_000_000, join).await {
        world.complain(format!("a task from another thread has no result: {error}"));
    }
}
