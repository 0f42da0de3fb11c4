//! What other threads do to tasks: they wake them, between any two things that happen, and start new ones.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::world::World;
use crate::dice::Dice;

/// Tasks that are started from outside of one reactor in a run.
const STARTED_MAX: u32 = 6;

/// See the module's documentation.
pub(in super::super) struct Outside {
    worlds: Vec<Rc<World>>,
    dice: Dice,
    starts_left: u32,
}

impl Outside {
    pub(in super::super) fn new(worlds: Vec<Rc<World>>, dice: Dice) -> Self {
        Self { worlds, dice, starts_left: STARTED_MAX }
    }

    /// Something, now and then.
    pub(in super::super) fn act(&mut self) {
        for place in 0..self.worlds.len() {
            let world = Rc::clone(&self.worlds[place]);
            let healed = world.is_healed();
            if healed || self.dice.permille(300) {
                self.wake_one(&world);
            }
            if healed {
                continue;
            }
            if self.dice.permille(20)
                && let Some(waker) = world.pool.take_kept(self.dice.coin())
            {
                let times = self.dice.below(3);
                (0..times).for_each(|_| waker.wake_by_ref());
                waker.wake();
            }
            if self.starts_left > 0 && self.dice.permille(2) {
                self.start(&world);
            }
        }
    }

    /// Whoever is to be woken is woken, since nothing else goes on; whether there was anybody.
    pub(in super::super) fn wake_all(&mut self) -> bool {
        let mut any = false;
        for world in self.worlds.clone() {
            while self.wake_one(&world) {
                any = true;
            }
        }
        any
    }

    fn wake_one(&mut self, world: &World) -> bool {
        let Some(waker) = world.pool.take_due() else { return false };
        waker.wake();
        true
    }

    /// A task from outside: its closure crosses threads, so it knows nothing of the world.
    fn start(&mut self, world: &World) {
        let Some(spawner) = world.spawner.borrow().clone() else { return };
        self.starts_left -= 1;
        let (number, ms) = (self.dice.word(), self.dice.log_between(1, 2_000));
        let alive = world.count_remote();
        let join = spawner.spawn(move || {
            let alive = Alive::new(alive);
            async move {
                slipring::sleep(Duration::from_millis(ms)).await;
                slipring::yield_now().await;
                drop(alive);
                number
            }
        });
        if self.dice.coin() {
            world.remote_joins.borrow_mut().push(join);
        }
    }

    /// Tasks there are.
    pub(in super::super) fn alive(&self) -> usize {
        let alive = |world: &Rc<World>| world.alive.get() + world.remote_alive();
        self.worlds.iter().map(alive).sum()
    }

    /// A drain was ordered, which waits for tasks until then.
    pub(in super::super) fn drains(&self, until_us: u64) {
        self.worlds.iter().for_each(|world| world.drains(until_us));
    }
}

/// Counts in place of the world.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
