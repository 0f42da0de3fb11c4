//! Reactors onto their cores: the kernel probed, addresses claimed, rings made on their threads. Only when all
//! have said that they are ready does any of them run.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;

use super::watch::{LOOK_US, Watch};
use super::{Running, Team};
use crate::admission::Admission;
use crate::clock::MonotonicClock;
use crate::config::{Limits, Poll};
use crate::control::Control;
use crate::driver::{DriverFailed, Wake};
use crate::error::SetupError;
use crate::handler::Handler;
use crate::listen::{Listen, Placement};
use crate::reactor::{Reactor, Setup};
use crate::sys::{Bell, Features, Listening, Ring, RingConfig, ThreadClock, probe, probe_table};

/// Those of the cores this process may use that are wanted, or all.
pub(super) fn find_cores(wanted: Option<&[usize]>) -> Result<Vec<CoreId>, SetupError> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let Some(wanted) = wanted else {
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

/// What is needed of a builder to start.
#[derive(Debug)]
pub(super) struct Threads<'a> {
    pub(super) listen: &'a [(SocketAddr, Listen)],
    pub(super) limits: Limits,
    pub(super) poll: Poll,
    /// Places of each ring's own table; zero: they have none.
    pub(super) places: u32,
}

impl Threads<'_> {
    /// One reactor for each core. What has been begun is undone if anything fails.
    pub(super) fn start<H: Handler + 'static>(
        &self,
        cores: &[CoreId],
        team: &Team,
        memory_bound: u64,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Result<Running, SetupError> {
        let features = probe_aside(self.places > 0)?;
        let (listeners, addresses) = self.open_listeners(cores)?;
        let (watched, clock) = (self.poll != Poll::Off, MonotonicClock::start());
        let (limits, places) = (self.limits, self.places);
        let ring = RingConfig { limits, features, watched, clock, places };
        let make = Arc::new(make);
        let mut starts = Starts::new();
        for (number, (core, listeners)) in cores.iter().zip(listeners).enumerate() {
            let setup = team.setup(number, Vec::new());
            let make = Arc::clone(&make);
            starts.spawn(*core, ring, listeners, setup, move || make(number))?;
        }
        let reach = starts.ready()?;
        let clocks = reach.iter().map(|(_, _, clock)| *clock).collect();
        let (bells, rings): (Vec<_>, Vec<_>) =
            reach.into_iter().map(|(bell, ring, _)| (bell, ring)).unzip();
        let bells = bells.into_iter().map(|bell| Arc::new(bell) as Arc<dyn Wake>);
        let handle = team.handle(bells);
        let watch = start_watch(team.watch(), clock, clocks)?;
        let threads = starts.go(&rings.into());
        let max_connections = self.limits.accepted_max;
        Ok(Running { handle, addresses, threads, watch, features, memory_bound, max_connections })
    }

    /// One list of listeners for each reactor, and the addresses they got.
    fn open_listeners(
        &self,
        cores: &[CoreId],
    ) -> Result<(Vec<Vec<Listening>>, Vec<SocketAddr>), SetupError> {
        let mut all: Vec<Vec<Listening>> = cores.iter().map(|_| Vec::new()).collect();
        let cpus: Vec<usize> = cores.iter().map(|core| core.id).collect();
        let mut addresses = Vec::new();
        for (asked, how) in self.listen {
            let asked = *asked;
            // Sharing a port with another process would silently give it half of the clients.
            Listening::claim(asked)?;
            let mut address = asked;
            for listeners in &mut all {
                let listening = Listening::open(address, self.limits.backlog, cores.len() > 1)?;
                address = listening.address();
                listeners.push(listening);
            }
            // The kernel numbers them in the order in which they came.
            if how.placement == Some(Placement::Cpu) && cpus.len() > 1 {
                all.iter()
                    .filter_map(|listeners| listeners.last())
                    .take(1)
                    .try_for_each(|first| first.steer_by_cpu(&cpus))?;
            }
            addresses.push(address);
        }
        Ok((all, addresses))
    }
}

/// How a reactor is reached and watched from outside: its bell, its ring a second time, its thread's clock.
type Reach = (Bell, OwnedFd, ThreadClock);

pub(super) type ReactorThread = JoinHandle<Result<(), DriverFailed>>;

/// Reactors on their way: each tells that it is ready, or why not; then all are told to go. If this value
/// ends before that, all of them have gone home and closed what they held.
struct Starts {
    /// `None` once all have been started.
    tell: Option<mpsc::Sender<(usize, Result<Reach, SetupError>)>>,
    told: mpsc::Receiver<(usize, Result<Reach, SetupError>)>,
    go: Vec<mpsc::Sender<Arc<[OwnedFd]>>>,
    threads: Vec<ReactorThread>,
}

impl Starts {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        Self { tell: Some(tell), told, go: Vec::new(), threads: Vec::new() }
    }

    fn spawn<H: Handler + 'static>(
        &mut self,
        core: CoreId,
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
            let ready =
                ready.and_then(|ring| Ok((ring.reach()?, ring, make_handler(number, make)?)));
            // Nobody listens any more once another reactor has failed.
            let say = |told| tell.map(|tell| tell.send((number, told)));
            let (reach, mut ring, handler) = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    let _ = say(Err(error));
                    return Ok(());
                }
            };
            let _ = say(Ok(reach));
            let Ok(others) = wait.recv() else { return Ok(()) };
            ring.connect(others);
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
    fn ready(&mut self) -> Result<Vec<Reach>, SetupError> {
        let mut reach: Vec<Option<Reach>> = self.go.iter().map(|_| None).collect();
        self.tell = None;
        for (number, told) in &self.told {
            reach[number] = Some(told?);
        }
        let reach: Option<Vec<Reach>> = reach.into_iter().collect();
        reach.ok_or_else(|| SetupError::Step {
            step: "starting the reactors",
            source: std::io::Error::other("a reactor's thread ended before it was ready"),
        })
    }

    /// Lets all of them go, each with the rings of all.
    fn go(mut self, rings: &Arc<[OwnedFd]>) -> Vec<ReactorThread> {
        for go in &self.go {
            let _ = go.send(Arc::clone(rings));
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
fn probe_aside(tables: bool) -> Result<Features, SetupError> {
    let thread = std::thread::Builder::new().name("slipring-probe".to_owned());
    let probe = move || {
        let features = probe()?;
        if tables {
            probe_table(features)?;
        }
        Ok(features)
    };
    let thread = thread.spawn(probe);
    let thread = thread.map_err(|source| SetupError::Step { step: "starting a thread", source })?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Looks whether the reactors turn, as long as there is one.
fn start_watch(
    mut watch: Watch,
    clock: MonotonicClock,
    threads: Vec<ThreadClock>,
) -> Result<JoinHandle<()>, SetupError> {
    let run = move || {
        while !watch.is_over() {
            let now_us = clock.now_us();
            for (reactor, thread) in threads.iter().enumerate() {
                watch.note_busy(reactor, now_us, thread.ran_us());
            }
            for stall in watch.look(now_us) {
                tracing::warn!("{stall}");
            }
            std::thread::park_timeout(Duration::from_micros(LOOK_US));
        }
    };
    let thread = std::thread::Builder::new().name("slipring-watch".to_owned()).spawn(run);
    thread.map_err(|source| SetupError::Step { step: "starting a thread", source })
}

fn pin(core: CoreId) -> Result<(), SetupError> {
    if core_affinity::set_for_current(core) {
        return Ok(());
    }
    Err(SetupError::Core { core: core.id, allowed: "other cores only".to_owned() })
}
