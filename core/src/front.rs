//! What the reactors of a process have of each other: how much everybody has to do, and a way to give work away.
//!
//! ```text
//!            reactor 0            reactor 1                     reactor n
//!   loads   [ counts ]           [ counts ]                    [ counts ]      anybody looks
//!   mail    [ box   ] <--- a client, handed over ---           [ box   ]       anybody posts, anybody takes
//!   places  [ asked ]            [ made ]                                      one that has nobody idle asks
//! ```
//!
//! **How it ends.** A client that is in a mailbox when its owner has gone would never be served, nor closed. So
//! each reactor says once that it will post no more (`retire`), and none that drains ends before
//! all have said so: what is in the mailboxes then is all there will ever be. What is in the box of a
//! reactor that has failed, or that has stalled, is taken by the others.

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use crate::loads::Loads;
use crate::mailbox::{Mailbox, Message};
use crate::places::Places;
use crate::sync::{AtomicBool, AtomicU32, Ordering, Slip, slips};
use crate::token::Descriptor;

/// The listeners of one reactor, which others may borrow while it has stalled.
#[derive(Debug, Default)]
struct Listeners {
    descriptors: OnceLock<Box<[Descriptor]>>,
    /// Others that are about to accept from them, or do.
    borrowed: AtomicU32,
    /// Their owner closes them.
    closing: AtomicBool,
}

/// The listeners of a stalled reactor: they stay open until this is dropped.
#[derive(Debug)]
pub(crate) struct Borrowed<'a>(&'a Listeners);

impl Borrowed<'_> {
    /// In the order of their numbers.
    pub(crate) fn listeners(&self) -> &[Descriptor] {
        self.0.descriptors.get().map_or(&[], |descriptors| descriptors)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.0.borrowed.fetch_sub(1, Ordering::SeqCst);
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Front {
    loads: Loads,
    mail: Box<[Mailbox<Message>]>,
    /// Reactors that may still post.
    posting: AtomicU32,
    /// Reactors that have not ended.
    living: AtomicU32,
    /// Reactors that have failed or stalled: their mail is for all.
    absent: AtomicU32,
    doors: Box<[CachePadded<Listeners>]>,
    places: Places,
}

impl Front {
    /// For so many reactors, each of which has room for so many messages.
    #[must_use]
    pub fn new(reactors: usize, messages_max: u32) -> Self {
        Self {
            loads: Loads::new(reactors),
            mail: (0..reactors).map(|_| Mailbox::new(messages_max as usize)).collect(),
            posting: AtomicU32::new(reactors as u32),
            living: AtomicU32::new(reactors as u32),
            absent: AtomicU32::new(0),
            doors: (0..reactors).map(|_| CachePadded::default()).collect(),
            places: Places::new(reactors),
        }
    }

    /// The same, of reactors that have room for so many connections each in the tables of their rings.
    #[must_use]
    pub fn with_room(mut self, connections: u32) -> Self {
        self.loads = self.loads.with_room(connections);
        self
    }

    /// How much everybody has to do.
    #[must_use]
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// The mailbox of a reactor.
    #[must_use]
    pub fn mail(&self, reactor: usize) -> &Mailbox<Message> {
        &self.mail[reactor]
    }

    /// A reactor posts no more, and takes no more clients but those that are in its mailbox. Each says so once.
    /// Whether it was the last.
    pub(crate) fn retire(&self, reactor: usize) -> bool {
        self.loads.leave(reactor);
        self.posting.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Whether nobody posts any more.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.posting.load(Ordering::SeqCst) == 0
    }

    /// A reactor has failed, and looks into its mailbox no more.
    pub(crate) fn abandon(&self, reactor: usize) {
        self.loads.leave(reactor);
        self.absent.fetch_add(1, Ordering::SeqCst);
    }

    /// A reactor ends: after it was retired and, if it has not failed, saw no mail. Whether it was the last: what
    /// is in mailboxes then nobody else will take.
    pub(crate) fn end(&self, reactor: usize) -> bool {
        // Its last turn has no successor that would say that it is over: it would be taken for one that never ends.
        self.loads.end_turn(reactor);
        self.living.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// A reactor is about to sleep; false if it must not, because there is mail. From now on who posts wakes it.
    #[must_use]
    pub(crate) fn fall_asleep(&self, reactor: usize) -> bool {
        let alone = self.absent.load(Ordering::Relaxed) == 0;
        (alone || self.is_empty(reactor)) && self.mail[reactor].fall_asleep()
    }

    /// A reactor does not turn; false if that is known. Its mail is for all until it does.
    pub(crate) fn begin_stall(&self, reactor: usize) -> bool {
        let news = self.loads.set_stalled(reactor, true);
        self.absent.fetch_add(u32::from(news), Ordering::SeqCst);
        news
    }

    /// A reactor turns again; false if it had not stalled, as far as anybody knows.
    pub(crate) fn end_stall(&self, reactor: usize) -> bool {
        let news = self.loads.set_stalled(reactor, false);
        self.absent.fetch_sub(u32::from(news), Ordering::SeqCst);
        news
    }

    /// Whether some reactor does not turn.
    pub(crate) fn has_stalled(&self) -> bool {
        self.absent.load(Ordering::Relaxed) > 0
            && (0..self.mail.len()).any(|reactor| self.loads.is_stalled(reactor))
    }

    /// Whether `reactor` is the one to accept for `stalled`: the next after it that turns.
    pub(crate) fn stands_in(&self, reactor: usize, stalled: usize) -> bool {
        let reactors = self.mail.len();
        let after = (1..reactors).map(|step| (stalled + step) % reactors);
        self.loads.is_stalled(stalled)
            && after.into_iter().find(|other| !self.is_absent(*other)) == Some(reactor)
    }

    /// A reactor has these listeners.
    pub(crate) fn tell_listeners(&self, reactor: usize, listeners: &[Descriptor]) {
        let _ = self.doors[reactor].descriptors.set(listeners.into());
        self.places.tell(reactor, listeners.len());
    }

    /// The listeners of a reactor, kept open meanwhile; `None` once it closes them.
    pub(crate) fn borrow_listeners(&self, reactor: usize) -> Option<Borrowed<'_>> {
        let listeners = &*self.doors[reactor];
        // First this, then the look: the owner does it the other way round.
        listeners.borrowed.fetch_add(1, Ordering::SeqCst);
        let borrowed = Borrowed(listeners);
        (!listeners.closing.load(Ordering::SeqCst)).then_some(borrowed)
    }

    /// A reactor is about to close its listeners; false while another accepts from them, which is not for long.
    pub(crate) fn may_close_listeners(&self, reactor: usize) -> bool {
        let listeners = &self.doors[reactor];
        if slips(Slip::ClosesUnseen) && listeners.borrowed.load(Ordering::SeqCst) == 0 {
            listeners.closing.store(true, Ordering::SeqCst);
            return true;
        }
        listeners.closing.store(true, Ordering::SeqCst);
        listeners.borrowed.load(Ordering::SeqCst) == 0
    }

    /// Places that reactors ask each other for.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Whether a reactor does not turn, or has ended: its mail is for all.
    pub(crate) fn is_absent(&self, reactor: usize) -> bool {
        self.loads.is_gone(reactor) || self.loads.is_stalled(reactor)
    }

    /// A message for a reactor, or for one that has failed or stalled.
    #[inline]
    pub(crate) fn take(&self, reactor: usize) -> Option<Message> {
        let message = self.mail[reactor].take();
        if message.is_none() && self.absent.load(Ordering::Relaxed) > 0 {
            return self.take_orphan(reactor);
        }
        message
    }

    #[cold]
    fn take_orphan(&self, reactor: usize) -> Option<Message> {
        (0..self.mail.len())
            .filter(|other| self.is_absent(*other))
            .find_map(|other| Some((other, self.mail[other].take()?)))
            .map(|(other, message)| {
                self.loads.remove(other);
                self.loads.add(reactor);
                message
            })
    }

    /// Messages that are for all, because a reactor has failed or stalled.
    #[must_use]
    pub fn orphans(&self) -> usize {
        if self.absent.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        let absent = (0..self.mail.len()).filter(|reactor| self.is_absent(*reactor));
        absent.map(|reactor| self.mail[reactor].len()).sum()
    }

    /// Whether every reactor has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.living.load(Ordering::SeqCst) == 0
    }

    /// Whether there is no message for a reactor, nor for one that has failed or stalled.
    #[must_use]
    pub fn is_empty(&self, reactor: usize) -> bool {
        let any = self.absent.load(Ordering::SeqCst) > 0;
        let mine = |other: &usize| *other == reactor || (any && self.is_absent(*other));
        (0..self.mail.len()).filter(mine).all(|other| self.mail[other].is_empty())
    }
}
