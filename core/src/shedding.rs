//! When a reactor has too much, and what it gives up first.
//!
//! | level | from | until | what is done |
//! |---|---|---|---|
//! | `Calm` | | | |
//! | `Hold` | memory at 85 %, or turns of 100 ms | 80 %, 50 ms | accepts nobody: clients wait in the backlog |
//! | `Shed` | memory at 95 %, or turns of 500 ms | 90 %, 250 ms | idle connections are closed too |
//!
//! Idle connections are closed, too, while there has been no descriptor for a client for a second: each gives
//! one back. Accepting goes on trying then, in its own time (`acceptor`).
//!
//! *Memory* is the plain memory that handlers gave to be sent, against its bound (`Limits::owned_bytes_max`): past
//! that, sends are refused. The buffers of the ring are no part of it, nor what stalled readers held of them and was
//! copied aside, since their being all in use is ordinary back-pressure. *Turns* count as an average over about eight
//! of them: one long one passes quickly, a reactor whose
//! every turn is long has more connections than it can serve.
//!
//! Overload goes to those who are not in yet, and then to those who are in and do nothing, never to those being
//! served. Each level ends a good deal below where it began, or a reactor at the edge would open and close its
//! listeners in every turn.
//!
//! A verdict: pure, from numbers. The reactor acts.

/// Memory at which a reactor holds, and sheds, thousandths of its bound.
const MEMORY_PERMILLE: [u64; 2] = [850, 950];
/// So much below, that level is over.
const MEMORY_SLACK: u64 = 50;
/// Average turn at which a reactor holds, and sheds, microseconds.
const TURN_US: [u64; 2] = [100_000, 500_000];
/// No descriptor for so long: a reactor sheds, milliseconds.
const SHORT_MS: u64 = 1000;
/// A turn moves the average by this part of the difference.
const AVERAGE_OVER: u64 = 8;

/// What a reactor gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// New clients.
    Hold,
    /// Idle connections too.
    Shed,
}

/// What the level is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strain {
    /// Plain memory in use, bytes.
    pub(crate) owned_bytes: u64,
    /// Since when no descriptor was to be had.
    pub(crate) short_since_ms: Option<u64>,
    /// The time.
    pub(crate) now_ms: u64,
}

/// The level of one reactor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shedding {
    level: Level,
    owned_max: u64,
    /// Average turn.
    turn_us: u64,
}

impl Shedding {
    /// Calm, with so much plain memory at most.
    #[must_use]
    pub(crate) fn new(owned_bytes_max: u64) -> Self {
        Self { level: Level::Calm, owned_max: owned_bytes_max.max(1), turn_us: 0 }
    }

    /// A turn took so long.
    #[inline]
    pub(crate) fn note_turn(&mut self, us: u64) {
        self.turn_us = self.turn_us - self.turn_us / AVERAGE_OVER + us / AVERAGE_OVER;
    }

    /// The level as of the last look.
    #[inline]
    #[must_use]
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Whether idle connections are to be closed.
    #[must_use]
    pub(crate) fn sheds(&self, strain: &Strain) -> bool {
        let long = |since_ms| strain.now_ms >= since_ms + SHORT_MS;
        self.level == Level::Shed || strain.short_since_ms.is_some_and(long)
    }

    /// Whether a look could change anything: not if it is calm, and nothing is near its bound.
    #[inline]
    #[must_use]
    pub(crate) fn is_due(&self, strain: &Strain) -> bool {
        self.level != Level::Calm
            || strain.owned_bytes >= self.owned_max / 4 * 3
            || self.turn_us >= TURN_US[0]
            || strain.short_since_ms.is_some()
    }

    /// Takes the level anew; true if it has changed.
    pub(crate) fn look(&mut self, strain: &Strain) -> bool {
        let before = self.level;
        self.level = if self.is_strained(1, strain) {
            Level::Shed
        } else if self.is_strained(0, strain) {
            Level::Hold
        } else {
            Level::Calm
        };
        self.level != before
    }

    /// Whether a level, holding or shedding, is reached, or was and is not over.
    fn is_strained(&self, which: usize, strain: &Strain) -> bool {
        let within = self.level >= [Level::Hold, Level::Shed][which];
        let memory = MEMORY_PERMILLE[which] - if within { MEMORY_SLACK } else { 0 };
        let turn_us = if within { TURN_US[which] / 2 } else { TURN_US[which] };
        let permille = u128::from(strain.owned_bytes) * 1000 / u128::from(self.owned_max);
        permille >= u128::from(memory) || self.turn_us >= turn_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(permille: u64) -> Strain {
        Strain { owned_bytes: permille * 1000, short_since_ms: None, now_ms: 0 }
    }

    fn level_at(shedding: &mut Shedding, permille: u64) -> Level {
        shedding.look(&memory(permille));
        shedding.level()
    }

    #[test]
    fn memory_has_two_levels_and_each_ends_below_where_it_began() {
        let mut shedding = Shedding::new(1_000_000);
        for (permille, level) in [
            (849, Level::Calm),
            (850, Level::Hold),
            (801, Level::Hold),
            (799, Level::Calm),
            (849, Level::Calm),
            (950, Level::Shed),
            (901, Level::Shed),
            (899, Level::Hold),
            (799, Level::Calm),
        ] {
            assert_eq!(level_at(&mut shedding, permille), level, "{permille}");
        }
    }

    #[test]
    fn one_long_turn_passes_and_many_do_not() {
        let mut shedding = Shedding::new(1_000_000);
        shedding.note_turn(700_000);
        assert_eq!(level_at(&mut shedding, 0), Level::Calm);
        for _ in 0..20 {
            shedding.note_turn(700_000);
        }
        assert_eq!(level_at(&mut shedding, 0), Level::Shed);
        let turns = (0..).take_while(|_| {
            shedding.note_turn(10);
            level_at(&mut shedding, 0) != Level::Calm
        });
        assert!((5..40).contains(&turns.count()));
    }

    #[test]
    fn a_shortage_of_descriptors_sheds_once_it_lasts_and_holds_nobody() {
        let mut shedding = Shedding::new(1);
        let strain = |now_ms| Strain { owned_bytes: 0, short_since_ms: Some(500), now_ms };
        assert!(shedding.is_due(&strain(500)));
        assert!(!shedding.sheds(&strain(1499)));
        assert!(shedding.sheds(&strain(1500)));
        assert!(!shedding.look(&strain(1500)), "it is for accepting to find one");
    }

    #[test]
    fn nothing_is_looked_at_while_all_is_well() {
        let shedding = Shedding::new(1_000_000);
        assert!(!shedding.is_due(&memory(700)));
        assert!(shedding.is_due(&memory(750)));
    }
}
