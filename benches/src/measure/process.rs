//! A server as a child process: started on one CPU, known to listen, and ended whatever happens.
//!
//! Every child is ended by its own process id when its `Server` is dropped (also by a panic or an
//! early return): SIGTERM, five seconds of patience, SIGKILL. Should this process itself be killed,
//! the kernel ends the children for us (`PR_SET_PDEATHSIG`), so nothing is ever left over.

#![expect(unsafe_code, reason = "what a child does between fork and exec, and kill by id")]

use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::clock::wait_for;
use crate::pin::pin_to_cpu;

/// How long a server may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end after SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How a server can be started.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What to run.
    pub program: PathBuf,
    /// With which arguments.
    pub arguments: Vec<String>,
    /// How to know that it listens.
    pub ready: Ready,
}

/// How to know that a server listens, and where.
#[derive(Clone, Copy, Debug)]
pub enum Ready {
    /// It prints `listening on IP:PORT`.
    Announces,
    /// It was told the address; connecting to it works.
    At(SocketAddr),
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its standard output, kept so that writing there never fails.
    _output: UnixStream,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Recipe {
    /// Starts the server on `cpu` and waits until it listens.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or does not listen in time.
    pub fn start(&self, cpu: usize) -> io::Result<Server> {
        self.try_start(cpu).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.program.display()))
        })
    }

    fn try_start(&self, cpu: usize) -> io::Result<Server> {
        let (output, childs_output) = UnixStream::pair()?;
        output.set_read_timeout(Some(START_PATIENCE))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(OwnedFd::from(childs_output));
        let child = spawn_bound(&mut command, cpu)?;
        drop(command);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Server { child, _output: output.try_clone()?, address: nowhere };
        server.address = match self.ready {
            Ready::Announces => announced(output)?,
            Ready::At(address) => {
                wait_for("listening", START_PATIENCE, || reached(address))?;
                address
            }
        };
        Ok(server)
    }
}

impl Server {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: the id is our own child's, which has not been waited for, so it names no other.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let ended = wait_for("ending", END_PATIENCE, || self.child.try_wait().ok().flatten());
        if ended.is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Starts a child that stays on `cpu` and does not outlive this process.
///
/// # Errors
/// What `Command::spawn` answers.
pub fn spawn_bound(command: &mut Command, cpu: usize) -> io::Result<Child> {
    let bind = move || {
        // SAFETY: a plain system call on the child itself; no memory is passed.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
        if result < 0 { Err(io::Error::last_os_error()) } else { pin_to_cpu(cpu) }
    };
    // SAFETY: `bind` makes two system calls and neither allocates nor locks.
    unsafe { command.pre_exec(bind) };
    command.spawn()
}

/// Reads the `listening on IP:PORT` line.
fn announced(output: UnixStream) -> io::Result<SocketAddr> {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address = line.trim_end().strip_prefix("listening on ").and_then(|text| text.parse().ok());
    address.ok_or_else(|| io::Error::other(format!("said {line:?} instead of where it listens")))
}

/// Whether somebody listens there. While nobody does, loopback may connect a socket to itself.
fn reached(address: SocketAddr) -> Option<()> {
    let stream = TcpStream::connect(address).ok()?;
    (stream.local_addr().ok()? != address).then_some(())
}

/// A port that was free a moment ago, for servers that must be told one.
///
/// # Errors
/// When the kernel has none.
pub fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}
