//! What scripts are written with: submissions by name, completions in words.

use std::net::SocketAddr;

use slipring_core::sys::bare::{Completion, Entered, File, Manner, Operation, Setup, Target};

use super::Outcome;
use super::arm::{Arm, Dialed, Ending, Open, Peer, Time};

/// Bytes that are said as text; of more the number is said.
const TEXT_MAX: usize = 24;
/// Times a script waits again for what comes in pieces.
pub(super) const PIECES_MAX: usize = 400;

/// What a token stands for.
#[derive(Clone, Debug)]
struct Named {
    name: &'static str,
    /// What was asked for; `None`: a message of another ring.
    operation: Option<Operation>,
}

/// See the module's documentation.
pub struct Script<'a> {
    /// The kernel.
    pub arm: &'a mut dyn Arm,
    named: Vec<Named>,
    said: Outcome,
    /// Whether F_SOCK_NONEMPTY is said.
    pub hints: bool,
}

impl<'a> Script<'a> {
    pub(super) fn new(arm: &'a mut dyn Arm) -> Self {
        Self { arm, named: Vec::new(), said: Vec::new(), hints: false }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        self.said
    }

    /// Notes what was seen.
    pub fn say(&mut self, what: impl Into<String>) {
        self.said.push(what.into());
    }

    // ------------------------------------------------------------------------------------ submitting

    /// A ring like [`Setup::SMALL`].
    pub fn small_ring(&mut self) -> usize {
        self.arm.ring(Setup::SMALL)
    }

    /// A token of this name for a message to another ring.
    pub fn token(&mut self, name: &'static str) -> u64 {
        self.named.push(Named { name, operation: None });
        self.named.len() as u64
    }

    /// Queues an operation at ring 0; its token.
    pub fn push(&mut self, name: &'static str, operation: Operation) -> u64 {
        self.push_at(0, name, operation)
    }

    /// Queues an operation; its token.
    pub fn push_at(&mut self, ring: usize, name: &'static str, operation: Operation) -> u64 {
        self.named.push(Named { name, operation: Some(operation.clone()) });
        let token = self.named.len() as u64;
        self.arm.push(ring, token, operation);
        token
    }

    /// Accepts, as descriptors.
    pub fn accept(&mut self, listener: u32, many: bool) -> u64 {
        let on = File::Descriptor(listener);
        self.push("accept", Operation::Accept { on, many, direct: false })
    }

    /// Receives, until told otherwise.
    pub fn receive(&mut self, descriptor: u32) -> u64 {
        let on = File::Descriptor(descriptor);
        self.push("receive", Operation::Receive { on, many: true, cap: 0 })
    }

    /// Receives once.
    pub fn receive_once(&mut self, descriptor: u32) -> u64 {
        let on = File::Descriptor(descriptor);
        self.push("receive", Operation::Receive { on, many: false, cap: 0 })
    }

    /// Sends as much as fits.
    pub fn send(&mut self, descriptor: u32, bytes: &[u8]) -> u64 {
        self.send_so(descriptor, bytes, Manner::default())
    }

    /// Sends.
    pub fn send_so(&mut self, descriptor: u32, bytes: &[u8], manner: Manner) -> u64 {
        let on = File::Descriptor(descriptor);
        self.push("send", Operation::Send { on, bytes: bytes.to_vec(), manner })
    }

    /// Polls.
    pub fn poll(&mut self, descriptor: u32, write: bool) -> u64 {
        self.push("poll", Operation::Poll { on: File::Descriptor(descriptor), write, many: false })
    }

    /// Half-closes.
    pub fn shut(&mut self, descriptor: u32) -> u64 {
        self.push("shutdown", Operation::Shutdown { on: File::Descriptor(descriptor) })
    }

    /// Cancels the operation of a token.
    pub fn cancel(&mut self, token: u64) -> u64 {
        self.push("cancel", Operation::Cancel(Target::Token(token)))
    }

    /// Closes through the ring.
    pub fn close(&mut self, descriptor: u32) -> u64 {
        self.push("close", Operation::Close(File::Descriptor(descriptor)))
    }

    // --------------------------------------------------------------------------------------- waiting

    /// Waits for so many completions of ring 0 and takes all there are, saying nothing.
    pub fn take(&mut self, want: usize) -> Vec<Completion> {
        self.take_at(0, want, Time::Long)
    }

    /// The same of any ring.
    pub fn take_at(&mut self, ring: usize, want: usize, time: Time) -> Vec<Completion> {
        self.arm.enter(ring, want, time);
        let mut all = Vec::new();
        while let Some(completion) = self.arm.reap(ring) {
            all.push(completion);
        }
        all
    }

    /// Waits for so many completions of ring 0, takes all there are and says them in their order.
    pub fn see(&mut self, want: usize) -> Vec<Completion> {
        self.see_at(0, want)
    }

    /// The same of any ring.
    pub fn see_at(&mut self, ring: usize, want: usize) -> Vec<Completion> {
        let all = self.take_at(ring, want, Time::Long);
        if all.len() < want {
            self.say(format!("{} of {want} completions", all.len()));
        }
        self.say_all(&all);
        all
    }

    /// The same in the order of their words: which of them came first does not matter.
    pub fn see_in_any_order(&mut self, want: usize) -> Vec<Completion> {
        let all = self.take(want);
        let mut words: Vec<_> = all.iter().map(|one| self.words(one)).collect();
        words.sort();
        self.said.append(&mut words);
        all
    }

    /// Waits until nothing is under way and says what completed, if anything did.
    pub fn see_quiet(&mut self) -> Vec<Completion> {
        self.see_quiet_at(0)
    }

    /// The same of any ring.
    pub fn see_quiet_at(&mut self, ring: usize) -> Vec<Completion> {
        let all = self.take_at(ring, 1, Time::Quiet);
        if all.is_empty() {
            self.say("nothing completes");
        }
        self.say_all(&all);
        all
    }

    /// Says these.
    pub fn say_all(&mut self, all: &[Completion]) {
        for one in all {
            let words = self.words(one);
            self.say(words);
        }
    }

    /// Waits until the operation has brought so many bytes or has ended, giving buffers back; says the sum as
    /// one. For bytes that may come in pieces.
    pub fn see_bytes(&mut self, token: u64, want: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let name = self.named[token as usize - 1].name;
        for _ in 0..PIECES_MAX {
            let all = self.take(1);
            let over = all.is_empty();
            let mut end = None;
            for one in all {
                if let Some(buffer) = one.buffer {
                    self.arm.recycle(0, buffer);
                }
                if one.token == token && one.result > 0 {
                    bytes.extend_from_slice(&one.bytes);
                    end = (!one.more).then_some("last".to_owned()).or(end);
                } else {
                    end = Some(self.words(&one));
                }
            }
            if over || end.is_some() || bytes.len() >= want {
                let end = end.unwrap_or_else(|| "more".to_owned());
                self.say(format!("{name}: {} in all, {end}", text(&bytes)));
                break;
            }
        }
        bytes
    }

    /// Enters without submitting anything, and says how that ended.
    pub fn see_enter(&mut self, want: usize, time: Time) {
        let words = match self.arm.enter(0, want, time) {
            Entered::Done => "enter: done".to_owned(),
            Entered::TimeUp => "enter: -ETIME".to_owned(),
            Entered::Failed(errno) => format!("enter: {}", errno_name(errno)),
        };
        self.say(words);
    }

    // ----------------------------------------------------------------------------------------- peers

    /// A listener with clients of this number in its queue.
    pub fn listen_to(&mut self, backlog: u32, clients: usize) -> (u32, SocketAddr, Vec<Peer>) {
        let (listener, at) = self.arm.listen(backlog, None);
        let peers = (0..clients).map(|_| self.arm.dial(at)).collect();
        if !self.arm.queued(listener, clients) {
            self.say("the clients do not queue");
        }
        (listener, at, peers)
    }

    /// A small ring, and a connect under way to a listener whose backlog is full: the socket, and the
    /// connect's token.
    pub fn dial_to_full(&mut self) -> (File, u64) {
        self.small_ring();
        let (_, to, _) = self.listen_to(0, 1);
        let on = File::Descriptor(self.arm.socket());
        let token = self.push("connect", Operation::Connect { on, to });
        let all = self.take_at(0, 1, Time::Within(20));
        self.say_all(&all);
        (on, token)
    }

    /// What the peer reads until the end, or until nothing is under way, and says it.
    pub fn see_peer(&mut self, peer: Peer) {
        self.see_peer_for(peer, Time::Long);
    }

    /// The same, when nothing but bytes is to come.
    pub fn see_peer_open(&mut self, peer: Peer) {
        self.see_peer_for(peer, Time::Quiet);
    }

    fn see_peer_for(&mut self, peer: Peer, time: Time) {
        let seen = self.arm.read(peer, usize::MAX, time);
        let bytes = if seen.bytes.is_empty() { "nothing".to_owned() } else { text(&seen.bytes) };
        let ending = match seen.ending {
            Ending::Open => "open".to_owned(),
            Ending::End => "end".to_owned(),
            Ending::Failed(errno) => errno_name(errno),
        };
        self.say(format!("peer: {bytes}, {ending}"));
    }

    /// What has become of a dial, and says it.
    pub fn see_dial(&mut self, peer: Peer, time: Time) {
        let words = match self.arm.dialed(peer, time) {
            Dialed::Connected => "dial: connected".to_owned(),
            Dialed::Pending => "dial: no answer yet".to_owned(),
            Dialed::Failed(errno) => format!("dial: {}", errno_name(errno)),
        };
        self.say(words);
    }

    /// Sends until the socket is full, saying nothing; bytes taken.
    pub fn fill(&mut self, descriptor: u32) -> usize {
        let piece = vec![b'.'; 16 << 10];
        let mut taken = 0;
        // A full socket says so, and again for longer than an acknowledgement may be put off (40 ms): what was
        // under way has arrived.
        let mut full = 0;
        for _ in 0..PIECES_MAX {
            self.send(descriptor, &piece);
            let all = self.take(1);
            match all.first().map(|one| one.result) {
                Some(count) if count > 0 => (taken, full) = (taken + count as usize, 0),
                _ => full += 1,
            }
            if full > 5 {
                break;
            }
            if full > 0 {
                self.take_at(0, 1, Time::Quiet);
            }
        }
        taken
    }

    /// A pair whose sending side is full.
    pub fn full_pair(&mut self) -> (u32, Peer) {
        let (ours, peer) = self.arm.pair(Open::Narrow);
        self.fill(ours);
        (ours, peer)
    }

    /// A connected pair.
    pub fn pair(&mut self) -> (u32, Peer) {
        self.arm.pair(Open::Wide)
    }

    // ----------------------------------------------------------------------------------------- words

    /// A completion in words.
    pub fn words(&self, one: &Completion) -> String {
        let Some(named) = self.named.get((one.token as usize).wrapping_sub(1)) else {
            return format!("a completion of nobody's ({:#x})", one.token);
        };
        let name = named.name;
        if one.notification {
            let copied = if one.result < 0 { ", copied" } else { "" };
            return format!("{name}: notification{copied}");
        }
        let many = match &named.operation {
            Some(
                Operation::Accept { many, .. }
                | Operation::Receive { many, .. }
                | Operation::Poll { many, .. },
            ) => *many,
            Some(Operation::Send { manner, .. }) => manner.zero_copy,
            _ => false,
        };
        let more = match (one.more, many) {
            (true, _) => ", more",
            (false, true) => ", last",
            (false, false) => "",
        };
        let hint = if self.hints && one.nonempty { ", nonempty" } else { "" };
        let buffer = if one.buffer.is_some() && one.bytes.is_empty() { ", a buffer" } else { "" };
        format!("{name}: {}{buffer}{hint}{more}", result_words(named.operation.as_ref(), one))
    }
}

fn result_words(operation: Option<&Operation>, one: &Completion) -> String {
    let result = one.result;
    if result < 0 {
        return errno_name(-result);
    }
    match operation {
        Some(Operation::Accept { direct: false, .. }) => "a client".to_owned(),
        Some(Operation::Accept { direct: true, .. }) => format!("a client at place {result}"),
        Some(Operation::Poll { .. }) => mask_words(result),
        Some(Operation::Receive { .. }) if result == 0 => "end".to_owned(),
        Some(Operation::Receive { .. }) => text(&one.bytes),
        Some(Operation::Send { bytes, .. }) if bytes.len() == result as usize => "all".to_owned(),
        Some(Operation::Send { .. }) => "short".to_owned(),
        _ if result == 0 => "done".to_owned(),
        _ => result.to_string(),
    }
}

/// Bytes, as what they spell or as their number.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= TEXT_MAX => format!("\"{text}\""),
        _ => format!("{} bytes", bytes.len()),
    }
}

fn mask_words(mask: i32) -> String {
    let names = [
        (libc::POLLIN, "in"),
        (libc::POLLOUT, "out"),
        (libc::POLLERR, "err"),
        (libc::POLLHUP, "hup"),
        (libc::POLLRDHUP, "rdhup"),
    ];
    let there: Vec<_> = names
        .iter()
        .filter(|(bit, _)| mask & i32::from(*bit) != 0)
        .map(|(_, name)| *name)
        .collect();
    if there.is_empty() { format!("{mask:#x}") } else { there.join(" ") }
}

/// An errno's name.
pub(super) fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EINTR => "EINTR",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENXIO => "ENXIO",
        libc::EPIPE => "EPIPE",
        libc::EPROTO => "EPROTO",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::EBADFD => "EBADFD",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ECONNRESET => "ECONNRESET",
        libc::ENOBUFS => "ENOBUFS",
        libc::EISCONN => "EISCONN",
        libc::ENOTCONN => "ENOTCONN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EALREADY => "EALREADY",
        libc::EINPROGRESS => "EINPROGRESS",
        libc::ECANCELED => "ECANCELED",
        other => return format!("-errno {other}"),
    };
    format!("-{name}")
}

impl std::fmt::Debug for Script<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("said", &self.said).finish_non_exhaustive()
    }
}
