//! What every peer does before its runtime starts: options, pinning, and the listening socket.
//!
//! Not a framework: each peer's loop stands in its own file, written as its own documentation does.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use socket2::{Domain, Socket, Type};

/// Bytes of a peer's buffer, one a connection, where it needs one.
pub const BUFFER_BYTES: usize = 4096;

/// Connections waiting to be accepted.
pub const BACKLOG: i32 = 4096;

/// What the command line said.
pub struct Options {
    pub listen: SocketAddr,
    pub cpu: usize,
    /// The certificate and the key, as PEM, of a peer that speaks TLS.
    pub tls_cert: PathBuf,
    /// See `tls_cert`.
    pub tls_key: PathBuf,
}

impl Options {
    /// Reads `--listen ADDR --cpu N --tls-cert FILE --tls-key FILE`, as far as they are given, and
    /// pins the process to that CPU.
    pub fn parse_and_pin() -> io::Result<Self> {
        let mut options = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            cpu: 0,
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| invalid(&name))?;
            match name.as_str() {
                "--listen" => options.listen = value.parse().map_err(|_| invalid(&value))?,
                "--cpu" => options.cpu = value.parse().map_err(|_| invalid(&value))?,
                "--tls-cert" => options.tls_cert = value.into(),
                "--tls-key" => options.tls_key = value.into(),
                _ => return Err(invalid(&name)),
            }
        }
        pin_to_cpu(options.cpu)?;
        Ok(options)
    }

    /// A blocking listener; accepted sockets inherit `TCP_NODELAY` from it.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(self.listen), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&self.listen.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }
}

/// Tells the bench where the peer can be reached.
pub fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "listening on {address}")?;
    out.flush()
}

/// Options, pinning, a listener and its announcement: all most peers need.
pub fn start() -> io::Result<TcpListener> {
    let listener = Options::parse_and_pin()?.listen()?;
    announce(listener.local_addr()?)?;
    Ok(listener)
}

fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    pin_to_cpus(&[cpu])
}

/// Keeps this thread, and those it starts, on these CPUs.
pub fn pin_to_cpus(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a CPU set is an array of bits, for which all zeroes is a value.
    let mut set = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(invalid("--cpu"));
        }
        // SAFETY: `cpu` is below the number of bits in the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: 0 is the calling thread; the set lives across the call.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn invalid(what: &str) -> io::Error {
    let want = "want --listen ADDR --cpu N, with TLS --tls-cert FILE --tls-key FILE too";
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: {want}"))
}
