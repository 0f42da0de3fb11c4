//! Timers of one reactor: one for each index, armed and disarmed in constant time.
//!
//! The claim: most timeouts are never reached. A connection that talks pushes its idle deadline on
//! with every message, so what counts is the price of *not* firing. The decision: buckets that grow
//! coarser with distance, no cascade, and lazy re-arm. A timer is put once into the bucket of the
//! level that covers its distance, rounded up, and stays there. The cost accepted: it is late by
//! less than a granule of its level, at most 8/63 (12.7 %) of the timeout. It is never early.
//!
//! ```text
//! level | granule      | covers timeouts up to
//! ------+--------------+------------------------
//!   0   |         1 ms |          63 ms
//!   1   |         8 ms |         504 ms
//!   2   |        64 ms |       4,032 ms
//!   3   |       512 ms |      32,256 ms
//!   4   |     4,096 ms |     258,048 ms  4.3 min
//!   5   |    32,768 ms |   2,064,384 ms   34 min
//!   6   |   262,144 ms |  16,515,072 ms  4.6 h
//!   7   | 2,097,152 ms | 132,120,576 ms   37 h: the horizon, farther deadlines are clamped to it
//! ```
//!
//! Lazy re-arm is the owner's half. Activity is only noted, a store in the owner; when the timer
//! fires, the owner compares and arms again for the remainder. It has to compare anyway: what lies
//! beyond the horizon fires at the horizon, too early, and wants the same answer.
//!
//! A level has 64 buckets, and rounded up a timer lies at most 64 granules ahead: a bucket never
//! holds two laps. What keeps that true when time jumps, or when a bucket is delivered in parts, is
//! that [`Wheel::advance`] moves all buckets that fell due to the end of one list, whole, before
//! anybody arms again: 512 moves at the very most, however many timers. [`Wheel::expire`] then
//! takes from that list as many as the turn has room for.
//!
//! Lists are rings, so a head is enough to find the tail. A timer's word still names the bucket it
//! was put in after the move to the due list; nobody walks the list to correct that. So to unlink
//! compares with both heads, and to re-arm trusts the bucket only while nothing is due.
//!
//! Memory: 8 bytes an index, from the allocator's zero pages, touched when an index is first armed.
//! Nothing is allocated afterwards. Not here: the clock (times are parameters), more than one timer
//! an index, and an order among the timers that fall due in one step.

use std::fmt;
use std::ops::RangeInclusive;

/// Index of a timer, plus one: zero says "none".
type Link = u32;

const NONE: Link = 0;
const LEVELS: usize = 8;
/// Buckets of a level; an occupancy map of them is one word.
const SLOTS: usize = u64::BITS as usize;
/// Bits of time that a level drops more than the one below: granules grow by eight.
const COARSER_BITS: u32 = 3;
/// Granules that a level covers. The 64th is left for rounding up.
const SPAN: u64 = SLOTS as u64 - 1;
/// The list of timers that are due, beside the buckets.
const DUE: usize = LEVELS * SLOTS;

const LINK_BITS: u32 = 27;
const LINK_MASK: u64 = (1 << LINK_BITS) - 1;

const _: () = assert!(2 * LINK_BITS + DUE.ilog2() < u64::BITS, "a timer is one word");
const _: () = assert!(size_of::<Timer>() == 8, "the header promises 8 bytes an index");
const _: () = assert!(Wheel::HORIZON_MS == 132_120_576, "the header's table ends there");

/// An armed entry: next, previous, and the bucket it was put in. All zero when not armed.
///
/// One word, since an integer is what `vec!` leaves to the allocator's zero pages.
#[derive(Clone, Copy)]
struct Timer(u64);

impl Timer {
    const DISARMED: Self = Self(0);

    fn new(next: Link, previous: Link, bucket: usize) -> Self {
        let links = u64::from(next) | u64::from(previous) << LINK_BITS;
        Self(links | (bucket as u64) << (2 * LINK_BITS))
    }

    fn is_armed(self) -> bool {
        self.next() != NONE
    }

    fn next(self) -> Link {
        (self.0 & LINK_MASK) as Link
    }

    fn previous(self) -> Link {
        (self.0 >> LINK_BITS & LINK_MASK) as Link
    }

    fn bucket(self) -> usize {
        (self.0 >> (2 * LINK_BITS)) as usize
    }
}

/// At most one timer for each index below a fixed capacity. Times are milliseconds on a monotonic
/// clock; one that goes back is taken as the last one seen.
///
/// ```
/// use slipring_core::wheel::Wheel;
///
/// let mut wheel = Wheel::new(1024, 5_000);
/// wheel.arm(7, 5_060); // near: to the millisecond
/// wheel.arm(8, 5_200); // farther: up to 7 ms late
/// assert_eq!(wheel.next_expiry_ms(), Some(5_060));
///
/// let mut due = Vec::new();
/// let more = wheel.expire(5_060, 256, &mut due);
/// assert_eq!((due.as_slice(), more), (&[7][..], false));
///
/// wheel.disarm(8);
/// assert_eq!(wheel.next_expiry_ms(), None);
/// ```
pub struct Wheel {
    /// [`Timer`]s by link; the word of link zero is never used.
    timers: Box<[u64]>,
    /// The first of each bucket, level by level, and of the due list.
    heads: [Link; DUE + 1],
    /// For each level, which buckets hold a timer.
    occupied: [u64; LEVELS],
    armed: u32,
    now_ms: u64,
}

impl Wheel {
    /// The farthest a timer is put from now, milliseconds. Deadlines beyond fire about there.
    pub const HORIZON_MS: u64 = SPAN << (COARSER_BITS * (LEVELS as u32 - 1));
    /// Most indices of a wheel.
    pub const CAPACITY_MAX: u32 = LINK_MASK as u32;

    /// A wheel for indices `0..capacity`, none armed.
    ///
    /// # Panics
    /// If `capacity` is more than [`Self::CAPACITY_MAX`].
    #[must_use]
    pub fn new(capacity: u32, now_ms: u64) -> Self {
        assert!(capacity <= Self::CAPACITY_MAX, "a wheel of {capacity} timers cannot be linked");
        Self {
            timers: vec![0; capacity as usize + 1].into_boxed_slice(),
            heads: [NONE; DUE + 1],
            occupied: [0; LEVELS],
            armed: 0,
            now_ms,
        }
    }

    /// Sets the timer of `index`, armed or not, to fire at `deadline_ms` or a little later: when, is returned.
    /// (Earlier, if the deadline is beyond the horizon.) A deadline that has passed is delivered by the next
    /// `expire`. O(1).
    ///
    /// The distance, and so the precision, counts from the last time the wheel was told: after a
    /// sleep, [`Self::advance`] comes first.
    ///
    /// # Panics
    /// If `index` is not below the capacity.
    #[inline]
    pub fn arm(&mut self, index: u32, deadline_ms: u64) -> u64 {
        let link = self.link(index);
        let (bucket, expiry_ms) = bucket_of(self.now_ms, deadline_ms);
        let timer = self.timer(link);
        if timer.is_armed() {
            if timer.bucket() == bucket && self.heads[DUE] == NONE {
                return expiry_ms;
            }
            self.unlink(link, timer);
        } else {
            self.armed += 1;
        }
        self.append(link, bucket);
        expiry_ms
    }

    /// Takes the timer of `index` back, due or not; it may not have been armed. O(1).
    ///
    /// # Panics
    /// If `index` is not below the capacity.
    #[inline]
    pub fn disarm(&mut self, index: u32) {
        let link = self.link(index);
        let timer = self.timer(link);
        if timer.is_armed() {
            self.unlink(link, timer);
            self.set(link, Timer::DISARMED);
            self.armed -= 1;
        }
    }

    /// Whether the timer of `index` is armed: neither disarmed nor delivered. O(1).
    ///
    /// # Panics
    /// If `index` is not below the capacity.
    #[must_use]
    pub fn is_armed(&self, index: u32) -> bool {
        self.timer(self.link(index)).is_armed()
    }

    /// The milliseconds for which the timer of `index` stands, as their first and the one at which it fires;
    /// `None` when it is not armed. One that is due stands for all up to now. O(due): for audits.
    ///
    /// # Panics
    /// If `index` is not below the capacity.
    #[must_use]
    pub fn granule(&self, index: u32) -> Option<RangeInclusive<u64>> {
        let link = self.link(index);
        let timer = self.timer(link);
        if !timer.is_armed() {
            return None;
        }
        if self.is_due(link) {
            return Some(0..=self.now_ms);
        }
        let (level, slot) = (timer.bucket() / SLOTS, timer.bucket() % SLOTS);
        let shift = COARSER_BITS * level as u32;
        let next = (self.now_ms >> shift) + 1;
        let granule = next + ((slot + SLOTS - slot_of(next)) % SLOTS) as u64;
        Some(((granule - 1) << shift) + 1..=granule << shift)
    }

    fn is_due(&self, wanted: Link) -> bool {
        let head = self.heads[DUE];
        let mut link = head;
        while link != NONE && link != wanted {
            link = self.timer(link).next();
            if link == head {
                return false;
            }
        }
        link == wanted
    }

    /// Timers armed. O(1).
    #[must_use]
    pub fn armed(&self) -> u32 {
        self.armed
    }

    /// When `expire` has something to deliver, milliseconds; `None` when nothing is armed.
    ///
    /// Exact: not a timer falls due before it, at least one does then. The last time seen when some
    /// are due already. O(levels).
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        if self.heads[DUE] != NONE {
            return Some(self.now_ms);
        }
        let mut earliest = None;
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied != 0 {
                let shift = COARSER_BITS * level as u32;
                let first = (self.now_ms >> shift) + 1;
                let ahead = from_slot(occupied, first).trailing_zeros();
                let expiry_ms = (first + u64::from(ahead)).saturating_mul(1 << shift);
                earliest = Some(earliest.map_or(expiry_ms, |other: u64| other.min(expiry_ms)));
            }
        }
        earliest
    }

    /// Tells the time, once a turn, before anybody arms: distances count from here.
    ///
    /// Delivers nothing: what falls due can still be disarmed or armed anew. O(levels), and a
    /// constant for each bucket that fell due, of which there are 512.
    pub fn advance(&mut self, now_ms: u64) {
        if now_ms <= self.now_ms {
            return;
        }
        let before_ms = std::mem::replace(&mut self.now_ms, now_ms);
        for level in 0..LEVELS {
            let shift = COARSER_BITS * level as u32;
            let first = (before_ms >> shift) + 1;
            let passed = (now_ms >> shift) - (before_ms >> shift);
            if passed == 0 {
                return; // Nor did a coarser level's granule end.
            }
            let mut fallen = from_slot(self.occupied[level], first);
            if passed < SLOTS as u64 {
                fallen &= (1 << passed) - 1;
            }
            while fallen != 0 {
                let slot = slot_of(first + u64::from(fallen.trailing_zeros()));
                self.fall_due(level, slot);
                fallen &= fallen - 1;
            }
        }
    }

    /// Advances to `now_ms`, then appends the indices of at most `limit` due timers to `due`. They
    /// are disarmed thereby. Returns whether more are due.
    ///
    /// What fell due in an earlier step comes first. O(delivered), beside `advance`. Allocates only
    /// if `due` has to grow.
    pub fn expire(&mut self, now_ms: u64, limit: usize, due: &mut Vec<u32>) -> bool {
        self.advance(now_ms);
        let mut head = self.heads[DUE];
        if head == NONE {
            return false;
        }
        let last = self.timer(head).previous();
        for _ in 0..limit {
            let link = head;
            head = self.timer(link).next();
            self.set(link, Timer::DISARMED);
            self.armed -= 1;
            due.push(link - 1);
            if link == last {
                self.heads[DUE] = NONE;
                return false;
            }
        }
        self.join(last, head);
        self.heads[DUE] = head;
        true
    }

    /// Puts a bucket's whole list behind the due list.
    fn fall_due(&mut self, level: usize, slot: usize) {
        self.occupied[level] &= !(1 << slot);
        let first = std::mem::replace(&mut self.heads[level * SLOTS + slot], NONE);
        let head = self.heads[DUE];
        if head == NONE {
            self.heads[DUE] = first;
            return;
        }
        let (last_due, last) = (self.timer(head).previous(), self.timer(first).previous());
        self.join(last_due, first);
        self.join(last, head);
    }

    /// Puts a timer that is in no list at the end of a bucket, or of the due list.
    fn append(&mut self, link: Link, bucket: usize) {
        let head = self.heads[bucket];
        if head != NONE {
            let last = self.timer(head).previous();
            self.set(link, Timer::new(head, last, bucket));
            self.set_next(last, link);
            self.set_previous(head, link);
            return;
        }
        self.set(link, Timer::new(link, link, bucket));
        self.heads[bucket] = link;
        if bucket != DUE {
            self.occupied[bucket / SLOTS] |= 1 << (bucket % SLOTS);
        }
    }

    /// Takes a timer out of its list; its own word is left to the caller.
    fn unlink(&mut self, link: Link, timer: Timer) {
        let alone = timer.next() == link;
        if !alone {
            self.join(timer.previous(), timer.next());
        }
        let head = if alone { NONE } else { timer.next() };
        let bucket = timer.bucket();
        if self.heads[bucket] == link {
            self.heads[bucket] = head;
            if alone && bucket != DUE {
                self.occupied[bucket / SLOTS] &= !(1 << (bucket % SLOTS));
            }
        } else if self.heads[DUE] == link {
            self.heads[DUE] = head;
        }
    }

    fn join(&mut self, previous: Link, next: Link) {
        self.set_next(previous, next);
        self.set_previous(next, previous);
    }

    fn set_next(&mut self, link: Link, next: Link) {
        let timer = self.timer(link);
        self.set(link, Timer::new(next, timer.previous(), timer.bucket()));
    }

    fn set_previous(&mut self, link: Link, previous: Link) {
        let timer = self.timer(link);
        self.set(link, Timer::new(timer.next(), previous, timer.bucket()));
    }

    fn set(&mut self, link: Link, timer: Timer) {
        self.timers[link as usize] = timer.0;
    }

    fn timer(&self, link: Link) -> Timer {
        Timer(self.timers[link as usize])
    }

    fn link(&self, index: u32) -> Link {
        let capacity = self.timers.len() - 1;
        assert!((index as usize) < capacity, "timer {index} of a wheel of {capacity}");
        index + 1
    }
}

impl fmt::Debug for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { now_ms, armed, .. } = self;
        f.debug_struct("Wheel")
            .field("now_ms", now_ms)
            .field("armed", armed)
            .finish_non_exhaustive()
    }
}

/// Where a timer belongs, and when it fires there: the finest level that covers its distance, the deadline
/// rounded up.
fn bucket_of(now_ms: u64, deadline_ms: u64) -> (usize, u64) {
    if deadline_ms <= now_ms {
        return (DUE, now_ms);
    }
    let distance_ms = (deadline_ms - now_ms).min(Wheel::HORIZON_MS);
    // Levels to climb until 63 granules are enough: the octal digits of this quotient.
    let spans = (distance_ms - 1) / SPAN;
    let level = (u64::BITS - spans.leading_zeros()).div_ceil(COARSER_BITS);
    let granule = ((now_ms + (distance_ms - 1)) >> (COARSER_BITS * level)) + 1;
    let bucket = level as usize * SLOTS + slot_of(granule);
    (bucket, granule.saturating_mul(1 << (COARSER_BITS * level)))
}

fn slot_of(granule: u64) -> usize {
    granule as usize % SLOTS
}

/// A level's map turned so that bit zero is the bucket of `granule`.
fn from_slot(occupied: u64, granule: u64) -> u64 {
    occupied.rotate_right(slot_of(granule) as u32)
}
