//! Several addresses at once: who wins, how soon, and what is said when nobody does.

use std::net::IpAddr;

use slipring::connector::{Attempts, Passed};
use slipring::failure::Phase;
use slipring::policy::names::Target;
use slipring::policy::race::RaceLimits;
use slipring::proxy_protocol::Version;

use super::*;
use crate::support::{self, BlackHole, assert_kept, bounded, ms, refusing_at};

/// Who begins the next so late that it shows.
fn hesitant() -> Connector {
    let race = RaceLimits { delay: ms(2_000), ..RaceLimits::default() };
    with_limits(ConnectLimits { race, ..patient() })
}

fn v6_loopback() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1_u16], 0))
}

fn targets(addresses: &[SocketAddr]) -> Vec<Target> {
    addresses.iter().copied().map(Target::new).collect()
}

/// Who wins, and after how long. Of all connections that were begun only that one is left then.
fn winner(connector: Connector, addresses: &[SocketAddr]) -> (SocketAddr, Duration) {
    let targets = targets(addresses);
    let dialer = Dialer::new();
    let (won, release) = {
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let won = dialer.serving.spawner().spawn(move || async move {
            let begun = slipring::now();
            let raced = connector.race(&targets, &About::default()).await;
            let stream = raced.expect("somebody answers");
            let _ = tell.send((stream.peer(), slipring::now() - begun));
            let _ = slipring::unblock(move || released.recv()).await;
        });
        (told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{:?}", won.join())), release)
    };
    dialer.wait_until_left(1);
    drop(release);
    dialer.wait_until_left(0);
    dialer.end();
    won
}

/// The error of a race without a winner.
fn lost(connector: Connector, addresses: &[SocketAddr]) -> Error {
    let targets = targets(addresses);
    let dialer = Dialer::new();
    let raced =
        dialer.run(move || async move { connector.race(&targets, &About::default()).await.err() });
    dialer.wait_until_left(0);
    dialer.end();
    raced.expect("nobody answers")
}

#[test]
fn ipv6_is_first_if_it_answers() {
    bounded(|| {
        let (_v4, v4) = support::listener();
        let v6 = TcpListener::bind(v6_loopback()).expect("this host has IPv6");
        let address = v6.local_addr().expect("bound");
        let (won, took) = winner(hesitant(), &[v4, address]);
        assert_eq!(won, address);
        assert!(took < ms(1_500), "{took:?}");
    });
}

#[test]
fn who_answers_wins_over_who_is_silent_after_the_delay() {
    bounded(|| {
        let black_hole = BlackHole::v6();
        let (_listener, live) = support::listener();
        let (won, took) = winner(with_limits(patient()), &[live, black_hole.address]);
        assert_eq!(won, live);
        assert_kept("the delay", took, ms(250));
        // Of one family too, in the order given.
        let black_hole = BlackHole::new();
        let (won, took) = winner(with_limits(patient()), &[black_hole.address, live]);
        assert_eq!(won, live);
        assert_kept("the delay", took, ms(250));
    });
}

#[test]
fn a_refusal_begins_the_next_at_once() {
    bounded(|| {
        let (_socket, dead) = refusing_at(v6_loopback());
        let (_other, dead_too) = support::refusing();
        let (_listener, live) = support::listener();
        let (won, took) = winner(hesitant(), &[dead_too, live, dead]);
        assert_eq!(won, live);
        assert!(took < ms(1_500), "{took:?}");
    });
}

#[test]
fn when_all_are_refused_it_says_so_of_each() {
    bounded(|| {
        let (_one, one) = support::refusing();
        let (_two, two) = support::refusing();
        let (_three, three) = refusing_at(v6_loopback());
        let error = lost(Connector::default(), &[one, two, three]);
        assert_eq!((error.label(), error.phase()), ("refused", Phase::Dial));
        assert_eq!(error.endpoint(), Some(two), "the last of them");
        let attempts = error.source().and_then(|source| source.downcast_ref::<Attempts>());
        let others = attempts.expect("there are others").others();
        let endpoints: Vec<_> = others.iter().filter_map(Error::endpoint).collect();
        assert_eq!(endpoints, [three, one]);
        for address in [one, three] {
            assert!(beneath(&error).contains(&address.to_string()), "{}", beneath(&error));
        }
    });
}

#[test]
fn who_refuses_says_more_than_who_is_silent() {
    bounded(|| {
        let (_socket, dead) = support::refusing();
        let black_hole = BlackHole::new();
        let limits = ConnectLimits { attempt: ms(300), ..ConnectLimits::default() };
        let error = lost(with_limits(limits), &[dead, black_hole.address]);
        assert_eq!((error.label(), error.endpoint()), ("refused", Some(dead)));
        assert_kept("the race", error.elapsed(), ms(300));
        assert!(beneath(&error).contains("connect timeout"), "{}", beneath(&error));
    });
}

#[test]
fn the_whole_ends_a_race_of_the_silent() {
    bounded(|| {
        let holes = [BlackHole::new(), BlackHole::new(), BlackHole::v6()];
        let limits = ConnectLimits { total: ms(400), ..within(ms(400)) };
        let addresses = [0, 1, 2].map(|place: usize| holes[place].address);
        let error = lost(with_limits(limits), &addresses);
        assert_eq!((error.label(), error.phase()), ("connect_timeout", Phase::Dial));
        assert_kept("the whole", error.elapsed(), ms(400));
        // After 0 and 250 ms; the third was never begun.
        let attempts = error.source().and_then(|source| source.downcast_ref::<Attempts>());
        assert_eq!(attempts.expect("two were begun").others().len(), 1);
        assert!(beneath(&error).contains(&Passed::Total(ms(400)).to_string()), "{error:?}");
    });
}

#[test]
fn no_more_than_so_many_are_tried() {
    bounded(|| {
        let (_one, one) = support::refusing();
        let (_two, two) = support::refusing();
        let (_listener, live) = support::listener();
        let race = RaceLimits { attempts_max: 2, ..RaceLimits::default() };
        let limits = ConnectLimits { race, ..ConnectLimits::default() };
        assert_eq!(lost(with_limits(limits), &[one, two, live]).label(), "refused");
    });
}

#[test]
fn nobody_to_try_and_nobody_to_come_from() {
    bounded(|| {
        assert_eq!(lost(Connector::default(), &[]).label(), "no_endpoints");
        let (_listener, v4) = support::listener();
        let only_v6 = Connector::builder().sources([IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])]);
        let error = lost(only_v6.build().expect("a source"), &[v4]);
        assert_eq!((error.label(), error.endpoint()), ("no_source", Some(v4)));
        // Whom no source fits is not raced with.
        let (_socket, v6) = refusing_at(v6_loopback());
        let race = RaceLimits { attempts_max: 1, ..RaceLimits::default() };
        let limits = ConnectLimits { race, ..patient() };
        let only_v4 = Connector::builder().sources([IpAddr::from([127, 0, 0, 2])]).limits(limits);
        let only_v4 = only_v4.build();
        assert_eq!(winner(only_v4.expect("a source"), &[v4, v6]).0, v4);
    });
}

#[test]
fn only_the_winner_is_sent_a_header() {
    bounded(|| {
        let v6 = TcpListener::bind(v6_loopback()).expect("this host has IPv6");
        let (loser, v4) = support::listener();
        let builder = Connector::builder().proxy_header(Version::V1);
        let connector = builder.build().expect("a header");
        let address = v6.local_addr().expect("bound");
        assert_eq!(winner(connector, &[v4, address]).0, address);
        let header = support::read_bytes(&support::accept(&v6), 15);
        assert_eq!(header, b"PROXY UNKNOWN\r\n");
        loser.set_nonblocking(true).expect("an open socket");
        assert!(loser.accept().is_err(), "it was not even dialed");
    });
}

#[test]
fn a_race_that_is_dropped_gives_all_of_it_up() {
    bounded(|| {
        let holes = [BlackHole::new(), BlackHole::v6()];
        let targets = targets(&[holes[0].address, holes[1].address]);
        let dialer = Dialer::new();
        dialer.run(move || async move {
            let connector = with_limits(patient());
            let about = About::default();
            let race = connector.race(&targets, &about);
            assert!(slipring::timeout(ms(300), race).await.is_err(), "nobody answers");
        });
        dialer.wait_until_left(0);
        dialer.end();
    });
}
