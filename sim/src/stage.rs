//! One reactor and one handler over a scripted driver: what a test of a handler starts from.

use std::net::SocketAddr;
use std::sync::Arc;

use slipring_core::admission::Admission;
use slipring_core::control::Control;
use slipring_core::driver::{Abilities, Wait};
use slipring_core::front::Front;
use slipring_core::pace::Pace;
use slipring_core::reactor::Reactor;
use slipring_core::token::{Descriptor, Op};
use slipring_core::{Counters, Fault, Handler, Limits, Listen, OnFull, Poll, Rate, Team, Timeouts};

use crate::scripted::{Scripted, Submitted};

/// Turns in which anything comes to rest, or spins.
const TURNS_MAX: usize = 10_000;

/// What a reactor is staged with.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Sizes. Smaller ones than a runtime's by default, so that little memory is mapped.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// What it does before it sleeps.
    pub poll: Poll,
    /// What its driver can do: nothing beyond the least by default.
    pub abilities: Abilities,
    /// How many listeners it has.
    pub listeners: usize,
    /// Accepted connections that each of them may hold; as many as the process by default.
    pub listener_max: Option<u32>,
    /// What each of them does when it is full.
    pub on_full: OnFull,
    /// How often its process lets clients in; as often as they come by default.
    pub accept_rate: Option<Rate>,
    /// How often each of its listeners does, beside that.
    pub listener_rate: Option<Rate>,
    /// How long a drain may take, milliseconds.
    pub drain_ms: u32,
    /// For how long of that it goes on accepting, milliseconds.
    pub not_ready_ms: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        let limits = Limits {
            accepted_max: 64,
            dialed_max: 16,
            buffers: 16,
            buffer_bytes: 4096,
            submissions: 256,
            backlog: 16,
            ..Limits::default()
        };
        Self {
            limits,
            timeouts: Timeouts::default(),
            poll: Poll::Off,
            abilities: Abilities::default(),
            listeners: 1,
            listener_max: None,
            on_full: OnFull::Backlog,
            accept_rate: None,
            listener_rate: None,
            drain_ms: 30_000,
            not_ready_ms: 0,
        }
    }
}

/// A reactor on a stage: the test plays the kernel and all peers.
///
/// The methods of this type let the kernel be a healthy one: they turn the reactor until it would sleep, and
/// complete sends, closes and the like meanwhile. For any other kernel use [`Stage::driver`], which
/// completes only what it is told to, and [`Stage::turn`].
///
/// ```
/// use slipring_core::{Ctx, Handler, Lease};
/// use slipring_sim::Stage;
///
/// /// The service under test: it shouts back.
/// struct Shout;
///
/// impl Handler for Shout {
///     type State = ();
///
///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
///         ctx.send(data.to_ascii_uppercase());
///     }
/// }
///
/// let mut stage = Stage::new(Shout);
/// let client = stage.accept();
/// stage.receive(client, b"hello");
/// assert_eq!(stage.sent(client), b"HELLO");
/// stage.end_of_stream(client);
/// assert!(stage.driver().is_closed(client));
/// ```
#[derive(Debug)]
pub struct Stage<H: Handler> {
    reactor: Reactor<Scripted, H>,
    listeners: Vec<Descriptor>,
    control: Arc<Control>,
    admission: Arc<Admission>,
    front: Arc<Front>,
}

impl<H: Handler> Stage<H> {
    /// A reactor that has started and waits for clients.
    pub fn new(handler: H) -> Self {
        Self::with(handler, &Conditions::default())
    }

    /// The same under conditions of the test's choice.
    pub fn with(handler: H, conditions: &Conditions) -> Self {
        let Conditions { limits, timeouts, poll, abilities, listeners, drain_ms, .. } = *conditions;
        let mut how = Listen::new().on_full(conditions.on_full);
        how.max_connections = conditions.listener_max;
        let mut driver = Scripted::new(&limits, abilities);
        let listeners: Vec<_> = (0..listeners).map(|_| driver.descriptor()).collect();
        let how = vec![how; listeners.len()];
        let pace = Pace::new(conditions.accept_rate, how.iter().map(|_| conditions.listener_rate));
        let team = Team::new((1, &how), limits, timeouts, poll, drain_ms)
            .with_pace(pace)
            .with_not_ready(conditions.not_ready_ms);
        let (control, admission) = (Arc::clone(team.control()), Arc::clone(team.admission()));
        let front = Arc::clone(team.front());
        let reactor = Reactor::new(driver, handler, team.setup(0, listeners.clone()));
        let mut stage = Self { reactor, listeners, control, admission, front };
        stage.reactor.start();
        stage.turn();
        stage
    }

    /// The driver.
    pub fn driver(&mut self) -> &mut Scripted {
        self.reactor.driver()
    }

    /// The reactor.
    pub fn reactor(&mut self) -> &mut Reactor<Scripted, H> {
        &mut self.reactor
    }

    /// The handler.
    pub fn handler(&mut self) -> &mut H {
        self.reactor.handler()
    }

    /// What the reactor has counted.
    pub fn counters(&self) -> Counters {
        *self.reactor.counters()
    }

    /// The process's cap, which the reactor shares.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// What others see of the reactor.
    #[must_use]
    pub fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// The first listener.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn listener(&self) -> Descriptor {
        self.listeners[0]
    }

    /// One pass of the reactor; how long its `enter` was allowed to wait.
    ///
    /// # Panics
    /// If the driver fails, which it does only when told to.
    #[track_caller]
    pub fn turn(&mut self) -> Wait {
        self.reactor.driver().take_waits();
        self.reactor.turn().expect("the driver does not fail");
        let planned = self.reactor.plan_wait();
        if planned.sleep_us != Some(0) {
            // What the test lets pass before the next turn, it sleeps.
            let _ = self.reactor.fall_asleep(planned);
        }
        // The first is the turn's own; others make room in the queue.
        self.reactor.driver().take_waits()[0]
    }

    /// Turns until the reactor would sleep with all it wants in flight. Nothing but what the test has completed,
    /// completes.
    ///
    /// # Panics
    /// If it does not come to rest.
    #[track_caller]
    pub fn rest(&mut self) {
        // A turn that slept may have found work that did not come from the driver: the next one tells.
        let mut slept = 0;
        for _ in 0..TURNS_MAX {
            let rests = self.turn().sleep_us != Some(0) && !self.driver().has_queued();
            slept = if rests { slept + 1 } else { 0 };
            if slept == 2 {
                return;
            }
        }
        panic!("the reactor spins");
    }

    /// Turns until the reactor would sleep, with a kernel that completes at once what a healthy one does.
    ///
    /// # Panics
    /// If it does not come to rest.
    #[track_caller]
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.rest();
            if self.driver().oblige() == 0 {
                return;
            }
        }
        panic!("the reactor does not come to rest");
    }

    /// Lets time pass as the reactor would see it: it sleeps as long as it planned to, and is woken by its
    /// own deadlines only.
    ///
    /// # Panics
    /// If it does not come to rest in between.
    #[track_caller]
    pub fn pass_ms(&mut self, ms: u64) {
        let mut left_us = ms * 1000;
        for _ in 0..TURNS_MAX {
            self.settle();
            if left_us == 0 {
                return;
            }
            let planned = self.turn().sleep_us.unwrap_or(u64::MAX);
            let slept_us = planned.min(left_us);
            self.driver().advance_us(slept_us);
            left_us -= slept_us;
        }
        panic!("the reactor woke {TURNS_MAX} times in {ms} ms");
    }

    /// A client connects to the first listener.
    ///
    /// # Panics
    /// If the reactor accepts nobody.
    #[track_caller]
    pub fn accept(&mut self) -> Descriptor {
        self.settle();
        let listener = self.listener();
        let client = self.driver().accept(listener);
        self.settle();
        client
    }

    /// The peer sends.
    ///
    /// # Panics
    /// If the connection does not read, or there are fewer buffers than it takes.
    #[track_caller]
    pub fn receive(&mut self, descriptor: Descriptor, bytes: &[u8]) {
        let buffer_bytes = self.driver_memory_buffer_bytes();
        for part in bytes.chunks(buffer_bytes) {
            self.driver().receive(descriptor, part);
            self.settle();
        }
    }

    fn driver_memory_buffer_bytes(&mut self) -> usize {
        use slipring_core::driver::Driver as _;
        self.driver().memory().buffer_bytes() as usize
    }

    /// The peer's FIN.
    ///
    /// # Panics
    /// If the connection does not read.
    #[track_caller]
    pub fn end_of_stream(&mut self, descriptor: Descriptor) {
        let receive = self.driver().expect(Op::Receive, descriptor);
        self.driver().complete(receive, Ok(0));
        self.settle();
    }

    /// The peer resets the connection.
    ///
    /// # Panics
    /// If the connection does not read.
    #[track_caller]
    pub fn reset(&mut self, descriptor: Descriptor) {
        let receive = self.driver().expect(Op::Receive, descriptor);
        self.driver().complete(receive, Err(Fault::Reset));
        self.settle();
    }

    /// What the peer has got since the last call.
    pub fn sent(&mut self, descriptor: Descriptor) -> Vec<u8> {
        self.driver().take_sent(descriptor)
    }

    /// The dials under way: socket and address of each, oldest first.
    pub fn dials(&mut self) -> Vec<(Descriptor, SocketAddr)> {
        let dial = |submitted: &Submitted| match *submitted {
            Submitted::Connect { descriptor, address } => Some((descriptor, address)),
            _ => None,
        };
        self.driver().in_flight().filter_map(|operation| dial(&operation.submitted)).collect()
    }

    /// The outcome of a dial.
    ///
    /// # Panics
    /// If none is under way on the descriptor.
    #[track_caller]
    pub fn answer_dial(&mut self, descriptor: Descriptor, outcome: Result<(), Fault>) {
        let connect = self.driver().expect(Op::Connect, descriptor);
        self.driver().complete(connect, outcome.map(|()| 0));
        self.settle();
    }

    /// Orders a drain, as a signal would.
    pub fn drain(&mut self) {
        self.control.order_drain();
        self.driver().ring();
    }

    /// Orders an end at once.
    pub fn abort(&mut self) {
        self.control.order_abort();
        self.driver().ring();
    }

    /// Whether the reactor has ended: a drain was ordered and nothing is left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.reactor.is_drained()
    }
}
