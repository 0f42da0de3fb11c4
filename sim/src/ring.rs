//! The driver that a reactor under simulation runs on: the ring of one reactor in a simulated kernel.
//!
//! What a real ring does above the system call is done here by the same lines: completions are taken in by
//! `sys::Intake`, buffers published by `sys::BufferRing`. The rest is the kernel's.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use slipring_core::config::{MANAGEMENT_SHARE, SUBMISSIONS_PER_CONNECTION_MAX};
use slipring_core::driver::{
    Abilities, Completion, Driver, DriverFailed, QueueFull, Share, Sockets, Submission, Wait,
};
use slipring_core::sys::memory::Memory;
use slipring_core::sys::{BufferRing, Entries, Intake, Places, fault};
use slipring_core::token::{Descriptor, Key, Op, Token};
use slipring_core::{Fault, TcpInfo};

use crate::kernel::{Entry, FileId, Kernel, RING_DESCRIPTORS, Raw, RingSetup, Work};
use crate::marks::Mark;
use crate::trace::Party;

/// Things done in one turn that must never be done, after which the ring takes no more: a turn that does wrong
/// for ever comes to its end, where somebody looks.
const VIOLATIONS_MAX: usize = 1_000;

/// Segments of vectored sends that may be queued between two enters, on a ring under test: so few that a
/// busy turn runs out of them.
const VECTORS: usize = 96;

/// The places of the buffer ring, which stand in the kernel.
#[derive(Debug)]
pub(crate) struct KernelEntries {
    pub(crate) kernel: Rc<RefCell<Kernel>>,
    pub(crate) ring: u16,
}

impl Entries for KernelEntries {
    fn write(&mut self, place: u16, number: u16, _: &Memory) {
        self.kernel.borrow_mut().write_buffer(self.ring, place, number);
    }

    fn publish(&mut self, tail: u16) {
        self.kernel.borrow_mut().publish_buffers(self.ring, tail);
    }
}

/// What a simulated ring is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimRingSetup {
    pub(crate) buffers: u32,
    pub(crate) buffer_bytes: u32,
    pub(crate) owned_bytes_max: u64,
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
    pub(crate) abilities: Abilities,
    /// Where the buffer ring's counter starts.
    pub(crate) buffers_from: u16,
    /// Places of the ring's own table.
    pub(crate) places: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SimRing {
    kernel: Rc<RefCell<Kernel>>,
    ring: u16,
    memory: Rc<Memory>,
    buffers: BufferRing<KernelEntries>,
    intake: Intake,
    abilities: Abilities,
    submissions: u32,
    vectors_used: usize,
    places: Places,
    /// The enter of a question failed.
    failed: Rc<RefCell<Option<DriverFailed>>>,
}

/// Answers about the sockets of one ring.
#[derive(Debug)]
struct Asked {
    kernel: Rc<RefCell<Kernel>>,
    ring: u16,
    failed: Rc<RefCell<Option<DriverFailed>>>,
}

impl Asked {
    fn ask<T>(
        &self,
        of: Descriptor,
        question: fn(&Kernel, FileId) -> Result<T, i32>,
    ) -> Result<T, Fault> {
        let mut kernel = self.kernel.borrow_mut();
        let file = kernel.lookup_for(self.ring, of.0);
        let Some(file) = file.filter(|file| !kernel.is_being_closed(self.ring, *file)) else {
            kernel.violate(format!("a question about {of:?}, which is closed"));
            return Err(Fault::NotConnected);
        };
        if !of.is_of_table() {
            return question(&kernel, file).map_err(fault);
        }
        // Through the ring: a descriptor is installed for the moment, with an enter of its own.
        kernel.marks.meet(Mark::PlaceAsked);
        if let Err(cause) = kernel.enter(self.ring) {
            *self.failed.borrow_mut() = Some(DriverFailed { cause });
            return Err(Fault::Cancelled);
        }
        let beside = kernel.install_from(self.ring, of.0).map_err(fault)?;
        let answer = question(&kernel, file).map_err(fault);
        if kernel.close(beside).is_err() {
            kernel.violate("a descriptor for the moment was closed twice");
        }
        answer
    }
}

impl Sockets for Asked {
    fn peer(&self, of: Descriptor) -> Result<SocketAddr, Fault> {
        self.ask(of, Kernel::peer_name)
    }

    fn local(&self, of: Descriptor) -> Result<SocketAddr, Fault> {
        self.ask(of, Kernel::local_name)
    }

    fn info(&self, of: Descriptor) -> Result<TcpInfo, Fault> {
        self.ask(of, Kernel::tcp_info)
    }
}

impl SimRing {
    pub(crate) fn new(kernel: &Rc<RefCell<Kernel>>, setup: &SimRingSetup) -> Self {
        let memory = Memory::new(setup.buffers, setup.buffer_bytes, setup.owned_bytes_max);
        let ring = kernel.borrow_mut().add_ring(RingSetup {
            memory: Rc::clone(&memory),
            submissions: setup.submissions as usize,
            completions: setup.completions as usize,
            buffers_from: setup.buffers_from,
        });
        let entries = KernelEntries { kernel: Rc::clone(kernel), ring };
        let mut ring = Self {
            kernel: Rc::clone(kernel),
            ring,
            buffers: BufferRing::starting_at(setup.buffers_from, entries, Rc::clone(&memory)),
            intake: Intake::new(Rc::clone(&memory)),
            memory,
            abilities: setup.abilities,
            submissions: setup.submissions,
            vectors_used: 0,
            places: Places::new(setup.places),
            failed: Rc::default(),
        };
        kernel.borrow_mut().register_places(ring.ring, setup.places);
        ring.recycle();
        ring
    }

    /// Zero-copy sends whose notification is awaited.
    pub(crate) fn held(&self) -> usize {
        self.intake.held()
    }

    /// Places of the table that are not free.
    pub(crate) fn places_used(&self) -> u32 {
        self.places.used()
    }

    /// The system call without its wait: what is queued is taken, what is ready completes.
    pub(crate) fn submit(&mut self) -> Result<(), DriverFailed> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.enter(self.ring).map_err(|cause| DriverFailed { cause })?;
        if kernel.unsubmitted(self.ring) == 0 {
            self.vectors_used = 0;
            self.memory.settle();
            self.places.settle();
        }
        Ok(())
    }

    /// What is asked about a socket in the table goes through the ring, with an enter of its own.
    fn ask(&mut self) {
        if let Err(failed) = self.submit() {
            *self.failed.borrow_mut() = Some(failed);
        }
    }

    fn work_of(&mut self, submission: Submission<'_>) -> Result<Work, QueueFull> {
        Ok(match submission {
            Submission::AcceptMany(Descriptor(descriptor)) => Work::Accept { descriptor },
            Submission::WatchReadable(Descriptor(descriptor)) => {
                Work::Poll { descriptor, write: false, many: false }
            }
            Submission::WatchWritable { descriptor: Descriptor(descriptor), many } => {
                Work::Poll { descriptor, write: true, many }
            }
            Submission::Receive { descriptor, cap } => {
                let cap = if self.abilities.receive_cap { cap } else { 0 };
                Work::Receive { descriptor: descriptor.0, cap }
            }
            Submission::Send { descriptor, segments, zero_copy } => {
                if segments.len() > 1 || zero_copy {
                    let used = self.vectors_used + segments.len();
                    let mut kernel = self.kernel.borrow_mut();
                    let chance = kernel.knobs.full_vectors;
                    if used > VECTORS || kernel.dice.permille(chance) {
                        kernel.marks.meet(Mark::VectorsFull);
                        return Err(QueueFull);
                    }
                    self.vectors_used = used;
                }
                let segments = segments.to_vec();
                Work::Send { descriptor: descriptor.0, segments, zero_copy }
            }
            Submission::Connect { descriptor, address } => {
                Work::Connect { descriptor: descriptor.0, address: *address }
            }
            Submission::ShutdownWrite(Descriptor(descriptor)) => Work::Shutdown { descriptor },
            Submission::Cancel(target) => Work::Cancel { target: target.to_bits() },
            Submission::Close(descriptor) => {
                if let Some(place) = descriptor.place() {
                    self.places.close(place);
                }
                Work::Close { descriptor: descriptor.0 }
            }
            Submission::Notify(reactor) => {
                let mut kernel = self.kernel.borrow_mut();
                let chance = kernel.knobs.failed_notice;
                let token = Token::new(Op::Mail, Key::new(0, 0), 0).to_bits();
                let to = RING_DESCRIPTORS + reactor as u32;
                Work::Raw(match kernel.dice.permille(chance) {
                    true => Raw::Unfit,
                    false => Raw::Message { to, token, result: 0 },
                })
            }
        })
    }

    fn push_work(&mut self, token: Token, work: Work, share: Share) {
        let crowded = self.room(Share::Data) < SUBMISSIONS_PER_CONNECTION_MAX;
        let mut kernel = self.kernel.borrow_mut();
        if crowded && token.is_of(Op::Close) {
            kernel.marks.meet(Mark::CloseOnManagementShare);
        }
        let violations = kernel.violations.len();
        kernel.check_push(self.ring, token, &work, share);
        // Named, so that the story of the failure is the story of this connection.
        let party = Party::new(self.ring, token.to_bits());
        for what in &mut kernel.violations[violations..] {
            *what = format!("{party}: {what}");
        }
        kernel.queue(self.ring, Entry { user_data: token.to_bits(), work });
    }
}

impl Driver for SimRing {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn now_us(&self) -> u64 {
        self.kernel.borrow().now_us
    }

    fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    fn room(&self, share: Share) -> u32 {
        if self.kernel.borrow().violations.len() >= VIOLATIONS_MAX {
            return 0;
        }
        let free = self.kernel.borrow().room(self.ring) as u32;
        let room = match share {
            Share::Management => free,
            Share::Data => free.saturating_sub(self.submissions / MANAGEMENT_SHARE),
        };
        if free < SUBMISSIONS_PER_CONNECTION_MAX {
            self.kernel.borrow_mut().marks.meet(Mark::QueueFull);
        } else if share == Share::Data && room < SUBMISSIONS_PER_CONNECTION_MAX {
            self.kernel.borrow_mut().marks.meet(Mark::DataShareFull);
        }
        room
    }

    fn push(
        &mut self,
        token: Token,
        submission: Submission<'_>,
        share: Share,
    ) -> Result<(), QueueFull> {
        if self.room(share) == 0 {
            return Err(QueueFull);
        }
        let work = self.work_of(submission)?;
        self.push_work(token, work, share);
        if let Submission::Send { segments, zero_copy: true, .. } = submission {
            self.intake.hold(token, segments);
        }
        Ok(())
    }

    fn enter(&mut self, _: Wait) -> Result<(), DriverFailed> {
        // Who runs the reactor has let the time of the wait pass before.
        let failed = self.failed.borrow_mut().take();
        failed.map_or_else(|| self.submit(), Err)
    }

    fn has_completions(&self) -> bool {
        self.kernel.borrow().has_completions(self.ring)
    }

    fn reap(&mut self, into: &mut Vec<Completion>, limit: usize) {
        let mut kernel = self.kernel.borrow_mut();
        for _ in 0..limit {
            let Some(cqe) = kernel.reap(self.ring) else { return };
            if let Some(completion) = self.intake.translate(cqe) {
                kernel.on_reaped(self.ring, cqe, completion.more, completion.notification);
                into.push(completion);
            }
        }
    }

    fn recycle(&mut self) -> u32 {
        if self.intake.take_starved() {
            self.buffers.widen();
        }
        self.buffers.publish_returned()
    }

    fn open_socket(
        &mut self,
        address: &SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<Descriptor, Fault> {
        let mut kernel = self.kernel.borrow_mut();
        let chance = kernel.knobs.failed_socket;
        if kernel.dice.permille(chance) {
            let errno =
                kernel.dice.pick(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS]);
            return Err(fault(errno));
        }
        kernel.socket_with_descriptor(*address, from).map(Descriptor).map_err(fault)
    }

    fn set_abortive(&mut self, descriptor: Descriptor) {
        if descriptor.is_of_table() {
            self.ask();
        }
        self.kernel.borrow_mut().set_abortive_for(self.ring, descriptor.0);
    }

    fn move_in(&mut self, descriptor: Descriptor) -> Descriptor {
        let mut kernel = self.kernel.borrow_mut();
        let Some(place) = self.places.take() else {
            if self.places.count() > 0 {
                kernel.marks.meet(Mark::TableFull);
            }
            return descriptor;
        };
        let chance = kernel.knobs.failed_socket;
        let refused = kernel.dice.permille(chance);
        if refused || kernel.put_at(self.ring, descriptor.0, place).is_err() {
            self.places.give_back(place);
            return descriptor;
        }
        if kernel.close(descriptor.0).is_err() {
            kernel.violate(format!("{descriptor:?} was closed twice"));
        }
        Descriptor::of_table(place)
    }

    fn move_out(&mut self, descriptor: Descriptor) -> Option<Descriptor> {
        if !descriptor.is_of_table() {
            return Some(descriptor);
        }
        self.ask();
        let mut kernel = self.kernel.borrow_mut();
        kernel.marks.meet(Mark::MovedOutOfTable);
        kernel.install_from(self.ring, descriptor.0).ok().map(Descriptor)
    }

    fn accept_queued(&mut self, listener: Descriptor) -> Result<Descriptor, Fault> {
        self.kernel.borrow_mut().accept_queued(listener.0).map(Descriptor).map_err(fault)
    }

    fn close_now(&mut self, descriptor: Descriptor) {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.close_for(self.ring, descriptor.0).is_err() {
            kernel.violate(format!("{descriptor:?} was closed twice"));
        }
        if let Some(place) = descriptor.place() {
            kernel.marks.meet(Mark::PlaceEmptiedAtOnce);
            self.places.give_back(place);
        }
    }

    fn unsent(&mut self, descriptor: Descriptor) -> Option<u32> {
        if descriptor.is_of_table() {
            self.ask();
            self.kernel.borrow_mut().marks.meet(Mark::PlaceAsked);
        }
        self.kernel.borrow_mut().look_at_unsent(self.ring, descriptor.0)
    }

    fn push_wake(&mut self, token: Token) -> Result<(), QueueFull> {
        if self.room(Share::Management) == 0 {
            return Err(QueueFull);
        }
        self.push_work(token, Work::PollBell, Share::Management);
        Ok(())
    }

    fn clear_wake(&mut self) {
        self.kernel.borrow_mut().clear_bell(usize::from(self.ring));
    }

    fn sockets(&self) -> Rc<dyn Sockets> {
        let (kernel, failed) = (Rc::clone(&self.kernel), Rc::clone(&self.failed));
        Rc::new(Asked { kernel, ring: self.ring, failed })
    }
}
