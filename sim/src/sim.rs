//! A test of somebody's handler under the simulated kernel: reactors, peers that follow scripts,
//! virtual time.
//!
//! Is: what users of the crate write tests with. [`Sim`] here, its conditions in `sim/builder.rs`,
//! its end in `sim/ending.rs`, many seeds in `sim/seeds.rs`, what a failure says in
//! `sim/failure.rs`, `sim/holdings.rs` and `sim/story.rs`, the handler under observation in
//! `sim/watched.rs`; peers are in `peer.rs`. Is not: who moves next, which is the engine's.
//!
//! Why nothing of the engine shows: what a test may rely on is what a handler and a peer see, and
//! those are the same as in production.

mod builder;
mod ending;
mod failure;
mod holdings;
mod seeds;
pub(crate) mod story;
mod watched;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use slipring_core::{Counters, Handle, Handler};

pub use builder::SimBuilder;
pub use failure::Failure;
pub use seeds::{check, explore};

use crate::dice::Dice;
use crate::engine::{Engine, Plan};
use crate::kernel::FileId;
use crate::knobs::Knobs;
use crate::peer::{Cast, Client, End, PeerId, Script, Service, SharedCast};
use story::SharedStory;
use watched::Watched;

/// Lines of the story in a failure.
const STORY_LINES: usize = 40;
/// Things that happen in one run at most: a run that needs more never ends.
const STEPS_MAX: u64 = 50_000_000;

/// A handler under simulation: reactors that run it, a kernel and a network that are simulated,
/// peers that follow scripts.
///
/// The seed decides everything that chance does: the same seed, the same run, on any machine. Time
/// is virtual: an hour of silence takes no time.
///
/// What must hold always is looked at all the while: the rules between the reactors and their
/// kernel, the reactors' own books, no panic in a handler, no script that cannot be met.
/// [`finish`](Self::finish) ends everything in order and sees that nothing is left behind: no
/// connection, no buffer. A simulation that is dropped without it has looked for no leak.
///
/// ```
/// use slipring_core::{Ctx, Handler, Lease};
/// use slipring_sim::{Script, Sim};
///
/// struct Shout;
/// impl Handler for Shout {
///     type State = ();
///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
///         ctx.send(data.to_ascii_uppercase());
///     }
/// }
///
/// let mut sim = Sim::new(42, |_reactor| Shout);
/// let peer = sim.connect(Script::new().send(b"hello").expect(b"HELLO").shutdown().expect_end());
/// sim.run();
/// assert_eq!(sim.received(peer), b"HELLO");
/// sim.finish();
/// ```
pub struct Sim<H: Handler> {
    engine: Engine<Watched<H>>,
    plan: Plan,
    cast: SharedCast,
    story: SharedStory,
    services: BTreeMap<SocketAddr, FileId>,
    dice: Dice,
    patience_us: u64,
    tolerates_lingering: bool,
    failure: Option<Failure>,
}

impl<H: Handler> Sim<H> {
    /// One reactor with one listener; faults drawn from the seed. Others: [`SimBuilder`].
    pub fn new(seed: u64, make: impl FnMut(usize) -> H) -> Self {
        SimBuilder::new(seed).start(make)
    }

    fn of(
        engine: Engine<Watched<H>>,
        plan: Plan,
        story: SharedStory,
        builder: &SimBuilder,
    ) -> Self {
        let cast = Cast::new(&story);
        let dice = Dice::new(plan.seed ^ 0x7065_6572);
        let patience_us = u64::try_from(builder.patience.as_micros()).unwrap_or(u64::MAX / 4);
        let services = BTreeMap::new();
        let tolerates_lingering = builder.tolerates_lingering;
        Self {
            engine,
            plan,
            cast,
            story,
            services,
            dice,
            patience_us,
            tolerates_lingering,
            failure: None,
        }
    }

    // --------------------------------------------------------------------------------------- peers

    /// A peer that connects to the first listener now, and follows the script.
    ///
    /// # Panics
    /// If there is no listener.
    #[track_caller]
    pub fn connect(&mut self, script: Script) -> PeerId {
        self.connect_to(0, script)
    }

    /// The same, to the listener of this number.
    ///
    /// # Panics
    /// If there is none of that number.
    #[track_caller]
    pub fn connect_to(&mut self, listener: usize, script: Script) -> PeerId {
        let to = self.address(listener);
        let id = self.cast.borrow_mut().add_client(to, script);
        // Those that come at the same time come in any order.
        let in_us = self.dice.between(1, 20);
        let client = Client::new(&self.cast, id);
        self.engine.add_actor(in_us, |_, _| Box::new(client));
        self.cast.borrow_mut().shared.progress_us = self.engine.now_us();
        id
    }

    /// A service at an address, for handlers that dial it: `make` gives the script for each that
    /// connects, by its number from zero on. A dial to any other address is refused.
    ///
    /// Which of several clients is the first here, the seed chooses; a service that has to answer whoever
    /// asks does so with [`Script::answer_to_end`]. One that is added before time goes on is in time for
    /// what handlers dial in [`on_start`](Handler::on_start).
    ///
    /// ```
    /// use slipring::Relay;
    /// use slipring_sim::{Script, Sim};
    ///
    /// let upstream = ([198, 51, 100, 1], 80).into();
    /// let mut sim = Sim::new(3, |reactor| Relay::new([upstream], reactor));
    /// sim.serve(upstream, |_| {
    ///     Script::new().answer_to_end(|unread| Some((1, vec![unread[0].to_ascii_uppercase()])))
    /// });
    /// sim.connect(Script::new().send(b"one").expect(b"ONE").shutdown().expect_end());
    /// sim.connect(Script::new().send(b"two").expect(b"TWO").shutdown().expect_end());
    /// sim.finish();
    /// ```
    ///
    /// # Panics
    /// If somebody listens there already.
    #[track_caller]
    pub fn serve(&mut self, at: SocketAddr, make: impl FnMut(usize) -> Script + 'static) {
        let taken = self.plan.listen.contains(&at) || self.services.contains_key(&at);
        assert!(!taken, "somebody listens at {at} already");
        let mut listener = None;
        let cast = &self.cast;
        self.engine.add_actor(1, |kernel, me| {
            let service = Service::new(kernel, me, cast, at, Box::new(make));
            listener = Some(service.listener());
            Box::new(service)
        });
        self.services.extend(listener.map(|listener| (at, listener)));
    }

    /// Whoever served at that address listens no more: dials to it are refused, and those that
    /// nobody has accepted are reset. Who is connected stays so. Without effect if nobody does.
    pub fn refuse(&mut self, at: SocketAddr) {
        if let Some(listener) = self.services.remove(&at) {
            self.engine.kernel.borrow_mut().stop_listening(listener);
        }
    }

    /// Where the listener of this number is.
    ///
    /// # Panics
    /// If there is none of that number.
    #[must_use]
    #[track_caller]
    pub fn address(&self, listener: usize) -> SocketAddr {
        let listen = &self.plan.listen;
        assert!(listener < listen.len(), "listener {listener} of {}", listen.len());
        listen[listener]
    }

    /// The peers that were dialed at that address, in the order in which they came.
    #[must_use]
    pub fn served(&self, at: SocketAddr) -> Vec<PeerId> {
        self.cast.borrow().served(at).to_vec()
    }

    /// All bytes that a peer has read so far.
    ///
    /// # Panics
    /// As all that asks about a peer: if it is one of another simulation.
    #[must_use]
    pub fn received(&self, peer: PeerId) -> Vec<u8> {
        self.cast.borrow().received(peer)
    }

    /// How a peer's connection ended; `None` as long as it has not. A peer that does not read does
    /// not notice.
    #[must_use]
    pub fn end_of(&self, peer: PeerId) -> Option<End> {
        self.cast.borrow().end_of(peer).map(|(end, _)| end)
    }

    /// When a peer's connection ended, in virtual time.
    #[must_use]
    pub fn ended_at(&self, peer: PeerId) -> Option<Duration> {
        self.cast.borrow().end_of(peer).map(|(_, at_us)| Duration::from_micros(at_us))
    }

    /// Whether a peer has done all steps of its script.
    #[must_use]
    pub fn is_through(&self, peer: PeerId) -> bool {
        self.cast.borrow().is_peer_through(peer)
    }

    // -------------------------------------------------------------------------------------- access

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.engine.now_us())
    }

    /// The handler of a reactor. What is changed in it takes effect when it is called next.
    ///
    /// # Panics
    /// If there is no such reactor.
    #[track_caller]
    pub fn handler(&mut self, reactor: usize) -> &mut H {
        let found = self.engine.reactors().nth(reactor);
        &mut found.unwrap_or_else(|| panic!("there is no reactor {reactor}")).handler().handler
    }

    /// What a reactor has counted.
    ///
    /// # Panics
    /// If there is no such reactor.
    #[must_use]
    #[track_caller]
    pub fn counters(&self, reactor: usize) -> Counters {
        let found = self.engine.counters().nth(reactor);
        *found.unwrap_or_else(|| panic!("there is no reactor {reactor}"))
    }

    /// Connections that are open, accepted and dialed, of all reactors; those that are closing are.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.engine.counters().map(Counters::open).sum()
    }

    /// A number for all that has happened: it is the same for two runs of a seed, and hardly so if
    /// they differ anywhere.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.engine.kernel.borrow().trace.hash()
    }

    /// The faults that chance may make here.
    #[must_use]
    pub fn knobs(&self) -> Knobs {
        self.plan.knobs
    }

    /// The reactors as the rest of a program reaches them: for handlers that order a drain, or read counters.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.engine.handle.clone()
    }

    // ----------------------------------------------------------------------------------------- run

    /// Orders a drain, as a signal would: it begins when time goes on.
    pub fn drain(&mut self) {
        self.engine.order_drain();
    }

    /// Lets time pass until all scripts are through, those of services with them; not for
    /// services that [answer to the end](Script::answer_to_end) and have nothing to answer.
    ///
    /// # Panics
    /// With a [`Failure`], if something must not be; that includes scripts that get no further for
    /// as long as [`SimBuilder::patience`] says.
    #[track_caller]
    pub fn run(&mut self) {
        if let Err(failure) = self.try_run() {
            panic!("{failure}");
        }
    }

    /// [`run`](Self::run), with the failure as a value.
    ///
    /// # Errors
    /// [`Failure`]: the first one, and the same one from then on.
    pub fn try_run(&mut self) -> Result<(), Failure> {
        self.try_scripts(Cast::is_at_rest)
    }

    fn try_scripts(&mut self, done: fn(&Cast) -> bool) -> Result<(), Failure> {
        let held = self.go_on_until(|sim| done(&sim.cast.borrow()))?;
        let Err(why) = held else { return Ok(()) };
        let waiting = self.cast.borrow().waiting();
        let holdings = self.holdings();
        self.fail(format!("{why}:\n  {waiting}\n  {holdings}"))
    }

    /// Lets time pass until something holds: it is asked after each thing that happens.
    ///
    /// ```
    /// # use slipring_core::{Ctx, Handler, Lease};
    /// # use slipring_sim::{Script, Sim};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) { ctx.send(data); }
    /// # }
    /// let mut sim = Sim::new(5, |_| Echo);
    /// sim.connect(Script::new());
    /// sim.run_until(|sim| sim.open_connections() == 1);
    /// ```
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_until(&mut self, done: impl FnMut(&mut Self) -> bool) {
        let outcome = self.go_on_until(done).and_then(|held| match held {
            Ok(()) => Ok(()),
            Err(why) => {
                let holdings = self.holdings();
                self.fail(format!("what was waited for does not come: {why}\n  {holdings}"))
            }
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    }

    /// Lets so much time pass, whatever happens in it.
    ///
    /// # Panics
    /// As [`run`](Self::run), but not for want of progress.
    #[track_caller]
    pub fn run_for(&mut self, span: Duration) {
        if let Err(failure) = self.try_run_for(span) {
            panic!("{failure}");
        }
    }

    /// [`run_for`](Self::run_for), with the failure as a value.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn try_run_for(&mut self, span: Duration) -> Result<(), Failure> {
        let span_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX / 4);
        let until_us = self.engine.now_us().saturating_add(span_us);
        while self.step(until_us)? {}
        self.engine.kernel.borrow_mut().pass_to(until_us);
        Ok(())
    }

    /// Lets time pass until something holds, or says why it never will.
    fn go_on_until(
        &mut self,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<Result<(), String>, Failure> {
        self.look_for_failure()?;
        let from_us = self.engine.now_us();
        for _ in 0..STEPS_MAX {
            if done(self) {
                return Ok(Ok(()));
            }
            let progress_us = self.cast.borrow().shared.progress_us.max(from_us);
            if !self.step(progress_us.saturating_add(self.patience_us))? {
                let waited = Duration::from_micros(self.patience_us);
                return Ok(Err(format!("no script gets any further within {waited:?}")));
            }
        }
        Ok(Err(format!("no end after {STEPS_MAX} events")))
    }

    /// The next thing that happens by that time; whether there was one.
    fn step(&mut self, until_us: u64) -> Result<bool, Failure> {
        let engine = &mut self.engine;
        let more = match catch_unwind(AssertUnwindSafe(|| engine.step(until_us))) {
            Ok(more) => more,
            Err(panic) => {
                self.engine.fail(format!("a panic outside of handlers: {}", text_of(&*panic)));
                false
            }
        };
        self.look_for_failure()?;
        Ok(more)
    }

    fn look_for_failure(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let of_peers = self.cast.borrow_mut().shared.failure.take();
        if let Some(what) = of_peers {
            self.engine.fail(what);
        }
        let Some(what) = self.engine.failure() else { return Ok(()) };
        let panicked = what == "a panic that no handler meant";
        let what = match self.story.borrow().panic() {
            Some(panic) if panicked => panic.to_owned(),
            _ => what.to_owned(),
        };
        self.fail(what)
    }

    fn fail<T>(&mut self, what: String) -> Result<T, Failure> {
        self.engine.fail(what.clone());
        let story = self.story.borrow().last(STORY_LINES);
        let (at, turned) = (self.now(), self.plan.knobs.settings().collect());
        let failure = Failure { seed: self.plan.seed, what, at, turned, story };
        Err(self.failure.get_or_insert(failure).clone())
    }
}

impl<H: Handler> std::fmt::Debug for Sim<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.plan.seed)
            .field("now", &self.now())
            .field("open_connections", &self.open_connections())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

/// What a panic said.
fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
