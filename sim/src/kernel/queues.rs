//! The queues of a ring: submissions in, completions out, and what is ready in between.
//!
//! As with DEFER_TASKRUN, nothing is completed but when the ring's owner enters: what becomes ready meanwhile
//! stands in a list and is worked through then. Completions that find the queue full go to a list behind it,
//! and follow when there is room and somebody enters; a multishot that cannot post ends.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use slipring_core::span::Segment;
use slipring_core::sys::Cqe;
use slipring_core::sys::memory::Memory;
use slipring_core::token::Op;

use super::operations::{Operation, State};
use super::raw::Raw;
use super::told::Told;
use super::{FileId, Kernel, OperationId};
use crate::marks::Mark;
use crate::trace::What;

pub(crate) const F_BUFFER: u32 = 1;
pub(crate) const F_MORE: u32 = 1 << 1;
pub(crate) const F_SOCK_NONEMPTY: u32 = 1 << 2;
pub(crate) const F_NOTIF: u32 = 1 << 3;
pub(crate) const BUFFER_SHIFT: u32 = 16;
/// In a notification's result: copied.
pub(super) const ZC_COPIED: i32 = i32::MIN;

/// What a submission asks for.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Accept {
        descriptor: u32,
    },
    Poll {
        descriptor: u32,
        write: bool,
        many: bool,
    },
    /// The poll of a ring's own bell.
    PollBell,
    Receive {
        descriptor: u32,
        cap: u32,
    },
    Send {
        descriptor: u32,
        segments: Vec<Segment>,
        zero_copy: bool,
    },
    Connect {
        descriptor: u32,
        address: SocketAddr,
    },
    Shutdown {
        descriptor: u32,
    },
    Cancel {
        target: u64,
    },
    Close {
        descriptor: u32,
    },
    Raw(Raw),
}

impl Work {
    /// The descriptor it is about.
    pub(crate) fn descriptor(&self) -> Option<u32> {
        match *self {
            Self::Accept { descriptor }
            | Self::Poll { descriptor, .. }
            | Self::Receive { descriptor, .. }
            | Self::Send { descriptor, .. }
            | Self::Connect { descriptor, .. }
            | Self::Shutdown { descriptor }
            | Self::Close { descriptor } => Some(descriptor),
            Self::Raw(ref raw) => raw.descriptor(),
            Self::Cancel { .. } | Self::PollBell => None,
        }
    }
}

/// A submission.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) user_data: u64,
    pub(crate) work: Work,
}

/// What a ring is made with.
#[derive(Debug)]
pub(crate) struct RingSetup {
    pub(crate) memory: Rc<Memory>,
    pub(crate) submissions: usize,
    pub(crate) completions: usize,
    /// Where the buffer ring's counter starts.
    pub(crate) buffers_from: u16,
}

/// Something to look at in the next enter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {
    Operation(OperationId),
    Notification(u64),
    /// A completion of no operation here: of another ring's, or of one that never began.
    Completion(Cqe),
}

/// The memory of a zero-copy send that is still read.
#[derive(Debug)]
pub(super) struct Notification {
    user_data: u64,
    file: FileId,
    copied: bool,
}

/// The buffers a ring may fill.
#[derive(Debug)]
struct Group {
    entries: Vec<u16>,
    /// Counts what was taken, what is shown, and what was written.
    head: u16,
    tail: u16,
    written: u16,
    /// The buffers in the order they were last taken.
    last: u16,
}

/// An operation as the ring's owner sees it: from the push to the reaping of its last completion.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) op: Option<Op>,
    pub(super) file: Option<FileId>,
}

/// A ring.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) memory: Rc<Memory>,
    queue: VecDeque<Entry>,
    queue_max: usize,
    pub(super) operations: Vec<Option<Operation>>,
    free: Vec<u32>,
    lives: u32,
    completions: VecDeque<Cqe>,
    completions_max: usize,
    overflow: VecDeque<Cqe>,
    pub(super) ready: VecDeque<Ready>,
    notifications: BTreeMap<u64, Notification>,
    notifications_ever: u64,
    group: Group,
    pub(super) pending: BTreeMap<u64, Pending>,
    /// The life that each slot was last seen in.
    pub(super) generations: BTreeMap<u32, u32>,
    /// What its owner was told of each connection, by the bits of its key.
    pub(super) told: BTreeMap<u64, Told>,
    /// When the last turns of its owner began, the one before first.
    pub(super) turns_us: [u64; 2],
    /// Those of its turns that took long: when they began, and when they ended or will.
    pub(super) long_turns_us: VecDeque<(u64, u64)>,
    /// What the next enter fails with.
    failure: Option<String>,
    gone: bool,
    /// The ring's own descriptor table.
    pub(super) places: Vec<Option<FileId>>,
    /// Places before this one have been taken before.
    pub(super) places_ever: u32,
    /// Its descriptor was closed.
    pub(super) closed: bool,
}

impl Kernel {
    /// io_uring_setup(2); the number of the ring.
    pub(crate) fn add_ring(&mut self, setup: RingSetup) -> u16 {
        let RingSetup { memory, submissions, completions, buffers_from } = setup;
        let group = Group {
            entries: vec![u16::MAX; memory.buffers() as usize],
            head: buffers_from,
            tail: buffers_from,
            written: buffers_from,
            last: 0,
        };
        self.rings.push(Ring {
            memory,
            queue: VecDeque::new(),
            queue_max: submissions,
            operations: Vec::new(),
            free: Vec::new(),
            lives: 0,
            completions: VecDeque::new(),
            completions_max: completions,
            overflow: VecDeque::new(),
            ready: VecDeque::new(),
            notifications: BTreeMap::new(),
            notifications_ever: 0,
            group,
            pending: BTreeMap::new(),
            generations: BTreeMap::new(),
            told: BTreeMap::new(),
            turns_us: [0; 2],
            long_turns_us: VecDeque::new(),
            failure: None,
            gone: false,
            places: Vec::new(),
            places_ever: 0,
            closed: false,
        });
        self.rings.len() as u16 - 1
    }

    pub(super) fn ring(&mut self, ring: u16) -> &mut Ring {
        &mut self.rings[usize::from(ring)]
    }

    /// Places of the submission queue that are free.
    pub(crate) fn room(&self, ring: u16) -> usize {
        let ring = &self.rings[usize::from(ring)];
        ring.queue_max - ring.queue.len()
    }

    /// Queues a submission; there has to be room.
    pub(crate) fn queue(&mut self, ring: u16, entry: Entry) {
        self.ring(ring).queue.push_back(entry);
    }

    /// Submissions that were not taken yet.
    pub(crate) fn unsubmitted(&self, ring: u16) -> usize {
        self.rings[usize::from(ring)].queue.len()
    }

    /// Whether somebody who waits for a completion would be woken.
    pub(crate) fn has_news(&self, ring: u16) -> bool {
        let ring = &self.rings[usize::from(ring)];
        !ring.ready.is_empty()
            || !ring.completions.is_empty()
            || !ring.overflow.is_empty()
            || ring.failure.is_some()
    }

    /// Whether completions stand in the queue.
    pub(crate) fn has_completions(&self, ring: u16) -> bool {
        !self.rings[usize::from(ring)].completions.is_empty()
    }

    /// Whether an enter would find something to work on.
    pub(crate) fn has_ready(&self, ring: u16) -> bool {
        !self.rings[usize::from(ring)].ready.is_empty()
    }

    /// Completions that stand in the queue.
    pub(crate) fn standing(&self, ring: u16) -> usize {
        self.rings[usize::from(ring)].completions.len()
    }

    /// The next enter of the ring fails.
    pub(crate) fn fail_ring(&mut self, ring: u16, cause: &str) {
        self.ring(ring).failure = Some(cause.to_owned());
    }

    /// The ring is gone: what it held of files is let go of.
    pub(crate) fn exit_ring(&mut self, ring: u16) {
        let ring = self.ring(ring);
        ring.gone = true;
        ring.queue.clear();
        let operations = std::mem::take(&mut ring.operations);
        for operation in operations.into_iter().flatten() {
            if let Some(file) = operation.file {
                self.drop_reference(file);
            }
        }
    }

    /// Operations of the ring's owner that have not ended, and memory that is still read.
    pub(crate) fn in_flight(&self, ring: u16) -> (usize, usize) {
        let ring = &self.rings[usize::from(ring)];
        (ring.pending.len(), ring.notifications.len())
    }

    /// io_uring_enter(2), without its wait.
    pub(crate) fn enter(&mut self, ring: u16) -> Result<(), String> {
        let queued = self.ring(ring).queue.len();
        if self.ring(ring).gone {
            return Err("the ring is gone".to_owned());
        }
        // With something to submit an enter tells how much of it was taken, and only the next that it failed.
        if queued == 0
            && let Some(cause) = self.ring(ring).failure.take()
        {
            return Err(cause);
        }
        let mut take = queued;
        if self.dice.permille(self.knobs.refused_enter) {
            // EINTR, EAGAIN and EBUSY take nothing; a short count is one of the others in the middle.
            take = if self.dice.coin() { 0 } else { self.dice.below(queued as u32 + 1) as usize };
            if queued > 0 && take == 0 {
                self.marks.meet(Mark::EnterInterrupted);
                return Ok(());
            }
            if take < queued {
                self.marks.meet(Mark::EnterPartial);
            }
        }
        for _ in 0..take {
            if let Some(entry) = self.ring(ring).queue.pop_front() {
                self.start(ring, entry);
            }
        }
        self.note_of(ring, What::Entered, 0, take as i64);
        self.scribble(ring);
        self.work_ready(ring);
        self.flush_overflow(ring);
        Ok(())
    }

    fn work_ready(&mut self, ring: u16) {
        // What becomes ready by this is for the next enter.
        let mut ready = std::mem::take(&mut self.ring(ring).ready);
        if self.dice.permille(self.knobs.shuffled_work) {
            for place in (1..ready.len()).rev() {
                let other = self.dice.below(place as u32 + 1) as usize;
                ready.swap(place, other);
            }
        }
        for one in ready {
            match one {
                Ready::Operation(id) => {
                    if let Some(operation) = self.operation_mut(id) {
                        operation.ready = false;
                        self.go_on(id);
                    }
                }
                Ready::Notification(number) => self.post_notification(ring, number),
                Ready::Completion(cqe) => self.post(ring, cqe),
            }
        }
    }

    pub(super) fn make_ready(&mut self, id: OperationId) {
        let Some(operation) = self.operation_mut(id) else { return };
        if !std::mem::replace(&mut operation.ready, true) {
            self.ring(id.ring).ready.push_back(Ready::Operation(id));
        }
    }

    /// What the ring's owner takes next.
    pub(crate) fn reap(&mut self, ring: u16) -> Option<Cqe> {
        let cqe = self.ring(ring).completions.pop_front()?;
        let what = match cqe.flags {
            flags if flags & F_NOTIF != 0 => What::ReapedNotification,
            flags if flags & F_MORE != 0 => What::ReapedMore,
            _ => What::Reaped,
        };
        self.note_of(ring, what, cqe.user_data, i64::from(cqe.result));
        Some(cqe)
    }

    /// Posts the last completion of an operation: if there is no room, behind the queue.
    pub(super) fn post(&mut self, ring: u16, cqe: Cqe) {
        let ring = self.ring(ring);
        if ring.completions.len() < ring.completions_max && ring.overflow.is_empty() {
            ring.completions.push_back(cqe);
        } else {
            ring.overflow.push_back(cqe);
        }
    }

    /// Posts a completion that is not the last; false if there is no room, and then it was not.
    pub(super) fn post_more(&mut self, ring: u16, mut cqe: Cqe) -> bool {
        cqe.flags |= F_MORE;
        let ring = self.ring(ring);
        let room = ring.completions.len() < ring.completions_max && ring.overflow.is_empty();
        if room {
            ring.completions.push_back(cqe);
        } else {
            self.marks.meet(Mark::OverflowEndedMultishot);
        }
        room
    }

    fn flush_overflow(&mut self, ring: u16) {
        let ring = self.ring(ring);
        if ring.overflow.is_empty() {
            return;
        }
        let mut flushed = false;
        while ring.completions.len() < ring.completions_max
            && let Some(cqe) = ring.overflow.pop_front()
        {
            ring.completions.push_back(cqe);
            flushed = true;
        }
        if flushed {
            self.marks.meet(Mark::OverflowFlushed);
        }
    }

    // -------------------------------------------------------------------------------- notifications

    /// A number for the memory of a zero-copy send.
    pub(super) fn add_notification(&mut self, id: OperationId, file: FileId, copied: bool) -> u64 {
        let Some(user_data) = self.operation_mut(id).map(|operation| operation.user_data) else {
            unreachable!("it is being worked on");
        };
        let ring = self.ring(id.ring);
        ring.notifications_ever += 1;
        let number = ring.notifications_ever;
        ring.notifications.insert(number, Notification { user_data, file, copied });
        number
    }

    /// The memory is let go of: its owner is told when it enters.
    pub(super) fn notify(&mut self, ring: u16, number: u64) {
        self.ring(ring).ready.push_back(Ready::Notification(number));
    }

    fn post_notification(&mut self, ring: u16, number: u64) {
        let Some(done) = self.ring(ring).notifications.remove(&number) else { return };
        let Notification { user_data, file, copied } = done;
        let earlier = |(other, n): (&u64, &Notification)| *other < number && n.file == file;
        if self.ring(ring).notifications.iter().any(earlier) {
            self.marks.meet(Mark::NotificationsReordered);
        }
        if self.file(file).is_none_or(|file| file.references == 0) {
            self.marks.meet(Mark::NotificationAfterClose);
        }
        if copied {
            self.marks.meet(Mark::ZeroCopyCopied);
        }
        let result = if copied { ZC_COPIED } else { 0 };
        self.post(ring, Cqe { user_data, result, flags: F_NOTIF });
    }

    // -------------------------------------------------------------------------------------- buffers

    /// The ring's owner writes a buffer's number to the next place.
    pub(crate) fn write_buffer(&mut self, ring: u16, place: u16, number: u16) {
        let group = &mut self.ring(ring).group;
        let count = group.entries.len() as u16;
        let standing = group.written.wrapping_sub(group.head);
        let wrong = place != group.written & (count - 1);
        if wrong || standing >= count {
            return self.violate(format!("buffer {number} was written over one that is published"));
        }
        group.entries[usize::from(place)] = number;
        group.written = group.written.wrapping_add(1);
        if group.written == 0 {
            self.marks.meet(Mark::BufferCounterWrapped);
        }
    }

    /// The ring's owner shows what it has written.
    pub(crate) fn publish_buffers(&mut self, ring: u16, tail: u16) {
        let group = &mut self.ring(ring).group;
        if tail != group.written {
            return self.violate("more or less was published than was written");
        }
        group.tail = tail;
    }

    /// Buffers that can be filled.
    pub(crate) fn buffers_published(&self, ring: u16) -> u16 {
        let group = &self.rings[usize::from(ring)].group;
        group.tail.wrapping_sub(group.head)
    }

    pub(super) fn take_buffer(&mut self, ring: u16) -> Option<u16> {
        let group = &mut self.ring(ring).group;
        if group.head == group.tail {
            return None;
        }
        let place = group.head & (group.entries.len() as u16 - 1);
        let number = group.entries[usize::from(place)];
        group.head = group.head.wrapping_add(1);
        let reordered = number < group.last;
        group.last = number;
        if reordered {
            self.marks.meet(Mark::BuffersReordered);
        }
        Some(number)
    }

    /// The kernel may write to what is published, whenever it likes.
    fn scribble(&mut self, ring: u16) {
        if !self.dice.permille(self.knobs.scribble) {
            return;
        }
        let published = self.buffers_published(ring);
        if published == 0 {
            return;
        }
        let (ahead, word) = (self.dice.below(u32::from(published)) as u16, self.dice.word());
        let ring = self.ring(ring);
        let place = ring.group.head.wrapping_add(ahead) & (ring.group.entries.len() as u16 - 1);
        let number = ring.group.entries[usize::from(place)];
        let room = ring.memory.buffer_bytes() - 8;
        let offset = if room == 0 { 0 } else { (word % u64::from(room)) as u32 };
        ring.memory.fill(number, offset, &word.to_ne_bytes());
    }

    // ----------------------------------------------------------------------------------- operations

    pub(super) fn add_operation(&mut self, ring: u16, mut operation: Operation) -> OperationId {
        let queues = self.ring(ring);
        queues.lives += 1;
        let life = queues.lives;
        operation.life = life;
        let index = match queues.free.pop() {
            Some(index) => {
                queues.operations[index as usize] = Some(operation);
                index
            }
            None => {
                queues.operations.push(Some(operation));
                queues.operations.len() as u32 - 1
            }
        };
        OperationId { ring, index, life }
    }

    pub(super) fn operation_mut(&mut self, id: OperationId) -> Option<&mut Operation> {
        let place = self.ring(id.ring).operations.get_mut(id.index as usize)?;
        place.as_mut().filter(|operation| operation.life == id.life)
    }

    pub(super) fn operation(&self, id: OperationId) -> Option<&Operation> {
        let place = self.rings[usize::from(id.ring)].operations.get(id.index as usize)?;
        place.as_ref().filter(|operation| operation.life == id.life)
    }

    /// The operation of these bits that could still be cancelled, the oldest.
    pub(super) fn find_operation(&mut self, ring: u16, user_data: u64) -> Option<OperationId> {
        let operations = self.ring(ring).operations.iter().enumerate();
        let matching = operations.filter_map(|(index, operation)| {
            let operation = operation.as_ref()?;
            let open = !matches!(operation.state, State::Ended(_));
            (open && operation.user_data == user_data).then_some((operation.life, index))
        });
        let (life, index) = matching.min()?;
        Some(OperationId { ring, index: index as u32, life })
    }

    /// The operation is over: its last completion, and its reference to the file.
    pub(super) fn finish(&mut self, id: OperationId, result: i32, flags: u32) {
        let Some(operation) = self.operation_mut(id) else { return };
        let (user_data, file) = (operation.user_data, operation.file);
        let ring = self.ring(id.ring);
        ring.operations[id.index as usize] = None;
        ring.free.push(id.index);
        self.post(id.ring, Cqe { user_data, result, flags });
        if let Some(file) = file {
            if let Some(file) = self.file_mut(file) {
                file.armed.retain(|armed| *armed != id);
            }
            self.drop_reference(file);
        }
    }
}
