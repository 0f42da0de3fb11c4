//! Where clients go, on a real kernel: what each policy promises of it.

mod support;

use std::collections::BTreeMap;
use std::net::TcpStream;

use slipring::{Builder, Placement};
use support::{Echo, Server, What, bounded, connect, ping, two_reactors};

/// How many of so many clients, which all stay, each reactor has.
fn place(builder: Builder, clients: usize) -> (BTreeMap<usize, u32>, Vec<TcpStream>, Server) {
    let server = Server::start(builder, |_| Echo);
    let clients = come(&server, clients);
    let share = shares(&server);
    (share, clients, server)
}

fn come(server: &Server, clients: usize) -> Vec<TcpStream> {
    let client = |_| {
        let client = connect(server.address);
        ping(&client, b"hello");
        client
    };
    (0..clients).map(client).collect()
}

fn shares(server: &Server) -> BTreeMap<usize, u32> {
    let mut share = BTreeMap::new();
    for entry in server.journal.entries() {
        if matches!(entry.what, What::Open(_)) {
            *share.entry(entry.reactor).or_insert(0) += 1;
        }
    }
    share
}

fn end(clients: Vec<TcpStream>, server: Server) -> u64 {
    let count = clients.len() as u64;
    drop(clients);
    server.wait_until_over(count);
    let counters = server.finish();
    assert_eq!(counters.accepted, count);
    assert_eq!(counters.handed_over, counters.taken_over);
    counters.handed_over
}

#[test]
fn the_least_loaded_gets_the_client() {
    bounded(|| {
        let (share, clients, server) = place(two_reactors(), 200);
        let most = share.values().max().copied().unwrap_or(0);
        // 100 each, and eight more before the other gets the next; busy counts for up to eight.
        assert!(most <= 109, "{share:?}");
        end(clients, server);
    });
}

#[test]
fn few_clients_are_spread_too() {
    bounded(|| {
        for _ in 0..20 {
            let (share, clients, server) = place(two_reactors(), 2);
            assert!(share.len() == 2, "{share:?}");
            end(clients, server);
        }
    });
}

#[test]
fn each_in_turn() {
    bounded(|| {
        // Each reactor counts for itself: it is exact for those that it accepts.
        let (share, clients, server) = place(two_reactors().placement(Placement::RoundRobin), 200);
        assert!(share.values().all(|count| (99..=101).contains(count)), "{share:?}");
        assert!(end(clients, server) > 50);
    });
}

#[test]
fn the_kernels_choice_is_left_alone() {
    bounded(|| {
        let (_, clients, server) = place(two_reactors().placement(Placement::Kernel), 50);
        assert_eq!(end(clients, server), 0);
    });
}

/// Over the loopback a packet is received by the CPU that sends it.
#[test]
fn the_cpu_of_the_client_has_its_reactor() {
    bounded(|| {
        let cores = core_affinity::get_core_ids().expect("it can be asked");
        let numbers: Vec<_> = cores.iter().map(|core| core.id).collect();
        let builder = two_reactors().cores(numbers).placement(Placement::Cpu);
        for (number, core) in cores.iter().enumerate() {
            let server = Server::start(builder.clone(), |_| Echo);
            let clients = std::thread::scope(|scope| {
                let client = scope.spawn(|| {
                    assert!(core_affinity::set_for_current(*core));
                    come(&server, 20)
                });
                client.join().expect("no panic")
            });
            assert_eq!(shares(&server), BTreeMap::from([(number, 20)]));
            assert_eq!(end(clients, server), 0);
        }
    });
}
