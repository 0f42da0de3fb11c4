//! Random data in random segments comes back byte for byte: from one byte to 64 MiB, on one connection and
//! on many, with buffers and thresholds of all kinds.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use slipring::{CloseReason, Limits, Poll};
use support::{
    Check, Echo, Pattern, Rng, Server, bounded, connect, echo_pattern, one_reactor, two_reactors,
};

#[test]
fn sizes_around_every_boundary() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| Echo);
        let sizes = [0, 1, 2, 7, 63, 64, 65, 4095, 4096, 4097, 32767, 32768, 65535, 65536, 65537];
        let large = [131_071, 131_073, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 8 << 20];
        let all: Vec<u64> = sizes.into_iter().chain(large).collect();
        for (seed, &bytes) in all.iter().enumerate() {
            echo_pattern(&connect(server.address), seed as u64, bytes, 100_000);
        }
        let journal = server.journal.clone();
        let counters = server.finish();
        let total: u64 = all.iter().sum();
        assert_eq!(counters.bytes_received, total);
        assert_eq!(counters.bytes_sent, total);
        for n in 0..all.len() {
            assert_eq!(journal.nth_close(n).1, CloseReason::PeerClosed);
        }
    });
}

#[test]
fn sixty_four_mebibytes() {
    bounded(|| {
        let server = Server::start(one_reactor(), |_| Echo);
        echo_pattern(&connect(server.address), 64, 64 << 20, 300_000);
        assert_eq!(server.finish().bytes_sent, 64 << 20);
    });
}

/// One of many connections of a client thread: what is out, what came back.
struct Exchange {
    stream: TcpStream,
    pattern: Pattern,
    check: Check,
    sent: u64,
}

/// Serves `count` connections in random order: sends random segments, reads random parts of what is due.
fn juggle(address: std::net::SocketAddr, seed: u64, count: usize, steps: usize, most: usize) {
    let mut rng = Rng::new(seed);
    let mut exchanges: Vec<Exchange> = (0..count as u64)
        .map(|n| Exchange {
            stream: connect(address),
            pattern: Pattern::new(seed * 1000 + n),
            check: Check::new(seed * 1000 + n),
            sent: 0,
        })
        .collect();
    let mut buffer = vec![0; most];
    for _ in 0..steps {
        let exchange = &mut exchanges[rng.up_to(count) - 1];
        let due = (exchange.sent - exchange.check.bytes) as usize;
        if due >= most || (due > 0 && rng.one_in(2)) {
            let part = rng.up_to(due.min(most));
            exchange.stream.read_exact(&mut buffer[..part]).expect("what was sent comes back");
            exchange.check.next(&buffer[..part]);
        } else {
            let segment = rng.up_to(most - due);
            exchange.pattern.fill(&mut buffer[..segment]);
            exchange.stream.write_all(&buffer[..segment]).expect("the server takes it");
            exchange.sent += segment as u64;
        }
    }
    for mut exchange in exchanges {
        exchange.stream.shutdown(std::net::Shutdown::Write).expect("an open socket");
        let mut rest = Vec::new();
        exchange.stream.read_to_end(&mut rest).expect("what is due comes back");
        exchange.check.next(&rest);
        assert_eq!(exchange.check.bytes, exchange.sent);
    }
}

fn juggle_with_threads(server: &Server, threads: u64, each: usize, steps: usize, most: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let address = server.address;
            scope.spawn(move || juggle(address, thread + 1, each, steps, most));
        }
    });
}

#[test]
fn many_connections_with_random_segments() {
    bounded(|| {
        let server = Server::start(two_reactors(), |_| Echo);
        juggle_with_threads(&server, 4, 100, 6000, 16 << 10);
        assert_eq!(server.finish().accepted, 400);
    });
}

#[test]
fn tiny_and_few_buffers() {
    bounded(|| {
        let limits = Limits { buffers: 8, buffer_bytes: 100, ..Limits::default() };
        let limits = Limits { accepted_max: 256, ..limits };
        let server = Server::start(one_reactor().limits(limits), |_| Echo);
        echo_pattern(&connect(server.address), 5, 1 << 20, 3000);
        juggle_with_threads(&server, 2, 20, 1500, 3000);
        assert!(server.finish().receives_parked > 0, "eight buffers were too many for this test");
    });
}

#[test]
fn tiny_watermarks_and_shares() {
    bounded(|| {
        let limits = Limits {
            accepted_max: 256,
            outbox_high_bytes: 2,
            outbox_low_bytes: 1,
            outbox_pieces_high: 1,
            turn_bytes_max: 1000,
            turn_receives_max: 1,
            buffer_bytes: 512,
            ..Limits::default()
        };
        let server = Server::start(one_reactor().limits(limits), |_| Echo);
        echo_pattern(&connect(server.address), 6, 2 << 20, 30_000);
        juggle_with_threads(&server, 2, 20, 1500, 8000);
        assert_eq!(server.finish().accepted, 41);
    });
}

#[test]
fn with_and_without_zero_copy() {
    bounded(|| {
        for zero_copy_min_bytes in [None, Some(1), Some(100_000)] {
            let limits = Limits { zero_copy_min_bytes, accepted_max: 64, ..Limits::default() };
            let server = Server::start(one_reactor().limits(limits), |_| Echo);
            let supported = server.running().features().zero_copy;
            echo_pattern(&connect(server.address), 7, 8 << 20, 200_000);
            juggle_with_threads(&server, 2, 10, 1000, 16 << 10);
            let sends = server.finish().zero_copy_sends;
            match zero_copy_min_bytes {
                None => assert_eq!(sends, 0),
                Some(1) => {
                    assert!(sends > 0 || !supported, "no send tried to avoid a copy");
                }
                Some(_) => {}
            }
        }
    });
}

#[test]
fn every_way_of_waiting() {
    bounded(|| {
        for poll in [Poll::Off, Poll::Adaptive, Poll::Always] {
            let server = Server::start(one_reactor().poll(poll), |_| Echo);
            echo_pattern(&connect(server.address), 8, 4 << 20, 50_000);
            juggle_with_threads(&server, 1, 20, 1000, 8 << 10);
            assert_eq!(server.finish().accepted, 21, "{poll:?}");
        }
    });
}
