//! How many connections, and how often, clients of one source may have.
//!
//! Is: a count and a token bucket for each *source*, a prefix of addresses (one IPv4 address, one IPv6 `/64`:
//! a subscriber), over all reactors, exact. Is not: the process's cap, see `admission`; nor a list of who may
//! come at all, see `access`. Used only where a limit for sources is configured: then it is touched once an
//! accept and once a close, and otherwise not there.
//!
//! ```text
//!            admit                      release, the last one,
//!                                       its bucket not yet full
//!   unknown ------> Open(connections) --------------------------> Quiet(until full)
//!      ^  ^            |        ^                                   |  |
//!      |  |            |        +-----------------------------------+  |
//!      |  +------------+             admit                             |
//!      |   release, the last one, its bucket full                      |
//!      +---------------------------------------------------------------+
//!                   its bucket is full, or too many are quiet
//! ```
//!
//! A source without connections whose bucket is full is like one never seen: it is forgotten. So the table
//! holds sources with connections, of which there are no more than connections, and *quiet* ones, of which
//! `remembered_max` are kept. That bounds it whatever clients do. Two numbers and not one for all entries,
//! because then a table could be full of connections, and a client be refused for want of a place.
//!
//! When one more falls quiet than can be remembered, another goes: the one whose bucket will be full first. A
//! full one goes before all others; of those in the same state the one longest quiet; and else the one that
//! has least to be remembered for. Oldest first throughout would let a client that has used up its bucket be
//! forgotten by coming from enough other addresses, once each: here it is those that are forgotten. The one
//! that falls quiet stays, however little it has used, or a full table would never learn of a new one.
//!
//! Why ordered maps and not a hash table: there is nothing to flood, nothing to hash anew as it grows, and the
//! worst case is the usual one: twenty comparisons. No scan of the table anywhere.
//!
//! Why locks: two words have to change together, and reactors meet here only if two clients come at once
//! whose sources share one of 16 parts. Which part is chosen by a keyed hash: a client cannot aim. Nothing in
//! a lock's reach waits or calls out; a lock that a panic left behind is taken over.
//!
//! What a connection has to keep of it is a [`Source`], 4 bytes: not the address, and not a key to look up.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use slab::Slab;

use crate::access::Prefix;
use crate::error::SetupError;
use crate::rates::{Arrival, Rate};
use crate::token::SLOTS_MAX;

/// Parts of the table, each behind its own lock.
const SHARDS: usize = 16;
const SHARD_BITS: u32 = SHARDS.ilog2();
/// Most quiet sources that can be remembered.
pub const REMEMBERED_MAX: u32 = 1 << 24;
/// Full buckets forgotten with each that is remembered: more than one, so that there is an end to them.
const SWEEP: usize = 2;
/// Bytes of a source, at most: its entry in a vector that doubles, and its places in two ordered maps whose
/// nodes are half empty.
const BYTES_PER_SOURCE: u64 = 224;

// Both numbers fit a `Source`, if all are in one part, and it is never zero.
const _: () = assert!(SHARDS.is_power_of_two());
const _: () = assert!((SLOTS_MAX as u64 + REMEMBERED_MAX as u64 + 2) << SHARD_BITS <= 1 << 32);
const _: () = assert!(size_of::<Entry>() <= 48 && size_of::<Option<Source>>() == 4);

// --------------------------------------------------------------------------------- what is allowed

/// What a source may have, and what a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLimits {
    /// Open connections of one source. Default: no limit.
    pub connections_max: Option<u32>,
    /// How often one source may connect. Default: no limit.
    pub rate: Option<Rate>,
    /// Bits that IPv4 addresses of one source share. Default 32: each is one.
    pub ipv4_bits: u8,
    /// Bits that IPv6 addresses of one source share. Default 64: what a subscriber gets, at least.
    pub ipv6_bits: u8,
    /// Sources without connections that are remembered until their buckets are full, to the next multiple of
    /// 16. Default 65536 †, at most [`REMEMBERED_MAX`]. Without a `rate` there is nothing to remember.
    pub remembered_max: u32,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            connections_max: None,
            rate: None,
            ipv4_bits: 32,
            ipv6_bits: 64,
            remembered_max: 65_536,
        }
    }
}

impl SourceLimits {
    /// Whether anything is limited at all. If not, no [`Sources`] are needed.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        self.connections_max.is_some() || self.rate.is_some()
    }

    /// Refuses values that make no sense by themselves or beside another.
    ///
    /// # Errors
    /// [`SetupError::Config`] with the first that does not fit, and what would.
    pub fn check(&self) -> Result<(), SetupError> {
        let bad = |cause: String, remedy: &str| {
            Err(SetupError::Config { cause, remedy: remedy.to_owned() })
        };
        if self.connections_max == Some(0) {
            return bad(
                "0 connections for each source".to_owned(),
                "choose at least 1, leave it out for no limit, or deny 0.0.0.0/0 and ::/0",
            );
        }
        if !(1..=32).contains(&self.ipv4_bits) {
            return bad(
                format!("sources of {} bits in IPv4", self.ipv4_bits),
                "choose between 1 and 32",
            );
        }
        if !(1..=128).contains(&self.ipv6_bits) {
            return bad(
                format!("sources of {} bits in IPv6", self.ipv6_bits),
                "choose between 1 and 128",
            );
        }
        if self.rate.is_some() && !(1..=REMEMBERED_MAX).contains(&self.remembered_max) {
            return bad(
                format!("a rate for each source, and {} to remember", self.remembered_max),
                "choose between 1 and 16777216, or leave the rate out",
            );
        }
        Ok(())
    }

    /// Quiet sources that one part keeps.
    fn quiet_max(&self) -> usize {
        match self.rate {
            Some(_) => (self.remembered_max as usize).div_ceil(SHARDS),
            None => 0,
        }
    }

    /// Sources the table comes to hold, with no more than `accepted_max` connections at once.
    #[must_use]
    pub fn sources_max(&self, accepted_max: u32) -> u64 {
        u64::from(accepted_max) + (self.quiet_max() * SHARDS) as u64
    }

    /// The memory that takes, bytes.
    #[must_use]
    pub fn memory_bytes_max(&self, accepted_max: u32) -> u64 {
        self.sources_max(accepted_max) * BYTES_PER_SOURCE
    }
}

/// A connection's place in the count of its source. Comes from [`Sources::admit`] and goes back by
/// [`Sources::release`], once: that is why it cannot be copied. Dropped instead, it stays counted.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a source that is not released stays counted"]
pub struct Source(NonZeroU32);

impl Source {
    fn new(shard: usize, index: usize) -> Self {
        let place = (index as u32 + 1) << SHARD_BITS | shard as u32;
        Self(NonZeroU32::new(place).expect("an index and one is not zero"))
    }

    fn split(&self) -> (usize, usize) {
        let place = self.0.get() as usize;
        (place % SHARDS, (place >> SHARD_BITS) - 1)
    }
}

/// Why a client of a source is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has as many connections as it may.
    #[error("its source has as many connections as it may")]
    Full,
    /// It has connected as often as it may.
    #[error("its source connects too often; in {wait_us} us it may again")]
    Rate {
        /// Microseconds until it may again.
        wait_us: u64,
    },
}

// ---------------------------------------------------------------------------------------- the table

/// What each source has open and when it last came, for all reactors.
///
/// ```
/// use slipring_core::sources::{Refused, SourceLimits, Sources};
///
/// let limits = SourceLimits { connections_max: Some(1), ..SourceLimits::default() };
/// let sources = Sources::new(limits, 0x5eed)?;
/// let first = sources.admit("192.0.2.1".parse()?, 0)?;
/// assert_eq!(sources.admit("192.0.2.1".parse()?, 0), Err(Refused::Full));
/// let second = sources.admit("192.0.2.2".parse()?, 0)?;
/// sources.release(first, 5);
/// # sources.release(second, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sources {
    limits: SourceLimits,
    seed: u64,
    shards: [Mutex<Shard>; SHARDS],
}

impl Sources {
    /// An empty table. `seed` decides which sources share a lock and a sixteenth of what is remembered: a
    /// random number, or a simulation's.
    ///
    /// # Errors
    /// Those of [`SourceLimits::check`].
    pub fn new(limits: SourceLimits, seed: u64) -> Result<Self, SetupError> {
        limits.check()?;
        Ok(Self { limits, seed, shards: std::array::from_fn(|_| Mutex::default()) })
    }

    /// Counts a connection of a client in.
    ///
    /// # Errors
    /// [`Refused`], and then nothing is counted, no token is taken, and no memory is used.
    pub fn admit(&self, address: IpAddr, now_us: u64) -> Result<Source, Refused> {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { self.limits.ipv4_bits } else { self.limits.ipv6_bits };
        let prefix = Prefix::covering(address, bits);
        let shard = self.shard_of(prefix);
        let index = self.lock(shard).admit(prefix, &self.limits, now_us)?;
        Ok(Source::new(shard, index))
    }

    /// A connection is over that this table has admitted.
    pub fn release(&self, source: Source, now_us: u64) {
        let (shard, index) = source.split();
        self.lock(shard).release(index, &self.limits, now_us);
    }

    /// Sources that are known: with connections, or remembered.
    #[must_use]
    pub fn known(&self) -> usize {
        (0..SHARDS).map(|shard| self.lock(shard).entries.len()).sum()
    }

    /// Which part a source is in: SipHash, with the seed ahead of what a client chooses.
    fn shard_of(&self, prefix: Prefix) -> usize {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        prefix.hash(&mut hasher);
        hasher.finish() as usize % SHARDS
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part of the table.
#[derive(Debug, Default)]
struct Shard {
    entries: Slab<Entry>,
    /// Where each known source is.
    places: BTreeMap<Prefix, u32>,
    /// The quiet ones, by when their buckets will be full.
    quiet: BTreeSet<(u64, u32)>,
}

#[derive(Debug)]
struct Entry {
    prefix: Prefix,
    state: State,
    /// Of its bucket; of no meaning without a rate.
    arrival: Arrival,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Connections, at least one.
    Open(u32),
    /// No connection.
    Quiet { full_at_us: u64 },
}

impl Shard {
    fn admit(
        &mut self,
        prefix: Prefix,
        limits: &SourceLimits,
        now_us: u64,
    ) -> Result<usize, Refused> {
        let place = self.places.get(&prefix).map(|&place| place as usize);
        let known = place.map(|place| &self.entries[place]);
        let open = match known.map(|entry| entry.state) {
            Some(State::Open(open)) => open,
            Some(State::Quiet { .. }) | None => 0,
        };
        if open >= limits.connections_max.unwrap_or(u32::MAX) {
            return Err(Refused::Full);
        }
        let mut arrival = known.map_or(Arrival::default(), |entry| entry.arrival);
        if let Some(rate) = limits.rate {
            let before = if known.is_some() { arrival } else { rate.full(now_us) };
            arrival = rate
                .after_take(before, now_us)
                .ok_or_else(|| Refused::Rate { wait_us: rate.wait_us(before, now_us) })?;
        }
        let entry = Entry { prefix, state: State::Open(open + 1), arrival };
        match place {
            Some(place) => {
                if let State::Quiet { full_at_us } = self.entries[place].state {
                    self.quiet.remove(&(full_at_us, place as u32));
                }
                self.entries[place] = entry;
                Ok(place)
            }
            None => {
                let place = self.entries.insert(entry);
                self.places.insert(prefix, place as u32);
                Ok(place)
            }
        }
    }

    fn release(&mut self, place: usize, limits: &SourceLimits, now_us: u64) {
        let entry = self.entries.get_mut(place);
        match entry.as_ref().map(|entry| entry.state) {
            Some(State::Open(1)) => self.end_last(place, limits, now_us),
            Some(State::Open(open)) => entry.expect("seen").state = State::Open(open - 1),
            // Only a `Source` of another table leads here.
            Some(State::Quiet { .. }) | None => debug_assert!(false, "not admitted here"),
        }
    }

    /// The last connection of a source is over.
    fn end_last(&mut self, place: usize, limits: &SourceLimits, now_us: u64) {
        let arrival = self.entries[place].arrival;
        let full_at_us = limits.rate.map_or(0, |rate| rate.full_at_us(arrival, now_us));
        self.sweep(now_us);
        if full_at_us <= now_us {
            return self.forget(place);
        }
        if self.quiet.len() >= limits.quiet_max()
            && let Some((_, nearest)) = self.quiet.pop_first()
        {
            self.forget(nearest as usize);
        }
        self.entries[place].state = State::Quiet { full_at_us };
        self.quiet.insert((full_at_us, place as u32));
    }

    /// Forgets a few whose buckets are full.
    fn sweep(&mut self, now_us: u64) {
        for _ in 0..SWEEP {
            match self.quiet.first() {
                Some(&(full_at_us, place)) if full_at_us <= now_us => {
                    self.quiet.pop_first();
                    self.forget(place as usize);
                }
                _ => return,
            }
        }
    }

    fn forget(&mut self, place: usize) {
        let entry = self.entries.remove(place);
        self.places.remove(&entry.prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn client(number: u8) -> Prefix {
        Prefix::covering(IpAddr::from([192, 0, 2, number]), 32)
    }

    /// One part alone: who shares it with whom is not left to a hash.
    struct Part {
        shard: Shard,
        limits: SourceLimits,
    }

    impl Part {
        fn new(rate: &str, quiet_max: u32) -> Self {
            let rate = Some(rate.parse().expect(rate));
            let remembered_max = quiet_max * SHARDS as u32;
            let limits = SourceLimits { rate, remembered_max, ..SourceLimits::default() };
            Self { shard: Shard::default(), limits }
        }

        /// So many connections of a client, one after the other.
        fn visit(&mut self, number: u8, times: u32, now_us: u64) {
            for _ in 0..times {
                let place = self.shard.admit(client(number), &self.limits, now_us);
                self.shard.release(place.expect("a token"), &self.limits, now_us);
            }
        }

        fn known(&self) -> Vec<u8> {
            let last = |prefix: &Prefix| match prefix.address() {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => unreachable!("all of these are IPv4"),
            };
            assert_eq!(self.shard.places.len(), self.shard.entries.len());
            self.shard.places.keys().map(last).collect()
        }
    }

    #[test]
    fn of_equals_the_oldest_is_forgotten() {
        let mut part = Part::new("1:1", 3);
        for number in 1..=5 {
            part.visit(number, 1, u64::from(number));
        }
        assert_eq!(part.known(), [3, 4, 5]);
    }

    #[test]
    fn who_has_used_most_is_remembered_longest() {
        let mut part = Part::new("1:9", 3);
        part.visit(1, 9, 0);
        part.visit(2, 5, 0);
        for number in 3..=9 {
            part.visit(number, 2, number.into());
        }
        assert_eq!(part.known(), [1, 2, 9], "of those with two the newest comes last");
        part.visit(10, 1, 10);
        assert_eq!(part.known(), [1, 2, 10], "the newest stays, to be seen coming again");
    }

    #[test]
    fn full_buckets_go_before_all_others() {
        let mut part = Part::new("1:9", 3);
        part.visit(1, 9, 0);
        part.visit(2, 1, 0);
        part.visit(3, 1, 0);
        // At 1 s the buckets of 2 and 3 are full, and two are swept with one that comes.
        part.visit(4, 1, 1_000_000);
        assert_eq!(part.known(), [1, 4]);
    }

    #[test]
    fn who_comes_back_is_not_quiet_and_cannot_be_forgotten() {
        let mut part = Part::new("1:3", 1);
        part.visit(1, 1, 0);
        let place = part.shard.admit(client(1), &part.limits, 0).expect("a token");
        assert!(part.shard.quiet.is_empty());
        part.visit(2, 1, 0);
        part.visit(3, 1, 1);
        assert_eq!(part.known(), [1, 3]);
        part.shard.release(place, &part.limits, 1);
        assert_eq!(part.known(), [1]);
    }

    #[test]
    fn a_place_is_found_again_from_its_source() {
        for shard in [0, 1, SHARDS - 1] {
            for index in [0, 1, (SLOTS_MAX + REMEMBERED_MAX) as usize] {
                assert_eq!(Source::new(shard, index).split(), (shard, index));
            }
        }
    }

    #[test]
    fn locks_that_a_panic_left_behind_are_taken_over() {
        let limits = SourceLimits { connections_max: Some(1), ..SourceLimits::default() };
        let sources = Sources::new(limits, 0).expect("limits that fit");
        let held = sources.admit([192, 0, 2, 1].into(), 0).expect("the first");
        for shard in 0..SHARDS {
            let left = catch_unwind(AssertUnwindSafe(|| {
                let _guard = sources.lock(shard);
                std::panic::resume_unwind(Box::new("left behind"));
            }));
            assert!(left.is_err() && sources.shards[shard].is_poisoned());
        }
        assert_eq!(sources.admit([192, 0, 2, 1].into(), 0), Err(Refused::Full));
        sources.release(held, 0);
        assert_eq!(sources.known(), 0);
    }
}
