//! Bytes that look random and are the same in each run, and their comparison.

/// Numbers that look random and are the same in each run (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c909)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 1 to `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize + 1
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// An endless stream of random bytes, the same for the same seed however it is cut.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    rng: Rng,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), word: [0; 8], used: 8 }
    }

    pub(crate) fn fill(&mut self, into: &mut [u8]) {
        let carried = into.len().min(8 - self.used);
        let (head, rest) = into.split_at_mut(carried);
        head.copy_from_slice(&self.word[self.used..self.used + carried]);
        self.used += carried;
        let mut words = rest.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.rng.next().to_le_bytes());
        }
        let tail = words.into_remainder();
        if !tail.is_empty() {
            self.word = self.rng.next().to_le_bytes();
            tail.copy_from_slice(&self.word[..tail.len()]);
            self.used = tail.len();
        }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut taken = vec![0; bytes];
        self.fill(&mut taken);
        taken
    }
}

/// Compares a stream with a pattern, byte by byte.
#[derive(Debug)]
pub(crate) struct Check {
    pattern: Pattern,
    expected: Vec<u8>,
    pub(crate) bytes: u64,
}

impl Check {
    pub(crate) fn new(seed: u64) -> Self {
        Self { pattern: Pattern::new(seed), expected: Vec::new(), bytes: 0 }
    }

    #[track_caller]
    pub(crate) fn next(&mut self, received: &[u8]) {
        self.expected.resize(received.len(), 0);
        self.pattern.fill(&mut self.expected);
        if self.expected != received {
            let same = self.expected.iter().zip(received).take_while(|(a, b)| a == b).count();
            panic!("byte {} is not what was sent", self.bytes + same as u64);
        }
        self.bytes += received.len() as u64;
    }
}
