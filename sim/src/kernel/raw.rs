//! Operations that no driver asks for, and that scripts compare with a real kernel: what waits where the
//! runtime never waits, what is chosen by file and not by token, what goes from ring to ring.

use slipring_core::span::Segment;
use slipring_core::sys::Cqe;
use slipring_core::sys::bare::{Manner, Target};

use super::direct::DIRECT;
use super::operations::{State, first_of};
use super::queues::{F_MORE, F_NOTIF, Ready, Work, ZC_COPIED};
use super::stream::read_segments;
use super::{Event, FileId, Kernel, OperationId};

/// See the module's documentation. Where a descriptor stands, a place of the ring's table may.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    Nop,
    /// Refused when it is looked at.
    Unfit,
    AcceptOnce {
        descriptor: u32,
    },
    AcceptDirect {
        descriptor: u32,
        many: bool,
    },
    ReceiveOnce {
        descriptor: u32,
    },
    /// A send that waits for room, or wants to send all.
    Send {
        descriptor: u32,
        segments: Vec<Segment>,
        manner: Manner,
    },
    Cancel(Target),
    Message {
        to: u32,
        token: u64,
        result: u32,
    },
    Pass {
        to: u32,
        place: u32,
        into: Option<u32>,
        token: u64,
    },
}

impl Raw {
    pub(super) fn descriptor(&self) -> Option<u32> {
        match *self {
            Self::AcceptDirect { descriptor, .. }
            | Self::AcceptOnce { descriptor }
            | Self::ReceiveOnce { descriptor }
            | Self::Send { descriptor, .. } => Some(descriptor),
            Self::Nop
            | Self::Unfit
            | Self::Cancel(_)
            | Self::Message { .. }
            | Self::Pass { .. } => None,
        }
    }

    fn is_zero_copy(&self) -> bool {
        matches!(self, Self::Send { manner: Manner { zero_copy: true, .. }, .. })
    }

    /// Whether it waits for room to write.
    pub(super) fn is_writing(&self) -> bool {
        matches!(self, Self::Send { .. })
    }
}

impl Kernel {
    pub(super) fn begin_raw(&mut self, id: OperationId, raw: &Raw) {
        match *raw {
            Raw::Nop => self.finish(id, 0, 0),
            Raw::Unfit => self.finish(id, -libc::EOPNOTSUPP, 0),
            Raw::Cancel(target) => self.cancel_many(id, target),
            Raw::Message { to, token, result } => self.message(id, to, token, result),
            Raw::Pass { to, place, into, token } => self.pass(id, (to, place), into, token),
            Raw::AcceptOnce { .. }
            | Raw::AcceptDirect { .. }
            | Raw::ReceiveOnce { .. }
            | Raw::Send { .. } => {
                self.go_on(id);
            }
        }
    }

    /// Whether it is none of a driver's; of those, an accept or a receive ends with the first thing it brings.
    pub(super) fn is_raw(&self, id: OperationId) -> bool {
        self.operation(id).is_some_and(|operation| operation.work.raw().is_some())
    }

    /// Tries an operation again.
    pub(super) fn go_on_raw(&mut self, id: OperationId, file: FileId, raw: &Raw) {
        match raw {
            Raw::AcceptOnce { .. } => self.accept_for(id, file),
            Raw::AcceptDirect { many, .. } => self.accept_direct(id, file, *many),
            Raw::ReceiveOnce { .. } => self.receive(id, file, 0),
            Raw::Send { segments, manner, .. } => self.send_raw(id, file, segments, *manner),
            Raw::Nop | Raw::Unfit | Raw::Cancel(_) | Raw::Message { .. } | Raw::Pass { .. } => {}
        }
    }

    /// Sends what has not gone yet, as far as there is room.
    fn send_raw(&mut self, id: OperationId, file: FileId, segments: &[Segment], manner: Manner) {
        let total: usize = segments.iter().map(|segment| segment.length as usize).sum();
        let sent = self.operation(id).map_or(0, |operation| operation.brought as usize);
        let room = match self.room_to_send(file) {
            Ok(room) => room,
            Err(libc::EAGAIN) if manner.waits => return self.arm(id, file),
            Err(errno) => return self.end(id, -errno),
        };
        let mut count = room.min(total - sent);
        if self.dice.permille(self.knobs.short_send) {
            count = 1 + self.dice.below(count as u32) as usize;
        }
        let memory = std::rc::Rc::clone(&self.ring(id.ring).memory);
        let bytes = read_segments(&memory, &first_of(&behind(segments, sent), count));
        self.put(file, &bytes);
        if let Some(operation) = self.operation_mut(id) {
            operation.brought += count as u32;
        }
        if sent + count == total || !manner.whole {
            return self.end(id, 0);
        }
        if manner.waits {
            // For more room, which may be there already.
            return self.make_ready(id);
        }
        self.end(id, -libc::EAGAIN);
    }

    /// The operation ends with this result; a send that has sent something says how much instead, and one
    /// without a copy has its notification behind it, however it ended.
    pub(super) fn end(&mut self, id: OperationId, result: i32) {
        let Some(operation) = self.operation(id) else { return };
        let (sent, file) = (operation.brought as i32, operation.file);
        let Some(Raw::Send { manner, .. }) = operation.work.raw() else {
            return self.finish(id, result, 0);
        };
        let result = if sent > 0 { sent } else { result };
        match (manner.zero_copy, file) {
            (true, Some(file)) => {
                let number = self.add_notification(id, file, true);
                self.schedule(0, Event::Notify { ring: id.ring, number });
                self.finish(id, result, F_MORE);
            }
            _ => self.finish(id, result, 0),
        }
    }

    /// An operation on what is not open.
    pub(super) fn fail_bad(&mut self, id: OperationId) {
        let Some(operation) = self.operation(id) else { return };
        let user_data = operation.user_data;
        let zero_copy = match &operation.work {
            Work::Send { zero_copy, .. } => *zero_copy,
            work => work.raw().is_some_and(Raw::is_zero_copy),
        };
        if !zero_copy || self.dice.coin() {
            return self.finish(id, -libc::EBADF, 0);
        }
        // The notification is made before anybody looks for the file.
        let cqe = Cqe { user_data, result: ZC_COPIED, flags: F_NOTIF };
        self.ring(id.ring).ready.push_back(Ready::Completion(cqe));
        self.finish(id, -libc::EBADF, F_MORE);
    }

    // ---------------------------------------------------------------------------------------- cancel

    /// Whether an operation of this token was cancelled and has not been told so.
    pub(super) fn is_ending(&self, ring: u16, user_data: u64) -> bool {
        let mut operations = self.rings[usize::from(ring)].operations.iter().flatten();
        operations.any(|operation| {
            operation.user_data == user_data && operation.state == State::Ended(-libc::ECANCELED)
        })
    }

    fn cancel_many(&mut self, id: OperationId, target: Target) {
        let all = !matches!(target, Target::Token(_) | Target::OneOn(_));
        let found = match self.find_targets(id, target) {
            Ok(found) => found,
            Err(errno) => return self.finish(id, -errno, 0),
        };
        let mut count = 0;
        for target in found {
            let working = self.operation(target).is_none_or(|o| o.state == State::Working);
            if working && !all {
                return self.finish(id, -libc::EALREADY, 0);
            }
            if !working {
                self.cancel_one(target);
            }
            count += 1;
            if !all {
                return self.finish(id, 0, 0);
            }
        }
        self.finish(id, if all { count } else { -libc::ENOENT }, 0);
    }

    /// The open operations that are meant, the oldest first.
    fn find_targets(&self, id: OperationId, target: Target) -> Result<Vec<OperationId>, i32> {
        let file = match target {
            Target::OneOn(file) | Target::AllOn(file) => {
                Some(self.lookup_for(id.ring, number_of(file)).ok_or(libc::EBADF)?)
            }
            _ => None,
        };
        let operations = self.rings[usize::from(id.ring)].operations.iter().enumerate();
        let mut found: Vec<OperationId> = operations
            .filter_map(|(index, operation)| {
                let operation = operation.as_ref()?;
                let meant = match target {
                    Target::Token(token) | Target::AllOfToken(token) => {
                        operation.user_data == token
                    }
                    Target::OneOn(_) | Target::AllOn(_) => operation.file == file,
                    Target::Everything => true,
                };
                let open = !matches!(operation.state, State::Ended(_));
                let other =
                    OperationId { ring: id.ring, index: index as u32, life: operation.life };
                (meant && open && other != id).then_some(other)
            })
            .collect();
        found.sort_by_key(|found| found.life);
        Ok(found)
    }

    /// Its end is for now or for the next enter.
    fn cancel_one(&mut self, target: OperationId) {
        if self.dice.permille(self.knobs.early_end) {
            return self.end(target, -libc::ECANCELED);
        }
        if let Some(operation) = self.operation_mut(target) {
            operation.state = State::Ended(-libc::ECANCELED);
        }
        self.make_ready(target);
    }
}

/// What is left of segments behind the first `count` bytes.
fn behind(segments: &[Segment], count: usize) -> Vec<Segment> {
    let mut gone = count as u32;
    let mut left = Vec::with_capacity(segments.len());
    for segment in segments {
        let skip = gone.min(segment.length);
        gone -= skip;
        if skip < segment.length {
            let (offset, length) = (segment.offset + skip, segment.length - skip);
            left.push(Segment { offset, length, ..*segment });
        }
    }
    left
}

/// A file's number in a submission.
pub(crate) fn number_of(file: slipring_core::sys::bare::File) -> u32 {
    match file {
        slipring_core::sys::bare::File::Descriptor(number) => number,
        slipring_core::sys::bare::File::Direct(place) => DIRECT | place,
    }
}

impl Work {
    fn raw(&self) -> Option<&Raw> {
        match self {
            Self::Raw(raw) => Some(raw),
            _ => None,
        }
    }
}
