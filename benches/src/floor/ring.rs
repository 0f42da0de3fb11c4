//! The io_uring of the floors: the operations they use, each a line, and one `enter` a turn.
//!
//! It is not the product's ring: no probing, no tiers, no restrictions, no generation in the user
//! data. A floor closes a descriptor only when the kernel holds nothing of it, so a completion
//! never outlives the connection it is for and the descriptor alone is token enough. With
//! `Files::Slots` accept, receive, send and close speak of slots instead; the rest, which only the
//! relay uses, knows none.
//!
//! Safe to call: all the memory an operation is handed here is either mapped for good
//! (`buffers.rs`) or needed only until the submission is consumed, which is before `turn` returns.

#![expect(unsafe_code, reason = "pushes submissions, which name memory by address")]

use std::io;

use io_uring::squeue::{self, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode};

use super::buffers::{Buffers, GROUP, Queue};

/// Submissions that fit between two enters; more are submitted early.
const SUBMISSIONS: u32 = 4096;

/// Completions that fit; more than all connections of a bench that speak at once.
const COMPLETIONS: u32 = 32_768;

/// Slots of a direct table. A client accepted when it is full is lost, not left in the backlog, so
/// more than the connections of any bench.
const SLOTS: u32 = 16_384;

/// Leases one vectored send may carry.
pub(super) const VECTORS: usize = 16;

/// Where accepted connections stand, and so what receive, send and close are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// In the process's table: file descriptors.
    Descriptors,
    /// In the ring's fixed table only: direct descriptors, of which no other system call knows.
    Slots,
}

impl Files {
    /// What makes the descriptor of an entry a slot.
    fn flags(self) -> Flags {
        match self {
            Self::Descriptors => Flags::empty(),
            Self::Slots => Flags::FIXED_FILE,
        }
    }
}

/// What completed, in the top bits of the user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    Accept = 1,
    Receive,
    Send,
    Cancel,
    Close,
    Connect,
    Shutdown,
}

const OPS: [Op; 7] =
    [Op::Accept, Op::Receive, Op::Send, Op::Cancel, Op::Close, Op::Connect, Op::Shutdown];

/// One completion, decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) op: Op,
    pub(super) fd: i32,
    /// What the operation returned, or minus its errno.
    pub(super) result: i32,
    /// The buffer the kernel filled.
    pub(super) buffer: Option<u16>,
    /// A multishot that goes on.
    pub(super) more: bool,
}

/// A vectored send: the header and what it points to. Boxed by its owner, so that it stays put.
pub(super) struct Message {
    header: libc::msghdr,
    vectors: [libc::iovec; VECTORS],
}

impl Message {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: a message header is integers and pointers, for which all zeroes is a value.
        let header = unsafe { std::mem::zeroed() };
        let vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; VECTORS];
        Box::new(Self { header, vectors })
    }
}

/// The queues of a ring, and the buffers registered with it.
pub(super) struct Ring<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    completions: CompletionQueue<'a>,
    files: Files,
    pub(super) buffers: Buffers,
}

/// The ring itself. Apart from `Ring`, which borrows it for as long as the floor runs.
pub(super) fn set_up() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_no_sqarray()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)
}

impl<'a> Ring<'a> {
    pub(super) fn new(io: &'a mut IoUring, buffer_bytes: u32, files: Files) -> io::Result<Self> {
        let (mut submitter, submissions, completions) = io.split();
        submitter.register_ring_fd()?;
        if files == Files::Slots {
            submitter.register_files_sparse(SLOTS.min(descriptor_limit()?))?;
        }
        let buffers = Buffers::register(&submitter, buffer_bytes)?;
        Ok(Self { submitter, submissions, completions, files, buffers })
    }

    /// Submits everything and waits until something has completed: the one enter of a turn.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.buffers.publish();
        self.submissions.sync();
        match self.submitter.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if is_back_pressure(&error) => {}
            Err(error) => return Err(error),
        }
        self.submissions.sync();
        self.completions.sync();
        Ok(())
    }

    /// The next completion of this turn.
    pub(super) fn next(&mut self) -> Option<Completion> {
        let entry = self.completions.next()?;
        let data = entry.user_data();
        let op = OPS[(data >> 32) as usize - 1];
        let fd = data as u32 as i32;
        let flags = entry.flags();
        Some(Completion {
            op,
            fd,
            result: entry.result(),
            buffer: cqueue::buffer_select(flags),
            more: cqueue::more(flags),
        })
    }

    /// Accepts until told otherwise.
    pub(super) fn accept(&mut self, listener: i32) {
        let accept = opcode::AcceptMulti::new(Fd(listener));
        let entry = match self.files {
            Files::Descriptors => accept.flags(libc::SOCK_CLOEXEC),
            // The kernel refuses the flag here: a slot is not inherited anyway.
            Files::Slots => accept.allocate_file_index(true),
        };
        self.push(entry.build(), Op::Accept, listener);
    }

    /// Receives into the ring's buffers until told otherwise.
    pub(super) fn receive(&mut self, fd: i32) {
        let entry = opcode::RecvMulti::new(Fd(fd), GROUP).build().flags(self.files.flags());
        self.push(entry, Op::Receive, fd);
    }

    /// Ends `receive`; its last completion says so, before or after this one's.
    pub(super) fn cancel_receive(&mut self, fd: i32) {
        let receive = CancelBuilder::user_data(user_data(Op::Receive, fd));
        self.push(opcode::AsyncCancel2::new(receive).build(), Op::Cancel, fd);
    }

    /// Sends what is unsent of one buffer.
    pub(super) fn send(&mut self, fd: i32, buffer: u16) {
        let (bytes, len) = self.buffers.unsent(buffer);
        let entry = opcode::Send::new(Fd(fd), bytes, len).flags(libc::MSG_NOSIGNAL).build();
        self.push(entry.flags(self.files.flags()), Op::Send, fd);
    }

    /// Sends what is unsent of up to `VECTORS` buffers, in order, in one message.
    pub(super) fn send_vectored(&mut self, fd: i32, message: &mut Message, outbox: &Queue) {
        let mut count = 0;
        for (vector, buffer) in message.vectors.iter_mut().zip(outbox.iter(&self.buffers)) {
            let (bytes, len) = self.buffers.unsent(buffer);
            *vector = libc::iovec { iov_base: bytes.cast_mut().cast(), iov_len: len as usize };
            count += 1;
        }
        message.header.msg_iov = message.vectors.as_mut_ptr();
        message.header.msg_iovlen = count;
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = opcode::SendMsg::new(Fd(fd), &raw const message.header).flags(flags).build();
        self.push(entry, Op::Send, fd);
    }

    /// Connects. The kernel copies the address when it takes the submission.
    pub(super) fn connect(&mut self, fd: i32, to: &socket2::SockAddr) {
        let entry = opcode::Connect::new(Fd(fd), to.as_ptr().cast(), to.len()).build();
        self.push(entry, Op::Connect, fd);
    }

    /// Sends a FIN.
    pub(super) fn shut_down(&mut self, fd: i32) {
        self.push(opcode::Shutdown::new(Fd(fd), libc::SHUT_WR).build(), Op::Shutdown, fd);
    }

    /// Makes a connect or send in flight complete: an error ended the connection.
    pub(super) fn abort(&self, fd: i32) {
        // SAFETY: `fd` is an open socket of this process.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }

    /// Closes; the caller has seen every completion of `fd` and forgets it now.
    pub(super) fn close(&mut self, fd: i32) {
        let close = match self.files {
            Files::Descriptors => opcode::Close::new(Fd(fd)),
            // The slot stands in a field of its own: the flag of the others would be refused.
            Files::Slots => opcode::Close::new(Fixed(fd as u32)),
        };
        self.push(close.build().flags(Flags::SKIP_SUCCESS), Op::Close, fd);
    }

    fn push(&mut self, entry: squeue::Entry, op: Op, fd: i32) {
        let entry = entry.user_data(user_data(op, fd));
        for _ in 0..SUBMISSIONS {
            // SAFETY: its memory is mapped for good or outlives this turn, as the header says.
            if unsafe { self.submissions.push(&entry) }.is_ok() {
                return;
            }
            self.submissions.sync();
            if let Err(error) = self.submitter.submit() {
                assert!(is_back_pressure(&error), "submitting early: {error}");
            }
            self.submissions.sync();
        }
        panic!("the kernel takes no submissions");
    }
}

/// The kernel takes no table that is larger than this.
fn descriptor_limit() -> io::Result<u32> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a place for what is asked for.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX))
}

fn user_data(op: Op, fd: i32) -> u64 {
    u64::from(op as u8) << 32 | u64::from(fd as u32)
}

/// Of `enter`: come back after reaping. Not a failure.
fn is_back_pressure(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}
