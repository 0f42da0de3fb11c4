//! What can go wrong with one connection while the load runs, and the counts of it by kind.
//!
//! Is: the run's record of what the server (or the machine) did wrong. Is not: a reason to stop;
//! the connection ends, the load goes on, and the exit code tells at the end. What keeps a run from
//! starting is a `Refusal` instead.

use std::io;

/// Why a connection of the load ended before its time.
#[derive(Debug)]
pub enum Fault {
    /// The peer ended its stream while it still owed bytes.
    EarlyEof,
    /// A message was not back within the timeout.
    Timeout,
    /// This many bytes came back that are not those that were sent.
    Corrupted(u64),
    /// A call on its socket failed.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The kinds that are told apart in a report, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing listened.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// The peer ended its stream while it still owed bytes, or, with TLS, without a close_notify.
    EarlyEof,
    /// A message, or a connect, took longer than the timeout.
    Timeout,
    /// This machine had no free port towards the address.
    NoPort,
    /// This process or machine had no free descriptor.
    NoDescriptor,
    /// Anything else; the report quotes the first.
    Other,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::Reset,
        Self::EarlyEof,
        Self::Timeout,
        Self::NoPort,
        Self::NoDescriptor,
        Self::Other,
    ];

    /// Its key in a report.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::EarlyEof => "early_eof",
            Self::Timeout => "timeout",
            Self::NoPort => "no_port",
            Self::NoDescriptor => "no_descriptor",
            Self::Other => "other",
        }
    }

    /// The kind of a failed call.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            return Self::NoDescriptor;
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe => Self::Reset,
            // Of TLS alone: a stream that ends without a close_notify.
            io::ErrorKind::UnexpectedEof => Self::EarlyEof,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::AddrNotAvailable => Self::NoPort,
            _ => Self::Other,
        }
    }
}

/// How often each kind happened.
#[derive(Debug, Default)]
pub struct Faults {
    counts: [u64; Kind::ALL.len()],
    /// Bytes that came back wrong.
    pub corrupted: u64,
    /// The first error without a kind of its own.
    pub first_other: Option<io::Error>,
}

impl Faults {
    /// Counts one.
    pub fn count(&mut self, fault: Fault) {
        let kind = match fault {
            Fault::Corrupted(bytes) => {
                self.corrupted += bytes;
                return;
            }
            Fault::EarlyEof => Kind::EarlyEof,
            Fault::Timeout => Kind::Timeout,
            Fault::Io(error) => {
                let kind = Kind::of(&error);
                if kind == Kind::Other {
                    self.first_other.get_or_insert(error);
                }
                kind
            }
        };
        self.counts[kind as usize] += 1;
    }

    /// Every kind with its count.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.counts)
    }

    /// Whether nothing went wrong.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.corrupted == 0 && self.counts.iter().all(|count| *count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_kind() {
        let mut faults = Faults::default();
        assert!(faults.are_none());
        for errno in [libc::ECONNRESET, libc::EPIPE, libc::EMFILE, libc::ENOMEM, libc::EPERM] {
            faults.count(io::Error::from_raw_os_error(errno).into());
        }
        faults.count(Fault::EarlyEof);
        let text: Vec<String> = faults
            .counts()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{} {count}", kind.key()))
            .collect();
        assert_eq!(text, ["reset 2", "early_eof 1", "no_descriptor 1", "other 2"]);
        let first = faults.first_other.as_ref().and_then(io::Error::raw_os_error);
        assert_eq!(first, Some(libc::ENOMEM));
    }

    #[test]
    fn corruption_alone_is_a_fault() {
        let mut faults = Faults::default();
        faults.count(Fault::Corrupted(3));
        assert!(!faults.are_none());
        assert_eq!(faults.counts().map(|(_, count)| count).sum::<u64>(), 0);
    }
}
