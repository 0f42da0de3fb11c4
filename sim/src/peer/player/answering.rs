//! A step that answers what comes: requests are taken from what was read, one after the other, and what is said
//! to each is sent before the next is looked at.

use super::{Player, Shared, Tried};
use crate::kernel::{FileId, Kernel};
use crate::peer::{Answers, End, Step};

impl Player {
    /// Whether nobody has to wait for it: it is through, or serves and has nothing to answer.
    pub(in crate::peer) fn is_at_rest(&self) -> bool {
        let answers = matches!(self.steps.get(self.at), Some(Step::Answer { to_end: true, .. }));
        self.is_through() || (answers && !self.is_client && !self.owes_an_answer())
    }

    fn owes_an_answer(&self) -> bool {
        self.reply.is_some() || self.claimed < self.received.len()
    }

    pub(super) fn answer(
        &mut self,
        kernel: &mut Kernel,
        stream: FileId,
        shared: &mut Shared,
        answers: &Answers,
        to_end: bool,
    ) -> Tried {
        loop {
            if let Some(reply) = self.reply.take() {
                match self.send(kernel, stream, shared, &reply) {
                    Tried::Done if to_end => self.done = 0,
                    Tried::Wait(in_us) => {
                        self.reply = Some(reply);
                        return Tried::Wait(in_us);
                    }
                    Tried::Failed(_) if to_end && shared.closing => return Tried::Done,
                    other => return other,
                }
            }
            let unread = &self.received[self.claimed..];
            let answer = if unread.is_empty() { None } else { answers.ask(unread) };
            match answer {
                None => return self.await_request(shared, to_end),
                Some((taken, reply)) if (1..=unread.len()).contains(&taken) => {
                    self.claimed += taken;
                    self.reply = Some(reply);
                    shared.progress_us = kernel.now_us;
                }
                Some((taken, _)) => {
                    let there = unread.len();
                    let what = format!("the answer takes {taken} of {there} bytes that are there");
                    return Tried::Failed(what);
                }
            }
        }
    }

    /// What came is no request yet.
    fn await_request(&mut self, shared: &Shared, to_end: bool) -> Tried {
        let Some((end, _)) = self.end else { return Tried::Wait(None) };
        if !to_end {
            return self.too_little();
        }
        let next = self.steps.get(self.at + 1);
        let expected = match end {
            End::InOrder => !self.owes_an_answer(),
            _ => matches!(next, Some(Step::ExpectReset | Step::ExpectGone)),
        };
        if expected || shared.closing {
            return Tried::Done;
        }
        let unread = self.unclaimed();
        Tried::Failed(match end {
            End::InOrder => format!("{unread} came before the end, and was no request"),
            _ => format!("it was reset, after {unread}"),
        })
    }
}
