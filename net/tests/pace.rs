//! Accept rates on a real kernel: how long a crowd takes to come in, and that nobody is turned away for it.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use slipring::{Listen, Rate};
use support::{Echo, Server, bounded, connect, hears_within, loopback, now, one_reactor, ping};
use support::{eventually, two_reactors};

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate::with_burst(per_second, burst).expect("a rate")
}

fn crowd(at: SocketAddr, clients: usize) -> Vec<TcpStream> {
    (0..clients).map(|_| connect(at)).collect()
}

#[test]
fn forty_clients_at_fifty_a_second_take_as_long_as_that() {
    bounded(|| {
        let server = Server::start(two_reactors().accept_rate(rate(50, 5)), |_| Echo);
        let started = now();
        let clients = crowd(server.address, 40);
        clients.iter().for_each(|client| ping(client, b"hello"));
        let took = started.elapsed();
        // The last 35 of them grow in 0.7 s, whichever reactor a client queues at.
        assert!(took >= Duration::from_millis(700), "40 clients were in after {took:?}");
        assert!(took < Duration::from_millis(1500), "40 clients were in after {took:?}");
        drop(clients);
        server.wait_until_over(40);
        let counters = server.finish();
        assert_eq!((counters.accepted, counters.refused()), (40, 0));
        assert!(counters.accepts_paced > 0);
    });
}

#[test]
fn the_rate_of_a_listener_is_its_own() {
    bounded(|| {
        let slow = Listen::new().accept_rate(rate(1, 2));
        let server = Server::start(one_reactor().listen_with(loopback(), slow), |_| Echo);
        let address = server.running().addresses()[1];
        let waiting = crowd(address, 3);
        waiting[..2].iter().for_each(|client| ping(client, b"a burst"));
        (&waiting[2]).write_all(b"hello").expect("the kernel takes it");
        // Meanwhile the other listener has served a crowd.
        let free = crowd(server.address, 50);
        free.iter().for_each(|client| ping(client, b"at once"));
        assert!(hears_within(&waiting[2], support::PATIENCE), "its turn has come");
        drop((free, waiting));
        server.wait_until_over(53);
        let counters = server.finish();
        assert_eq!((counters.accepted, counters.refused()), (53, 0));
        assert_eq!(counters.accepts_paced, 1, "one of a second, who waited once");
    });
}

#[test]
fn a_drain_takes_in_who_waits_for_a_token() {
    bounded(|| {
        let server = Server::start(two_reactors().accept_rate(rate(1, 1)), |_| Echo);
        let clients = crowd(server.address, 20);
        eventually("one of them waits", || server.counters().accepts_paced > 0);
        let counters = server.finish();
        assert_eq!((counters.accepted, counters.refused()), (20, 0));
        drop(clients);
    });
}
