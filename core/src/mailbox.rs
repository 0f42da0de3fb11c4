//! Bounded messages from reactor to reactor.
//!
//! ```text
//!   any reactor --- post ---> [ queue, bounded ] --- take ---> its owner, once a turn
//!                    |
//!                    +-- the owner sleeps: a completion is put into its ring, one for all that comes
//! ```
//!
//! Not a way for bytes: what travels is a few words, and a message that finds no room comes back to its
//! poster, who does the work itself.
//!
//! **Nobody sleeps beside a message.** The owner says that it falls asleep *before* it looks into the queue a
//! last time; a poster looks whether the owner sleeps *after* it has put its message in. Whatever the order,
//! one of them sees the other. The first poster who finds it asleep wakes it, and takes the note off: the
//! others have nothing to do. An owner that is awake costs a poster no system call and no message of the ring.
//!
//! Anybody may take, not the owner alone: what was posted to a reactor that has stopped turning is served by
//! the others.

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;

use crate::moving::Moved;
use crate::sources::Source;
use crate::sync::{AtomicBool, Ordering, Slip, fence, slips, spin_loop};
use crate::token::Descriptor;

/// A client that was accepted and has its permit. Its socket belongs to whoever has this.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// Its socket.
    pub descriptor: Descriptor,
    /// The number of the listener that it came to.
    pub listener: u16,
    /// What it is counted for.
    pub source: Option<Source>,
}

/// What one reactor asks of another.
#[derive(Debug)]
pub enum Message {
    /// Serve this client.
    Client(Client),
    /// Go on with this connection.
    Moved(Box<Moved>),
}

/// What a poster has to do about the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an owner that sleeps does not see the message"]
pub enum Posted {
    /// Nothing: it is awake, or being woken.
    Seen,
    /// Wake it.
    Wake,
}

/// The messages to one reactor.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: ArrayQueue<T>,
    /// Its owner sleeps, or is about to, and nobody has undertaken to wake it.
    asleep: CachePadded<AtomicBool>,
}

impl<T> Mailbox<T> {
    /// Room for so many messages.
    ///
    /// # Panics
    /// If that is none.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity), asleep: CachePadded::new(AtomicBool::new(false)) }
    }

    /// Leaves a message.
    ///
    /// # Errors
    /// The message, when there is no room.
    pub fn post(&self, message: T) -> Result<Posted, T> {
        if slips(Slip::AsksFirst) {
            let wakes = self.asleep.swap(false, Ordering::SeqCst);
            spin_loop();
            self.queue.push(message)?;
            return Ok(if wakes { Posted::Wake } else { Posted::Seen });
        }
        self.queue.push(message)?;
        fence(Ordering::SeqCst);
        // Looked at first: a line that is only read stays with everybody.
        let wakes =
            self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed);
        Ok(if wakes { Posted::Wake } else { Posted::Seen })
    }

    /// The oldest message.
    pub fn take(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Messages that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Its owner is about to sleep; false if it must not, because something is there.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        if slips(Slip::LooksFirst) && self.queue.is_empty() {
            self.asleep.store(true, Ordering::SeqCst);
            return true;
        }
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    /// Its owner is awake.
    #[inline]
    pub fn wake_up(&self) {
        if self.asleep.load(Ordering::Relaxed) {
            self.asleep.store(false, Ordering::Relaxed);
        }
    }
}
