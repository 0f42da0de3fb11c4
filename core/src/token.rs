//! Identity: which operation of which slot a completion belongs to.
//!
//! A [`Token`] is the `user_data` of a submission and comes back in its completions. A [`Key`] is what
//! user code holds of a connection. Both carry a generation, so that one that outlived its connection
//! is *stale* and can be told apart from its successor in the same slot.
//!
//! ```text
//!  63    60 59        52 51                32 31                              0
//! +--------+------------+--------------------+--------------------------------+
//! |   op   | activation |       index        |           generation           |
//! +--------+------------+--------------------+--------------------------------+
//! ```
//!
//! The *generation* counts the lives of a slot, the *activation* the times an operation was armed in one
//! life. Eight bits are enough for it: an operation is armed again only after the terminal completion of
//! the activation before, so the two that must be told apart are neighbours. (The notification of a zero-copy
//! send alone may come later: `sys::intake` lives with two of one token.)

use std::fmt;

/// Slots one reactor can address: the width of `index` in a token.
pub const SLOTS_MAX: u32 = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 20;
const ACTIVATION_BITS: u32 = 8;
const GENERATION_BITS: u32 = 32;
const OP_BITS: u32 = 4;
const _: () = assert!(OP_BITS + ACTIVATION_BITS + INDEX_BITS + GENERATION_BITS == 64);
const _: () = assert!(Op::ALL.len() < 1 << OP_BITS);

/// What a submission asked for, as far as the dispatch of its completion needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Op {
    /// Dialing: connect of a connection's socket.
    Connect = 0,
    /// Multishot receive of a connection.
    Receive = 1,
    /// The one send in flight of a connection.
    Send = 2,
    /// One-shot poll: tell when a blocked connection can be written to again.
    Watch = 3,
    /// Half-close of a connection.
    Shutdown = 4,
    /// Close of a connection's descriptor.
    Close = 5,
    /// Cancel of one of the above; the activation is the [`Op`] it is aimed at.
    Cancel = 6,
    /// Multishot accept of a listener.
    AcceptMany = 7,
    /// One-shot poll: tell when a listener has a client waiting.
    WatchListener = 8,
    /// Cancel of a listener's multishot accept or poll.
    CancelAccept = 9,
    /// Close of a listener, or of a descriptor that nobody wants.
    CloseOther = 10,
    /// Another thread rang.
    Wake = 11,
    /// Another reactor says that there is mail: a completion of that one's [`Notify`](Self::Notify).
    Mail = 12,
    /// Telling another reactor that there is mail; the index is the other's number.
    Notify = 13,
}

impl Op {
    /// Every operation, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Connect,
        Self::Receive,
        Self::Send,
        Self::Watch,
        Self::Shutdown,
        Self::Close,
        Self::Cancel,
        Self::AcceptMany,
        Self::WatchListener,
        Self::CancelAccept,
        Self::CloseOther,
        Self::Wake,
        Self::Mail,
        Self::Notify,
    ];
}

/// A file descriptor, as a plain number: it closes nothing when dropped.
///
/// A number of the process, or a place in the table of the ring that it is used with: one of those has the highest
/// bit set, which no number of the process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Descriptor(pub u32);

impl Descriptor {
    const OF_TABLE: u32 = 1 << 31;

    /// The place of this number in the table of a ring.
    ///
    /// # Panics
    /// If no table is so long.
    #[must_use]
    pub const fn of_table(place: u32) -> Self {
        assert!(place < Self::OF_TABLE, "no table is so long");
        Self(place | Self::OF_TABLE)
    }

    /// The place in the table; `None` of a number of the process.
    #[inline]
    #[must_use]
    pub const fn place(self) -> Option<u32> {
        match self.is_of_table() {
            true => Some(self.number()),
            false => None,
        }
    }

    /// Whether it is a place in a table.
    #[inline]
    #[must_use]
    pub const fn is_of_table(self) -> bool {
        self.0 & Self::OF_TABLE != 0
    }

    /// The number, be it of the process or of a place.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 & !Self::OF_TABLE
    }
}

/// Names one connection of one reactor, for as long as it lives.
///
/// Using a key whose connection has ended is not an error: it finds nothing.
///
/// One word, as in a token: the index above the generation. Every message has several of them passed on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// The key of the slot `index` in its life number `generation`.
    ///
    /// # Panics
    /// If `index` is [`SLOTS_MAX`] or more.
    #[inline]
    pub fn new(index: u32, generation: u32) -> Self {
        assert!(index < SLOTS_MAX, "slot {index} does not fit a token");
        Self(u64::from(index) << GENERATION_BITS | u64::from(generation))
    }

    /// The slot, below [`SLOTS_MAX`].
    #[inline]
    pub fn index(self) -> u32 {
        (self.0 >> GENERATION_BITS) as u32
    }

    /// Which life of the slot.
    #[inline]
    pub fn generation(self) -> u32 {
        self.0 as u32
    }

    /// The key as one word: the bits above those of a token's key are zero.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The key in a word, whatever stands in the bits above it.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << (INDEX_BITS + GENERATION_BITS)) - 1))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("index", &self.index())
            .field("generation", &self.generation())
            .finish()
    }
}

/// The `user_data` of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// The token of one activation of `op` on what `key` names.
    #[inline]
    pub fn new(op: Op, key: Key, activation: u8) -> Self {
        Self(
            (op as u64) << (ACTIVATION_BITS + INDEX_BITS + GENERATION_BITS)
                | u64::from(activation) << (INDEX_BITS + GENERATION_BITS)
                | key.0,
        )
    }

    /// The token as the kernel carries it.
    #[inline]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The token a completion brought back; `None` if it names no operation (none of ours).
    #[inline]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let token = Self(bits);
        ((token.op_number() as usize) < Op::ALL.len()).then_some(token)
    }

    /// Operation, key and activation.
    #[inline]
    pub fn decode(self) -> (Op, Key, u8) {
        (Op::ALL[self.op_number() as usize], self.key(), self.activation())
    }

    /// Whether it is of this operation.
    #[inline]
    pub fn is_of(self, op: Op) -> bool {
        self.op_number() == op as u64
    }

    /// What the operation is on.
    #[inline]
    pub fn key(self) -> Key {
        Key::from_bits(self.0)
    }

    /// Which time the operation was armed.
    #[inline]
    pub fn activation(self) -> u8 {
        (self.0 >> (INDEX_BITS + GENERATION_BITS)) as u8
    }

    #[inline]
    fn op_number(self) -> u64 {
        self.0 >> (ACTIVATION_BITS + INDEX_BITS + GENERATION_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_went() {
        for (number, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, number);
            for index in [0, 1, 77, SLOTS_MAX - 1] {
                for generation in [0, 1, u32::MAX] {
                    for activation in [0, 1, u8::MAX] {
                        let key = Key::new(index, generation);
                        let bits = Token::new(op, key, activation).to_bits();
                        let token = Token::from_bits(bits).expect("one of ours");
                        assert_eq!(token.decode(), (op, key, activation));
                    }
                }
            }
        }
    }

    #[test]
    fn a_place_is_no_number_of_the_process() {
        let (place, number) = (Descriptor::of_table(7), Descriptor(7));
        assert_ne!(place, number);
        assert_eq!((place.place(), number.place()), (Some(7), None));
        assert_eq!((place.number(), number.number()), (7, 7));
    }

    #[test]
    fn foreign_user_data_is_no_token() {
        assert_eq!(Token::from_bits(u64::MAX), None);
    }
}
