//! The first message of a client, before anything is done about it: when it is whole, by its lengths alone.
//!
//! It may lie in several records, as small as a client likes. What it costs begins with its last byte, so that is what
//! a handshake's turn is taken for; until then it is collected here, and no longer than any honest one. (The largest
//! have keys for hybrid exchanges and a ticket: 2 to 4 KiB.)

use rustls::{ContentType, HandshakeType};

use super::error::TlsError;
use super::records::{HEADER, SEALED_MAX};

/// Bytes that a ClientHello may take on the wire, in all of its records.
pub(super) const HELLO_BYTES_MAX: usize = HEADER + SEALED_MAX;
/// Bytes of a handshake message before its body: type, length.
const MESSAGE_HEADER: usize = 4;

/// What came of it so far.
#[derive(Debug, Default)]
pub(super) struct Hello {
    bytes: Vec<u8>,
    /// Where the first record begins that is not whole.
    next: usize,
    /// Bytes of the message in the records before that, and the first ones of them.
    message: usize,
    head: [u8; MESSAGE_HEADER],
}

impl Hello {
    /// Adds what came. Once it is whole, or will never be one, for the machine to say so: how many of these bytes stand
    /// behind it. They are not added.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<usize>, TlsError> {
        let mut left = bytes;
        let is_whole = self.add(&mut left)?;
        // Its next bytes, or its turn, may be long in coming.
        self.bytes.shrink_to_fit();
        Ok(is_whole.then_some(left.len()))
    }

    /// Takes its records, or what is there of them, from the front of what is left.
    fn add(&mut self, left: &mut &[u8]) -> Result<bool, TlsError> {
        loop {
            let record = &self.bytes[self.next..];
            let lacks = match super::machine::record_length(record) {
                Ok(Some(length)) if self.next + length > HELLO_BYTES_MAX => {
                    return Err(too_large());
                }
                Ok(length) => length.unwrap_or(HEADER) - record.len(),
                Err(_) => return Ok(true),
            };
            if lacks > 0 {
                if left.is_empty() {
                    return Ok(false);
                }
                let (more, rest) = left.split_at(lacks.min(left.len()));
                self.bytes.extend_from_slice(more);
                *left = rest;
                continue;
            }
            if ContentType::from(record[0]) != ContentType::Handshake {
                return Ok(true);
            }
            let payload = &record[HEADER..];
            for (place, byte) in self.head.iter_mut().skip(self.message).zip(payload) {
                *place = *byte;
            }
            self.message += payload.len();
            self.next += record.len();
            if self.message < MESSAGE_HEADER {
                continue;
            }
            let [typ, a, b, c] = self.head;
            let length = MESSAGE_HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
            if HandshakeType::from(typ) != HandshakeType::ClientHello || self.message >= length {
                return Ok(true);
            }
            if length > HELLO_BYTES_MAX {
                return Err(too_large());
            }
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn too_large() -> TlsError {
    TlsError::HandshakeTooLarge { limit: HELLO_BYTES_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this type and so many bytes of body, in records of so many bytes.
    fn records(typ: u8, body: usize, record: usize) -> Vec<u8> {
        let mut message = vec![typ];
        message.extend_from_slice(&(body as u32).to_be_bytes()[1..]);
        message.resize(MESSAGE_HEADER + body, 7);
        let cut =
            |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        message.chunks(record).flat_map(cut).collect()
    }

    #[test]
    fn it_is_whole_with_its_last_byte_however_it_is_cut() {
        for record in [1, 3, 100, 4000] {
            let bytes = records(1, 1000, record);
            for piece in [1, 7, 5000] {
                let mut hello = Hello::default();
                let last = bytes.chunks(piece).count() - 1;
                for (place, piece) in bytes.chunks(piece).enumerate() {
                    let whole = (place == last).then_some(0);
                    assert_eq!(hello.push(piece).expect("short"), whole);
                }
                assert_eq!(hello.into_bytes(), bytes);
            }
        }
    }

    #[test]
    fn what_stands_behind_it_is_not_kept() {
        let bytes = records(1, 1000, 300);
        let mut hello = Hello::default();
        assert_eq!(hello.push(&bytes[..500]).expect("short"), None);
        let rest = [&bytes[500..], &[23; 40_000]].concat();
        assert_eq!(hello.push(&rest).expect("short"), Some(40_000));
        assert!(hello.bytes.capacity() < 2 * bytes.len(), "{} bytes", hello.bytes.capacity());
        assert_eq!(hello.into_bytes(), bytes);
    }

    #[test]
    fn what_will_never_be_one_is_not_waited_for() {
        for bytes in [&b"GET"[..], &[23, 3, 3, 0, 1, 0], &[21, 3, 3, 0, 2, 1, 0], &records(2, 9, 4)]
        {
            let pushed = Hello::default().push(bytes).expect("no error of its own");
            assert!(pushed.is_some(), "{bytes:?}");
        }
    }

    #[test]
    fn one_that_is_too_long_is_refused_by_its_length_or_by_its_records() {
        let refused = |outcome| matches!(outcome, Err(TlsError::HandshakeTooLarge { .. }));
        assert!(refused(Hello::default().push(&records(1, 20_000, 100)[..300])));
        let mut hello = Hello::default();
        let outcome = records(1, 10_000, 1)
            .chunks(100)
            .map(|piece| hello.push(piece))
            .find(|outcome| !matches!(outcome, Ok(None)));
        assert!(outcome.is_some_and(refused), "it was taken");
        assert!(hello.bytes.len() <= HELLO_BYTES_MAX);
    }
}
