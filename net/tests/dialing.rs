//! Dials that are told more than an address: where to come from, how long to take.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use slipring::{Conn, Dial, DialError, DialRefused, Fault, Timeout, dial_with};
use support::{BlackHole, PATIENCE, assert_kept, bounded, end, ms, now, one_reactor, serve};

/// What became of a dial, made by a task of a runtime that serves nobody.
fn outcome(dial: Dial) -> Result<Option<SocketAddr>, DialError> {
    let serving = serve(one_reactor().max_dialed(4), async |_conn: Conn| {});
    let (tell, told) = mpsc::channel();
    let running = serving.spawner().spawn(move || async move {
        let dialed = dial_with(dial).await;
        tell.send(dialed.map(|conn| conn.local())).expect("the test waits");
    });
    let outcome = told.recv_timeout(PATIENCE).expect("told");
    drop(running);
    end(serving);
    outcome
}

#[test]
fn it_comes_from_the_address_it_was_told() {
    bounded(|| {
        let (listener, address) = support::listener();
        for from in [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 9, 9, 9)] {
            let from = IpAddr::from(from);
            let local = outcome(Dial::to(address).from_address(from)).expect("it listens");
            assert_eq!(local.map(|local| local.ip()), Some(from));
            let peer = support::accept(&listener).peer_addr();
            assert_eq!(peer.ok(), local, "who accepts sees the same");
        }
    });
}

#[test]
fn an_address_that_cannot_be_come_from_is_an_error_of_the_dial() {
    bounded(|| {
        let (_listener, address) = support::listener();
        let foreign = IpAddr::from([192, 0, 2, 1]);
        let error = outcome(Dial::to(address).from_address(foreign)).expect_err("not ours");
        assert_eq!(error, DialError::Failed(Fault::AddressUnavailable));
        let other = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]);
        let error = outcome(Dial::to(address).from_address(other)).expect_err("IPv6");
        let expected = DialRefused::Families { to: address, from: other };
        assert_eq!(error, DialError::NotBegun(expected));
        let text = error.to_string();
        assert!(text.contains("IPv6") && text.contains("; choose"), "{text}");
    });
}

#[test]
fn a_timeout_of_its_own_counts_instead_of_the_runtime_s() {
    bounded(|| {
        let black_hole = BlackHole::new();
        let begun = now();
        let dial = Dial::to(black_hole.address).within(Timeout::After(ms(200)));
        assert_eq!(outcome(dial).expect_err("nobody answers"), DialError::Timeout);
        assert_kept("the dial's own timeout", begun.elapsed(), ms(200));
    });
}
