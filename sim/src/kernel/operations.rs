//! What the operations of a ring do: tried at once, tried again when their file becomes ready, ended.

use slipring_core::span::Segment;
use slipring_core::sys::Cqe;

use super::queues::{BUFFER_SHIFT, Entry, F_BUFFER, F_MORE, F_SOCK_NONEMPTY, Work};
use super::stream::{Phase, Reading, Stream};
use super::{Event, FileId, Kernel, Kind, OperationId, Owner};
use crate::marks::Mark;

/// Completions of one multishot before others have their turn.
pub(super) const SHOTS_MAX: u32 = 32;

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Tried whenever its file becomes ready.
    Armed,
    /// On a worker thread: it cannot be cancelled.
    Working,
    /// Over, with this result; its completion is for the next enter.
    Ended(i32),
}

/// An operation that the kernel has taken.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) life: u32,
    pub(super) user_data: u64,
    pub(super) work: Work,
    pub(super) file: Option<FileId>,
    pub(super) state: State,
    /// It stands in the list of what is ready.
    pub(super) ready: bool,
    /// Bytes that it has brought, or sent.
    pub(super) brought: u32,
}

/// Whether the operation watches for room to write.
pub(super) fn is_write_watch(kernel: &Kernel, id: OperationId) -> bool {
    match kernel.operation(id).map(|operation| &operation.work) {
        Some(Work::Raw(raw)) => raw.is_writing(),
        work => matches!(work, Some(Work::Poll { write: true, .. })),
    }
}

impl Kernel {
    /// Takes a submission.
    pub(super) fn start(&mut self, ring: u16, entry: Entry) {
        let Entry { user_data, work } = entry;
        let file = match &work {
            Work::PollBell => Some(self.bell_file(usize::from(ring))),
            Work::Cancel { .. } | Work::Close { .. } => None,
            work => work.descriptor().and_then(|number| self.lookup_for(ring, number)),
        };
        let needs_file = work.descriptor().is_some() && !matches!(work, Work::Close { .. });
        let bad = file.is_none() && needs_file;
        let state = State::Armed;
        let operation =
            Operation { life: 0, user_data, work, file, state, ready: false, brought: 0 };
        let id = self.add_operation(ring, operation);
        if bad {
            return self.fail_bad(id);
        }
        if let Some(file) = file.and_then(|file| self.file_mut(file)) {
            file.references += 1;
        }
        self.begin(id);
    }

    fn begin(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        let file = operation.file;
        match operation.work.clone() {
            Work::Cancel { target } => self.cancel(id, target),
            Work::Close { descriptor } => {
                let result =
                    self.close_for(id.ring, descriptor).map_or_else(|errno| -errno, |()| 0);
                self.finish(id, result, 0);
            }
            Work::Send { segments, zero_copy, .. } => self.send(id, &segments, zero_copy),
            Work::Shutdown { .. } => {
                operation.state = State::Working;
                let in_us = self.dice.log_between(1, u64::from(self.knobs.shutdown_us.max(1)));
                self.schedule(in_us, Event::Worker(id));
            }
            Work::Connect { address, .. } => {
                let Some(file) = file else { return };
                match self.stream(file).map(|stream| stream.phase) {
                    Some(Phase::Connected) => return self.finish(id, -libc::EISCONN, 0),
                    Some(Phase::Connecting) => return self.finish(id, -libc::EALREADY, 0),
                    _ => {}
                }
                if let Some(stream) = self.stream_mut(file) {
                    stream.remote = address;
                }
                *self.dials.entry(address).or_default() += 1;
                if !self.fail_dial(file) {
                    self.connect(file);
                }
                self.go_on(id);
            }
            Work::Accept { .. } | Work::Poll { .. } | Work::PollBell | Work::Receive { .. } => {
                self.go_on(id);
            }
            Work::Raw(raw) => self.begin_raw(id, &raw),
        }
    }

    /// Tries an operation again, or ends it.
    pub(super) fn go_on(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        if let State::Ended(result) = operation.state {
            return self.end(id, result);
        }
        let Some(file) = operation.file else { return };
        match operation.work {
            Work::Raw(ref raw) => {
                let raw = raw.clone();
                self.go_on_raw(id, file, &raw);
            }
            Work::Receive { cap, .. } => self.receive(id, file, cap),
            Work::Accept { .. } => self.accept_for(id, file),
            Work::Poll { write, many, .. } => self.poll(id, file, write, many),
            Work::PollBell => self.poll(id, file, false, false),
            Work::Connect { .. } => match self.stream(file).map(|stream| stream.phase) {
                Some(Phase::Connected) => self.finish(id, 0, 0),
                Some(Phase::Failed(errno)) => {
                    if errno == libc::ECONNREFUSED {
                        self.marks.meet(Mark::DialRefused);
                    }
                    self.finish(id, -errno, 0);
                }
                _ => self.arm(id, file),
            },
            Work::Send { .. }
            | Work::Shutdown { .. }
            | Work::Cancel { .. }
            | Work::Close { .. } => {}
        }
    }

    /// Waits for the file to become ready.
    pub(super) fn arm(&mut self, id: OperationId, file: FileId) {
        if let Some(file) = self.file_mut(file)
            && !file.armed.contains(&id)
        {
            file.armed.push(id);
        }
    }

    /// A worker thread has done its work.
    pub(super) fn on_worker(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        let Some(file) = operation.file else { return };
        let result = self.shutdown(file).map_or_else(|errno| -errno, |()| 0);
        if result != 0 {
            self.marks.meet(Mark::ShutdownAfterReset);
        }
        if let Some(operation) = self.operation_mut(id) {
            operation.state = State::Ended(result);
        }
        self.make_ready(id);
    }

    /// Whoever waits to write looks at the file, and nobody else.
    pub(super) fn wake_writers(&mut self, id: FileId) {
        self.wake_those(id, true);
    }

    /// Whoever waits for what comes looks at the file, and nobody else.
    pub(super) fn wake_readers(&mut self, id: FileId) {
        self.wake_those(id, false);
    }

    fn wake_those(&mut self, id: FileId, write: bool) {
        let Some(file) = self.file(id) else { return };
        if file.owner != Owner::Rings {
            return self.wake(id);
        }
        for id in file.armed.clone() {
            if is_write_watch(self, id) == write {
                self.make_ready(id);
            }
        }
    }

    /// What a poll for this says: the event, and what is told unasked.
    pub(super) fn readiness(&self, file: FileId, write: bool) -> i16 {
        let event = if write { libc::POLLOUT } else { libc::POLLIN };
        let (ready, unasked) = match self.file(file).map(|file| &file.kind) {
            Some(Kind::Stream(stream)) if write => (stream.is_writable(), stream.unasked()),
            Some(Kind::Stream(stream)) => (stream.is_readable(), stream.unasked()),
            Some(Kind::Listener(listener)) => (!listener.queue.is_empty(), 0),
            Some(Kind::Bell { rung }) => (*rung, 0),
            None => (false, 0),
        };
        unasked | if ready { event } else { 0 }
    }

    fn poll(&mut self, id: OperationId, file: FileId, write: bool, many: bool) {
        let event = if write { libc::POLLOUT } else { libc::POLLIN };
        let mut mask = self.readiness(file, write);
        if write && mask & event == 0 {
            self.want_room(file);
            if mask == libc::POLLRDHUP {
                self.marks.meet(Mark::WatchToldOfFin);
            }
        }
        if mask == 0 && self.dice.permille(self.knobs.false_ready) {
            mask = event;
        }
        let ends = !many || self.dice.permille(self.knobs.ended_multishot);
        if mask != 0 && (ends || !self.shoot(id, i32::from(mask), 0)) {
            return self.finish(id, i32::from(mask), 0);
        }
        self.arm(id, file);
    }

    // ---------------------------------------------------------------------------------------- accept

    pub(super) fn accept_for(&mut self, id: OperationId, listener: FileId) {
        for _ in 0..SHOTS_MAX {
            // A number is taken before anybody looks who waits.
            if self.is_out_of_descriptors() {
                return self.finish(id, -libc::EMFILE, 0);
            }
            if self.queued(listener) == 0 {
                return self.arm(id, listener);
            }
            if self.dice.permille(self.knobs.failed_accept) {
                let errno = self.fail_accept(listener);
                return self.finish(id, -errno, 0);
            }
            let Some(file) = self.accept(listener, Owner::Rings) else {
                return self.arm(id, listener);
            };
            let Ok(client) = self.install(file) else { return self.arm(id, listener) };
            self.note_accepted(listener, file);
            let flags = if self.queued(listener) > 0 { F_SOCK_NONEMPTY } else { 0 };
            if self.is_raw(id) {
                return self.finish(id, client as i32, flags);
            }
            if self.dice.permille(self.knobs.ended_multishot)
                || !self.shoot(id, client as i32, flags)
            {
                self.marks.meet(Mark::MultishotEndedWithClient);
                return self.finish(id, client as i32, flags);
            }
        }
        self.make_ready(id);
    }

    /// An accept that chance fails: why.
    pub(super) fn fail_accept(&mut self, listener: FileId) -> i32 {
        let errno = self.dice.pick(&[
            libc::ECONNABORTED,
            libc::ENFILE,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::EPROTO,
            libc::EPERM,
        ]);
        if errno == libc::ECONNABORTED
            && let Some(client) = self.accept(listener, Owner::Rings)
        {
            self.leave(client, true);
        }
        errno
    }

    /// A completion that is not the operation's last; false if it has to be.
    pub(super) fn shoot(&mut self, id: OperationId, result: i32, flags: u32) -> bool {
        let Some(operation) = self.operation_mut(id) else { return false };
        let user_data = operation.user_data;
        self.post_more(id.ring, Cqe { user_data, result, flags })
    }

    // --------------------------------------------------------------------------------------- receive

    pub(super) fn receive(&mut self, id: OperationId, file: FileId, cap: u32) {
        let mut first = self.operation_mut(id).is_some_and(|operation| operation.brought == 0);
        for _ in 0..SHOTS_MAX {
            // A buffer is taken before anybody looks whether there are bytes.
            if self.buffers_published(id.ring) == 0 {
                self.marks.meet(match first {
                    true => Mark::NoBufferAtArming,
                    false => Mark::NoBufferMidStream,
                });
                return self.finish(id, -libc::ENOBUFS, 0);
            }
            first = false;
            let longest = self.longest_receive(id, file);
            match self.read(file, longest) {
                Reading::Wait => return self.arm(id, file),
                Reading::End => return self.end_receive(id, 0),
                Reading::Failed(errno) => return self.end_receive(id, -errno),
                Reading::Bytes(bytes) => {
                    if !self.bring(id, file, cap, &bytes) {
                        return;
                    }
                    // With nothing left it waits, and no buffer is looked for before there is something.
                    if !self.stream(file).is_some_and(Stream::is_readable) {
                        return self.arm(id, file);
                    }
                }
            }
        }
        self.make_ready(id);
    }

    /// A receive ends without bytes. The buffer taken for it may come back by that.
    fn end_receive(&mut self, id: OperationId, result: i32) {
        let empty = self.dice.permille(self.knobs.empty_buffer);
        let Some(number) = empty.then(|| self.take_buffer(id.ring)).flatten() else {
            return self.finish(id, result, 0);
        };
        self.marks.meet(Mark::EmptyBuffer);
        self.finish(id, result, F_BUFFER | u32::from(number) << BUFFER_SHIFT);
    }

    fn longest_receive(&mut self, id: OperationId, file: FileId) -> usize {
        let mut longest = self.ring(id.ring).memory.buffer_bytes();
        let waiting = self.stream(file).map_or(0, Stream::inbox_len) as u32;
        if waiting > 1 && self.dice.permille(self.knobs.short_receive) {
            longest = longest.min(1 + self.dice.below(waiting));
        }
        longest as usize
    }

    /// Puts bytes into a buffer and posts them; false if the operation ended by that.
    fn bring(&mut self, id: OperationId, file: FileId, cap: u32, bytes: &[u8]) -> bool {
        let Some(number) = self.take_buffer(id.ring) else { return false };
        self.ring(id.ring).memory.fill(number, 0, bytes);
        let rest = self.stream(file).map_or(0, Stream::inbox_len);
        let more = if rest > 0 { F_SOCK_NONEMPTY } else { 0 };
        let flags = F_BUFFER | u32::from(number) << BUFFER_SHIFT | more;
        let Some(operation) = self.operation_mut(id) else { return false };
        operation.brought += bytes.len() as u32;
        let capped = cap > 0 && operation.brought >= cap;
        let result = bytes.len() as i32;
        if self.is_raw(id) {
            self.finish(id, result, flags);
            return false;
        }
        let ends = self.dice.permille(self.knobs.ended_multishot);
        if capped || ends || !self.shoot(id, result, flags) {
            self.marks.meet(if capped {
                Mark::ReceiveCapped
            } else {
                Mark::MultishotEndedWithData
            });
            self.finish(id, result, flags);
            return false;
        }
        true
    }

    // ------------------------------------------------------------------------------------------ send

    fn send(&mut self, id: OperationId, segments: &[Segment], zero_copy: bool) {
        let Some(file) = self.operation_mut(id).and_then(|operation| operation.file) else {
            return;
        };
        let total: usize = segments.iter().map(|segment| segment.length as usize).sum();
        let room = match self.room_to_send(file) {
            // It was full; until the call has returned it is no more.
            Ok(_) if self.dice.permille(self.knobs.refused_send) => {
                self.find_room(file);
                Err(libc::EAGAIN)
            }
            Ok(_) if zero_copy && self.dice.permille(self.knobs.unpinned_send) => {
                self.marks.meet(Mark::ZeroCopyUnpinned);
                Err(self.dice.pick(&[libc::ENOBUFS, libc::ENOMEM]))
            }
            Ok(_) if !zero_copy && self.dice.permille(self.knobs.failed_send) => {
                self.marks.meet(Mark::SendFailed);
                Err(self.dice.pick(&[libc::ENOBUFS, libc::ENOMEM]))
            }
            room => room,
        };
        let count = match room {
            Ok(room) if room < total => {
                self.want_room(file);
                room
            }
            Ok(_) => total,
            Err(errno) => return self.fail_send(id, file, errno, zero_copy),
        };
        let count = match self.dice.permille(self.knobs.short_send) {
            true => 1 + self.dice.below(count as u32) as usize,
            false => count,
        };
        if count < total {
            self.marks.meet(Mark::SendShort);
        }
        let taken = first_of(segments, count);
        let memory = std::rc::Rc::clone(&self.ring(id.ring).memory);
        if !zero_copy {
            let bytes = super::stream::read_segments(&memory, &taken);
            self.put(file, &bytes);
            return self.finish(id, count as i32, 0);
        }
        let copied = self.dice.permille(self.knobs.copied_send);
        let number = self.add_notification(id, file, copied);
        if copied {
            let bytes = super::stream::read_segments(&memory, &taken);
            self.put(file, &bytes);
            self.schedule(0, Event::Notify { ring: id.ring, number });
        } else {
            self.put_borrowed(file, (id.ring, number), memory, taken);
        }
        self.finish(id, count as i32, F_MORE);
    }

    /// There is room, which watches say behind the send that found none, or before it.
    fn find_room(&mut self, file: FileId) {
        let armed = self.file(file).map_or_else(Vec::new, |file| file.armed.clone());
        for id in armed {
            if is_write_watch(self, id) && self.dice.coin() {
                self.go_on(id);
            } else if is_write_watch(self, id) {
                self.make_ready(id);
            }
        }
    }

    /// A zero-copy send that fails may or may not have a notification.
    fn fail_send(&mut self, id: OperationId, file: FileId, errno: i32, zero_copy: bool) {
        match errno {
            libc::EAGAIN => self.marks.meet(Mark::SendBlocked),
            libc::ECONNRESET | libc::EPIPE => self.marks.meet(Mark::SendAfterReset),
            _ => {}
        }
        if zero_copy && self.dice.coin() {
            // Of what never went it says that it was copied.
            let number = self.add_notification(id, file, true);
            self.schedule(1, Event::Notify { ring: id.ring, number });
            return self.finish(id, -errno, F_MORE);
        }
        self.finish(id, -errno, 0);
    }

    // ---------------------------------------------------------------------------------------- cancel

    fn cancel(&mut self, id: OperationId, target: u64) {
        let Some(found) = self.find_operation(id.ring, target).filter(|found| *found != id) else {
            // What was cancelled and has not been told so can be found once more.
            let again = self.is_ending(id.ring, target) && self.dice.coin();
            self.marks.meet(Mark::CancelTooLate);
            return self.finish(id, if again { 0 } else { -libc::ENOENT }, 0);
        };
        if self.dice.permille(self.knobs.lost_cancel) {
            // What it waits for happens just now, if it can.
            self.go_on(found);
        }
        let Some(state) = self.operation_mut(found).map(|operation| operation.state) else {
            self.marks.meet(Mark::CancelLostRace);
            let errno = self.dice.pick(&[libc::ENOENT, libc::EALREADY]);
            return self.finish(id, -errno, 0);
        };
        if state == State::Working {
            return self.finish(id, -libc::EALREADY, 0);
        }
        if self.dice.permille(self.knobs.early_end) {
            self.marks.meet(Mark::EndBeforeCancel);
            self.end(found, -libc::ECANCELED);
            return self.finish(id, 0, 0);
        }
        self.marks.meet(Mark::CancelBeforeEnd);
        if let Some(operation) = self.operation_mut(found) {
            operation.state = State::Ended(-libc::ECANCELED);
        }
        self.make_ready(found);
        self.finish(id, 0, 0);
    }
}

/// The first `count` bytes of segments.
pub(super) fn first_of(segments: &[Segment], count: usize) -> Vec<Segment> {
    let mut left = count as u32;
    let mut taken = Vec::with_capacity(segments.len());
    for segment in segments {
        let length = segment.length.min(left);
        if length > 0 {
            taken.push(Segment { length, ..*segment });
        }
        left -= length;
    }
    taken
}
