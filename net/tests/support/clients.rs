//! Clients and upstreams: plain blocking sockets that compare every byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Check, PATIENCE, Pattern, Rng, eventually, ms};

/// A call again that was interrupted: a wait with a time limit is, when the host stops its guests for a
/// moment, though nobody sent a signal.
pub(crate) fn again<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A client that waits 10 s at most for anything.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).expect("the server is there")
}

/// The same for a server that may reset at once: the reset can come before the connect returns.
pub(crate) fn try_connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    patient(&stream);
    Ok(stream)
}

fn patient(stream: &TcpStream) {
    stream.set_nodelay(true).expect("an open socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
}

/// A client whose kernel takes few bytes that it has not read.
#[track_caller]
pub(crate) fn connect_narrow(address: SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an open socket");
    socket.connect_timeout(&address.into(), PATIENCE).expect("the server is there");
    let stream = TcpStream::from(socket);
    patient(&stream);
    stream
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    let linger = Some(Duration::ZERO);
    socket2::SockRef::from(&stream).set_linger(linger).expect("an open socket");
}

/// Writes so many bytes of the pattern, cut at random.
pub(crate) fn write_pattern(
    mut stream: &TcpStream,
    seed: u64,
    bytes: u64,
    most: usize,
) -> std::io::Result<()> {
    let mut rng = Rng::new(!seed);
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; most];
    let mut left = bytes;
    while left > 0 {
        let piece = rng.up_to(most).min(usize::try_from(left).unwrap_or(usize::MAX));
        pattern.fill(&mut buffer[..piece]);
        stream.write_all(&buffer[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

/// Reads to the end of the stream, comparing; how many bytes came.
pub(crate) fn read_pattern(mut stream: &TcpStream, seed: u64) -> std::io::Result<u64> {
    let mut check = Check::new(seed);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match again(|| stream.read(&mut buffer))? {
            0 => return Ok(check.bytes),
            bytes => check.next(&buffer[..bytes]),
        }
    }
}

/// Sends a pattern through a peer that echoes, ends its own direction, and compares all that comes back.
#[track_caller]
pub(crate) fn echo_pattern(stream: &TcpStream, seed: u64, bytes: u64, most: usize) {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            write_pattern(stream, seed, bytes, most).expect("the server takes everything");
            stream.shutdown(Shutdown::Write).expect("an open socket");
        });
        let came = read_pattern(stream, seed).expect("the server sends everything");
        assert_eq!(came, bytes, "bytes lost or made up");
        writer.join().expect("the writer");
    });
}

/// Writes without reading until the peer takes no more for 300 ms; how many bytes of the pattern it took.
pub(crate) fn stuff(mut stream: &TcpStream, seed: u64) -> u64 {
    let mut pattern = Pattern::new(seed);
    stream.set_write_timeout(Some(ms(300))).expect("an open socket");
    let mut taken = 0;
    'all: loop {
        let piece = pattern.take(64 << 10);
        let mut rest = &piece[..];
        while !rest.is_empty() {
            match again(|| stream.write(rest)) {
                Ok(bytes) => {
                    taken += bytes as u64;
                    rest = &rest[bytes..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 'all,
                Err(error) => panic!("writing without reading: {error}"),
            }
        }
    }
    stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
    taken
}

/// One message there and back.
#[track_caller]
pub(crate) fn ping(mut stream: &TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the server takes a ping");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("the server answers a ping");
    assert_eq!(back, message);
}

#[track_caller]
pub(crate) fn read_bytes(mut stream: &TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).expect("the bytes come");
    read
}

/// Whether a byte, or an end, can be read within the time.
pub(crate) fn hears_within(mut stream: &TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).expect("an open socket");
    let heard = again(|| stream.read(&mut [0])).is_ok();
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    heard
}

#[track_caller]
pub(crate) fn expect_eof(mut stream: &TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(0) => {}
        other => panic!("an orderly end was expected, without a byte before it: {other:?}"),
    }
}

/// Reads what comes before a reset; fails if the stream ends in order, or not at all.
#[track_caller]
pub(crate) fn expect_reset(mut stream: &TcpStream) -> u64 {
    let mut buffer = vec![0; 64 << 10];
    let mut before = 0;
    loop {
        match again(|| stream.read(&mut buffer)) {
            Ok(0) => panic!("a reset was expected, but the stream ended in order after {before} B"),
            Ok(bytes) => before += bytes as u64,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return before,
            Err(error) => panic!("a reset was expected: {error}"),
        }
    }
}

/// A listener of the test's own, to be an upstream.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// An accept that does not wait for ever.
#[track_caller]
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("an open socket");
    let mut accepted = None;
    eventually("somebody dials the upstream", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("just seen");
    stream.set_nonblocking(false).expect("an open socket");
    patient(&stream);
    stream
}

/// An address where nobody listens, and nobody will: its port stays bound as long as the socket lives.
pub(crate) fn refusing() -> (socket2::Socket, SocketAddr) {
    refusing_at(SocketAddr::from(([127, 0, 0, 1], 0)))
}

pub(crate) fn refusing_at(any: SocketAddr) -> (socket2::Socket, SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).expect("a socket");
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("it is bound");
    (socket, address)
}

/// A listener whose backlog is full: who dials it gets no answer.
#[derive(Debug)]
pub(crate) struct BlackHole {
    _listener: TcpListener,
    _fillers: Vec<socket2::Socket>,
    pub(crate) address: SocketAddr,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn v6() -> Self {
        Self::at(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1_u16], 0)))
    }

    fn at(any: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).expect("a socket");
        socket.bind(&any.into()).expect("a free port");
        socket.listen(1).expect("a bound socket");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("it is bound");
        let mut fillers = Vec::new();
        for _ in 0..16 {
            let filler = Socket::new(Domain::for_address(any), Type::STREAM, None);
            let filler = filler.expect("a socket");
            let full = filler.connect_timeout(&address.into(), ms(100)).is_err();
            fillers.push(filler);
            if full {
                return Self { _listener: listener, _fillers: fillers, address };
            }
        }
        panic!("a backlog of 1 takes more than 16 connections");
    }
}
