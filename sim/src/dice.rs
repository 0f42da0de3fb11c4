//! Chance, from a seed: the same seed, the same throws, on every machine.
//!
//! The generator is `fastrand`'s (wyrand), pinned by the lock file: a throw is one multiplication, and there
//! are several in each simulated completion.

/// Seeded throws.
#[derive(Debug, Clone)]
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Dice of their own, that depend on these as they are now.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    /// Dice of their own for what bears this name. These stay as they are.
    pub(crate) fn aside(&self, name: &str) -> Self {
        let salt = name.bytes().fold(0_u64, |salt, byte| salt.wrapping_mul(257) + u64::from(byte));
        Self::new(self.0.clone().u64(..) ^ salt)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// One in two.
    pub(crate) fn coin(&mut self) -> bool {
        self.0.bool()
    }

    /// So many times in a thousand. Zero throws nothing: a knob that is off leaves no trace.
    pub(crate) fn permille(&mut self, chance: u32) -> bool {
        chance > 0 && self.0.u32(0..1000) < chance
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0.u32(0..bound)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.u64(low..=high)
    }

    /// From `low` to `high`, small ones as likely as large ones: each power of two has the same share.
    pub(crate) fn log_between(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = (low.max(1).ilog2(), high.max(1).ilog2());
        let power = self.0.u32(from..=to);
        self.0.u64(1 << power..=(1 << power) * 2 - 1).clamp(low, high)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.usize(0..from.len())]
    }
}
