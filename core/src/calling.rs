//! Which callback of its handler a reactor is in, for whoever wonders why it does not turn.
//!
//! One word, written by the reactor before and after each call, and read by others now and then: two plain stores
//! a message, on a cache line that nobody else writes.
//!
//! ```text
//!  63    60 59        52 51                32 31                              0
//! +--------+------------+--------------------+--------------------------------+
//! |callback|    task    |       index        |           generation           |      all ones: none
//! +--------+------------+--------------------+--------------------------------+
//! ```
//!
//! The callback of a message is number 0: its word is the key as it is. A task is named by handlers that run some,
//! within their `on_turn`: 1 is that of a connection, 2 any other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::token::Key;

const NONE: u64 = u64::MAX;
const CALLBACK_SHIFT: u32 = 60;
const TASK_SHIFT: u32 = 52;

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
    /// The task that the handler runs in it.
    pub task: Option<Task>,
}

/// Which of its tasks a handler runs: a word, made once for each task, and noted as it runs ([`TaskNotes`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task(u64);

impl Task {
    const OF_ALL: u64 = (Callback::OnTurn as u64) << CALLBACK_SHIFT;
    /// One that serves no connection.
    pub const BESIDE: Self = Self(Self::OF_ALL | 2 << TASK_SHIFT);

    /// The one that serves this connection.
    #[must_use]
    pub fn of(key: Key) -> Self {
        Self(Self::OF_ALL | 1 << TASK_SHIFT | key.to_bits())
    }

    fn in_word(word: u64) -> Option<Self> {
        ((word >> TASK_SHIFT) & 0xff != 0).then_some(Self(word))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BESIDE => f.write_str("a task beside"),
            Self(word) => write!(f, "the task of slot {}", Key::from_bits(word).index()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.callback.name())?;
        if let Some(key) = self.key {
            write!(f, " of slot {}", key.index())?;
        }
        self.task.map_or(Ok(()), |task| write!(f, ", {task}"))
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

    /// Its handler is about to run this task, in its part of the turn.
    #[inline(always)]
    fn begin_task(&self, task: Task) {
        self.0.store(task.0, Ordering::Relaxed);
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
        let task = (callback == Callback::OnTurn).then(|| Task::in_word(word)).flatten();
        Some(Call { callback, key, task })
    }
}

/// Where a handler notes which of its tasks it runs, for whoever wonders why its reactor does not turn: a plain store
/// before each and one behind it.
#[derive(Clone, Debug)]
pub struct TaskNotes(Arc<Calling>);

impl TaskNotes {
    pub(crate) fn new(calling: &Arc<Calling>) -> Self {
        Self(Arc::clone(calling))
    }

    /// Within [`Handler::on_turn`](crate::Handler::on_turn): this one runs until the next note.
    #[inline]
    pub fn begin(&self, task: Task) {
        self.0.begin_task(task);
    }

    /// None runs any more.
    #[inline]
    pub fn end(&self) {
        self.0.begin_alone(Callback::OnTurn);
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
                assert_eq!(calling.get(), Some(Call { callback, key, task: None }));
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
        calling.end();
        let notes = TaskNotes::new(&Arc::new(calling));
        let line = || notes.0.get().map(|call| call.to_string());
        notes.begin(Task::of(Key::new(SLOTS_MAX - 1, u32::MAX)));
        let slot = SLOTS_MAX - 1;
        assert_eq!(line(), Some(format!("on_turn, the task of slot {slot}")));
        assert!(notes.0.get().is_some_and(|call| call.key.is_none()), "the call is for none");
        notes.begin(Task::BESIDE);
        assert_eq!(line().as_deref(), Some("on_turn, a task beside"));
        notes.end();
        assert_eq!(line().as_deref(), Some("on_turn"));
    }
}
