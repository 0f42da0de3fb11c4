//! Sockets in the ring's own table: how they get in and out, and what of them is asked through the ring.
//!
//! ```text
//!   accepted, a descriptor --- stays here ---> move_in: a place; the descriptor is closed ---> receive, send, close
//!          |
//!          +--- handed over, refused: as without a table
//! ```
//!
//! Accepting into the table would save the descriptor in between. But a multishot that finds the table full drops the
//! client that it has accepted. A place is of no use to another ring: one that is handed over, or taken from the
//! mailbox of a reactor that has stalled, would have to go through the kernel, into a table that may be full. And what
//! the door asks would have to be asked through the ring. This way all that is as without a table, and where no place
//! is free nothing is lost: the client keeps its descriptor.
//!
//! There is no system call for a socket without a number. What is wanted of one (how much is unsent; that its close be
//! a reset; a descriptor, to move to another reactor or for the moment of a call) is a question: an entry of the queue,
//! with an enter of its own (`ring/queues.rs`). All are rare, and the first two cost a call without a table as well.

use io_uring::register::Restriction;
use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use super::super::socket;
use super::Ring;
use super::queues::Queues;
use crate::error::Fault;
use crate::token::Descriptor;

const REGISTER_FILES_UPDATE: u8 = 6;
const SOCKET_SIOCOUTQ: u32 = 1;
/// To reset, and not to wait.
static AT_ONCE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// What an entry says of a descriptor beside its number.
#[inline]
pub(super) fn flag_of(descriptor: Descriptor) -> squeue::Flags {
    squeue::Flags::from_bits_retain(u8::from(descriptor.is_of_table()))
}
const _: () = assert!(squeue::Flags::FIXED_FILE.bits() == 1, "the flag is a bool");

/// What a ring with a table may be used for beside the rest.
pub(super) fn restrictions() -> [Restriction; 3] {
    [
        Restriction::sqe_op(opcode::UringCmd16::CODE),
        Restriction::sqe_op(opcode::FixedFdInstall::CODE),
        Restriction::register_op(REGISTER_FILES_UPDATE),
    ]
}

impl Ring {
    /// Moves a socket into a free place, if there is one. Else it stays what it was.
    pub(super) fn move_into_table(&mut self, descriptor: Descriptor) -> Descriptor {
        let Some(place) = self.places.take() else { return descriptor };
        if !self.put(place, descriptor.0 as i32) {
            self.places.give_back(place);
            return descriptor;
        }
        socket::close(descriptor);
        Descriptor::of_table(place)
    }

    /// A descriptor beside the place, if it is one; else what it was.
    pub(super) fn move_out_of_table(&mut self, descriptor: Descriptor) -> Option<Descriptor> {
        match descriptor.place() {
            Some(place) => self.descriptor_of(place),
            None => Some(descriptor),
        }
    }

    /// A descriptor for what is in a place, beside it.
    #[cold]
    pub(in crate::sys) fn descriptor_of(&mut self, place: u32) -> Option<Descriptor> {
        install(&self.queues, place).ok()
    }

    /// Empties a place at once.
    #[cold]
    pub(super) fn empty(&mut self, place: u32) {
        if self.put(place, -1) {
            self.places.give_back(place);
        }
    }

    /// Puts a descriptor into a place, or nothing.
    fn put(&self, place: u32, descriptor: i32) -> bool {
        self.queues
            .ring
            .submitter()
            .register_files_update(place, &[descriptor])
            .is_ok_and(|put| put == 1)
    }

    /// The entry that empties a place. It is going to be queued.
    pub(super) fn entry_of_leaving(&mut self, place: u32) -> squeue::Entry {
        self.places.close(place);
        opcode::Close::new(Fixed(place)).build()
    }

    /// Makes the close of what is in a place a reset; whether the kernel takes that.
    #[cold]
    pub(in crate::sys) fn make_abortive(&mut self, place: u32) -> bool {
        let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_LINGER as u32);
        let bytes = size_of::<libc::linger>() as u32;
        let value = (&raw const AT_ONCE).cast();
        let question = opcode::SetSockOpt::new(Fixed(place), level, name, value, bytes);
        self.queues.ask(&question.build()).is_ok()
    }

    /// Bytes in the send queue that the peer has not acknowledged.
    #[cold]
    pub(super) fn unsent_in(&mut self, place: u32) -> Option<u32> {
        self.queues.ask(&opcode::UringCmd16::new(Fixed(place), SOCKET_SIOCOUTQ).build()).ok()
    }
}

/// A descriptor for what is in a place, beside it.
#[cold]
pub(super) fn install(queues: &Queues, place: u32) -> Result<Descriptor, Fault> {
    queues.ask(&opcode::FixedFdInstall::new(Fixed(place), 0).build()).map(Descriptor)
}
