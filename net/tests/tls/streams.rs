//! Bytes arrive as they were sent, however they are cut; the ends of streams are told apart.

use super::pki;
use super::world::{Cut, Link, deliver, pattern};
use slipring::tls::{TlsError, Version};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

/// Handshake, data both ways, both ends: under one way of cutting.
fn converse(version: Version, cut: Cut<'_>) -> Link {
    let client = pki::client().versions([version]).build().expect("a client");
    let server = pki::server().build().expect("a server");
    let mut link = Link::new(&client, &server);
    link.carry(cut);
    link.expect_agreed();
    assert_eq!(link.server.machine.agreed().map(|agreed| agreed.version), Some(version));
    let (up, down) = (pattern(1, 40_000), pattern(2, 70_001));
    for piece in up.chunks(9_999) {
        link.client.machine.seal(piece).expect("established");
    }
    link.server.machine.seal(&down).expect("established");
    link.carry(cut);
    link.client.machine.close();
    link.server.machine.close();
    link.carry(cut);
    assert!(link.client.received == down && link.server.received == up);
    assert!(link.client.machine.is_peer_closed() && link.server.machine.is_peer_closed());
    link.client.machine.handle_end().expect("it was announced");
    link.server.machine.handle_end().expect("it was announced");
    link
}

#[test]
fn in_one_piece_nothing_is_copied() {
    for version in VERSIONS {
        let link = converse(version, &mut |left| left);
        assert_eq!((link.client.whole, link.server.whole), (0, 0));
        assert_eq!((link.client.here, link.server.here), (5, 5));
    }
}

#[test]
fn byte_by_byte_and_in_every_small_piece() {
    for version in VERSIONS {
        for length in 1..=40 {
            converse(version, &mut |_| length);
        }
    }
}

#[test]
fn in_random_pieces() {
    for seed in 0..60 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let most = [8, 100, 3_000, 40_000][dice.usize(..4)];
        converse(VERSIONS[seed as usize % 2], &mut |_| dice.usize(1..=most));
    }
}

#[test]
fn of_a_piece_one_record_at_most_is_copied() {
    let (client, server) = (pki::client().build(), pki::server().build());
    let mut link = Link::established(&client.expect("a client"), &server.expect("a server"));
    let sent = pattern(3, 1 << 20);
    link.client.machine.seal(&sent).expect("established");
    let bytes = link.client.outgoing();
    let mut pieces = 0;
    deliver(bytes, &mut link.server, &mut |_| {
        pieces += 1;
        64 << 10
    });
    assert!(link.server.received == sent);
    assert!(link.server.whole < pieces, "{} of {pieces} pieces", link.server.whole);
    assert_eq!(link.server.whole + link.server.here, 64);
}

#[test]
fn what_is_sealed_is_little_longer_than_what_it_was() {
    for version in VERSIONS {
        let client = pki::client().versions([version]).build().expect("a client");
        let mut link = Link::established(&client, &pki::server().build().expect("a server"));
        for length in [1, 1000, 16_384, 16_385, 100_000] {
            link.client.machine.seal(&pattern(4, length)).expect("established");
            let records = length.div_ceil(16_384);
            assert!(link.client.outgoing().len() <= length + 34 * records);
        }
        link.client.machine.seal(b"").expect("established");
        assert!(!link.client.machine.has_outgoing(), "nothing is nothing");
    }
}

#[test]
fn one_direction_goes_on_after_the_other_has_ended() {
    let (client, server) = (pki::client().build(), pki::server().build());
    let mut link = Link::established(&client.expect("a client"), &server.expect("a server"));
    link.client.machine.seal(b"all I have").expect("established");
    link.client.machine.close();
    link.client.machine.close();
    link.carry_whole();
    assert!(link.server.machine.is_peer_closed() && !link.client.machine.is_peer_closed());
    assert!(matches!(link.client.machine.seal(b"more"), Err(TlsError::SentClose)));
    link.server.machine.handle_end().expect("announced");
    link.server.machine.seal(b"thank you").expect("this direction is open");
    link.server.machine.close();
    link.carry_whole();
    assert_eq!(link.client.received, b"thank you");
    link.client.machine.handle_end().expect("announced");
}

#[test]
fn what_comes_after_a_close_notify_is_not_looked_at() {
    let (client, server) = (pki::client().build(), pki::server().build());
    let mut link = Link::established(&client.expect("a client"), &server.expect("a server"));
    link.client.machine.close();
    let mut bytes = link.client.outgoing();
    bytes.extend_from_slice(b"\xff\xff this is no TLS");
    deliver(bytes, &mut link.server, &mut |left| left);
    deliver(b"nor is this".to_vec(), &mut link.server, &mut |_| 1);
    assert!(link.server.machine.is_peer_closed() && link.server.error.is_none());
    assert!(link.server.received.is_empty());
}

#[test]
fn a_stream_that_ends_unannounced_was_cut_off() {
    for version in VERSIONS {
        let client = pki::client().versions([version]).build().expect("a client");
        let server = pki::server().build().expect("a server");
        let mut link = Link::established(&client, &server);
        link.client.machine.seal(b"some").expect("established");
        link.client.machine.seal(b"thing").expect("established");
        let mut bytes = link.client.outgoing();
        bytes.truncate(bytes.len() - 1);
        deliver(bytes, &mut link.server, &mut |left| left);
        assert_eq!(link.server.received, b"some");
        assert!(matches!(link.server.machine.handle_end(), Err(TlsError::Truncated)));
        assert!(matches!(link.server.machine.handle_end(), Err(TlsError::Truncated)), "for good");
        assert!(matches!(link.server.machine.seal(b"x"), Err(TlsError::Truncated)));
    }
}

#[test]
fn a_handshake_that_ends_unannounced_is_told_apart() {
    let (client, server) = (pki::client().build(), pki::server().build());
    let (client, server) = (client.expect("a client"), server.expect("a server"));
    let hello = Link::new(&client, &server).client.outgoing();
    for length in [0, 1, 5, 100, hello.len()] {
        let mut link = Link::new(&client, &server);
        deliver(hello[..length].to_vec(), &mut link.server, &mut |left| left);
        let error = link.server.machine.handle_end().expect_err("it had hardly begun");
        assert!(matches!(error, TlsError::EndedInHandshake) && error.is_truncation());
    }
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_done() {
    let (client, server) = (pki::client().build(), pki::server().build());
    let mut link = Link::new(&client.expect("a client"), &server.expect("a server"));
    assert!(matches!(link.client.machine.seal(b"early"), Err(TlsError::Protocol(_))));
    link.client.machine.close();
    assert!(!link.client.machine.is_closed(), "there is no way to say so yet");
    link.carry_whole();
    link.expect_agreed();
    link.client.machine.seal(b"in time").expect("established");
    link.carry_whole();
    assert_eq!(link.server.received, b"in time");
}

/// A machine that is dropped at any point has nothing that anybody waits for.
#[test]
fn a_machine_can_be_left_at_any_point() {
    let (client, server) = (pki::client().build(), pki::server().build());
    let (client, server) = (client.expect("a client"), server.expect("a server"));
    for steps in 0..400 {
        let mut link = Link::new(&client, &server);
        let mut left = steps;
        let mut bytes = link.client.outgoing();
        while left > 0 && !bytes.is_empty() {
            let taken = left.min(bytes.len()).min(7);
            let mut piece: Vec<u8> = bytes.drain(..taken).collect();
            link.server.handle(&mut piece);
            left -= 1;
        }
        drop(link);
    }
    Link::established(&client, &server);
}
