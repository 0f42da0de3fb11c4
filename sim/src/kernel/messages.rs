//! MSG_RING: a ring posts a completion to another, or gives it a file.
//!
//! A message is seen when the other ring enters, as its completions are made then and only then. A file goes
//! at once, as a second reference: who sent it keeps its own, whatever comes of it.

use slipring_core::sys::Cqe;

use super::direct::DIRECT;
use super::queues::Ready;
use super::{Kernel, OperationId};

/// The descriptors of rings start here: those of files never get so far.
pub(crate) const RING_DESCRIPTORS: u32 = 1 << 30;

impl Kernel {
    /// The ring of a descriptor, or why there is none.
    fn ring_of(&self, descriptor: u32) -> Result<u16, i32> {
        let Some(number) = descriptor.checked_sub(RING_DESCRIPTORS) else {
            return Err(if self.lookup(descriptor).is_some() { libc::EBADFD } else { libc::EBADF });
        };
        match self.rings.get(number as usize) {
            Some(ring) if !ring.closed => Ok(number as u16),
            _ => Err(libc::EBADF),
        }
    }

    pub(super) fn message(&mut self, id: OperationId, to: u32, token: u64, result: u32) {
        let sent = self.ring_of(to).map(|ring| self.leave_message(ring, token, result as i32));
        self.finish(id, sent.map_or_else(|errno| -errno, |()| 0), 0);
    }

    fn leave_message(&mut self, ring: u16, user_data: u64, result: i32) {
        let cqe = Cqe { user_data, result, flags: 0 };
        self.ring(ring).ready.push_back(Ready::Completion(cqe));
    }

    pub(super) fn pass(
        &mut self,
        id: OperationId,
        (to, place): (u32, u32),
        into: Option<u32>,
        token: u64,
    ) {
        let result = self.try_pass(id.ring, (to, place), into, token);
        self.finish(id, result.map_or_else(|errno| -errno, |()| 0), 0);
    }

    fn try_pass(
        &mut self,
        from: u16,
        (to, place): (u32, u32),
        into: Option<u32>,
        token: u64,
    ) -> Result<(), i32> {
        let to = self.ring_of(to)?;
        if to == from {
            return Err(libc::EINVAL);
        }
        let file = self.lookup_for(from, DIRECT | place).ok_or(libc::EBADF)?;
        let there = self.put_direct(to, file, into)?;
        if let Some(file) = self.file_mut(file) {
            file.references += 1;
        }
        let result = if into.is_some() { 0 } else { there as i32 };
        self.leave_message(to, token, result);
        Ok(())
    }
}
