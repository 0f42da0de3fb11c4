//! One side of a TCP connection: what it has received, what it has to send, how it ends.
//!
//! The two sides of a connection are two streams that name each other. Bytes wait on the sender's side until
//! they travel (`flow`), a segment at a time, as far as the receiver has room: what has not travelled counts
//! as unacknowledged. A reset ends both sides, at once where it is made and later where it arrives.
//!
//! A zero-copy send leaves its bytes where they are: they are read when they travel, as a network card would.
//! Their hash is taken when they are sent and compared then.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use slipring_core::span::Segment;
use slipring_core::sys::memory::Memory;

use super::{Event, FileId, Kernel, Owner};
use crate::marks::Mark;
use crate::trace::What;

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Fresh,
    Connecting,
    Connected,
    /// The dial failed, with this errno.
    Failed(i32),
}

/// Bytes on their way out.
#[derive(Debug)]
enum Chunk {
    Copied(VecDeque<u8>),
    Borrowed(Borrowed),
}

/// Bytes that are still the sender's memory.
#[derive(Debug)]
struct Borrowed {
    ring: u16,
    number: u64,
    memory: Rc<Memory>,
    segments: Vec<Segment>,
    /// What they were when they were sent.
    bytes: Vec<u8>,
    /// How many have gone.
    gone: usize,
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Borrowed(borrowed) => borrowed.bytes.len() - borrowed.gone,
        }
    }
}

/// The bytes of segments that somebody holds.
pub(super) fn read_segments(memory: &Rc<Memory>, segments: &[Segment]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments {
        bytes.extend_from_slice(&memory.lease(memory.retain(*segment)));
    }
    bytes
}

/// What reading gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Bytes(Vec<u8>),
    End,
    /// Nothing yet.
    Wait,
    Failed(i32),
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(super) phase: Phase,
    pub(super) other: Option<FileId>,
    inbox: VecDeque<u8>,
    fin_in: bool,
    /// What the next call is told.
    error: Option<i32>,
    /// Reset: nothing moves any more.
    dead: bool,
    outbound: VecDeque<Chunk>,
    outbound_bytes: usize,
    /// Our FIN was asked for; it has arrived.
    fin_out: bool,
    fin_arrived: bool,
    pub(super) abortive: bool,
    /// What the dial under way will be answered with, if not by whoever listens there.
    verdict: Option<i32>,
    /// Nobody refers to it any more.
    orphan: bool,
    /// A segment is under way.
    flowing: bool,
    /// Somebody found no room since they were last told of some: the first of them, then.
    pub(super) no_room_since_us: Option<u64>,
    /// What each queue holds at most.
    bytes_max: usize,
    /// The end of the stream was read here; when that was, or our FIN was asked for.
    pub(super) told_end: bool,
    pub(super) told_end_us: u64,
    /// When bytes last left for the other side.
    pub(super) progress_us: u64,
    /// Whose connection is on the other side, once it was used: ring, and bits of its key.
    pub(super) behind: Option<(u16, u64)>,
    /// When it was connected, and when bytes last came or went here.
    pub(crate) moved_us: u64,
    /// Bytes that came and that went, ever.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Of those that went, how many never arrived.
    lost: u64,
}

impl Stream {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr, bytes_max: usize) -> Self {
        Self {
            local,
            remote,
            phase: Phase::Fresh,
            other: None,
            inbox: VecDeque::new(),
            fin_in: false,
            error: None,
            dead: false,
            outbound: VecDeque::new(),
            outbound_bytes: 0,
            fin_out: false,
            fin_arrived: false,
            abortive: false,
            verdict: None,
            orphan: false,
            flowing: false,
            no_room_since_us: None,
            bytes_max,
            told_end: false,
            told_end_us: 0,
            progress_us: 0,
            behind: None,
            moved_us: 0,
            received: 0,
            sent: 0,
            lost: 0,
        }
    }

    /// Whether reading would not have to wait.
    pub(super) fn is_readable(&self) -> bool {
        !self.inbox.is_empty()
            || self.fin_in
            || self.dead
            || self.error.is_some()
            || !matches!(self.phase, Phase::Connected | Phase::Connecting)
    }

    /// Whether a third of the send queue is free, or writing would fail.
    pub(super) fn is_writable(&self) -> bool {
        let broken = self.dead || self.error.is_some() || self.fin_out;
        let room = self.bytes_max - self.outbound_bytes.min(self.bytes_max);
        self.phase != Phase::Connecting && (broken || room >= (self.bytes_max / 3).max(1))
    }

    /// What any poll is told unasked: POLLRDHUP once the peer's FIN has come, POLLHUP once both directions have
    /// ended, POLLERR with an error that nobody was told. Any of them ends a watch for room.
    pub(super) fn unasked(&self) -> i16 {
        let idle = matches!(self.phase, Phase::Fresh | Phase::Failed(_));
        let ended = if self.dead || self.fin_in { libc::POLLRDHUP } else { 0 };
        let hup = idle || self.dead || (self.fin_in && self.fin_out);
        let hup = if hup { libc::POLLHUP } else { 0 };
        ended | hup | if self.error.is_some() { libc::POLLERR } else { 0 }
    }

    pub(super) fn set_verdict(&mut self, errno: i32) {
        self.verdict = Some(errno);
    }

    pub(super) fn take_verdict(&mut self) -> Option<i32> {
        self.verdict.take()
    }

    /// Bytes waiting to be read.
    pub(crate) fn inbox_len(&self) -> usize {
        self.inbox.len()
    }

    /// Bytes taken and not yet arrived.
    pub(crate) fn unsent(&self) -> usize {
        self.outbound_bytes
    }

    /// Bytes that the other side has, and that have come here, read or not; a FIN counts as one.
    pub(super) fn moved(&self) -> (u64, u64) {
        let acked = self.sent - self.outbound_bytes as u64 - self.lost;
        let came = self.received + self.inbox.len() as u64;
        (acked + u64::from(self.fin_arrived), came + u64::from(self.fin_in))
    }

    /// Whether a reset has ended it.
    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether our FIN was asked for.
    pub(super) fn has_sent_fin(&self) -> bool {
        self.fin_out
    }

    /// Whether the peer's FIN or a reset has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.fin_in || self.dead
    }

    /// Why the dial failed, if it did.
    pub(crate) fn dial_failure(&self) -> Option<i32> {
        match self.phase {
            Phase::Failed(errno) => Some(errno),
            _ => None,
        }
    }
}

impl Kernel {
    /// recv(2) of at most `max` bytes, without waiting.
    pub(crate) fn read(&mut self, id: FileId, max: usize) -> Reading {
        let now_us = self.now_us;
        let Some(stream) = self.stream_mut(id) else { return Reading::Failed(libc::EBADF) };
        if !stream.inbox.is_empty() {
            let was_full = stream.inbox.len() >= stream.bytes_max;
            let count = stream.inbox.len().min(max);
            let bytes: Vec<u8> = stream.inbox.drain(..count).collect();
            stream.moved_us = now_us;
            stream.received += count as u64;
            let (other, dead) = (stream.other, stream.dead);
            if dead {
                self.marks.meet(Mark::DataBeforeReset);
            }
            if was_full && let Some(other) = other {
                self.start_flow(other);
            }
            return Reading::Bytes(bytes);
        }
        if let Some(errno) = stream.error.take() {
            return Reading::Failed(errno);
        }
        if stream.dead || stream.fin_in {
            if !std::mem::replace(&mut stream.told_end, true) {
                stream.told_end_us = now_us;
            }
            return Reading::End;
        }
        match stream.phase {
            Phase::Connected | Phase::Connecting => Reading::Wait,
            _ => Reading::Failed(libc::ENOTCONN),
        }
    }

    /// Whether bytes can be sent now: how many, or why not.
    pub(super) fn room_to_send(&mut self, id: FileId) -> Result<usize, i32> {
        let now_us = self.now_us;
        let Some(stream) = self.stream_mut(id) else { return Err(libc::EBADF) };
        if let Some(errno) = stream.error.take() {
            return Err(errno);
        }
        if stream.dead || stream.fin_out {
            return Err(libc::EPIPE);
        }
        match stream.phase {
            Phase::Connected => {}
            Phase::Connecting => return Err(libc::EAGAIN),
            Phase::Fresh | Phase::Failed(_) => return Err(libc::EPIPE),
        }
        match stream.bytes_max.saturating_sub(stream.outbound_bytes) {
            0 => {
                stream.no_room_since_us.get_or_insert(now_us);
                Err(libc::EAGAIN)
            }
            room => Ok(room),
        }
    }

    /// Takes bytes to send, a copy of them. There has to be room.
    pub(super) fn put(&mut self, id: FileId, bytes: &[u8]) {
        let now_us = self.now_us;
        let Some(stream) = self.stream_mut(id) else { return };
        stream.outbound_bytes += bytes.len();
        stream.sent += bytes.len() as u64;
        stream.moved_us = now_us;
        stream.progress_us = now_us;
        match stream.outbound.back_mut() {
            Some(Chunk::Copied(last)) => last.extend(bytes),
            _ => stream.outbound.push_back(Chunk::Copied(bytes.iter().copied().collect())),
        }
        self.start_flow(id);
    }

    /// Takes bytes to send where they are, and lets go of them by the notification `number`.
    pub(super) fn put_borrowed(
        &mut self,
        id: FileId,
        (ring, number): (u16, u64),
        memory: Rc<Memory>,
        segments: Vec<Segment>,
    ) {
        let now_us = self.now_us;
        let bytes = read_segments(&memory, &segments);
        let Some(stream) = self.stream_mut(id) else { return };
        stream.outbound_bytes += bytes.len();
        stream.sent += bytes.len() as u64;
        stream.moved_us = now_us;
        stream.progress_us = now_us;
        let borrowed = Borrowed { ring, number, memory, segments, bytes, gone: 0 };
        stream.outbound.push_back(Chunk::Borrowed(borrowed));
        self.start_flow(id);
    }

    /// send(2) by an actor, without waiting; how much was taken.
    pub(crate) fn write(&mut self, id: FileId, bytes: &[u8]) -> Result<usize, i32> {
        let room = self.room_to_send(id)?;
        let count = room.min(bytes.len());
        self.put(id, &bytes[..count]);
        Ok(count)
    }

    /// Whether a dial is under way on the stream.
    pub(crate) fn is_connecting(&self, id: FileId) -> bool {
        self.stream(id).is_some_and(|stream| stream.phase == Phase::Connecting)
    }

    /// Whether the stream is, or was, connected.
    pub(crate) fn is_connected(&self, id: FileId) -> bool {
        self.stream(id).is_some_and(|stream| stream.phase == Phase::Connected)
    }

    /// shutdown(2) of the sending direction.
    pub(crate) fn shutdown(&mut self, id: FileId) -> Result<(), i32> {
        let now_us = self.now_us;
        let Some(stream) = self.stream_mut(id) else { return Err(libc::EBADF) };
        if stream.dead || stream.phase != Phase::Connected {
            return Err(libc::ENOTCONN);
        }
        stream.fin_out = true;
        stream.told_end_us = now_us;
        self.start_flow(id);
        // A watch for writability would say EPIPE now.
        self.wake(id);
        Ok(())
    }

    /// An actor lets go of its side: in order, or with a reset.
    pub(crate) fn leave(&mut self, id: FileId, abortive: bool) {
        if let Some(stream) = self.stream_mut(id) {
            stream.abortive |= abortive;
            self.drop_reference(id);
        }
    }

    pub(super) fn start_flow(&mut self, id: FileId) {
        let Some(stream) = self.stream_mut(id) else { return };
        let something = stream.outbound_bytes > 0 || (stream.fin_out && !stream.fin_arrived);
        if something && !stream.flowing && !stream.dead {
            stream.flowing = true;
            let in_us = self.latency_us();
            self.schedule(in_us, Event::Flow(id));
        }
    }

    /// A segment travels, or the FIN behind the last.
    pub(super) fn flow(&mut self, id: FileId) {
        let Some(stream) = self.stream_mut(id) else { return };
        stream.flowing = false;
        if stream.dead {
            return;
        }
        let (waiting, other) = (stream.outbound_bytes, stream.other);
        let there = other.and_then(|other| self.stream(other)).filter(|other| !other.dead);
        let Some(there) = there else {
            // The other side is gone: it answers bytes with a reset, and a FIN with nothing.
            if waiting > 0 {
                self.schedule_reset(id);
            } else if let Some(stream) = self.stream_mut(id) {
                stream.fin_arrived = true;
                self.end_orphan(id);
            }
            return;
        };
        let other = other.expect("there is one");
        if there.orphan && waiting > 0 {
            self.schedule_reset(id);
            return;
        }
        let room = there.bytes_max.saturating_sub(there.inbox.len());
        let longest = room.min(waiting).min(self.knobs.segment_bytes as usize);
        let mut stuck = waiting > 0 && room == 0;
        if longest > 0 {
            let count = 1 + self.dice.below(longest as u32) as usize;
            // Most of the time as much as can be.
            let count = if self.dice.coin() || self.whole_segments { longest } else { count };
            let bytes = self.take_outbound(id, count);
            self.arrive(other, &bytes);
            stuck = false;
            self.note(What::Arrived, u64::from(other.life), count as i64);
            self.wake_readers(other);
            self.tell_of_room(id);
        }
        let Some(stream) = self.stream_mut(id) else { return };
        if stream.outbound_bytes == 0 && stream.fin_out && !stream.fin_arrived {
            stream.fin_arrived = true;
            self.on_fin(other);
            self.end_orphan(id);
        } else if !stuck {
            self.start_flow(id);
        }
    }

    /// Somebody found no room: they will be told of it.
    pub(super) fn want_room(&mut self, id: FileId) {
        let now_us = self.now_us;
        if let Some(stream) = self.stream_mut(id) {
            stream.no_room_since_us.get_or_insert(now_us);
        }
    }

    /// Operations are told of room once for each time that one found none; actors look whenever there is some.
    fn tell_of_room(&mut self, id: FileId) {
        let of_actor = self.file(id).is_some_and(|file| file.owner != Owner::Rings);
        let Some(stream) = self.stream_mut(id).filter(|stream| stream.is_writable()) else {
            return;
        };
        if stream.no_room_since_us.take().is_some() || of_actor {
            self.wake_writers(id);
        }
    }

    fn arrive(&mut self, id: FileId, bytes: &[u8]) {
        if let Some(stream) = self.stream_mut(id) {
            stream.inbox.extend(bytes);
        }
    }

    fn on_fin(&mut self, id: FileId) {
        self.note_end(id);
        let Some(stream) = self.stream_mut(id) else { return };
        stream.fin_in = true;
        let both = stream.fin_out && !stream.fin_arrived;
        if both {
            self.marks.meet(Mark::SimultaneousClose);
        }
        self.note(What::FinArrived, u64::from(id.life), 0);
        self.wake(id);
    }

    /// Takes bytes off the front of what waits; borrowed ones are compared with what they were.
    fn take_outbound(&mut self, id: FileId, count: usize) -> Vec<u8> {
        let now_us = self.now_us;
        let Some(stream) = self.stream_mut(id) else { return Vec::new() };
        let mut taken = Vec::with_capacity(count);
        let mut done = Vec::new();
        let mut changed = None;
        while taken.len() < count {
            let chunk = stream.outbound.front_mut().expect("so many bytes wait");
            let some = (count - taken.len()).min(chunk.len());
            match chunk {
                Chunk::Copied(bytes) => taken.extend(bytes.drain(..some)),
                Chunk::Borrowed(borrowed) => {
                    let now = read_segments(&borrowed.memory, &borrowed.segments);
                    if now != borrowed.bytes {
                        changed = Some(borrowed.number);
                    }
                    taken.extend_from_slice(&now[borrowed.gone..borrowed.gone + some]);
                    borrowed.gone += some;
                }
            }
            if chunk.len() == 0
                && let Some(Chunk::Borrowed(borrowed)) = stream.outbound.pop_front()
            {
                done.push((borrowed.ring, borrowed.number));
            }
        }
        stream.outbound_bytes -= count;
        stream.progress_us = now_us;
        if let Some(number) = changed {
            self.violate(format!("the memory of zero-copy send {number} changed under way"));
        }
        for (ring, number) in done {
            self.let_go_later(ring, number);
        }
        taken
    }

    /// The last byte of a zero-copy send has gone, or never will.
    fn let_go_later(&mut self, ring: u16, number: u64) {
        let in_us = self.dice.log_between(1, u64::from(self.knobs.notification_us.max(1)));
        self.schedule(in_us, Event::Notify { ring, number });
    }

    /// A reset is on its way to the stream.
    pub(super) fn schedule_reset(&mut self, id: FileId) {
        let in_us = self.latency_us();
        self.schedule(in_us, Event::Reset(id));
    }

    /// A reset has arrived.
    pub(super) fn on_reset(&mut self, id: FileId) {
        let Some(stream) = self.stream(id).filter(|stream| !stream.dead) else { return };
        let usual = if stream.fin_in { libc::EPIPE } else { libc::ECONNRESET };
        self.note_end(id);
        let of_ring = self.file(id).is_some_and(|file| file.owner == Owner::Rings);
        // Its own retries, or a router on the way, may say so before any reset comes.
        let errno = match of_ring && self.dice.permille(self.knobs.lost_peer) {
            true => {
                self.marks.meet(Mark::PeerLost);
                self.dice.pick(&[libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH])
            }
            false => usual,
        };
        let Some(stream) = self.stream_mut(id) else { return };
        stream.error = Some(errno);
        let orphan = stream.orphan;
        self.kill(id);
        self.note(What::ResetArrived, u64::from(id.life), 0);
        if orphan {
            return self.forget(id);
        }
        // Who waits to write is always told.
        if of_ring && self.dice.permille(self.knobs.silent_reset) {
            self.wake_writers(id);
        } else {
            self.wake(id);
        }
    }

    /// Nothing moves on the stream any more; what waited is lost.
    fn kill(&mut self, id: FileId) {
        let Some(stream) = self.stream_mut(id) else { return };
        stream.dead = true;
        let other = stream.other.take();
        stream.lost += stream.outbound_bytes as u64;
        stream.outbound_bytes = 0;
        let dropped = std::mem::take(&mut stream.outbound);
        for chunk in dropped {
            if let Chunk::Borrowed(borrowed) = chunk {
                self.marks.meet(Mark::ResetUnderZeroCopy);
                self.let_go_later(borrowed.ring, borrowed.number);
            }
        }
        // Its probes of a closed window find nobody there.
        if let Some(other) = other {
            self.start_flow(other);
        }
    }

    /// Nobody refers to the stream any more.
    pub(super) fn release_stream(&mut self, id: FileId) {
        let Some(stream) = self.stream_mut(id) else { return };
        let unread = !stream.inbox.is_empty();
        let (other, resets) = (stream.other, stream.abortive || unread);
        if stream.phase != Phase::Connected || stream.dead {
            return self.forget(id);
        }
        if resets {
            if unread && !stream.abortive {
                self.marks.meet(Mark::CloseWithUnread);
            }
            if let Some(other) = other {
                self.schedule_reset(other);
            }
            self.kill(id);
            return self.forget(id);
        }
        stream.orphan = true;
        stream.fin_out = true;
        if stream.fin_arrived {
            return self.end_orphan(id);
        }
        self.start_flow(id);
    }

    /// A stream that nobody refers to is gone once its FIN has arrived.
    fn end_orphan(&mut self, id: FileId) {
        if self.stream(id).is_some_and(|stream| stream.orphan && stream.fin_arrived) {
            self.forget(id);
        }
    }
}
