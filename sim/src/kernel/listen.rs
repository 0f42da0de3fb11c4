//! How connections come to be: listeners with their backlogs, and dials with their outcomes.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::stream::{Phase, Stream};
use super::{Event, FileId, Kernel, Kind, Owner};
use crate::marks::Mark;
use crate::paced::Accepted;
use crate::trace::What;

/// How long a dial that nobody answers takes to fail, microseconds.
const SYN_TIMEOUT_US: u64 = 130_000_000;
/// How long after a SYN was dropped the next is sent, microseconds.
const SYN_RETRY_US: u64 = 1_000_000;

/// A client accepted later than this after it came has waited, microseconds.
const WAITED_US: u64 = 600_000;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    backlog: usize,
    /// It answers no SYN.
    is_mute: bool,
    /// Connected clients that nobody has accepted, each with a reference.
    pub(super) queue: VecDeque<FileId>,
}

/// An address of the simulated network that belongs to the host.
pub(crate) fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

impl Kernel {
    /// A listening socket; beside others at the same address if there are.
    pub(crate) fn listen(&mut self, at: SocketAddr, backlog: usize, owner: Owner) -> FileId {
        let listener = Listener { address: at, backlog, is_mute: false, queue: VecDeque::new() };
        let id = self.add_file(Kind::Listener(listener), owner);
        self.listeners.entry(at).or_default().push(id);
        id
    }

    /// The same, with a descriptor.
    pub(crate) fn listen_with_descriptor(&mut self, at: SocketAddr, backlog: usize) -> u32 {
        let id = self.listen(at, backlog, Owner::Rings);
        self.install(id).unwrap_or_else(|_| unreachable!("listeners come before any shortage"))
    }

    /// An actor's listener closes.
    pub(crate) fn stop_listening(&mut self, id: FileId) {
        self.drop_reference(id);
    }

    /// From now on an actor's listener answers no SYN, or does so again: those that come wait, as for a host that is
    /// gone.
    pub(crate) fn set_mute(&mut self, id: FileId, is_mute: bool) {
        if let Some(listener) = self.listener_mut(id) {
            listener.is_mute = is_mute;
        }
    }

    pub(super) fn release_listener(&mut self, id: FileId) {
        let Some(listener) = self.listener_mut(id) else { return };
        let (at, queue) = (listener.address, std::mem::take(&mut listener.queue));
        if let Some(all) = self.listeners.get_mut(&at) {
            all.retain(|other| *other != id);
            if all.is_empty() {
                self.listeners.remove(&at);
            }
        }
        for client in queue {
            self.marks.meet(Mark::QueuedClientsReset);
            if let Some(stream) = self.stream_mut(client) {
                stream.abortive = true;
            }
            self.drop_reference(client);
        }
        self.forget(id);
    }

    /// Clients that wait at a listener.
    pub(crate) fn queued(&self, id: FileId) -> usize {
        match self.file(id).map(|file| &file.kind) {
            Some(Kind::Listener(listener)) => listener.queue.len(),
            _ => 0,
        }
    }

    /// The same, by the descriptor of the listener.
    pub(crate) fn waiting_at(&self, listener: u32) -> usize {
        self.lookup(listener).map_or(0, |id| self.queued(id))
    }

    /// accept(2) by an actor, or by whoever installs the client.
    pub(crate) fn accept(&mut self, id: FileId, owner: Owner) -> Option<FileId> {
        let client = self.listener_mut(id)?.queue.pop_front()?;
        let now_us = self.now_us;
        if let Some(file) = self.file_mut(client) {
            file.owner = owner;
        }
        if let Some(stream) = self.stream_mut(client) {
            let waited_us = now_us - std::mem::replace(&mut stream.moved_us, now_us);
            if owner == Owner::Rings && waited_us > WAITED_US {
                self.marks.meet(Mark::ClientWaited);
            }
        }
        Some(client)
    }

    /// accept4(2) without waiting.
    pub(crate) fn accept_queued(&mut self, listener: u32) -> Result<u32, i32> {
        let id = self.lookup(listener).ok_or(libc::EBADF)?;
        // A number is taken before anybody looks who waits.
        if self.is_out_of_descriptors() {
            return Err(libc::EMFILE);
        }
        if self.queued(id) > 0 && self.dice.permille(self.knobs.failed_accept) {
            return Err(self.fail_accept(id));
        }
        let client = self.accept(id, Owner::Rings).ok_or(libc::EAGAIN)?;
        self.marks.meet(if self.is_draining() {
            Mark::DrainTookQueued
        } else {
            Mark::AcceptedAlone
        });
        self.note_accepted(id, client);
        self.install(client)
    }

    /// Somebody was accepted, for whoever counts them.
    pub(super) fn note_accepted(&mut self, listener: FileId, client: FileId) {
        let now_us = self.now_us;
        if let Some(listener) = self.listener_mut(listener) {
            let at = listener.address;
            self.accepted.push(Accepted { client, at, now_us });
        }
    }

    /// SO_LINGER with no time: the next close is a reset.
    pub(crate) fn set_abortive(&mut self, descriptor: u32) {
        self.set_abortive_at(self.lookup(descriptor), descriptor);
    }

    /// The same, of a descriptor or a place of the ring.
    pub(crate) fn set_abortive_for(&mut self, ring: u16, number: u32) {
        self.set_abortive_at(self.lookup_for(ring, number), number);
    }

    fn set_abortive_at(&mut self, file: Option<FileId>, descriptor: u32) {
        let Some(id) = file else {
            return self
                .violate(format!("set_abortive on descriptor {descriptor}, which is closed"));
        };
        if let Some(stream) = self.stream_mut(id) {
            stream.abortive = true;
        }
    }

    /// socket(2).
    pub(crate) fn socket(&mut self, to: SocketAddr, owner: Owner) -> FileId {
        self.next_port = self.next_port.wrapping_add(1);
        let local = address(1, 32_768 + self.next_port % 28_000);
        let stream = Stream::new(local, to, self.knobs.socket_bytes as usize);
        self.add_file(Kind::Stream(Box::new(stream)), owner)
    }

    /// A socket with a descriptor.
    pub(crate) fn socket_with_descriptor(
        &mut self,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<u32, i32> {
        if self.is_out_of_descriptors() {
            return Err(libc::EMFILE);
        }
        let id = self.socket(to, Owner::Rings);
        if let (Some(from), Some(stream)) = (from, self.stream_mut(id)) {
            stream.local.set_ip(from);
        }
        self.install(id)
    }

    /// connect(2): the answer comes later.
    pub(crate) fn connect(&mut self, id: FileId) {
        let now_us = self.now_us;
        if let Some(stream) = self.stream_mut(id) {
            stream.phase = Phase::Connecting;
            stream.moved_us = now_us;
        }
        let in_us = self.latency_us();
        self.schedule(in_us, Event::Answer(id));
    }

    /// A dial of a ring that chance fails; whether it does.
    pub(super) fn fail_dial(&mut self, id: FileId) -> bool {
        let errno = if self.dice.permille(self.knobs.lost_dial) {
            self.schedule(SYN_TIMEOUT_US, Event::Answer(id));
            libc::ETIMEDOUT
        } else if self.dice.permille(self.knobs.failed_dial) {
            let in_us = self.latency_us();
            self.schedule(in_us, Event::Answer(id));
            self.dice.pick(&[
                libc::ECONNREFUSED,
                libc::EHOSTUNREACH,
                libc::ENETUNREACH,
                libc::EACCES,
                libc::ETIMEDOUT,
                libc::EADDRNOTAVAIL,
            ])
        } else {
            return false;
        };
        let now_us = self.now_us;
        if let Some(stream) = self.stream_mut(id) {
            stream.phase = Phase::Connecting;
            stream.moved_us = now_us;
            stream.other = None;
            stream.set_verdict(errno);
        }
        true
    }

    /// The SYN has arrived somewhere, or its answer here.
    pub(super) fn answer(&mut self, id: FileId) {
        let Some(stream) = self.stream_mut(id) else { return };
        if stream.phase != Phase::Connecting {
            return;
        }
        if let Some(errno) = stream.take_verdict() {
            stream.phase = Phase::Failed(errno);
            return self.wake(id);
        }
        let (from, to) = (stream.local, stream.remote);
        let Some(listener) = self.choose_listener(to) else {
            if let Some(stream) = self.stream_mut(id) {
                stream.phase = Phase::Failed(libc::ECONNREFUSED);
            }
            return self.wake(id);
        };
        let owner = self.file(listener).map_or(Owner::Rings, |file| file.owner);
        let full =
            self.listener_mut(listener).is_none_or(|l| l.is_mute || l.queue.len() > l.backlog);
        if full {
            self.marks.meet(Mark::BacklogFull);
            return self.schedule(SYN_RETRY_US, Event::Answer(id));
        }
        let mut there = Stream::new(to, from, self.knobs.socket_bytes as usize);
        there.phase = Phase::Connected;
        there.other = Some(id);
        there.moved_us = self.now_us;
        let there = self.add_file(Kind::Stream(Box::new(there)), owner);
        let now_us = self.now_us;
        if let Some(stream) = self.stream_mut(id) {
            stream.phase = Phase::Connected;
            stream.other = Some(there);
            stream.moved_us = now_us;
        }
        if let Some(listener) = self.listener_mut(listener) {
            listener.queue.push_back(there);
        }
        self.note(What::Queued, u64::from(listener.life), i64::from(there.life));
        self.note(What::Connected, u64::from(id.life), i64::from(there.life));
        if self.file(id).is_some_and(|file| file.owner == Owner::Rings && file.armed.is_empty()) {
            self.marks.meet(Mark::DialWonTooLate);
        }
        self.wake(listener);
        self.wake(id);
    }

    fn choose_listener(&mut self, at: SocketAddr) -> Option<FileId> {
        let count = self.listeners.get(&at)?.len();
        let place = self.dice.below(count as u32) as usize;
        Some(self.listeners[&at][place])
    }
}
