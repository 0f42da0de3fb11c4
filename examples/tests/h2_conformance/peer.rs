//! A client of HTTP/2 that says what it is told to: frames and header blocks as bytes, legal or not.
//!
//! Is: a writer of frames and of literal header fields, and a reader of what comes back, each wait with a deadline. Is
//! not: a client to use. It keeps no windows, no table of headers and no states of streams, so that nothing stops it
//! from breaking their rules.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::support::{PATIENCE, connect, now};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;
/// A whole request without a body.
pub(crate) const WHOLE: u8 = END_HEADERS | END_STREAM;

pub(crate) const NO_ERROR: u32 = 0x0;
pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 0x3;
pub(crate) const STREAM_CLOSED: u32 = 0x5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 0x6;
pub(crate) const REFUSED_STREAM: u32 = 0x7;
pub(crate) const COMPRESSION_ERROR: u32 = 0x9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

pub(crate) const ENABLE_PUSH: u16 = 0x2;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;

/// What an endpoint may send that was told nothing else.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 14;
pub(crate) const WINDOW: usize = (1 << 16) - 1;

// ---------------------------------------------------------------------------------------- writing

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame of a test").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let bytes =
        |&(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &values.iter().flat_map(bytes).collect::<Vec<_>>())
}

pub(crate) fn window_update(stream: u32, count: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &count.to_be_bytes())
}

/// A literal header field that enters no table, without Huffman codes.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        string_length(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// An integer of RFC 7541, 5.1, behind a prefix of seven bits.
fn string_length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

pub(crate) fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    all.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The header block of a request for what says hello to `name`, with more fields behind the pseudo-headers.
pub(crate) fn request(name: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let path = format!("/{name}");
    let first = [(":method", "GET"), (":scheme", "http"), (":path", &path), (":authority", "test")];
    [fields(&first), fields(more)].concat()
}

/// A whole request on this stream, in one frame.
pub(crate) fn get(stream: u32, name: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &request(name, &[]))
}

// ---------------------------------------------------------------------------------------- reading

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn is(&self, kind: u8, stream: u32) -> bool {
        (self.kind, self.stream) == (kind, stream)
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Four bytes of the payload as a number.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).expect("a payload long enough");
        u32::from_be_bytes(bytes.try_into().expect("four"))
    }
}

/// What came of a stream, or of all of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of the response's header block. 0x88 stands for `:status: 200` (RFC 7541, appendix A).
    pub(crate) first_byte: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) is_whole: bool,
}

/// What a server says when it was asked for `name`.
pub(crate) fn hello(name: &str) -> Answer {
    Answer { first_byte: 0x88, body: format!("hello {name}\n").into_bytes(), is_whole: true }
}

/// One connection, and what has come on it.
pub(crate) struct Peer {
    stream: TcpStream,
    bytes: VecDeque<u8>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) was_reset: bool,
    pings: u64,
    deadline: Instant,
}

impl Peer {
    /// Nothing has been said on it.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let stream = connect(address);
        stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        Self {
            stream,
            bytes: VecDeque::new(),
            frames: Vec::new(),
            was_reset: false,
            pings: 0,
            deadline: now() + 3 * PATIENCE,
        }
    }

    /// Both have said their settings and acknowledged those of the other (3.4, 6.5.3).
    #[track_caller]
    pub(crate) fn open(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut peer = Self::silent(address);
        peer.send(PREFACE);
        peer.send(&settings(values));
        let first = peer.next().expect("the server's preface");
        assert!(first.is(SETTINGS, 0) && !first.has(ACK), "it begins with {first:?}");
        peer.send(&frame(SETTINGS, ACK, 0, &[]));
        peer.until(|frame| frame.is(SETTINGS, 0) && frame.has(ACK));
        peer
    }

    /// Whether the kernel took it: a server that has ended the connection may have reset it.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("taken");
    }

    /// Until the stream's end: `None`. What has come is kept too.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Frame> {
        if !self.has_bytes(9) {
            return None;
        }
        let head: Vec<u8> = self.bytes.drain(..9).collect();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        assert!(length <= FRAME_BYTES_MAX, "4.2: a frame of {length} bytes");
        assert!(self.has_bytes(length), "half a frame");
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().expect("four")) & (u32::MAX >> 1),
            payload: self.bytes.drain(..length).collect(),
        };
        self.frames.push(frame.clone());
        Some(frame)
    }

    /// Reads until there are so many; whether there are, or else the stream is at its end.
    #[track_caller]
    fn has_bytes(&mut self, count: usize) -> bool {
        let mut some = [0; 4096];
        while self.bytes.len() < count {
            assert!(now() < self.deadline, "it goes on for ever: {:?}", self.frames.last());
            match self.stream.read(&mut some) {
                Ok(0) => break,
                Ok(count) => self.bytes.extend(&some[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Ended with bytes of ours unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.was_reset = true;
                    break;
                }
                Err(error) => panic!("nothing comes ({error}) after {:?}", self.frames),
            }
        }
        self.bytes.len() >= count
    }

    /// The next frame of which this is true.
    #[track_caller]
    pub(crate) fn until(&mut self, is_it: impl Fn(&Frame) -> bool) -> Frame {
        while let Some(frame) = self.next() {
            if is_it(&frame) {
                return frame;
            }
        }
        panic!("the end came first, after {:?}", self.frames)
    }

    /// A ping and its answer: what the server did at once about all before is read then, or `false` if it ended. Twice,
    /// since an answer to a ping may go ahead of what else there is to send (6.7).
    #[track_caller]
    pub(crate) fn round(&mut self) -> bool {
        for _ in 0..2 {
            self.pings += 1;
            let payload = self.pings.to_be_bytes();
            self.try_send(&frame(PING, 0, 0, &payload));
            loop {
                let Some(frame) = self.next() else { return false };
                if frame.is(PING, 0) && frame.has(ACK) && frame.payload == payload {
                    break;
                }
            }
        }
        true
    }

    /// Reads to the end; the code of the last GOAWAY before it.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Option<u32> {
        while self.next().is_some() {}
        self.frames.iter().rfind(|frame| frame.is(GOAWAY, 0)).map(|frame| frame.number(4))
    }

    /// Reads to the end what need not be frames.
    #[track_caller]
    pub(crate) fn ended_with(mut self) -> Vec<u8> {
        self.has_bytes(usize::MAX);
        self.bytes.into()
    }

    /// What has come on a stream by now.
    #[track_caller]
    pub(crate) fn answer(&self, stream: u32) -> Answer {
        let mut answer = Answer::default();
        for frame in self.frames.iter().filter(|frame| frame.stream == stream) {
            match frame.kind {
                HEADERS => answer.first_byte = frame.payload[0],
                DATA => answer.body.extend(&frame.payload),
                RST_STREAM => panic!("reset: {frame:?}"),
                _ => {}
            }
            answer.is_whole |= matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM);
        }
        answer
    }

    /// Waits for so many bytes of an answer. What it has then, when all has come that the server had to say.
    #[track_caller]
    pub(crate) fn body_after(&mut self, stream: u32, bytes: usize) -> usize {
        while self.answer(stream).body.len() < bytes {
            assert!(self.next().is_some(), "ended within an answer");
        }
        assert!(self.round(), "it ended");
        self.answer(stream).body.len()
    }

    /// Waits for a whole answer.
    #[track_caller]
    pub(crate) fn whole_answer(&mut self, stream: u32) -> Answer {
        while !self.answer(stream).is_whole {
            let frame = self.next();
            assert!(frame.is_some(), "ended within an answer: {:?}", self.frames);
        }
        self.answer(stream)
    }
}
