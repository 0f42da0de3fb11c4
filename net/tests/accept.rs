//! Several listeners, several reactors, both families: every client is served by the listener it came to, and
//! reactors share the work.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use slipring::{Ctx, Handler, Lease, Origin};
use support::{
    Echo, Server, What, bounded, connect, one_reactor, ping, read_bytes, reset, two_reactors,
};

/// Says by which listener a client came.
struct Tells;

impl Handler for Tells {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, origin: Origin) {
        let Origin::Accepted(listener) = origin else { unreachable!("nobody dials") };
        let key = ctx.key();
        assert_eq!(ctx.origin(key), Some(origin));
        ctx.send(vec![listener as u8]);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

#[test]
fn each_listener_is_known_by_its_number() {
    bounded(|| {
        for builder in [one_reactor(), two_reactors()] {
            let v4 = SocketAddr::from(([127, 0, 0, 1], 0));
            let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0));
            let server = Server::start(builder.listen(v6).listen(v4), |_| Tells);
            let addresses = server.running().addresses().to_vec();
            assert_eq!(addresses.len(), 3);
            for (number, address) in addresses.iter().enumerate() {
                assert_ne!(address.port(), 0, "not the real port");
                assert_eq!(address.is_ipv6(), number == 1, "not in the order asked for");
                for _ in 0..10 {
                    let client = connect(*address);
                    assert_eq!(read_bytes(&client, 1), [number as u8]);
                    ping(&client, b"hello");
                }
            }
            assert_eq!(server.finish().accepted, 30);
        }
    });
}

#[test]
fn connections_spread_over_reactors() {
    bounded(|| {
        let server = Server::start(two_reactors(), |_| Echo);
        assert_eq!(server.running().reactors(), 2);
        let clients: Vec<_> = (0..200).map(|_| connect(server.address)).collect();
        clients.iter().for_each(|client| ping(client, b"hello"));
        let mut share = BTreeMap::new();
        for entry in server.journal.entries() {
            if matches!(entry.what, What::Open(_)) {
                *share.entry(entry.reactor).or_insert(0) += 1;
            }
        }
        // A fair coin gives fewer than 50 of 200 once in 10^12 times.
        assert!(share.len() == 2 && share.values().all(|&count| count > 50), "{share:?}");
        drop(clients);
        server.wait_until_over(200);
        server.finish();
    });
}

#[test]
fn a_burst_of_clients() {
    bounded(|| {
        let server = Server::start(two_reactors(), |_| Echo);
        let address = server.address;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(move || {
                    let clients: Vec<_> = (0..100).map(|_| connect(address)).collect();
                    for mut client in &clients {
                        client.write_all(b"hello").expect("the server takes it");
                    }
                    for client in &clients {
                        assert_eq!(read_bytes(client, 5), b"hello");
                    }
                });
            }
        });
        server.wait_until_over(800);
        assert_eq!(server.finish().accepted, 800);
    });
}

/// Clients that are gone before anybody looked at them.
#[test]
fn connect_and_reset() {
    bounded(|| {
        let server = Server::start(two_reactors(), |_| Echo);
        let address = server.address;
        let probe = connect(address);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || {
                    for _ in 0..500 {
                        reset(TcpStream::connect(address).expect("it listens"));
                    }
                });
            }
            for _ in 0..200 {
                ping(&probe, b"meanwhile");
            }
        });
        ping(&connect(address), b"after all of it");
        drop(probe);
        server.wait_until_over(1000);
        assert_eq!(server.finish().accept_errors, 0);
    });
}

#[test]
fn reactors_know_their_number() {
    bounded(|| {
        let numbers = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = std::sync::Arc::clone(&numbers);
        let server = Server::start(two_reactors(), move |number| {
            seen.lock().expect("no panic").push(number);
            Echo
        });
        ping(&connect(server.address), b"hello");
        server.finish();
        let mut numbers = numbers.lock().expect("no panic").clone();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1]);
    });
}
