//! How a connection comes about over plain TCP, and why it does not.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use slipring::Fault;
use slipring::failure::{Admit, Dial, Kind, Phase, Resource, Side};
use slipring::proxy_protocol::Version;

use super::*;
use crate::support::{self, BlackHole, assert_kept, bounded, ms, now};

#[test]
fn a_refusal_is_the_peer_s() {
    bounded(|| {
        let (_socket, address) = support::refusing();
        let error = refused(Connector::default(), address);
        assert!(matches!(error.kind(), Kind::Dial(Dial::Refused)), "{error}");
        assert_eq!((error.phase(), error.side()), (Phase::Dial, Side::Upstream));
        assert_eq!(error.fault(), Some(Fault::Refused));
        assert!(error.counts_for_breaker());
    });
}

#[test]
fn an_attempt_ends_with_its_limit_and_says_which() {
    bounded(|| {
        let black_hole = BlackHole::new();
        let limits = ConnectLimits { attempt: ms(700), ..ConnectLimits::default() };
        let begun = now();
        let error = refused(with_limits(limits), black_hole.address);
        assert_kept("the attempt", begun.elapsed(), ms(700));
        assert!(matches!(error.kind(), Kind::Dial(Dial::Timeout)), "{error}");
        assert_eq!((error.phase(), error.fault()), (Phase::Dial, None));
        assert_kept("the attempt", error.elapsed(), ms(700));
        assert!(beneath(&error).contains("an attempt has 700ms"), "{}", beneath(&error));

        let error = refused(with_limits(within(ms(200))), black_hole.address);
        assert_eq!((error.label(), error.phase()), ("connect_timeout", Phase::Dial));
        assert_kept("the whole", error.elapsed(), ms(200));
        assert!(beneath(&error).contains("together has 200ms"), "{}", beneath(&error));
    });
}

#[test]
fn our_own_limit_is_ours() {
    bounded(|| {
        let (_listener, address) = support::listener();
        let dialer = Dialer::of(1);
        let error = dialer.run(move || async move {
            let _first = connected(address).await;
            Connector::default().connect(address, &About::default()).await.err()
        });
        let error = error.expect("only one");
        assert!(matches!(error.kind(), Kind::Admit(Admit::ProcessLimit)), "{error}");
        assert_eq!((error.side(), error.endpoint()), (Side::Local, Some(address)));
        assert!(beneath(&error).contains("limit 1"), "{}", beneath(&error));
        assert!(!error.counts_for_breaker());
        dialer.end();
    });
}

#[test]
fn an_ipv4_address_written_as_ipv6_is_dialed_as_what_it_is() {
    bounded(|| {
        let (address, upstream) = peer(|stream| stream);
        let mapped =
            SocketAddr::new(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), address.port());
        let connector = Connector::builder().sources([[127, 0, 0, 2].into()]).build();
        let connector = connector.expect("a source");
        run(move || async move {
            let stream = connector.connect(mapped, &About::default()).await.expect("it listens");
            assert_eq!(stream.peer(), mapped, "as it was given");
            assert_eq!(stream.local().map(|at| at.ip()), Some([127, 0, 0, 2].into()));
        });
        drop(upstream.join());
    });
}

// ------------------------------------------------------------------------------- source addresses

/// The sources from which a connector with these comes, one after the other.
fn come_from(sources: &[IpAddr], times: usize) -> Vec<IpAddr> {
    let (listener, address) = support::listener();
    let connector = Connector::builder().sources(sources.iter().copied()).build();
    let connector = connector.expect("sources");
    let seen = run(move || async move {
        let mut seen = Vec::new();
        for _ in 0..times {
            let stream = connector.connect(address, &About::default()).await.expect("it listens");
            seen.extend(stream.local().map(|local| local.ip()));
        }
        seen
    });
    for ip in &seen {
        let peer = support::accept(&listener).peer_addr().expect("connected");
        assert_eq!(peer.ip(), *ip, "who accepts sees the same");
    }
    seen
}

#[test]
fn sources_take_turns_and_those_of_the_other_family_are_left_out() {
    bounded(|| {
        let [two, three] = [2, 3].map(|last| IpAddr::from([127, 0, 0, last]));
        let other = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(come_from(&[two, other, three], 5), [two, three, two, three, two]);
    });
}

#[test]
fn a_source_that_cannot_be_come_from_is_followed_by_the_next() {
    bounded(|| {
        let (foreign, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(come_from(&[foreign, two, foreign], 4), [two; 4]);
        // Nobody is left: then it says so, and whom it tried.
        let (_listener, address) = support::listener();
        let connector = Connector::builder().sources([foreign]).build().expect("a source");
        let error = refused(connector, address);
        assert!(matches!(error.kind(), Kind::Resource(Resource::EphemeralPorts)), "{error}");
        assert_eq!(error.fault(), Some(Fault::AddressUnavailable));
        assert!(beneath(&error).contains("192.0.2.1"), "{}", beneath(&error));
        assert!(!error.counts_for_breaker());

        let v6 = Connector::builder().sources([Ipv6Addr::LOCALHOST.into()]).build();
        let error = refused(v6.expect("a source"), address);
        assert!(matches!(error.kind(), Kind::Dial(Dial::NoSource)), "{error}");
        assert_eq!(error.side(), Side::Local);
        assert!(beneath(&error).contains("IPv6"), "{}", beneath(&error));
    });
}

// ------------------------------------------------------------------------------------ PROXY header

/// What comes of a connector with a header, when it sends `hello` behind.
fn heard(version: Version, about: About) -> Vec<u8> {
    let (address, upstream) = peer(|mut stream| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut bytes).expect("to the end");
        bytes
    });
    let connector = Connector::builder().proxy_header(version).build().expect("a header");
    run(move || async move {
        let mut stream = connector.connect(address, &about).await.expect("it listens");
        assert_eq!(stream.traffic().bytes_sent, 0, "the header is no part of a request");
        stream.send("hello").await.expect("open");
        stream.shutdown().await.expect("open");
        stream.closed().await;
    });
    upstream.join().expect("the peer")
}

#[test]
fn a_header_stands_in_front_of_everything() {
    bounded(|| {
        let about = About::client(
            "192.0.2.7:40000".parse().expect("an address"),
            "198.51.100.1:443".parse().expect("an address"),
        );
        assert_eq!(
            String::from_utf8_lossy(&heard(Version::V1, about)),
            "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\nhello"
        );
        assert_eq!(heard(Version::V1, About::default()), b"PROXY UNKNOWN\r\nhello");
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend([192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x01, 0xbb]);
        expected.extend(b"hello");
        assert_eq!(heard(Version::V2, about), expected);
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
        expected.extend(b"hello");
        assert_eq!(heard(Version::V2, About::default()), expected);
    });
}

#[test]
fn it_is_about_the_client_of_a_connection() {
    bounded(|| {
        let (address, upstream) = peer(|stream| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut &stream, &mut bytes).expect("to the end");
            String::from_utf8(bytes).expect("text")
        });
        let builder = Connector::builder().proxy_header(Version::V1);
        let connector = builder.build().expect("a header");
        let serving = serve(one_reactor().max_dialed(4), move |conn: Conn| {
            let connector = connector.clone();
            async move {
                let about = About::peer_of(&conn);
                connector.connect(address, &about).await.expect("it listens");
            }
        });
        let mut client = support::connect(serving.addresses()[0]);
        client.write_all(b"x").expect("sent");
        let [ours, theirs] = [client.local_addr(), client.peer_addr()].map(|at| at.expect("open"));
        assert_eq!(
            upstream.join().expect("the peer"),
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", ours.port(), theirs.port())
        );
        drop(client);
        end(serving);
    });
}

// ------------------------------------------------------------------------------------- given up

#[test]
fn a_future_that_is_dropped_leaves_no_connection() {
    bounded(|| {
        let black_hole = BlackHole::new();
        let address = black_hole.address;
        let dialer = Dialer::new();
        dialer.run(move || async move {
            let connector = with_limits(patient());
            let about = About::default();
            for _ in 0..3 {
                let connecting = connector.connect(address, &about);
                assert!(slipring::timeout(ms(30), connecting).await.is_err(), "nobody answers");
            }
        });
        dialer.wait_until_left(0);
        dialer.end();
    });
}

#[test]
fn connectors_cross_threads() {
    fn crosses<T: Send + Sync + Clone>(_: &T) {}
    crosses(&Connector::default());
}

#[test]
fn a_drain_that_has_no_more_time_gives_it_up() {
    bounded(|| {
        let black_hole = BlackHole::new();
        let address = black_hole.address;
        let dialer = Dialer::built(one_reactor().max_dialed(4).drain_deadline(ms(200)));
        let (tell, told) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let _running = dialer.serving.spawner().spawn(move || async move {
            begun.send(()).expect("the test waits");
            let connector = with_limits(patient());
            let connected = connector.connect(address, &About::default()).await;
            tell.send(connected.err()).expect("the test waits");
        });
        has_begun.recv_timeout(PATIENCE).expect("it begins");
        dialer.serving.handle().drain();
        let error = told.recv_timeout(PATIENCE).expect("told").expect("nobody answers");
        assert!(matches!(error.kind(), Kind::Dial(Dial::GivenUp(_))), "{error}");
        assert_eq!((error.side(), error.counts_for_breaker()), (Side::Local, false));
        dialer.end();
    });
}
