//! The endpoints of an upstream, as all of its reactors see them.
//!
//! ```text
//!   sources ---> Roster (whole, swapped) ---> each reactor's table, when it next looks
//!                  |
//!                  +-- Member: address, pool, what its reactors have under way, whether it is up
//! ```
//!
//! Is: who belongs to the upstream, and what is known of each beyond one reactor. Is not: who gets a call.
//!
//! A member has a number, by which its ejection is known. The number is free again when the last who knew the member
//! has dropped it, so no reactor takes one member for another.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::dialer::Dialer;
use crate::cap::Cap;
use crate::connector::Connector;
use crate::failure::Resolve;
use crate::policy::outlier::Ejections;
use crate::pool::Pool;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The largest of a balancer.
const WEIGHT_MAX: u32 = 256;

/// Nobody checks it.
const NOBODY: usize = usize::MAX;

/// Numbers that nobody has. There is always another: members that have left have theirs for as long as calls are under
/// way there, and those that come are not to wait for that. One of a number without a word is never ejected.
#[derive(Debug)]
pub(super) struct Numbers {
    /// Those that came back, and the lowest that nobody has had.
    free: Mutex<(BTreeSet<u32>, u32)>,
    ejections: Arc<Ejections>,
}

impl Numbers {
    pub(super) fn new(ejections: Arc<Ejections>) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), ejections })
    }

    /// The lowest.
    pub(super) fn take(&self) -> u32 {
        let (returned, next) = &mut *self.free.lock().unwrap_or_else(PoisonError::into_inner);
        returned.pop_first().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        })
    }

    fn give(&self, number: u32) {
        self.ejections.forget(number);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).0.insert(number);
    }
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) number: u32,
    address: SocketAddr,
    /// How connections to it come about, by whatever name it was found.
    pub(super) connector: Connector,
    pub(super) pool: Pool<Dialer>,
    /// It was there from the beginning: it has all of its weight at once, and is taken for up.
    pub(super) is_of_the_first: bool,
    /// Dials under way; there once it is known which reactors there are.
    dials: OnceLock<Arc<Cap>>,
    /// Calls under way, by reactor, as of when each last said so.
    in_flight: OnceLock<Box<[CachePadded<AtomicU32>]>>,
    is_down: AtomicBool,
    /// Since when it is up, in milliseconds of the runtime's clock; 0: it always was.
    up_since_ms: AtomicU64,
    /// The reactor that checks it.
    checker: AtomicUsize,
    numbers: Arc<Numbers>,
}

impl Member {
    pub(super) fn new(
        number: u32,
        address: SocketAddr,
        connector: Connector,
        pool: Pool<Dialer>,
        is_of_the_first: bool,
        numbers: Arc<Numbers>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            address,
            connector,
            pool,
            is_of_the_first,
            dials: OnceLock::new(),
            in_flight: OnceLock::new(),
            is_down: AtomicBool::new(false),
            up_since_ms: AtomicU64::new(0),
            checker: AtomicUsize::new(NOBODY),
            numbers,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same in all processes, whatever they were built with: Maglev's choices go by it. FNV-1a of the address.
    pub(super) fn identity(&self) -> u64 {
        let address = self.address;
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let bytes = ip.into_iter().chain(address.port().to_be_bytes());
        bytes.fold(FNV_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
    }

    pub(super) fn dials(&self, dials_max: u32, reactors: usize) -> Arc<Cap> {
        Arc::clone(self.dials.get_or_init(|| Arc::new(Cap::new(dials_max, reactors))))
    }

    // ------------------------------------------------------------------------- calls under way

    /// Says how many of this reactor's there are, and how many the others have said.
    pub(super) fn exchange(&self, reactor: usize, reactors: usize, own: u32) -> u32 {
        let all =
            self.in_flight.get_or_init(|| (0..reactors).map(|_| CachePadded::default()).collect());
        let place = &all[reactor];
        if place.load(Ordering::Relaxed) != own {
            place.store(own, Ordering::Relaxed);
        }
        let others = all.iter().enumerate().filter(|(other, _)| *other != reactor);
        others.map(|(_, count)| count.load(Ordering::Relaxed)).fold(0, u32::saturating_add)
    }

    // ------------------------------------------------------------------------- health

    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// Since when it is up, for its slow start.
    pub(super) fn up_since(&self) -> Option<Duration> {
        let ms = self.up_since_ms.load(Ordering::Acquire);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    pub(super) fn set_up(&self, is_up: bool, now: Duration) {
        if is_up {
            let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            self.up_since_ms.store(ms.max(1), Ordering::Release);
        }
        self.is_down.store(!is_up, Ordering::Release);
    }

    /// Whether this reactor is to check it from now on: nobody else does.
    pub(super) fn begin_checking(&self, reactor: usize) -> bool {
        let (order, load) = (Ordering::AcqRel, Ordering::Relaxed);
        self.checker.compare_exchange(NOBODY, reactor, order, load).is_ok()
    }

    pub(super) fn end_checking(&self, reactor: usize) {
        let (order, load) = (Ordering::AcqRel, Ordering::Relaxed);
        // If it is another's by now, it stays so.
        let _ = self.checker.compare_exchange(reactor, NOBODY, order, load);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.numbers.give(self.number);
    }
}

/// A member, and what its source says of it at present: another weight makes nobody another.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) member: Arc<Member>,
    pub(super) tier: u16,
    pub(super) weight: u16,
}

/// Who belongs to the upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    pub(super) members: Vec<Listed>,
    /// Why there is nobody, if a name leads nowhere.
    pub(super) failure: Option<Resolve>,
    /// All names have been asked for.
    pub(super) is_known: bool,
}

impl Roster {
    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().map(|listed| &listed.member)
    }

    /// The weight of one of them for a balancer, which goes from 1 to 256: those of a tier are scaled if one of them is
    /// more. SRV's go up to 65535, and it is their proportion that counts (RFC 2782).
    pub(super) fn weight(&self, of: &Listed) -> u32 {
        let of_tier = self.members.iter().filter(|listed| listed.tier == of.tier);
        let most = of_tier.map(|listed| u32::from(listed.weight)).max().unwrap_or(0);
        let weight = u32::from(of.weight);
        match most > WEIGHT_MAX {
            true => ((weight * WEIGHT_MAX + most / 2) / most).max(1),
            false => weight.max(1),
        }
    }
}
