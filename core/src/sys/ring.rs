//! The io_uring behind the [`Driver`] trait: plain submissions to SQEs, CQEs to plain completions.
//!
//! Set up as SINGLE_ISSUER + DEFER_TASKRUN: completions are made when this thread enters, and only then.
//! SUBMIT_ALL: one bad submission does not hold up those behind it. Every send says MSG_DONTWAIT: it
//! completes in the enter that submits it, so the memory it reads is never with the kernel for longer, and
//! a connection whose socket is full is watched by a poll instead. (Zero-copy sends are the exception: their
//! memory is referenced here until the notification.)
//!
//! After set-up the ring is restricted to the operations of this file and of `ring/direct.rs`: what is different for
//! sockets that stand in the ring's own table. `ring/queues.rs` is the ring itself and the call, `ring/asked.rs` what
//! handlers ask about sockets.

mod asked;
mod direct;
mod queues;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use io_uring::register::Restriction;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use super::buffer_ring::BufferRing;
use super::entries::{GROUP, SharedEntries};
use super::intake::Intake;
use super::memory::Memory;
use super::probe::{Features, set_up_error};
use super::process::ThreadClock;
use super::socket;
use super::table::Places;
use super::wake::Bell;
use crate::clock::MonotonicClock;
use crate::config::{Limits, MANAGEMENT_SHARE};
use crate::driver::{
    Abilities, Completion, Driver, DriverFailed, QueueFull, Share, Sockets, Submission, Wait,
};
use crate::error::{Fault, SetupError};
use crate::span::Segment;
use crate::token::{Descriptor, Key, Op, Token};
use asked::Asked;
use direct::flag_of;
use queues::Queues;

/// Vectored sends that may be queued between two enters.
const MESSAGES: usize = 512;
/// Their segments, all together.
const IOVECS: usize = 4096;
/// Dials that may be queued between two enters.
const ADDRESSES: usize = 256;
/// Offset of `optlen` in an SQE: the cap of a multishot receive, which the crate has no name for.
const SQE_OPTLEN: usize = 44;
/// Report whether a zero-copy send was one.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
const REGISTER_RING_FDS: u32 = 20;

/// What a ring is made with.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Sizes of the queues and the buffers.
    pub limits: Limits,
    /// What the kernel can do: see [`probe`](super::probe()).
    pub features: Features,
    /// Whether the completion queue is watched, so that the kernel has to say when there is work.
    pub watched: bool,
    /// The time that all reactors of a process go by.
    pub clock: MonotonicClock,
    /// Places of the ring's own table; zero: it has none.
    pub places: u32,
}

#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// What queued submissions point to until the kernel has read them.
struct Arena {
    iovecs: Box<[libc::iovec]>,
    iovecs_used: usize,
    messages: Box<[libc::msghdr]>,
    messages_used: usize,
    /// Never grows past the capacity it starts with: its elements must not move.
    addresses: Vec<socket2::SockAddr>,
}

/// The io_uring of one reactor.
pub struct Ring {
    // Dropped in this order: the ring before the memory that the kernel knows through it. Nobody else keeps it: what
    // answers questions has a weak share.
    queues: Rc<Queues>,
    buffers: BufferRing<SharedEntries>,
    intake: Intake,
    memory: Rc<Memory>,
    arena: Arena,
    bell: Bell,
    /// The rings of all reactors. A second descriptor of each: its number stays its own as long as somebody may
    /// write to it.
    rings: Arc<[OwnedFd]>,
    clock: MonotonicClock,
    abilities: Abilities,
    places: Places,
}

impl Ring {
    /// Sets a ring up, restricted and ready. It belongs to the calling thread from now on.
    ///
    /// # Errors
    /// [`SetupError`] with cause and remedy.
    pub fn new(config: &RingConfig) -> Result<Self, SetupError> {
        let RingConfig { limits, features, watched, places, .. } = *config;
        let step = |step| move |source| SetupError::Step { step, source };
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_r_disabled()
            .setup_cqsize(limits.completions());
        if features.no_sqarray {
            builder.setup_no_sqarray();
        }
        if watched {
            builder.setup_taskrun_flag();
        }
        let ring: IoUring = builder.build(limits.submissions).map_err(set_up_error)?;
        let memory = Memory::try_new(limits.buffers, limits.buffer_bytes, limits.owned_bytes_max)
            .map_err(step("mapping the buffers"))?;
        let entries = SharedEntries::new(memory.buffers() as u16);
        let entries = entries.map_err(step("mapping the buffer ring"))?;
        let submitter = ring.submitter();
        entries.register(&submitter).map_err(step("registering the buffer ring"))?;
        // Sockets never need them; a number that stays zero is easier to watch than one that may grow.
        submitter.register_iowq_max_workers(&mut [1, 1]).map_err(step("limiting io-wq"))?;
        if places > 0 {
            submitter.register_files_sparse(places).map_err(step("registering the table"))?;
        }
        submitter
            .register_restrictions(&mut restrictions(places > 0))
            .map_err(step("restricting the ring"))?;
        submitter.register_enable_rings().map_err(step("enabling the ring"))?;
        let (enter_fd, registered) = match features.registered_ring {
            true => register_ring_fd(&ring).map(|fd| (fd, ENTER_REGISTERED_RING)),
            false => Ok((ring.as_raw_fd(), 0)),
        }
        .map_err(step("registering the ring's descriptor"))?;
        let no_iowait = if features.no_iowait { ENTER_NO_IOWAIT } else { 0 };
        let mut ring = Self {
            queues: Rc::new(Queues::new(ring, enter_fd, registered | no_iowait)),
            buffers: BufferRing::new(entries, Rc::clone(&memory)),
            intake: Intake::new(Rc::clone(&memory)),
            memory,
            arena: Arena::new(),
            bell: Bell::new().map_err(step("making the wake descriptor"))?,
            rings: Arc::new([]),
            clock: config.clock,
            abilities: Abilities {
                receive_cap: features.receive_cap,
                zero_copy: features.zero_copy,
            },
            places: Places::new(places),
        };
        ring.recycle();
        Ok(ring)
    }

    /// What others reach and watch it by: its bell, the ring itself, the clock of the calling thread, whose it is.
    ///
    /// # Errors
    /// [`SetupError::Step`] when there is no descriptor left.
    pub fn reach(&self) -> Result<(Bell, OwnedFd, ThreadClock), SetupError> {
        // SAFETY: the descriptor of the ring is open for as long as the ring is borrowed here.
        let ring = unsafe { BorrowedFd::borrow_raw(self.queues.ring.as_raw_fd()) };
        let again = ring.try_clone_to_owned();
        let step = |source| SetupError::Step { step: "opening the ring a second time", source };
        Ok((self.bell.clone(), again.map_err(step)?, ThreadClock::own()))
    }

    /// The rings of all reactors, in the order of their numbers: where notices go.
    pub fn connect(&mut self, rings: Arc<[OwnedFd]>) {
        self.rings = rings;
    }

    fn entry_of_send(
        &mut self,
        descriptor: Descriptor,
        segments: &[Segment],
        zero_copy: bool,
    ) -> Result<squeue::Entry, QueueFull> {
        let fd = Fd(descriptor.number() as i32);
        if let [segment] = segments
            && !zero_copy
        {
            let start = self.memory.locate(*segment);
            let send = opcode::Send::new(fd, start.as_ptr(), segment.length);
            return Ok(send.flags(libc::MSG_DONTWAIT).build().flags(flag_of(descriptor)));
        }
        let message = self.arena.message(&self.memory, segments).ok_or(QueueFull)?;
        let entry = if zero_copy {
            opcode::SendMsgZc::new(fd, message)
                .flags(libc::MSG_DONTWAIT as u32)
                .ioprio(SEND_ZC_REPORT_USAGE)
                .build()
        } else {
            opcode::SendMsg::new(fd, message).flags(libc::MSG_DONTWAIT as u32).build()
        };
        Ok(entry.flags(flag_of(descriptor)))
    }

    fn entry_of(&mut self, submission: Submission<'_>) -> Result<squeue::Entry, QueueFull> {
        let fd = |descriptor: Descriptor| Fd(descriptor.number() as i32);
        Ok(match submission {
            Submission::Receive { descriptor, cap } => {
                let mut entry = opcode::RecvMulti::new(fd(descriptor), GROUP).build();
                entry = entry.flags(flag_of(descriptor));
                if cap > 0 && self.abilities.receive_cap {
                    set_optlen(&mut entry, cap);
                }
                entry
            }
            Submission::Send { descriptor, segments, zero_copy } => {
                self.entry_of_send(descriptor, segments, zero_copy)?
            }
            Submission::AcceptMany(listener) => {
                opcode::AcceptMulti::new(fd(listener)).flags(libc::SOCK_CLOEXEC).build()
            }
            Submission::WatchReadable(descriptor) => {
                opcode::PollAdd::new(fd(descriptor), libc::POLLIN as u32).build()
            }
            Submission::WatchWritable { descriptor, many } => {
                let poll = opcode::PollAdd::new(fd(descriptor), libc::POLLOUT as u32).multi(many);
                poll.build().flags(flag_of(descriptor))
            }
            Submission::Connect { descriptor, address } => {
                let address = self.arena.address(address).ok_or(QueueFull)?;
                opcode::Connect::new(fd(descriptor), address.as_ptr().cast(), address.len()).build()
            }
            Submission::ShutdownWrite(descriptor) => {
                let shutdown = opcode::Shutdown::new(fd(descriptor), libc::SHUT_WR);
                shutdown.build().flags(flag_of(descriptor))
            }
            Submission::Cancel(target) => opcode::AsyncCancel::new(target.to_bits()).build(),
            Submission::Close(descriptor) => match descriptor.place() {
                Some(place) => self.entry_of_leaving(place),
                None => opcode::Close::new(fd(descriptor)).build(),
            },
            Submission::Notify(reactor) => {
                // One that was never connected has nobody to tell: the kernel says so.
                let ring = self.rings.get(reactor).map_or(-1, AsRawFd::as_raw_fd);
                let mail = Token::new(Op::Mail, Key::new(0, 0), 0);
                opcode::MsgRingData::new(Fd(ring), 0, mail.to_bits(), None).build()
            }
        })
    }

    /// The system call, and what follows once the kernel has taken all that was queued.
    fn enter_kernel(&mut self, wait_for: u32, sleep_us: Option<u64>) -> Result<(), DriverFailed> {
        self.queues.enter(wait_for, sleep_us)?;
        if self.queues.is_taken() {
            self.arena.reset();
            self.memory.settle();
            self.places.settle();
        }
        Ok(())
    }

    /// Takes in what completed while the answer to a question was awaited; how many that was.
    #[cold]
    fn reap_kept(&mut self, into: &mut Vec<Completion>, limit: usize) -> usize {
        for taken in 0..limit {
            let Some(cqe) = self.queues.next_kept() else { return taken };
            into.extend(self.intake.translate(cqe));
        }
        limit
    }

    /// Watches the completion queue until something is there, at most `spin_us`.
    fn spin(&mut self, spin_us: u32) -> Result<(), DriverFailed> {
        let until_us = self.clock.now_us() + u64::from(spin_us);
        loop {
            if self.has_completions() {
                return Ok(());
            }
            if self.queues.has_work() {
                self.enter_kernel(0, Some(0))?;
            } else if self.clock.now_us() >= until_us {
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }
}

impl Driver for Ring {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    #[inline]
    fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    fn ran_us(&self) -> u64 {
        ThreadClock::own().ran_us()
    }

    #[inline]
    fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    #[inline]
    fn room(&self, share: Share) -> u32 {
        let (filled, capacity) = self.queues.filled();
        let free = (capacity - filled) as u32;
        match share {
            Share::Management => free,
            Share::Data => {
                free.saturating_sub(self.queues.ring.params().sq_entries() / MANAGEMENT_SHARE)
            }
        }
    }

    #[inline]
    fn push(
        &mut self,
        token: Token,
        submission: Submission<'_>,
        share: Share,
    ) -> Result<(), QueueFull> {
        if self.room(share) == 0 {
            return Err(QueueFull);
        }
        let entry = self.entry_of(submission)?.user_data(token.to_bits());
        self.queues.push(&entry)?;
        if let Submission::Send { segments, zero_copy: true, .. } = submission {
            self.intake.hold(token, segments);
        }
        Ok(())
    }

    fn enter(&mut self, wait: Wait) -> Result<(), DriverFailed> {
        let Wait { spin_us, sleep_us } = wait;
        self.queues.failure()?;
        if spin_us > 0 {
            self.enter_kernel(0, Some(0))?;
            self.spin(spin_us)?;
            if self.has_completions() {
                return Ok(());
            }
        }
        match sleep_us.map(|sleep_us| sleep_us.saturating_sub(u64::from(spin_us))) {
            Some(0) if spin_us > 0 => Ok(()),
            Some(0) => self.enter_kernel(0, Some(0)),
            left_us => self.enter_kernel(1, left_us),
        }
    }

    fn has_completions(&self) -> bool {
        self.queues.has_completions()
    }

    #[inline]
    fn reap(&mut self, into: &mut Vec<Completion>, limit: usize) {
        let kept = if self.queues.has_kept() { self.reap_kept(into, limit) } else { 0 };
        for _ in kept..limit {
            let Some(cqe) = self.queues.next() else { return };
            if let Some(completion) = self.intake.translate(cqe) {
                into.push(completion);
            }
        }
    }

    #[inline]
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
        socket::open(address, from)
    }

    fn move_in(&mut self, descriptor: Descriptor) -> Descriptor {
        self.move_into_table(descriptor)
    }

    fn move_out(&mut self, descriptor: Descriptor) -> Option<Descriptor> {
        self.move_out_of_table(descriptor)
    }

    fn set_abortive(&mut self, descriptor: Descriptor) {
        match descriptor.place() {
            // A socket that is not connected any more has nothing to reset.
            Some(place) => {
                self.make_abortive(place);
            }
            None => socket::set_abortive(descriptor),
        }
    }

    fn accept_queued(&mut self, listener: Descriptor) -> Result<Descriptor, Fault> {
        socket::accept_queued(listener)
    }

    fn close_now(&mut self, descriptor: Descriptor) {
        match descriptor.place() {
            Some(place) => self.empty(place),
            None => socket::close(descriptor),
        }
    }

    fn unsent(&mut self, descriptor: Descriptor) -> Option<u32> {
        match descriptor.place() {
            Some(place) => self.unsent_in(place),
            None => socket::unsent(descriptor),
        }
    }

    fn push_wake(&mut self, token: Token) -> Result<(), QueueFull> {
        let descriptor = Descriptor(self.bell.descriptor() as u32);
        self.push(token, Submission::WatchReadable(descriptor), Share::Management)
    }

    fn clear_wake(&mut self) {
        self.bell.clear();
    }

    fn sockets(&self) -> Rc<dyn Sockets> {
        Rc::new(Asked::through(&self.queues))
    }
}

impl Arena {
    fn new() -> Self {
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let message = libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: std::ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Self {
            iovecs: vec![iovec; IOVECS].into_boxed_slice(),
            iovecs_used: 0,
            messages: vec![message; MESSAGES].into_boxed_slice(),
            messages_used: 0,
            addresses: Vec::with_capacity(ADDRESSES),
        }
    }

    /// A message of the segments, or `None` when the arena is used up.
    fn message(&mut self, memory: &Memory, segments: &[Segment]) -> Option<*const libc::msghdr> {
        let iovecs = self.iovecs.get_mut(self.iovecs_used..)?.get_mut(..segments.len())?;
        let message = self.messages.get_mut(self.messages_used)?;
        for (iovec, segment) in iovecs.iter_mut().zip(segments) {
            iovec.iov_base = memory.locate(*segment).as_ptr().cast();
            iovec.iov_len = segment.length as usize;
        }
        message.msg_iov = iovecs.as_mut_ptr();
        message.msg_iovlen = segments.len();
        self.iovecs_used += segments.len();
        self.messages_used += 1;
        Some(message)
    }

    fn address(&mut self, address: &SocketAddr) -> Option<&socket2::SockAddr> {
        if self.addresses.len() == ADDRESSES {
            return None;
        }
        self.addresses.push((*address).into());
        self.addresses.last()
    }

    #[inline]
    fn reset(&mut self) {
        self.iovecs_used = 0;
        self.messages_used = 0;
        self.addresses.clear();
    }
}

pub(super) fn set_optlen(entry: &mut squeue::Entry, bytes: u32) {
    let start = std::ptr::from_mut(entry).cast::<u8>();
    // SAFETY: an entry is the kernel's 64-byte SQE (`repr(C)`), in which `optlen` stands at this offset.
    let field = unsafe { start.add(SQE_OPTLEN) }.cast::<u32>();
    // SAFETY: within the entry, aligned for u32 since the entry is aligned for u64.
    unsafe { field.write(bytes) };
}
const _: () = assert!(size_of::<squeue::Entry>() == 64 && align_of::<squeue::Entry>() >= 4);

fn register_ring_fd(ring: &IoUring) -> io::Result<i32> {
    let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data: ring.as_raw_fd() as u64 };
    // SAFETY: the update lives until the call returns.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_RING_FDS,
            &raw mut update,
            1,
        )
    };
    if registered < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(update.offset as i32)
}

/// What the ring may be used for once it is enabled: the operations of this file, and of the register calls
/// the one that is made last; with a table, what that needs too.
fn restrictions(has_table: bool) -> Vec<Restriction> {
    let operations = [
        opcode::AcceptMulti::CODE,
        opcode::PollAdd::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::SendMsgZc::CODE,
        opcode::Connect::CODE,
        opcode::Shutdown::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
        opcode::MsgRingData::CODE,
    ];
    let mut all: Vec<_> = operations.into_iter().map(Restriction::sqe_op).collect();
    all.push(Restriction::register_op(REGISTER_RING_FDS as u8));
    let mut flags = squeue::Flags::BUFFER_SELECT;
    if has_table {
        flags |= squeue::Flags::FIXED_FILE;
        all.extend(direct::restrictions());
    }
    all.push(Restriction::sqe_flags_allowed(flags.bits()));
    all
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("abilities", &self.abilities)
            .field("intake", &self.intake)
            .finish_non_exhaustive()
    }
}
