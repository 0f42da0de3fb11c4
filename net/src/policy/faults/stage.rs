//! One effect on one direction: what comes to it, and what it lets pass when.
//!
//! Is: a queue of counts, each with the time it came at, and a look at its front. Is not: the chain of them, nor its
//! bounds (`Course`). A stage is asked in order of time, and what it lets pass has times that never go back, so that
//! the next stage reckons from the time at which something was due, and not from the time somebody asked.

use std::collections::VecDeque;
use std::time::Duration;

use super::rules::{After, Delay, IoEffect};

const NANOS_PER_S: u128 = 1_000_000_000;
/// A bandwidth says when so much of a second's bytes may pass, not when the next byte may: or a waiter would be woken
/// for each.
const QUANTUM_OF_SECOND: u64 = 100;
/// The burst that nobody gave: of a second's bytes. Five quanta: who is asked late by four loses nothing.
const BURST_OF_SECOND: u64 = 20;

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By the sender's FIN.
    Fin,
    Close,
    Reset,
}

/// What a stage does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// So many bytes pass, as of then.
    Bytes(u64, Duration),
    /// The end passes, as of then.
    End(Ending, Duration),
    /// Not before then.
    Wait(Duration),
    /// Not before something comes, if at all.
    Nothing,
}

/// Bytes that came at the same time.
#[derive(Clone, Copy, Debug)]
struct Batch {
    bytes: u64,
    at: Duration,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Each as of its time, which may be later than it came at.
    Pass {
        delay: Delay,
        fin_delay: Duration,
    },
    Bandwidth(Bucket),
    /// The next not before `next_at`; `None`: no clock goes so far.
    Slice {
        least: u64,
        most: u64,
        pause: Duration,
        next_at: Option<Duration>,
    },
    /// `from` is known once the bytes before it have passed, of which so many are left.
    Stall {
        left: u64,
        from: Option<Duration>,
        lasts: Option<Duration>,
    },
    /// It ends like this behind so many bytes.
    Cut {
        left: u64,
        by: Ending,
    },
}

/// Tokens for bytes. What is counted are bytes times nanoseconds of a second, so nothing is ever rounded away.
#[derive(Clone, Debug)]
struct Bucket {
    bytes_per_s: u64,
    burst: u128,
    quantum: u64,
    filled: u128,
    filled_at: Duration,
}

impl Bucket {
    fn new(bytes_per_s: u64, burst_bytes: Option<u64>, now: Duration) -> Self {
        let bytes_per_s = bytes_per_s.max(1);
        let burst_bytes = burst_bytes.unwrap_or(bytes_per_s / BURST_OF_SECOND).max(1);
        let burst = u128::from(burst_bytes) * NANOS_PER_S;
        let quantum = (bytes_per_s / QUANTUM_OF_SECOND).clamp(1, burst_bytes);
        Self { bytes_per_s, burst, quantum, filled: burst, filled_at: now }
    }

    /// So many of these may pass now; of none, when so many may as are worth it.
    fn take(&mut self, bytes: u64, now: Duration) -> Result<u64, Duration> {
        let rate = u128::from(self.bytes_per_s);
        let elapsed = now.saturating_sub(self.filled_at).as_nanos();
        self.filled = self.filled.saturating_add(elapsed.saturating_mul(rate)).min(self.burst);
        self.filled_at = self.filled_at.max(now);
        let wanted = u128::from(bytes.min(self.quantum)) * NANOS_PER_S;
        if self.filled < wanted {
            let nanos = (wanted - self.filled).div_ceil(rate);
            return Err(self.filled_at.saturating_add(of_nanos(nanos)));
        }
        let taken = (self.filled / NANOS_PER_S).min(u128::from(bytes));
        self.filled -= taken * NANOS_PER_S;
        Ok(taken as u64)
    }
}

fn of_nanos(nanos: u128) -> Duration {
    match u64::try_from(nanos / NANOS_PER_S) {
        Ok(seconds) => Duration::new(seconds, (nanos % NANOS_PER_S) as u32),
        Err(_) => Duration::MAX,
    }
}

#[derive(Clone, Debug)]
pub(super) struct Stage {
    kind: Kind,
    queue: VecDeque<Batch>,
    /// Bytes of the queue.
    waiting: u64,
    end: Option<(Ending, Duration)>,
    /// What came last came then, a delay included.
    last_in: Duration,
    /// What passed last passed then.
    last_out: Duration,
    is_over: bool,
}

impl Stage {
    /// That of an effect; `None` for those at a time, which are not in the way of any byte.
    pub(super) fn of(effect: &IoEffect, now: Duration) -> Option<Self> {
        let cut = |after, by| match after {
            After::Bytes(left) => Some(Kind::Cut { left, by }),
            After::Time(_) => None,
        };
        let kind = match *effect {
            IoEffect::Latency(delay) => Kind::Pass { delay, fin_delay: Duration::ZERO },
            IoEffect::SlowClose { delay: fin_delay } => {
                Kind::Pass { delay: Delay::of(Duration::ZERO), fin_delay }
            }
            IoEffect::Bandwidth { bytes_per_s, burst_bytes } => {
                Kind::Bandwidth(Bucket::new(bytes_per_s, burst_bytes, now))
            }
            IoEffect::Slice { least_bytes, most_bytes, pause } => {
                let least = least_bytes.max(1);
                let pause = pause.max(super::PAUSE_MIN);
                Kind::Slice { least, most: most_bytes.max(least), pause, next_at: Some(now) }
            }
            IoEffect::Stall { after: After::Bytes(left), lasts } => {
                Kind::Stall { left, from: (left == 0).then_some(now), lasts }
            }
            IoEffect::Stall { after: After::Time(span), lasts } => {
                Kind::Stall { left: u64::MAX, from: Some(now.saturating_add(span)), lasts }
            }
            IoEffect::Reset { after } => cut(after, Ending::Reset)?,
            IoEffect::Close { after } => cut(after, Ending::Close)?,
        };
        let (last_in, last_out) = (now, now);
        let (queue, waiting) = (VecDeque::new(), 0);
        Some(Self { kind, queue, waiting, end: None, last_in, last_out, is_over: false })
    }

    /// Counts that it keeps.
    pub(super) fn batches(&self) -> usize {
        self.queue.len()
    }

    /// Whether what comes now would pass at some time.
    pub(super) fn is_open(&self) -> bool {
        self.end.is_none() && !self.is_over && !matches!(self.kind, Kind::Cut { left: 0, .. })
    }

    pub(super) fn push(&mut self, bytes: u64, at: Duration, rng: &mut fastrand::Rng) {
        // No more than can be counted; nobody has so many.
        let bytes = bytes.min(u64::MAX - self.waiting);
        if !self.is_open() || bytes == 0 {
            return;
        }
        let at = self.due(at, rng);
        match self.queue.back_mut() {
            Some(last) if last.at == at => last.bytes += bytes,
            _ => self.queue.push_back(Batch { bytes, at }),
        }
        self.waiting += bytes;
    }

    pub(super) fn push_end(&mut self, ending: Ending, at: Duration, rng: &mut fastrand::Rng) {
        if self.end.is_some() || self.is_over {
            return;
        }
        let mut at = self.due(at, rng);
        if let Kind::Pass { fin_delay, .. } = self.kind
            && ending != Ending::Reset
        {
            at = at.saturating_add(fin_delay);
        }
        self.end = Some((ending, at));
    }

    /// When what comes then is due: never before what came earlier.
    fn due(&mut self, at: Duration, rng: &mut fastrand::Rng) -> Duration {
        let delay = match self.kind {
            Kind::Pass { delay, .. } => delay.draw(rng),
            _ => Duration::ZERO,
        };
        self.last_in = self.last_in.max(at.saturating_add(delay));
        self.last_in
    }

    /// What it does at this time. Asked again and again, as long as it lets pass.
    pub(super) fn release(&mut self, now: Duration, rng: &mut fastrand::Rng) -> Release {
        if self.is_over {
            return Release::Nothing;
        }
        let release = match (&self.kind, self.queue.front().copied()) {
            (Kind::Cut { left: 0, by }, _) => Release::End(*by, self.last_out),
            (_, Some(front)) => self.release_bytes(front, now, rng),
            (_, None) => self.release_end(now),
        };
        match release {
            Release::Bytes(bytes, at) => {
                self.shorten(bytes);
                self.last_out = self.last_out.max(at);
                Release::Bytes(bytes, self.last_out)
            }
            Release::End(ending, at) => {
                self.is_over = true;
                self.queue.clear();
                self.last_out = self.last_out.max(at);
                Release::End(ending, self.last_out)
            }
            other => other,
        }
    }

    fn release_bytes(&mut self, front: Batch, now: Duration, rng: &mut fastrand::Rng) -> Release {
        let Batch { bytes, at } = front;
        if at > now {
            return Release::Wait(at);
        }
        match &mut self.kind {
            Kind::Pass { .. } => Release::Bytes(bytes, at),
            Kind::Bandwidth(bucket) => match bucket.take(self.waiting, now) {
                Ok(bytes) => Release::Bytes(bytes, now),
                Err(at) => Release::Wait(at),
            },
            Kind::Slice { next_at: None, .. } => Release::Nothing,
            Kind::Slice { next_at: Some(next_at), .. } if now < *next_at => Release::Wait(*next_at),
            Kind::Slice { least, most, pause, next_at } => {
                *next_at = now.checked_add(*pause);
                Release::Bytes(rng.u64(*least..=*most).min(self.waiting), now)
            }
            Kind::Stall { left, from: from @ None, .. } => {
                let passes = bytes.min(*left);
                *left -= passes;
                if *left == 0 {
                    *from = Some(at);
                }
                Release::Bytes(passes, at)
            }
            Kind::Stall { from: Some(from), lasts, .. } => stalled(*from, *lasts, at, now)
                .map_or_else(|wait| wait, |at| Release::Bytes(bytes, at)),
            Kind::Cut { left, .. } => {
                let passes = bytes.min(*left);
                *left -= passes;
                Release::Bytes(passes, at)
            }
        }
    }

    fn release_end(&mut self, now: Duration) -> Release {
        let Some((ending, at)) = self.end else { return Release::Nothing };
        if at > now {
            return Release::Wait(at);
        }
        match self.kind {
            Kind::Stall { from: Some(from), lasts, .. } => stalled(from, lasts, at, now)
                .map_or_else(|wait| wait, |at| Release::End(ending, at)),
            _ => Release::End(ending, at),
        }
    }

    /// So many bytes at the front have passed.
    fn shorten(&mut self, mut bytes: u64) {
        self.waiting -= bytes;
        while bytes > 0 {
            let Some(front) = self.queue.front_mut() else { return };
            let gone = front.bytes.min(bytes);
            (front.bytes, bytes) = (front.bytes - gone, bytes - gone);
            if front.bytes == 0 {
                self.queue.pop_front();
            }
        }
    }
}

/// When what came then passes a stall, or what is waited for.
fn stalled(
    from: Duration,
    lasts: Option<Duration>,
    at: Duration,
    now: Duration,
) -> Result<Duration, Release> {
    if at < from {
        return Ok(at);
    }
    let Some(until) = lasts.map(|lasts| from.saturating_add(lasts)) else {
        return Err(Release::Nothing);
    };
    match now < until {
        true => Err(Release::Wait(until)),
        false => Ok(at.max(until)),
    }
}
