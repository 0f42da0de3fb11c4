//! The breaker's state as one word of 64 bits, and what each event makes of it.
//!
//! Is: pure functions from a word and an event to the next word. Is not: atomic; `state` puts these functions into
//! loops of compare-and-swap. Everything there is to know is in the word, so no order between it and other memory
//! matters.
//!
//! ```text
//!   bit 63                                            20           7          2      0
//!      +------------------------------------------------+------------+----------+------+
//!      |                   44 bits                      | epoch (13) | openings | kind |
//!      +------------------------------------------------+------------+----------+------+
//!   closed     forgiven from, in ms (44)
//!   open       until, in ms (44)
//!   half-open  permits (4) successes (4) rounds (4) void from, in ms (32)
//! ```
//!
//! | event | closed | open | half-open |
//! |---|---|---|---|
//! | admit | a call | refused; from `until` on half-open, a probe | a probe while there is a permit, or refused |
//! | too many failures, of its epoch | open | | |
//! | a probe went well | | | one success more; with enough of them closed |
//! | a probe failed | | | open, for twice as long |
//! | a probe says nothing, or is dropped | | | its permit is free |
//! | permits are out past `void from` | | | all permits are free, a new round |
//!
//! *Epoch*: counts changes of state, and rounds. A ticket carries the epoch it was given in, and an outcome counts only
//! where that still stands: so calls from before it opened close nothing, and failures from before it closed open
//! nothing. It wraps after 8192 changes. A probe's ticket also says from when it counts no more at all, which is well
//! before an epoch can come again; a call's may come again, and then it is one call in one window.
//!
//! *Rounds*: when permits do not come back, all of them are void and given out anew, under a new epoch. A probe of an
//! earlier round frees no permit, since its own was given to another. What it found out is as true as what the others
//! do, so its outcome counts, for 15 rounds. Without that an upstream whose answers take longer than a permit lasts
//! would never be closed.
//!
//! *Times* are whole milliseconds of the runtime's clock. Those of 44 bits last for 557 years, and stop there. Only
//! `void from` wraps, after 49.7 days, and it is looked at only while permits are out: it lies in the future as long as
//! it is no further ahead than permits last and clocks differ (`LAG_MS`). Left alone for longer than that it lies in
//! the past, but for the last minute and a bit of each 49.7 days, in which permits that nobody gave back would stay
//! out until it is over. `settle`, which every merge calls, has freed them long before.

use std::time::Duration;

use super::outcome::Outcome;

const KIND_BITS: u32 = 2;
const OPENINGS_BITS: u32 = 5;
pub(super) const EPOCH_BITS: u32 = 13;
const TIME_BITS: u32 = 44;
const COUNT_BITS: u32 = 4;
const VOID_BITS: u32 = 32;
const _: () = assert!(KIND_BITS + OPENINGS_BITS + EPOCH_BITS + TIME_BITS == u64::BITS);
const _: () = assert!(3 * COUNT_BITS + VOID_BITS == TIME_BITS);

const OPENINGS_SHIFT: u32 = KIND_BITS;
const EPOCH_SHIFT: u32 = OPENINGS_SHIFT + OPENINGS_BITS;
const TIME_SHIFT: u32 = EPOCH_SHIFT + EPOCH_BITS;
const SUCCESSES_SHIFT: u32 = COUNT_BITS;
const ROUNDS_SHIFT: u32 = 2 * COUNT_BITS;
const VOID_SHIFT: u32 = 3 * COUNT_BITS;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

const OPENINGS_MAX: u8 = (1 << OPENINGS_BITS) - 1;
pub(super) const EPOCH_MAX: u16 = (1 << EPOCH_BITS) - 1;
pub(super) const TIME_MAX_MS: u64 = (1 << TIME_BITS) - 1;
/// Permits and successes at most.
pub(super) const COUNT_MAX: u8 = (1 << COUNT_BITS) - 1;

/// By how much the time of one reactor may be behind another's: each reads the clock once a turn.
const LAG_MS: u32 = 60_000;
/// Permits last an hour at most, for `void from` to wrap seldom.
pub(super) const PERMIT_MAX_MS: u32 = 3_600_000;
/// They last no longer than so many times the shortest time open either: see `LATE_OPENS`.
const PERMIT_OPENS: u64 = LATE_OPENS / 2;
/// So many times as long as a permit lasts its ticket counts: as many rounds as can be told apart.
const LATE_ROUNDS: u64 = COUNT_MAX as u64 + 1;
/// No longer than so many times the shortest time open, though: from one half-open state to the next there are three
/// changes and such a time, so an epoch comes again after 8192 / 3 of them. A permit whose ticket counts no more could
/// not be given back by it, so permits are void before.
const LATE_OPENS: u64 = 2048;
const _: () = assert!(LATE_OPENS < (EPOCH_MAX as u64 + 1) / 3);

const fn low(bits: u64, count: u32) -> u64 {
    bits & ((1 << count) - 1)
}

fn floor_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(TIME_MAX_MS, |ms| ms.min(TIME_MAX_MS))
}

fn ceil_ms(time: Duration) -> u64 {
    floor_ms(time.saturating_add(Duration::from_nanos(999_999)))
}

// ------------------------------------------------------------------------------------- what is said

/// The breaker lets nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// When it lets somebody try, on the runtime's clock. While it is half-open and all permits are out, this is when
    /// they will be given out anew at the latest; it may close, or free one, much earlier.
    pub until: Duration,
}

/// What a call was admitted as. To be given to `report` when its outcome is known, or to `give_back`.
///
/// Lost, it keeps a permit until that is void.
#[derive(Debug)]
#[must_use = "a probe's ticket holds a permit"]
pub struct Ticket(pub(super) Admitted);

impl Ticket {
    /// Whether it holds one of the permits of a half-open breaker.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        matches!(self.0, Admitted::Probe(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Nobody wants to know.
    Unjudged,
    /// While it was closed.
    Call { epoch: u16 },
    /// While it was half-open.
    Probe(Probe),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) epoch: u16,
    /// From here on its outcome is nothing.
    pub(super) late_ms: u64,
}

/// A change of the breaker that a call brought about. Of several that find the same at the same time, one is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It opened, or opened again.
    Opened {
        /// When it lets somebody try, on the runtime's clock.
        until: Duration,
        /// How often in a row it has opened, this time included; counted to 31.
        openings: u32,
    },
    /// Enough probes went well: it closed.
    Closed,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Calls pass.
    Closed,
    /// Nothing passes until this time on the runtime's clock. After it, too, until somebody asks: who asks first is the
    /// first probe.
    Open {
        /// That time.
        until: Duration,
    },
    /// Some pass, to see.
    HalfOpen {
        /// Permits that are out, void ones among them until somebody asks.
        permits: u32,
        /// Probes that went well.
        successes: u32,
    },
}

/// The limits, as the word counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    open_ms: u64,
    open_max_ms: u64,
    permits: u8,
    successes: u8,
    permit_ms: u32,
    forgiving_ms: u64,
    late_ms: u64,
}

impl Rules {
    /// Whatever does not fit is the nearest that does.
    pub(super) fn new(
        open: Duration,
        open_max: Duration,
        permits: u32,
        successes: u32,
        permit_timeout: Duration,
        forgiving: Duration,
    ) -> Self {
        let count = |count: u32| count.clamp(1, COUNT_MAX.into()) as u8;
        let open_ms = ceil_ms(open).max(1);
        let permit_most = open_ms.saturating_mul(PERMIT_OPENS).min(PERMIT_MAX_MS.into());
        let permit_ms = ceil_ms(permit_timeout).clamp(1, permit_most);
        Self {
            open_ms,
            open_max_ms: ceil_ms(open_max).max(open_ms),
            permits: count(permits),
            successes: count(successes),
            permit_ms: permit_ms as u32,
            forgiving_ms: ceil_ms(forgiving),
            late_ms: (permit_ms * LATE_ROUNDS).min(open_ms.saturating_mul(LATE_OPENS)),
        }
    }

    /// How long it is open when it has opened so often in a row.
    fn open_for_ms(&self, openings: u8) -> u64 {
        let doubled = 1 << openings.saturating_sub(1);
        self.open_ms.saturating_mul(doubled).min(self.open_max_ms)
    }
}

// ----------------------------------------------------------------------------------------- the word

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// How often it has opened in a row.
    pub(super) openings: u8,
    pub(super) epoch: u16,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// If it opens from this time on, it is for the first time in a row.
    Closed {
        forgiven_ms: u64,
    },
    Open {
        until_ms: u64,
    },
    HalfOpen(HalfOpen),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HalfOpen {
    /// Those that are out.
    pub(super) permits: u8,
    pub(super) successes: u8,
    /// Epochs before the present one that belong to this state, counted to 15.
    pub(super) rounds: u8,
    /// When the permits are void. It wraps, and is 0 while none is out.
    pub(super) void_ms: u32,
}

impl Word {
    pub(super) const NEW: Self =
        Self { openings: 0, epoch: 0, kind: Kind::Closed { forgiven_ms: 0 } };

    /// The epoch of a packed word, if it is closed: what the path of all calls needs to know.
    pub(super) fn closed_epoch(bits: u64) -> Option<u16> {
        (low(bits, KIND_BITS) == CLOSED).then_some(low(bits >> EPOCH_SHIFT, EPOCH_BITS) as u16)
    }

    pub(super) fn unpack(bits: u64) -> Self {
        let time = bits >> TIME_SHIFT;
        let count = |shift: u32| low(time >> shift, COUNT_BITS) as u8;
        let kind = match low(bits, KIND_BITS) {
            CLOSED => Kind::Closed { forgiven_ms: time },
            OPEN => Kind::Open { until_ms: time },
            _ => Kind::HalfOpen(HalfOpen {
                permits: count(0),
                successes: count(SUCCESSES_SHIFT),
                rounds: count(ROUNDS_SHIFT),
                void_ms: (time >> VOID_SHIFT) as u32,
            }),
        };
        let openings = low(bits >> OPENINGS_SHIFT, OPENINGS_BITS) as u8;
        Self { openings, epoch: low(bits >> EPOCH_SHIFT, EPOCH_BITS) as u16, kind }
    }

    pub(super) fn pack(self) -> u64 {
        let (kind, time) = match self.kind {
            Kind::Closed { forgiven_ms } => (CLOSED, forgiven_ms),
            Kind::Open { until_ms } => (OPEN, until_ms),
            Kind::HalfOpen(HalfOpen { permits, successes, rounds, void_ms }) => {
                let counts = u64::from(permits)
                    | u64::from(successes) << SUCCESSES_SHIFT
                    | u64::from(rounds) << ROUNDS_SHIFT;
                (HALF_OPEN, counts | u64::from(void_ms) << VOID_SHIFT)
            }
        };
        time << TIME_SHIFT
            | u64::from(self.epoch) << EPOCH_SHIFT
            | u64::from(self.openings) << OPENINGS_SHIFT
            | kind
    }

    pub(super) fn standing(self) -> Standing {
        match self.kind {
            Kind::Closed { .. } => Standing::Closed,
            Kind::Open { until_ms } => Standing::Open { until: Duration::from_millis(until_ms) },
            Kind::HalfOpen(HalfOpen { permits, successes, .. }) => {
                Standing::HalfOpen { permits: permits.into(), successes: successes.into() }
            }
        }
    }

    // ------------------------------------------------------------------------------------ events

    /// Somebody wants to call.
    pub(super) fn admit(self, now: Duration, rules: &Rules) -> (Self, Result<Admitted, Open>) {
        let word = self.settle(now, rules);
        match word.kind {
            Kind::Closed { .. } => (word, Ok(Admitted::Call { epoch: word.epoch })),
            Kind::Open { until_ms } if floor_ms(now) < until_ms => {
                (word, Err(Open { until: Duration::from_millis(until_ms) }))
            }
            Kind::Open { .. } => {
                let none = HalfOpen { permits: 0, successes: 0, rounds: 0, void_ms: 0 };
                let half_open = word.into_next(word.openings, Kind::HalfOpen(none));
                half_open.give_permit(none, now, rules)
            }
            Kind::HalfOpen(half_open) if half_open.permits < rules.permits => {
                word.give_permit(half_open, now, rules)
            }
            Kind::HalfOpen(half_open) => {
                let left = half_open.void_ms.wrapping_sub(floor_ms(now) as u32);
                (word, Err(Open { until: Duration::from_millis(floor_ms(now) + u64::from(left)) }))
            }
        }
    }

    /// Calls of this epoch have failed too often.
    pub(super) fn trip(self, epoch: u16, now: Duration, rules: &Rules) -> (Self, Option<Change>) {
        match self.kind {
            Kind::Closed { forgiven_ms } if self.epoch == epoch => {
                let is_forgiven = floor_ms(now) >= forgiven_ms;
                self.open(if is_forgiven { 0 } else { self.openings }, now, rules)
            }
            _ => (self, None),
        }
    }

    /// It is known what came of a probe.
    pub(super) fn report(
        self,
        probe: Probe,
        outcome: Outcome,
        now: Duration,
        rules: &Rules,
    ) -> (Self, Option<Change>) {
        let Kind::HalfOpen(half_open) = self.kind else { return (self, None) };
        let rounds_ago = self.epoch.wrapping_sub(probe.epoch) & EPOCH_MAX;
        if rounds_ago > half_open.rounds.into() || floor_ms(now) >= probe.late_ms {
            return (self, None);
        }
        match outcome {
            Outcome::Failure | Outcome::DialFailure | Outcome::DialTimeout => {
                self.open(self.openings, now, rules)
            }
            Outcome::Success if half_open.successes + 1 >= rules.successes => {
                let forgiven_ms = (ceil_ms(now) + rules.forgiving_ms).min(TIME_MAX_MS);
                let closed = Kind::Closed { forgiven_ms };
                (self.into_next(self.openings, closed), Some(Change::Closed))
            }
            Outcome::Success => {
                let successes = half_open.successes + 1;
                let word =
                    Self { kind: Kind::HalfOpen(HalfOpen { successes, ..half_open }), ..self };
                (word.give_back(probe, now), None)
            }
            Outcome::Ignored => (self.give_back(probe, now), None),
        }
    }

    /// A probe comes to nothing: its permit is free, if it still was its own.
    pub(super) fn give_back(self, probe: Probe, now: Duration) -> Self {
        match self.kind {
            Kind::HalfOpen(half_open)
                if probe.epoch == self.epoch && floor_ms(now) < probe.late_ms =>
            {
                let permits = half_open.permits.saturating_sub(1);
                let void_ms = if permits == 0 { 0 } else { half_open.void_ms };
                Self { kind: Kind::HalfOpen(HalfOpen { permits, void_ms, ..half_open }), ..self }
            }
            _ => self,
        }
    }

    /// Permits that are void are not out any more.
    pub(super) fn settle(self, now: Duration, rules: &Rules) -> Self {
        match self.kind {
            Kind::HalfOpen(half_open) if half_open.is_void(now, rules) => {
                let rounds = (half_open.rounds + 1).min(COUNT_MAX);
                let none = HalfOpen { permits: 0, void_ms: 0, rounds, ..half_open };
                self.into_next(self.openings, Kind::HalfOpen(none))
            }
            _ => self,
        }
    }

    // ------------------------------------------------------------------------------------ leaves

    fn open(self, openings: u8, now: Duration, rules: &Rules) -> (Self, Option<Change>) {
        let openings = (openings + 1).min(OPENINGS_MAX);
        let until_ms = (ceil_ms(now) + rules.open_for_ms(openings)).min(TIME_MAX_MS);
        let until = Duration::from_millis(until_ms);
        let change = Change::Opened { until, openings: openings.into() };
        (self.into_next(openings, Kind::Open { until_ms }), Some(change))
    }

    /// The permits that are out last as long as this one: none is void before its time, and as long as some are taken
    /// somebody tries.
    fn give_permit(
        self,
        half_open: HalfOpen,
        now: Duration,
        rules: &Rules,
    ) -> (Self, Result<Admitted, Open>) {
        let now_ms = floor_ms(now) as u32;
        let void_ms = (ceil_ms(now) as u32).wrapping_add(rules.permit_ms);
        // Who took the last one may be ahead of us.
        let is_later = half_open.void_ms.wrapping_sub(now_ms) > void_ms.wrapping_sub(now_ms);
        let void_ms = if half_open.permits > 0 && is_later { half_open.void_ms } else { void_ms };
        let permits = half_open.permits + 1;
        let word =
            Self { kind: Kind::HalfOpen(HalfOpen { permits, void_ms, ..half_open }), ..self };
        let late_ms = ceil_ms(now) + rules.late_ms;
        (word, Ok(Admitted::Probe(Probe { epoch: self.epoch, late_ms })))
    }

    fn into_next(self, openings: u8, kind: Kind) -> Self {
        Self { openings, epoch: self.epoch.wrapping_add(1) & EPOCH_MAX, kind }
    }
}

impl HalfOpen {
    fn is_void(self, now: Duration, rules: &Rules) -> bool {
        let left = self.void_ms.wrapping_sub(floor_ms(now) as u32);
        self.permits > 0 && (left == 0 || left > rules.permit_ms + LAG_MS)
    }
}
