//! What the owner of a ring must never do. Looked at when it pushes, before the kernel sees any of it.
//!
//! * No token is used again before the last completion of its operation was reaped.
//! * A descriptor is open, and of the connection that uses it: numbers are handed out again at once.
//! * One send is in flight on a socket at most, and none after its FIN or beside it.
//! * Nothing is in flight on a descriptor that is closed.
//! * What moves data or starts something stays off the management share.

use slipring_core::driver::Share;
use slipring_core::sys::Cqe;
use slipring_core::token::{Op, Token};

use super::queues::{Pending, Work};
use super::{FileId, Kernel};
use crate::marks::Mark;
use crate::trace::Party;

/// What a token says of its connection: slot and generation.
const KEY_BITS: u64 = (1 << 52) - 1;

impl Kernel {
    /// Looks at what the ring's owner is about to push.
    pub(crate) fn check_push(&mut self, ring: u16, token: Token, work: &Work, share: Share) {
        let (op, _, _) = token.decode();
        let bits = token.to_bits();
        let descriptor = work.descriptor();
        let file = descriptor.and_then(|descriptor| self.lookup_for(ring, descriptor));
        self.note_push(ring, bits, descriptor, file);
        // The cancel of an operation's next activation has the token of the one before.
        if self.ring(ring).pending.contains_key(&bits) && op != Op::Cancel {
            self.violate(format!("{op:?}: the token of an operation in flight was used again"));
        }
        if let (Some(descriptor), None) = (descriptor, file) {
            self.violate(format!("{op:?} on descriptor {descriptor}, which is closed"));
        }
        if share == Share::Management && !may_use_management(op) {
            let ending = op == Op::Shutdown || op == Op::Send;
            let what =
                if ending { "something that a closing connection does not do" } else { "data" };
            self.violate(format!("{op:?}: the management share was used for {what}"));
        }
        if let Some(file) = file {
            self.check_use(ring, op, token, file);
            if is_of_connection(op) {
                self.note_pushed(ring, token, work, file);
            }
        }
        self.mark_push(ring, token, work);
        if op != Op::Cancel {
            self.ring(ring).pending.insert(bits, Pending { op: Some(op), file });
            if let Some(file) = file.and_then(|file| self.file_mut(file)) {
                file.pending.push((ring, bits, op));
            }
        }
    }

    fn mark_push(&mut self, ring: u16, token: Token, work: &Work) {
        let (op, key, activation) = token.decode();
        let recalls = |target| Token::from_bits(target).is_some_and(|t| t.is_of(Op::AcceptMany));
        if matches!(work, Work::Cancel { target } if recalls(*target)) {
            self.marks.meet(Mark::AcceptRecalled);
        }
        if !is_of_connection(op) {
            return;
        }
        if activation == 0 {
            self.marks.meet(Mark::ActivationWrapped);
        }
        let generation = key.generation();
        let before = self.ring(ring).generations.insert(key.index(), generation);
        if let Some(before) = before.filter(|before| *before != generation) {
            self.marks.meet(Mark::SlotReused);
            if generation < before {
                self.marks.meet(Mark::GenerationWrapped);
            }
        }
    }

    fn check_use(&mut self, ring: u16, op: Op, token: Token, id: FileId) {
        if is_of_connection(op) {
            let key = token.to_bits() & KEY_BITS;
            let party = Party::new(ring, key);
            let before = self.file_mut(id).and_then(|file| file.party.replace(party));
            if let Some(before) = before.filter(|before| *before != party) {
                let busy = |op: &Pending| op.file == Some(id);
                let used = self.ring(before.ring()).pending.values().any(busy);
                if used || self.told_of(party).is_some() {
                    self.violate(format!("{op:?} on the descriptor of another connection"));
                }
                self.note_moved(before, party);
            }
            if let Some(other) = self.stream(id).and_then(|stream| stream.other)
                && let Some(other) = self.stream_mut(other)
            {
                other.behind = Some((ring, key));
            }
        }
        let bit = |op: Op| 1_u32 << op as u32;
        let others = self.others(ring, id).fold(0, |others, op| others | bit(op));
        let sending = others & bit(Op::Send) != 0;
        match op {
            Op::Send if sending => self.violate("two sends in flight on one socket"),
            Op::Send if others & bit(Op::Shutdown) != 0 => self.violate("a send beside a FIN"),
            Op::Send if self.stream(id).is_some_and(|stream| stream.has_sent_fin()) => {
                self.violate("a send after the FIN");
            }
            Op::Shutdown if sending => self.violate("a FIN beside a send in flight"),
            Op::Shutdown if self.stream(id).is_some_and(|stream| stream.has_sent_fin()) => {
                self.violate("two FINs on one socket");
            }
            Op::Close | Op::CloseOther if others != 0 => {
                let others: Vec<Op> = self.others(ring, id).collect();
                self.violate(format!("a close beside {others:?} in flight"));
            }
            Op::Receive | Op::Watch if others & bit(op) != 0 => {
                self.violate(format!("{op:?} armed twice on one socket"));
            }
            _ => {}
        }
    }

    /// What the ring's owner has under way on a file.
    fn others(&self, ring: u16, id: FileId) -> impl Iterator<Item = Op> {
        let pending = self.file(id).into_iter().flat_map(|file| &file.pending);
        pending.filter(move |(of, ..)| *of == ring).map(|(.., op)| *op)
    }

    /// The ring's owner has taken a completion.
    pub(crate) fn on_reaped(&mut self, ring: u16, cqe: Cqe, more: bool, notification: bool) {
        let user_data = cqe.user_data;
        let Some(token) = Token::from_bits(user_data) else { return };
        if is_of_connection(token.decode().0) && !notification {
            self.note_told(ring, token, cqe.result);
        }
        // After the result of a send only its notification follows.
        let last = !notification && (!more || token.is_of(Op::Send));
        if last {
            let file = self.ring(ring).pending.remove(&user_data).and_then(|pending| pending.file);
            if let Some(file) = file.and_then(|file| self.file_mut(file)) {
                file.pending.retain(|(of, bits, _)| (*of, *bits) != (ring, user_data));
            }
        }
    }
}

fn is_of_connection(op: Op) -> bool {
    matches!(op, Op::Connect | Op::Receive | Op::Send | Op::Watch | Op::Shutdown | Op::Close)
}

fn may_use_management(op: Op) -> bool {
    matches!(op, Op::Cancel | Op::CancelAccept | Op::Close | Op::CloseOther | Op::Wake | Op::Notify)
}
