//! A peer: it connects, sends a stream of its own, reads what comes, and ends in one of many ways.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::book::{Book, Fate};
use super::pattern::{self, Reader};
use crate::dice::Dice;
use crate::engine::Actor;
use crate::kernel::{FileId, Kernel, MOVED_IDLE_US, Owner, Reading};
use crate::trace::What;

/// What a peer should get to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Its own stream.
    Own,
    /// The stream of somebody else, who is read by nobody but it.
    Another,
    /// What the handler gave to its connection.
    Given,
}

/// How a peer ends its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// FIN after its stream, then it reads to the end.
    InOrder,
    /// It closes once its stream is out, read or not.
    Abrupt,
    /// It resets once its stream is out.
    Reset,
    /// It stays, silent.
    Silent,
    /// It sends no FIN, and leaves once it has read as much as it sent.
    Answered,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Talker {
    id: u32,
    stream: FileId,
    book: Rc<RefCell<Book>>,
    dice: Dice,
    expect: Expect,
    reader: Reader,
    /// What it has read, for comparison with what was given.
    read: u64,
    total: u64,
    sent: u64,
    manner: Manner,
    /// It reads nothing until all is well.
    deaf: bool,
    chunk: u32,
    /// It does nothing before.
    paused_until_us: u64,
    begun: bool,
    /// It has more to do, and stopped for now.
    rests: bool,
    done: bool,
}

impl Talker {
    /// On a stream of its own.
    pub(crate) fn new(
        stream: FileId,
        book: &Rc<RefCell<Book>>,
        mut dice: Dice,
        expect: Expect,
        total_max: u64,
    ) -> Self {
        let id = book.borrow_mut().add_talk(stream);
        let manner = dice.pick(&[
            Manner::InOrder,
            Manner::InOrder,
            Manner::InOrder,
            Manner::Answered,
            Manner::Abrupt,
            Manner::Reset,
            Manner::Silent,
        ]);
        let total = if dice.permille(60) { 0 } else { dice.log_between(1, total_max) };
        let chunk = dice.log_between(1, 8192) as u32;
        let deaf = dice.permille(80);
        Self {
            id,
            stream,
            book: Rc::clone(book),
            dice,
            expect,
            reader: Reader::default(),
            read: 0,
            total,
            sent: 0,
            manner,
            deaf,
            chunk,
            paused_until_us: 0,
            begun: false,
            rests: false,
            done: false,
        }
    }

    /// A well-behaved one.
    pub(crate) fn well_behaved(
        stream: FileId,
        book: &Rc<RefCell<Book>>,
        dice: Dice,
        expect: Expect,
    ) -> Self {
        let mut talker = Self::new(stream, book, dice, expect, 3_000);
        talker.manner = Manner::InOrder;
        talker.deaf = false;
        talker.total = talker.total.max(8);
        talker
    }

    /// A well-behaved one that must be served in full.
    pub(crate) fn probe(
        stream: FileId,
        book: &Rc<RefCell<Book>>,
        dice: Dice,
        expect: Expect,
    ) -> Self {
        let talker = Self::well_behaved(stream, book, dice, expect);
        book.borrow_mut().talk(talker.id).probe = true;
        talker
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    fn end(&mut self, kernel: &mut Kernel, fate: Fate, abortive: bool) {
        self.done = true;
        kernel.note_peer(What::PeerEnds, self.stream, self.id);
        self.book.borrow_mut().talk(self.id).fate = fate;
        kernel.leave(self.stream, abortive);
    }

    fn hear(&mut self, bytes: &[u8]) {
        let from = self.read as usize;
        self.read += bytes.len() as u64;
        let mut book = self.book.borrow_mut();
        book.talk(self.id).received = self.read;
        if self.expect == Expect::Given {
            let party = book.talk(self.id).party;
            let given = party.and_then(|party| book.given.get(&party));
            let same =
                given.is_some_and(|given| given.get(from..from + bytes.len()) == Some(bytes));
            if !same {
                let id = self.id;
                book.complain(format!("peer {id} of {party:?}: read at {from} what nobody gave"));
            }
            return;
        }
        if let Err(difference) = self.reader.take(bytes) {
            let id = self.id;
            book.complain(format!("peer {id}: {difference}"));
        }
        let Some(heard) = self.reader.id() else { return };
        let own = heard == self.id;
        let known = book.talk(self.id).heard.replace(heard) == Some(heard);
        if known {
            return;
        }
        let twice = book.talks.iter().filter(|talk| talk.heard == Some(heard)).count() > 1;
        if own != (self.expect == Expect::Own) || twice {
            let id = self.id;
            book.complain(format!("peer {id} reads stream {heard}, which is not for it"));
        }
    }

    /// Does what can be done now; in how long it wants to look again, microseconds.
    pub(crate) fn talk(&mut self, kernel: &mut Kernel) -> Option<u64> {
        if self.done {
            return None;
        }
        if !std::mem::replace(&mut self.begun, true) {
            kernel.note_peer(What::PeerBegins, self.stream, self.id);
        }
        if let Some(party) = kernel.behind(self.stream) {
            let party = self.book.borrow().name_of(party);
            self.book.borrow_mut().talk(self.id).party = Some(party);
        }
        let healed = self.book.borrow().healed;
        if healed {
            self.deaf = false;
            if self.manner == Manner::Silent {
                self.manner = Manner::InOrder;
            }
        } else {
            if kernel.now_us < self.paused_until_us {
                return Some(self.paused_until_us - kernel.now_us);
            }
            if kernel.dice.permille(kernel.knobs.peer_resets) {
                self.end(kernel, Fate::Left, true);
                return None;
            }
        }
        if !self.deaf && !self.listen(kernel) {
            return None;
        }
        if !self.speak(kernel) {
            return None;
        }
        let pause_us = u64::from(kernel.knobs.peer_pauses_ms) * 1000;
        if !healed && pause_us > 1000 && self.dice.permille(100) {
            let mut pause_us = self.dice.log_between(1, pause_us);
            if kernel.knobs.moved > 0 {
                // A connection leaves once it has been idle for a second: bytes come just then.
                pause_us = MOVED_IDLE_US + pause_us % 100_000;
            }
            self.paused_until_us = kernel.now_us + pause_us;
            return Some(pause_us);
        }
        // It stopped by itself: no event will tell it to go on.
        std::mem::take(&mut self.rests).then(|| self.dice.log_between(10, 20_000))
    }

    /// Reads; false once it is over.
    fn listen(&mut self, kernel: &mut Kernel) -> bool {
        loop {
            let most = kernel.knobs.peer_reads;
            match kernel.read(self.stream, most as usize) {
                Reading::Bytes(bytes) => self.hear(&bytes),
                Reading::Wait => break,
                Reading::End => {
                    self.end(kernel, Fate::Ended, false);
                    return false;
                }
                Reading::Failed(errno) => {
                    let never = !kernel.is_connected(self.stream) && errno == libc::ENOTCONN;
                    if never && kernel.is_connecting(self.stream) {
                        break;
                    }
                    let refused = self.sent == 0 && self.read == 0 && never;
                    self.end(kernel, if refused { Fate::Refused } else { Fate::Reset }, false);
                    return false;
                }
            }
            // A slow reader leaves the rest for later.
            if most < 4096 && self.dice.permille(500) {
                self.rests = true;
                break;
            }
        }
        if self.manner == Manner::Answered && self.sent == self.total && self.read >= self.total {
            self.end(kernel, Fate::Left, false);
            return false;
        }
        true
    }

    /// Sends; false once it is over.
    fn speak(&mut self, kernel: &mut Kernel) -> bool {
        if kernel.is_connecting(self.stream) {
            return true;
        }
        while self.sent < self.total {
            let count = u64::from(self.chunk).min(self.total - self.sent) as usize;
            let bytes = pattern::bytes(self.id, self.sent, count);
            match kernel.write(self.stream, &bytes) {
                Ok(taken) => {
                    self.sent += taken as u64;
                    self.book.borrow_mut().talk(self.id).sent = self.sent;
                }
                Err(libc::EAGAIN) => return true,
                Err(_) => {
                    self.end(kernel, Fate::Reset, false);
                    return false;
                }
            }
            if !self.book.borrow().healed && self.dice.permille(300) {
                self.rests = true;
                return true;
            }
        }
        let fin = self.book.borrow().talks[self.id as usize].fin;
        match self.manner {
            Manner::InOrder if !fin && kernel.shutdown(self.stream).is_ok() => {
                self.book.borrow_mut().talk(self.id).fin = true;
            }
            Manner::InOrder | Manner::Silent => {}
            Manner::Answered if self.book.borrow().healed && self.expect != Expect::Own => {
                self.manner = Manner::InOrder;
                return self.speak(kernel);
            }
            Manner::Answered => {}
            Manner::Abrupt => {
                self.book.borrow_mut().talk(self.id).fin = true;
                self.end(kernel, Fate::Left, false);
                return false;
            }
            Manner::Reset => {
                self.end(kernel, Fate::Left, true);
                return false;
            }
        }
        true
    }
}

impl Actor for Talker {
    fn look(&mut self, kernel: &mut Kernel, me: u32) {
        if let Some(in_us) = self.talk(kernel) {
            kernel.look_in(me, in_us.max(1));
        }
    }
}

/// A service that reactors dial: whoever comes is talked to.
#[derive(Debug)]
pub(crate) struct Service {
    listener: FileId,
    talkers: Vec<Talker>,
    book: Rc<RefCell<Book>>,
    dice: Dice,
    expect: Expect,
    total_max: u64,
}

impl Service {
    /// Listens there.
    pub(crate) fn new(
        kernel: &mut Kernel,
        me: u32,
        at: SocketAddr,
        book: &Rc<RefCell<Book>>,
        dice: Dice,
        expect: Expect,
        total_max: u64,
    ) -> Self {
        let listener = kernel.listen(at, 16, Owner::Actor(me));
        Self { listener, talkers: Vec::new(), book: Rc::clone(book), dice, expect, total_max }
    }
}

impl Actor for Service {
    fn look(&mut self, kernel: &mut Kernel, me: u32) {
        while let Some(client) = kernel.accept(self.listener, Owner::Actor(me)) {
            let dice = self.dice.fork();
            let healed = self.book.borrow().healed;
            self.talkers.push(match healed {
                true => Talker::well_behaved(client, &self.book, dice, self.expect),
                false => Talker::new(client, &self.book, dice, self.expect, self.total_max),
            });
        }
        let mut soonest = None;
        for talker in &mut self.talkers {
            if let Some(in_us) = talker.talk(kernel) {
                soonest = Some(soonest.map_or(in_us, |other: u64| other.min(in_us)));
            }
        }
        self.talkers.retain(|talker| !talker.is_done());
        if let Some(in_us) = soonest {
            kernel.look_in(me, in_us.max(1));
        }
    }
}

/// A client that comes later: it dials when it looks for the first time.
#[derive(Debug)]
pub(crate) enum Late {
    /// Not there yet.
    Coming {
        /// Where it goes.
        at: SocketAddr,
        book: Rc<RefCell<Book>>,
        dice: Dice,
        expect: Expect,
        total_max: u64,
        probe: bool,
    },
    /// There.
    Here(Talker),
}

impl Late {
    pub(crate) fn new(
        at: SocketAddr,
        book: &Rc<RefCell<Book>>,
        dice: Dice,
        expect: Expect,
        total_max: u64,
        probe: bool,
    ) -> Self {
        Self::Coming { at, book: Rc::clone(book), dice, expect, total_max, probe }
    }
}

impl Actor for Late {
    fn look(&mut self, kernel: &mut Kernel, me: u32) {
        if let Self::Coming { at, book, dice, expect, total_max, probe } = self {
            let stream = kernel.socket(*at, Owner::Actor(me));
            kernel.connect(stream);
            let dice = dice.fork();
            *self = Self::Here(match *probe {
                true => Talker::probe(stream, book, dice, *expect),
                false => Talker::new(stream, book, dice, *expect, *total_max),
            });
        }
        if let Self::Here(talker) = self {
            talker.look(kernel, me);
        }
    }
}
