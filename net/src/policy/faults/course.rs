//! The way of a direction's bytes through its faults, on the clock that is given.
//!
//! ```
//! use std::time::Duration;
//! use slipring::policy::faults::{Course, Delay, IoEffect, Step};
//!
//! let ms = Duration::from_millis;
//! let rng = fastrand::Rng::with_seed(1);
//! let mut course = Course::new(&[IoEffect::Latency(Delay::of(ms(100)))], ms(0), rng);
//! course.push(ms(5), 300);
//! course.push_end(ms(6));
//! assert_eq!(course.next(ms(5)), Step::WaitUntil(ms(105)));
//! assert_eq!(course.next(ms(105)), Step::Deliver(300));
//! assert_eq!(course.next(ms(105)), Step::WaitUntil(ms(106)));
//! assert_eq!(course.next(ms(106)), Step::End);
//! ```
//!
//! ```text
//!   push, push_end ---> [ stage ] ---> [ stage ] ---> next: deliver n, wait until, nothing, end, close, reset
//!                       one for each effect, in the order of the rules
//! ```
//!
//! Is: counts and times. Is not: the bytes, which whoever asks keeps in their order; `n` bytes to be delivered are the
//! first `n` that have not been.
//!
//! *Bounded.* [`wants`](Course::wants) says when no more is to be read, and is the only thing that does: what is pushed
//! all the same is taken. So what is held is less than [`bound_bytes`](Course::bound_bytes) and one push.
//!
//! *An end is behind the bytes before it*, also one that an effect makes behind so many of them: it waits with them in
//! the stages that come later. One that is made at a time comes at that time, whatever is held then: it is dropped.
//!
//! *Who asks late* gets what was due at once. But for a bandwidth and for slices: those hold for what is delivered, so
//! more than a burst is never made up for, and pieces stay apart.

use std::time::Duration;

use super::rules::{After, IoEffect};
use super::stage::{Ending, Release, Stage};

/// Bytes that are held at least, as one watermark of an outbox (`Limits::outbox_high_bytes`).
const HELD_BYTES: u64 = 64 << 10;
/// Bytes that are held at most, for a latency: 10 MiB a second through 100 ms.
const HELD_BYTES_MAX: u64 = 1 << 20;
/// Counts of different times that are held.
const BATCHES_MAX: usize = 4096;

/// What is to be done about a direction now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first so many bytes that were not delivered go out. Ask again: there may be more.
    Deliver(usize),
    /// Nothing before this time, unless something is pushed.
    WaitUntil(Duration),
    /// Nothing before something is pushed. All there will ever be to say behind an end.
    Nothing,
    /// The sender's FIN passes on.
    End,
    /// Both connections are closed in order, once what was delivered is sent. What is held is dropped.
    Close,
    /// Both connections are reset. What is held is dropped.
    Reset {
        /// What was delivered goes out first, so that the receiver sees exactly so many bytes.
        is_behind_bytes: bool,
    },
}

/// One direction of one connection.
#[derive(Clone, Debug)]
pub struct Course {
    stages: Vec<Stage>,
    /// The first end that comes at a time.
    deadline: Option<(Duration, Ending)>,
    latest: Duration,
    held_bytes: u64,
    bound_bytes: u64,
    is_over: bool,
    rng: fastrand::Rng,
}

impl Course {
    /// One that begins now. Without effects, all passes at once. What a rule's `check` would refuse does no harm: it is
    /// taken for the nearest that makes sense.
    #[must_use]
    pub fn new(effects: &[IoEffect], now: Duration, rng: fastrand::Rng) -> Self {
        let pass = IoEffect::SlowClose { delay: Duration::ZERO };
        let mut stages: Vec<_> =
            effects.iter().filter_map(|effect| Stage::of(effect, now)).collect();
        if stages.is_empty() {
            stages.extend(Stage::of(&pass, now));
        }
        let at_a_time = |effect: &IoEffect| match *effect {
            IoEffect::Reset { after: After::Time(span) } => Some((span, Ending::Reset)),
            IoEffect::Close { after: After::Time(span) } => Some((span, Ending::Close)),
            _ => None,
        };
        let first = effects.iter().filter_map(at_a_time).min_by_key(|(span, _)| *span);
        Self {
            stages,
            deadline: first.map(|(span, ending)| (now.saturating_add(span), ending)),
            latest: now,
            held_bytes: 0,
            bound_bytes: bound_bytes(effects),
            is_over: false,
            rng,
        }
    }

    /// So many bytes came.
    pub fn push(&mut self, now: Duration, bytes: usize) {
        self.latest = self.latest.max(now);
        let bytes = bytes as u64;
        if let Some(stage) = self.stages.first_mut().filter(|stage| stage.is_open()) {
            stage.push(bytes, self.latest, &mut self.rng);
            self.held_bytes = self.held_bytes.saturating_add(bytes);
        }
    }

    /// The sender's FIN came: behind it, nothing is pushed.
    pub fn push_end(&mut self, now: Duration) {
        self.latest = self.latest.max(now);
        if let Some(stage) = self.stages.first_mut() {
            stage.push_end(Ending::Fin, self.latest, &mut self.rng);
        }
    }

    /// What is to be done now. Ask again until there is a time to wait for, or nothing to do.
    pub fn next(&mut self, now: Duration) -> Step {
        self.latest = self.latest.max(now);
        if self.is_over {
            return Step::Nothing;
        }
        // What was due before the end at a time goes before it, however late this is asked.
        let ended = self.deadline.filter(|(at, _)| *at <= self.latest);
        let at = ended.map_or(self.latest, |(at, _)| at);
        let wait = match self.run(at) {
            Release::Bytes(bytes, _) => {
                self.held_bytes = self.held_bytes.saturating_sub(bytes);
                return Step::Deliver(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            Release::End(ending, _) => return self.end(ending, true),
            Release::Wait(until) => Some(until),
            Release::Nothing => None,
        };
        if let Some((_, ending)) = ended {
            return self.end(ending, false);
        }
        let deadline = self.deadline.map(|(at, _)| at);
        match wait.into_iter().chain(deadline).min() {
            Some(until) => Step::WaitUntil(until),
            None => Step::Nothing,
        }
    }

    /// Whether more is to be read. Read no more once it says no, until it says yes again.
    #[must_use]
    pub fn wants(&self) -> bool {
        let batches: usize = self.stages.iter().map(Stage::batches).sum();
        !self.is_over
            && self.stages.iter().all(Stage::is_open)
            && self.held_bytes < self.bound_bytes
            && batches < BATCHES_MAX
    }

    /// Bytes that were pushed and not delivered.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes from which on it wants no more: 64 KiB, and with a latency what comes within it, by the bandwidth if there
    /// is one, but 1 MiB at most.
    #[must_use]
    pub fn bound_bytes(&self) -> u64 {
        self.bound_bytes
    }

    /// Whether its end has been said.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Moves on what is due, from stage to stage; what the last one says, or else the first time to wait for.
    fn run(&mut self, at: Duration) -> Release {
        let Self { stages, rng, .. } = self;
        let mut wait: Option<Duration> = None;
        let mut sooner = |until: Duration| wait = Some(wait.map_or(until, |at| at.min(until)));
        for index in 1..stages.len() {
            let (before, behind) = stages.split_at_mut(index);
            let (Some(from), Some(to)) = (before.last_mut(), behind.first_mut()) else { continue };
            loop {
                match from.release(at, rng) {
                    Release::Bytes(bytes, at) => to.push(bytes, at, rng),
                    Release::End(ending, at) => to.push_end(ending, at, rng),
                    Release::Wait(until) => break sooner(until),
                    Release::Nothing => break,
                }
            }
        }
        match stages.last_mut().map(|stage| stage.release(at, rng)) {
            Some(Release::Wait(until)) => sooner(until),
            Some(Release::Nothing) | None => {}
            Some(passes) => return passes,
        }
        wait.map_or(Release::Nothing, Release::Wait)
    }

    fn end(&mut self, ending: Ending, is_behind_bytes: bool) -> Step {
        self.is_over = true;
        self.stages.clear();
        match ending {
            Ending::Fin => Step::End,
            Ending::Close => Step::Close,
            Ending::Reset => Step::Reset { is_behind_bytes },
        }
    }
}

fn bound_bytes(effects: &[IoEffect]) -> u64 {
    let mut latency = Duration::ZERO;
    let mut rate = u64::MAX;
    for effect in effects {
        match *effect {
            IoEffect::Latency(delay) => latency = latency.saturating_add(delay.most()),
            IoEffect::Bandwidth { bytes_per_s, .. } => rate = rate.min(bytes_per_s),
            _ => {}
        }
    }
    let under_way = latency.as_nanos().saturating_mul(u128::from(rate)) / 1_000_000_000;
    let under_way = u64::try_from(under_way).unwrap_or(u64::MAX);
    HELD_BYTES.saturating_add(under_way).min(HELD_BYTES_MAX)
}

#[cfg(test)]
mod tests;
