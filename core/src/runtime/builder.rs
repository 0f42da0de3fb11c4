//! What a runtime will be: sizes, deadlines and addresses, and whether they fit together.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use core_affinity::CoreId;

use super::threads::{Threads, find_cores};
use super::{Running, Team};
use crate::access::Access;
use crate::clock::millis;
use crate::config::{Limits, Poll, Timeouts};
use crate::connections::{ADDRESSES_BYTES, slot_bytes};
use crate::door::Door;
use crate::error::SetupError;
use crate::handler::Handler;
use crate::listen::{Listen, OnFull, Placement};
use crate::pace::Pace;
use crate::rates::Rate;
use crate::sources::{SourceLimits, Sources};
use crate::sys::memory::ring_bytes;
use crate::sys::{descriptors_max, ensure_descriptors};

/// Descriptors of the process beside connections, listeners and rings: standard streams, logs, a margin.
const DESCRIPTORS_BESIDE: u64 = 32;
/// Descriptors of a reactor beside its connections and listeners: its ring, as it has it and as the others do,
/// and its bell.
const DESCRIPTORS_OF_REACTOR: u64 = 3;
/// Descriptors of a reactor for clients on their way into the table of its ring. With fewer than come at once,
/// accepting pauses until those before have moved in.
const DESCRIPTORS_ON_THE_WAY: u64 = 16;
/// Fewer connections than this are not chosen by themselves.
const FIT_CONNECTIONS_MIN: u32 = 64;
/// Bytes beside each slot: its timer and generation, and its places in the queues of the dirty, the large, the parked
/// (two) and the stalled, and its addresses, if handlers ask for them.
const BYTES_BESIDE_SLOT: u64 = 8 + 4 + 5 * 8 + ADDRESSES_BYTES;
/// Bytes of the list entries of one buffer's pieces in outboxes, and of its place among the returned.
const BYTES_BESIDE_BUFFER: u64 = 128;
/// Bytes of a place of a ring's table in the lists of those that are free or about to be.
const BYTES_PER_PLACE: u64 = 2 * 4;
/// Bytes of a submission and of its eight completions.
const BYTES_PER_SUBMISSION: u64 = 64 + 8 * 16;

/// What a runtime will be.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    listen: Vec<(SocketAddr, Listen)>,
    cores: Option<Vec<usize>>,
    limits: Limits,
    timeouts: Timeouts,
    poll: Poll,
    placement: Placement,
    rebalance: bool,
    on_full: OnFull,
    accept_rate: Option<Rate>,
    access: Option<Arc<Access>>,
    sources: SourceLimits,
    drain: Duration,
    not_ready: Duration,
    direct: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            listen: Vec::new(),
            cores: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            poll: Poll::default(),
            placement: Placement::default(),
            rebalance: false,
            on_full: OnFull::default(),
            accept_rate: None,
            access: None,
            sources: SourceLimits::default(),
            drain: Duration::from_secs(30),
            not_ready: Duration::ZERO,
            direct: false,
        }
    }

    /// Listens on an address, beside those named before. Port 0 takes a free one.
    pub fn listen(self, address: SocketAddr) -> Self {
        self.listen_with(address, Listen::new())
    }

    /// The same, with a say in how its clients are taken in.
    pub fn listen_with(mut self, address: SocketAddr, how: Listen) -> Self {
        self.listen.push((address, how));
        self
    }

    /// Runs one reactor on each of these cores, instead of on all.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.cores = Some(cores.into_iter().collect());
        self
    }

    /// The process holds at most so many accepted connections; further clients wait in the backlog.
    /// Default 16384.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.limits.accepted_max = connections;
        self
    }

    /// The process holds at most so many dialed connections. Default 0.
    pub fn max_dialed(mut self, connections: u32) -> Self {
        self.limits.dialed_max = connections;
        self
    }

    /// Sets all sizes at once. `accepted_max` is the process's cap.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets all deadlines at once.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// What reactors do before they sleep. Default: nothing.
    pub fn poll(mut self, poll: Poll) -> Self {
        self.poll = poll;
        self
    }

    /// Which reactor a client goes to, of listeners that do not say so themselves. Default
    /// [`Placement::LeastLoaded`].
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Moves idle connections to a reactor that has clearly fewer, when one has come to have too many: of listeners
    /// whose clients are placed by [`Placement::LeastLoaded`] or [`Placement::RoundRobin`], and if the handler lets
    /// them go ([`Handler::on_leave`](crate::Handler::on_leave)). Default: no.
    pub fn rebalance(mut self, rebalance: bool) -> Self {
        self.rebalance = rebalance;
        self
    }

    /// What becomes of clients for whom there is no place, at listeners that do not say so themselves. Default
    /// [`OnFull::Backlog`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// The process lets clients in at this rate, over all listeners and reactors; who comes sooner waits in the
    /// backlog, and nobody is refused for it. A drain does not keep to it. Default: no limit.
    /// [`Listen::accept_rate`] does the same for one listener; where both say something, both hold.
    pub fn accept_rate(mut self, rate: Rate) -> Self {
        self.accept_rate = Some(rate);
        self
    }

    /// From where clients may come, at listeners that do not say so themselves. Default: from anywhere. Others are
    /// reset.
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(Arc::new(access));
        self
    }

    /// How many connections, and how often, clients of one source may have. Default: no limit. Those beyond are
    /// reset: others stand behind them.
    pub fn per_source(mut self, limits: SourceLimits) -> Self {
        self.sources = limits;
        self
    }

    /// How long a drain may take before what is left is aborted, from its order on. Default 30 s, Kubernetes' grace.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain = deadline;
        self
    }

    /// For so long of that time a drain goes on accepting and serving, while
    /// [`Handle::is_ready`](super::Handle::is_ready)
    /// says that no more should come: a load balancer that asks for it, or is told, sends clients elsewhere before
    /// anybody is refused. Default 0. Less than the drain's deadline.
    pub fn not_ready(mut self, span: Duration) -> Self {
        self.not_ready = span;
        self
    }

    /// Keeps accepted connections in tables of the rings, instead of as descriptors of the process. Default: no.
    ///
    /// For whoever has to hold more connections than RLIMIT_NOFILE allows and cannot raise it: places in such a table
    /// do not count against it, and each reactor's table may have as many as the (hard) limit. So the process can hold
    /// as many accepted connections as the limit *for each reactor*, and dialed ones, which stay descriptors, beside
    /// them. A client has a descriptor until it is opened: some have to be left.
    ///
    /// It is no quicker: a client costs two system calls more (docs/decisions/0002 has figures). A table takes eight
    /// bytes of the kernel's for each place, whether it is used or not. Tools that list the descriptors of a process
    /// (`ss -p`, `lsof`) do not see these connections. Linux 6.13 or newer; on an older kernel the start is refused
    /// ([`SetupError::DirectDescriptors`]).
    ///
    /// A reactor with more clients than its table has places serves those beyond by descriptors, as long as there
    /// are any. With a placement that balances ([`Placement::LeastLoaded`], [`Placement::RoundRobin`]) that does not
    /// happen as long as another has room.
    pub fn direct_descriptors(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// The memory the runtime's own structures may come to, bytes; what handlers keep themselves is theirs.
    #[must_use]
    pub fn memory_bound<H: Handler>(&self) -> u64 {
        let limits = &self.limits;
        let reactors = self.reactor_cores().map_or(1, |cores| cores.len() as u64);
        let buffers = ring_bytes(limits.buffers, limits.buffer_bytes)
            + u64::from(limits.buffers) * BYTES_BESIDE_BUFFER;
        let slot = slot_bytes::<H::State>() as u64 + BYTES_BESIDE_SLOT;
        let slots = u64::from(limits.slots()) * slot;
        let queues = u64::from(limits.submissions) * BYTES_PER_SUBMISSION;
        let places = if self.direct { u64::from(limits.accepted_max) * BYTES_PER_PLACE } else { 0 };
        let sources = match self.sources.is_limit() {
            true => self.sources.memory_bytes_max(limits.accepted_max),
            false => 0,
        };
        reactors * (buffers + slots + queues + places + limits.owned_bytes_max) + sources
    }

    /// What so many reactors of this runtime would have in common. [`start`](Self::start) makes them by it;
    /// whoever runs reactors without threads can, too.
    ///
    /// # Errors
    /// [`SetupError::Config`] if something does not fit together.
    pub fn team(&self, reactors: usize) -> Result<Team, SetupError> {
        self.check(reactors)?;
        let listen: Vec<Listen> = self.listens().into_iter().map(|(_, how)| how).collect();
        let sources = match self.sources.is_limit() {
            true => Some(Sources::new(self.sources, random_seed())?),
            false => None,
        };
        let access = listen.iter().map(|how| how.access.clone()).collect();
        let drain_ms = short_millis(self.drain);
        let team = Team::new((reactors, &listen), self.limits, self.timeouts, self.poll, drain_ms);
        let pace = Pace::new(self.accept_rate, listen.iter().map(|how| how.accept_rate));
        let not_ready_ms = short_millis(self.not_ready);
        Ok(team
            .with_door(Door::new(access, sources))
            .with_pace(pace)
            .with_rebalance(self.rebalance)
            .with_not_ready(not_ready_ms))
    }

    fn check(&self, reactors: usize) -> Result<(), SetupError> {
        self.limits.check()?;
        self.listen.iter().try_for_each(|(_, how)| how.check())?;
        if !self.not_ready.is_zero() && self.not_ready >= self.drain {
            let (not_ready, drain) = (self.not_ready, self.drain);
            let cause = format!("not ready for {not_ready:?} of a drain of {drain:?}");
            return refuse(&cause, "accept for less, or drain for longer");
        }
        if reactors == 0 {
            return refuse("no core to run on", "name at least one");
        }
        if self.listen.is_empty() && self.limits.dialed_max == 0 {
            let cause = "neither an address to listen on nor connections to dial";
            return refuse(cause, "add a listener, or allow dialed connections");
        }
        if !self.listen.is_empty() && self.limits.accepted_max == 0 {
            let cause = "an address to listen on, and no connection that may be accepted";
            return refuse(cause, "allow accepted connections, or listen nowhere");
        }
        Ok(())
    }

    /// Where it listens and how, with nothing left open.
    fn listens(&self) -> Vec<(SocketAddr, Listen)> {
        let mut listens = self.listen.clone();
        for (_, how) in &mut listens {
            how.placement.get_or_insert(self.placement);
            how.on_full.get_or_insert(self.on_full);
            if how.access.is_none() {
                how.access.clone_from(&self.access);
            }
        }
        listens
    }

    /// Descriptors the process can come to need.
    fn descriptors(&self, reactors: usize) -> u64 {
        let mut of_reactor = self.listen.len() as u64 + DESCRIPTORS_OF_REACTOR;
        let mut connections = u64::from(self.limits.dialed_max);
        match self.direct {
            true => of_reactor += DESCRIPTORS_ON_THE_WAY,
            false => connections += u64::from(self.limits.accepted_max),
        }
        connections + reactors as u64 * of_reactor + DESCRIPTORS_BESIDE
    }

    /// Places that each ring's table may have, with so many descriptors; none without tables. Any of them may come to
    /// hold all connections, if there are no more.
    fn places(&self, descriptors: u64) -> u32 {
        match self.direct {
            true => u32::try_from(descriptors).unwrap_or(u32::MAX).min(self.limits.accepted_max),
            false => 0,
        }
    }

    /// Accepted connections for which neither these tables nor descriptors have room.
    fn without_place(&self, reactors: usize, descriptors: u64) -> u64 {
        match self.direct {
            true => {
                let places = u64::from(self.places(descriptors)).saturating_mul(reactors as u64);
                u64::from(self.limits.accepted_max).saturating_sub(places)
            }
            false => 0,
        }
    }

    /// Makes room for what the process can come to need; the places of each ring's table.
    fn make_room(&self, reactors: usize) -> Result<u32, SetupError> {
        let needed = self.descriptors(reactors);
        ensure_descriptors(needed)?;
        if !self.direct {
            return Ok(0);
        }
        let available = descriptors_max()?;
        if self.without_place(reactors, available) > 0 {
            return Err(SetupError::LimitTooLow {
                limit: "RLIMIT_NOFILE (places of each reactor's table)",
                available,
                needed: u64::from(self.limits.accepted_max).div_ceil(reactors as u64),
                remedy: "lower --max-connections, run more reactors, or raise the hard limit (`ulimit -Hn`, \
                         LimitNOFILE=)",
            });
        }
        // The soft limit is what bounds a table; and the more are on their way at once, the fewer have to wait.
        ensure_descriptors(available.min(needed + u64::from(self.limits.accepted_max)))?;
        Ok(self.places(available))
    }

    /// Lowers the number of accepted connections to what the limit of descriptors has room for beside the
    /// dialed ones, of which there are `dialed_for(accepted)`; but not below 64: a limit lower than that is
    /// refused at the start. With [direct descriptors](Self::direct_descriptors) the tables have to have room for
    /// them. For programs whose user did not ask for a number.
    ///
    /// # Errors
    /// [`SetupError::Step`] if the limit cannot be read.
    pub fn fit_connections(mut self, dialed_for: impl Fn(u32) -> u32) -> Result<Self, SetupError> {
        let reactors = self.reactor_cores()?.len();
        let available = descriptors_max()?;
        loop {
            self.limits.dialed_max = dialed_for(self.limits.accepted_max);
            let missing = self.descriptors(reactors).saturating_sub(available);
            let missing = missing.max(self.without_place(reactors, available));
            if missing == 0 || self.limits.accepted_max <= FIT_CONNECTIONS_MIN {
                return Ok(self);
            }
            let share = u32::try_from(missing.div_ceil(4)).unwrap_or(u32::MAX);
            let fewer = self.limits.accepted_max.saturating_sub(share);
            self.limits.accepted_max = fewer.max(FIT_CONNECTIONS_MIN);
        }
    }

    /// Sets everything up and lets the reactors run. `make` makes the handler of each, on its thread, from
    /// its number.
    ///
    /// # Errors
    /// [`SetupError`], with cause and remedy; nothing runs then, and nothing is left behind. A panic of
    /// `make` is one of them.
    pub fn start<H: Handler + 'static>(
        self,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Result<Running, SetupError> {
        let cores = self.reactor_cores()?;
        let mut team = self.team(cores.len())?;
        let places = self.make_room(cores.len())?;
        if self.direct {
            team = team.with_tables(places);
        }
        let memory_bound = self.memory_bound::<H>();
        let (limits, poll) = (self.limits, self.poll);
        let threads = Threads { listen: &self.listens(), limits, poll, places };
        threads.start(&cores, &team, memory_bound, make)
    }

    fn reactor_cores(&self) -> Result<Vec<CoreId>, SetupError> {
        find_cores(self.cores.as_deref())
    }
}

/// What does not fit together, and what would.
fn refuse(cause: &str, remedy: &str) -> Result<(), SetupError> {
    Err(SetupError::Config { cause: cause.to_owned(), remedy: remedy.to_owned() })
}

/// Milliseconds, as many as fit: 49 days.
fn short_millis(span: Duration) -> u32 {
    u32::try_from(millis(span)).unwrap_or(u32::MAX)
}

/// What nobody outside can know.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}
