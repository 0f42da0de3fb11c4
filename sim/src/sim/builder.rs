//! The conditions of a simulation: sizes, deadlines and faults, given or drawn from the seed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slipring_core::driver::Abilities;
use slipring_core::{Handler, Limits, Listen, Placement, Poll, Rate, SourceLimits, Timeouts};

use super::Sim;
use super::story::SharedStory;
use super::watched::Watched;
use crate::dice::Dice;
use crate::engine::{Engine, Plan};
use crate::knobs::Knobs;
use crate::ring::SimRingSetup;

/// Knobs that a run leaves at rest unless it is told otherwise: what they do, a peer sees, as the
/// end of a connection or as a dial that fails, and a script could not tell it from a fault of the
/// handler.
const AT_REST: &[&str] = &[
    "failed_accept",
    "failed_dial",
    "failed_socket",
    "lost_dial",
    "panics",
    "peer_pauses_ms",
    "peer_resets",
    "silent_reset",
    "stalled_reactor",
];

/// Conditions of a [`Sim`], for a test that wants others than [`Sim::new`] has.
///
/// | what | default |
/// |---|---|
/// | reactors, listeners | one, one |
/// | connections | 256 accepted, 64 dialed, a backlog of 64 |
/// | outboxes | as in a runtime |
/// | buffers, their size, what a turn may take | small, drawn from the seed; fixed if no knob is turned |
/// | timeouts | a runtime's |
/// | polling | off |
/// | placement | a runtime's |
/// | idle connections are moved | no |
/// | faults | drawn from the seed, each off half of the time; none that ends a connection or denies a dial |
/// | time for a drain | 30 s |
/// | patience | 10 min of virtual time |
/// | panics, connections that go on without their peers | failures |
///
/// ```
/// use std::time::Duration;
/// use slipring_core::{Ctx, Handler, Lease, Timeout, Timeouts};
/// use slipring_sim::{Knobs, Script, SimBuilder};
///
/// struct Echo;
/// impl Handler for Echo {
///     type State = ();
///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
///         ctx.send(data);
///     }
/// }
///
/// let timeouts = Timeouts { idle: Timeout::seconds(5), ..Timeouts::default() };
/// let mut sim = SimBuilder::new(1)
///     .reactors(2)
///     .timeouts(timeouts)
///     .faults(Knobs::calm())
///     .start(|_reactor| Echo);
/// sim.connect(Script::new().send(b"hello").expect(b"hello").expect_end());
/// sim.run();
/// assert_eq!(sim.now().as_secs(), 5);
/// ```
#[derive(Clone, Debug)]
pub struct SimBuilder {
    seed: u64,
    knobs: Knobs,
    reactors: usize,
    listeners: usize,
    listen_as: Vec<Listen>,
    limits: Option<Limits>,
    timeouts: Timeouts,
    poll: Poll,
    placement: Placement,
    rebalance: bool,
    per_source: SourceLimits,
    accept_rate: Option<Rate>,
    drain: Duration,
    pub(super) patience: Duration,
    tolerates_panics: bool,
    pub(super) tolerates_lingering: bool,
}

impl SimBuilder {
    /// The default conditions, with what is drawn drawn from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut knobs = Knobs::draw(&mut Dice::new(seed ^ 0x6b6e_6f62));
        for name in AT_REST {
            let known = knobs.put_to_rest(name);
            debug_assert!(known, "no knob is called {name}");
        }
        Self {
            seed,
            knobs,
            reactors: 1,
            listeners: 1,
            listen_as: Vec::new(),
            limits: None,
            timeouts: Timeouts::default(),
            poll: Poll::Off,
            placement: Placement::default(),
            rebalance: false,
            per_source: SourceLimits::default(),
            accept_rate: None,
            drain: Duration::from_secs(30),
            patience: Duration::from_secs(600),
            tolerates_panics: false,
            tolerates_lingering: false,
        }
    }

    /// How many connections, and how often, clients of one source may have.
    #[must_use]
    pub fn per_source(mut self, limits: SourceLimits) -> Self {
        self.per_source = limits;
        self
    }

    /// How often clients are let in, over all reactors and listeners. That no more come in is looked at all the
    /// while.
    #[must_use]
    pub fn accept_rate(mut self, rate: Rate) -> Self {
        self.accept_rate = Some(rate);
        self
    }

    /// Which reactor a client goes to.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Moves idle connections to reactors that have clearly fewer, as a runtime's `rebalance` does.
    pub fn rebalance(mut self, rebalance: bool) -> Self {
        self.rebalance = rebalance;
        self
    }

    /// How many reactors there are. All serve every listener; which of them a client meets is
    /// drawn.
    #[must_use]
    pub fn reactors(mut self, count: usize) -> Self {
        self.reactors = count;
        self
    }

    /// How many listeners there are: [`Origin::Accepted`](slipring_core::Origin::Accepted) tells
    /// them apart.
    #[must_use]
    pub fn listeners(mut self, count: usize) -> Self {
        self.listeners = count;
        self
    }

    /// How the first listeners take their clients in, in the order of their numbers; the others by default.
    #[must_use]
    pub fn listen_as(mut self, how: impl IntoIterator<Item = Listen>) -> Self {
        self.listen_as = how.into_iter().collect();
        self
    }

    /// Sizes: nothing of them is drawn then. A runtime's defaults map 16 MiB of buffers for each
    /// reactor.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Deadlines, in virtual time.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// What a reactor does before it sleeps.
    #[must_use]
    pub fn poll(mut self, poll: Poll) -> Self {
        self.poll = poll;
        self
    }

    /// How long a drain may take before what is left is aborted, in virtual time; whole
    /// milliseconds.
    #[must_use]
    pub fn drain_time(mut self, span: Duration) -> Self {
        self.drain = span;
        self
    }

    /// These faults instead of drawn ones: [`Knobs::calm`] for none.
    #[must_use]
    pub fn faults(mut self, knobs: Knobs) -> Self {
        self.knobs = knobs;
        self
    }

    /// Turns single knobs, and leaves the others as they are.
    ///
    /// ```
    /// # use slipring_sim::SimBuilder;
    /// // Three dials in ten fail; everything else as the seed has it.
    /// let builder = SimBuilder::new(3).turn(|knobs| knobs.failed_dial = 300);
    /// ```
    #[must_use]
    pub fn turn(mut self, turn: impl FnOnce(&mut Knobs)) -> Self {
        turn(&mut self.knobs);
        self
    }

    /// How long a run may go on without any script getting further, in virtual time, until it
    /// fails.
    #[must_use]
    pub fn patience(mut self, span: Duration) -> Self {
        self.patience = span;
        self
    }

    /// Takes panics of the handler as a runtime does: each ends its connection, with a reset, and
    /// nothing else. By default they fail the run.
    #[must_use]
    pub fn tolerate_panics(mut self) -> Self {
        self.tolerates_panics = true;
        self
    }

    /// Lets connections go on after their peers have ended their streams, until the drain that ends the
    /// simulation: for handlers that go on sending then, or wait for a timeout. By default a connection that
    /// is open five seconds later fails [`Sim::finish`].
    #[must_use]
    pub fn tolerate_lingering(mut self) -> Self {
        self.tolerates_lingering = true;
        self
    }

    /// A simulation whose reactors have started. `make` gets the number of each.
    ///
    /// # Panics
    /// If a runtime would refuse to start so: without a reactor, with nothing to listen on and no dialed
    /// connections, with sizes that do not fit together ([`Builder::team`](slipring_core::Builder::team)).
    #[track_caller]
    pub fn start<H: Handler>(self, mut make: impl FnMut(usize) -> H) -> Sim<H> {
        let plan = self.plan();
        let story = SharedStory::default();
        let engine = Engine::new(&plan, |reactor, meant| {
            let tolerated = self.tolerates_panics.then(|| Rc::clone(meant));
            Watched::new(make(reactor), reactor, &story, tolerated)
        });
        story.borrow_mut().set_kernel(&engine.kernel);
        let whole = self.knobs.segment_bytes >= Knobs::calm().segment_bytes;
        engine.kernel.borrow_mut().whole_segments = whole;
        Sim::of(engine, plan, story, &self)
    }

    fn plan(&self) -> Plan {
        let mut dice = Dice::new(self.seed ^ 0x7369_7a65);
        let calm = self.knobs == Knobs::calm();
        let limits = match self.limits {
            Some(limits) => limits,
            None if calm => fixed_limits(),
            None => draw_limits(&mut dice),
        };
        let drawn = |value: u32, dice: &mut Dice| if calm { 0 } else { dice.below(value) };
        let abilities = Abilities {
            receive_cap: drawn(2, &mut dice) == 1,
            zero_copy: drawn(2, &mut dice) == 1,
        };
        let few_completions = drawn(2, &mut dice) == 1;
        let ring = SimRingSetup {
            buffers: limits.buffers,
            buffer_bytes: limits.buffer_bytes,
            owned_bytes_max: limits.owned_bytes_max,
            submissions: limits.submissions,
            completions: match few_completions {
                true => dice.log_between(8, 64) as u32,
                false => limits.completions(),
            },
            abilities,
            buffers_from: drawn(1 << 16, &mut dice) as u16,
            places: self.knobs.table_places,
        };
        Plan {
            seed: self.seed,
            knobs: self.knobs,
            reactors: self.reactors,
            listen: (0..self.listeners).map(address_of).collect(),
            listen_as: self.listen_as.clone(),
            limits,
            timeouts: self.timeouts,
            poll: self.poll,
            placement: self.placement,
            rebalance: self.rebalance,
            per_source: self.per_source,
            accept_rate: self.accept_rate,
            drain_ms: u32::try_from(self.drain.as_millis()).unwrap_or(u32::MAX),
            not_ready_ms: 0,
            ring,
            first_generation: 0,
            keep_records: true,
        }
    }
}

/// Where the listener of this number is.
pub(super) fn address_of(listener: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 10], 7000 + listener as u16))
}

fn fixed_limits() -> Limits {
    Limits {
        accepted_max: 256,
        dialed_max: 64,
        buffers: 64,
        buffer_bytes: 4096,
        submissions: 256,
        backlog: 64,
        ..Limits::default()
    }
}

/// Small sizes, so that their bounds are met; none that a handler can tell from larger ones, but by
/// how its bytes are cut.
fn draw_limits(dice: &mut Dice) -> Limits {
    Limits {
        buffers: 1 << dice.between(4, 6),
        buffer_bytes: dice.log_between(64, 4096) as u32,
        submissions: 1 << dice.between(6, 8),
        outbox_pieces_high: dice.log_between(2, 32) as u32,
        turn_bytes_max: dice.log_between(64, 32_768) as u32,
        turn_receives_max: dice.log_between(1, 16) as u32,
        zero_copy_min_bytes: match dice.coin() {
            true => Some(dice.log_between(1, 4096) as u32),
            false => None,
        },
        ..fixed_limits()
    }
}
