//! The corpus: seeds that once found something, run for ever (`sim/corpus.txt`, which explains its lines).
//!
//! It is part of the binary, so that `sim --corpus` runs anywhere. Why a line records the knobs although a
//! seed draws them: when the code that draws changes, a seed means another run; with its knobs as they were
//! it is at least another run of that kind.

use super::{Failed, Finding, Tally, knobs};
use crate::swarm::{self, Options};

/// The file.
pub const TEXT: &str = include_str!("../../corpus.txt");

/// A line of the corpus.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it stands, from 1.
    pub line: usize,
    /// The seed.
    pub seed: u64,
    /// How it is run.
    pub options: Options,
    /// What it once found.
    pub found: String,
}

/// Reads a corpus.
///
/// # Errors
/// The number of the line that cannot be read; the cause and its remedy.
pub fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let (run, found) = line.split_once('#').unwrap_or((line, ""));
        let fields: Vec<&str> = run.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        let line = place + 1;
        let at = |cause: String| format!("line {line} of the corpus: {cause}");
        let (seed, options) = entry(&fields).map_err(at)?;
        entries.push(Entry { line, seed, options, found: found.trim().to_owned() });
    }
    Ok(entries)
}

/// Runs all of them, as they stand: they are small already.
#[must_use]
pub fn run(entries: &[Entry]) -> (Tally, Vec<Finding>) {
    let mut tally = Tally::default();
    let mut findings = Vec::new();
    for Entry { seed, options, .. } in entries {
        let outcome = swarm::run(*seed, options);
        if let Some(failure) = &outcome.failure {
            let failed = Failed { seed: *seed, failure: failure.clone() };
            findings.push(Finding::as_it_is(&failed, options));
        }
        tally.add(outcome);
    }
    (tally, findings)
}

fn entry(fields: &[&str]) -> Result<(u64, Options), String> {
    let [seed, events, off, rest @ ..] = fields else {
        return Err(
            "too short; write SEED EVENTS OFF,OFF NAME=VALUE,.. [tasks|upstreams] # WHAT IT FOUND"
                .to_owned(),
        );
    };
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number; write one"));
    let (rest, tasks, upstreams) = match rest {
        [rest @ .., "tasks"] => (rest, true, false),
        [rest @ .., "upstreams"] => (rest, false, true),
        _ => (rest, false, false),
    };
    let turned = match rest {
        [] => None,
        [turned] => Some(knobs::settings(turned)?),
        [_, more, ..] => return Err(format!("`{more}` is one field too many; leave it out")),
    };
    let options = Options {
        events: number(events)?,
        knobs: turned,
        off: knobs::names(off)?,
        tasks,
        upstreams,
        ..Options::default()
    };
    Ok((number(seed)?, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "# a comment\n\n17 300 panics,scribble # a lost wake-up\n18 40 - panics=3\n19 50 - - tasks # x\n";
        let entries = entries(text).expect("all of it is well formed");
        assert_eq!(entries.len(), 3);
        let first = &entries[0];
        assert_eq!((first.line, first.seed, first.options.events), (3, 17, 300));
        assert_eq!(first.options.off, ["panics", "scribble"]);
        assert_eq!((first.options.knobs, first.found.as_str()), (None, "a lost wake-up"));
        assert!(entries[2].options.tasks && !first.options.tasks);
        let second = &entries[1];
        assert!(second.options.off.is_empty());
        assert_eq!(second.options.knobs.map(|knobs| knobs.turned()), Some(vec!["panics"]));
    }

    #[test]
    fn mistakes_are_told_by_their_line() {
        for (text, cause) in [
            ("1 2", "too short"),
            ("x 2 -", "`x` is no number"),
            ("1 2 nothing", "no knob is called `nothing`"),
            ("1 2 - panics", "`panics` has no value"),
            ("1 2 - - -", "one field too many"),
        ] {
            let refusal = entries(&format!("# head\n{text}\n")).expect_err(text);
            assert!(refusal.starts_with("line 2 of the corpus: "), "{refusal}");
            assert!(refusal.contains(cause) && refusal.contains("; "), "{refusal}");
        }
    }
}
