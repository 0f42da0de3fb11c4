//! The process: reactors on their cores, from their start to the end of their drain.
//!
//! ```no_run
//! # use slipring_core::{Ctx, Handler, Lease, Runtime, SetupError};
//! # struct Echo;
//! # impl Handler for Echo {
//! #     type State = ();
//! #     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) { ctx.send(data); }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let running = Runtime::builder().listen("127.0.0.1:7000".parse()?).start(|_core| Echo)?;
//! println!("listening on {}", running.addresses()[0]);
//! running.join()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything that can be refused is refused before the first client: the kernel's features are tried,
//! limits computed and compared, addresses claimed, rings made on their threads. Only when all reactors
//! have said that they are ready does any of them run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::admission::Admission;
use crate::clock::millis;
use crate::config::{Limits, Poll, Timeouts};
use crate::connections::slot_bytes;
use crate::control::Control;
use crate::counters::Counters;
use crate::driver::{DriverFailed, Wake};
use crate::error::SetupError;
use crate::handler::Handler;
use crate::reactor::{Reactor, Setup};
use crate::sys::memory::ring_bytes;
use crate::sys::{
    Bell, Features, Listening, Ring, RingConfig, descriptors_max, ensure_descriptors, probe,
};

/// Descriptors of the process beside connections, listeners and rings: standard streams, logs, a margin.
const DESCRIPTORS_BESIDE: u64 = 32;
/// Descriptors of a reactor beside its connections and listeners: its ring and its bell.
const DESCRIPTORS_OF_REACTOR: u64 = 2;
/// Fewer connections than this are not chosen by themselves.
const FIT_CONNECTIONS_MIN: u32 = 64;
/// Bytes beside each slot: its timer and generation, and its places in the queues of the dirty, the parked
/// and the stalled.
const BYTES_BESIDE_SLOT: u64 = 8 + 4 + 3 * 8;
/// Bytes of the list entries of one buffer's pieces in outboxes, and of its place among the returned.
const BYTES_BESIDE_BUFFER: u64 = 128;
/// Bytes of a submission and of its eight completions.
const BYTES_PER_SUBMISSION: u64 = 64 + 8 * 16;

/// The name under which runtimes are built.
#[derive(Debug)]
pub struct Runtime;

impl Runtime {
    /// A runtime to be: no listeners, every core this process may use, the defaults of [`Limits`] and
    /// [`Timeouts`].
    pub fn builder() -> Builder {
        Builder {
            listen: Vec::new(),
            cores: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            poll: Poll::default(),
            drain: Duration::from_secs(30),
        }
    }
}

/// What a runtime will be.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    listen: Vec<SocketAddr>,
    cores: Option<Vec<usize>>,
    limits: Limits,
    timeouts: Timeouts,
    poll: Poll,
    drain: Duration,
}

impl Builder {
    /// Listens on an address, beside those named before. Port 0 takes a free one.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
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

    /// How long a drain may take before what is left is aborted. Default 30 s, Kubernetes' grace.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain = deadline;
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
        reactors * (buffers + slots + queues + limits.owned_bytes_max)
    }

    fn reactor_cores(&self) -> Result<Vec<core_affinity::CoreId>, SetupError> {
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        let Some(wanted) = &self.cores else {
            return Ok(allowed);
        };
        let find = |&core: &usize| {
            let found = allowed.iter().find(|id| id.id == core).copied();
            found.ok_or_else(|| SetupError::Core {
                core,
                allowed: allowed.iter().map(|id| id.id.to_string()).collect::<Vec<_>>().join(", "),
            })
        };
        wanted.iter().map(find).collect()
    }

    fn check(&self, reactors: usize) -> Result<(), SetupError> {
        self.limits.check()?;
        if reactors == 0 {
            return Err(SetupError::Config {
                cause: "no core to run on".to_owned(),
                remedy: "name at least one".to_owned(),
            });
        }
        if self.listen.is_empty() && self.limits.dialed_max == 0 {
            return Err(SetupError::Config {
                cause: "neither an address to listen on nor connections to dial".to_owned(),
                remedy: "add a listener, or allow dialed connections".to_owned(),
            });
        }
        if !self.listen.is_empty() && self.limits.accepted_max == 0 {
            return Err(SetupError::Config {
                cause: "an address to listen on, and no connection that may be accepted".to_owned(),
                remedy: "allow accepted connections, or listen nowhere".to_owned(),
            });
        }
        ensure_descriptors(self.descriptors(reactors))
    }

    /// Descriptors the process can come to need.
    fn descriptors(&self, reactors: usize) -> u64 {
        let of_reactor = self.listen.len() as u64 + DESCRIPTORS_OF_REACTOR;
        let connections = u64::from(self.limits.accepted_max) + u64::from(self.limits.dialed_max);
        connections + reactors as u64 * of_reactor + DESCRIPTORS_BESIDE
    }

    /// Lowers the number of accepted connections to what the limit of descriptors has room for beside the
    /// dialed ones, of which there are `dialed_for(accepted)`; but not below 64: a limit lower than that is
    /// refused at the start. For programs whose user did not ask for a number.
    ///
    /// # Errors
    /// [`SetupError::Step`] if the limit cannot be read.
    pub fn fit_connections(mut self, dialed_for: impl Fn(u32) -> u32) -> Result<Self, SetupError> {
        let reactors = self.reactor_cores()?.len();
        let available = descriptors_max()?;
        loop {
            self.limits.dialed_max = dialed_for(self.limits.accepted_max);
            let missing = self.descriptors(reactors).saturating_sub(available);
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
        self.check(cores.len())?;
        let features = probe_aside()?;
        let memory_bound = self.memory_bound::<H>();
        let (listeners, addresses) = self.open_listeners(cores.len())?;
        let drain_ms = u32::try_from(millis(self.drain)).unwrap_or(u32::MAX);
        let control = Arc::new(Control::new(cores.len(), drain_ms));
        let cap = self.limits.accepted_max;
        let backlog = self.limits.backlog.saturating_mul(self.listen.len().max(1) as u32);
        let admission = Arc::new(Admission::new(cap, self.limits.dialed_max, backlog, cores.len()));
        let make = Arc::new(make);
        let mut starts = Starts::new();
        for (number, (core, listeners)) in cores.iter().zip(listeners).enumerate() {
            let setup = Setup {
                number,
                listeners: Vec::new(),
                limits: self.limits,
                timeouts: self.timeouts,
                poll: self.poll,
                admission: Arc::clone(&admission),
                control: Arc::clone(&control),
                first_generation: 0,
            };
            let ring =
                RingConfig { limits: self.limits, features, watched: self.poll != Poll::Off };
            let make = Arc::clone(&make);
            starts.spawn(*core, ring, listeners, setup, move || make(number))?;
        }
        let handle = Handle { control, bells: starts.ready()?.into() };
        let rung = handle.clone();
        admission.connect(move |reactor| rung.ring(reactor));
        let threads = starts.go();
        Ok(Running { handle, addresses, threads, features, memory_bound, max_connections: cap })
    }

    /// One list of listeners for each reactor, and the addresses they got.
    fn open_listeners(
        &self,
        reactors: usize,
    ) -> Result<(Vec<Vec<Listening>>, Vec<SocketAddr>), SetupError> {
        let mut all: Vec<Vec<Listening>> = (0..reactors).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for &asked in &self.listen {
            // Sharing a port with another process would silently give it half of the clients.
            Listening::claim(asked)?;
            let mut address = asked;
            for listeners in &mut all {
                let listening = Listening::open(address, self.limits.backlog, reactors > 1)?;
                address = listening.address();
                listeners.push(listening);
            }
            addresses.push(address);
        }
        Ok((all, addresses))
    }
}

type ReactorThread = JoinHandle<Result<(), DriverFailed>>;

/// Reactors on their way: each tells that it is ready, or why not; then all are told to go. If this value
/// ends before that, all of them have gone home and closed what they held.
struct Starts {
    /// `None` once all have been started.
    tell: Option<mpsc::Sender<(usize, Result<Bell, SetupError>)>>,
    told: mpsc::Receiver<(usize, Result<Bell, SetupError>)>,
    go: Vec<mpsc::Sender<()>>,
    threads: Vec<ReactorThread>,
}

impl Starts {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        Self { tell: Some(tell), told, go: Vec::new(), threads: Vec::new() }
    }

    fn spawn<H: Handler + 'static>(
        &mut self,
        core: core_affinity::CoreId,
        ring: RingConfig,
        listeners: Vec<Listening>,
        mut setup: Setup,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> Result<(), SetupError> {
        let number = setup.number;
        let tell = self.tell.clone();
        let (go, wait) = mpsc::channel();
        self.go.push(go);
        let run = move || {
            let ready = pin(core).and_then(|()| Ring::new(&ring));
            let ready = ready.and_then(|ring| Ok((ring, make_handler(number, make)?)));
            // Nobody listens any more once another reactor has failed.
            let say = |told| tell.map(|tell| tell.send((number, told)));
            let (ring, handler) = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    let _ = say(Err(error));
                    return Ok(());
                }
            };
            let _ = say(Ok(ring.bell()));
            let Ok(()) = wait.recv() else { return Ok(()) };
            let _end = EndsAll {
                control: Arc::clone(&setup.control),
                admission: Arc::clone(&setup.admission),
            };
            // From here on the reactor closes them.
            setup.listeners = listeners.into_iter().map(Listening::into_descriptor).collect();
            Reactor::new(ring, handler, setup).run()
        };
        let thread = std::thread::Builder::new().name(format!("slipring-{number}"));
        let started = thread.spawn(run);
        let step = |source| SetupError::Step { step: "starting a thread", source };
        self.threads.push(started.map_err(step)?);
        Ok(())
    }

    /// Waits until all are ready. If one is not, none will run.
    fn ready(&mut self) -> Result<Vec<Bell>, SetupError> {
        let mut bells: Vec<Option<Bell>> = self.go.iter().map(|_| None).collect();
        self.tell = None;
        for (number, told) in &self.told {
            bells[number] = Some(told?);
        }
        let bells: Option<Vec<Bell>> = bells.into_iter().collect();
        bells.ok_or_else(|| SetupError::Step {
            step: "starting the reactors",
            source: std::io::Error::other("a reactor's thread ended before it was ready"),
        })
    }

    /// Lets all of them go.
    fn go(mut self) -> Vec<ReactorThread> {
        for go in &self.go {
            let _ = go.send(());
        }
        std::mem::take(&mut self.threads)
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        self.go.clear();
        for thread in self.threads.drain(..) {
            // What it had to tell, it has told.
            let _ = thread.join();
        }
    }
}

/// Makes a reactor's handler. The panic hook has said where it panicked; here it is said what follows.
fn make_handler<H>(reactor: usize, make: impl FnOnce() -> H) -> Result<H, SetupError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let cause = text.unwrap_or_else(|| "no message".to_owned()).replace('\n', " ");
        SetupError::Handler { reactor, cause }
    })
}

/// A reactor that ends, however it ends, lets the others drain: a runtime is whole or over.
struct EndsAll {
    control: Arc<Control>,
    admission: Arc<Admission>,
}

impl Drop for EndsAll {
    fn drop(&mut self) {
        self.control.order_drain();
        self.admission.ring_all();
    }
}

/// Probes on a thread that ends with it. The kernel takes a ring apart some time after its close and signals
/// the thread that had made it: the caller's blocking calls would fail with EINTR.
fn probe_aside() -> Result<Features, SetupError> {
    let thread = std::thread::Builder::new().name("slipring-probe".to_owned());
    let thread = thread.spawn(probe);
    let thread = thread.map_err(|source| SetupError::Step { step: "starting a thread", source })?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn pin(core: core_affinity::CoreId) -> Result<(), SetupError> {
    if core_affinity::set_for_current(core) {
        return Ok(());
    }
    Err(SetupError::Core { core: core.id, allowed: "other cores only".to_owned() })
}

/// Stops a runtime from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    control: Arc<Control>,
    bells: Arc<[Bell]>,
}

impl Handle {
    fn ring(&self, reactor: usize) {
        if let Some(bell) = self.bells.get(reactor) {
            bell.wake();
        }
    }

    fn ring_all(&self) {
        self.bells.iter().for_each(Wake::wake);
    }

    /// Stops accepting, lets connections finish, aborts what is left at the drain deadline.
    pub fn drain(&self) {
        self.control.order_drain();
        self.ring_all();
    }

    /// Drains without patience: everything is aborted now.
    pub fn abort(&self) {
        self.control.order_abort();
        self.ring_all();
    }

    /// The counters of each reactor, as of its last report; asks for new ones.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.ring_all();
        self.control.reports()
    }
}

/// A runtime that runs. Dropping it lets the reactors run on; use [`Handle::drain`] and [`Running::join`].
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    addresses: Vec<SocketAddr>,
    threads: Vec<ReactorThread>,
    features: Features,
    memory_bound: u64,
    max_connections: u32,
}

impl Running {
    /// Where it listens, in the order of the `listen` calls.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the kernel can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// What its own structures may come to, bytes.
    #[must_use]
    pub fn memory_bound(&self) -> u64 {
        self.memory_bound
    }

    /// Accepted connections it holds at most.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// Reactors.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.threads.len()
    }

    /// Stops it from anywhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until a drain is complete: what each reactor counted.
    ///
    /// # Errors
    /// [`RunError`] when a reactor failed; the others have been drained then.
    pub fn join(self) -> Result<Vec<Counters>, RunError> {
        let mut result = Ok(());
        for (reactor, thread) in self.threads.into_iter().enumerate() {
            let ended = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(failed)) => RunError::Driver { reactor, failed },
                Err(_) => RunError::Panicked { reactor },
            };
            result = result.and(Err(ended));
        }
        result.map(|()| self.handle.control.reports())
    }
}

/// A reactor ended otherwise than by a drain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its ring failed.
    #[error("reactor {reactor} stopped: {failed}")]
    Driver {
        /// Its number.
        reactor: usize,
        /// What failed.
        failed: DriverFailed,
    },
    /// It panicked outside of a handler: a bug of slipring.
    #[error("reactor {reactor} panicked; this is a bug of slipring, please report it")]
    Panicked {
        /// Its number.
        reactor: usize,
    },
}
