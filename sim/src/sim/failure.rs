//! What a simulation failed with: the seed, what went wrong, what happened last, and how to see it
//! again.

use std::fmt;
use std::time::Duration;

/// Environment variables that [`check`](crate::check) looks at.
pub(super) const SEED_VARIABLE: &str = "SLIPRING_SIM_SEED";

/// Why a simulation failed. `Display` is the whole report; `Debug` is the same, for `unwrap`.
///
/// ```
/// use slipring_core::{Ctx, Handler, Lease};
/// use slipring_sim::{Script, Sim};
///
/// struct Mute;
/// impl Handler for Mute {
///     type State = ();
///     fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {}
/// }
///
/// let mut sim = Sim::new(7, |_| Mute);
/// sim.connect(Script::new().send(b"anybody?").expect(b"yes"));
/// let failure = sim.try_run().expect_err("it never answers");
/// assert_eq!(failure.seed, 7);
/// assert!(failure.what.contains("expect 3 bytes \"yes\""), "{failure}");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The seed of the run: the same program does the same with it.
    pub seed: u64,
    /// What went wrong, in words.
    pub what: String,
    /// When that was noticed, in virtual time.
    pub at: Duration,
    /// The knobs that were not at rest, with what they were turned to.
    pub turned: Vec<(&'static str, u32)>,
    /// What happened last, oldest first: a line each.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, at, turned, story } = self;
        writeln!(f, "seed {seed}: {what}")?;
        writeln!(f, "  at {:.3} ms of virtual time", at.as_micros() as f64 / 1000.0)?;
        let turned: Vec<_> = turned.iter().map(|(name, to)| format!("{name} {to}")).collect();
        let faults = if turned.is_empty() { "none".to_owned() } else { turned.join(", ") };
        writeln!(f, "  faults: {faults}")?;
        writeln!(f, "  again: {}", again(*seed))?;
        if !story.is_empty() {
            writeln!(f, "  the last that happened:")?;
        }
        story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Failure {}

/// How to run the seed once more.
pub(super) fn again(seed: u64) -> String {
    // Tests run in threads that have their names.
    match std::thread::current().name() {
        Some(test) if test != "main" => {
            format!(
                "{SEED_VARIABLE}={seed} cargo test {test} (in `check`), or `Sim::new({seed}, ..)`"
            )
        }
        _ => format!(
            "`Sim::new({seed}, ..)`, or {SEED_VARIABLE}={seed} for a test that uses `check`"
        ),
    }
}
