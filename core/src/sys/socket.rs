//! Sockets as the library makes them. The options stand on the listener: accepted sockets inherit them, so
//! that an accept costs no system call beside the accept.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::errno::fault_of;
use crate::error::{Fault, SetupError};
use crate::token::Descriptor;

/// Probe an idle peer after this long, then every `KEEPALIVE_INTERVAL`, `KEEPALIVE_PROBES` times.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;
/// Bytes unacknowledged for this long end a connection (TCP_USER_TIMEOUT).
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A listening socket.
#[derive(Debug)]
pub struct Listening {
    socket: Socket,
    address: SocketAddr,
}

impl Listening {
    /// Listens on `address`; `shared`: beside others of this process on the same port (SO_REUSEPORT).
    ///
    /// # Errors
    /// [`SetupError::PortTaken`], or [`SetupError::Listen`] with what the kernel said.
    pub fn open(address: SocketAddr, backlog: u32, shared: bool) -> Result<Self, SetupError> {
        let listening = Self::try_open(address, backlog, shared);
        listening.map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => SetupError::PortTaken { address },
            _ => SetupError::Listen { address, source },
        })
    }

    fn try_open(address: SocketAddr, backlog: u32, shared: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the connections of the process before.
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        set_stream_options(&socket)?;
        socket.bind(&address.into())?;
        // For `accept_queued`. The ring's accepts wait all the same.
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let address = address_of(socket.local_addr()?)?;
        Ok(Self { socket, address })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether somebody, of this process or another, listens on the address already, so that sharing the
    /// port would split the clients with them.
    ///
    /// # Errors
    /// [`SetupError::PortTaken`] if so; [`SetupError::Listen`] if it cannot be told.
    pub fn claim(address: SocketAddr) -> Result<(), SetupError> {
        if address.port() == 0 {
            return Ok(());
        }
        Self::open(address, 1, false).map(drop)
    }

    /// Lets the CPU that receives a client's first packet choose among the listeners that share this one's port:
    /// the first of them is for the first CPU of `cpus`, and so on. Who comes in elsewhere is spread by the
    /// number of the CPU.
    ///
    /// # Errors
    /// [`SetupError::Step`] when the kernel does not take it.
    pub fn steer_by_cpu(&self, cpus: &[usize]) -> Result<(), SetupError> {
        let program = steering(cpus);
        let attached =
            libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: the program and what names it live until the call returns, which copies them.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_CBPF,
                (&raw const attached).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if result == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        Err(SetupError::Step { step: "steering clients by CPU", source })
    }

    /// Gives the descriptor up: whoever has it closes it.
    #[must_use]
    pub fn into_descriptor(self) -> Descriptor {
        Descriptor(self.socket.into_raw_fd() as u32)
    }
}

/// A classic BPF program whose answer is the number of the listener: the place of the CPU that runs it in `cpus`.
fn steering(cpus: &[usize]) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;
    const ANSWER_A: u32 = libc::BPF_RET | libc::BPF_A;
    let step =
        |code: u32, (jt, jf): (u8, u8), k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let mut program = vec![step(LOAD, (0, 0), cpu)];
    for (number, cpu) in (0..).zip(cpus) {
        // Not this one: over the answer, to the next.
        program.push(step(IF_EQUAL, (0, 1), *cpu as u32));
        program.push(step(ANSWER, (0, 0), number));
    }
    program.push(step(MODULO, (0, 0), cpus.len().max(1) as u32));
    program.push(step(ANSWER_A, (0, 0), 0));
    program
}

fn set_stream_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

pub(super) fn address_of(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// A socket to dial `address` with, from one of the host's addresses if one is given.
pub(super) fn open(address: &SocketAddr, from: Option<IpAddr>) -> Result<Descriptor, Fault> {
    let make = || {
        let domain = Domain::for_address(*address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        set_stream_options(&socket)?;
        if let Some(from) = from {
            leave_the_port_to_connect(&socket)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        Ok(Descriptor(socket.into_raw_fd() as u32))
    };
    make().map_err(|error: io::Error| fault_of(&error))
}

/// A bind that names no port takes none: connect does, which knows the peer, so that connections to different peers may
/// share one (IP_BIND_ADDRESS_NO_PORT, which is for IPv6 too). Otherwise there are as many connections from an address
/// as it has ports.
fn leave_the_port_to_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: it reads one integer, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The socket behind a descriptor of ours, without the duty to close it.
pub(super) fn borrow(descriptor: Descriptor) -> ManuallyDrop<Socket> {
    debug_assert!(!descriptor.is_of_table(), "there is no call for a place of a table");
    // SAFETY: the descriptor is open, since the connection that names it has not closed it yet, and
    // `ManuallyDrop` keeps this second owner from closing it.
    ManuallyDrop::new(unsafe { Socket::from_raw_fd(descriptor.0 as RawFd) })
}

/// Makes the next close a reset.
pub(super) fn set_abortive(descriptor: Descriptor) {
    // A socket that is not connected any more has nothing to reset.
    let _ = borrow(descriptor).set_linger(Some(Duration::ZERO));
}

/// A client that queues at a listener made by [`Listening`].
pub(super) fn accept_queued(listener: Descriptor) -> Result<Descriptor, Fault> {
    let listener = borrow(listener);
    loop {
        match listener.accept() {
            Ok((client, _)) => return Ok(Descriptor(client.into_raw_fd() as u32)),
            // Its client has gone again; another may stand behind it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(fault_of(&error)),
        }
    }
}

/// Closes it.
pub(super) fn close(descriptor: Descriptor) {
    drop(ManuallyDrop::into_inner(borrow(descriptor)));
}

/// Bytes in the send queue that the peer has not acknowledged.
pub(super) fn unsent(descriptor: Descriptor) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the number of TIOCOUTQ) writes one integer to a live one.
    let told = unsafe { libc::ioctl(descriptor.0 as RawFd, libc::TIOCOUTQ, &raw mut bytes) };
    if told == 0 { u32::try_from(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::questions::{local, peer};
    use super::*;

    #[test]
    fn accepting_who_queues_waits_for_nobody() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listening = Listening::open(address, 8, false).expect("a free port");
        let address = listening.address();
        let listener = listening.into_descriptor();
        assert_eq!(accept_queued(listener), Err(Fault::WouldBlock));
        let client = std::net::TcpStream::connect(address).expect("it listens");
        let accepted = accept_queued(listener).expect("one queues");
        assert_eq!(local(accepted), Ok(address));
        assert_eq!(peer(accepted), Ok(client.local_addr().expect("it is connected")));
        assert!(!borrow(accepted).nonblocking().expect("it is open"), "as the ring's accepts");
        assert_eq!(accept_queued(listener), Err(Fault::WouldBlock));
        close(accepted);
        close(listener);
    }
}
