//! Connections with faults on purpose: dials that are refused, clients that are reset, relays that are slow.
//!
//! ```no_run
//! use slipring::faults::Faults;
//! use slipring::{Conn, Dial, Serve};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rules = "connect upstream=db share=5% refuse; io upstream=db latency=20ms jitter=10ms";
//! let faults = Faults::new(rules.parse()?, 42)?;
//! let upstream = "127.0.0.1:5432".parse()?;
//! let builder = slipring::Runtime::builder().listen("127.0.0.1:6432".parse()?).max_dialed(1000);
//! let in_service = faults.clone();
//! let serving = builder.serve(move |client: Conn| {
//!     let faults = in_service.clone();
//!     async move {
//!         let Some(client) = faults.accepting(client, "front").await else { return };
//!         let Ok(server) = faults.dial(Dial::to(upstream), "db").await else { return };
//!         faults.relay(client, server, "front", "db").await;
//!     }
//! })?;
//! faults.set_rules("io stall".parse()?)?; // for those who come from now on
//! faults.turn_off(); // for those who come from now on, there are none
//! # serving.join()?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!   rules -+
//!   seed --+--> draw, for the number of each ---> Plan ---> resolving   a wait, a failure of the lookup
//!   switch +                                            --> accepting   a wait, a reset
//!                                                       --> dial        a wait, a refusal, silence
//!                                                       --> relay       faults/relaying.rs
//! ```
//!
//! Is: rules in force, which all reactors share, and the four places where they hold. Is not: what rules there are, who
//! has which and what they do to bytes; [`policy::faults`](crate::policy::faults) says so, with their table.
//!
//! *Whoever comes next* has what is in force then: what was drawn for a connection stays with it. What nothing happens
//! to goes the way it would go without: [`slipring::relay`](crate::relay), [`dial_with`].
//!
//! *A run repeats.* What is drawn depends on the seed, the rules and the number of the lookup, dial, client or relay,
//! each counted by itself, and on nothing else. Under simulation those numbers repeat too. On a runtime of several
//! reactors who has which number is a matter of luck.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slipring_core::{Dial, Fault, Timeout};

use crate::conn::{Conn, DialError, dial_timeout, dial_with};
use crate::failure::Resolve;
use crate::policy::faults::{AcceptEnd, ConnectEnd, Plan, ResolveEnd, Rules, RulesError};
use crate::tasks::sleep;

mod looking;
mod relaying;
mod way;

pub use looking::FaultySource;
pub use relaying::Relaying;

/// Where something is drawn.
#[derive(Clone, Copy, Debug)]
enum Place {
    Lookup,
    Dial,
    Client,
    Relay,
}

const PLACES: usize = 4;

/// Rules in force, for all reactors. A clone is the same.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    is_on: AtomicBool,
    /// How many there have been at each place.
    numbers: [AtomicU64; PLACES],
    in_force: Mutex<Arc<InForce>>,
}

#[derive(Debug)]
struct InForce {
    rules: Rules,
    /// How often each rule was applied.
    hits: Vec<AtomicU64>,
}

impl InForce {
    fn new(rules: Rules) -> Result<Arc<Self>, RulesError> {
        rules.check()?;
        let hits = rules.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Arc::new(Self { rules, hits }))
    }

    fn count(&self, rules: &[usize]) {
        for hits in rules.iter().filter_map(|rule| self.hits.get(*rule)) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Faults {
    /// These rules from now on, drawn from this seed.
    ///
    /// # Errors
    /// [`RulesError`], if one makes no sense.
    pub fn new(rules: Rules, seed: u64) -> Result<Self, RulesError> {
        let in_force = Mutex::new(InForce::new(rules)?);
        let numbers = Default::default();
        let is_on = AtomicBool::new(true);
        Ok(Self { shared: Arc::new(Shared { seed, is_on, numbers, in_force }) })
    }

    /// These rules for whoever comes from now on. Their hits are counted from zero.
    ///
    /// # Errors
    /// [`RulesError`], if one makes no sense: those before stay in force.
    pub fn set_rules(&self, rules: Rules) -> Result<(), RulesError> {
        let in_force = InForce::new(rules)?;
        *self.shared.in_force.lock().unwrap_or_else(PoisonError::into_inner) = in_force;
        Ok(())
    }

    /// The rules in force, whether they are on or off.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.in_force().rules.clone()
    }

    /// How often each rule was applied, in their order, since they came into force. One that would come behind the end
    /// of the same dial, client or lookup is not.
    #[must_use]
    pub fn hits(&self) -> Vec<u64> {
        self.in_force().hits.iter().map(|hits| hits.load(Ordering::Relaxed)).collect()
    }

    /// Nothing happens to whoever comes from now on.
    pub fn turn_off(&self) {
        self.shared.is_on.store(false, Ordering::Relaxed);
    }

    /// The rules hold again. They do from the beginning.
    pub fn turn_on(&self) {
        self.shared.is_on.store(true, Ordering::Relaxed);
    }

    /// Whether the rules hold.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.is_on.load(Ordering::Relaxed)
    }

    fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.shared.in_force.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What happens to the next one at this place. Whoever comes while they are off has a number too.
    fn draw(
        &self,
        place: Place,
        listener: Option<&str>,
        upstream: Option<&str>,
    ) -> Option<(Plan, Arc<InForce>)> {
        let number = self.shared.numbers[place as usize].fetch_add(1, Ordering::Relaxed);
        if !self.is_on() {
            return None;
        }
        let in_force = self.in_force();
        let mut rng = rng_of(self.shared.seed, place, number);
        Some((Plan::draw(&in_force.rules, listener, upstream, &mut rng), in_force))
    }

    // --------------------------------------------------------------------------------- the places

    /// What happens to the lookup of an upstream's name; `None`: nothing.
    #[must_use]
    pub fn resolving(&self, upstream: &str) -> Option<Resolving> {
        let (plan, in_force) = self.draw(Place::Lookup, None, Some(upstream))?;
        if plan.resolve.is_nothing() {
            return None;
        }
        in_force.count(&plan.resolve.rules);
        let delay = plan.resolve.delay;
        Some(match plan.resolve.end {
            None => Resolving { delay, failure: None },
            Some(ResolveEnd::NotFound) => Resolving { delay, failure: Some(Resolve::NotFound) },
            Some(ResolveEnd::Timeout(span)) => {
                Resolving { delay: delay.saturating_add(span), failure: Some(Resolve::Timeout) }
            }
        })
    }

    /// Dials as [`dial_with`] does, with what happens to dials. A delay counts for the dial's timeout.
    ///
    /// A dial to nowhere holds no place of [`Builder::max_dialed`](crate::Builder::max_dialed), as a real one would.
    ///
    /// # Errors
    /// [`DialError`], as a real dial gives it: refused is [`Fault::Refused`], silence is [`DialError::Timeout`], or
    /// [`Fault::TimedOut`] if the kernel would have given up before.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn dial(&self, dial: Dial, upstream: &str) -> Result<Conn, DialError> {
        let Some((plan, in_force)) = self.draw(Place::Dial, None, Some(upstream)) else {
            return dial_with(dial).await;
        };
        if plan.connect.is_nothing() {
            return dial_with(dial).await;
        }
        in_force.count(&plan.connect.rules);
        let delay = plan.connect.delay;
        let within = match dial.timeout.unwrap_or_else(dial_timeout) {
            Timeout::After(within) => within,
            Timeout::Never => Duration::MAX,
        };
        if delay >= within {
            sleep(within).await;
            return Err(DialError::Timeout);
        }
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let left = within - delay;
        match plan.connect.end {
            None if within == Duration::MAX => dial_with(dial).await,
            None => dial_with(dial.within(Timeout::After(left))).await,
            Some(ConnectEnd::Refused) => Err(DialError::Failed(Fault::Refused)),
            Some(ConnectEnd::Blackhole(span)) if span < left => {
                sleep(span).await;
                Err(DialError::Failed(Fault::TimedOut))
            }
            Some(ConnectEnd::Blackhole(_)) => {
                sleep(left).await;
                Err(DialError::Timeout)
            }
        }
    }

    /// What happens to a client that this listener has accepted; `None`: it was reset.
    ///
    /// `fail` is what clients see of a server that accepts only to close, for want of descriptors or memory. It is not
    /// what they see of one that leaves them in the kernel's queue meanwhile: nothing here keeps others from being
    /// accepted, and the runtime's own counters of failed accepts know nothing of it. Nor can `delay` put off the
    /// handshake: it is the kernel's, and done by now, so the client may send.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn accepting(&self, mut client: Conn, listener: &str) -> Option<Conn> {
        let Some((plan, in_force)) = self.draw(Place::Client, Some(listener), None) else {
            return Some(client);
        };
        in_force.count(&plan.accept.rules);
        if !plan.accept.delay.is_zero() {
            sleep(plan.accept.delay).await;
        }
        match plan.accept.end {
            None => Some(client),
            Some(AcceptEnd::Failed) => {
                client.abort();
                None
            }
        }
    }

    /// Relays as [`slipring::relay`](crate::relay) does, and is just that where nothing happens to the bytes: see
    /// [`Relaying`] for where something does. What happens is drawn here, and begins with the first poll.
    ///
    /// # Panics
    /// When it is polled: outside of a reactor's tasks, and if the two are of different reactors.
    pub fn relay(&self, client: Conn, server: Conn, listener: &str, upstream: &str) -> Relaying {
        match self.draw(Place::Relay, Some(listener), Some(upstream)) {
            Some((plan, in_force)) if !plan.io_rules.is_empty() => {
                in_force.count(&plan.io_rules);
                Relaying::with(client, server, plan)
            }
            _ => Relaying::plain(client, server),
        }
    }
}

/// What happens to a lookup: see [`Faults::resolving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolving {
    /// It takes so much longer.
    pub delay: Duration,
    /// And fails; `None`: it goes on.
    pub failure: Option<Resolve>,
}

impl Resolving {
    /// Waits as long as that takes.
    ///
    /// # Errors
    /// The failure.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn pass(self) -> Result<(), Resolve> {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        self.failure.map_or(Ok(()), Err)
    }
}

/// Random numbers for one, which are those of no other.
fn rng_of(seed: u64, place: Place, number: u64) -> fastrand::Rng {
    let mut rng = fastrand::Rng::with_seed(seed ^ ((place as u64) << 62));
    let mixed = rng.u64(..) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut rng = fastrand::Rng::with_seed(mixed);
    // Seeds that are alike give first numbers that are.
    rng.fork()
}
