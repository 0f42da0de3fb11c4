//! Who may come in, on a real kernel: by its address, and by how many its source has already.

mod support;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use slipring::{Access, Listen, Rate, SourceLimits};
use support::{Echo, Server, bounded, connect, eventually, one_reactor, ping, two_reactors};

/// Connects from an address of the loopback's own network.
fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(&from.into()).expect("an address of this host");
    socket.connect(&to.into()).expect("it listens");
    socket.set_read_timeout(Some(support::PATIENCE)).expect("an open socket");
    TcpStream::from(socket)
}

/// Whether the server has reset it.
fn is_reset(mut client: TcpStream) -> bool {
    let read = client.read(&mut [0]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

fn prefix(text: &str) -> slipring::Prefix {
    text.parse().expect("a prefix")
}

#[test]
fn who_is_denied_is_reset_and_the_others_are_served() {
    bounded(|| {
        let access = Access::new([], [prefix("127.0.0.64/26")]).expect("it makes sense");
        let server = Server::start(two_reactors().access(access), |_| Echo);
        for round in 0..10 {
            assert!(is_reset(connect_from(64 + round, server.address)), "denied, and let in");
            let client = connect_from(round + 1, server.address);
            ping(&client, b"hello");
        }
        server.wait_until_over(10);
        let counters = server.finish();
        assert_eq!((counters.accepted, counters.refused_access), (10, 10));
    });
}

#[test]
fn a_list_of_who_may_come_shuts_out_the_rest() {
    bounded(|| {
        let access = Access::new([prefix("127.0.0.1")], []).expect("it makes sense");
        let loopback = SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
        let open = Listen::new().access(Access::new([], []).expect("it makes sense"));
        let builder = one_reactor().access(access).listen_with(loopback, open);
        let server = Server::start(builder, |_| Echo);
        let other = server.running().addresses()[1];
        ping(&connect_from(1, server.address), b"hello");
        assert!(is_reset(connect_from(2, server.address)));
        // The second listener has a list of its own, with nothing on it.
        ping(&connect_from(2, other), b"hello");
        server.wait_until_over(2);
        server.finish();
    });
}

#[test]
fn a_source_has_as_many_connections_as_it_may_over_all_reactors() {
    bounded(|| {
        let limits = SourceLimits { connections_max: Some(3), ..SourceLimits::default() };
        let server = Server::start(two_reactors().per_source(limits), |_| Echo);
        for _ in 0..5 {
            let mut clients: Vec<_> = (0..3).map(|_| connect(server.address)).collect();
            clients.iter().for_each(|client| ping(client, b"hello"));
            assert!(is_reset(connect_from(1, server.address)), "one too many");
            ping(&connect_from(9, server.address), b"another source");
            // One goes, and there is a place again.
            let closed = server.counters().closed;
            drop(clients.pop());
            eventually("it is over", || server.counters().closed > closed);
            let next = loop {
                let next = connect_from(1, server.address);
                if serves(&next) {
                    break next;
                }
            };
            ping(&next, b"hello");
            drop((clients, next));
            eventually("all are over", || {
                let counters = server.counters();
                counters.accepted == counters.closed
            });
        }
        let counters = server.finish();
        assert!(counters.refused_source_full >= 5);
        assert_eq!(counters.accepted, counters.closed);
    });
}

/// Whether a new connection is served, or was one too many.
fn serves(mut client: &TcpStream) -> bool {
    use std::io::Write;
    let mut back = [0; 4];
    client.write_all(b"ask?").is_ok() && client.read_exact(&mut back).is_ok()
}

#[test]
fn a_source_that_comes_too_often_is_reset() {
    bounded(|| {
        let rate = Rate::with_burst(1, 5).expect("it makes sense");
        let limits = SourceLimits { rate: Some(rate), ..SourceLimits::default() };
        let server = Server::start(one_reactor().per_source(limits), |_| Echo);
        let served = (0..20).filter(|_| serves(&connect_from(1, server.address))).count();
        assert!((5..=8).contains(&served), "{served} of 20 with a burst of 5 and one a second");
        assert!(serves(&connect_from(9, server.address)), "another source");
        let counters = server.finish();
        assert!(counters.refused_source_rate >= 12);
    });
}
