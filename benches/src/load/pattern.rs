//! What a connection sends: bytes that follow from its seed and the position in its stream.
//!
//! ```text
//!   byte(position) = BASE[position % 4096]  ^  byte position % 8 of key(seed, position / 4096)
//!                    tells places in a block   tells blocks, and connections, apart
//! ```
//! Any byte can be made or checked from its position alone, so nothing of a message is kept,
//! however long it is: what was sent need not be remembered, and what did not fit is made again.
//! Loss, duplication, reordering and bytes of another connection all show as bytes that differ (a
//! single byte may agree by chance, one time in 256; what follows it does not).
//!
//! It is not random, nor meant to resist anybody. Why no generator with a state, such as xorshift
//! over the stream: each word would wait for the one before. Here a block costs one key, and the
//! words are independent loads and exclusive ors, which the compiler turns into vector code, so
//! that making and checking cost less than the kernel's copy of the same bytes.

/// Bytes under one key.
const BLOCK_BYTES: usize = 4096;

const WORD_BYTES: usize = size_of::<u64>();

static BASE: [u8; BLOCK_BYTES] = base();

/// The stream of one connection, in one direction; the echo is the same stream.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The stream of this seed. Different seeds, even neighbours, give unrelated streams.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed) }
    }

    /// Writes what stands at `position` and after it.
    pub fn fill(&self, position: u64, bytes: &mut [u8]) {
        let (mut position, mut rest) = (position, bytes);
        while !rest.is_empty() {
            let (base, key) = self.block(position, rest.len());
            let (block, after) = rest.split_at_mut(base.len());
            fill_block(base, key, block);
            position += block.len() as u64;
            rest = after;
        }
    }

    /// How many of these bytes are not what stands at `position` and after it.
    #[must_use]
    pub fn count_wrong(&self, position: u64, bytes: &[u8]) -> u64 {
        let (mut position, mut rest, mut wrong) = (position, bytes, 0);
        while !rest.is_empty() {
            let (base, key) = self.block(position, rest.len());
            let (block, after) = rest.split_at(base.len());
            if differs(base, key, block) {
                wrong += count_differing(base, key, block);
            }
            position += block.len() as u64;
            rest = after;
        }
        wrong
    }

    /// The base from `position` to the end of its block, or `len` if that is nearer, and the key
    /// turned so that its first byte belongs to the first byte of that base.
    fn block(&self, position: u64, len: usize) -> (&'static [u8], u64) {
        let offset = (position % BLOCK_BYTES as u64) as usize;
        let key = mix(self.seed ^ (position / BLOCK_BYTES as u64));
        let end = BLOCK_BYTES.min(offset + len);
        (&BASE[offset..end], key.rotate_right((offset % WORD_BYTES * 8) as u32))
    }
}

fn fill_block(base: &[u8], key: u64, block: &mut [u8]) {
    let (words, tail) = block.as_chunks_mut::<WORD_BYTES>();
    let (base_words, base_tail) = base.as_chunks::<WORD_BYTES>();
    for (word, base) in words.iter_mut().zip(base_words) {
        *word = (u64::from_le_bytes(*base) ^ key).to_le_bytes();
    }
    for ((byte, base), key) in tail.iter_mut().zip(base_tail).zip(key.to_le_bytes()) {
        *byte = base ^ key;
    }
}

/// The quick answer for bytes that are right, which is nearly always.
fn differs(base: &[u8], key: u64, block: &[u8]) -> bool {
    let (words, tail) = block.as_chunks::<WORD_BYTES>();
    let (base_words, base_tail) = base.as_chunks::<WORD_BYTES>();
    let mut difference = 0;
    for (word, base) in words.iter().zip(base_words) {
        difference |= u64::from_le_bytes(*word) ^ u64::from_le_bytes(*base) ^ key;
    }
    for ((byte, base), key) in tail.iter().zip(base_tail).zip(key.to_le_bytes()) {
        difference |= u64::from(byte ^ base ^ key);
    }
    difference != 0
}

fn count_differing(base: &[u8], key: u64, block: &[u8]) -> u64 {
    let keys = key.to_le_bytes().into_iter().cycle();
    let bytes = block.iter().zip(base).zip(keys);
    bytes.filter(|((byte, base), key)| **byte != **base ^ key).count() as u64
}

/// Spreads a number over all 64 bits; one to one, so different numbers stay different.
const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const fn base() -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    let mut at = 0;
    while at < BLOCK_BYTES {
        let word = mix((at / WORD_BYTES) as u64).to_le_bytes();
        bytes[at] = word[at % WORD_BYTES];
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 3 * BLOCK_BYTES + 5;

    fn stream(seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        Pattern::new(seed).fill(0, &mut bytes);
        bytes
    }

    #[test]
    fn any_part_is_the_same_as_in_the_whole() {
        let (whole, pattern) = (stream(7), Pattern::new(7));
        for start in [0, 1, 7, 8, 4090, 4095, 4096, 4097, 8191] {
            for len in [0, 1, 3, 8, 9, 64, 4096, 4100] {
                let mut part = vec![0; len];
                pattern.fill(start as u64, &mut part);
                assert_eq!(part, whole[start..start + len], "{len} bytes at {start}");
                assert_eq!(pattern.count_wrong(start as u64, &part), 0);
            }
        }
    }

    #[test]
    fn every_changed_byte_is_counted() {
        let pattern = Pattern::new(1);
        for at in [0, 1, 63, 4095, 4096, LEN - 1] {
            let mut bytes = stream(1);
            bytes[at] ^= 0x10;
            assert_eq!(pattern.count_wrong(0, &bytes), 1, "byte {at}");
        }
        let inverted: Vec<u8> = stream(1).iter().map(|byte| !byte).collect();
        assert_eq!(pattern.count_wrong(0, &inverted), LEN as u64);
    }

    #[test]
    fn other_connections_and_other_places_look_different() {
        let (pattern, own) = (Pattern::new(3), stream(3));
        let wrong = |position, bytes: &[u8]| pattern.count_wrong(position, bytes) as usize;
        // By chance one byte in 256 agrees.
        let most = |len: usize| len - len / 64 - 2;
        for other in [2, 4, u64::MAX] {
            assert!(wrong(0, &stream(other)) > most(LEN), "seed {other}");
        }
        for shift in [1, 7, 8, 64, 4095, 4096, 8192] {
            assert!(wrong(0, &own[shift..]) > most(LEN - shift), "{shift} bytes lost");
            assert!(wrong(shift as u64, &own) > most(LEN), "{shift} bytes twice");
        }
    }
}
