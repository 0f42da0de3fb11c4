//! What takes longer than a test may: keys that are used up.

use super::*;
use crate::tls::handshake::Handshake;
use crate::tls::{Identity, TlsClient, TlsServer, Version};

/// Client and server, after a handshake.
fn pair(version: Version) -> [Records; 2] {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("a pair");
    let server = TlsServer::builder().identity(identity).build().expect("a server");
    let client = TlsClient::builder().roots_pem(certificate.as_bytes()).versions([version]);
    let client = client.build().expect("a client");
    let mut sides = [
        Handshake::client(&client, "localhost").expect("a name"),
        Handshake::server(&server).expect("a server"),
    ];
    let mut flights = [Vec::new(), Vec::new()];
    let mut done = [false; 2];
    done[0] = sides[0].handle_record(&[], &mut flights[0]).expect("a hello");
    let mut after = Vec::new();
    while done != [true, true] {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut bytes = std::mem::take(&mut flights[from]);
            while !bytes.is_empty() {
                let length = HEADER + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
                let rest = bytes.split_off(length);
                let record = std::mem::replace(&mut bytes, rest);
                if done[to] {
                    after.push(record); // tickets
                } else {
                    done[to] = sides[to].handle_record(&record, &mut flights[to]).expect("honest");
                }
            }
        }
    }
    let [client, server] = sides;
    let mut client = client.finish().expect("done").1;
    let server = server.finish().expect("done").1;
    after.extend(std::iter::once(flights[1].clone()).filter(|flight| !flight.is_empty()));
    for mut bytes in after {
        while !bytes.is_empty() {
            let length = HEADER + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
            let rest = bytes.split_off(length);
            assert_eq!(open(&mut client, vec![bytes]), b"");
            bytes = rest;
        }
    }
    [client, server]
}

/// Opens records, which have to be good; the data in them.
fn open(records: &mut Records, sealed: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut data = Vec::new();
    for mut record in sealed {
        match records.open(&mut record, &mut VecDeque::new()) {
            Ok(Opened::Data(range)) => data.extend_from_slice(&record[range]),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    data
}

#[test]
fn before_a_key_is_used_up_the_next_one_is_taken() {
    let [mut client, mut server] = pair(Version::Tls13);
    let mut outgoing = VecDeque::new();
    for round in 0..20_u8 {
        client.sealer.limit = 3;
        client.seal(&[round; 10], &mut outgoing).expect("TLS 1.3 goes on for ever");
        assert!(client.sealer.number <= 3, "more than the key may seal");
        assert_eq!(open(&mut server, outgoing.drain(..)), [round; 10]);
        server.seal(&[round], &mut outgoing).expect("established");
        assert_eq!(open(&mut client, outgoing.drain(..)), [round]);
    }
}

#[test]
fn tls_1_2_ends_when_its_key_is_used_up_and_can_still_say_so() {
    let [mut client, mut server] = pair(Version::Tls12);
    let mut outgoing = VecDeque::new();
    client.sealer.limit = client.sealer.number + 2;
    for _ in 0..2 {
        client.seal(b"x", &mut outgoing).expect("two are left");
    }
    assert!(matches!(client.seal(b"x", &mut outgoing), Err(TlsError::KeysUsedUp)));
    assert_eq!(open(&mut server, outgoing.drain(..)), b"xx");
    client.close(&mut outgoing);
    let mut close = outgoing.pop_front().expect("a close_notify");
    assert!(matches!(server.open(&mut close, &mut outgoing), Ok(Opened::Closed)));
}

#[test]
fn what_tls_1_2_has_no_numbers_for_is_not_begun() {
    let [mut client, mut server] = pair(Version::Tls12);
    let mut outgoing = VecDeque::new();
    client.sealer.limit = client.sealer.number + 2;
    let outcome = client.seal(&[7; 2 * PLAIN_MAX + 1], &mut outgoing);
    assert!(matches!(outcome, Err(TlsError::KeysUsedUp)));
    assert!(outgoing.is_empty(), "{} of its records go out", outgoing.len());
    client.seal(&[7; 2 * PLAIN_MAX], &mut outgoing).expect("two are left");
    assert_eq!(open(&mut server, outgoing), [7; 2 * PLAIN_MAX]);
}

#[test]
fn every_suite_has_a_limit_that_the_numbers_reach_never() {
    for version in [Version::Tls12, Version::Tls13] {
        for records in pair(version) {
            assert!((1 << 23..=NUMBER_MAX).contains(&records.sealer.limit));
        }
    }
}

/// Messages as a peer with the keys could send them, and may not.
#[test]
fn messages_that_have_no_place_after_the_handshake_are_refused() {
    let cases: [(Version, ContentType, &[u8]); 9] = [
        (Version::Tls13, ContentType::Handshake, &[24, 0, 0, 1, 2]),
        (Version::Tls13, ContentType::Handshake, &[24, 0, 0, 2, 0, 0]),
        (Version::Tls13, ContentType::Handshake, &[24, 0, 0, 1, 0, 24]),
        (Version::Tls13, ContentType::Handshake, &[1, 0, 0, 0]),
        (Version::Tls13, ContentType::Handshake, &[4, 0, 0, 0]),
        (Version::Tls13, ContentType::Handshake, &[4, 1, 0, 0]),
        (Version::Tls13, ContentType::Alert, &[1]),
        (Version::Tls13, ContentType::Alert, &[3, 0]),
        (Version::Tls12, ContentType::Handshake, &[20, 0, 0, 0]),
    ];
    for (version, typ, message) in cases {
        let [mut client, mut server] = pair(version);
        let mut outgoing = VecDeque::new();
        let mut record = client.sealer.seal(typ, message).expect("it can be sealed");
        let error = server.open(&mut record, &mut outgoing).expect_err("no place for it");
        assert!(matches!(error, TlsError::Protocol(_)), "{message:?}: {error:?}");
        let mut alert = outgoing.pop_front().expect("the peer is told");
        assert!(matches!(client.open(&mut alert, &mut outgoing), Err(TlsError::Alert(_))));
    }
}

/// By type and length: nothing is kept of what will not be taken.
#[test]
fn a_message_is_judged_by_its_first_four_bytes() {
    // To the client, to the server.
    let cases: [(Version, usize, &[u8]); 9] = [
        (Version::Tls13, 1, &[4, 0, 0xff, 0]),
        (Version::Tls13, 1, &[1, 0, 1, 0]),
        (Version::Tls13, 1, &[24, 0, 0xff, 0]),
        (Version::Tls13, 0, &[24, 0, 0, 2]),
        (Version::Tls13, 0, &[4, 1, 0, 1]),
        (Version::Tls12, 1, &[20, 0, 0, 12]),
        (Version::Tls12, 1, &[1, 0, 0xff, 0]),
        (Version::Tls12, 0, &[0, 0, 0, 1]),
        (Version::Tls12, 0, &[4, 0, 1, 0]),
    ];
    for (version, to, head) in cases {
        let mut sides = pair(version);
        let mut record = sides[1 - to].sealer.seal(ContentType::Handshake, head).expect("sealed");
        let outcome = sides[to].open(&mut record, &mut VecDeque::new());
        assert!(outcome.is_err(), "{version:?}, to side {to}: {head:?} is waited for");
    }
}

#[test]
fn a_message_is_not_interrupted_by_data() {
    let [mut client, mut server] = pair(Version::Tls13);
    let mut first = client.sealer.seal(ContentType::Handshake, &KEY_UPDATE[..3]).expect("sealed");
    assert_eq!(
        server.open(&mut first, &mut VecDeque::new()).expect("a beginning"),
        Opened::Nothing
    );
    let mut data = client.sealer.seal(ContentType::ApplicationData, b"x").expect("sealed");
    assert!(matches!(server.open(&mut data, &mut VecDeque::new()), Err(TlsError::Protocol(_))));
}

#[test]
fn a_message_in_pieces_is_put_together() {
    let [mut client, mut server] = pair(Version::Tls13);
    let mut outgoing = VecDeque::new();
    for piece in KEY_UPDATE.chunks(2) {
        outgoing.push_back(client.sealer.seal(ContentType::Handshake, piece).expect("sealed"));
    }
    client.sealer =
        Sealer::new(client.suite, client.kernel.next_seal().expect("keys")).expect("keys");
    client.seal(b"under the next key", &mut outgoing).expect("established");
    assert_eq!(open(&mut server, outgoing), b"under the next key");
}

#[test]
fn to_renegotiate_is_turned_down_once_and_then_fatal() {
    for asks in [0, 1] {
        let mut sides = pair(Version::Tls12);
        // A client asks by a ClientHello, a server by a HelloRequest.
        let message = [[1, 0, 0, 0], [0, 0, 0, 0]][asks];
        for round in 0..2 {
            let mut record =
                sides[asks].sealer.seal(ContentType::Handshake, &message).expect("sealed");
            let mut outgoing = VecDeque::new();
            let outcome = sides[1 - asks].open(&mut record, &mut outgoing);
            assert_eq!((outcome.is_err(), outgoing.len()), (round == 1, 1));
            let told = sides[asks].open(&mut outgoing[0], &mut VecDeque::new());
            assert_eq!(told.is_err(), round == 1, "a warning, then the end");
        }
    }
}

/// Warnings and empty messages without end: refused. Empty data costs a peer as much as us, and is taken.
#[test]
fn chatter_ends_and_empty_data_does_not_matter() {
    let [mut client, mut server] = pair(Version::Tls12);
    for _ in 0..1000 {
        let mut empty = client.sealer.seal(ContentType::ApplicationData, b"").expect("sealed");
        assert_eq!(server.open(&mut empty, &mut VecDeque::new()).expect("taken"), Opened::Nothing);
    }
    let warning = [WARNING, AlertDescription::UserCanceled.into()];
    for round in 0..=CHATTER_MAX {
        let mut record = client.sealer.seal(ContentType::Alert, &warning).expect("sealed");
        let outcome = server.open(&mut record, &mut VecDeque::new());
        assert_eq!(outcome.is_err(), round == CHATTER_MAX);
    }
}

/// However often it is asked for: one answer, in front of the next data, under the old key.
#[test]
fn a_key_that_was_asked_for_is_given_with_the_next_data() {
    let [mut client, mut server] = pair(Version::Tls13);
    for _ in 0..3 {
        let mut outgoing = VecDeque::new();
        for _ in 0..2 {
            let ask = [24, 0, 0, 1, 1];
            outgoing.push_back(client.sealer.seal(ContentType::Handshake, &ask).expect("sealed"));
            let next = client.kernel.next_seal().expect("keys");
            client.sealer = Sealer::new(client.suite, next).expect("keys");
        }
        assert_eq!(open(&mut server, outgoing.drain(..)), b"");
        server.seal(b"first", &mut outgoing).expect("established");
        assert_eq!(outgoing.len(), 2, "the answer and the data");
        server.seal(b"second", &mut outgoing).expect("established");
        assert_eq!((outgoing.len(), server.sealer.number), (3, 2), "a new key, used twice");
        assert_eq!(open(&mut client, outgoing.drain(..)), b"firstsecond");
    }
}
