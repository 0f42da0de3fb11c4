//! The progress bar: for a person at a terminal, and nobody else.
//!
//! On standard error, so that the report can be kept apart; not drawn at all when standard error is no
//! terminal or JSON was asked for.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};
use slipring_sim::Mark;
use slipring_sim::campaign::Tally;

/// The bar, or the place where there is none.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar over so many seeds.
    pub(crate) fn new(wanted: bool, seeds: u64) -> Self {
        let wanted = wanted && io::stderr().is_terminal();
        Self(wanted.then(|| {
            let template = "{bar:30} {pos}/{len} seeds {elapsed} {msg}";
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(seeds)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        }))
    }

    /// Shows how far the run has come.
    pub(crate) fn show(&mut self, tally: &Tally, now_us: u64) {
        let Some(bar) = &self.0 else { return };
        let seconds = now_us.max(1) as f64 / 1e6;
        let marks = Mark::ALL.len();
        bar.set_position(tally.seeds);
        bar.set_message(format!(
            "{:.0} seeds/s, {:.0} completions/s, {} of {marks} marks, {} failed",
            tally.seeds as f64 / seconds,
            tally.completions as f64 / seconds,
            marks - tally.marks.missed().len(),
            tally.failed.len(),
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
