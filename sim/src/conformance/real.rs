//! The kernel of this machine as an arm: a bare ring, and sockets on 127.0.0.1.
//!
//! Waits are bounded and poll the kernel; nothing sleeps for time to pass, save an enter whose timeout it is.
//! What cannot be set up is noted, and the rest of the script runs on nothing.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use slipring_core::clock::MonotonicClock;
use slipring_core::sys::bare::{
    self, BareRing, Completion, Entered, File, Operation, Setup, Shortage,
};
use slipring_core::{Fault, TcpInfo};
use socket2::{Domain, Protocol, Socket, Type};

use super::arm::{Arm, Dialed, Ending, Open, Peer, Seen, Time};

const LONG: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(10);
/// Enters until everything queued was taken.
const ENTERS_MAX: u32 = 100;
/// What SO_SNDBUF and SO_RCVBUF of a narrow socket are set to.
const NARROW_BYTES: usize = 4096;
const NARROW_MSS: u32 = 512;
/// Receives before a buffer ring near its wrap is handed out.
const WALK: usize = (1 << 16) - 8;

/// See the module's documentation.
pub(super) struct Real {
    // Dropped in this order: a ring holds what it has in flight.
    rings: Vec<Option<BareRing>>,
    ring_descriptors: Vec<u32>,
    /// Descriptors that are open, as far as is known, and that nothing else here owns.
    opened: BTreeSet<u32>,
    accepts: BTreeSet<(usize, u64)>,
    peers: Vec<Option<Socket>>,
    shortage: Option<Shortage>,
    clock: MonotonicClock,
    failure: Option<String>,
}

fn duration(time: Time) -> Duration {
    match time {
        Time::Long => LONG,
        Time::Quiet => QUIET,
        Time::Within(ms) => Duration::from_millis(u64::from(ms)),
    }
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn stream() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn narrow(socket: &Socket) -> io::Result<()> {
    // Segments that are small beside the window: it opens by one of them, not by a timer of the sender.
    socket.set_tcp_mss(NARROW_MSS)?;
    socket.set_send_buffer_size(NARROW_BYTES)?;
    socket.set_recv_buffer_size(NARROW_BYTES)
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// Whether clients of a listener that closes are handed on to one beside it.
pub(super) fn migrates() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req")
        .is_ok_and(|text| text.trim() != "0")
}

impl Real {
    pub(super) fn new() -> Self {
        Self {
            rings: Vec::new(),
            ring_descriptors: Vec::new(),
            opened: BTreeSet::new(),
            accepts: BTreeSet::new(),
            peers: Vec::new(),
            shortage: None,
            clock: MonotonicClock::start(),
            failure: None,
        }
    }

    /// What could not be set up.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn note<T>(&mut self, what: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failure.get_or_insert(format!("{what}: {error}"));
                None
            }
        }
    }

    /// Polls until the condition holds; whether it does.
    fn until(&self, time: Time, mut holds: impl FnMut() -> bool) -> bool {
        let until_us = self.clock.now_us() + duration(time).as_micros() as u64;
        while !holds() {
            if self.clock.now_us() >= until_us {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    fn try_listen(backlog: u32, beside: Option<SocketAddr>) -> io::Result<(Socket, SocketAddr)> {
        let socket = stream()?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&beside.unwrap_or_else(local).into())?;
        socket.listen(backlog as i32)?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok((socket, address))
    }

    fn try_pair(open: Open) -> io::Result<(Socket, Socket)> {
        let listener = stream()?;
        let peer = stream()?;
        if open == Open::Narrow {
            narrow(&listener)?;
            narrow(&peer)?;
        }
        listener.bind(&local().into())?;
        listener.listen(1)?;
        peer.connect(&listener.local_addr()?)?;
        peer.set_nonblocking(true)?;
        let (ours, _) = listener.accept()?;
        Ok((ours, peer))
    }

    fn keep_peer(&mut self, peer: Option<Socket>) -> Peer {
        self.peers.push(peer);
        Peer(self.peers.len() - 1)
    }

    /// Receives until the counter of the buffer ring is just below its wrap.
    fn walk(ring: &mut BareRing, setup: &Setup) -> io::Result<()> {
        let (mut theirs, ours) = UnixStream::pair()?;
        let on = File::Descriptor(ours.as_raw_fd() as u32);
        let bytes = vec![b'.'; (setup.buffers * setup.buffer_bytes) as usize];
        let mut ended = true;
        for _ in 0..WALK / setup.buffers as usize {
            theirs.write_all(&bytes)?;
            let mut held = Vec::new();
            while held.len() < setup.buffers as usize {
                if std::mem::take(&mut ended) {
                    ring.push(1, Operation::Receive { on, many: true, cap: 0 });
                }
                ring.submit()?;
                ring.wait(1, LONG);
                let Some(first) = ring.reap() else { return Err(io::ErrorKind::TimedOut.into()) };
                for one in std::iter::once(first).chain(std::iter::from_fn(|| ring.reap())) {
                    ended |= !one.more;
                    held.extend(one.buffer);
                }
            }
            held.into_iter().for_each(|buffer| ring.recycle(buffer));
        }
        drop(theirs);
        while !ended {
            ring.wait(1, LONG);
            let Some(last) = ring.reap() else { return Err(io::ErrorKind::TimedOut.into()) };
            ended = !last.more;
        }
        Ok(())
    }
}

impl Arm for Real {
    fn ring(&mut self, setup: Setup) -> usize {
        let ring = BareRing::new(&setup).map_err(io::Error::other);
        let ring = self.note("setting a ring up", ring);
        self.ring_descriptors.push(ring.as_ref().map_or(u32::MAX, BareRing::descriptor));
        self.rings.push(ring);
        self.rings.len() - 1
    }

    fn ring_near_wrap(&mut self, setup: Setup) -> usize {
        let number = self.ring(setup);
        if let Some(ring) = &mut self.rings[number] {
            let walked = Self::walk(ring, &setup);
            self.note("walking to the wrap of a buffer ring", walked);
        }
        number
    }

    fn exit(&mut self, ring: usize) {
        self.rings[ring] = None;
    }

    fn ring_descriptor(&self, ring: usize) -> u32 {
        self.ring_descriptors[ring]
    }

    fn push(&mut self, ring: usize, token: u64, operation: Operation) {
        match operation {
            Operation::Accept { direct: false, .. } => {
                self.accepts.insert((ring, token));
            }
            Operation::Close(File::Descriptor(descriptor)) => {
                self.opened.remove(&descriptor);
            }
            _ => {}
        }
        if let Some(bare) = &mut self.rings[ring]
            && !bare.push(token, operation)
        {
            self.failure.get_or_insert("a submission queue was full".to_owned());
        }
    }

    fn enter(&mut self, ring: usize, want: usize, time: Time) -> Entered {
        let Some(bare) = &mut self.rings[ring] else { return Entered::TimeUp };
        for _ in 0..ENTERS_MAX {
            match bare.submit() {
                Err(error) if bare.unsubmitted() > 0 => {
                    let again = [libc::EINTR, libc::EAGAIN, libc::EBUSY];
                    if !again.contains(&errno_of(&error)) {
                        return Entered::Failed(errno_of(&error));
                    }
                }
                _ if bare.unsubmitted() == 0 => break,
                _ => {}
            }
        }
        if want == 0 {
            return Entered::Done;
        }
        bare.wait(want as u32, duration(time))
    }

    fn reap(&mut self, ring: usize) -> Option<Completion> {
        let completion = self.rings[ring].as_mut()?.reap()?;
        if completion.result >= 0 && self.accepts.contains(&(ring, completion.token)) {
            self.opened.insert(completion.result as u32);
        }
        Some(completion)
    }

    fn fill(&mut self, ring: usize, place: u32, descriptor: u32) -> Result<(), i32> {
        let Some(ring) = &self.rings[ring] else { return Err(libc::EBADF) };
        ring.fill(place, descriptor).map_err(|error| errno_of(&error))
    }

    fn recycle(&mut self, ring: usize, buffer: u16) {
        if let Some(ring) = &mut self.rings[ring] {
            ring.recycle(buffer);
        }
    }

    fn listen(&mut self, backlog: u32, beside: Option<SocketAddr>) -> (u32, SocketAddr) {
        let listening = Self::try_listen(backlog, beside);
        let Some((socket, address)) = self.note("listening", listening) else {
            return (u32::MAX, local());
        };
        let descriptor = socket.into_raw_fd() as u32;
        self.opened.insert(descriptor);
        (descriptor, address)
    }

    fn socket(&mut self) -> u32 {
        let socket = stream();
        let Some(socket) = self.note("making a socket", socket) else { return u32::MAX };
        let descriptor = socket.into_raw_fd() as u32;
        self.opened.insert(descriptor);
        descriptor
    }

    fn pair(&mut self, open: Open) -> (u32, Peer) {
        let pair = Self::try_pair(open);
        let Some((ours, peer)) = self.note("connecting a pair", pair) else {
            return (u32::MAX, self.keep_peer(None));
        };
        let descriptor = ours.into_raw_fd() as u32;
        self.opened.insert(descriptor);
        (descriptor, self.keep_peer(Some(peer)))
    }

    fn close(&mut self, descriptor: u32) {
        if self.opened.remove(&descriptor) {
            bare::close(descriptor);
        }
    }

    fn set_abortive(&mut self, descriptor: u32) {
        if self.opened.contains(&descriptor) {
            bare::set_abortive(descriptor);
        }
    }

    fn queued(&mut self, listener: u32, clients: usize) -> bool {
        self.until(Time::Long, || bare::clients_waiting(listener) >= clients)
    }

    fn arrived(&mut self, descriptor: u32, bytes: usize) -> bool {
        self.until(Time::Long, || bare::bytes_waiting(descriptor) >= bytes)
    }

    fn ended(&mut self, descriptor: u32) -> bool {
        self.until(Time::Long, || {
            let readiness = bare::readiness(descriptor);
            readiness.ended || readiness.broken
        })
    }

    fn acked(&mut self, descriptor: u32, bytes: u64) -> bool {
        self.until(Time::Long, || {
            bare::info(descriptor).is_ok_and(|info| info.acked_bytes >= bytes)
        })
    }

    fn names(&mut self, descriptor: u32) -> (Result<SocketAddr, Fault>, Result<SocketAddr, Fault>) {
        (bare::peer(descriptor), bare::local(descriptor))
    }

    fn info(&mut self, descriptor: u32) -> Result<TcpInfo, Fault> {
        bare::info(descriptor)
    }

    fn ends_of(&mut self, peer: Peer) -> Option<(SocketAddr, SocketAddr)> {
        let socket = self.peers[peer.0].as_ref()?;
        Some((socket.local_addr().ok()?.as_socket()?, socket.peer_addr().ok()?.as_socket()?))
    }

    fn dial(&mut self, to: SocketAddr) -> Peer {
        let dialing = || {
            let socket = stream()?;
            socket.set_nonblocking(true)?;
            match socket.connect(&to.into()) {
                Err(error) if errno_of(&error) != libc::EINPROGRESS => Err(error),
                _ => Ok(socket),
            }
        };
        let socket = self.note("dialing", dialing());
        self.keep_peer(socket)
    }

    fn dialed(&mut self, peer: Peer, time: Time) -> Dialed {
        let Some(socket) = &self.peers[peer.0] else { return Dialed::Pending };
        let descriptor = socket.as_raw_fd() as u32;
        self.until(time, || bare::readiness(descriptor).writable);
        match (socket.take_error(), bare::readiness(descriptor).writable) {
            (Ok(Some(error)) | Err(error), _) => Dialed::Failed(errno_of(&error)),
            (Ok(None), true) => Dialed::Connected,
            (Ok(None), false) => Dialed::Pending,
        }
    }

    fn write(&mut self, peer: Peer, bytes: &[u8]) -> Result<usize, i32> {
        let mut socket = self.peers[peer.0].as_ref().ok_or(libc::EBADF)?;
        socket.write(bytes).map_err(|error| errno_of(&error))
    }

    fn read(&mut self, peer: Peer, most: usize, time: Time) -> Seen {
        let mut bytes = Vec::new();
        let mut ending = Ending::Open;
        let Some(mut socket) = self.peers[peer.0].as_ref() else { return Seen { bytes, ending } };
        let mut piece = vec![0; 16 << 10];
        self.until(time, || {
            while bytes.len() < most {
                let length = piece.len().min(most - bytes.len());
                match socket.read(&mut piece[..length]) {
                    Ok(0) => ending = Ending::End,
                    Ok(count) => {
                        bytes.extend_from_slice(&piece[..count]);
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                    Err(error) => ending = Ending::Failed(errno_of(&error)),
                }
                break;
            }
            true
        });
        Seen { bytes, ending }
    }

    fn finish(&mut self, peer: Peer) {
        if let Some(socket) = &self.peers[peer.0] {
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    fn leave(&mut self, peer: Peer, abortive: bool) {
        if let Some(socket) = self.peers[peer.0].take()
            && abortive
        {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }

    fn open_descriptors(&mut self) -> usize {
        let listing = std::fs::read_dir("/proc/self/fd");
        // The listing has one of its own.
        self.note("counting descriptors", listing).map_or(0, |entries| entries.count() - 1)
    }

    fn shortage(&mut self, left: usize) {
        let shortage = Shortage::begin(left);
        self.shortage = self.note("bringing about a shortage of descriptors", shortage);
    }

    fn relent(&mut self) {
        if let Some(shortage) = &mut self.shortage {
            shortage.relent();
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.rings.clear();
        for descriptor in std::mem::take(&mut self.opened) {
            bare::close(descriptor);
        }
    }
}
