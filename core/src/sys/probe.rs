//! What this kernel can do, found by trying.
//!
//! Flags, not opcodes, decide most of it, and the kernel's own probe knows opcodes only. So a small ring is
//! set up and the operations in question are run on a socket pair; what works is used.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, opcode};
use socket2::{Domain, Socket, Type};

use super::ring::{Ring, RingConfig};
use crate::clock::MonotonicClock;
use crate::config::Limits;
use crate::driver::{Completion, Driver, Share, Submission, Wait};
use crate::error::SetupError;
use crate::token::{Descriptor, Key, Op, Token};

/// What a ring can use beyond the least (Linux 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// No indirection array in the submission queue (6.6).
    pub no_sqarray: bool,
    /// `enter` by a registered index (5.18; refused by some sandboxes).
    pub registered_ring: bool,
    /// Sleeping is not accounted as waiting for I/O (6.15).
    pub no_iowait: bool,
    /// A multishot receive ends by itself after so many bytes (6.17).
    pub receive_cap: bool,
    /// Vectored sends without a copy (6.1).
    pub zero_copy: bool,
}

/// The features' sum, in one word for a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The least: Linux 6.1.
    Base,
    /// Queues without indirection, idle rings that look idle: Linux 6.15.
    Lean,
    /// Receives that end by themselves, so that fairness costs no cancels: Linux 6.17.
    Capped,
}

impl Features {
    /// The tier these features reach.
    #[must_use]
    pub fn tier(&self) -> Tier {
        match (self.no_sqarray && self.no_iowait, self.receive_cap) {
            (true, true) => Tier::Capped,
            (true, false) => Tier::Lean,
            (false, _) => Tier::Base,
        }
    }
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tier = match self.tier() {
            Tier::Base => "base",
            Tier::Lean => "lean",
            Tier::Capped => "capped",
        };
        write!(f, "{tier} (")?;
        let names = [
            (self.no_sqarray, "no_sqarray"),
            (self.registered_ring, "registered_ring"),
            (self.no_iowait, "no_iowait"),
            (self.receive_cap, "receive_cap"),
            (self.zero_copy, "zero_copy"),
        ];
        let there: Vec<_> = names.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        write!(f, "{})", there.join(", "))
    }
}

/// Finds out what this kernel can do.
///
/// # Errors
/// [`SetupError::Forbidden`] or [`SetupError::KernelTooOld`] when there can be no ring at all.
pub fn probe() -> Result<Features, SetupError> {
    let mut features = Features::default();
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
    let ring: IoUring = builder.build(8).map_err(set_up_error)?;
    features.no_iowait = ring.params().is_feature_no_iowait();
    let mut opcodes = io_uring::Probe::new();
    if ring.submitter().register_probe(&mut opcodes).is_ok() {
        features.zero_copy = opcodes.is_supported(opcode::SendMsgZc::CODE);
    }
    features.no_sqarray = builder.setup_no_sqarray().build(8).is_ok_and(|_: IoUring| true);
    features.registered_ring = works(Features { registered_ring: true, ..features }, 0)?;
    if !works(features, 0)? {
        return Err(SetupError::KernelTooOld { feature: "multishot receive into a buffer ring" });
    }
    features.receive_cap = works(Features { receive_cap: true, ..features }, 4)?;
    Ok(features)
}

/// Whether a ring with these features receives eight bytes as a multishot should: to go on after them, or
/// to end by itself at the cap.
fn works(features: Features, cap: u32) -> Result<bool, SetupError> {
    let step = |step| move |source| SetupError::Step { step, source };
    let limits = Limits { buffers: 4, buffer_bytes: 64, submissions: 64, ..Limits::default() };
    let clock = MonotonicClock::start();
    let (watched, places) = (false, 0);
    let mut ring = match Ring::new(&RingConfig { limits, features, watched, clock, places }) {
        Ok(ring) => ring,
        Err(SetupError::Step { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let (ours, mut theirs) = UnixStream::pair().map_err(step("making a socket pair"))?;
    let descriptor = Descriptor(ours.into_raw_fd() as u32);
    io::Write::write_all(&mut theirs, b"8 bytes.").map_err(step("writing to a socket pair"))?;
    let key = Key::new(0, 0);
    let token = Token::new(Op::Receive, key, 0);
    let mut run = |token, submission, done: &dyn Fn(&[Completion]) -> bool| {
        let mut completions = Vec::new();
        let _ = ring.push(token, submission, Share::Management);
        for _ in 0..8 {
            let wait = Wait { sleep_us: Some(100_000), ..Wait::NOT };
            if ring.enter(wait).is_err() || done(&completions) {
                break;
            }
            ring.reap(&mut completions, 8);
            if done(&completions) {
                break;
            }
        }
        completions
    };
    let received = run(token, Submission::Receive { descriptor, cap }, &|all| !all.is_empty());
    let first = received.first().map(|first| (first.result, first.more));
    let _ = run(Token::new(Op::Close, key, 0), Submission::Close(descriptor), &|all| {
        all.iter().any(|completion| completion.token.decode().0 == Op::Close)
    });
    Ok(match (cap, first) {
        (0, Some((Ok(8), true))) => true,
        (cap, Some((Ok(bytes), more))) => cap > 0 && bytes >= cap && !more,
        _ => false,
    })
}

/// Finds out whether sockets can be kept in a ring's own table: moved in and asked about there, and closed as soon
/// as they are, whatever is under way on others. (Before 6.13 a socket stayed open until all older operations of the
/// ring on any socket of its table had ended: those that receive never do.)
///
/// # Errors
/// [`SetupError::DirectDescriptors`] with what is not there.
pub fn probe_table(features: Features) -> Result<(), SetupError> {
    let step = |step| move |source| SetupError::Step { step, source };
    let lacks = |lacks| SetupError::DirectDescriptors { lacks };
    let limits = Limits { buffers: 4, buffer_bytes: 64, submissions: 64, ..Limits::default() };
    let (watched, clock, places) = (false, MonotonicClock::start(), 3);
    let ring = Ring::new(&RingConfig { limits, features, watched, clock, places });
    let mut ring = ring.map_err(|error| match error {
        SetupError::Step { .. } => lacks("a ring with a table of its own"),
        error => error,
    })?;
    let mut move_in = |descriptor: OwnedFd| {
        let descriptor = ring.move_in(Descriptor(descriptor.into_raw_fd() as u32));
        descriptor.place().ok_or_else(|| lacks("sockets that are put into the table of a ring"))
    };
    // Not connected, it has nothing to send, and the kernel says so.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(step("making a socket"))?;
    let asked = move_in(socket.into())?;
    let (busy, other_end) = UnixStream::pair().map_err(step("making a socket pair"))?;
    let busy = Descriptor::of_table(move_in(busy.into())?);
    let (closed, mut end) = UnixStream::pair().map_err(step("making a socket pair"))?;
    let closed = Descriptor::of_table(move_in(closed.into())?);
    if ring.unsent(Descriptor::of_table(asked)) != Some(0) || !ring.make_abortive(asked) {
        return Err(lacks("socket commands through a ring (6.7)"));
    }
    let out = ring.descriptor_of(asked);
    ring.close_now(out.ok_or_else(|| lacks("descriptors for what is in a table (6.8)"))?);
    end.set_nonblocking(true).map_err(step("setting up a socket pair"))?;
    let key = Key::new(0, 0);
    let submissions = [
        (Op::Receive, Submission::Receive { descriptor: busy, cap: 0 }),
        (Op::Close, Submission::Close(closed)),
    ];
    for (op, submission) in submissions {
        let _ = ring.push(Token::new(op, key, 0), submission, Share::Management);
        let _ = ring.enter(Wait::NOT);
    }
    let is_closed = io::Read::read(&mut end, &mut [0]);
    // Nothing is to be in flight when the ring goes.
    drop(other_end);
    let _ = ring.enter(Wait::NOT);
    match is_closed {
        Ok(0) => Ok(()),
        _ => Err(lacks("tables that let go of what is closed while others receive (6.13)")),
    }
}

/// Why `io_uring_setup` said no, and what to do about it.
pub(super) fn set_up_error(error: io::Error) -> SetupError {
    let number = error.raw_os_error().unwrap_or(0);
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .map_or(0, |text| text.trim().parse().unwrap_or(0));
    match (number, disabled) {
        (libc::EPERM | libc::EACCES, 1 | 2) => SetupError::Forbidden {
            cause: format!("the sysctl kernel.io_uring_disabled is {disabled}"),
            remedy: "set it to 0: sysctl -w kernel.io_uring_disabled=0".to_owned(),
        },
        (libc::EPERM | libc::EACCES | libc::ENOSYS, _) => SetupError::Forbidden {
            cause: format!("io_uring_setup was refused: {error}"),
            remedy: "a seccomp profile forbids it (Docker's and containerd's default ones do): allow \
                     io_uring_setup, io_uring_enter and io_uring_register in the profile, or run with \
                     --security-opt seccomp=unconfined; a kernel built without io_uring says the same"
                .to_owned(),
        },
        (libc::EINVAL, _) => SetupError::KernelTooOld {
            feature: "io_uring with SINGLE_ISSUER and DEFER_TASKRUN",
        },
        (libc::ENOMEM, _) => SetupError::LimitTooLow {
            limit: "RLIMIT_MEMLOCK (or the host's memory)",
            available: 0,
            needed: 1 << 20,
            remedy: "raise it (`ulimit -l`, LimitMEMLOCK=) or lower the number of cores",
        },
        (libc::EMFILE | libc::ENFILE, _) => SetupError::LimitTooLow {
            limit: "RLIMIT_NOFILE (open descriptors)",
            available: 0,
            needed: 64,
            remedy: "raise it (`ulimit -n`, LimitNOFILE=)",
        },
        _ => SetupError::Step { step: "io_uring_setup", source: error },
    }
}
