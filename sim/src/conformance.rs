//! Two-arm conformance: the same small scripts against the simulated kernel and against the real one.
//!
//! ```text
//!              +-- Simulated: calm, and so many seeds ---> the outcomes it allows (a set)
//!   script ----+                                                   ^
//!              +-- Real: the kernel of this machine -----> one outcome, which has to be in it
//! ```
//!
//! Is: the check that the simulation, in which everything else is tested, is a simulation of this kernel. A
//! script speaks to an [`Arm`] and says in words what it saw; `selftest` runs them where the runtime is to
//! run. Is not: a test of the runtime, nor of the kernel: what both do here, both may do.
//!
//! A script never judges. What it says is compared whole, so it says only what matters: amounts where they are
//! certain, an order where somebody leans on it. `script` is what they are written with; then one file for
//! each topic.

mod arm;
mod real;
mod script;
mod simulated;

mod accepting;
mod buffers;
mod cancelling;
mod dialing;
mod direct;
mod ending;
mod exiting;
mod messages;
mod naming;
mod polling;
mod queues;
mod receiving;
mod sending;
mod zero_copy;

use std::collections::BTreeSet;

use slipring_core::sys::{Features, probe_table};

pub use arm::{Arm, Dialed, Ending, Open, Peer, Seen, Time};
pub use script::Script;

use crate::dice::Dice;
use crate::knobs::Knobs;
use real::Real;
use simulated::Simulated;

/// What a script saw, a line each.
pub type Outcome = Vec<String>;

/// What a kernel must have for a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing beyond the least.
    Least,
    /// Receives that end by themselves after so many bytes.
    ReceiveCap,
    /// Tables of rings that let go of what is closed while others receive.
    PromptTables,
    /// Clients of a listener that closes are not handed on (`net.ipv4.tcp_migrate_req` is 0).
    NoMigration,
}

/// A script with its name, and the fact that it pins.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Topic and name.
    pub name: &'static str,
    /// The fact, in a sentence.
    pub pins: &'static str,
    /// What it cannot do without.
    pub need: Need,
    run: fn(&mut Script<'_>),
}

impl Case {
    const fn new(name: &'static str, pins: &'static str, run: fn(&mut Script<'_>)) -> Self {
        Self { name, pins, need: Need::Least, run }
    }

    const fn needs(mut self, need: Need) -> Self {
        self.need = need;
        self
    }
}

/// Seeds of the simulation that a set of allowed outcomes is made of.
pub const SEEDS: u64 = 200;

/// All scripts.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        accepting::CASES,
        receiving::CASES,
        buffers::CASES,
        sending::CASES,
        zero_copy::CASES,
        polling::CASES,
        cancelling::CASES,
        ending::CASES,
        dialing::CASES,
        naming::CASES,
        queues::CASES,
        direct::CASES,
        messages::CASES,
        exiting::CASES,
    ]
    .concat()
}

fn play(case: &Case, arm: &mut dyn Arm) -> Outcome {
    let mut script = Script::new(arm);
    (case.run)(&mut script);
    script.into_outcome()
}

/// The outcome of a healthy simulated kernel.
#[must_use]
pub fn calm(case: &Case) -> Outcome {
    simulate(case, 0, Knobs::calm())
}

fn simulate(case: &Case, seed: u64, knobs: Knobs) -> Outcome {
    let mut arm = Simulated::new(seed, knobs);
    let mut outcome = play(case, &mut arm);
    outcome.extend(arm.violations().into_iter().map(|what| format!("violation: {what}")));
    outcome
}

/// The outcomes that the simulation produces: at rest, with one knob turned, and with half of them.
#[must_use]
pub fn allowed(case: &Case) -> BTreeSet<Outcome> {
    let mut outcomes = BTreeSet::from([calm(case)]);
    for seed in 0..SEEDS {
        let mut knobs = Knobs::draw(&mut Dice::new(seed));
        if seed % 2 == 0 {
            let turned = knobs.turned();
            let alone = turned.get((seed / 2) as usize % turned.len().max(1)).copied();
            turned.into_iter().filter(|name| Some(*name) != alone).for_each(|name| {
                knobs.put_to_rest(name);
            });
        }
        outcomes.insert(simulate(case, seed, knobs));
    }
    outcomes
}

/// The outcome of this machine's kernel.
///
/// # Errors
/// Why the script cannot run here: what the kernel lacks, or what could not be set up.
pub fn real(case: &Case, features: &Features) -> Result<Outcome, String> {
    match case.need {
        Need::ReceiveCap if !features.receive_cap => {
            return Err("this kernel has no cap for a multishot receive (Linux 6.17)".to_owned());
        }
        Need::PromptTables if probe_table(*features).is_err() => {
            return Err("this kernel is late in closing what is in a table (Linux 6.13)".to_owned());
        }
        Need::NoMigration if real::migrates() => {
            return Err("net.ipv4.tcp_migrate_req is 1 here".to_owned());
        }
        _ => {}
    }
    let mut arm = Real::new();
    let outcome = play(case, &mut arm);
    match arm.failure() {
        Some(failure) => Err(failure),
        None => Ok(outcome),
    }
}
