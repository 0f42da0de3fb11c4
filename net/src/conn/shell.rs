//! What a connection's slot keeps for its async handle: bytes that came and were not taken, and who waits.
//!
//! ```text
//!   on_data ---> inbox ---> recv              a lease each, in their order
//!   on_eof ----> is_ended -> recv             None, behind the last of them
//!   on_writable ----------> send              room again
//!   on_close ---> what is left of the inbox and the reason, for a handle that is still held
//! ```
//!
//! *Back-pressure.* What a task does not take stays here, and the reading stops: who has something in its inbox at the
//! end of a turn is *unread*, and paused until that is empty. So an inbox comes to what one turn delivers. And if
//! buffers run short, what the unread have is copied to plain memory, so that tasks that are slow do not keep the
//! buffers from everybody else; nor do those that hold a connection that has ended.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;

use slipring_core::canary::{Canary, sings};
use slipring_core::sys::Lent;
use slipring_core::{CloseReason, Connections, Key, Lease};

use super::relaying::Partner;
use crate::tasks::{Executor, put_aside};

thread_local! {
    /// The connections of the reactor that turns.
    static CONNECTIONS: Lent<Connections<Shell>> = const { Lent::empty() };
    /// What is left of connections that have ended before their handles.
    static REMAINS: Lent<Remains> = const { Lent::empty() };
}

/// Leases for which there was no plain memory, until the copying ends for a turn: more of them say that there is none.
const REFUSALS_MAX: usize = 16;

/// Received leases, the oldest first. As a rule there is one at most, and nothing is allocated.
#[derive(Debug, Default)]
struct Inbox {
    first: Option<Lease>,
    #[expect(clippy::box_collection, reason = "eight bytes of every slot instead of 32")]
    rest: Option<Box<VecDeque<Lease>>>,
}

impl Inbox {
    #[inline]
    fn push(&mut self, lease: Lease) {
        match &mut self.first {
            None => self.first = Some(lease),
            Some(_) => self.rest.get_or_insert_default().push_back(lease),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Lease> {
        let lease = self.first.take()?;
        if let Some(rest) = &mut self.rest {
            self.first = rest.pop_front();
            if rest.is_empty() {
                self.rest = None;
            }
        }
        Some(lease)
    }

    /// Puts back what was taken last, or what is left of it.
    fn put_back(&mut self, lease: Lease) {
        if let Some(first) = self.first.replace(lease) {
            self.rest.get_or_insert_default().push_front(first);
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Moves what lies in buffers of the ring to plain memory, as far as there is room for each, until too many were
    /// refused: whether that was all.
    fn spill(&mut self, refusals: &mut usize) -> bool {
        let before = *refusals;
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        for lease in self.first.iter_mut().chain(rest) {
            match lease.clone().spill() {
                Ok(copy) => *lease = copy,
                Err(_) => *refusals += 1,
            }
            if *refusals == REFUSALS_MAX {
                return false;
            }
        }
        *refusals == before
    }
}

/// What a slot keeps: see the module's documentation. Users see it in signatures only.
#[derive(Debug, Default)]
pub struct Shell {
    inbox: Inbox,
    /// Waits for bytes, or for the end.
    pub(super) reader: Option<Waker>,
    /// Waits for room, or for the outcome of a dial.
    pub(super) writer: Option<Waker>,
    /// Whom what comes goes to, past the inbox.
    pub(super) partner: Partner,
    /// Handles that are held: one, or two halves.
    pub(super) handles: u8,
    /// It has been dialed with success, or accepted.
    pub(super) is_open: bool,
    /// The peer will send no more.
    pub(super) is_ended: bool,
    /// We will send no more.
    pub(super) is_shut_down: bool,
    /// Nobody will receive any more.
    is_deaf: bool,
    /// Whoever works on it says that something is under way.
    pub(super) is_busy: bool,
    /// Something waits to be sent for which there is no memory.
    pub(super) lacks_memory: bool,
    /// It stands on the list of the unread.
    is_unread: bool,
    /// Its reading is paused for what is in its inbox.
    is_paused: bool,
    /// It stands on the list of those that keep leases.
    is_listed: bool,
}

/// What is left of a connection that ended before its handle was dropped.
#[derive(Debug)]
pub(super) struct Remain {
    inbox: Inbox,
    pub(super) reason: CloseReason,
    pub(super) handles: u8,
    pub(super) was_open: bool,
    /// The peer's FIN had come.
    pub(super) is_ended: bool,
    /// It stands on the list of those that keep leases.
    is_listed: bool,
}

impl Remain {
    pub(super) fn pop(&mut self) -> Option<Lease> {
        self.inbox.pop()
    }

    /// Whether all that came was received.
    pub(super) fn is_taken(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Nobody will take what came.
    pub(super) fn discard(&mut self) {
        self.inbox = Inbox::default();
    }
}

/// Those of one reactor, and its lists of the unread.
#[derive(Debug, Default)]
pub(super) struct Remains {
    of: BTreeMap<Key, Remain>,
    /// Unread since this turn.
    unread: Vec<Key>,
    /// Those that keep leases, which may lie in buffers of the ring: the unread that are paused, and what is left of
    /// them when they have ended.
    keeping: VecDeque<Key>,
}

/// What one of them keeps, wherever that is now, and whether it stands on the list.
fn kept<'a>(
    of: &'a mut BTreeMap<Key, Remain>,
    connections: &'a mut Connections<Shell>,
    key: Key,
) -> Option<(&'a mut Inbox, &'a mut bool)> {
    match connections.state_of(key) {
        Some(shell) => Some((&mut shell.inbox, &mut shell.is_listed)),
        None => of.get_mut(&key).map(|remain| (&mut remain.inbox, &mut remain.is_listed)),
    }
}

/// Before a list grows, those leave it that have to. If most stay, as many again have a place: so there are two looks
/// for each that is added, however many there are, and four times as many places at most as are needed.
fn make_place<T>(list: &mut VecDeque<T>, stays: impl FnMut(&T) -> bool) {
    if list.len() == list.capacity() {
        list.retain(stays);
        if list.len() > list.capacity() / 2 {
            list.reserve(list.capacity());
        }
    }
}

impl Remains {
    pub(super) fn get(&mut self, key: Key) -> Option<&mut Remain> {
        self.of.get_mut(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// The reactor has ended.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.of.remove(&key);
    }

    /// The end of a turn: those who did not take what came are not read from until they have.
    pub(super) fn hold_back_the_unread(&mut self, connections: &mut Connections<Shell>) {
        let mut unread = std::mem::take(&mut self.unread);
        for key in unread.drain(..) {
            if let Some(shell) = connections.state_of(key) {
                if shell.inbox.is_empty() {
                    shell.is_unread = false;
                    continue;
                }
                shell.is_paused = true;
                if !sings(Canary::UnreadNotPaused) {
                    connections.pause_of(key);
                }
            }
            self.list(key, connections);
        }
        // Its room is kept.
        self.unread = unread;
        self.spill(connections);
    }

    /// Copies what is kept to plain memory, until buffers are short no more. Who finds no room for all goes to the
    /// back: leases differ in length, and there may be room for those behind it.
    fn spill(&mut self, connections: &mut Connections<Shell>) {
        let Self { of, keeping, .. } = self;
        let mut refusals = 0;
        for _ in 0..keeping.len() {
            if refusals >= REFUSALS_MAX || !connections.is_short_of_buffers() {
                return;
            }
            let Some(key) = keeping.pop_front() else { return };
            let Some((inbox, is_listed)) = kept(of, connections, key) else { continue };
            *is_listed = !inbox.spill(&mut refusals);
            if *is_listed {
                keeping.push_back(key);
            }
        }
    }

    /// Who has something is on the list from now on.
    fn list(&mut self, key: Key, connections: &mut Connections<Shell>) {
        let Self { of, keeping, .. } = self;
        match kept(of, connections, key) {
            Some((inbox, is_listed)) if !inbox.is_empty() && !*is_listed => *is_listed = true,
            _ => return,
        }
        make_place(keeping, |key| {
            let Some((inbox, is_listed)) = kept(of, connections, *key) else { return false };
            *is_listed = !inbox.is_empty();
            *is_listed
        });
        keeping.push_back(key);
    }

    /// It is looked at when the turn ends. Who takes a few bytes at a time says so each time.
    #[inline]
    fn note_unread(&mut self, key: Key) {
        if self.unread.last() != Some(&key) {
            self.unread.push(key);
        }
    }

    /// [`put_back`], for a connection that has ended.
    fn put_back(&mut self, key: Key, lease: Lease) {
        if let Some(remain) = self.of.get_mut(&key) {
            remain.inbox.put_back(lease);
            self.note_unread(key);
        }
    }
}

/// Lends what handles need for the time of a call.
pub(super) fn lend<R>(
    connections: &mut Connections<Shell>,
    remains: &mut Remains,
    call: impl FnOnce() -> R,
) -> R {
    CONNECTIONS
        .with(|place| place.lend(connections, || REMAINS.with(|place| place.lend(remains, call))))
}

/// Calls with the connections of the reactor that turns; `None` if none does.
#[inline]
pub(super) fn with<R>(call: impl FnOnce(&mut Connections<Shell>) -> R) -> Option<R> {
    CONNECTIONS.with(|place| place.borrow(call))
}

/// Calls with what is left of one that has ended.
pub(super) fn with_remain<R>(key: Key, call: impl FnOnce(&mut Remain) -> R) -> Option<R> {
    REMAINS.with(|place| place.borrow(|remains| remains.get(key).map(call))).flatten()
}

pub(super) fn with_remains<R>(call: impl FnOnce(&mut Remains) -> R) -> Option<R> {
    REMAINS.with(|place| place.borrow(call))
}

/// What is left of a lease that was taken is the first to be taken next.
pub(super) fn put_back(connections: &mut Connections<Shell>, key: Key, lease: Lease) {
    if sings(Canary::PutBackDropped) {
        return;
    }
    match connections.state_of(key) {
        Some(shell) => {
            shell.inbox.put_back(lease);
            note_unread(shell, key);
        }
        None => {
            with_remains(|remains| remains.put_back(key, lease));
        }
    }
}

/// It may be unread at the end of this turn.
fn note_unread(shell: &mut Shell, key: Key) {
    if shell.becomes_unread() {
        with_remains(|remains| remains.note_unread(key));
    }
}

impl Shell {
    /// Of a connection that is dialed by who holds its handle.
    pub(super) fn held() -> Self {
        Self { handles: 1, ..Self::default() }
    }

    /// Takes the oldest lease; and whether the reading has to go on, since it was held back and that was the last.
    #[inline]
    pub(super) fn pop(&mut self, key: Key) -> Option<(Lease, bool)> {
        let lease = self.inbox.pop()?;
        if !self.inbox.is_empty() {
            note_unread(self, key);
            return Some((lease, false));
        }
        let was_paused = std::mem::take(&mut self.is_paused);
        self.is_unread &= !was_paused;
        Some((lease, was_paused && !sings(Canary::UnreadForEver)))
    }

    /// Whether its task waits for the peer, or there is none, and nobody says otherwise: else something is under way.
    /// With nothing in the outbox a writer waits for the end, but for one that waits for memory.
    pub(super) fn is_idle(&self) -> bool {
        let is_at_work = self.is_busy || self.lacks_memory;
        (self.reader.is_some() || self.writer.is_some() || self.handles == 0) && !is_at_work
    }

    /// Whether all that ever came was received.
    pub(super) fn is_at_its_end(&self) -> bool {
        self.is_ended && self.inbox.is_empty()
    }

    /// Whether bytes came that nobody has taken.
    pub(super) fn has_unread(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Bytes came: whoever waits for them.
    #[inline]
    pub(super) fn receive(
        &mut self,
        lease: Lease,
        key: Key,
        remains: &mut Remains,
    ) -> Option<Waker> {
        if self.is_deaf {
            return None;
        }
        self.inbox.push(lease);
        // Even if somebody waits: a wait that is dropped takes nothing. And even behind the pause, as long as what the
        // kernel had delivered by then comes: it lies in buffers of the ring.
        if self.becomes_unread() {
            remains.note_unread(key);
        }
        self.reader.take()
    }

    /// Whether it has to be looked at when the turn ends, and was not known to.
    #[inline]
    fn becomes_unread(&mut self) -> bool {
        !std::mem::replace(&mut self.is_unread, true) || (self.is_paused && !self.is_listed)
    }

    /// Nobody will take what came, or what comes. Whether its reading was held back for that.
    pub(super) fn discard(&mut self) -> bool {
        self.inbox = Inbox::default();
        put_aside(self.reader.take());
        self.is_deaf = true;
        std::mem::take(&mut self.is_paused)
    }

    /// It is over: what its handle still needs of it, and everybody who waits.
    pub(super) fn end(
        &mut self,
        key: Key,
        reason: CloseReason,
        remains: &mut Remains,
        executor: &Rc<Executor>,
    ) {
        if self.handles > 0 {
            let mut inbox = std::mem::take(&mut self.inbox);
            if sings(Canary::InboxDroppedAtClose) {
                inbox = Inbox::default();
            }
            let Self { handles, is_open: was_open, is_ended, is_listed, .. } = *self;
            let remain = Remain { inbox, reason, handles, was_open, is_ended, is_listed };
            remains.of.insert(key, remain);
        }
        let writer = self.writer.take().filter(|_| !sings(Canary::WriterNotToldOfEnd));
        for waker in [self.reader.take(), writer].into_iter().flatten() {
            executor.wake_waker(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use slipring_core::sys::memory::Memory;

    use super::*;

    #[test]
    fn a_lease_that_finds_no_memory_keeps_it_from_none_behind_it() {
        let memory = Memory::new(4, 64, 40);
        let mut inbox = Inbox::default();
        for bytes in [64, 16, 64, 16] {
            let number = memory.take_returned().expect("a buffer");
            inbox.push(memory.lease(memory.claim(number, bytes)));
        }
        let mut refusals = 0;
        assert!(!inbox.spill(&mut refusals));
        assert_eq!((refusals, memory.spilled_bytes(), memory.buffers_free()), (2, 32, 2));
        refusals = REFUSALS_MAX - 1;
        assert!(!inbox.spill(&mut refusals));
        assert_eq!(refusals, REFUSALS_MAX, "no more are asked in this turn");
        drop((inbox.pop(), inbox.pop(), inbox.pop()));
        assert!(inbox.spill(&mut 0), "what is there was copied before");
    }

    #[test]
    fn who_joins_a_long_list_does_not_have_all_of_it_looked_through() {
        let (mut list, mut looks) = (VecDeque::new(), 0);
        let added = 100_000_u32;
        for new in 0..added {
            // The last thousand stay: whenever a list of so many is full, a few have left it.
            make_place(&mut list, |old| {
                looks += 1;
                new - old < 1_023
            });
            list.push_back(new);
        }
        assert!(looks <= 2 * added, "{looks} looks for {added}");
        assert!(list.capacity() <= 4 * 1_024, "room for {}", list.capacity());
    }

    #[test]
    fn who_takes_a_few_bytes_at_a_time_is_looked_at_once() {
        let memory = Memory::new(1, 64, 1024);
        let mut remains = Remains::default();
        let key = Key::new(1, 1);
        remains.of.insert(
            key,
            Remain {
                inbox: Inbox::default(),
                reason: CloseReason::Reset,
                handles: 1,
                was_open: true,
                is_ended: false,
                is_listed: false,
            },
        );
        remains.put_back(key, memory.lease(memory.adopt(vec![0; 1000]).expect("room")));
        for _ in 0..999 {
            let mut lease = remains.get(key).and_then(Remain::pop).expect("there is more");
            lease.advance(1);
            remains.put_back(key, lease);
        }
        assert_eq!(remains.unread.len(), 1);
    }

    #[test]
    fn an_inbox_gives_what_came_in_its_order_and_holds_nothing_when_it_is_empty() {
        let memory = Memory::new(1, 64, 1024);
        let lease =
            |text: &str| memory.lease(memory.adopt(text.as_bytes().to_vec()).expect("room"));
        let mut inbox = Inbox::default();
        for text in ["one", "two", "three"] {
            inbox.push(lease(text));
        }
        let mut first = inbox.pop().expect("one");
        first.advance(1);
        inbox.put_back(first);
        let texts: Vec<_> =
            std::iter::from_fn(|| inbox.pop()).map(|lease| lease.to_vec()).collect();
        assert_eq!(texts, [&b"ne"[..], b"two", b"three"]);
        assert!(inbox.is_empty() && inbox.rest.is_none());
        inbox.push(lease("four"));
        assert_eq!(inbox.pop().as_deref(), Some(&b"four"[..]));
    }
}
