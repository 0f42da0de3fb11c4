//! The kernel below one connection, as a model, and the machine on it.

use std::collections::BTreeSet;
use std::rc::Rc;

use slipring_core::config::{
    NOTIFICATIONS_MAX, SEGMENTS_PER_SEND_MAX, SUBMISSIONS_PER_CONNECTION_MAX,
};
use slipring_core::connection::{
    Action, Connection, Event, Input, Pause, Rules, Side, State, Surroundings,
};
use slipring_core::outbox::Pieces;
use slipring_core::span::{Segment, Span};
use slipring_core::sys::memory::Memory;
use slipring_core::token::{Descriptor, Key, Op};
use slipring_core::{CloseReason, Fault};

pub(crate) const START_MS: u64 = 1_000_000;
pub(crate) const DIAL_MS: u64 = 3_000;
pub(crate) const NEVER: u64 = u64::MAX;

pub(crate) fn rules(receive_cap: bool, zero_copy_min: u32) -> Rules {
    Rules {
        idle_ms: 60_000,
        write_stall_ms: 9_000,
        half_closed_ms: 20_000,
        linger_ms: 1_000,
        first_byte_ms: 0,
        high_bytes: 1_000,
        low_bytes: 400,
        high_pieces: 6,
        outbox_bytes_max: 100_000,
        zero_copy_min,
        receive_cap,
    }
}

/// The byte at a place of the stream that is sent.
pub(crate) fn byte_at(place: u64) -> u8 {
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// A send the kernel has.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) segments: Vec<Segment>,
    pub(crate) bytes: u32,
    pub(crate) zero_copy: bool,
}

/// What the kernel answers, as far as there is a choice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Good { share: u8, more: bool },
    Bad(Fault),
}

/// The machine and the kernel below it.
pub(crate) struct World {
    pub(crate) connection: Connection,
    pub(crate) memory: Rc<Memory>,
    pub(crate) pieces: Pieces,
    pub(crate) rules: Rules,
    pub(crate) now_ms: u64,
    pub(crate) flights: BTreeSet<Op>,
    pub(crate) cancel_asked: BTreeSet<Op>,
    pub(crate) cancels: u32,
    pub(crate) notifications: u16,
    pub(crate) sending: Option<Sending>,
    pub(crate) armed_ms: Option<u64>,
    /// When the phase that runs has to have ended, and whether the first byte ends it.
    pub(crate) phase: Option<(u64, bool)>,
    pub(crate) paused: BTreeSet<u8>,
    /// Zero-copy sends may leave their buffers with the kernel.
    pub(crate) may_keep: bool,
    /// A watch was told of the FIN.
    pub(crate) watches_on: bool,
    pub(crate) parked: bool,
    /// A dial that has no socket yet.
    pub(crate) queued: bool,
    pub(crate) eof: bool,
    pub(crate) fin: bool,
    pub(crate) closed: bool,
    /// How it was closed: with a reset, or not.
    pub(crate) abortive: Option<bool>,
    pub(crate) freed: Option<CloseReason>,
    pub(crate) appended: u64,
    pub(crate) taken: u64,
    pub(crate) minted: u32,
    pub(crate) released: u32,
}

impl World {
    pub(crate) fn new(dialed: bool, rules: Rules) -> Self {
        let connection = if dialed {
            Connection::dialing(START_MS + DIAL_MS, &rules, START_MS)
        } else {
            Connection::accepted(Descriptor(3), &rules, START_MS)
        };
        let mut world = Self {
            connection,
            memory: Memory::new(1, 64, 1 << 24),
            pieces: Pieces::new(),
            rules,
            now_ms: START_MS,
            flights: BTreeSet::new(),
            cancel_asked: BTreeSet::new(),
            cancels: 0,
            notifications: 0,
            sending: None,
            armed_ms: None,
            phase: (rules.first_byte_ms > 0 && !dialed)
                .then(|| (START_MS + u64::from(rules.first_byte_ms), true)),
            paused: BTreeSet::new(),
            may_keep: true,
            watches_on: false,
            parked: false,
            queued: dialed,
            eof: false,
            fin: false,
            closed: dialed,
            abortive: None,
            freed: None,
            appended: 0,
            taken: 0,
            minted: 0,
            released: 0,
        };
        world.poll();
        world
    }

    /// Passes an input; what holds of every input is checked.
    pub(crate) fn handle(&mut self, input: Input) -> Event {
        let before = self.connection.state();
        let was_high = self.connection.is_high();
        let Self { connection, memory, pieces, rules, now_ms, released, .. } = self;
        let release = |span: Span| {
            *released += 1;
            memory.release(span);
        };
        let around = Surroundings { pieces, release, rules, now_ms: *now_ms };
        let event = connection.handle(input, around);
        if matches!(event, Event::Data | Event::EndOfStream) {
            self.phase = self.phase.filter(|(_, until_first_byte)| !until_first_byte);
        }
        let connection = &self.connection;
        if let State::Closing { reason: CloseReason::PhaseTimeout } = connection.state()
            && !matches!(before, State::Closing { .. })
        {
            let until_ms = self.phase.expect("a phase runs").0;
            assert!(until_ms <= self.now_ms && input == Input::TimerExpired, "too early");
            assert!(matches!(before, State::Established | State::HalfClosed { .. }), "{before:?}");
        }
        let reads =
            matches!(before, State::Established | State::HalfClosed { side: Side::Ours, .. });
        match input {
            Input::Received { .. } => {
                assert_eq!(event, if reads { Event::Data } else { Event::Discard });
            }
            Input::EndOfStream => assert_eq!(event == Event::EndOfStream, reads),
            Input::ReceiveEnded(fault) => {
                let waits = fault == Fault::NoBuffers && !matches!(before, State::Closing { .. });
                assert_eq!(event == Event::Parked, waits, "who closes needs no buffer");
            }
            _ => {}
        }
        let is_high = self.connection.is_high();
        // An end takes the outbox with it, and is told of by itself.
        let ended = matches!(self.connection.state(), State::Closing { .. });
        let falls = was_high && !is_high && !ended;
        assert_eq!(event == Event::Writable, falls, "told when it is low");
        if let (
            State::Draining { linger_until_ms: first_ms, .. },
            State::Draining { linger_until_ms: then_ms, .. },
        ) = (before, self.connection.state())
        {
            assert!(first_ms == NEVER || first_ms == then_ms, "the wait for the FIN was moved");
        }
        event
    }

    pub(crate) fn append(&mut self, bytes: u32) {
        if !self.connection.may_send() || self.freed.is_some() {
            return;
        }
        let end = self.appended + u64::from(bytes);
        let span = self.memory.adopt((self.appended..end).map(byte_at).collect()).expect("room");
        self.appended = end;
        self.minted += 1;
        let was_high = self.connection.is_high();
        let Self { connection, memory, pieces, rules, now_ms, released, .. } = self;
        let release = |span: Span| {
            *released += 1;
            memory.release(span);
        };
        let around = Surroundings { pieces, release, rules, now_ms: *now_ms };
        let passed = connection.append(span, around);
        let outbox = &connection.outbox;
        let is_high = connection.is_high();
        assert_eq!(passed, is_high && !was_high);
        assert!(is_high || outbox.bytes() < rules.high_bytes);
        assert!(is_high || outbox.pieces() < rules.high_pieces);
    }

    /// Does all that is wanted, at most what the queue was asked to have room for, and looks around.
    pub(crate) fn poll(&mut self) {
        let mut submissions = 0;
        while self.freed.is_none() {
            let wants = self.connection.wants_something(&self.rules);
            let action = self.connection.poll_action(&self.rules);
            assert_eq!(wants, action.is_some(), "{action:?}");
            let Some(action) = action else { break };
            submissions += u32::from(!matches!(action, Action::SetTimer(_) | Action::Free(_)));
            assert!(submissions <= SUBMISSIONS_PER_CONNECTION_MAX, "{action:?} is one too many");
            self.act(action);
        }
        if self.freed.is_none() {
            self.check_rest();
        }
    }

    pub(crate) fn take_off(&mut self, op: Op) {
        assert!(self.flights.insert(op), "{op:?} is in flight already");
        self.cancel_asked.remove(&op);
    }

    pub(crate) fn act(&mut self, action: Action) {
        let state = self.connection.state();
        let ending = matches!(action, Action::Close { .. } | Action::Cancel(_) | Action::Free(_));
        assert!(ending || !matches!(state, State::Closing { .. }), "{action:?} while closing");
        let timer = matches!(action, Action::SetTimer(_) | Action::Free(_));
        assert!(timer || !self.closed, "{action:?} without a socket");
        match action {
            Action::Send => {
                assert!(!self.fin, "sent after the FIN");
                assert!(!self.flights.contains(&Op::Watch) || self.watches_on);
                assert!(!self.connection.is_blocked());
                self.take_off(Op::Send);
                self.begin_send();
            }
            Action::Watch { many } => {
                assert!(!self.flights.contains(&Op::Send) && self.connection.is_blocked());
                assert_eq!(many, self.watches_on, "once, until the peer's FIN has ended one");
                self.take_off(Op::Watch);
            }
            Action::Receive => {
                assert!(!self.eof, "armed after the end of the stream");
                assert!(!self.parked, "armed while it waits for a buffer");
                let draining = matches!(state, State::Draining { .. });
                assert!(self.paused.is_empty() || draining, "armed while held back");
                self.take_off(Op::Receive);
            }
            Action::SetTimer(deadline_ms) => {
                assert_eq!(deadline_ms, self.connection.deadline_ms(&self.rules));
                assert!(self.armed_ms.is_none_or(|armed_ms| deadline_ms < armed_ms), "no nearer");
                assert_ne!(deadline_ms, NEVER);
                self.armed_ms = Some(deadline_ms);
            }
            Action::Cancel(op) => {
                assert!(self.flights.contains(&op), "{op:?} is cancelled, and not in flight");
                assert!(self.cancel_asked.insert(op), "{op:?} is cancelled twice");
                self.cancels += 1;
            }
            Action::Shutdown => {
                assert!(!std::mem::replace(&mut self.fin, true), "a second FIN");
                assert!(!self.flights.contains(&Op::Send), "a FIN during a send");
                assert_eq!(self.taken, self.appended, "a FIN before the last byte");
                self.take_off(Op::Shutdown);
            }
            Action::Close { abortive } => {
                assert!(self.flights.is_empty() && self.cancels == 0, "closed too early");
                self.abortive = Some(abortive);
                self.take_off(Op::Close);
            }
            Action::Free(reason) => self.free(reason),
        }
    }

    pub(crate) fn begin_send(&mut self) {
        let mut segments = Vec::new();
        let outbox = &self.connection.outbox;
        let bytes = outbox.segments(&self.pieces, SEGMENTS_PER_SEND_MAX, &mut segments);
        assert!(bytes > 0, "sent nothing");
        let zero_copy = self.connection.begin_send(bytes, &self.rules, || self.may_keep);
        assert!(!zero_copy || self.notifications < NOTIFICATIONS_MAX);
        assert!(!zero_copy || bytes >= self.rules.zero_copy_min && self.rules.zero_copy_min > 0);
        self.sending = Some(Sending { segments, bytes, zero_copy });
    }

    pub(crate) fn free(&mut self, reason: CloseReason) {
        assert!(self.flights.is_empty() && self.cancels == 0, "freed too early");
        assert_eq!(self.notifications, 0, "freed with memory in the kernel");
        assert!(self.closed && self.connection.descriptor().is_none(), "freed with a socket");
        assert_eq!(self.released, self.minted, "every span is released once");
        assert_eq!((self.memory.owned_bytes(), self.pieces.used()), (0, 0));
        if matches!(reason, CloseReason::LocalClosed | CloseReason::PeerClosed) {
            assert_eq!(self.taken, self.appended, "an orderly end, and bytes left");
        }
        self.freed = Some(reason);
    }

    /// What holds whenever nothing is wanted.
    pub(crate) fn check_rest(&self) {
        let state = self.connection.state();
        let flies = |op| self.flights.contains(&op);
        for op in [Op::Connect, Op::Receive, Op::Send, Op::Watch, Op::Shutdown, Op::Close] {
            let (_, _, activation) = self.connection.token(op, Key::new(0, 0)).decode();
            assert_eq!(self.connection.expects(op, activation), flies(op), "{op:?}");
        }
        assert_eq!(self.connection.is_sending(), flies(Op::Send), "what must not be moved");
        assert_eq!(self.connection.expects_notification(), self.notifications > 0);
        assert_eq!(self.connection.is_parked(), self.parked, "who waits for a buffer");
        assert!(!self.connection.is_unwatched(), "nobody tells when the socket empties");
        for who in [Pause::Handler, Pause::Outbox, Pause::Move] {
            let held_back = self.paused.contains(&(who as u8));
            assert_eq!(self.connection.is_paused(who), held_back, "held back: {who:?}");
        }
        assert_eq!(self.released + self.connection.outbox.pieces(), self.minted);
        let deadline_ms = self.connection.deadline_ms(&self.rules);
        let empty = self.connection.outbox.is_empty();
        let waits = |who: &str| {
            assert!(deadline_ms != NEVER, "{who} without a deadline: {state:?}");
            assert!(self.armed_ms.is_some_and(|ms| ms <= deadline_ms), "{who}: no timer");
        };
        match state {
            State::Opening { deadline_ms: until_ms, .. } => {
                assert_eq!(until_ms, START_MS + DIAL_MS);
                return waits("opening");
            }
            State::Established | State::HalfClosed { .. } => {
                assert!(self.phase.is_none_or(|(until_ms, _)| deadline_ms <= until_ms), "phase");
                waits("open");
            }
            State::Draining { .. } if empty && flies(Op::Shutdown) => {
                // Between flush and FIN: the kernel answers a shutdown at once, whatever the peer does.
            }
            State::Draining { .. } => waits("draining"),
            State::Closing { .. } => {
                let held = !self.flights.is_empty() || self.cancels > 0 || self.notifications > 0;
                return assert!(held, "closing, and waiting for nothing");
            }
        }
        if self.connection.is_loose() {
            let held = !self.flights.is_empty() || self.cancels > 0 || self.notifications > 0;
            assert!(!held && empty && state == State::Established, "loose, and held");
        }
        let watched = flies(Op::Watch) && (self.connection.is_blocked() || !self.watches_on);
        assert_eq!(!empty, flies(Op::Send) || watched, "bytes wait, or none");
        assert!(!empty || !self.connection.is_high(), "empty, and high");
        let ours = matches!(state, State::HalfClosed { side: Side::Ours, .. });
        if ours || matches!(state, State::Draining { .. }) {
            assert!(!empty || self.fin, "the FIN is forgotten");
        }
        if ours || state == State::Established {
            let held_back = !self.paused.is_empty();
            assert!(held_back || self.parked || flies(Op::Receive), "nobody reads");
            let cancelled = self.cancel_asked.contains(&Op::Receive);
            let ends = self.rules.receive_cap && !self.connection.is_paused(Pause::Move);
            let stays = ends || !flies(Op::Receive) || cancelled;
            assert!(!held_back || stays, "held back, and reading without a cap");
        }
    }

    // -------------------------------------------------------------------------- what the kernel does

    /// Whatever the kernel holds, in a fixed order.
    pub(crate) fn held(&self) -> Vec<Op> {
        let notification = (self.notifications > 0).then_some(Op::Wake);
        let cancel = (self.cancels > 0).then_some(Op::Cancel);
        self.flights.iter().copied().chain(cancel).chain(notification).collect()
    }

    /// The kernel answers one of the things it holds; `Op::Wake` stands for a notification.
    pub(crate) fn complete(&mut self, op: Op, answer: Answer) {
        let goes_on = match (op, answer) {
            (Op::Receive, Answer::Good { share, more }) => share > 0 && more,
            (Op::Watch, Answer::Good { more, .. }) => more && self.watches_on,
            _ => false,
        };
        let lands = !matches!(op, Op::Cancel | Op::Wake) && !goes_on;
        if lands {
            self.flights.remove(&op);
        }
        let nothing = match answer {
            Answer::Good { .. } => Ok(()),
            Answer::Bad(fault) => Err(fault),
        };
        match op {
            Op::Connect => {
                self.handle(Input::Connected(nothing));
            }
            Op::Receive => self.complete_receive(answer),
            Op::Send => self.complete_send(answer),
            Op::Watch => {
                let room = !matches!(answer, Answer::Good { share: 0, .. });
                self.handle(Input::Watched { room, reads: room, more: goes_on });
                self.watches_on |= !room;
            }
            Op::Shutdown => {
                self.handle(Input::ShutdownDone(nothing));
            }
            Op::Close => {
                self.closed = true;
                self.handle(Input::Closed);
            }
            Op::Cancel => {
                self.cancels -= 1;
                self.handle(Input::CancelDone);
            }
            _ => {
                self.notifications -= 1;
                self.handle(Input::Notified { copied: nothing.is_err() });
            }
        }
    }

    pub(crate) fn complete_receive(&mut self, answer: Answer) {
        match answer {
            Answer::Good { share: 0, .. } => {
                self.eof = true;
                self.handle(Input::EndOfStream);
            }
            Answer::Good { share, more } => {
                self.handle(Input::Received { bytes: u32::from(share) * 100, more });
            }
            Answer::Bad(fault) => {
                let event = self.handle(Input::ReceiveEnded(fault));
                self.parked |= event == Event::Parked;
            }
        }
    }

    pub(crate) fn complete_send(&mut self, answer: Answer) {
        let Sending { segments, bytes, zero_copy } = self.sending.take().expect("in flight");
        // The kernel may have read them until now, whatever became of the connection.
        let lent = segments.iter().map(|&segment| self.memory.lease(self.memory.retain(segment)));
        let lent: Vec<u8> = lent.flat_map(|lease| lease.to_vec()).collect();
        assert_eq!(lent.len(), bytes as usize);
        let due = (self.taken..).map(byte_at).take(lent.len());
        assert!(lent.iter().copied().eq(due), "not the bytes that are due");
        let (result, more) = match answer {
            Answer::Good { share, more } => {
                let part = u64::from(bytes) * u64::from(share) / u64::from(u8::MAX);
                let part = if more { u64::from(bytes) } else { part.max(1) };
                self.taken += part;
                (Ok(part as u32), zero_copy)
            }
            // A zero-copy send that fails may have pinned its memory all the same.
            Answer::Bad(fault) => (Err(fault), zero_copy && fault != Fault::Cancelled),
        };
        self.notifications += u16::from(more);
        self.handle(Input::Sent { result, more });
    }

    /// The wheel delivers the timer, at the time it was armed for or before.
    pub(crate) fn expire(&mut self) {
        if self.armed_ms.take().is_none() {
            return;
        }
        let early = self.connection.deadline_ms(&self.rules) > self.now_ms;
        let before = self.connection.state();
        let blocked = self.connection.is_blocked();
        let event = self.handle(Input::TimerExpired);
        let after = self.connection.state();
        let ended = matches!(after, State::Closing { .. });
        if early || matches!(before, State::Closing { .. }) {
            assert_eq!((before, event), (after, Event::None), "a timer that was early");
        } else {
            // A blocked connection is looked at a few times before it counts as stalled.
            let phase_over = self.phase.is_some_and(|(until_ms, _)| until_ms <= self.now_ms);
            let open = matches!(before, State::Established | State::HalfClosed { .. });
            assert!(ended || !phase_over || !open, "a phase that does not end");
            let looked = blocked && self.connection.deadline_ms(&self.rules) > self.now_ms;
            assert!(ended || event == Event::KeepAlive || looked, "a deadline without consequence");
        }
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        if self.armed_ms.is_some_and(|armed_ms| armed_ms <= self.now_ms) {
            self.expire();
        }
    }

    /// A phase begins, or, with zero, none.
    pub(crate) fn set_phase(&mut self, ms: u32) {
        self.phase = (ms > 0).then(|| (self.now_ms + u64::from(ms), false));
        self.connection.set_phase_ms(ms, self.now_ms);
    }

    pub(crate) fn end_phase(&mut self) {
        self.phase = None;
        self.connection.end_phase();
    }

    /// The dial gets its socket, or there is none to be had.
    pub(crate) fn open_socket(&mut self, good: bool) {
        if !std::mem::take(&mut self.queued) {
            return;
        }
        if !matches!(self.connection.state(), State::Opening { .. }) {
            return;
        }
        if good {
            self.closed = false;
            self.connection.connecting(Descriptor(4));
            self.take_off(Op::Connect);
        } else {
            self.handle(Input::Connected(Err(Fault::DescriptorsOfProcess)));
        }
    }

    /// Ends it, if it has not ended: the kernel answers all it holds, and nothing else happens.
    pub(crate) fn finish(&mut self) -> CloseReason {
        self.handle(Input::Abort(CloseReason::Aborted));
        self.poll();
        for _ in 0..16 + u32::from(self.notifications) {
            if let Some(reason) = self.freed {
                return reason;
            }
            for op in self.held() {
                self.complete(op, Answer::Bad(Fault::Cancelled));
            }
            self.poll();
        }
        panic!("not freed: {:?}, {:?} in flight", self.connection, self.held());
    }
}

impl World {
    pub(crate) fn step(&mut self, op: Op, answer: Answer) {
        self.complete(op, answer);
        self.poll();
    }

    /// So many bytes wait for a peer that takes none of them.
    pub(crate) fn block(&mut self, bytes: u32) {
        self.append(bytes);
        self.poll();
        self.step(Op::Send, Answer::Bad(Fault::WouldBlock));
    }

    pub(crate) fn ask(&mut self, input: Input) {
        self.handle(input);
        self.poll();
    }

    /// Time passes up to the timer, again and again, until it has a consequence.
    pub(crate) fn wait_for_the_end(&mut self, each_ms: impl Fn(&mut Self)) -> u64 {
        let begin_ms = self.now_ms;
        for _ in 0..100_000 {
            if matches!(self.connection.state(), State::Closing { .. }) {
                return self.now_ms - begin_ms;
            }
            self.wait(100);
            self.poll();
            each_ms(self);
        }
        panic!("it never ends: {:?}", self.connection);
    }
}
