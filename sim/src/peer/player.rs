//! One peer at its script: what its step needs, when it is through, what it fails with.

mod answering;

use std::net::SocketAddr;
use std::rc::Rc;

use super::{End, PeerId, Script, Step};
use crate::kernel::{FileId, Kernel, Owner, Reading};
use crate::sim::story::{Excerpt, Said, SharedStory};
use crate::trace::What;

/// What came of a try at a step.
enum Tried {
    /// The next one's turn.
    Done,
    /// Another one's turn, which was chosen.
    Moved,
    /// Not yet; in how many microseconds it has to be tried again, if nothing happens before.
    Wait(Option<u64>),
    /// Never.
    Failed(String),
}

/// What peers share with whoever runs them.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What went wrong first.
    pub(crate) failure: Option<String>,
    /// When a script last got further, microseconds.
    pub(crate) progress_us: u64,
    /// Peers whose scripts are through leave.
    pub(crate) closing: bool,
    pub(crate) story: SharedStory,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Player {
    id: PeerId,
    /// Where it connects to; until it does.
    to: Option<SocketAddr>,
    is_client: bool,
    stream: Option<FileId>,
    steps: Rc<[Step]>,
    at: usize,
    /// Bytes of the step that are dealt with.
    done: usize,
    /// What it answers, until all of it is sent.
    reply: Option<Vec<u8>>,
    /// When the step's time is over.
    until_us: Option<u64>,
    pub(super) received: Vec<u8>,
    /// How many of them steps have asked for.
    claimed: usize,
    connected: bool,
    reading: bool,
    shut: bool,
    /// How it ended, and when.
    pub(super) end: Option<(End, u64)>,
    /// A call has told of this end; bytes may be left to read before it.
    broken: Option<End>,
}

impl Player {
    /// One that will connect.
    pub(super) fn client(id: PeerId, to: SocketAddr, script: Script) -> Self {
        Self::new(id, Some(to), None, script)
    }

    /// One that was connected to.
    pub(super) fn served(id: PeerId, stream: FileId, script: Script) -> Self {
        Self::new(id, None, Some(stream), script)
    }

    fn new(id: PeerId, to: Option<SocketAddr>, stream: Option<FileId>, script: Script) -> Self {
        Self {
            id,
            is_client: to.is_some(),
            to,
            stream,
            steps: script.into_steps().into(),
            at: 0,
            done: 0,
            reply: None,
            until_us: None,
            received: Vec::new(),
            claimed: 0,
            connected: to.is_none(),
            reading: true,
            shut: false,
            end: None,
            broken: None,
        }
    }

    /// Whether all steps are done.
    pub(super) fn is_through(&self) -> bool {
        self.at == self.steps.len() && (self.connected || self.end.is_some())
    }

    /// Whether it connects, and is not connected to.
    pub(super) fn is_client(&self) -> bool {
        self.is_client
    }

    /// Whether it has been connected.
    pub(super) fn has_connected(&self) -> bool {
        self.connected
    }

    /// Its stream, as long as it has not ended it.
    pub(super) fn stays(&self) -> Option<FileId> {
        let left = self.shut || matches!(self.end, Some((End::Left, _)));
        self.stream.filter(|_| self.connected && !left)
    }

    /// What it waits for, for a report.
    pub(super) fn waits_for(&self) -> String {
        let Some(step) = self.steps.get(self.at) else {
            return format!("{} waits to be connected", self.id);
        };
        let (at, all) = (self.at + 1, self.steps.len());
        let came = match step {
            Step::Expect(bytes) => format!("; {} of them came", Excerpt::of(&bytes[..self.done])),
            Step::Send(_) | Step::SendSlowly { .. } => format!("; {} were taken", self.done),
            step if step.reads() => format!("; {} came", self.unclaimed()),
            _ => String::new(),
        };
        format!("{} waits at step {at} of {all}: {step}{came}", self.id)
    }

    fn unclaimed(&self) -> Excerpt {
        Excerpt::of(&self.received[self.claimed..])
    }

    /// Does what can be done now; in how long it has to look again, microseconds.
    pub(super) fn play(
        &mut self,
        kernel: &mut Kernel,
        owner: Owner,
        shared: &mut Shared,
    ) -> Option<u64> {
        if self.end.is_some_and(|(end, _)| matches!(end, End::Left | End::Refused)) {
            return None;
        }
        let stream = self.connect(kernel, owner, shared)?;
        loop {
            self.reading |= self.steps.get(self.at).is_some_and(Step::reads);
            self.listen(kernel, stream, shared);
            if self.at == self.steps.len() {
                self.rest(kernel, stream, shared);
                return None;
            }
            match self.try_step(kernel, stream, shared) {
                Tried::Done => {
                    self.go_on_at(self.at + 1);
                    shared.progress_us = kernel.now_us;
                    if self.end.is_some_and(|(end, _)| end == End::Left) {
                        return None;
                    }
                }
                Tried::Moved => {}
                Tried::Wait(in_us) => return in_us,
                Tried::Failed(what) => {
                    let (at, all, step) = (self.at + 1, self.steps.len(), &self.steps[self.at]);
                    let there = kernel.behind(stream);
                    let there = there.map_or(String::new(), |party| format!(" at {party}"));
                    let what = format!("{}{there}, step {at} of {all} ({step}): {what}", self.id);
                    shared.failure.get_or_insert(what);
                    return None;
                }
            }
        }
    }

    fn go_on_at(&mut self, at: usize) {
        self.at = at;
        self.done = 0;
        self.reply = None;
        self.until_us = None;
    }

    fn say(&self, kernel: &Kernel, shared: &Shared, said: Said) {
        let (at_us, event) = (kernel.now_us, kernel.trace.events());
        shared.story.borrow_mut().add_peer(at_us, event, self.id, said);
    }

    /// Its stream, once it is connected.
    fn connect(
        &mut self,
        kernel: &mut Kernel,
        owner: Owner,
        shared: &mut Shared,
    ) -> Option<FileId> {
        if let Some(to) = self.to.take() {
            let stream = kernel.socket(to, owner);
            self.stream = Some(stream);
            kernel.note_peer(What::PeerBegins, stream, self.id.0);
            kernel.connect(stream);
            self.say(kernel, shared, Said::Dials(to));
        }
        let stream = self.stream?;
        if kernel.is_connecting(stream) {
            return None;
        }
        let step = self.steps.get(self.at);
        let wants_refusal = matches!(step, Some(Step::ExpectRefused));
        let may_be_refused = wants_refusal || matches!(step, Some(Step::ExpectGone));
        if kernel.is_connected(stream) {
            if wants_refusal {
                let what = format!("{} was connected, and expected to be refused", self.id);
                shared.failure.get_or_insert(what);
                return None;
            }
            self.connected = true;
            return Some(stream);
        }
        self.set_end(kernel, shared, End::Refused);
        if may_be_refused {
            self.at = self.steps.len();
            shared.progress_us = kernel.now_us;
        } else {
            shared.failure.get_or_insert(format!("{} was refused: nobody listens", self.id));
        }
        None
    }

    fn set_end(&mut self, kernel: &Kernel, shared: &Shared, end: End) {
        if self.end.is_none() {
            self.end = Some((end, kernel.now_us));
            self.say(kernel, shared, Said::Ends(end));
        }
    }

    /// Reads what there is, if it reads.
    fn listen(&mut self, kernel: &mut Kernel, stream: FileId, shared: &mut Shared) {
        let before = self.received.len();
        while self.reading && self.end.is_none() {
            match kernel.read(stream, kernel.knobs.peer_reads as usize) {
                Reading::Bytes(bytes) => self.received.extend(bytes),
                Reading::Wait => break,
                Reading::End => {
                    self.say_read(kernel, shared, before);
                    return self.set_end(kernel, shared, self.broken.unwrap_or(End::InOrder));
                }
                // EPIPE: the end had come, then a reset.
                Reading::Failed(errno) => {
                    self.say_read(kernel, shared, before);
                    let end = if errno == libc::EPIPE { End::InOrder } else { End::Reset };
                    return self.set_end(kernel, shared, end);
                }
            }
        }
        self.say_read(kernel, shared, before);
    }

    fn say_read(&mut self, kernel: &Kernel, shared: &mut Shared, before: usize) {
        if self.received.len() == before {
            return;
        }
        self.say(kernel, shared, Said::Reads(Excerpt::of(&self.received[before..])));
        let awaited = self.steps.get(self.at);
        let asks_for_bytes = |step: &Step| {
            matches!(step, Step::Expect(_) | Step::Read(_) | Step::ReadToEnd | Step::Answer { .. })
        };
        if awaited.is_some_and(asks_for_bytes) {
            shared.progress_us = kernel.now_us;
        }
    }

    /// A peer with nothing to do any more leaves once the other side has ended. Until then it
    /// stays, unless all of them are to go.
    fn rest(&mut self, kernel: &mut Kernel, stream: FileId, shared: &mut Shared) {
        if shared.closing {
            if self.end.is_none() && !self.shut {
                // If it fails, reading tells of it.
                let _ = kernel.shutdown(stream);
                self.shut = true;
            }
            self.reading = true;
            self.listen(kernel, stream, shared);
        }
        if self.end.is_some() && self.stream.take().is_some() {
            kernel.note_peer(What::PeerEnds, stream, self.id.0);
            kernel.leave(stream, false);
        }
    }

    fn try_step(&mut self, kernel: &mut Kernel, stream: FileId, shared: &mut Shared) -> Tried {
        let steps = Rc::clone(&self.steps);
        match &steps[self.at] {
            Step::Send(bytes) => self.send(kernel, stream, shared, bytes),
            Step::SendSlowly { bytes, every_us } => {
                self.send_slowly(kernel, stream, shared, bytes, *every_us)
            }
            Step::Answer { answers, to_end } => {
                self.answer(kernel, stream, shared, answers, *to_end)
            }
            Step::Shutdown => self.shutdown(kernel, stream, shared),
            Step::Pause(span_us) => self.wait(kernel, *span_us),
            Step::StopReading => {
                self.reading = false;
                Tried::Done
            }
            step @ (Step::Close | Step::Reset) => {
                kernel.note_peer(What::PeerEnds, stream, self.id.0);
                kernel.leave(stream, *step == Step::Reset);
                // Whatever it had read of an end, it is gone by itself now.
                self.end = None;
                self.set_end(kernel, shared, End::Left);
                Tried::Done
            }
            Step::ExpectSilence(span_us) if self.claimed == self.received.len() => {
                self.wait(kernel, *span_us)
            }
            Step::ExpectSilence(_) => Tried::Failed(format!("{} came", self.unclaimed())),
            step => self.read_for(step),
        }
    }

    fn wait(&mut self, kernel: &Kernel, span_us: u64) -> Tried {
        let until_us = *self.until_us.get_or_insert(kernel.now_us.saturating_add(span_us));
        match until_us.checked_sub(kernel.now_us) {
            None | Some(0) => Tried::Done,
            left_us => Tried::Wait(left_us),
        }
    }

    fn send(
        &mut self,
        kernel: &mut Kernel,
        stream: FileId,
        shared: &mut Shared,
        bytes: &[u8],
    ) -> Tried {
        let before = self.done;
        let mut tried = Tried::Done;
        while self.done < bytes.len() {
            match kernel.write(stream, &bytes[self.done..]) {
                Ok(taken) => self.done += taken,
                Err(libc::EAGAIN) => {
                    tried = Tried::Wait(None);
                    break;
                }
                Err(errno) => {
                    tried = self.on_broken(kernel, stream, shared, errno);
                    break;
                }
            }
        }
        let sent = match tried {
            Tried::Moved => &[],
            _ => &bytes[before..self.done],
        };
        if !sent.is_empty() {
            shared.progress_us = kernel.now_us;
            self.say(kernel, shared, Said::Sends(Excerpt::of(sent)));
        }
        tried
    }

    fn send_slowly(
        &mut self,
        kernel: &mut Kernel,
        stream: FileId,
        shared: &mut Shared,
        bytes: &[u8],
        every_us: u64,
    ) -> Tried {
        while self.done < bytes.len() {
            let early_us = self.until_us.map_or(0, |us| us.saturating_sub(kernel.now_us));
            if early_us > 0 {
                return Tried::Wait(Some(early_us));
            }
            let next = self.done + 1;
            match self.send(kernel, stream, shared, &bytes[..next]) {
                Tried::Done => self.until_us = Some(kernel.now_us + every_us),
                other => return other,
            }
        }
        Tried::Done
    }

    fn shutdown(&mut self, kernel: &mut Kernel, stream: FileId, shared: &mut Shared) -> Tried {
        if let Err(errno) = kernel.shutdown(stream) {
            return self.on_broken(kernel, stream, shared, errno);
        }
        self.shut = true;
        self.say(kernel, shared, Said::ShutsDown);
        Tried::Done
    }

    /// The connection takes nothing any more. That is in order if an end is what the script waits
    /// for next.
    fn on_broken(
        &mut self,
        kernel: &mut Kernel,
        stream: FileId,
        shared: &mut Shared,
        errno: i32,
    ) -> Tried {
        // EPIPE: its end had come before the reset.
        let end = if errno == libc::ECONNRESET { End::Reset } else { End::InOrder };
        self.broken.get_or_insert(end);
        self.reading = true;
        self.listen(kernel, stream, shared);
        // Behind this one, which sends.
        let first = self.at + 1;
        let rest = &self.steps[first..];
        let next = rest.iter().position(|step| !step.is_idle_once_broken());
        let ends = |step: &Step| {
            matches!(step, Step::ExpectEnd | Step::ExpectReset | Step::ExpectGone | Step::ReadToEnd)
        };
        match next {
            Some(next) if ends(&rest[next]) => {
                self.go_on_at(first + next);
                shared.progress_us = kernel.now_us;
                Tried::Moved
            }
            _ => Tried::Failed(format!("the connection takes no more: {}", self.ending())),
        }
    }

    /// How it ended, in words.
    fn ending(&self) -> &'static str {
        match self.end {
            Some((End::Reset, _)) => "it was reset",
            Some((End::InOrder, _)) => "the other side has ended its stream",
            _ => "it is over",
        }
    }

    /// It is over, and more was expected.
    fn too_little(&self) -> Tried {
        let only = if self.claimed < self.received.len() { "only " } else { "" };
        Tried::Failed(format!("{only}{} came: {}", self.unclaimed(), self.ending()))
    }

    /// A step that waits for bytes or for their end. What could be read, was.
    fn read_for(&mut self, step: &Step) -> Tried {
        let end = self.end.map(|(end, _)| end);
        let have = self.received.len() - self.claimed;
        match step {
            Step::Expect(bytes) => return self.expect(bytes),
            Step::Read(count) if have >= *count => {
                self.claimed += count;
                return Tried::Done;
            }
            Step::Read(_) if end.is_some() => {
                return self.too_little();
            }
            Step::ExpectEnd if have > 0 => {
                return Tried::Failed(format!("{} came", self.unclaimed()));
            }
            _ => {}
        }
        let Some(end) = end else { return Tried::Wait(None) };
        let met = match step {
            Step::ExpectReset => end == End::Reset,
            Step::ExpectGone => true,
            _ => end == End::InOrder,
        };
        if met {
            self.claimed = self.received.len();
            return Tried::Done;
        }
        let came = self.unclaimed();
        Tried::Failed(match end {
            End::InOrder => format!("the stream ended in order, after {came}"),
            _ => format!("it was reset, after {came}"),
        })
    }

    fn expect(&mut self, bytes: &[u8]) -> Tried {
        let came = &self.received[self.claimed..];
        let known = self.done;
        let more = came.len().min(bytes.len());
        if let Some(other) = (known..more).find(|place| came[*place] != bytes[*place]) {
            let (expected, came) = (Excerpt::of(&bytes[other..]), Excerpt::of(&came[other..]));
            return Tried::Failed(format!(
                "after {other} bytes as expected, {came} came instead of {expected}"
            ));
        }
        self.done = more;
        if more == bytes.len() {
            self.claimed += more;
            return Tried::Done;
        }
        if self.end.is_some() {
            return self.too_little();
        }
        Tried::Wait(None)
    }
}
