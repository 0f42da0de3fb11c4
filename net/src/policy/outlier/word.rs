//! What is known of an endpoint's ejections, in one word.
//!
//! ```text
//!   63 62          46   45           44         43                 0
//!   -- [   times   ] [dials only] [ejected] [ until, milliseconds  ]
//! ```
//!
//! Is: pure. One state follows from another, the time and the limits. Is not: who changes the word; `outlier.rs` does,
//! by comparing and swapping.

use std::time::Duration;

use super::OutlierLimits;

const UNTIL_BITS: u32 = 44;
/// 557 years.
const UNTIL_MAX_MS: u64 = (1 << UNTIL_BITS) - 1;
const EJECTED: u64 = 1 << UNTIL_BITS;
const DIALS_ONLY: u64 = EJECTED << 1;
const TIMES_SHIFT: u32 = UNTIL_BITS + 2;
const TIMES_MAX: u32 = u16::MAX as u32;

const _: () = assert!(TIMES_SHIFT + u16::BITS <= u64::BITS);

/// How an endpoint stands, as all reactors see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EjectionState {
    /// If it is ejected: until when. Else since when it is in; zero if it always was. On the runtime's clock, in whole
    /// milliseconds.
    pub until: Duration,
    /// How often it was ejected lately, at the time of its last ejection.
    pub times: u32,
    /// Its last ejection has not been ended. It has no effect any more from `until` on.
    pub is_ejected: bool,
    /// It is ejected, and all failures that led to it were of dials.
    pub is_dials_only: bool,
}

impl EjectionState {
    pub(super) fn pack(self) -> u64 {
        let until_ms = u64::try_from(self.until.as_millis()).unwrap_or(u64::MAX).min(UNTIL_MAX_MS);
        let times = u64::from(self.times.min(TIMES_MAX)) << TIMES_SHIFT;
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        until_ms | bit(self.is_ejected, EJECTED) | bit(self.is_dials_only, DIALS_ONLY) | times
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self {
            until: Duration::from_millis(word & UNTIL_MAX_MS),
            times: (word >> TIMES_SHIFT) as u32 & TIMES_MAX,
            is_ejected: word & EJECTED != 0,
            is_dials_only: word & DIALS_ONLY != 0,
        }
    }

    /// Whether it is ejected until that time, which is to come.
    pub(crate) fn is_until(&self, until: Duration, now: Duration) -> bool {
        self.is_ejected && self.until == until && now < until
    }

    /// As a word can say it.
    pub(super) fn rounded(self) -> Self {
        Self { until: whole_ms(self.until), ..self }
    }

    /// How often it was ejected lately, as of now: one less for each base's length that it has been in.
    #[must_use]
    pub fn times_lately(&self, now: Duration, limits: &OutlierLimits) -> u32 {
        // Of one that is ejected, `until` is to come: nothing is forgotten yet.
        let forgotten = now.saturating_sub(self.until).as_nanos() / limits.base.as_nanos().max(1);
        self.times.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// Once more, from now on. `None` if it is ejected.
    pub(super) fn ejected(
        self,
        now: Duration,
        is_dials_only: bool,
        limits: &OutlierLimits,
    ) -> Option<Self> {
        if self.is_ejected {
            return None;
        }
        // More than make the longest would only have to be forgotten one by one.
        let useful = limits.longest.as_nanos().div_ceil(limits.base.as_nanos().max(1));
        let times_max = u32::try_from(useful).unwrap_or(u32::MAX).clamp(1, TIMES_MAX);
        let times = self.times_lately(now, limits).saturating_add(1).min(times_max);
        let lasts = limits.base.saturating_mul(times).min(limits.longest);
        Some(Self {
            until: whole_ms(now.saturating_add(lasts)),
            times,
            is_ejected: true,
            is_dials_only,
        })
    }
}

/// Not earlier, so that nobody is back too early, and no later than a word can say.
fn whole_ms(time: Duration) -> Duration {
    let up = time.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(up).unwrap_or(u64::MAX).min(UNTIL_MAX_MS))
}
