//! Every bound, in one place, with its default and where the default comes from.
//!
//! [`Limits`] are the sizes of one reactor, but for the numbers of connections, which are the process's.
//! `Limits::check` refuses values that do not fit together; `Builder::memory_bound` says what they come to:
//! the number a runtime prints at its start and stays below. `†` marks our own choices; the rest says whose
//! they are.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::clock::millis;
use crate::error::SetupError;
use crate::token::SLOTS_MAX;

/// Most buffers of a vectored send. The kernel takes 1024; past a few dozen nothing is won.
pub const SEGMENTS_PER_SEND_MAX: usize = 64;
/// Submissions one connection can need in one turn: send or watch, receive, two cancels, shutdown, close.
pub const SUBMISSIONS_PER_CONNECTION_MAX: u32 = 6;
/// The part of the submission queue kept for cancel and close, so that cleaning up always proceeds.
pub const MANAGEMENT_SHARE: u32 = 8;
/// Zero-copy sends of one connection whose notification may be outstanding. Beyond it, sends copy.
pub const NOTIFICATIONS_MAX: u16 = 64;
/// Most completions taken from the ring in one turn.
pub const COMPLETIONS_PER_TURN_MAX: usize = 1024;
/// Most clients that one listener refuses in one turn, when it refuses those that find no place. Each costs two
/// system calls.
pub const REFUSALS_PER_TURN_MAX: u32 = 32;
/// Most clients that one listener with a rate lets in in one turn, as there are tokens.
pub const PACED_PER_TURN_MAX: u32 = 32;
/// Most connections looked at in one look for idle ones; the next look goes on behind them.
pub const IDLE_LOOKED_AT_MAX: u32 = 1024;
/// And most slots, with a connection or without.
pub const IDLE_SLOTS_MAX: u32 = 16 * 1024;
/// What has moved something within this time is not evicted, milliseconds.
pub const EVICTION_IDLE_MIN_MS: u64 = 1000;
/// Most idle connections that a reactor with too much closes in one look.
pub const SHED_PER_LOOK_MAX: u32 = 16;
/// Most clients taken in in one turn, so that established connections do not wait for all of a burst. Each costs
/// about as much as a message.
pub const CLIENTS_PER_TURN_MAX: usize = 64;
/// Most timers expired in one turn.
pub const TIMERS_PER_TURN_MAX: usize = 1024;

/// A span of time after which something is given up, or `Never`, which has to be written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Not given up.
    Never,
    /// Given up after this long.
    After(Duration),
}

impl Timeout {
    /// A timeout of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self::After(Duration::from_secs(seconds))
    }

    /// Milliseconds, rounded up; zero stands for never.
    pub(crate) fn to_ms(self) -> u32 {
        match self {
            Self::Never => 0,
            Self::After(duration) => u32::try_from(millis(duration)).unwrap_or(u32::MAX),
        }
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

/// What a reactor does before it sleeps with nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Poll {
    /// Sleep at once. The default: watching spends processor time to save latency, and on a shared core it
    /// is somebody else's time.
    #[default]
    Off,
    /// Watch the completion queue for up to 50 us first, as long as that pays.
    Adaptive,
    /// Never sleep. Costs a core.
    Always,
}

/// What to dial, and how.
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use slipring_core::Dial;
///
/// let to: SocketAddr = "192.0.2.1:80".parse().expect("an address");
/// let dial = Dial::to(to).from_address([192, 0, 2, 7].into()).within(Duration::from_secs(1).into());
/// assert_eq!(Dial::from(to), Dial::to(to));
/// # assert_eq!(dial.from, Some([192, 0, 2, 7].into()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Where.
    pub to: SocketAddr,
    /// The local address to come from; its port is the kernel's choice, and as many connections to different peers
    /// share one as there are. By default the kernel chooses both.
    pub from: Option<IpAddr>,
    /// From the call to the connection, instead of [`Timeouts::dial`].
    pub timeout: Option<Timeout>,
}

impl Dial {
    /// Dials this address as the defaults have it.
    #[must_use]
    pub const fn to(to: SocketAddr) -> Self {
        Self { to, from: None, timeout: None }
    }

    /// Comes from this local address.
    #[must_use]
    pub const fn from_address(self, from: IpAddr) -> Self {
        Self { from: Some(from), ..self }
    }

    /// Takes so long at most.
    #[must_use]
    pub const fn within(self, timeout: Timeout) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

impl From<SocketAddr> for Dial {
    fn from(to: SocketAddr) -> Self {
        Self::to(to)
    }
}

/// How long a connection may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Nothing moved in either direction. Default 1 h, HAProxy's tunnel practice for raw TCP.
    pub idle: Timeout,
    /// We have bytes to send and the peer takes none. Default 30 s.
    pub write_stall: Timeout,
    /// One direction is closed and the other silent. Default 30 s †.
    pub half_closed: Timeout,
    /// A dial, from the call to the connection. Default 3 s (Sozu): covers one lost SYN.
    pub dial: Timeout,
    /// After our FIN, how long to wait for the peer's before closing. Default 1 s †.
    pub linger: Timeout,
    /// From the accept to the peer's first byte, whatever we send meanwhile: who has not spoken by then is reset
    /// ([`CloseReason::PhaseTimeout`](crate::CloseReason::PhaseTimeout)). Time in which a handler holds the
    /// reading back counts, and so does time without a free buffer. Default never: over raw TCP a peer may wait
    /// for the server to speak, or connect long before it has anything to say, as pools do; the idle timeout
    /// bounds it.
    pub first_byte: Timeout,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Timeout::seconds(3600),
            write_stall: Timeout::seconds(30),
            half_closed: Timeout::seconds(30),
            dial: Timeout::seconds(3),
            linger: Timeout::seconds(1),
            first_byte: Timeout::Never,
        }
    }
}

/// Sizes of one reactor, and how many connections the process may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Accepted connections the process may hold; each reactor has a slot for every one. Default
    /// 16384 †: twice two backlogs, so that two reactors can accept by multishot.
    pub accepted_max: u32,
    /// Dialed connections the process may hold; likewise. Default 0: a plain server dials nobody.
    pub dialed_max: u32,
    /// Buffers of the buffer ring: a power of two up to 32768. Default 256 †.
    pub buffers: u32,
    /// Bytes of each. Default 64 KiB: the best relay of those measured (docs/performance.md).
    pub buffer_bytes: u32,
    /// Entries of the submission queue: a power of two. The completion queue is eight times as long,
    /// since one multishot submission completes many times. Default 2048 †.
    pub submissions: u32,
    /// Pending clients the kernel keeps for a listener. Default 4096, clipped by `net.core.somaxconn`.
    pub backlog: u32,
    /// Messages of other reactors that wait for one at most: clients handed over, and connections that
    /// are moved. Whoever finds no room serves them itself. Default 1024 †.
    pub messages_max: u32,
    /// Bytes in an outbox at which the reading that feeds it stops. Default 64 KiB.
    pub outbox_high_bytes: u32,
    /// Bytes in an outbox at which the reading that feeds it goes on. Default 32 KiB.
    pub outbox_low_bytes: u32,
    /// Pieces in an outbox at which the reading that feeds it stops, however small they are: each may hold
    /// a whole buffer. Default 32 †.
    pub outbox_pieces_high: u32,
    /// Bytes an outbox may hold at all. Default 1 MiB †.
    pub outbox_bytes_max: u32,
    /// Owned bytes in all outboxes of the reactor together. Default 64 MiB †.
    pub owned_bytes_max: u64,
    /// Bytes one connection may receive in a turn. Default 128 KiB †. Who sends or receives a quarter of it at a
    /// time has much to move: all who have move half of it together in a turn, as long as others have little.
    pub turn_bytes_max: u32,
    /// Completions with data one connection may have in a turn. Default 16 †.
    pub turn_receives_max: u32,
    /// From how many bytes on a send avoids the copy; `None`: never. Default 32 KiB †, given up for each
    /// connection whose first such send the kernel copied all the same, as it does on loopback.
    pub zero_copy_min_bytes: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            accepted_max: 16_384,
            dialed_max: 0,
            buffers: 256,
            buffer_bytes: 64 << 10,
            submissions: 2048,
            backlog: 4096,
            messages_max: 1024,
            outbox_high_bytes: 64 << 10,
            outbox_low_bytes: 32 << 10,
            outbox_pieces_high: 32,
            outbox_bytes_max: 1 << 20,
            owned_bytes_max: 64 << 20,
            turn_bytes_max: 128 << 10,
            turn_receives_max: 16,
            zero_copy_min_bytes: Some(32 << 10),
        }
    }
}

impl Limits {
    /// Slots of the reactor: accepted and dialed connections.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.accepted_max.saturating_add(self.dialed_max)
    }

    /// Entries of the completion queue.
    #[must_use]
    pub fn completions(&self) -> u32 {
        self.submissions * 8
    }

    /// Refuses values that make no sense by themselves or beside another.
    ///
    /// # Errors
    /// [`SetupError::Config`] with the first that does not fit, and what would.
    pub fn check(&self) -> Result<(), SetupError> {
        let bad = |cause: String, remedy: &str| {
            Err(SetupError::Config { cause, remedy: remedy.to_owned() })
        };
        if self.slots() == 0 || self.slots() >= SLOTS_MAX {
            return bad(
                format!("{} connections for one reactor", self.slots()),
                "choose between 1 and 1048574, accepted and dialed together",
            );
        }
        if !self.buffers.is_power_of_two() || self.buffers > 1 << 15 {
            return bad(format!("{} buffers", self.buffers), "choose a power of two up to 32768");
        }
        if !(64..=1 << 24).contains(&self.buffer_bytes) {
            return bad(
                format!("buffers of {} bytes", self.buffer_bytes),
                "choose between 64 bytes and 16 MiB",
            );
        }
        if !self.submissions.is_power_of_two() || !(64..=1 << 12).contains(&self.submissions) {
            return bad(
                format!("a submission queue of {}", self.submissions),
                "choose a power of two between 64 and 4096",
            );
        }
        if self.backlog == 0 {
            return bad("a backlog of 0".to_owned(), "choose at least 1");
        }
        if !(1..=1 << 16).contains(&self.messages_max) {
            return bad(
                format!("room for {} messages", self.messages_max),
                "choose between 1 and 65536",
            );
        }
        if self.outbox_low_bytes >= self.outbox_high_bytes
            || self.outbox_high_bytes > self.outbox_bytes_max
        {
            return bad(
                format!(
                    "outbox watermarks {} / {} with a maximum of {}",
                    self.outbox_high_bytes, self.outbox_low_bytes, self.outbox_bytes_max
                ),
                "keep low < high <= maximum",
            );
        }
        if self.outbox_pieces_high == 0 || self.turn_receives_max == 0 || self.turn_bytes_max == 0 {
            return bad("a share of 0 for each connection".to_owned(), "choose at least 1");
        }
        if self.turn_bytes_max > i32::MAX as u32 || self.outbox_bytes_max > i32::MAX as u32 {
            return bad("a share of 2 GiB or more".to_owned(), "choose less than 2 GiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        Limits::default().check().expect("defaults are valid");
    }

    #[test]
    fn each_bad_value_is_named_with_its_remedy() {
        let good = Limits::default();
        for (limits, cause) in [
            (Limits { accepted_max: 0, ..good }, "0 connections"),
            (Limits { accepted_max: 1 << 20, ..good }, "1048576 connections"),
            (Limits { buffers: 100, ..good }, "100 buffers"),
            (Limits { buffers: 1 << 16, ..good }, "65536 buffers"),
            (Limits { buffer_bytes: 1, ..good }, "buffers of 1 bytes"),
            (Limits { submissions: 100, ..good }, "a submission queue of 100"),
            (Limits { backlog: 0, ..good }, "a backlog of 0"),
            (Limits { messages_max: 0, ..good }, "room for 0 messages"),
            (Limits { outbox_low_bytes: 1 << 16, ..good }, "outbox watermarks"),
            (Limits { outbox_bytes_max: 1, ..good }, "outbox watermarks"),
            (Limits { turn_bytes_max: 0, ..good }, "a share of 0"),
            (Limits { turn_bytes_max: u32::MAX, ..good }, "a share of 2 GiB"),
        ] {
            let message = limits.check().expect_err(cause).to_string();
            assert!(message.contains(cause), "{message}");
            assert!(message.contains("choose") || message.contains("keep"), "{message}");
        }
    }
}
