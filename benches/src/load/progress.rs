//! The progress bar: for a person at a terminal, and nobody else.
//!
//! Drawn from the loop's own checks, without a thread: the load has one CPU and its figures are of
//! it. On standard error, so that the report can be kept apart; not drawn at all when standard
//! error is no terminal or JSON was asked for.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};

use super::options::Plan;
use super::work::{Rig, nanoseconds};

const NS_PER_MS: u64 = 1_000_000;

/// The bar, or the place where there is none.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    began_ns: Option<u64>,
}

impl Progress {
    /// A bar over the warm-up and the measured time of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let wanted = !plan.json && io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let total_ns = nanoseconds(plan.warmup).saturating_add(nanoseconds(plan.measured));
            let style = ProgressStyle::with_template("{bar:40} {elapsed} {msg}");
            ProgressBar::new(total_ns / NS_PER_MS)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, began_ns: None }
    }

    /// Shows how far the run has come.
    pub fn show(&mut self, rig: &Rig, now_ns: u64) {
        let began_ns = *self.began_ns.get_or_insert(now_ns);
        let Some(bar) = &self.bar else { return };
        bar.set_position((now_ns - began_ns) / NS_PER_MS);
        bar.set_message(match rig.tally.completed {
            0 => "warming up".to_owned(),
            completed => format!("{completed} answered"),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
