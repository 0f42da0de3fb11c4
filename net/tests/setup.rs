//! What cannot run is refused at its start, with a cause and a remedy; what was started and stopped leaves
//! nothing behind, neither descriptors nor signals.

mod support;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};

use slipring::{Builder, Limits, Listen, Runtime, SetupError};
use support::{
    Echo, Server, alone, bounded, connect, cores, descriptors, eventually, listener, loopback, ms,
    one_reactor, ping, two_reactors,
};

#[track_caller]
fn refused(builder: Builder) -> SetupError {
    let error = builder.start(|_| Echo).expect_err("it must not start");
    let line = error.to_string();
    assert!(!line.contains('\n'), "more than a line: {line}");
    assert!(line.contains("; "), "a cause without a remedy: {line}");
    error
}

#[test]
fn a_taken_port() {
    bounded(|| {
        let _alone = alone();
        let (_listener, address) = listener();
        let sharing = Server::start(two_reactors(), |_| Echo);
        for taken in [address, sharing.address] {
            for builder in [one_reactor(), two_reactors()] {
                let error = refused(builder.listen(taken));
                let named =
                    matches!(&error, SetupError::PortTaken { address } if *address == taken);
                assert!(named, "{error:?}");
                let text = error.to_string();
                assert!(text.contains(&taken.to_string()), "{text}");
                assert!(text.contains("choose another port"), "{text}");
            }
        }
        // The refused ones took nothing from those that serve.
        ping(&connect(sharing.address), b"still here");
        sharing.finish();
    });
}

#[test]
fn a_port_is_free_again_after_the_end() {
    bounded(|| {
        let _alone = alone();
        let mut address = loopback();
        for _ in 0..5 {
            let builder = Runtime::builder().cores([cores()[0]]).max_connections(16);
            let server = Server::start(builder.listen(address), |_| Echo);
            address = server.address;
            ping(&connect(address), b"hello");
            server.wait_until_over(1);
            server.finish();
        }
    });
}

#[test]
fn an_address_of_somebody_else() {
    bounded(|| {
        let _alone = alone();
        // Kept for documentation: no host has it.
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = refused(one_reactor().listen(foreign));
        assert!(matches!(&error, SetupError::Listen { address, .. } if *address == foreign));
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    });
}

#[test]
fn limits_that_make_no_sense() {
    bounded(|| {
        let _alone = alone();
        let good = Limits { accepted_max: 64, ..Limits::default() };
        for (limits, word) in [
            (Limits { accepted_max: 0, ..good }, "0 connections"),
            (Limits { buffers: 3, ..good }, "power of two"),
            (Limits { submissions: 1, ..good }, "submission queue"),
            (Limits { outbox_low_bytes: 1 << 20, ..good }, "watermarks"),
        ] {
            let error = refused(one_reactor().limits(limits));
            assert!(matches!(error, SetupError::Config { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
        }
        let error = refused(one_reactor().cores([]));
        assert!(error.to_string().contains("no core"), "{error}");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let error = refused(one_reactor().listen_with(any, Listen::new().max_connections(0)));
        assert!(error.to_string().contains("listener that may hold no connection"), "{error}");
        let error = refused(Runtime::builder());
        assert!(error.to_string().contains("neither"), "{error}");
    });
}

#[test]
fn a_limit_that_cannot_fit() {
    bounded(|| {
        let _alone = alone();
        let limits = std::fs::read_to_string("/proc/self/limits").expect("procfs");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        let hard = line.split_whitespace().nth(4).and_then(|text| text.parse::<u64>().ok());
        // Where it is unlimited, or beyond what fits a slab, nothing of this can be refused.
        let Some(hard) = hard.filter(|&hard| hard < 1_000_000) else { return };
        let error = refused(one_reactor().max_connections(hard as u32));
        let SetupError::LimitTooLow { available, needed, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(available, hard);
        assert!(needed > hard);
        let text = error.to_string();
        for word in ["RLIMIT_NOFILE", "ulimit", "--max-connections"] {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    });
}

#[test]
fn a_core_that_is_not_ours() {
    bounded(|| {
        let _alone = alone();
        let ours = cores();
        let foreign = (0..).find(|core| !ours.contains(core)).expect("cores end somewhere");
        let error = refused_core(foreign);
        assert!(matches!(error, SetupError::Core { core, .. } if core == foreign), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&foreign.to_string()), "{text}");
        assert!(text.contains(&ours[0].to_string()), "it does not say which are: {text}");
    });
}

fn refused_core(core: usize) -> SetupError {
    one_reactor().cores([core]).start(|_| Echo).expect_err("it must not start")
}

#[test]
fn fifty_starts_and_stops_leave_no_descriptor() {
    bounded(|| {
        let _alone = alone();
        let round = |n: usize| {
            let builder = if n.is_multiple_of(2) { one_reactor() } else { two_reactors() };
            let server = Server::start(builder.drain_deadline(ms(200)), |_| Echo);
            let clients = [connect(server.address), connect(server.address)];
            clients.iter().for_each(|client| ping(client, b"hello"));
            // Ended by the client, by the drain, or by an abort.
            match n % 3 {
                0 => drop(clients),
                1 => drop(server.finish()),
                _ => {
                    server.handle.abort();
                    server.join();
                }
            }
        };
        // What is made once and kept is made now.
        round(0);
        let quiet = || {
            let mut last = 0;
            eventually("descriptors settle", || {
                std::mem::replace(&mut last, descriptors()) == last
            });
            last
        };
        let before = quiet();
        (0..50).for_each(round);
        eventually("no descriptor is left behind", || descriptors() <= before);
    });
}

#[test]
fn a_refused_start_leaves_no_descriptor() {
    bounded(|| {
        let _alone = alone();
        let (_listener, taken) = listener();
        let before = descriptors();
        for _ in 0..20 {
            refused(two_reactors().listen(loopback()).listen(taken));
        }
        eventually("no descriptor is left behind", || descriptors() <= before);
    });
}

/// One of two reactors has no handler: neither runs, and the port is free before the error is told.
#[test]
fn a_handler_that_cannot_be_made() {
    bounded(|| {
        let _alone = alone();
        let (listener, address) = listener();
        drop(listener);
        let before = descriptors();
        for _ in 0..5 {
            let make = |reactor: usize| {
                assert!(reactor != 1, "no table\nfor {reactor}");
                Echo
            };
            let error = two_reactors().listen(address).start(make).expect_err("it must not start");
            assert!(matches!(error, SetupError::Handler { reactor: 1, .. }), "{error:?}");
            let line = error.to_string();
            assert!(line.contains("reactor 1") && line.contains("no table for 1"), "{line}");
            assert!(!line.contains('\n') && line.contains("; "), "{line}");
            TcpListener::bind(address).expect("nobody listens there any more");
        }
        eventually("no descriptor is left behind", || descriptors() <= before);
    });
}

/// The kernel takes a ring apart after its close, and signals the thread that made it: not the caller's.
#[test]
fn a_start_leaves_the_callers_thread_alone() {
    bounded(|| {
        let _alone = alone();
        let (listener, address) = listener();
        let client = connect(address);
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(ms(50))).expect("an open socket");
        let mut interrupted = 0;
        for _ in 0..20 {
            let server = Server::start(one_reactor(), |_| Echo);
            let waited = stream.read(&mut [0]).expect_err("nothing comes");
            interrupted += u32::from(waited.kind() == ErrorKind::Interrupted);
            server.finish();
        }
        // A host that stops its guests for a moment interrupts one too; a ring of this thread, every fourth.
        assert!(interrupted < 3, "{interrupted} of 20 waits were interrupted");
        drop(client);
    });
}

/// Only reactors listen, and only as long as they run.
#[test]
fn the_address_can_be_taken_after_the_end() {
    bounded(|| {
        let _alone = alone();
        let server = Server::start(two_reactors(), |_| Echo);
        let address = server.address;
        server.finish();
        TcpListener::bind(address).expect("nobody listens there any more");
    });
}
