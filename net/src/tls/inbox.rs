//! What was decrypted and not taken yet: leases in their order, and not much room for more once they are gone.

use std::collections::VecDeque;

use slipring_core::Lease;

/// Leases for which there is room between calls: those of one buffer, as a rule.
pub(super) const RECORDS_KEPT: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    leases: VecDeque<Lease>,
}

impl Inbox {
    pub(super) fn push(&mut self, lease: Lease) {
        self.leases.push_back(lease);
    }

    /// The oldest. With the last one goes what a crowd of tiny records took.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Lease> {
        let lease = self.leases.pop_front()?;
        if self.leases.is_empty() {
            self.leases.shrink_to(RECORDS_KEPT);
        }
        Some(lease)
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Puts back what was taken last, or what is left of it.
    pub(super) fn put_back(&mut self, lease: Lease) {
        self.leases.push_front(lease);
    }
}

#[cfg(test)]
mod tests {
    use slipring_core::sys::memory::Memory;

    use super::*;

    #[test]
    fn what_a_crowd_took_is_given_back_with_its_last() {
        let memory = Memory::new(1, 64, 1024);
        let mut lease = memory.lease(memory.adopt(vec![7; 1000]).expect("room"));
        let mut inbox = Inbox::default();
        for _ in 0..999 {
            inbox.push(lease.split_to(1));
        }
        let first = inbox.pop().expect("one of many");
        inbox.put_back(first);
        assert_eq!(std::iter::from_fn(|| inbox.pop()).count(), 999);
        assert!(inbox.leases.capacity() <= 2 * RECORDS_KEPT, "{}", inbox.leases.capacity());
    }
}
