//! Runs of a seed: conditions, peers and faults drawn from it, and what must have held in the end.
//!
//! ```text
//!  seed --> plan (sizes, timeouts, knobs, service) --> safety: anything may fail, nothing may break
//!                                                         |  after so many events
//!                                                         v
//!                                   end <-- drain <-- liveness: the faults are off, all must come right
//! ```
//!
//! What must hold always is looked at after every turn, by the engine, the kernel's rules and the reactor's
//! audit; deadlines in `swarm/deadlines.rs`. What must hold for the bytes is compared by the peers, who know what they
//! should read (`Book`).

mod book;
mod deadlines;
mod panics;
mod pattern;
mod plan;
mod relayed;
mod services;
mod states;
mod talker;
mod tasks;
mod upstreams;
mod words;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use slipring::Relay;
use slipring_core::{CloseReason, Handler, OnFull, Timeout};

use crate::dice::Dice;
use crate::engine::Engine;
use crate::kernel::Kernel;
use crate::knobs::Knobs;
use crate::marks::Marks;
use crate::trace::{self, Record};

use book::{Book, Fate};
pub use panics::capture_panics;
use plan::{Draw, Service as Kind};
use relayed::Relayed;
use services::{Busy, Echo, Observed};
use talker::{Expect, Service};
use tasks::{Outside, World};

/// Virtual microseconds after which a run that is well again has to have come to its end: every client may
/// have to wait for a place that another keeps until its idle deadline.
const CALM_US: u64 = 6_000_000_000;
/// Steps after which it is not waited for any more.
const CALM_STEPS_MAX: u32 = 300_000;
/// Virtual microseconds a probe may take.
const PROBE_US: u64 = 8_000_000;

/// How a seed is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Events after which the faults end.
    pub events: u64,
    /// Instead of those drawn: what a seed had turned when it was written down. Drawing changes with the
    /// code, and these stay.
    pub knobs: Option<Knobs>,
    /// Knobs put to rest, by name.
    pub off: Vec<String>,
    /// Whether the services are tasks, and not the handlers that the seed draws.
    pub tasks: bool,
    /// Whether it is a run of upstreams, whatever else is asked for.
    pub upstreams: bool,
    /// Whether to keep records of what happened, for [`Outcome::story`].
    pub records: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            events: 5_000,
            knobs: None,
            off: Vec::new(),
            tasks: false,
            upstreams: false,
            records: false,
        }
    }
}

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if anything did. It names the peer or the slot it is about, if it is about one.
    pub failure: Option<String>,
    /// A hash over all that happened.
    pub hash: u64,
    /// How much happened.
    pub events: u64,
    /// Completions the reactors took.
    pub completions: u64,
    /// Rare events that were met.
    pub marks: Marks,
    /// The knobs it ran with.
    pub knobs: Knobs,
    /// The conditions drawn for it in words, if records were kept.
    pub plan: Vec<String>,
    /// The last of what happened to whom the failure names, a line each, if records were kept.
    pub story: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    if options.upstreams {
        return upstreams::run(seed, options);
    }
    let mut draw = Draw::new(seed, options.tasks);
    let mut knobs = options.knobs.unwrap_or(draw.plan.knobs);
    for name in &options.off {
        knobs.put_to_rest(name);
    }
    draw.turn(knobs);
    draw.plan.keep_records = options.records;
    let seen = Seen::default();
    panics::begin(seed);
    let result = catch_unwind(AssertUnwindSafe(|| match draw.service {
        Kind::Echo => {
            let run = Run::new(&draw, &seen, |reactor, book, _| Observed {
                handler: Echo,
                reactor,
                book: Rc::clone(book),
            });
            run.go(options)
        }
        Kind::Relay => {
            let upstreams = draw.upstreams.clone();
            let run = Run::new(&draw, &seen, |reactor, book, _| {
                let handler = Relay::new(upstreams.clone(), reactor);
                Observed { handler, reactor, book: Rc::clone(book) }
            });
            run.go(options)
        }
        Kind::Relayed => {
            let mut dice = Dice::new(seed ^ 0x7265_6c61);
            let calm_from = Duration::from_micros(draw.arrive_within_us);
            let run = Run::new(&draw, &seen, |reactor, book, _| {
                let upstreams = draw.upstreams.clone();
                let relayed = Relayed::new(reactor, upstreams, dice.fork(), calm_from);
                let serve = move |client| Rc::clone(&relayed).serve(client);
                Observed { handler: slipring::tasks(serve), reactor, book: Rc::clone(book) }
            });
            run.go(options)
        }
        Kind::Busy => {
            let mut dice = Dice::new(seed ^ 0x6275_7379);
            let upstreams = draw.upstreams.clone();
            let panics = draw.plan.knobs.panics;
            let run = Run::new(&draw, &seen, |number, book, meant| {
                states::begin(seed, draw.plan.knobs.failed_states, meant, book);
                let phases = draw.phases.then(|| dice.aside("phases"));
                Busy::new(number, book, dice.fork(), (panics, meant), upstreams.clone(), phases)
            });
            run.go(options)
        }
        Kind::Tasks => {
            let worlds = RefCell::new(Vec::new());
            let mut dice = Dice::new(seed ^ 0x7461_736b);
            let mut run = Run::new(&draw, &seen, |reactor, book, meant| {
                let world = World::new(tasks::Conditions {
                    reactor,
                    book,
                    dice: dice.fork(),
                    panics: draw.plan.knobs.panics,
                    meant,
                    upstreams: draw.upstreams.clone(),
                    outbox_bytes_max: draw.plan.limits.outbox_bytes_max,
                });
                worlds.borrow_mut().push(Rc::clone(&world));
                let of_tasks = Rc::clone(&world);
                let service = move |conn| tasks::serve(Rc::clone(&of_tasks), conn);
                tasks::Checked::new(slipring::tasks(service), &world)
            });
            run.outside = Some(Outside::new(worlds.take(), dice));
            run.go(options)
        }
    }));
    states::end();
    let captured = panics::end();
    let (failure, completions) = match (result, captured) {
        (Ok((Some(failure), completions)), Some(panic)) => {
            (Some(format!("{failure}; the first panic: {panic}")), completions)
        }
        (Ok(result), _) => result,
        (Err(_), Some(panic)) => (Some(format!("panic: {panic}")), 0),
        (Err(panic), None) => (Some(format!("panic: {}", panics::text_of(panic.as_ref()))), 0),
    };
    let mut outcome = seen.outcome(failure, completions, &draw);
    if options.records {
        outcome.plan = words::describe(&draw);
    }
    outcome
}

/// What can be seen of a run from outside, also after a panic.
#[derive(Default)]
struct Seen {
    kernel: RefCell<Option<Rc<RefCell<Kernel>>>>,
    book: Rc<RefCell<Book>>,
}

impl Seen {
    fn outcome(self, failure: Option<String>, completions: u64, draw: &Draw) -> Outcome {
        let mut outcome = Outcome {
            seed: draw.plan.seed,
            failure,
            hash: 0,
            events: 0,
            completions,
            marks: Marks::default(),
            knobs: draw.plan.knobs,
            plan: Vec::new(),
            story: Vec::new(),
        };
        // There is none if a reactor panicked when it was made.
        let kernel = self.kernel.into_inner();
        let Some(Ok(kernel)) = kernel.as_ref().map(|kernel| kernel.try_borrow()) else {
            return outcome;
        };
        outcome.hash = kernel.trace.hash();
        outcome.events = kernel.trace.events();
        outcome.marks = kernel.marks.clone();
        let records: Vec<Record> = kernel.trace.records().copied().collect();
        if !records.is_empty() {
            let peers = self.book.try_borrow().map_or_else(|_| Vec::new(), |book| book.peers());
            let failure = outcome.failure.as_deref().unwrap_or_default();
            outcome.story = trace::tell(&records, &peers, failure);
        }
        outcome
    }
}

struct Run<'a, H: Handler> {
    draw: &'a Draw,
    engine: Engine<H>,
    book: Rc<RefCell<Book>>,
    dice: Dice,
    /// What other threads do to tasks.
    outside: Option<Outside>,
}

impl<'a, H: Handler> Run<'a, H> {
    fn new(
        draw: &'a Draw,
        seen: &Seen,
        mut make: impl FnMut(usize, &Rc<RefCell<Book>>, &Rc<std::cell::Cell<u64>>) -> H,
    ) -> Self {
        let book = Rc::clone(&seen.book);
        book.borrow_mut().first_byte_ms = match draw.plan.timeouts.first_byte {
            Timeout::Never => None,
            Timeout::After(first_byte) => Some(first_byte.as_millis() as u64),
        };
        let engine = Engine::new(&draw.plan, |number, meant| make(number, &book, meant));
        *seen.kernel.borrow_mut() = Some(Rc::clone(&engine.kernel));
        engine.kernel.borrow_mut().descriptors_max = draw.descriptors_max;
        let dice = Dice::new(draw.plan.seed ^ 0x7065_6572);
        let mut run = Self { draw, engine, book, dice, outside: None };
        run.add_upstreams();
        run.add_clients();
        run
    }

    fn expect(&self) -> Expect {
        match self.draw.service {
            Kind::Echo => Expect::Own,
            Kind::Relay | Kind::Relayed => Expect::Another,
            Kind::Busy | Kind::Tasks => Expect::Given,
        }
    }

    fn add_upstreams(&mut self) {
        let expect = self.expect();
        let total_max = self.draw.total_max;
        for &at in &self.draw.served {
            let (book, dice) = (Rc::clone(&self.book), self.dice.fork());
            self.engine.add_actor(1, |kernel, me| {
                Box::new(Service::new(kernel, me, at, &book, dice, expect, total_max))
            });
        }
    }

    fn add_clients(&mut self) {
        let expect = self.expect();
        for _ in 0..self.draw.clients {
            let start_us = self.dice.log_between(1, self.draw.arrive_within_us);
            let place = self.dice.below(self.draw.plan.listen.len() as u32) as usize;
            let at = self.draw.plan.listen[place];
            let (book, dice) = (Rc::clone(&self.book), self.dice.fork());
            let total_max = self.draw.total_max;
            self.engine.add_actor(start_us, |_, _| {
                Box::new(talker::Late::new(at, &book, dice, expect, total_max, false))
            });
        }
    }

    /// The whole course; what went wrong, and the completions there were.
    fn go(mut self, options: &Options) -> (Option<String>, u64) {
        self.run_safety(options.events);
        self.heal();
        self.run_until_quiet();
        self.run_probes();
        self.drain();
        if self.engine.failure().is_none() {
            self.engine.check_end();
            self.check_streams();
        }
        self.engine.kernel.borrow_mut().marks.add(&self.book.borrow().marks);
        let words = self.book.borrow().words;
        self.engine.kernel.borrow_mut().note(trace::What::Said, words, 0);
        let completions = self.engine.counters().map(|c| c.completions).sum();
        (self.engine.failure().map(ToOwned::to_owned), completions)
    }

    fn complain(&mut self) {
        let complaint = self.book.borrow().complaints.first().cloned();
        if let Some(complaint) = complaint {
            self.engine.fail(complaint);
        }
    }

    fn run_safety(&mut self, events: u64) {
        let broken_at = self.draw.ring_fails_at;
        let drain_at = self.draw.drains_at;
        let mut steps = 0_u32;
        while self.step(self.draw.safety_us) {
            steps += 1;
            let count = self.engine.kernel.borrow().trace.events();
            if count >= events || self.engine.is_over() {
                break;
            }
            if broken_at.is_some_and(|at| count >= at) {
                self.engine.kernel.borrow_mut().fail_ring(0, "it was to fail");
            }
            if drain_at.is_some_and(|at| count >= at) {
                self.order_drain();
                break;
            }
            if steps.is_multiple_of(16) {
                self.complain();
                self.check_deadlines();
            }
        }
        self.complain();
    }

    fn order_drain(&mut self) {
        self.engine.order_drain();
        let deadline_us = self.engine.now_us() + u64::from(self.draw.plan.drain_ms) * 1000;
        if let Some(outside) = &self.outside
            && !self.draw.aborts
            && self.draw.ring_fails_at.is_none()
        {
            outside.drains(deadline_us);
        }
        if self.draw.aborts {
            self.engine.order_abort();
        }
    }

    /// No more faults, and peers that behave.
    fn heal(&mut self) {
        self.engine.kernel.borrow_mut().knobs = Knobs::calm();
        self.book.borrow_mut().healed = true;
        states::end();
        self.engine.kernel.borrow_mut().descriptors_max = usize::MAX;
        self.engine.nudge_actors();
    }

    /// Whether every peer has come to its end.
    fn is_quiet(&self) -> bool {
        self.book.borrow().talks.iter().all(|talk| talk.fate != Fate::Open)
    }

    fn run_until_quiet(&mut self) {
        let until_us = self.engine.now_us() + CALM_US;
        let mut steps = 0_u32;
        loop {
            if !self.step(until_us) {
                break;
            }
            steps += 1;
            if steps.is_multiple_of(64) {
                self.complain();
                let done = self.is_quiet() && self.nobody_is_open() && self.tasks_left() == 0;
                if done || self.engine.is_over() || steps > CALM_STEPS_MAX {
                    break;
                }
            }
        }
        self.complain();
        if self.is_quiet() && self.tasks_left() > 0 && !self.engine.is_over() {
            self.engine.fail(format!("{} tasks never came to an end", self.tasks_left()));
        }
        if !self.is_quiet() && self.engine.failure().is_none() && !self.engine.is_over() {
            let open: Vec<String> = {
                let book = self.book.borrow();
                let talks = book.talks.iter().enumerate();
                let open = talks.filter(|(_, talk)| talk.fate == Fate::Open).take(2);
                open.map(|(number, talk)| format!("peer {number} ({talk})")).collect()
            };
            self.engine.fail(format!("peers never came to an end: {}", open.join(", ")));
        }
    }

    fn tasks_left(&self) -> usize {
        self.outside.as_ref().map_or(0, Outside::alive)
    }

    fn nobody_is_open(&mut self) -> bool {
        self.engine.reactors().all(|reactor| reactor.connections().is_empty())
    }

    /// New clients are served in full, and soon.
    fn run_probes(&mut self) {
        let told = self.draw.drains_at.is_some() || self.draw.ring_fails_at.is_some();
        let busy = self.draw.service == Kind::Busy;
        // Two at once may be one too many for it.
        let refuses = self.draw.plan.listen_as[0].on_full == Some(OnFull::Reject);
        let relays_nowhere = self.draw.service.relays() && self.draw.served.is_empty();
        if self.engine.failure().is_some()
            || told
            || busy
            || relays_nowhere
            || refuses
            || self.engine.is_over()
        {
            return;
        }
        let expect = self.expect();
        let first = self.book.borrow().talks.len();
        for _ in 0..2 {
            let at = self.draw.plan.listen[0];
            let (book, dice) = (Rc::clone(&self.book), self.dice.fork());
            self.engine.add_actor(1, |_, _| {
                Box::new(talker::Late::new(at, &book, dice, expect, 3_000, true))
            });
        }
        let until_us = self.engine.now_us() + PROBE_US;
        while self.step(until_us) {
            let served = self.book.borrow().talks.len() > first + 1 && self.is_quiet();
            if served {
                break;
            }
        }
        self.complain();
        let probes: Vec<book::Talk> = self.book.borrow().talks[first..].to_vec();
        let unserved = probes.iter().position(|talk| talk.probe && talk.fate != Fate::Ended);
        if let Some(place) = unserved {
            let (number, talk) = (first + place, probes[place]);
            self.engine.fail(format!("a probe was not served: peer {number} ({talk})"));
        }
    }

    fn drain(&mut self) {
        if self.engine.failure().is_some() {
            return;
        }
        self.order_drain();
        let slack_us = 5_000_000;
        let until_us = self.engine.now_us() + u64::from(self.draw.plan.drain_ms) * 1000 + slack_us;
        while self.step(until_us) {
            if self.engine.is_over() {
                break;
            }
        }
        self.complain();
        if !self.engine.is_over() {
            self.engine.fail("the drain did not end by its deadline");
        }
        // What is under way to peers arrives.
        let until_us = self.engine.now_us() + 10_000_000;
        while self.step(until_us) {}
        self.complain();
    }

    /// A stream that ended in order is whole.
    fn check_streams(&mut self) {
        let book = self.book.borrow();
        let mut torn = None;
        for (id, talk) in book.talks.iter().enumerate() {
            if talk.fate != Fate::Ended {
                continue;
            }
            let whole = match self.draw.service {
                // What a drain or an idle timeout ends may be in the middle of its bytes.
                Kind::Echo => match talk.party.and_then(|party| book.reasons.get(&party)) {
                    Some(CloseReason::PeerClosed) => talk.sent,
                    _ => continue,
                },
                Kind::Relay | Kind::Relayed => {
                    // What a deadline or a drain ends, it ends for both, whatever is under way.
                    let other = talk.heard.map(|heard| book.talks[heard as usize]);
                    let in_order = |party: Option<trace::Party>| {
                        let reason = party.and_then(|party| book.reasons.get(&party));
                        matches!(reason, Some(CloseReason::PeerClosed | CloseReason::LocalClosed))
                    };
                    match other {
                        Some(other)
                            if other.fin && in_order(talk.party) && in_order(other.party) =>
                        {
                            other.sent
                        }
                        _ => continue,
                    }
                }
                Kind::Busy | Kind::Tasks => match talk.party {
                    Some(party) if book.uncertain.contains(&party) => continue,
                    party => {
                        let given = party.and_then(|party| book.given.get(&party));
                        given.map_or(0, |given| given.len() as u64)
                    }
                },
            };
            if talk.received != whole {
                let reason = talk.party.and_then(|party| book.reasons.get(&party));
                torn = Some(format!(
                    "peer {id} read a whole stream of {whole} bytes, but {} of them ({reason:?})",
                    talk.received
                ));
            }
        }
        drop(book);
        if let Some(torn) = torn {
            self.engine.fail(torn);
        }
    }
}
