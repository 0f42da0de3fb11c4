//! One TCP stream as a state machine without I/O.
//!
//! What happened goes in by [`Connection::handle`], what is wanted comes out by
//! [`Connection::poll_action`], in a fixed order: Send or Watch, Receive, SetTimer, Cancel, Shutdown, Close,
//! Free. It knows no kernel, no clock and no bytes: time is a parameter, descriptors and spans are numbers.
//!
//! Asked is what the owner wants, the rest is what the kernel or the wheel said. A cell is the state
//! afterwards; `.` means unchanged; `-` means that it cannot happen: it is ignored.
//!
//! ```text
//! input \ state      | Opening     | Established | HalfClosed(Ours) | HalfClosed(Theirs) | Draining | Closing
//! -------------------+-------------+-------------+------------------+--------------------+----------+--------
//! Connected          | Established | -           | -                | -                  | -        | .
//! Connect failed     | Closing     | -           | -                | -                  | -        | .
//! Received           | -           | .           | .                | -                  | .        | .
//! End of stream      | -           | HalfClosed(Theirs) | Draining  | -                  | Closing  | .
//! No buffer          | -           | .           | .                | -                  | .        | .
//! Receive failed     | -           | Closing     | Closing          | -                  | Closing  | .
//! Sent               | -           | .           | .                | .                  | .        | .
//! Send blocked       | -           | .           | .                | .                  | .        | .
//! Send failed        | -           | Closing     | Closing          | Closing            | Closing  | .
//! Watched            | -           | .           | .                | .                  | .        | .
//! Shutdown done      | -           | -           | .                | -                  | .        | .
//! Shutdown failed    | -           | -           | Closing          | -                  | Closing  | .
//! Timer              | Closing     | Closing     | Closing          | Closing            | Closing  | .
//! Asked to shut down | .           | HalfClosed(Ours) | .           | Draining           | .        | .
//! Asked to close     | Closing     | Draining    | Draining         | Draining           | .        | .
//! Asked to abort     | Closing     | Closing     | Closing          | Closing            | Closing  | .
//! ```
//!
//! (Timer: if a deadline has really passed; otherwise it is armed again for the rest. An opening connection
//! asked to shut down has nothing to half-close yet: once connected it is HalfClosed(Ours), at once. End of
//! stream while draining: once what is still to be sent is out.)
//!
//! *Closing is a join.* The slot is freed when the kernel holds nothing of it: every operation has had its
//! terminal completion, every zero-copy send its notification, the descriptor its close. Order: cancel what
//! waits, all their completions, close, free.
//!
//! *A phase* is a stretch that has to end by a deadline which no byte moves: from the accept to the first byte, or
//! what the handler says (a handshake). It is no state: it runs while the connection is open, in one direction or
//! both.
//!
//! *Deadlines are lazy.* Activity only notes the time; the timer fires where it was armed, looks, and is
//! armed again for the rest. It is moved at once only when a deadline comes nearer.

mod actions;
mod deadlines;
mod ending;
mod moving;
mod sending;
mod words;

pub use self::moving::Packed;
pub use self::words::{Action, Event, Input, Pause, Rules, Side, State};

use crate::canary::{Canary, sings};
use crate::error::{CloseReason, Fault};
use crate::outbox::{Outbox, Pieces};
use crate::span::Span;
use crate::token::{Descriptor, Key, Op, Token};

/// No deadline.
const NEVER: u64 = u64::MAX;
/// Operations of a connection that count as in flight: `Connect` to `Close`.
const OPS: usize = 6;
/// Bytes read and dropped after our FIN before the connection is closed all the same.
const DISCARDED_MAX: u32 = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroCopy {
    Untried,
    Pays,
    Off,
}

/// What the machine needs beside itself while it handles an input.
#[derive(Debug)]
pub struct Surroundings<'a, R> {
    /// The arena of the outboxes.
    pub pieces: &'a mut Pieces,
    /// Where spans go that are done with.
    pub release: R,
    /// The reactor's rules.
    pub rules: &'a Rules,
    /// The time of this turn.
    pub now_ms: u64,
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Connection {
    state: State,
    /// When the last bytes came; `NEVER`: none have.
    heard_at_ms: u64,
    /// When the kernel last took bytes, or the outbox last stopped being empty.
    progress_at_ms: u64,
    /// When the phase that runs has to have ended; `NEVER`: none runs.
    phase_until_ms: u64,
    /// When the keep-alive event last came.
    kept_at_ms: u64,
    /// Where the timer stands in the wheel.
    armed_at_ms: u64,
    /// When the timer last came.
    looked_at_ms: u64,
    /// The bytes waiting.
    pub outbox: Outbox,
    descriptor: Option<Descriptor>,
    idle_ms: u32,
    keep_alive_ms: u32,
    sending_bytes: u32,
    /// Bytes in the socket's send queue when last looked at, since the kernel last took some; else zero.
    unsent: u32,
    notifications: u16,
    flights: u8,
    cancel_asked: u8,
    cancels: u8,
    paused: u8,
    activations: [u8; OPS],
    zero_copy: ZeroCopy,
    /// The send in flight avoids the copy.
    sending_zero_copy: bool,
    blocked: bool,
    parked: bool,
    high: bool,
    fin_sent: bool,
    timer_nearer: bool,
    /// The phase that runs is over with the peer's first byte.
    until_first_byte: bool,
    /// Sends without a copy that failed and whose notification is awaited.
    refused: u8,
    /// The peer's FIN would end any watch at once: one that goes on is used.
    watches_on: bool,
    /// The watch told of room while a send was under way.
    room_came: bool,
    /// Bytes were dropped unsent: the close has to be a reset, or the peer takes what it got for the whole.
    torn: bool,
}

const _: () = assert!(std::mem::size_of::<Connection>() <= 144);

impl Connection {
    /// An accepted connection.
    #[must_use]
    pub fn accepted(descriptor: Descriptor, rules: &Rules, now_ms: u64) -> Self {
        Self {
            phase_until_ms: deadlines::after(now_ms, rules.first_byte_ms),
            until_first_byte: true,
            ..Self::new(State::Established, Some(descriptor), rules, now_ms)
        }
    }

    /// A connection to be dialed until `deadline_ms`.
    #[must_use]
    pub fn dialing(deadline_ms: u64, rules: &Rules, now_ms: u64) -> Self {
        Self::new(State::Opening { deadline_ms, shut_down: false }, None, rules, now_ms)
    }

    fn new(state: State, descriptor: Option<Descriptor>, rules: &Rules, now_ms: u64) -> Self {
        Self {
            state,
            heard_at_ms: NEVER,
            progress_at_ms: now_ms,
            phase_until_ms: NEVER,
            kept_at_ms: 0,
            armed_at_ms: NEVER,
            looked_at_ms: 0,
            unsent: 0,
            outbox: Outbox::default(),
            descriptor,
            idle_ms: rules.idle_ms,
            keep_alive_ms: 0,
            sending_bytes: 0,
            notifications: 0,
            flights: 0,
            cancel_asked: 0,
            cancels: 0,
            paused: 0,
            activations: [0; OPS],
            zero_copy: ZeroCopy::Untried,
            sending_zero_copy: false,
            blocked: false,
            parked: false,
            high: false,
            fin_sent: false,
            timer_nearer: true,
            until_first_byte: false,
            refused: 0,
            watches_on: false,
            room_came: false,
            torn: false,
        }
    }

    /// Where it stands.
    #[inline]
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its socket; `None` before the dial has one and after the close.
    #[inline]
    #[must_use]
    pub fn descriptor(&self) -> Option<Descriptor> {
        self.descriptor
    }

    /// Its socket, unless its close is under way: its number may be somebody else's by now.
    #[must_use]
    pub fn descriptor_to_close(&self) -> Option<Descriptor> {
        self.descriptor.filter(|_| !self.in_flight(Op::Close))
    }

    /// Its socket is there from now on, and nothing of it is in flight.
    pub fn move_to(&mut self, descriptor: Descriptor) {
        debug_assert!(self.flights == 0, "what is in flight names the socket where it was");
        self.descriptor = Some(descriptor);
    }

    /// Whether the socket takes no more for now.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Its receive waits for a buffer, until [`Input::Unparked`].
    pub fn park(&mut self) {
        self.parked = true;
    }

    /// Whether its receive waits for a buffer.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.parked
    }

    /// Whether its reading is held back for this reason.
    #[must_use]
    pub fn is_paused(&self, who: Pause) -> bool {
        self.paused & who as u8 != 0
    }

    /// Whether a send is with the kernel: the outbox must not be moved.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.in_flight(Op::Send)
    }

    /// Whether the outbox is above its watermark.
    #[inline]
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.high
    }

    /// When bytes last moved, milliseconds.
    #[must_use]
    pub fn active_at_ms(&self) -> u64 {
        match self.heard_at_ms {
            NEVER => self.progress_at_ms,
            heard_at_ms => heard_at_ms.max(self.progress_at_ms),
        }
    }

    /// Whether more may be sent: the connection is not ending and our FIN was not asked for.
    #[inline]
    #[must_use]
    pub fn may_send(&self) -> bool {
        // What nearly all are comes first, at the price of one comparison.
        matches!(self.state, State::Established) || self.may_send_all_the_same()
    }

    #[cold]
    fn may_send_all_the_same(&self) -> bool {
        matches!(
            self.state,
            State::Opening { shut_down: false, .. } | State::HalfClosed { side: Side::Theirs, .. }
        )
    }

    /// The token of the current activation of `op`.
    #[inline]
    #[must_use]
    pub fn token(&self, op: Op, key: Key) -> Token {
        Token::new(op, key, self.activations[op as usize])
    }

    /// Whether a completion of this activation is awaited: otherwise it is stale.
    #[inline]
    #[must_use]
    pub fn expects(&self, op: Op, activation: u8) -> bool {
        self.in_flight(op) && self.activations[op as usize] == activation
    }

    /// Whether any zero-copy notification is awaited.
    #[must_use]
    pub fn expects_notification(&self) -> bool {
        self.notifications > 0
    }

    #[inline]
    fn in_flight(&self, op: Op) -> bool {
        self.flights & 1 << op as u8 != 0
    }

    #[inline]
    fn take_off(&mut self, op: Op) {
        self.flights |= 1 << op as u8;
        self.activations[op as usize] = self.activations[op as usize].wrapping_add(1);
    }

    #[inline]
    fn land(&mut self, op: Op) {
        self.flights &= !(1 << op as u8);
        self.cancel_asked &= !(1 << op as u8);
    }

    /// Holds the reading back. Bytes the kernel has delivered already still come.
    pub fn pause(&mut self, who: Pause) {
        self.paused |= who as u8;
    }

    /// Lets the reading go on, unless somebody else holds it back.
    pub fn resume(&mut self, who: Pause) {
        self.paused &= !(who as u8);
    }

    /// The dial has its socket and connects.
    pub fn connecting(&mut self, descriptor: Descriptor) {
        self.descriptor = Some(descriptor);
        self.take_off(Op::Connect);
    }

    /// Appends to the outbox. Returns whether it passed its high watermark by this.
    ///
    /// # Panics
    /// If nothing may be sent any more.
    #[inline]
    pub fn append<R: FnMut(Span)>(&mut self, span: Span, around: Surroundings<'_, R>) -> bool {
        assert!(self.may_send(), "appended to a connection that sends no more");
        if self.outbox.is_empty() {
            self.progress_at_ms = around.now_ms;
        }
        self.outbox.append(around.pieces, span, around.release);
        let is_full = self.outbox.bytes() >= around.rules.high_bytes
            || self.outbox.pieces() >= around.rules.high_pieces;
        is_full && !std::mem::replace(&mut self.high, true)
    }

    /// Takes in what happened or is asked for; what the owner has to know of it.
    ///
    /// Inlined, so that a caller with one kind of input pays for that kind only.
    #[inline(always)]
    pub fn handle<R: FnMut(Span)>(
        &mut self,
        input: Input,
        mut around: Surroundings<'_, R>,
    ) -> Event {
        let now_ms = around.now_ms;
        match input {
            Input::Received { bytes, more } => self.on_received(bytes, more, now_ms),
            Input::Sent { result, more } => self.on_sent(result, more, around),
            Input::Connected(result) => self.on_connected(result, &mut around),
            Input::EndOfStream => self.on_end_of_stream(now_ms),
            Input::ReceiveEnded(fault) => self.on_receive_ended(fault, &mut around),
            Input::Notified { copied } => self.on_notified(copied),
            Input::Watched { room, reads, more } => self.on_watched((room, reads), more, now_ms),
            Input::ShutdownDone(result) => self.on_shutdown_done(result, &mut around),
            Input::CancelDone => {
                self.cancels = self.cancels.saturating_sub(1);
                Event::None
            }
            Input::Closed => {
                self.land(Op::Close);
                self.descriptor = None;
                Event::None
            }
            Input::Unsent(unsent) => self.on_unsent(unsent, now_ms),
            Input::TimerExpired => self.on_timer(&mut around),
            Input::Unparked => {
                self.parked = false;
                Event::None
            }
            Input::Shutdown => self.on_shutdown_asked(now_ms),
            Input::Close(reason) => {
                self.on_close_asked(reason, &mut around);
                Event::None
            }
            Input::Abort(reason) => {
                self.end(reason, &mut around);
                Event::None
            }
        }
    }

    fn on_connected<R: FnMut(Span)>(
        &mut self,
        result: Result<(), Fault>,
        around: &mut Surroundings<'_, R>,
    ) -> Event {
        self.land(Op::Connect);
        let State::Opening { shut_down, .. } = self.state else { return Event::None };
        let now_ms = around.now_ms;
        self.timer_nearer = true;
        match result {
            Ok(()) => {
                self.progress_at_ms = now_ms;
                self.state = State::Established;
                if shut_down {
                    self.on_shutdown_asked(now_ms);
                }
                Event::Opened
            }
            Err(fault) => {
                self.end(CloseReason::DialFailed(fault), around);
                Event::None
            }
        }
    }

    /// [`Input::Received`], by itself.
    #[inline]
    pub fn on_received(&mut self, bytes: u32, more: bool, now_ms: u64) -> Event {
        if !more && !sings(Canary::RearmedAfterFailureOnly) {
            self.land(Op::Receive);
        }
        if self.is_receiving_state() {
            if sings(Canary::PhaseExtendedByBytes) {
                self.extend_phase(now_ms);
            }
            // A phase that ends with the first byte is over by this; its timer will find it so.
            self.heard_at_ms = now_ms;
            return Event::Data;
        }
        if let State::Draining { discarded, .. } = &mut self.state {
            *discarded = discarded.saturating_add(bytes);
        }
        Event::Discard
    }

    fn on_end_of_stream(&mut self, now_ms: u64) -> Event {
        if !self.in_flight(Op::Receive) {
            return Event::None;
        }
        self.land(Op::Receive);
        if self.until_first_byte {
            self.end_phase();
        }
        match &mut self.state {
            State::Established => {
                self.state = State::HalfClosed { side: Side::Theirs, since_ms: now_ms };
                self.timer_nearer = true;
                Event::EndOfStream
            }
            State::HalfClosed { side: Side::Ours, .. } => {
                self.drain(CloseReason::LocalClosed, true, now_ms);
                Event::EndOfStream
            }
            State::Draining { peer_done, .. } => {
                *peer_done = true;
                Event::None
            }
            State::Opening { .. } | State::HalfClosed { .. } | State::Closing { .. } => Event::None,
        }
    }

    fn on_receive_ended<R: FnMut(Span)>(
        &mut self,
        fault: Fault,
        around: &mut Surroundings<'_, R>,
    ) -> Event {
        if !self.in_flight(Op::Receive) {
            return Event::None;
        }
        self.land(Op::Receive);
        match fault {
            // Means nothing by itself: whether to arm again is decided by the wish to receive.
            Fault::Cancelled => Event::None,
            Fault::TimedOut if sings(Canary::LostPeerIgnored) => Event::None,
            Fault::NoBuffers if matches!(self.state, State::Closing { .. }) => Event::None,
            Fault::NoBuffers => {
                self.park();
                Event::Parked
            }
            fault => {
                self.fail(fault, around);
                Event::None
            }
        }
    }
}
