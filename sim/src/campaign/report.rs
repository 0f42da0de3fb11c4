//! What a campaign came to, as text for a person or as one line of JSON for a script.
//!
//! The JSON is written by hand, as that of `load` is: its keys are a contract, and it holds numbers, texts
//! and nothing nested deeper than a list of failures.

use std::fmt::Write as _;

use super::{Finding, Tally, kind, reproduce};
use crate::marks::Mark;
use crate::swarm::Options;

/// Seeds from which on every mark has to be reached.
const DEMANDING_SEEDS: u64 = 20_000;

/// Seeds from which on it says something that a mark was missed.
const TELLING_SEEDS: u64 = 200;
/// Failures that nobody looked into that are shown.
const OTHERS_MAX: usize = 5;

/// Whether a run of so many seeds has to reach every mark.
#[must_use]
pub fn demands_marks(seeds: u64) -> bool {
    seeds >= DEMANDING_SEEDS
}

/// The result of a campaign.
#[derive(Debug)]
pub struct Report {
    /// The sum over all seeds.
    pub tally: Tally,
    /// How each was run.
    pub options: Options,
    /// What was found out about the failures.
    pub findings: Vec<Finding>,
    /// How long the seeds took.
    pub seconds: f64,
    /// Whether a mark that was missed is a failure.
    pub demands_marks: bool,
    /// It was stopped: how many seeds it was to be.
    pub interrupted_of: Option<u64>,
}

impl Report {
    /// Whether every seed passed, and every mark that had to be was reached.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let missed = self.demands_marks && !self.tally.marks.missed().is_empty();
        self.tally.failed.is_empty() && !missed
    }

    /// One JSON object, without a line break.
    #[must_use]
    pub fn json(&self) -> String {
        let tally = &self.tally;
        let failures: Vec<String> = self.failures().collect();
        let marks =
            Mark::ALL.iter().map(|mark| format!("\"{mark:?}\":{}", tally.marks.count(*mark)));
        let missed = tally.marks.missed().into_iter().map(|mark| format!("\"{mark:?}\""));
        let fields = [
            ("seeds", tally.seeds.to_string()),
            ("interrupted", self.interrupted_of.is_some().to_string()),
            ("failures", format!("[{}]", failures.join(","))),
            ("events", tally.events.to_string()),
            ("completions", tally.completions.to_string()),
            ("seconds", format!("{:.3}", self.seconds)),
            ("seeds_per_second", format!("{:.1}", self.rate(tally.seeds))),
            ("completions_per_second", format!("{:.1}", self.rate(tally.completions))),
            ("hash", format!("\"{:016x}\"", tally.hash)),
            ("marks", format!("{{{}}}", marks.collect::<Vec<_>>().join(","))),
            ("missed", format!("[{}]", missed.collect::<Vec<_>>().join(","))),
        ];
        let fields = fields.map(|(key, value)| format!("\"{key}\":{value}"));
        format!("{{{}}}", fields.join(","))
    }

    /// Every failure; those that were looked into as small as they got.
    fn failures(&self) -> impl Iterator<Item = String> {
        self.tally.failed.iter().map(|failed| {
            let seed = failed.seed;
            let finding = self.findings.iter().find(|finding| finding.outcome.seed == seed);
            let options = finding.map_or(&self.options, |finding| &finding.options);
            let failure = finding.and_then(|finding| finding.outcome.failure.as_deref());
            let off: Vec<String> = options.off.iter().map(|name| quoted(name)).collect();
            format!(
                "{{\"seed\":{seed},\"events\":{},\"off\":[{}],\"failure\":{},\"reproduce\":{}}}",
                options.events,
                off.join(","),
                quoted(failure.unwrap_or(&failed.failure)),
                quoted(&reproduce(seed, options)),
            )
        })
    }

    fn rate(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    /// Lines for a person, each ended by a line break.
    #[must_use]
    pub fn text(&self) -> String {
        let tally = &self.tally;
        let mut text = String::new();
        self.write_failures(&mut text);
        let missed = tally.marks.missed();
        if !missed.is_empty() && (self.demands_marks || tally.seeds >= TELLING_SEEDS) {
            text += "marks that were missed:\n";
            for mark in &missed {
                let _ = writeln!(text, "  {:<24} {}", format!("{mark:?}"), mark.meaning());
            }
        }
        if let Some(wanted) = self.interrupted_of {
            let _ = writeln!(text, "interrupted: {} of {wanted} seeds were run", tally.seeds);
        }
        let _ = writeln!(
            text,
            "{} seeds, {} events, {} completions in {:.2} s: {:.0} seeds/s, {:.0} completions/s",
            tally.seeds,
            tally.events,
            tally.completions,
            self.seconds,
            self.rate(tally.seeds),
            self.rate(tally.completions),
        );
        let _ = writeln!(
            text,
            "{} of {} marks, {} seeds failed, hash {:016x}",
            Mark::ALL.len() - missed.len(),
            Mark::ALL.len(),
            tally.failed.len(),
            tally.hash,
        );
        text
    }

    fn write_failures(&self, text: &mut String) {
        for (place, finding) in self.findings.iter().enumerate() {
            let failure = finding.outcome.failure.as_deref().unwrap_or_default();
            let alike = match finding.seeds {
                1 => String::new(),
                seeds => format!(" ({seeds} seeds fail like this)"),
            };
            let _ = writeln!(text, "seed {}: {failure}{alike}", finding.outcome.seed);
            let _ = writeln!(text, "  {}", finding.reproduce());
            let _ = writeln!(text, "  for the corpus: {}", finding.corpus_line());
            // One story at a time; the others are a command away.
            if place == 0 {
                for line in &finding.outcome.story {
                    let _ = writeln!(text, "    {line}");
                }
            }
            text.push('\n');
        }
        let is_known = |failure: &str| self.findings.iter().any(|one| one.kind == kind(failure));
        let others = self.tally.failed.iter().filter(|one| !is_known(&one.failure));
        for failed in others.take(OTHERS_MAX) {
            let _ = writeln!(text, "seed {}: {}", failed.seed, failed.failure);
            let _ = writeln!(text, "  {}\n", reproduce(failed.seed, &self.options));
        }
    }
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
