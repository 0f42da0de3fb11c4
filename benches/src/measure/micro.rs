//! What the criterion benches share: they time functions of this process, and end with one plain line
//! for each figure that `docs/performance.md` has a row for.
//!
//! The figure is the median of the samples that criterion took; criterion itself prints an interval.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use super::say;

/// The samples of one criterion function, nanoseconds for one unit of work.
#[derive(Debug, Default)]
pub struct Samples(RefCell<Vec<f64>>);

impl Samples {
    /// Notes one sample: so long for so many units. Returns the time, for `iter_custom`.
    pub fn note(&self, took: Duration, units: u64) -> Duration {
        self.0.borrow_mut().push(took.as_nanos() as f64 / units as f64);
        took
    }

    /// The median, nanoseconds; `None` when a filter left the function out.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let mut samples = self.0.borrow().clone();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied()
    }
}

/// Prints a row: its number, what was measured, the figures, each with its unit.
pub fn row(number: &str, what: impl Display, figures: &[String]) {
    say(format_args!("{number} | {what} | {}", figures.join(" | ")));
}

/// A median with its aim, where there is one.
#[must_use]
pub fn figure(median: Option<f64>, aim_ns: Option<f64>) -> String {
    let Some(median) = median else { return "not run".to_owned() };
    match aim_ns {
        Some(aim) => format!("{median:.1} ns (aim <= {aim})"),
        None => format!("{median:.1} ns"),
    }
}
