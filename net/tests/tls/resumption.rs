//! Who comes again need not be verified again: on whichever reactor, in both versions.

use slipring::tls::Version;

use super::pki::{self, authority};
use super::world::Link;

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

fn resumed(link: &Link) -> bool {
    let [a, b] =
        [&link.client, &link.server].map(|end| end.machine.agreed().expect("agreed").resumed);
    assert_eq!(a, b, "both know");
    a
}

#[test]
fn a_session_is_resumed_on_another_reactor() {
    for version in VERSIONS {
        let client = pki::client().versions([version]).build().expect("a client");
        let server = pki::server().build().expect("a server");
        // Each reactor has a clone of each.
        assert!(!resumed(&Link::established(&client.clone(), &server.clone())));
        for _ in 0..3 {
            let mut link = Link::established(&client.clone(), &server.clone());
            assert!(resumed(&link), "{version:?}");
            link.client.machine.seal(b"hello").expect("established");
            link.server.machine.seal(b"world").expect("established");
            link.carry_whole();
            assert_eq!(
                (&*link.client.received, &*link.server.received),
                (&b"world"[..], &b"hello"[..])
            );
        }
    }
}

#[test]
fn a_resumed_session_knows_who_the_client_is() {
    for version in VERSIONS {
        let known = authority().issue(&["client"]);
        let client = pki::client().versions([version]).identity(known.identity());
        let client = client.build().expect("a client");
        let server = pki::server().client_certificates_of(authority().pem().as_bytes(), true);
        let server = server.build().expect("a server");
        let first = Link::established(&client, &server);
        let second = Link::established(&client, &server);
        assert!(resumed(&second), "{version:?}");
        let [a, b] = [first, second]
            .map(|link| link.server.machine.agreed().expect("agreed").peer_certificates.clone());
        assert_eq!((a.len(), &a), (1, &b));
    }
}

#[test]
fn tickets_of_another_server_or_none_begin_anew() {
    for version in VERSIONS {
        let client = pki::client().versions([version]).build().expect("a client");
        let servers = [(); 2].map(|()| pki::server().build().expect("a server"));
        assert!(!resumed(&Link::established(&client, &servers[0])));
        assert!(!resumed(&Link::established(&client, &servers[1])), "it has other keys");

        let without = pki::server().resumption(false).build().expect("a server");
        let client = pki::client().versions([version]).build().expect("a client");
        for _ in 0..2 {
            assert!(!resumed(&Link::established(&client, &without)));
        }
        let forgets =
            pki::client().versions([version]).resumption(false).build().expect("a client");
        for _ in 0..2 {
            assert!(!resumed(&Link::established(&forgets, &servers[0])));
        }
    }
}

#[test]
fn tickets_stay_good_over_a_reload() {
    let client = pki::client().build().expect("a client");
    let server = pki::server().build().expect("a server");
    assert!(!resumed(&Link::established(&client, &server)));
    server.replace([authority().issue(&["localhost"]).identity()]).expect("a good pair");
    assert!(resumed(&Link::established(&client, &server)));
}
