//! Connections that a bench holds itself: idle ones by the thousand, or one to ping with.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Source addresses that the connections are spread over, so that ports do not run out.
const SOURCES: usize = 4;

/// What a server may take to answer before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connection number `index` to a server on loopback.
///
/// # Errors
/// What the socket calls answer.
pub fn connect(server: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let source = Ipv4Addr::new(127, 0, 0, 2 + (index % SOURCES) as u8);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Sends 64 B and waits until they are back.
///
/// # Errors
/// When nothing comes back in time, or something else does.
pub fn check_echo(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    let message = [byte; 64];
    let mut answer = [0; 64];
    stream.write_all(&message)?;
    stream.read_exact(&mut answer)?;
    if answer == message {
        Ok(())
    } else {
        Err(io::Error::other("the echo differs from what was sent"))
    }
}
