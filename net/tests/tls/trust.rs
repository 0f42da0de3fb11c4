//! Who is let in, and who is believed: certificates, names, client certificates, protocols.

use slipring::tls::{AlertDescription, Machine, TlsError, TlsServer, Version};

use super::pki::{self, Authority, authority};
use super::world::Link;

fn client_error(link: Link) -> TlsError {
    link.refused().0.expect("the client objects")
}

#[test]
fn a_server_of_an_unknown_authority_is_refused_and_told() {
    let other = Authority::new().issue(&["localhost"]);
    let server = TlsServer::builder().identity(other.identity()).build().expect("a server");
    let (client, server) = Link::new(&pki::client().build().expect("a client"), &server).refused();
    let client = client.expect("the client objects");
    assert!(matches!(client, TlsError::PeerCert(_)), "{client:?}");
    assert!(client.to_string().contains("trust the authority"), "{client}");
    let server = server.expect("the server is told");
    assert!(matches!(server, TlsError::Alert(AlertDescription::UnknownCA)), "{server:?}");
}

#[test]
fn a_certificate_that_has_expired_is_refused_and_says_so() {
    let expired = authority().issue_until(&["localhost"], 2020);
    let server = TlsServer::builder().identity(expired.identity()).build().expect("only a warning");
    let error = client_error(Link::new(&pki::client().build().expect("a client"), &server));
    assert!(matches!(error, TlsError::PeerCert(_)), "{error:?}");
    assert!(error.to_string().contains("renewed"), "{error}");
}

#[test]
fn a_certificate_is_for_its_names_and_addresses_only() {
    let client = pki::client().build().expect("a client");
    let server = pki::server().build().expect("a server");
    for good in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let mut link = Link::to(good, &client, &server);
        link.carry_whole();
        link.expect_agreed();
    }
    for wrong in ["example.org", "127.0.0.2", "::1", "sub.localhost"] {
        let error = client_error(Link::to(wrong, &client, &server));
        assert!(matches!(error, TlsError::NameMismatch(_)), "{wrong}: {error:?}");
    }
    for bad in ["", "a b", "-", "exa mple.org", "[::1]"] {
        let error = Machine::client(&client, bad).expect_err("no name");
        assert!(matches!(&error, TlsError::BadName { name } if name == bad), "{bad}: {error:?}");
    }
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let pairs = [["localhost"], ["one.example"], ["*.two.example"]].map(|n| authority().issue(&n));
    let server = pairs.iter().fold(TlsServer::builder(), |b, pair| b.identity(pair.identity()));
    let server = server.build().expect("a server");
    let client = pki::client().build().expect("a client");
    for (name, place) in
        [("localhost", 0), ("one.example", 1), ("ONE.example", 1), ("a.two.example", 2)]
    {
        let mut link = Link::to(name, &client, &server);
        link.carry_whole();
        link.expect_agreed();
        let agreed = link.client.machine.agreed().expect("just seen");
        let shown = pairs[place].identity();
        assert_eq!(shown.names().len(), 1);
        let own =
            rustls_pki_types::pem::PemObject::from_pem_slice(pairs[place].certificate.as_bytes());
        let own: rustls_pki_types::CertificateDer<'_> = own.expect("one");
        assert_eq!(agreed.peer_certificates[0], own, "{name}");
        let asked = link.server.machine.agreed().and_then(|agreed| agreed.server_name.clone());
        assert_eq!(asked.map(|asked| asked.to_ascii_lowercase()), Some(name.to_ascii_lowercase()));
    }
    // A name that none is for: the first is shown, and the client judges.
    let error = client_error(Link::to("b.a.two.example", &client, &server));
    assert!(matches!(error, TlsError::NameMismatch(_)), "{error:?}");
}

#[test]
fn of_an_address_no_name_is_asked_for() {
    let client = pki::client().build().expect("a client");
    let mut link = Link::to("127.0.0.1", &client, &pki::server().build().expect("a server"));
    link.carry_whole();
    assert_eq!(link.server.machine.agreed().expect("agreed").server_name, None);
}

#[test]
fn who_is_required_to_show_a_certificate_is_not_let_in_without() {
    for version in [Version::Tls12, Version::Tls13] {
        let server = pki::server()
            .client_certificates_of(authority().pem().as_bytes(), true)
            .build()
            .expect("a server");
        let anonymous = pki::client().versions([version]);
        let (client, server_error) =
            Link::new(&anonymous.build().expect("a client"), &server).refused();
        assert!(matches!(server_error, Some(TlsError::ClientCertRequired)), "{server_error:?}");
        let client = client.expect("the client is told");
        assert!(matches!(client, TlsError::ClientCertRequired), "{version:?}: {client:?}");

        let stranger = Authority::new().issue(&["client"]);
        let stranger = pki::client().versions([version]).identity(stranger.identity());
        let (_, server_error) = Link::new(&stranger.build().expect("a client"), &server).refused();
        assert!(matches!(server_error, Some(TlsError::PeerCert(_))), "{server_error:?}");

        let known = authority().issue(&["client"]);
        let known_client = pki::client().versions([version]).identity(known.identity());
        let link = Link::established(&known_client.build().expect("a client"), &server);
        let agreed = link.server.machine.agreed().expect("agreed");
        assert_eq!(agreed.peer_certificates.len(), 1, "who it is can be asked");
    }
}

#[test]
fn who_is_asked_for_a_certificate_may_have_none_but_no_bad_one() {
    let server = pki::server()
        .client_certificates_of(authority().pem().as_bytes(), false)
        .build()
        .expect("a server");
    let link = Link::established(&pki::client().build().expect("a client"), &server);
    assert!(link.server.machine.agreed().expect("agreed").peer_certificates.is_empty());

    let stranger = Authority::new().issue(&["client"]);
    let stranger = pki::client().identity(stranger.identity()).build().expect("a client");
    let (_, error) = Link::new(&stranger, &server).refused();
    assert!(matches!(error, Some(TlsError::PeerCert(_))), "{error:?}");
}

#[test]
fn the_protocol_is_the_first_of_the_server_that_both_have() {
    let server = pki::server().alpn(["h2", "http/1.1"]).build().expect("a server");
    for (offered, agreed) in
        [(vec!["http/1.1", "h2"], Some("h2")), (vec!["http/1.1"], Some("http/1.1")), (vec![], None)]
    {
        let client = pki::client().alpn(offered).build().expect("a client");
        let link = Link::established(&client, &server);
        for end in [&link.client, &link.server] {
            let alpn = end.machine.agreed().expect("agreed").alpn.as_deref();
            assert_eq!(alpn, agreed.map(str::as_bytes));
        }
    }
    let client = pki::client().alpn(["spdy/1"]).build().expect("a client");
    let (client, server) = Link::new(&client, &server).refused();
    for error in [client, server] {
        assert!(matches!(error, Some(TlsError::NoCommonProtocol)), "{error:?}");
    }
}

#[test]
fn without_a_version_in_common_both_are_told() {
    let client = pki::client().versions([Version::Tls12]).build().expect("a client");
    let server = pki::server().versions([Version::Tls13]).build().expect("a server");
    let (client, server) = Link::new(&client, &server).refused();
    assert!(matches!(server, Some(TlsError::Protocol(_))), "{server:?}");
    let client = client.expect("the client is told");
    assert!(matches!(client, TlsError::Alert(AlertDescription::ProtocolVersion)), "{client:?}");
}

#[test]
fn a_reload_shows_the_new_certificate_and_drops_nobody() {
    let folder = super::setup::Folder::new("reload");
    let (first, second) = (authority().issue(&["localhost"]), authority().issue(&["localhost"]));
    let (certificate, key) = folder.pair(&first);
    let identity = slipring::tls::Identity::from_files(&certificate, &key).expect("a pair");
    let server = TlsServer::builder().identity(identity).build().expect("a server");
    let client = pki::client().resumption(false).build().expect("a client");
    let shown = |link: &Link| {
        link.client.machine.agreed().expect("agreed").peer_certificates[0].as_ref().to_vec()
    };

    let mut before = Link::established(&client, &server);
    let mut between = Link::new(&client, &server);
    // A pair that is none is refused, and nothing changes.
    folder.write("cert.pem", &second.certificate);
    let error = server.clone().reload().expect_err("the key is the old one");
    assert!(matches!(error, slipring::tls::TlsSetupError::KeyMismatch { .. }), "{error:?}");
    assert_eq!(shown(&Link::established(&client, &server)), shown(&before));

    folder.write("key.pem", &second.key);
    server.clone().reload().expect("a pair again");
    let after = Link::established(&client, &server);
    assert_ne!(shown(&after), shown(&before));
    // Who was there is still served, and who had begun gets through.
    before.client.machine.seal(b"still here").expect("established");
    before.carry_whole();
    assert_eq!(before.server.received, b"still here");
    between.carry_whole();
    between.expect_agreed();
    assert_eq!(shown(&between), shown(&after), "it had not been shown one yet");
}
