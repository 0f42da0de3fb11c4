//! Many seeds, one after the other: until one fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::failure::{Failure, SEED_VARIABLE, again};
use super::text_of;

const FROM_VARIABLE: &str = "SLIPRING_SIM_FROM";
const COUNT_VARIABLE: &str = "SLIPRING_SIM_SEEDS";

/// Runs a test for many seeds: `seeds` of them, from 0 on. It fails if it panics, be it by an
/// assertion of its own or because a [`Sim`](crate::Sim) does.
///
/// The environment can say otherwise, without a change of the program:
///
/// | variable | means |
/// |---|---|
/// | `SLIPRING_SIM_SEED=17` | only this one: how a failure is run again |
/// | `SLIPRING_SIM_FROM=1000` | from this one on |
/// | `SLIPRING_SIM_SEEDS=100000` | so many |
///
/// ```
/// use slipring_core::{Ctx, Handler, Lease};
/// use slipring_sim::{Script, Sim, check};
///
/// struct Echo;
/// impl Handler for Echo {
///     type State = ();
///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
///         ctx.send(data);
///     }
/// }
///
/// check(20, |seed| {
///     let mut sim = Sim::new(seed, |_| Echo);
///     sim.connect(Script::new().send(b"hello").expect(b"hello"));
///     sim.finish();
/// });
/// ```
///
/// # Panics
/// At the first seed that fails, with its number and how to run it alone. Also if a variable is no
/// number.
#[track_caller]
pub fn check(seeds: u64, mut test: impl FnMut(u64)) {
    let wanted = wanted(seeds, |name| std::env::var(name).ok());
    let first = wanted.start;
    for seed in wanted {
        let passed = seed - first;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            // The whole of it was printed when it panicked.
            let message = text_of(panic.as_ref());
            let line = message.lines().next().unwrap_or("a panic without a message");
            let again = again(seed);
            panic!("seed {seed} fails, after {passed} that passed: {line}\n  again: {again}");
        }
    }
}

/// Looks for a seed that fails: the first failure, if there is one. For a test that wants it to be
/// found.
///
/// ```
/// use slipring_core::{Ctx, Handler, Lease};
/// use slipring_sim::{Script, Sim, explore};
///
/// /// Greets once for each line, or so it thinks: a line may come in two pieces.
/// struct Greeter;
/// impl Handler for Greeter {
///     type State = ();
///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, _: Lease) {
///         ctx.send("hello\n");
///     }
/// }
///
/// let failure = explore(0..50, |seed| {
///     let mut sim = Sim::new(seed, |_| Greeter);
///     sim.connect(Script::new().send(b"it is me\n").expect(b"hello\n").shutdown().expect_end());
///     sim.try_finish()
/// });
/// assert!(failure.expect("a bug").what.contains("came"));
/// ```
pub fn explore(
    seeds: impl IntoIterator<Item = u64>,
    mut test: impl FnMut(u64) -> Result<(), Failure>,
) -> Option<Failure> {
    seeds.into_iter().find_map(|seed| test(seed).err())
}

/// The seeds to run, as the environment has it.
fn wanted(seeds: u64, variable: impl Fn(&str) -> Option<String>) -> std::ops::Range<u64> {
    let number = |name: &str| -> Option<u64> {
        let text = variable(name)?;
        let number = text.trim().parse();
        Some(number.unwrap_or_else(|_| panic!("{name} is \"{text}\"; it has to be a number")))
    };
    if let Some(seed) = number(SEED_VARIABLE) {
        return seed..seed.saturating_add(1);
    }
    let from = number(FROM_VARIABLE).unwrap_or(0);
    from..from.saturating_add(number(COUNT_VARIABLE).unwrap_or(seeds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_with(set: &[(&str, &str)]) -> std::ops::Range<u64> {
        wanted(100, |name| {
            let found = set.iter().find(|(other, _)| *other == name);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_environment_chooses_seeds() {
        assert_eq!(wanted_with(&[]), 0..100);
        assert_eq!(wanted_with(&[("SLIPRING_SIM_FROM", "40")]), 40..140);
        assert_eq!(wanted_with(&[("SLIPRING_SIM_SEEDS", "5"), ("SLIPRING_SIM_FROM", "1")]), 1..6);
        assert_eq!(
            wanted_with(&[("SLIPRING_SIM_SEED", "17 "), ("SLIPRING_SIM_FROM", "1")]),
            17..18
        );
    }

    #[test]
    #[should_panic(expected = "SLIPRING_SIM_FROM is \"many\"; it has to be a number")]
    fn what_is_no_number_is_said() {
        wanted_with(&[("SLIPRING_SIM_FROM", "many")]);
    }
}
