//! A failing seed, made as small as it gets: fewer knobs turned, fewer events.
//!
//! Is: a search by trying, over the options of one seed. Is not: another seed, or other conditions; what is
//! found is still that seed, so one line reproduces it.
//!
//! An attempt counts if it fails in the same way ([`kind`]). Neither knobs nor events are monotone: with one
//! knob less, chance falls differently everywhere. So it is tried, kept where it helps, and gone through
//! again until nothing helps any more.

use super::kind;
use crate::knobs::Knobs;
use crate::swarm::{Options, Outcome};

/// Times that knobs and events are gone through.
const ROUNDS_MAX: u32 = 4;

/// The smallest that was found.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// How the seed is run.
    pub options: Options,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// Makes a failing seed smaller, until nothing helps or `is_over` says that there is no time left. None if it
/// does not fail at all.
pub fn shrink(
    options: &Options,
    mut attempt: impl FnMut(&Options) -> Outcome,
    mut is_over: impl FnMut() -> bool,
) -> Option<Shrunk> {
    let outcome = attempt(options);
    let wanted = kind(outcome.failure.as_deref()?);
    let mut search = Search {
        best: Shrunk { options: options.clone(), outcome },
        attempt: &mut attempt,
        is_over: &mut is_over,
        wanted,
    };
    for _ in 0..ROUNDS_MAX {
        let knobs = search.rest_knobs();
        let events = search.cut_events();
        if !knobs && !events {
            break;
        }
    }
    let mut best = search.best;
    let place = |name: &String| Knobs::NAMES.iter().position(|known| known == name);
    best.options.off.sort_by_key(place);
    Some(best)
}

struct Search<'a> {
    best: Shrunk,
    attempt: &'a mut dyn FnMut(&Options) -> Outcome,
    is_over: &'a mut dyn FnMut() -> bool,
    wanted: String,
}

impl Search<'_> {
    /// Whether it still fails with these; if so they are the best.
    fn succeeds(&mut self, options: Options) -> bool {
        if (self.is_over)() {
            return false;
        }
        let outcome = (self.attempt)(&options);
        let same = outcome.failure.as_deref().is_some_and(|failure| kind(failure) == self.wanted);
        if same {
            self.best = Shrunk { options, outcome };
        }
        same
    }

    /// Puts knobs to rest one by one.
    fn rest_knobs(&mut self) -> bool {
        let mut any = false;
        for name in self.best.outcome.knobs.turned() {
            let mut options = self.best.options.clone();
            options.off.push(name.to_owned());
            any |= self.succeeds(options);
        }
        any
    }

    /// Halves the events between those that are too few and those that are enough.
    fn cut_events(&mut self) -> bool {
        let before = self.best.options.events;
        // What happened after the failure is not needed.
        let happened = self.best.outcome.events;
        if happened < before {
            self.succeeds(Options { events: happened, ..self.best.options.clone() });
        }
        let mut too_few = None;
        loop {
            let enough = self.best.options.events;
            let low = too_few.map_or(0, |too_few| too_few + 1);
            if low >= enough {
                break;
            }
            let middle = low + (enough - low) / 2;
            if !self.succeeds(Options { events: middle, ..self.best.options.clone() }) {
                too_few = Some(middle);
            }
        }
        self.best.options.events < before
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::marks::Marks;

    /// What a run with these options would come to, if it failed like that.
    pub(in crate::campaign) fn outcome(failure: Option<String>, options: &Options) -> Outcome {
        let mut knobs = options.knobs.unwrap_or(Knobs::calm());
        for name in &options.off {
            assert!(knobs.put_to_rest(name), "{name}");
        }
        Outcome {
            seed: 7,
            failure,
            hash: 1,
            events: options.events + 500,
            completions: 10,
            marks: Marks::default(),
            knobs,
            plan: Vec::new(),
            story: Vec::new(),
        }
    }

    fn knobs(names: &[&str]) -> Knobs {
        let mut knobs = Knobs::calm();
        for name in names {
            assert!(knobs.set(name, 3), "{name}");
        }
        knobs
    }

    fn options() -> Options {
        let turned = knobs(&["panics", "scribble", "short_send", "lost_dial", "peer_reads"]);
        Options { knobs: Some(turned), ..Options::default() }
    }

    /// Fails while two knobs are turned, and from an event on.
    fn needs_two_knobs(options: &Options) -> Outcome {
        let mut outcome = outcome(None, options);
        let turned = outcome.knobs.turned();
        let events = options.events;
        if turned.contains(&"scribble") && turned.contains(&"panics") && events >= 123 {
            outcome.failure = Some(format!("byte {events} is lost ({turned:?})"));
        }
        outcome
    }

    #[test]
    fn only_what_is_needed_to_fail_is_left() {
        let mut tries = 0;
        let attempt = |options: &Options| {
            tries += 1;
            needs_two_knobs(options)
        };
        let shrunk = shrink(&options(), attempt, || false).expect("it fails");
        assert_eq!(shrunk.options.off, ["short_send", "lost_dial", "peer_reads"]);
        assert_eq!(shrunk.options.events, 123);
        assert_eq!(shrunk.outcome.knobs.turned(), ["scribble", "panics"]);
        assert!(shrunk.outcome.failure.is_some_and(|failure| failure.starts_with("byte 123 ")));
        assert!(tries < 40, "{tries}");
    }

    #[test]
    fn another_failure_is_not_taken_for_it() {
        let attempt = |options: &Options| {
            let mut outcome = needs_two_knobs(options);
            if outcome.failure.is_none() {
                outcome.failure = Some("something else".to_owned());
            }
            outcome
        };
        let shrunk = shrink(&options(), attempt, || false).expect("it fails");
        assert_eq!(shrunk.outcome.knobs.turned(), ["scribble", "panics"]);
        assert_eq!(shrunk.options.events, 123);
    }

    #[test]
    fn what_fails_anyhow_gets_as_small_as_can_be() {
        let always = |options: &Options| outcome(Some("always".to_owned()), options);
        let shrunk = shrink(&options(), always, || false).expect("it fails");
        assert_eq!((shrunk.options.events, shrunk.options.off.len()), (0, 5));
    }

    #[test]
    fn a_seed_that_passes_is_not_shrunk() {
        assert!(shrink(&options(), |options| outcome(None, options), || false).is_none());
    }

    #[test]
    fn it_stops_when_time_is_up() {
        let mut tries = 0;
        let attempt = |options: &Options| {
            tries += 1;
            needs_two_knobs(options)
        };
        let shrunk = shrink(&options(), attempt, || true).expect("it fails");
        assert_eq!(shrunk.options.events, Options::default().events);
        assert_eq!(tries, 1);
    }
}
