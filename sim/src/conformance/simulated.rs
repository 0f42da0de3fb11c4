//! The simulated kernel as an arm: its rings at the level of their queues, in virtual time.
//!
//! What a script sets up (pairs, listeners) happens with all knobs at rest; what it does on them, with the
//! knobs of the seed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use slipring_core::span::Span;
use slipring_core::sys::bare::{Completion, Entered, Manner, Operation, RawBuffers, Setup, Target};
use slipring_core::sys::fault;
use slipring_core::sys::memory::Memory;
use slipring_core::{Fault, TcpInfo};

use super::arm::{Arm, Dialed, Ending, Open, Peer, Seen, Time};
use crate::dice::Dice;
use crate::kernel::{
    BUFFER_SHIFT, Entry, F_BUFFER, F_MORE, F_NOTIF, F_SOCK_NONEMPTY, FileId, Kernel, Owner,
    RING_DESCRIPTORS, Raw, Reading, RingSetup, Step, Work, address, number_of,
};
use crate::knobs::Knobs;
use crate::ring::KernelEntries;

const LONG_US: u64 = 1_000_000_000;
const QUIET_US: u64 = 100_000_000;
/// Enters until everything queued was taken; enters and events in one wait.
const ROUNDS_MAX: u32 = 2_000_000;
/// Bytes that a narrow socket holds.
const NARROW_BYTES: u32 = 4096;
/// Bytes of sends in flight, at most.
const OWNED_BYTES_MAX: u64 = 64 << 20;

/// What submissions of one token point to, and the completions that are still to come.
#[derive(Debug, Default)]
struct Held {
    spans: Vec<Span>,
    awaited: u32,
}

#[derive(Debug)]
struct SimulatedRing {
    memory: Rc<Memory>,
    buffers: RawBuffers<KernelEntries>,
    held: BTreeMap<u64, Held>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Simulated {
    kernel: Rc<RefCell<Kernel>>,
    rings: Vec<SimulatedRing>,
    peers: Vec<FileId>,
    /// Who owns the peers; it never looks by itself.
    actor: u32,
    next_port: u16,
}

impl Simulated {
    pub(super) fn new(seed: u64, knobs: Knobs) -> Self {
        let mut kernel = Kernel::new(Dice::new(seed), knobs, 0, false);
        let actor = kernel.add_actor();
        let kernel = Rc::new(RefCell::new(kernel));
        Self { kernel, rings: Vec::new(), peers: Vec::new(), actor, next_port: 1 }
    }

    /// What a script did that a ring's owner must not do.
    pub(super) fn violations(&self) -> Vec<String> {
        self.kernel.borrow().violations.clone()
    }

    fn until_us(&self, time: Time) -> u64 {
        let in_us = match time {
            Time::Long => LONG_US,
            Time::Quiet => QUIET_US,
            Time::Within(ms) => u64::from(ms) * 1000,
        };
        self.kernel.borrow().now_us + in_us
    }

    /// Lets things happen until the condition holds; whether it does.
    fn pass(&mut self, time: Time, holds: impl Fn(&Kernel) -> bool) -> bool {
        let until_us = self.until_us(time);
        let mut kernel = self.kernel.borrow_mut();
        loop {
            if holds(&kernel) {
                return true;
            }
            if kernel.step(until_us) == Step::Nothing {
                if let Time::Within(_) = time {
                    kernel.pass_to(until_us);
                }
                return holds(&kernel);
            }
        }
    }

    fn make_ring(&mut self, setup: Setup, buffers_from: u16) -> usize {
        let memory = Memory::new(setup.buffers, setup.buffer_bytes, OWNED_BYTES_MAX);
        let ring = self.kernel.borrow_mut().add_ring(RingSetup {
            memory: Rc::clone(&memory),
            submissions: setup.submissions as usize,
            completions: setup.completions as usize,
            buffers_from,
        });
        self.kernel.borrow_mut().register_places(ring, setup.places);
        let entries = KernelEntries { kernel: Rc::clone(&self.kernel), ring };
        let mut buffers = RawBuffers::new(entries, Rc::clone(&memory), buffers_from);
        buffers.publish_all();
        self.rings.push(SimulatedRing { memory, buffers, held: BTreeMap::new() });
        usize::from(ring)
    }

    fn work_of(&mut self, ring: usize, held: &mut Held, operation: Operation) -> Work {
        let number = number_of;
        match operation {
            Operation::Nop => Work::Raw(Raw::Nop),
            Operation::Unfit => Work::Raw(Raw::Unfit),
            Operation::Accept { on, many: true, direct: false } => {
                Work::Accept { descriptor: number(on) }
            }
            Operation::Accept { on, many: false, direct: false } => {
                Work::Raw(Raw::AcceptOnce { descriptor: number(on) })
            }
            Operation::Accept { on, many, direct: true } => {
                Work::Raw(Raw::AcceptDirect { descriptor: number(on), many })
            }
            Operation::Poll { on, write, many } => {
                Work::Poll { descriptor: number(on), write, many }
            }
            Operation::Receive { on, many: true, cap } => {
                Work::Receive { descriptor: number(on), cap }
            }
            Operation::Receive { on, many: false, .. } => {
                Work::Raw(Raw::ReceiveOnce { descriptor: number(on) })
            }
            Operation::Send { on, bytes, manner } => {
                let span = self.rings[ring].memory.adopt(bytes).expect("room for it");
                let (descriptor, segments) = (number(on), vec![span.segment()]);
                held.spans.push(span);
                let Manner { zero_copy, waits, whole } = manner;
                match waits || whole {
                    true => Work::Raw(Raw::Send { descriptor, segments, manner }),
                    false => Work::Send { descriptor, segments, zero_copy },
                }
            }
            Operation::Connect { on, to } => Work::Connect { descriptor: number(on), address: to },
            Operation::Shutdown { on } => Work::Shutdown { descriptor: number(on) },
            Operation::Cancel(Target::Token(target)) => Work::Cancel { target },
            Operation::Cancel(target) => Work::Raw(Raw::Cancel(target)),
            Operation::Close(file) => Work::Close { descriptor: number(file) },
            Operation::Message { to, token, result } => {
                Work::Raw(Raw::Message { to, token, result })
            }
            Operation::Pass { to, place, into, token } => {
                Work::Raw(Raw::Pass { to, place, into, token })
            }
        }
    }

    fn id_of(&self, descriptor: u32) -> Option<FileId> {
        self.kernel.borrow().lookup(descriptor)
    }
}

impl Arm for Simulated {
    fn ring(&mut self, setup: Setup) -> usize {
        self.make_ring(setup, 0)
    }

    fn ring_near_wrap(&mut self, setup: Setup) -> usize {
        self.make_ring(setup, u16::MAX - 7)
    }

    fn exit(&mut self, ring: usize) {
        self.kernel.borrow_mut().close_ring(ring as u16);
    }

    fn ring_descriptor(&self, ring: usize) -> u32 {
        RING_DESCRIPTORS + ring as u32
    }

    fn push(&mut self, ring: usize, token: u64, operation: Operation) {
        let mut held = Held { awaited: 1, ..Held::default() };
        let work = self.work_of(ring, &mut held, operation);
        let all = self.rings[ring].held.entry(token).or_default();
        all.spans.append(&mut held.spans);
        all.awaited += 1;
        self.kernel.borrow_mut().queue(ring as u16, Entry { user_data: token, work });
    }

    fn enter(&mut self, ring: usize, want: usize, time: Time) -> Entered {
        let until_us = self.until_us(time);
        let ring = ring as u16;
        let mut kernel = self.kernel.borrow_mut();
        let mut last = false;
        for _ in 0..ROUNDS_MAX {
            let news = kernel.unsubmitted(ring) > 0 || kernel.has_ready(ring) || last;
            if news && kernel.enter(ring).is_err() {
                return Entered::Failed(libc::EBADF);
            }
            if kernel.unsubmitted(ring) > 0 {
                continue;
            }
            if kernel.standing(ring) >= want {
                return Entered::Done;
            }
            if last && !kernel.has_ready(ring) {
                break;
            }
            if !kernel.has_ready(ring) && kernel.step(until_us) == Step::Nothing {
                if let Time::Within(_) = time {
                    kernel.pass_to(until_us);
                }
                // What stands behind the queue is flushed by an enter.
                last = true;
            }
        }
        match kernel.standing(ring) {
            0 => Entered::TimeUp,
            _ => Entered::Done,
        }
    }

    fn reap(&mut self, ring: usize) -> Option<Completion> {
        let cqe = self.kernel.borrow_mut().reap(ring as u16)?;
        let ring = &mut self.rings[ring];
        let more = cqe.flags & F_MORE != 0;
        let token = cqe.user_data;
        if !more && let Some(held) = ring.held.get_mut(&token) {
            held.awaited -= 1;
            if held.awaited == 0
                && let Some(held) = ring.held.remove(&token)
            {
                held.spans.into_iter().for_each(|span| ring.memory.release(span));
                ring.memory.settle();
            }
        }
        let buffer = (cqe.flags & F_BUFFER != 0).then_some((cqe.flags >> BUFFER_SHIFT) as u16);
        let length = cqe.result.max(0) as u32;
        let bytes = buffer.map_or_else(Vec::new, |number| ring.buffers.take(number, length));
        Some(Completion {
            token,
            result: cqe.result,
            more,
            notification: cqe.flags & F_NOTIF != 0,
            nonempty: cqe.flags & F_SOCK_NONEMPTY != 0,
            buffer,
            bytes,
        })
    }

    fn fill(&mut self, ring: usize, place: u32, descriptor: u32) -> Result<(), i32> {
        self.kernel.borrow_mut().put_at(ring as u16, descriptor, place)
    }

    fn recycle(&mut self, ring: usize, buffer: u16) {
        self.rings[ring].buffers.recycle(buffer);
    }

    fn listen(&mut self, backlog: u32, beside: Option<SocketAddr>) -> (u32, SocketAddr) {
        let at = beside.unwrap_or_else(|| {
            self.next_port += 1;
            address(2, self.next_port)
        });
        let descriptor = self.kernel.borrow_mut().listen_with_descriptor(at, backlog as usize);
        (descriptor, at)
    }

    fn socket(&mut self) -> u32 {
        let to = address(9, 9);
        self.kernel.borrow_mut().socket_with_descriptor(to, None).unwrap_or(u32::MAX)
    }

    fn pair(&mut self, open: Open) -> (u32, Peer) {
        let knobs = self.kernel.borrow().knobs;
        let socket_bytes = match open {
            Open::Wide => knobs.socket_bytes,
            Open::Narrow => knobs.socket_bytes.min(NARROW_BYTES),
        };
        self.kernel.borrow_mut().knobs = Knobs { socket_bytes, ..Knobs::calm() };
        let (listener, at) = self.listen(1, None);
        let peer = self.dial(at);
        self.queued(listener, 1);
        let mut kernel = self.kernel.borrow_mut();
        let ours = kernel.accept_queued(listener);
        let _ = kernel.close(listener);
        kernel.knobs = knobs;
        (ours.unwrap_or(u32::MAX), peer)
    }

    fn close(&mut self, descriptor: u32) {
        let _ = self.kernel.borrow_mut().close(descriptor);
    }

    fn set_abortive(&mut self, descriptor: u32) {
        self.kernel.borrow_mut().set_abortive(descriptor);
    }

    fn queued(&mut self, listener: u32, clients: usize) -> bool {
        let Some(id) = self.id_of(listener) else { return false };
        self.pass(Time::Long, |kernel| kernel.queued(id) >= clients)
    }

    fn arrived(&mut self, descriptor: u32, bytes: usize) -> bool {
        let Some(id) = self.id_of(descriptor) else { return false };
        self.pass(Time::Long, |kernel| kernel.stream(id).is_some_and(|s| s.inbox_len() >= bytes))
    }

    fn ended(&mut self, descriptor: u32) -> bool {
        let Some(id) = self.id_of(descriptor) else { return false };
        self.pass(Time::Long, |kernel| kernel.stream(id).is_some_and(|s| s.has_ended()))
    }

    fn acked(&mut self, descriptor: u32, bytes: u64) -> bool {
        let Some(id) = self.id_of(descriptor) else { return false };
        let acked =
            |kernel: &Kernel| kernel.tcp_info(id).is_ok_and(|info| info.acked_bytes >= bytes);
        self.pass(Time::Long, acked)
    }

    fn names(&mut self, descriptor: u32) -> (Result<SocketAddr, Fault>, Result<SocketAddr, Fault>) {
        let kernel = self.kernel.borrow();
        let Some(id) = kernel.lookup(descriptor) else {
            return (Err(fault(libc::EBADF)), Err(fault(libc::EBADF)));
        };
        (kernel.peer_name(id).map_err(fault), kernel.local_name(id).map_err(fault))
    }

    fn info(&mut self, descriptor: u32) -> Result<TcpInfo, Fault> {
        let id = self.id_of(descriptor).ok_or(fault(libc::EBADF))?;
        self.kernel.borrow().tcp_info(id).map_err(fault)
    }

    fn ends_of(&mut self, peer: Peer) -> Option<(SocketAddr, SocketAddr)> {
        let kernel = self.kernel.borrow();
        kernel.stream(self.peers[peer.0]).map(|stream| (stream.local, stream.remote))
    }

    fn dial(&mut self, to: SocketAddr) -> Peer {
        let mut kernel = self.kernel.borrow_mut();
        let id = kernel.socket(to, Owner::Actor(self.actor));
        kernel.connect(id);
        self.peers.push(id);
        Peer(self.peers.len() - 1)
    }

    fn dialed(&mut self, peer: Peer, time: Time) -> Dialed {
        let id = self.peers[peer.0];
        if !self.pass(time, |kernel| !kernel.is_connecting(id)) {
            return Dialed::Pending;
        }
        match self.kernel.borrow().stream(id).and_then(|stream| stream.dial_failure()) {
            Some(errno) => Dialed::Failed(errno),
            None => Dialed::Connected,
        }
    }

    fn write(&mut self, peer: Peer, bytes: &[u8]) -> Result<usize, i32> {
        self.kernel.borrow_mut().write(self.peers[peer.0], bytes)
    }

    fn read(&mut self, peer: Peer, most: usize, time: Time) -> Seen {
        let id = self.peers[peer.0];
        let mut bytes = Vec::new();
        let until_us = self.until_us(time);
        let mut kernel = self.kernel.borrow_mut();
        while bytes.len() < most {
            match kernel.read(id, most - bytes.len()) {
                Reading::Bytes(more) => bytes.extend(more),
                Reading::End => return Seen { bytes, ending: Ending::End },
                Reading::Failed(errno) => return Seen { bytes, ending: Ending::Failed(errno) },
                Reading::Wait if kernel.step(until_us) == Step::Nothing => break,
                Reading::Wait => {}
            }
        }
        Seen { bytes, ending: Ending::Open }
    }

    fn finish(&mut self, peer: Peer) {
        let _ = self.kernel.borrow_mut().shutdown(self.peers[peer.0]);
    }

    fn leave(&mut self, peer: Peer, abortive: bool) {
        self.kernel.borrow_mut().leave(self.peers[peer.0], abortive);
    }

    fn open_descriptors(&mut self) -> usize {
        self.kernel.borrow().open_descriptors()
    }

    fn shortage(&mut self, left: usize) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.descriptors_max = kernel.open_descriptors() + left;
    }

    fn relent(&mut self) {
        self.kernel.borrow_mut().descriptors_max += 1;
    }
}
