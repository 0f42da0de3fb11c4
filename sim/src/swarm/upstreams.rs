//! Runs of an upstream: pools, retries, breakers and their limits, on reactors that dial servers which die, dawdle and
//! come back.
//!
//! ```text
//!   requesters (tasks) --> Upstream, Pool --> reactors --> simulated kernel --> servers (actors)
//!          |                     |                              |                   |
//!          +---------------------+------- Ledger, checks -------+-------------------+
//!
//!   chaos --> all is well: who waits is answered --> probes --> nothing under way --> dropped: nothing left --> drain
//! ```
//!
//! | looked at | must hold |
//! |---|---|
//! | connections, after each step | no more than the caps allow: of the upstream, each pool, dials; the kernel counts |
//! | the breaker, after each step | stands as calls came to: `standing.rs` has what that is |
//! | who waits | is one of no more than may; is served, refused or timed out in its time |
//! | a connection | serves one request at a time; is not given out once its reactor knows that it is of no use |
//! | a request | reads its own answer; comes to a server once, or as often as attempts may be made |
//! | repeats | are no more than the budget allows, by what is seen, what is counted, and by dials |
//! | while nothing is well | an idempotent call is served as long as one endpoint is: `promise.rs` has the conditions |
//! | when all is well | every reactor's calls are served |
//! | when nobody asks | as much is kept idle as is to be, and nothing that has ended |
//! | at rest | nothing is in flight or pending; caps and connections agree |
//! | behind the upstream's end | no connection, no task is left; a drain completes |
//!
//! `upstreams/terms.rs` is what is drawn, `upstreams/requester.rs` who asks, `upstreams/server.rs` who answers,
//! `upstreams/ledger.rs` what they write down; `upstreams/checks.rs`, `spending.rs`, `standing.rs` what is made of it.

mod checks;
mod ledger;
mod promise;
mod requester;
mod server;
mod spending;
mod standing;
mod terms;

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use slipring::pool::{Plain, Pool};
use slipring::upstream::Upstream;
use slipring::{Conn, Spawner, Tasks};

use super::{Options, Outcome, panics};
use crate::dice::Dice;
use crate::engine::Engine;
use crate::kernel::Kernel;
use crate::knobs::Knobs;
use crate::marks::Marks;
use crate::trace::{self, Record, What};

use ledger::Ledger;
use requester::World;
use server::Server;
use spending::Spent;
use standing::Watch;
use terms::Terms;

/// After the chaos, whoever asks has had an answer within this time, microseconds.
const ANSWERED_US: u64 = 120_000_000;
/// For so long nobody asks before the probes: what is open or left alone is so no more.
const RECOVERY_US: u64 = 12_000_000;
/// In such a time nothing is left of what is dropped.
const PARTING_US: u64 = 8_000_000;
/// How much longer than it may a drain takes at most.
const DRAIN_SLACK_US: u64 = 5_000_000;
/// Steps of a run at most.
const STEPS_MAX: u64 = 5_000_000;

/// Nobody connects to the reactors.
async fn nobody(_: Conn) {}

type Service = Tasks<fn(Conn) -> std::pin::Pin<Box<dyn Future<Output = ()>>>>;

fn service() -> Service {
    slipring::tasks(|conn| Box::pin(nobody(conn)))
}

/// Runs one seed.
pub(super) fn run(seed: u64, options: &Options) -> Outcome {
    run_with(seed, options, &Ledger::default())
}

fn run_with(seed: u64, options: &Options, ledger: &Ledger) -> Outcome {
    let mut terms = Terms::new(seed, options.knobs, &options.off);
    terms.plan.keep_records = options.records;
    let kernel = RefCell::new(None);
    panics::begin(seed);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let run = Run::new(&terms, ledger);
        *kernel.borrow_mut() = Some(Rc::clone(&run.engine.kernel));
        run.go(options.events)
    }));
    let captured = panics::end();
    let (failure, completions) = match (result, captured) {
        (Ok((Some(failure), completions)), Some(panic)) => {
            (Some(format!("{failure}; the first panic: {panic}")), completions)
        }
        (Ok(result), _) => result,
        (Err(_), Some(panic)) => (Some(format!("panic: {panic}")), 0),
        (Err(panic), None) => (Some(format!("panic: {}", panics::text_of(panic.as_ref()))), 0),
    };
    let mut outcome = Outcome {
        seed,
        failure,
        hash: 0,
        events: 0,
        completions,
        marks: Marks::default(),
        knobs: terms.plan.knobs,
        plan: Vec::new(),
        story: Vec::new(),
    };
    if options.records {
        outcome.plan = terms.describe();
        let came_to = ledger.open().came_to.clone();
        outcome.plan.extend(came_to.into_iter().map(|(what, times)| format!("{what}: {times}")));
    }
    tell(&mut outcome, kernel.into_inner());
    outcome
}

fn tell(outcome: &mut Outcome, kernel: Option<Rc<RefCell<Kernel>>>) {
    let Some(Ok(kernel)) = kernel.as_ref().map(|kernel| kernel.try_borrow()) else { return };
    outcome.hash = kernel.trace.hash();
    outcome.events = kernel.trace.events();
    outcome.marks = kernel.marks.clone();
    let records: Vec<Record> = kernel.trace.records().copied().collect();
    if !records.is_empty() {
        let failure = outcome.failure.as_deref().unwrap_or_default();
        outcome.story = trace::tell(&records, &[], failure);
    }
}

struct Run<'a> {
    terms: &'a Terms,
    engine: Engine<Service>,
    ledger: Ledger,
    /// One for each reactor.
    spawners: Vec<Spawner>,
    upstream: Option<Upstream>,
    pool: Option<Pool<Plain>>,
    watch: Watch,
    spent: Option<Spent>,
    dice: Dice,
    steps: u64,
}

impl<'a> Run<'a> {
    fn new(terms: &'a Terms, ledger: &Ledger) -> Self {
        let mut spawners = Vec::new();
        let mut engine = Engine::new(&terms.plan, |_, _| {
            let service = service();
            spawners.push(service.spawner());
            service
        });
        // How many there will be is known at the end.
        engine.panics_meant.set(u64::MAX);
        engine.kernel.borrow_mut().ends = Some(Vec::new());
        let mut dice = Dice::new(terms.plan.seed ^ 0x7365_7276);
        for endpoint in terms.endpoints.iter().chain([&terms.alone]) {
            let dice = dice.fork();
            engine.add_actor(1, |kernel, me| {
                Box::new(Server::new(kernel, me, *endpoint, ledger, dice))
            });
        }
        let mut builder =
            Upstream::builder("simulated").limits(terms.limits.clone()).seed(dice.word());
        for (at, _) in &terms.endpoints {
            builder = builder.endpoint(*at);
        }
        let upstream = builder.build().unwrap_or_else(|error| panic!("{error}"));
        let pool = Pool::with_seed(terms.alone.0, Plain, terms.pool, dice.word());
        let pool = pool.unwrap_or_else(|error| panic!("{error}"));
        Self {
            terms,
            engine,
            ledger: ledger.clone(),
            spawners,
            upstream: Some(upstream),
            pool: Some(pool),
            watch: Watch::default(),
            spent: None,
            dice,
            steps: 0,
        }
    }

    /// Starts one on a reactor.
    fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        reactor: usize,
        make: impl FnOnce(World) -> F + Send + 'static,
    ) {
        let (Some(upstream), Some(pool)) = (self.upstream.clone(), self.pool.clone()) else {
            return;
        };
        let (ledger, terms) = (self.ledger.clone(), self.terms.clone());
        let world = World { ledger, upstream, pool, terms, reactor };
        self.ledger.open().requesters += 1;
        drop(self.spawners[reactor].spawn(move || make(world)));
    }

    /// The whole course; what went wrong, and the completions there were.
    fn go(mut self, events: u64) -> (Option<String>, u64) {
        let reactors = self.terms.plan.reactors;
        if self.dice.coin() {
            let upstream = self.upstream.as_ref().expect("it is there from the beginning");
            self.spawners.iter().for_each(|spawner| upstream.start(spawner));
        }
        for number in 0..self.terms.requesters as usize {
            let dice = self.dice.fork();
            let starts_us = self.dice.log_between(1, self.terms.chaos_us);
            self.spawn(number % reactors, move |world| requester::go(world, dice, starts_us));
        }
        self.chaos(events);
        self.heal();
        let drains = self.terms.drains_us.is_some();
        if !drains {
            self.wait_for_requesters();
            self.check_no_permit_is_out();
            self.run_for(RECOVERY_US);
            self.note_spent();
            self.check_idle();
            // One after the other: that a few may ask at a time is no fault.
            for reactor in 0..reactors {
                self.spawn(reactor, requester::probe);
                self.wait_for_requesters();
            }
            self.run_for(3_000_000);
            let open = self.open();
            (0..reactors).for_each(|reactor| self.spawn(reactor, requester::tell));
            self.wait_for_requesters();
            self.check_rest(open);
            (self.upstream, self.pool) = (None, None);
            self.run_for(PARTING_US);
            self.check_parted();
        }
        self.drain();
        self.check_budget();
        if self.engine.failure().is_none() {
            let meant = self.ledger.open().panics;
            self.engine.panics_meant.set(meant);
            self.engine.check_end();
        }
        let completions = self.engine.counters().map(|c| c.completions).sum();
        (self.engine.failure().map(ToOwned::to_owned), completions)
    }

    fn chaos(&mut self, events: u64) {
        let ends_us = self.terms.chaos_us;
        let events = events.max(1) * 20;
        let mut pool_drains_us = self.terms.pool_drains_us;
        while self.step(ends_us) {
            let (now_us, count) = {
                let kernel = self.engine.kernel.borrow();
                (kernel.now_us, kernel.trace.events())
            };
            let drains = self.terms.drains_us.is_some_and(|at_us| now_us >= at_us);
            if count >= events || drains || self.ledger.open().requesters == 0 {
                break;
            }
            if pool_drains_us.take_if(|at_us| now_us >= *at_us).is_some()
                && let Some(pool) = &self.pool
            {
                pool.drain();
            }
        }
        if self.terms.drains_us.is_some() {
            self.engine.order_drain();
        }
    }

    /// No more faults, and servers that behave.
    fn heal(&mut self) {
        self.engine.kernel.borrow_mut().knobs = Knobs::calm();
        self.ledger.open().is_healed = true;
        self.engine.nudge_actors();
    }

    fn wait_for_requesters(&mut self) {
        let until_us = self.engine.now_us() + ANSWERED_US;
        while self.ledger.open().requesters > 0 && self.step(until_us) {}
        let left = self.ledger.open().requesters;
        if left > 0 {
            self.engine.fail(format!("{left} requesters never came to an end"));
        }
    }

    fn run_for(&mut self, span_us: u64) {
        let until_us = self.engine.now_us() + span_us;
        while self.step(until_us) {}
        if self.engine.failure().is_none() {
            self.engine.kernel.borrow_mut().pass_to(until_us);
        }
    }

    fn drain(&mut self) {
        if self.engine.failure().is_some() {
            return;
        }
        self.engine.order_drain();
        let drain_us = u64::from(self.terms.plan.drain_ms) * 1_000;
        let until_us = self.engine.now_us() + drain_us + DRAIN_SLACK_US;
        while !self.engine.is_over() && self.step(until_us) {}
        if !self.engine.is_over() {
            return self.engine.fail("the drain did not end by its deadline");
        }
        self.note_spent();
        (self.upstream, self.pool) = (None, None);
        // What is under way to servers arrives.
        let until_us = self.engine.now_us() + 10_000_000;
        while self.step(until_us) {}
        let left = self.ledger.open().requesters;
        if left > 0 {
            self.engine.fail(format!("{left} requesters are left behind the drain"));
        }
    }

    /// The next thing that happens by then, and what must hold after it.
    fn step(&mut self, until_us: u64) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.engine.fail(format!("no end after {STEPS_MAX} steps"));
        }
        let goes_on = self.engine.step(until_us);
        self.note_ends();
        self.check_step();
        goes_on && self.engine.failure().is_none()
    }

    fn note_ends(&mut self) {
        let mut kernel = self.engine.kernel.borrow_mut();
        let now_us = kernel.now_us;
        let Some(ends) = kernel.ends.as_mut().filter(|ends| !ends.is_empty()) else { return };
        let ends = std::mem::take(ends);
        for at in ends {
            kernel.note(What::Said, u64::from(at.port()), 0);
            self.ledger.open().note_unfit(at, now_us);
        }
    }
}
