//! Interleaved rounds: every contender once a round, and ratios only within a round.

use std::io;

use super::SERVER_CPU;
use super::binaries::Binaries;
use super::contenders::Contender;
use super::drive::{Load, Sample};
use super::{note, table};

/// The figure that a table compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Server CPU a message.
    Cpu,
    /// Median round trip.
    P50,
}

impl Figure {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Cpu => sample.cpu_us,
            Self::P50 => sample.p50_us,
        }
    }
}

/// A middle and how far the rest lies about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle value; of an even count, the mean of the two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of any values; of none, not a number.
    #[must_use]
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            min: at(0),
            max: at(last),
        }
    }
}

/// All the samples of one contender, one a round.
#[derive(Debug)]
pub struct Series {
    /// The contender.
    pub name: String,
    samples: Vec<Option<Sample>>,
}

impl Series {
    /// Whether every run of it failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.iter().all(Option::is_none)
    }

    /// What it measured, whatever the figure.
    #[must_use]
    pub fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().flatten().map(figure))
    }

    /// Its ratio to the reference, pair by pair.
    #[must_use]
    pub fn ratio(&self, reference: &Self, figure: Figure) -> Spread {
        let pairs = self.samples.iter().zip(&reference.samples);
        let both = pairs.filter_map(|(own, reference)| own.as_ref().zip(reference.as_ref()));
        Spread::of(both.map(|(own, reference)| figure.of(own) / figure.of(reference)))
    }

    /// Messages that failed in all rounds together.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.samples.iter().flatten().map(|sample| sample.failed).sum()
    }
}

/// Runs the rounds and prints the table. The first contender is what the others are ratios of.
///
/// A contender that fails is left out of that round, with a line that says why.
///
/// # Errors
/// When the reference itself fails: there is nothing to compare with then.
pub fn compare(
    title: &str,
    figure: Figure,
    rounds: usize,
    load: &Load,
    binaries: &Binaries,
    contenders: &[Contender],
) -> io::Result<Vec<Series>> {
    let new = |contender: &Contender| Series { name: contender.name.clone(), samples: Vec::new() };
    let mut series: Vec<Series> = contenders.iter().map(new).collect();
    for round in 0..rounds {
        note(format_args!("{title}: round {} of {rounds}", round + 1));
        // Every round starts with another one, so that drift inside a round favours nobody.
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let sample = run_once(&contenders[index], load, binaries);
            if let Err(error) = &sample {
                note(format_args!("{}: {error}", contenders[index].name));
            }
            if index == 0 {
                sample.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
            }
            series[index].samples.push(sample.ok());
        }
    }
    table::print(title, figure, &series);
    Ok(series)
}

fn run_once(contender: &Contender, load: &Load, binaries: &Binaries) -> io::Result<Sample> {
    let server = contender.recipe.start(SERVER_CPU)?;
    load.run(binaries, &server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(cpu: &[Option<f64>]) -> Series {
        let sample = |cpu_us| Sample {
            cpu_us,
            rate: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            mb_per_s: 1.0,
            failed: 1,
            full: 0,
            resumed: 0,
        };
        Series { name: String::new(), samples: cpu.iter().map(|cpu| cpu.map(sample)).collect() }
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0].into_iter());
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([7.0].into_iter()).median, 7.0);
        assert!(Spread::of(std::iter::empty()).median.is_nan());
    }

    #[test]
    fn ratios_pair_runs_of_one_round_and_skip_what_failed() {
        let reference = series(&[Some(2.0), Some(4.0), Some(8.0)]);
        let own = series(&[Some(3.0), None, Some(8.0)]);
        let ratio = own.ratio(&reference, Figure::Cpu);
        assert_eq!(ratio, Spread { median: 1.25, min: 1.0, max: 1.5 });
        assert_eq!(own.failed(), 2);
    }
}
