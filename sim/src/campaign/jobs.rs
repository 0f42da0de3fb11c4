//! Seeds over threads, and their outcomes back in order.
//!
//! Is: who takes which seeds, and the watch over a seed that never ends. Is not: what is made of outcomes.
//!
//! A job takes a chunk of seeds at a time and sends what became of them; the caller's thread merges chunks in
//! the order of their seeds, so that the hash over all hashes is the same for any number of jobs. The threads
//! are not scoped: a seed that loops for ever cannot be stopped, only left behind by a process that ends.
//! Whoever stops a campaign gets the sum of all seeds that were run, the gaps between them left out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::Tally;
use crate::swarm::{self, Options, Outcome};

/// Seeds that a job takes at a time: a progress bar moves, and the channel is nobody's bottleneck.
const CHUNK: u64 = 16;
/// A chunk takes milliseconds; in a build that checks memory, seconds. After this long it never ends.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often somebody who waits for a chunk looks whether it is to go on.
const GLANCE: Duration = Duration::from_millis(50);
/// Seeds that are under way when a campaign is stopped have so long to end.
const GRACE: Duration = Duration::from_secs(2);
/// No seed.
const IDLE: u64 = u64::MAX;

/// Which seeds to run, how, and on how many threads.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Threads, at least one.
    pub jobs: usize,
    /// How each is run.
    pub options: Options,
}

/// Seeds that did not come to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Those that were under way, one of each job.
    pub seeds: Vec<u64>,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        write!(
            f,
            "no end in sight for {} s; under way: seed {}",
            PATIENCE.as_secs(),
            seeds.join(", ")
        )
    }
}

/// How a seed is run; tests run none.
type RunOne = dyn Fn(u64, &Options) -> Outcome + Send + Sync;

/// What the jobs share.
struct Work {
    campaign: Campaign,
    next: AtomicU64,
    /// The seed that each job is at.
    under_way: Vec<AtomicU64>,
    /// No further seed is to be begun.
    stop: Arc<AtomicBool>,
    run: Box<RunOne>,
}

/// The outcomes of a chunk, and its place.
type Chunk = (u64, Vec<Outcome>);

impl Campaign {
    /// Runs all of them. `watch` sees the sum of the first so many, now and then.
    ///
    /// # Errors
    /// If a seed does not end. Its thread is still there.
    pub fn run(&self, watch: impl FnMut(&Tally)) -> Result<Tally, Stuck> {
        self.run_until(&Arc::default(), watch)
    }

    /// The same, until it is told to stop: then the sum is over the seeds that were run, all but the last few
    /// of which follow each other.
    ///
    /// # Errors
    /// As [`run`](Self::run); not once it was told to stop.
    pub fn run_until(
        &self,
        stop: &Arc<AtomicBool>,
        watch: impl FnMut(&Tally),
    ) -> Result<Tally, Stuck> {
        self.run_with(Box::new(swarm::run), PATIENCE, stop, watch)
    }

    fn run_with(
        &self,
        run: Box<RunOne>,
        patience: Duration,
        stop: &Arc<AtomicBool>,
        watch: impl FnMut(&Tally),
    ) -> Result<Tally, Stuck> {
        let work = Arc::new(Work {
            campaign: self.clone(),
            next: AtomicU64::new(0),
            under_way: (0..self.jobs).map(|_| AtomicU64::new(IDLE)).collect(),
            stop: Arc::clone(stop),
            run,
        });
        let (sender, receiver) = mpsc::channel();
        for job in 0..self.jobs {
            let (work, sender) = (Arc::clone(&work), sender.clone());
            let thread = thread::Builder::new().name(format!("sim-{job}"));
            // One that cannot be had leaves its seeds to the others.
            let started = thread.spawn(move || work.take_part(job, &sender));
            assert!(started.is_ok() || job > 0, "not even one thread can be had");
        }
        drop(sender);
        self.merge(&receiver, patience, stop, watch).ok_or_else(|| work.stuck())
    }

    /// The sum of all chunks, if all of them come; of those that came, if it is told to stop.
    fn merge(
        &self,
        receiver: &Receiver<Chunk>,
        patience: Duration,
        stop: &AtomicBool,
        mut watch: impl FnMut(&Tally),
    ) -> Option<Tally> {
        let mut tally = Tally::default();
        let mut early = BTreeMap::new();
        let (mut quiet, mut parting) = (Duration::ZERO, Duration::ZERO);
        while tally.seeds < self.seeds {
            match receiver.recv_timeout(GLANCE) {
                Ok((place, outcomes)) => {
                    quiet = Duration::ZERO;
                    early.insert(place, outcomes);
                }
                Err(error) if stop.load(Ordering::Relaxed) => {
                    if error == RecvTimeoutError::Disconnected || parting >= GRACE {
                        break;
                    }
                    parting += GLANCE;
                }
                Err(RecvTimeoutError::Timeout) if quiet < patience => quiet += GLANCE,
                Err(_) => return None,
            }
            // A chunk that was cut short has no successor: those behind it wait for the end.
            while let Some(outcomes) = early.remove(&tally.seeds) {
                outcomes.into_iter().for_each(|outcome| tally.add(outcome));
            }
            watch(&tally);
        }
        early.into_values().flatten().for_each(|outcome| tally.add(outcome));
        Some(tally)
    }
}

impl Work {
    fn take_part(&self, job: usize, sender: &Sender<Chunk>) {
        let Campaign { from, seeds, options, .. } = &self.campaign;
        loop {
            let place = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if place >= *seeds {
                return;
            }
            let mut outcomes = Vec::new();
            for seed in place..(place + CHUNK).min(*seeds) {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                self.under_way[job].store(from + seed, Ordering::Relaxed);
                outcomes.push((self.run)(from + seed, options));
            }
            self.under_way[job].store(IDLE, Ordering::Relaxed);
            if outcomes.is_empty() || sender.send((place, outcomes)).is_err() {
                return;
            }
        }
    }

    fn stuck(&self) -> Stuck {
        let seeds = self.under_way.iter().map(|seed| seed.load(Ordering::Relaxed));
        Stuck { seeds: seeds.filter(|seed| *seed != IDLE).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::shrink::tests::outcome;

    fn campaign(jobs: usize) -> Campaign {
        Campaign { from: 100, seeds: 77, jobs, options: Options::default() }
    }

    fn run(jobs: usize) -> Tally {
        let one = |seed: u64, options: &Options| {
            let failure = seed.is_multiple_of(10).then(|| format!("seed {seed}"));
            Outcome { seed, hash: seed * seed, ..outcome(failure, options) }
        };
        let mut watched = 0;
        let patience = Duration::from_secs(20);
        let tally = campaign(jobs)
            .run_with(Box::new(one), patience, &Arc::default(), |tally| watched = tally.seeds);
        assert_eq!(watched, 77);
        tally.expect("all of them end")
    }

    #[test]
    fn the_sum_does_not_depend_on_the_number_of_jobs() {
        let tally = run(1);
        assert_eq!(tally.seeds, 77);
        let failed: Vec<u64> = tally.failed.iter().map(|failed| failed.seed).collect();
        assert_eq!(failed, [100, 110, 120, 130, 140, 150, 160, 170]);
        for jobs in [2, 3, 8] {
            assert_eq!(run(jobs), tally);
        }
    }

    #[test]
    fn a_seed_that_does_not_end_is_named() {
        // A thread that panics ends as little as one that loops, and can be tested.
        let one = |seed: u64, options: &Options| {
            if seed == 133 {
                std::panic::resume_unwind(Box::new("meant"));
            }
            outcome(None, options)
        };
        let stuck =
            campaign(1).run_with(Box::new(one), Duration::from_secs(20), &Arc::default(), |_| {});
        assert_eq!(stuck, Err(Stuck { seeds: vec![133] }));
        let words = stuck.expect_err("just compared").to_string();
        assert!(words.ends_with("under way: seed 133"), "{words}");
    }
    /// What comes of a campaign that seed 140 stops, and the seeds of it that failed.
    fn stopped(then: fn()) -> (u64, Vec<u64>) {
        let stop = Arc::new(AtomicBool::new(false));
        let ours = Arc::clone(&stop);
        let one = move |seed: u64, options: &Options| {
            if seed == 140 {
                ours.store(true, Ordering::Relaxed);
                then();
            }
            let failure = matches!(seed, 100 | 140).then(|| "meant".to_owned());
            Outcome { seed, ..outcome(failure, options) }
        };
        let patience = Duration::from_secs(20);
        let tally = campaign(1).run_with(Box::new(one), patience, &stop, |_| {});
        let tally = tally.expect("what was run");
        (tally.seeds, tally.failed.iter().map(|failed| failed.seed).collect())
    }

    #[test]
    fn one_that_is_stopped_comes_to_what_was_run() {
        assert_eq!(stopped(|| {}), (41, vec![100, 140]));
    }

    #[test]
    fn one_that_is_stopped_does_not_wait_for_a_seed_that_never_ends() {
        // Without the chunk of that seed.
        let never = || {
            loop {
                thread::park();
            }
        };
        assert_eq!(stopped(never), (32, vec![100]));
    }
}
