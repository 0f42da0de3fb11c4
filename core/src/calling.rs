//! Which callback of its handler a reactor is in, for whoever wonders why it does not turn.
//!
//! One word, written by the reactor before and after each call, and read by others now and then: two plain stores
//! a message, on a cache line that nobody else writes.
//!
//! ```text
//!  63    60 59        52 51                32 31                              0
//! +--------+------------+--------------------+--------------------------------+
//! |callback|     0      |       index        |           generation           |      all ones: none
//! +--------+------------+--------------------+--------------------------------+
//! ```
//!
//! The callback of a message is number 0: its word is the key as it is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::token::Key;

const NONE: u64 = u64::MAX;
const CALLBACK_SHIFT: u32 = 60;

/// A function of a [`Handler`](crate::Handler) that a reactor calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Callback {
    /// Bytes came.
    OnData = 0,
    /// The reactor runs.
    OnStart = 1,
    /// A connection is established.
    OnOpen = 2,
    /// The peer will send no more.
    OnEof = 3,
    /// The outbox has room again.
    OnWritable = 4,
    /// Nothing moved for a while.
    OnKeepAlive = 5,
    /// The connection is over.
    OnClose = 6,
    /// The connection would go to another reactor.
    OnLeave = 7,
    /// It has come from another one.
    OnArrive = 8,
    /// The handler's own part of a turn.
    OnTurn = 9,
    /// The reactor has ended.
    OnEnd = 10,
}

impl Callback {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::OnData,
        Self::OnStart,
        Self::OnOpen,
        Self::OnEof,
        Self::OnWritable,
        Self::OnKeepAlive,
        Self::OnClose,
        Self::OnLeave,
        Self::OnArrive,
        Self::OnTurn,
        Self::OnEnd,
    ];

    /// Whether it is called for no connection.
    #[must_use]
    pub const fn is_alone(self) -> bool {
        matches!(self, Self::OnStart | Self::OnTurn | Self::OnEnd)
    }

    /// Its name in the trait.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnData => "on_data",
            Self::OnStart => "on_start",
            Self::OnOpen => "on_open",
            Self::OnEof => "on_eof",
            Self::OnWritable => "on_writable",
            Self::OnKeepAlive => "on_keep_alive",
            Self::OnClose => "on_close",
            Self::OnLeave => "on_leave",
            Self::OnArrive => "on_arrive",
            Self::OnTurn => "on_turn",
            Self::OnEnd => "on_end",
        }
    }
}

/// A call that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which function.
    pub callback: Callback,
    /// The connection that it is called for; there is none for those that [are alone](Callback::is_alone).
    pub key: Option<Key>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "{} of slot {}", self.callback.name(), key.index()),
            None => f.write_str(self.callback.name()),
        }
    }
}

/// See the module's documentation. Aligned to two cache lines, since processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Calling(AtomicU64);

impl Default for Calling {
    fn default() -> Self {
        Self(AtomicU64::new(NONE))
    }
}

impl Calling {
    /// The reactor is about to call this, for this connection.
    #[inline(always)]
    pub(crate) fn begin(&self, callback: Callback, key: Key) {
        let word = (callback as u64) << CALLBACK_SHIFT | key.to_bits();
        self.0.store(word, Ordering::Relaxed);
    }

    /// The reactor is about to call this, for no connection.
    pub(crate) fn begin_alone(&self, callback: Callback) {
        self.begin(callback, Key::new(0, 0));
    }

    /// It is back.
    #[inline(always)]
    pub(crate) fn end(&self) {
        self.0.store(NONE, Ordering::Relaxed);
    }

    /// The call that the reactor is in.
    #[must_use]
    pub fn get(&self) -> Option<Call> {
        let word = self.0.load(Ordering::Relaxed);
        let callback = *Callback::ALL.get((word >> CALLBACK_SHIFT) as usize)?;
        let key = (!callback.is_alone()).then(|| Key::from_bits(word));
        Some(Call { callback, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SLOTS_MAX;

    #[test]
    fn a_call_is_told_as_it_was_begun_until_it_ends() {
        let calling = Calling::default();
        assert_eq!(calling.get(), None);
        for (number, callback) in Callback::ALL.into_iter().enumerate() {
            assert_eq!(callback as usize, number);
            for key in [Key::new(0, 0), Key::new(17, 3), Key::new(SLOTS_MAX - 1, u32::MAX)] {
                calling.begin(callback, key);
                let key = (!callback.is_alone()).then_some(key);
                assert_eq!(calling.get(), Some(Call { callback, key }));
            }
            calling.end();
            assert_eq!(calling.get(), None);
        }
    }

    #[test]
    fn a_call_reads_as_a_log_line_wants_it() {
        let calling = Calling::default();
        calling.begin(Callback::OnData, Key::new(17, 2));
        assert_eq!(
            calling.get().map(|call| call.to_string()).as_deref(),
            Some("on_data of slot 17")
        );
        calling.begin_alone(Callback::OnStart);
        assert_eq!(calling.get().map(|call| call.to_string()).as_deref(), Some("on_start"));
    }
}
