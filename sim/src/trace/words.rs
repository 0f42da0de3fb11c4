//! A record in words: who, what, and what came of it, with names for files and for errors.
//!
//! Is not: a choice of records (`story.rs`), nor a format that anything reads back.

use slipring_core::token::{Descriptor, Op, Token};

use super::{NO_RING, Party, Record, What};

/// Microseconds as a person would say them.
pub(crate) fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{} ms", trimmed(us as f64 / 1e3)),
        _ => format!("{} s", trimmed(us as f64 / 1e6)),
    }
}

fn trimmed(number: f64) -> String {
    format!("{number:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Names of the errors that a ring or a socket is told.
const ERRORS: &[(i32, &str)] = &[
    (libc::EACCES, "EACCES"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::EALREADY, "EALREADY"),
    (libc::EBADF, "EBADF"),
    (libc::EBADR, "EBADR"),
    (libc::EBUSY, "EBUSY"),
    (libc::ECANCELED, "ECANCELED"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::ECONNRESET, "ECONNRESET"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::EINTR, "EINTR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EIO, "EIO"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ENFILE, "ENFILE"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::EPERM, "EPERM"),
    (libc::EPIPE, "EPIPE"),
    (libc::EPROTO, "EPROTO"),
    (libc::ETIME, "ETIME"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
];

/// An error's name; its number if it has none here.
pub(super) fn error_name(errno: i64) -> String {
    let named = ERRORS.iter().find(|(known, _)| i64::from(*known) == errno);
    named.map_or_else(|| format!("error {errno}"), |(_, name)| (*name).to_owned())
}

/// What an operation is called in a story.
fn operation(op: Op) -> &'static str {
    match op {
        Op::Connect => "connect",
        Op::Receive => "receive",
        Op::Send => "send",
        Op::Watch => "watch",
        Op::Shutdown => "shutdown",
        Op::Close => "close",
        Op::Cancel => "cancel",
        Op::AcceptMany => "multishot accept",
        Op::WatchListener => "watch",
        Op::CancelAccept => "cancel of the accept",
        Op::CloseOther => "close of a spare descriptor",
        Op::Wake => "wake",
        Op::Mail => "mail",
        Op::Notify => "notice",
    }
}

/// A result, as it reads for an operation.
fn result(op: Op, number: i64) -> String {
    match op {
        _ if number < 0 => error_name(-number),
        Op::Receive if number == 0 => "end of stream".to_owned(),
        Op::Receive | Op::Send => bytes(number),
        Op::AcceptMany => format!("descriptor {number}"),
        Op::Watch | Op::WatchListener | Op::Wake | Op::Mail => "ready".to_owned(),
        _ if number == 0 => "done".to_owned(),
        _ => number.to_string(),
    }
}

fn bytes(count: i64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

impl Record {
    /// The connection of a reactor that it is about, if it is about one.
    pub(super) fn party(&self) -> Option<Party> {
        let (op, _, _) = self.token()?.decode();
        let of_one = matches!(
            op,
            Op::Connect
                | Op::Receive
                | Op::Send
                | Op::Watch
                | Op::Shutdown
                | Op::Close
                | Op::Cancel
        );
        of_one.then(|| Party::new(self.ring, self.subject))
    }

    /// The listener of a reactor that it is about, if it is about one, as [`Party`] has slots.
    pub(super) fn listener(&self) -> Option<Party> {
        let (op, key, _) = self.token()?.decode();
        let of_one = matches!(op, Op::AcceptMany | Op::WatchListener | Op::CancelAccept);
        of_one.then(|| Party::new(self.ring, u64::from(key.index()) << 32))
    }

    fn token(&self) -> Option<Token> {
        let of_token = matches!(
            self.what,
            What::Pushed | What::Reaped | What::ReapedMore | What::ReapedNotification
        );
        if of_token { Token::from_bits(self.subject) } else { None }
    }

    /// Whom it is about, in words; a file by the name it is given.
    pub(crate) fn who(&self, name: impl Fn(u64) -> String) -> String {
        match self.party() {
            Some(party) => party.to_string(),
            None if self.ring != NO_RING => format!("reactor {}", self.ring),
            None if self.what == What::Said => "the run".to_owned(),
            None if matches!(self.what, What::Turn | What::Told) => {
                format!("reactor {}", self.subject)
            }
            None => name(self.subject),
        }
    }

    /// What happened, in words.
    pub(crate) fn deed(&self, name: impl Fn(u64) -> String) -> String {
        let number = self.number;
        match self.what {
            What::Entered => format!("enters the kernel, submissions taken: {number}"),
            What::Queued => format!("has {} in its backlog", name(number as u64)),
            What::Connected => format!("is connected to {}", name(number as u64)),
            What::Arrived => format!("<- {}", bytes(number)),
            What::FinArrived => "<- FIN".to_owned(),
            What::ResetArrived => "<- RST".to_owned(),
            What::Released => "is no more".to_owned(),
            What::PeerBegins => format!("begins, as peer {number}"),
            What::PeerEnds => format!("leaves, as peer {number}"),
            What::Turn => "turns".to_owned(),
            What::Said => format!("is over, its ends told in {} letters", self.subject),
            What::Told => "is told that its ring failed, and ends".to_owned(),
            _ => self.token().map_or_else(
                || format!("{:?} of a foreign token {:#x}: {number}", self.what, self.subject),
                |token| self.step(token),
            ),
        }
    }

    /// A step in the life of an operation.
    fn step(&self, token: Token) -> String {
        let (op, key, activation) = token.decode();
        let number = self.number;
        let what = match op {
            // Its activation is the operation it is aimed at.
            Op::Cancel => match Op::ALL.get(usize::from(activation)) {
                Some(target) => format!("cancel of its {}", operation(*target)),
                None => "cancel".to_owned(),
            },
            Op::Connect | Op::Receive | Op::Send | Op::Watch | Op::Shutdown | Op::Close => {
                format!("{} #{activation}", operation(op))
            }
            Op::AcceptMany | Op::WatchListener | Op::CancelAccept => {
                format!("{} of listener {} #{activation}", operation(op), key.index())
            }
            Op::CloseOther | Op::Wake | Op::Mail => operation(op).to_owned(),
            Op::Notify => format!("notice to reactor {}", key.index()),
        };
        match self.what {
            What::Pushed if number < 0 => format!("{what} is pushed"),
            What::Pushed => match u32::try_from(number).ok().and_then(|n| Descriptor(n).place()) {
                Some(place) => format!("{what} is pushed, on place {place} of the table"),
                None => format!("{what} is pushed, on descriptor {number}"),
            },
            What::ReapedMore => format!("{what} goes on: {}", result(op, number)),
            What::ReapedNotification => format!("{what} has let go of its memory"),
            _ => format!("{what} ends: {}", result(op, number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::NO_FILE;
    use super::*;
    use slipring_core::token::Key;

    fn record(what: What, ring: u16, subject: u64, number: i64) -> Record {
        Record { at_us: 0, ring, what, subject, number, file: NO_FILE }
    }

    #[test]
    fn operations_read_as_who_did_what() {
        let name = |number| format!("socket {number}");
        let of = |op, activation| Token::new(op, Key::new(3, 7), activation).to_bits();
        let cases = [
            (What::Pushed, of(Op::Send, 4), 9, "send #4 is pushed, on descriptor 9"),
            (
                What::Pushed,
                of(Op::Send, 4),
                i64::from(Descriptor::of_table(9).0),
                "send #4 is pushed, on place 9 of the table",
            ),
            (What::Reaped, of(Op::Send, 4), -104, "send #4 ends: ECONNRESET"),
            (What::ReapedMore, of(Op::Receive, 1), 1, "receive #1 goes on: 1 byte"),
            (What::Reaped, of(Op::Receive, 1), 0, "receive #1 ends: end of stream"),
            (What::Reaped, of(Op::Cancel, 1), -2, "cancel of its receive ends: ENOENT"),
            (What::ReapedNotification, of(Op::Send, 0), 0, "send #0 has let go of its memory"),
            (What::Reaped, of(Op::Connect, 0), -4095, "connect #0 ends: error 4095"),
        ];
        for (what, subject, number, expected) in cases {
            let record = record(what, 2, subject, number);
            assert_eq!(record.who(name), "reactor 2 slot 3/7");
            assert_eq!(record.deed(name), expected);
        }
        let accepted = record(What::ReapedMore, 0, of(Op::AcceptMany, 0), 12);
        assert_eq!(accepted.who(name), "reactor 0");
        assert_eq!(accepted.deed(name), "multishot accept of listener 3 #0 goes on: descriptor 12");
        let arrived = record(What::Arrived, NO_RING, 5, 300);
        assert_eq!(
            (arrived.who(name), arrived.deed(name)),
            ("socket 5".into(), "<- 300 bytes".into())
        );
    }

    #[test]
    fn durations_have_the_unit_that_reads_best() {
        let cases = [
            (0, "0 us"),
            (999, "999 us"),
            (1_500, "1.5 ms"),
            (90_000_000, "90 s"),
            (1_000, "1 ms"),
        ];
        for (us, text) in cases {
            assert_eq!(duration(us), text);
        }
    }
}
