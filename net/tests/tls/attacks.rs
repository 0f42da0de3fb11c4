//! Peers that do not keep to the protocol: a typed error, an alert where there is one, bounded memory, no panic.

use slipring::tls::{TlsError, Version};

use super::pki;
use super::world::{Link, deliver, pattern};

fn link(version: Version) -> Link {
    let client = pki::client().versions([version]).build().expect("a client");
    Link::new(&client, &pki::server().build().expect("a server"))
}

fn established(version: Version) -> Link {
    let mut link = link(version);
    link.carry_whole();
    link.expect_agreed();
    link
}

#[test]
fn who_does_not_speak_tls_is_found_out_by_the_first_bytes() {
    for (bytes, alert) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 10),
        (b"\x00", 10),
        (b"\xff\xff\xff", 10),
        (b"SSH-2.0-x\r\n", 10),
        (b"\x16\x02", 70),
        (b"\x16\x03\x01\xff\xff", 22),
    ] {
        for cut in [1, 1000] {
            let mut link = link(Version::Tls13);
            deliver(bytes.to_vec(), &mut link.server, &mut |_| cut);
            assert!(matches!(link.server.error, Some(TlsError::Protocol(_))), "{bytes:?}");
            assert_eq!(link.server.outgoing(), [21, 3, 3, 0, 2, 2, alert], "{bytes:?}");
        }
    }
}

#[test]
fn a_record_that_is_too_long_or_of_an_unknown_kind_ends_the_connection() {
    for version in [Version::Tls12, Version::Tls13] {
        for header in [[23, 3, 3, 0x48, 1], [99, 3, 3, 0, 1], [23, 7, 3, 0, 1]] {
            let mut link = established(version);
            deliver(header.to_vec(), &mut link.server, &mut |left| left);
            assert!(matches!(link.server.error, Some(TlsError::Protocol(_))), "{header:?}");
            // The peer is told, under the keys of the connection.
            let alert = link.server.outgoing();
            assert!(!alert.is_empty());
            deliver(alert, &mut link.client, &mut |left| left);
            assert!(
                matches!(link.client.error, Some(TlsError::Alert(_))),
                "{:?}",
                link.client.error
            );
        }
    }
}

#[test]
fn a_plaintext_record_in_an_encrypted_stream_is_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        for record in [
            &[21, 3, 3, 0, 2, 1, 0][..], // close_notify, by somebody without the keys
            &[22, 3, 3, 0, 4, 0, 0, 0, 0],
            &[20, 3, 3, 0, 1, 1],
            &[23, 3, 3, 0, 0],
        ] {
            let mut link = established(version);
            deliver(record.to_vec(), &mut link.server, &mut |left| left);
            assert!(matches!(link.server.error, Some(TlsError::Protocol(_))), "{record:?}");
            assert!(!link.server.machine.is_peer_closed(), "only the peer can say that");
        }
    }
}

/// The type outside is not sealed in TLS 1.3; in TLS 1.2 it is.
#[test]
fn a_record_that_pretends_to_be_of_another_kind_is_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        for kind in 20..=23 {
            let mut link = established(version);
            link.client.machine.seal(b"hello").expect("established");
            let mut record = link.client.outgoing();
            record[0] = kind;
            link.server.handle(&mut record);
            assert_eq!(link.server.error.is_some(), kind != 23, "{version:?}, {kind}");
            assert_eq!(link.server.received.is_empty(), kind != 23);
        }
    }
}

#[test]
fn a_record_that_is_played_again_or_left_out_is_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        let mut link = established(version);
        let records: Vec<Vec<u8>> = [b"one", b"two"]
            .map(|text| {
                link.client.machine.seal(text).expect("established");
                link.client.outgoing()
            })
            .into();
        link.server.handle(&mut records[0].clone());
        link.server.handle(&mut records[0].clone());
        assert_eq!(link.server.received, b"one");
        assert!(matches!(link.server.error, Some(TlsError::Protocol(_))));

        let mut link = established(version);
        link.client.machine.seal(b"one").expect("established");
        link.client.outgoing();
        link.client.machine.seal(b"two").expect("established");
        deliver(link.client.outgoing(), &mut link.server, &mut |left| left);
        assert!(link.server.received.is_empty());
        assert!(matches!(link.server.error, Some(TlsError::Protocol(_))));
    }
}

/// A bit is turned somewhere: in the handshake it fails on one side at least, or it hit a byte that nobody reads;
/// in the data what arrives is an honest beginning, and then an error.
#[test]
fn bytes_that_are_changed_on_their_way_are_noticed() {
    let sent = pattern(5, 30_000);
    let mut noticed = 0;
    for seed in 0..400 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let version = if dice.bool() { Version::Tls12 } else { Version::Tls13 };
        let mut link = link(version);
        let mut left = dice.usize(..6_000);
        let mut hit = false;
        for _ in 0..8 {
            if link.client.machine.agreed().is_some() && link.client.received.is_empty() {
                let _ = link.client.machine.seal(&sent);
            }
            for up in [true, false] {
                let (from, to) = match up {
                    true => (&mut link.client, &mut link.server),
                    false => (&mut link.server, &mut link.client),
                };
                let mut bytes = from.outgoing();
                if !hit && left < bytes.len() {
                    bytes[left] ^= 1 << dice.u8(..8);
                    hit = true;
                }
                left = left.saturating_sub(bytes.len());
                deliver(bytes, to, &mut |_| dice.usize(1..5_000));
            }
        }
        let received = &link.server.received;
        let beginning = &sent[..received.len().min(sent.len())];
        assert!(received.starts_with(beginning), "seed {seed}: bytes that nobody sent");
        let failed = link.client.error.is_some() || link.server.error.is_some();
        if hit && !failed {
            // A length that was made longer waits for bytes that never come: a deadline's business.
            let waits = link.server.machine.handle_end().is_err();
            assert!(waits || received.len() >= sent.len(), "seed {seed}: lost, and nobody noticed");
        }
        noticed += usize::from(failed);
    }
    assert!(noticed > 300, "only {noticed} of 400");
}

/// Random bytes that begin like records, from whoever likes to send them.
#[test]
fn nonsense_is_an_error_and_no_panic() {
    for seed in 0..500 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut link = match dice.bool() {
            true => established(Version::Tls13),
            false => link(Version::Tls13),
        };
        for _ in 0..20 {
            let length = dice.usize(..300);
            let mut bytes = vec![dice.u8(20..25), 3, dice.u8(..5), 0, length as u8];
            bytes.extend(std::iter::repeat_with(|| dice.u8(..)).take(length));
            let to = if dice.bool() { &mut link.client } else { &mut link.server };
            deliver(bytes, to, &mut |_| dice.usize(1..400));
        }
        assert!(link.client.error.is_some() || link.server.error.is_some());
    }
}

/// A message that goes on for ever, in records as small as they can be.
#[test]
fn a_handshake_without_end_is_cut_off() {
    for size in [1, 100, 16_384] {
        let mut link = link(Version::Tls13);
        // A ClientHello of 60,000 bytes is begun; rustls takes those up to 65,535.
        let mut message = vec![1, 0, 0xea, 0x60];
        message.resize(60_000, 0);
        let mut sent = 0;
        for part in message.chunks(size).cycle().take(200_000) {
            let mut record = vec![22, 3, 1, (part.len() >> 8) as u8, part.len() as u8];
            record.extend_from_slice(part);
            sent += record.len();
            link.server.handle(&mut record);
            if link.server.error.is_some() {
                break;
            }
        }
        assert!(link.server.error.is_some(), "it takes {sent} bytes");
        assert!(sent <= 110_000, "it took {sent} bytes in parts of {size}");
    }
}

/// What one byte a record costs is bounded by what its sender pays; that it works is all that is looked at here.
#[test]
fn many_tiny_records_are_taken() {
    let mut link = established(Version::Tls13);
    let sent = pattern(6, 20_000);
    for byte in sent.chunks(1) {
        link.client.machine.seal(byte).expect("established");
    }
    link.carry_whole();
    assert!(link.server.received == sent);
    assert_eq!((link.server.here, link.server.whole), (20_000, 0));
}
