//! A cap whose tokens are leased to reactors in blocks: exact over all of them, and without a lock.
//!
//! ```text
//!                  a block, when its own is empty                  take
//!            +------------------------------------> [ block 0 ] ---------->
//!            |                                       |       ^               out
//!   [ centre ] <--- a share, when a block is big --- + ----- | ----------- <
//!            |                                       half    |     give
//!            |                                       v       |
//!            +------------------------------------> [ block 1 ] ---------->
//!            |
//!            +--- reserve, unreserve ---> set aside, all or nothing
//!
//!   centre + blocks + set aside + out = cap
//! ```
//!
//! Is: a count. What a token stands for (a connection, a dial, a request) is the business of who takes it.
//! Is not: a queue of those that wait. They are rung, and try again.
//!
//! Why not one shared word: it is written by all reactors for every connection, and its cache line travels
//! between cores each time. Why not a limit for each reactor: it refuses some while others have room, or
//! passes the cap. A reactor takes from its own block and gives to it: one compare-and-swap on a line that
//! nobody else writes as long as there is enough. Who runs dry goes to the centre, and then to the blocks of
//! the others directly: a swap there *is* the recall, no message is sent and nobody has to answer. It takes
//! half of what it finds, so that it does not come back for each one.
//!
//! What is promised:
//! * Never more than the cap are out. Tokens are only ever moved: from one place, then to another.
//! * A take finds a token whenever one is free, wherever it is. Looking at one place after the other could
//!   miss one that moves behind the look, so a take fails only after a moment in which every place was empty
//!   and nothing was on its way: two looks with nothing put anywhere between them, and nobody moving.
//! * Who was refused is rung when it is worth trying again; nobody else is. It leaves a note *before* it looks
//!   for the last time, and who gives looks for notes *after* it gave: one of the two sees the other.
//!
//! The last two need one order of all these steps that every core agrees on, so all of them are `SeqCst`. On
//! x86-64 that costs nothing here: loads are plain, and the swaps would be locked anyway.
//!
//! A mover that its host stops between two steps could keep others looking: after `LOOKS_MAX` looks they take
//! no for an answer, and are rung when it moves on.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU32, AtomicU64, LOOKS_MAX, Ordering, Slip, slips, spin_loop};

/// Of the cap, the blocks of all reactors together are one eighth (and twice that when they have grown): what
/// lies in blocks is found, but dearer than at the centre.
const BLOCKS_SHARE: u32 = 8;
/// Past 64 nothing is won: the centre is touched once in 64 takes already.
const BLOCK_MAX: u32 = 64;

/// Rings the reactor of a number.
type Ring = Arc<dyn Fn(usize) + Send + Sync>;

/// One change of what is free in a place: who looks twice sees whether there was one in between.
const CHANGE: u64 = 1 << 32;

/// Tokens that are free, in one place: their number below, the times that some were put here above.
#[derive(Default)]
struct Stock(AtomicU64);

impl Stock {
    fn free(&self) -> u32 {
        self.0.load(Ordering::SeqCst) as u32
    }

    /// How often something was put here. It wraps, which takes 2^32 of them between two looks to matter.
    fn puts(&self) -> u32 {
        (self.0.load(Ordering::SeqCst) >> 32) as u32
    }

    /// How many there are then.
    fn put(&self, tokens: u32) -> u32 {
        (self.0.fetch_add(CHANGE + u64::from(tokens), Ordering::SeqCst) as u32) + tokens
    }

    /// Takes as many as `wanted` says of those there are; how many that was.
    #[inline]
    fn remove(&self, wanted: impl Fn(u32) -> u32) -> u32 {
        let mut now = self.0.load(Ordering::SeqCst);
        loop {
            let tokens = wanted(now as u32);
            if tokens == 0 {
                return 0;
            }
            let left = now - u64::from(tokens);
            if slips(Slip::TornTake) {
                self.0.store(left, Ordering::SeqCst);
                return tokens;
            }
            match self.0.compare_exchange(now, left, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return tokens,
                Err(other) => now = other,
            }
        }
    }
}

/// What came of looking everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    Found,
    /// There was a moment when nothing was there.
    Nowhere,
    /// Others went on moving things all the while.
    Unsure,
}

/// What a reactor has.
#[derive(Default)]
struct Block {
    stock: Stock,
    /// What it has set aside.
    reserved: AtomicU32,
}

/// What none of them has.
#[derive(Default)]
struct Centre {
    stock: Stock,
    /// Moves under way, of more than the one token that somebody takes.
    moving: AtomicU32,
}

/// A cap on something, for several reactors.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use slipring_core::tokens::Tokens;
///
/// // At most two requests under way, whichever of four reactors sends them.
/// let requests = Tokens::new(2, 4);
/// let rung = Arc::new(AtomicUsize::new(usize::MAX));
/// let last = Arc::clone(&rung);
/// requests.connect(move |reactor| last.store(reactor, Ordering::SeqCst));
///
/// assert!(requests.take(0) && requests.take(3));
/// assert!(!requests.take(1), "refused, and noted");
/// // The one of reactor 0 ends. It may end anywhere: tokens are all alike.
/// let caller_waits = requests.give(2);
/// assert!(!caller_waits);
/// assert_eq!(rung.load(Ordering::SeqCst), 1, "who waits is rung");
/// assert!(requests.take(1));
/// assert_eq!((requests.used(), requests.free()), (2, 0));
/// ```
///
/// A reactor is named by its number in all calls; a number that it was not made for is a panic. Any thread may
/// call for any reactor: that costs a cache line, and breaks nothing.
pub struct Tokens {
    cap: u32,
    block: u32,
    blocks: Box<[CachePadded<Block>]>,
    centre: CachePadded<Centre>,
    /// Bit `i % 64`: reactor `i` was refused. Read at every give, and written by those that wait only: its
    /// line stays in all caches.
    waiting: CachePadded<AtomicU64>,
    ring: OnceLock<Ring>,
}

impl Tokens {
    /// `cap` tokens for so many reactors; all of them free.
    #[must_use]
    pub fn new(cap: u32, reactors: usize) -> Self {
        let reactors = reactors.max(1);
        let shares = u32::try_from(reactors).unwrap_or(u32::MAX).saturating_mul(BLOCKS_SHARE);
        let centre = CachePadded::new(Centre::default());
        let _ = centre.stock.put(cap);
        Self {
            cap,
            block: (cap / shares).clamp(1, BLOCK_MAX),
            blocks: (0..reactors).map(|_| CachePadded::default()).collect(),
            centre,
            waiting: CachePadded::new(AtomicU64::new(0)),
            ring: OnceLock::new(),
        }
    }

    /// Says how reactors are rung, from any thread, and from within the calls of this type. Later calls change
    /// nothing; without one nobody is rung.
    pub fn connect(&self, ring: impl Fn(usize) + Send + Sync + 'static) {
        let _ = self.ring.set(Arc::new(ring));
    }

    /// Tokens there are.
    #[must_use]
    pub fn cap(&self) -> u32 {
        self.cap
    }

    // ------------------------------------------------------------------------------- take and give

    /// Takes one. Refused, `reactor` is rung when it is worth trying again, and who has some set aside is rung
    /// now, to see whether it needs them.
    #[must_use = "true: a token was taken, and has to be given back"]
    #[inline]
    pub fn take(&self, reactor: usize) -> bool {
        self.remove_one(reactor)
            || self.find_one(reactor)
            || self.wait(reactor, || self.find_one(reactor))
    }

    /// The same, for who will not wait: nobody is rung for it.
    #[must_use = "true: a token was taken, and has to be given back"]
    #[inline]
    pub fn try_take(&self, reactor: usize) -> bool {
        self.remove_one(reactor) || self.search(|| self.find_one(reactor)) == Search::Found
    }

    /// Whether one could be taken now. If not, `reactor` is rung as after [`take`](Self::take).
    ///
    /// It only looks. To take one and give it back would be a give: others would find none meanwhile.
    #[must_use]
    pub fn has_free(&self, reactor: usize) -> bool {
        self.any_free() || self.wait(reactor, || self.any_free())
    }

    /// Gives one back, of this or another reactor's. Those that wait are rung; whether `reactor` waits too is
    /// the answer: it is not rung, and has to try again by itself.
    ///
    /// Only what was taken may be given: tokens are counted, not known.
    #[must_use = "true: the caller waits for one, too"]
    #[inline]
    pub fn give(&self, reactor: usize) -> bool {
        if slips(Slip::NotesFirst) {
            let waits = self.ring_waiting(reactor);
            self.blocks[reactor].stock.put(1);
            return waits;
        }
        let free = self.blocks[reactor].stock.put(1);
        debug_assert!(free <= self.cap, "more was given than taken");
        if free > self.block * 2 {
            self.shed(reactor);
        }
        self.ring_waiting(reactor)
    }

    // -------------------------------------------------------------------------------- set aside

    /// Sets so many aside for `reactor`: nobody else can take them. All or nothing; nothing while somebody
    /// waits, who would have to ask for them back at once.
    ///
    /// May also be refused when others move tokens at the same moment. Nobody is rung for it.
    #[must_use = "true: so many have to be given back by `unreserve` or taken by `take_reserved`"]
    pub fn reserve(&self, reactor: usize, tokens: u32) -> bool {
        if self.is_awaited() {
            return false;
        }
        let reserved = &self.blocks[reactor].reserved;
        // First, so that those who look never see them neither free nor set aside.
        reserved.fetch_add(tokens, Ordering::SeqCst);
        let all = |free| if free >= tokens { tokens } else { 0 };
        let mut taken = self.centre.stock.remove(all);
        if taken < tokens && self.free() >= tokens {
            self.gather();
            taken = self.centre.stock.remove(all);
        }
        // Somebody may have come to wait since the first look.
        if taken == tokens && !self.is_awaited() {
            return true;
        }
        if taken > 0 {
            self.centre.stock.put(taken);
        }
        reserved.fetch_sub(tokens, Ordering::SeqCst);
        self.ring_others(reactor);
        false
    }

    /// Gives back so many that were set aside for `reactor`. Rings, and answers, as [`give`](Self::give).
    ///
    /// # Panics
    /// If it has fewer.
    #[must_use = "true: the caller waits for one, too"]
    pub fn unreserve(&self, reactor: usize, tokens: u32) -> bool {
        if tokens > 0 {
            self.centre.stock.put(tokens);
        }
        let had = self.blocks[reactor].reserved.fetch_sub(tokens, Ordering::SeqCst);
        assert!(had >= tokens, "{tokens} tokens given back of {had} that were set aside");
        self.ring_waiting(reactor)
    }

    /// Takes one of those that `reactor` has set aside: it is given back by [`give`](Self::give) then.
    ///
    /// # Panics
    /// If it has none.
    pub fn take_reserved(&self, reactor: usize) {
        let had = self.blocks[reactor].reserved.fetch_sub(1, Ordering::SeqCst);
        assert!(had > 0, "a token taken of none that were set aside");
    }

    // --------------------------------------------------------------------------------- snapshots

    /// Tokens that anybody could take. A snapshot: those on their way from place to place are missing in it.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.stocks().map(Stock::free).fold(0, u32::saturating_add)
    }

    /// Tokens that are set aside. A snapshot.
    #[must_use]
    pub fn reserved(&self) -> u32 {
        let reserved = self.blocks.iter().map(|block| block.reserved.load(Ordering::SeqCst));
        reserved.fold(0, u32::saturating_add)
    }

    /// Tokens that are out. A snapshot, never above the cap; exact when nobody else is at work.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.cap.saturating_sub(self.free()).saturating_sub(self.reserved())
    }

    /// Whether somebody was refused, and has not been rung yet.
    #[must_use]
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// Whether there was a moment just now when every token was out: none free, none set aside. False is no
    /// promise; who has been refused before it asks is rung when the answer changes.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.search(|| self.reserved() > 0 || self.any_free()) == Search::Nowhere
    }

    // ------------------------------------------------------------------------------------ places

    fn stocks(&self) -> impl Iterator<Item = &Stock> {
        let blocks = self.blocks.iter().map(|block| &block.stock);
        std::iter::once(&self.centre.stock).chain(blocks)
    }

    fn any_free(&self) -> bool {
        self.stocks().any(|stock| stock.free() > 0)
    }

    fn puts(&self) -> u32 {
        self.stocks().map(Stock::puts).fold(0, u32::wrapping_add)
    }

    /// Tries until it succeeds, or until it has seen a moment at which nothing was free and nothing moved.
    ///
    /// What makes it sure: every place was empty when the first try passed it, and when the second did, and
    /// nothing was put there in between; so all were empty at once between the two. And at that time nobody
    /// was moving anything.
    #[cold]
    fn search(&self, attempt: impl Fn() -> bool) -> Search {
        for _ in 0..LOOKS_MAX {
            let puts = self.puts();
            if attempt() {
                return Search::Found;
            }
            if slips(Slip::LooksOnce) {
                return Search::Nowhere;
            }
            let moving = self.centre.moving.load(Ordering::SeqCst);
            if attempt() {
                return Search::Found;
            }
            if moving == 0 && puts == self.puts() {
                return Search::Nowhere;
            }
            spin_loop();
        }
        Search::Unsure
    }

    /// Tries again, after it has noted that `reactor` waits.
    #[cold]
    fn wait(&self, reactor: usize, attempt: impl Fn() -> bool) -> bool {
        self.waiting.fetch_or(bit(reactor), Ordering::SeqCst);
        if slips(Slip::OneTry) {
            return false;
        }
        // One may have come back between the look and the note.
        if self.search(attempt) == Search::Found {
            return true;
        }
        let holds = |&other: &usize| self.blocks[other].reserved.load(Ordering::SeqCst) > 0;
        (0..self.blocks.len()).filter(|other| *other != reactor).filter(holds).for_each(|other| {
            self.wake(other);
        });
        false
    }

    /// One of its own.
    #[inline]
    fn remove_one(&self, reactor: usize) -> bool {
        self.blocks[reactor].stock.remove(|free| free.min(1)) == 1
    }

    /// One from wherever there is one, and a few more for later.
    #[cold]
    fn find_one(&self, reactor: usize) -> bool {
        let own = &self.blocks[reactor].stock;
        if self.remove_one(reactor) || self.fetch(reactor, &self.centre.stock, own, self.block) {
            return true;
        }
        let all = self.blocks.len();
        (1..all).map(|step| (reactor + step) % all).any(|other| {
            let other = &self.blocks[other].stock;
            self.fetch(reactor, other, own, other.free().div_ceil(2))
        })
    }

    /// Takes one from a place, and moves at most `most - 1` more from there to its own.
    fn fetch(&self, reactor: usize, from: &Stock, to: &Stock, most: u32) -> bool {
        if most <= 1 || from.free() <= 1 {
            return from.remove(|free| free.min(1)) == 1;
        }
        let taken = self.carry(reactor, from, to, |free| free.min(most), 1);
        taken > 0
    }

    /// Moves tokens, but for the first `keep` of them; how many were taken off.
    fn carry(
        &self,
        reactor: usize,
        from: &Stock,
        to: &Stock,
        wanted: impl Fn(u32) -> u32,
        keep: u32,
    ) -> u32 {
        let moving = &self.centre.moving;
        let marks = !slips(Slip::MovesUnmarked);
        moving.fetch_add(u32::from(marks), Ordering::SeqCst);
        let taken = from.remove(wanted);
        if taken > keep {
            to.put(taken - keep);
        }
        moving.fetch_sub(u32::from(marks), Ordering::SeqCst);
        if taken > keep {
            // Who looked too often meanwhile took no for an answer.
            self.ring_others(reactor);
        }
        taken
    }

    /// What its block has too much goes back to the centre.
    #[cold]
    fn shed(&self, reactor: usize) {
        let block = self.block;
        let excess = |free: u32| free.saturating_sub(block);
        self.carry(reactor, &self.blocks[reactor].stock, &self.centre.stock, excess, 0);
    }

    /// All that lies in blocks goes back to the centre, where it is reserved in one step or not at all. It is
    /// free all the while: others take it from there.
    fn gather(&self) {
        for (reactor, block) in self.blocks.iter().enumerate() {
            if block.stock.free() > 0 {
                self.carry(reactor, &block.stock, &self.centre.stock, |free| free, 0);
            }
        }
    }

    // --------------------------------------------------------------------------------- those who wait

    /// Whether the caller is among those that wait.
    #[inline]
    fn ring_waiting(&self, caller: usize) -> bool {
        self.is_awaited() && self.ring_off(caller, 0)
    }

    /// Leaves the caller's note: what it has moved itself is no news to it.
    fn ring_others(&self, caller: usize) {
        if self.waiting.load(Ordering::SeqCst) & !bit(caller) != 0 {
            self.ring_off(caller, bit(caller));
        }
    }

    /// Takes off all notes but those to `keep`, and rings whose they were; whether the caller's was there.
    #[cold]
    fn ring_off(&self, caller: usize, keep: u64) -> bool {
        let waiting = self.waiting.fetch_and(keep, Ordering::SeqCst);
        let noted = |other: &usize| *other != caller && waiting & bit(*other) != 0;
        (0..self.blocks.len()).filter(noted).for_each(|other| self.wake(other));
        waiting & bit(caller) != 0
    }

    fn wake(&self, reactor: usize) {
        if let Some(ring) = self.ring.get() {
            ring(reactor);
        }
    }
}

fn bit(reactor: usize) -> u64 {
    1 << (reactor % 64)
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("cap", &self.cap)
            .field("block", &self.block)
            .field("free", &self.free())
            .field("reserved", &self.reserved())
            .finish_non_exhaustive()
    }
}
