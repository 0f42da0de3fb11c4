//! The simulated kernel: files, sockets, rings and the network between them, in virtual time.
//!
//! ```text
//!   reactor --- SimRing ---+                                       +--- peers (actors)
//!   reactor --- SimRing ---+---> Kernel: files <-> streams <-> time +--- other services
//!                                  |  rings: queue -> operations -> completions
//!                                  +- events: what is under way, by the time it arrives
//! ```
//!
//! It knows no reactor: rings are served when somebody enters them, and everything else happens when its
//! time comes ([`Kernel::step`]). What it does within what a kernel may do is drawn from the seed ([`Knobs`]).
//! What its user must never do is noted as a violation, never as a panic: panics above it are caught.
//!
//! One kernel serves all rings of a run, since sockets of one are the peers of another's. `kernel.rs` is time,
//! files and descriptors, `kernel/stream.rs` TCP, `kernel/listen.rs` how connections come to be,
//! `kernel/queues.rs` a ring's queues, `kernel/operations.rs` what the operations do, `kernel/rules.rs` what the
//! owner of a ring must not do, `kernel/patience.rs` for how long its connections may last, `kernel/told.rs` what it
//! knows of them, `kernel/questions.rs` what sockets are asked. `kernel/raw.rs`, `kernel/direct.rs` and
//! `kernel/messages.rs` are what only scripts ask for that compare this kernel with a real one.

mod dialed;
mod direct;
mod listen;
mod messages;
mod operations;
mod patience;
mod questions;
mod queues;
mod raw;
mod rules;
mod stream;
mod told;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slipring_core::token::Op;

use crate::dice::Dice;
use crate::knobs::Knobs;
use crate::marks::{Mark, Marks};
use crate::paced::Accepted;
use crate::trace::{NO_FILE, NO_RING, Party, Record, Trace, What};

pub(crate) use dialed::Dialed;
use listen::Listener;
pub(crate) use listen::address;
pub(crate) use messages::RING_DESCRIPTORS;
pub(crate) use patience::Patience;
use queues::Ring;
pub(crate) use queues::{BUFFER_SHIFT, F_BUFFER, F_MORE, F_NOTIF, F_SOCK_NONEMPTY};
pub(crate) use queues::{Entry, RingSetup, Work};
pub(crate) use raw::{Raw, number_of};
pub(crate) use stream::{Reading, Stream};
pub(crate) use told::{GivenUp, MOVED_IDLE_US};

/// Names a file for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    index: u32,
    life: u32,
}

impl FileId {
    /// Its number in records: no other file has had it.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.life)
    }
}

/// Names an operation of a ring for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OperationId {
    ring: u16,
    index: u32,
    life: u32,
}

/// Who is told when a file becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Whatever operations are armed on it.
    Rings,
    /// The actor of this number.
    Actor(u32),
}

/// What a file is.
#[derive(Debug)]
pub(crate) enum Kind {
    Listener(Listener),
    Stream(Box<Stream>),
    /// What other threads ring a reactor by.
    Bell {
        rung: bool,
    },
}

/// An open file.
#[derive(Debug)]
struct File {
    life: u32,
    /// From the descriptor table, from operations in flight, and from actors.
    references: u32,
    kind: Kind,
    owner: Owner,
    /// Operations armed on it.
    armed: Vec<OperationId>,
    /// What owners of rings have under way on it, from the push to the reaping: ring, token's bits, operation.
    pending: Vec<(u16, u64, Op)>,
    /// The connection whose operations these are, once there was one.
    party: Option<Party>,
}

/// What arrives at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Bytes of the stream, or its FIN, travel to the other side.
    Flow(FileId),
    /// A reset reaches the stream.
    Reset(FileId),
    /// A stream's dial is answered.
    Answer(FileId),
    /// An operation on a worker thread ends.
    Worker(OperationId),
    /// A zero-copy send's memory is let go of.
    Notify { ring: u16, number: u64 },
    /// A ring that was closed has wound up.
    Exit(u16),
    /// An actor looks.
    Actor(u32),
}

/// What [`Kernel::step`] leaves to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing more is due by that time.
    Nothing,
    /// The kernel did something.
    Done,
    /// The actor of this number has to look.
    Actor(u32),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) now_us: u64,
    pub(crate) dice: Dice,
    pub(crate) knobs: Knobs,
    pub(crate) trace: Trace,
    pub(crate) marks: Marks,
    /// From when on the reactors stop accepting for a drain: what is met then has other names.
    pub(crate) drains_from_us: u64,
    /// Clients that were accepted, until somebody counts them.
    pub(crate) accepted: Vec<Accepted>,
    /// What was done that must never be done, in words.
    pub(crate) violations: Vec<String>,
    /// Connections that have been moved to another reactor in the last step, and what they are there.
    pub(crate) moves: Vec<(Party, Party)>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    files: Vec<Option<File>>,
    free_files: Vec<u32>,
    lives: u32,
    /// Descriptors by number, the lowest free one handed out first.
    descriptors: Vec<Option<FileId>>,
    pub(crate) descriptors_max: usize,
    /// What waits travels all at once, as far as it may: nothing is cut by chance.
    pub(crate) whole_segments: bool,
    descriptors_ever: usize,
    rings: Vec<Ring>,
    bells: Arc<[AtomicBool]>,
    bell_files: Vec<FileId>,
    listeners: BTreeMap<SocketAddr, Vec<FileId>>,
    /// When each actor looks next.
    looks_us: Vec<u64>,
    next_port: u16,
    /// By their own addresses, streams of rings whose peers' FIN or reset has come, if somebody takes them from here.
    pub(crate) ends: Option<Vec<SocketAddr>>,
    /// How often rings have dialed an address, whatever came of it.
    pub(crate) dials: BTreeMap<SocketAddr, u64>,
}

/// The first descriptor handed out: those below are the process's own.
const FIRST_DESCRIPTOR: usize = 3;

impl Kernel {
    pub(crate) fn is_draining(&self) -> bool {
        self.now_us >= self.drains_from_us
    }

    /// A kernel for so many rings.
    pub(crate) fn new(dice: Dice, knobs: Knobs, rings: usize, keep_records: bool) -> Self {
        let mut kernel = Self {
            now_us: 0,
            dice,
            knobs,
            trace: Trace::new(keep_records),
            marks: Marks::default(),
            drains_from_us: u64::MAX,
            accepted: Vec::new(),
            violations: Vec::new(),
            moves: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            files: Vec::new(),
            free_files: Vec::new(),
            lives: 0,
            descriptors: vec![None; FIRST_DESCRIPTOR],
            descriptors_max: usize::MAX,
            whole_segments: false,
            descriptors_ever: FIRST_DESCRIPTOR,
            rings: Vec::new(),
            bells: (0..rings).map(|_| AtomicBool::new(false)).collect(),
            bell_files: Vec::new(),
            listeners: BTreeMap::new(),
            looks_us: Vec::new(),
            next_port: 0,
            ends: None,
            dials: BTreeMap::new(),
        };
        for _ in 0..rings {
            let bell = kernel.add_file(Kind::Bell { rung: false }, Owner::Rings);
            kernel.bell_files.push(bell);
        }
        kernel
    }

    /// What must never happen, has.
    pub(crate) fn violate(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(crate) fn note(&mut self, what: What, subject: u64, number: i64) {
        let at_us = self.now_us;
        self.trace.note(Record { at_us, ring: NO_RING, what, subject, number, file: NO_FILE });
    }

    /// Something about a peer on a stream.
    pub(crate) fn note_peer(&mut self, what: What, stream: FileId, peer: u32) {
        self.note(what, u64::from(stream.life), i64::from(peer));
    }

    fn note_of(&mut self, ring: u16, what: What, subject: u64, number: i64) {
        let at_us = self.now_us;
        self.trace.note(Record { at_us, ring, what, subject, number, file: NO_FILE });
    }

    fn note_push(&mut self, ring: u16, subject: u64, descriptor: Option<u32>, on: Option<FileId>) {
        let number = descriptor.map_or(-1, i64::from);
        let file = on.map_or(NO_FILE, FileId::number);
        let at_us = self.now_us;
        self.trace.note(Record { at_us, ring, what: What::Pushed, subject, number, file });
    }

    // ---------------------------------------------------------------------------------------- time

    /// When the next thing arrives.
    pub(crate) fn next_event_us(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at_us, _, _))| *at_us)
    }

    /// Lets the next thing that is due by `until_us` happen, at its time.
    pub(crate) fn step(&mut self, until_us: u64) -> Step {
        let Some(&Reverse((at_us, _, event))) = self.events.peek() else { return Step::Nothing };
        if at_us > until_us {
            return Step::Nothing;
        }
        self.events.pop();
        self.now_us = self.now_us.max(at_us);
        match event {
            Event::Flow(stream) => self.flow(stream),
            Event::Reset(stream) => self.on_reset(stream),
            Event::Answer(stream) => self.answer(stream),
            Event::Worker(operation) => self.on_worker(operation),
            Event::Notify { ring, number } => self.notify(ring, number),
            Event::Exit(ring) => self.on_exit(ring),
            // It may have been told to look sooner, and has.
            Event::Actor(actor) if self.looks_us[actor as usize] == at_us => {
                self.looks_us[actor as usize] = u64::MAX;
                return Step::Actor(actor);
            }
            Event::Actor(_) => {}
        }
        Step::Done
    }

    /// Time passes, with nothing in it.
    pub(crate) fn pass_to(&mut self, at_us: u64) {
        debug_assert!(self.next_event_us().is_none_or(|next_us| next_us >= at_us));
        self.now_us = self.now_us.max(at_us);
    }

    fn schedule(&mut self, in_us: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now_us + in_us, self.sequence, event)));
    }

    /// How long something takes on the network, microseconds.
    fn latency_us(&mut self) -> u64 {
        self.dice.log_between(1, u64::from(self.knobs.latency_us.max(1)))
    }

    /// The actor looks in a while, if it does not sooner.
    pub(crate) fn look_in(&mut self, actor: u32, in_us: u64) {
        let at_us = self.now_us + in_us;
        let next_us = &mut self.looks_us[actor as usize];
        if at_us < *next_us {
            *next_us = at_us;
            self.schedule(in_us, Event::Actor(actor));
        }
    }

    /// A place for one more actor; its number.
    pub(crate) fn add_actor(&mut self) -> u32 {
        self.looks_us.push(u64::MAX);
        self.looks_us.len() as u32 - 1
    }

    // --------------------------------------------------------------------------------------- files

    fn add_file(&mut self, kind: Kind, owner: Owner) -> FileId {
        self.lives += 1;
        let life = self.lives;
        let file = File {
            life,
            references: 1,
            kind,
            owner,
            armed: Vec::new(),
            pending: Vec::new(),
            party: None,
        };
        let index = match self.free_files.pop() {
            Some(index) => {
                self.files[index as usize] = Some(file);
                index
            }
            None => {
                self.files.push(Some(file));
                self.files.len() as u32 - 1
            }
        };
        FileId { index, life }
    }

    fn file(&self, id: FileId) -> Option<&File> {
        self.files[id.index as usize].as_ref().filter(|file| file.life == id.life)
    }

    fn file_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.files[id.index as usize].as_mut().filter(|file| file.life == id.life)
    }

    pub(crate) fn stream(&self, id: FileId) -> Option<&Stream> {
        match &self.file(id)?.kind {
            Kind::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    fn stream_mut(&mut self, id: FileId) -> Option<&mut Stream> {
        match &mut self.file_mut(id)?.kind {
            Kind::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    fn listener_mut(&mut self, id: FileId) -> Option<&mut Listener> {
        match &mut self.file_mut(id)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    /// One reference fewer; with the last the file is released.
    fn drop_reference(&mut self, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        file.references -= 1;
        if file.references > 0 {
            return;
        }
        match &file.kind {
            Kind::Listener(_) => self.release_listener(id),
            Kind::Stream(_) => self.release_stream(id),
            Kind::Bell { .. } => {}
        }
    }

    /// The file is no more.
    fn forget(&mut self, id: FileId) {
        if self.file(id).is_some() {
            self.files[id.index as usize] = None;
            self.free_files.push(id.index);
            self.note(What::Released, u64::from(id.life), 0);
        }
    }

    /// Whose connection is on the other side of a stream.
    pub(crate) fn behind(&self, id: FileId) -> Option<Party> {
        self.stream(id)?.behind.map(|(ring, key)| Party::new(ring, key))
    }

    /// Whoever waits for the file looks at it.
    fn wake(&mut self, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        match file.owner {
            Owner::Rings => {
                let armed = std::mem::take(&mut file.armed);
                for &operation in &armed {
                    self.make_ready(operation);
                }
                if let Some(file) = self.file_mut(id) {
                    file.armed = armed;
                }
            }
            Owner::Actor(actor) => {
                let in_us = self.dice.between(1, 20);
                self.look_in(actor, in_us);
            }
        }
    }

    /// Bells that other threads have rung are heard; whether there were any.
    pub(crate) fn hear_bells(&mut self) -> bool {
        let mut heard = false;
        for number in 0..self.bells.len() {
            if self.bells[number].swap(false, Ordering::Relaxed) {
                heard = true;
                let id = self.bell_files[number];
                if let Some(File { kind: Kind::Bell { rung }, .. }) = self.file_mut(id) {
                    *rung = true;
                }
                self.wake(id);
            }
        }
        heard
    }

    /// What other threads ring.
    pub(crate) fn bells(&self) -> Arc<[AtomicBool]> {
        Arc::clone(&self.bells)
    }

    pub(crate) fn clear_bell(&mut self, number: usize) {
        self.bells[number].store(false, Ordering::Relaxed);
        let id = self.bell_files[number];
        if let Some(File { kind: Kind::Bell { rung }, .. }) = self.file_mut(id) {
            *rung = false;
        }
    }

    pub(crate) fn bell_file(&self, number: usize) -> FileId {
        self.bell_files[number]
    }

    // --------------------------------------------------------------------------------- descriptors

    /// Whether no descriptor is left.
    fn is_out_of_descriptors(&self) -> bool {
        self.descriptors_max < usize::MAX && self.open_descriptors() >= self.descriptors_max
    }

    /// Descriptors that are open.
    pub(crate) fn open_descriptors(&self) -> usize {
        self.descriptors.iter().flatten().count()
    }

    /// Gives the file the lowest free number, with the reference that came with it.
    fn install(&mut self, id: FileId) -> Result<u32, i32> {
        if self.is_out_of_descriptors() {
            return Err(libc::EMFILE);
        }
        let free =
            (FIRST_DESCRIPTOR..self.descriptors.len()).find(|&n| self.descriptors[n].is_none());
        let number = free.unwrap_or_else(|| {
            self.descriptors.push(None);
            self.descriptors.len() - 1
        });
        if number < self.descriptors_ever {
            self.marks.meet(Mark::DescriptorReused);
        }
        self.descriptors_ever = self.descriptors_ever.max(number + 1);
        self.descriptors[number] = Some(id);
        Ok(number as u32)
    }

    /// The file behind a number.
    pub(crate) fn lookup(&self, descriptor: u32) -> Option<FileId> {
        *self.descriptors.get(descriptor as usize)?
    }

    /// close(2).
    pub(crate) fn close(&mut self, descriptor: u32) -> Result<(), i32> {
        let place = self.descriptors.get_mut(descriptor as usize).ok_or(libc::EBADF)?;
        let id = place.take().ok_or(libc::EBADF)?;
        self.drop_reference(id);
        Ok(())
    }
}
