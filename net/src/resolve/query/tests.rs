use proptest::prelude::*;

use super::*;

fn fault(text: &str) -> QueryFault {
    match text.parse::<Query>() {
        Ok(query) => panic!("{text:?} was taken as {query:?}"),
        Err(error) => *error.fault(),
    }
}

fn query(text: &str) -> Query {
    text.parse().expect("a query")
}

#[test]
fn what_is_taken_and_how_it_is_written() {
    for (text, written) in [
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("[2001:0DB8:0:0::0001]:0443", "[2001:db8::1]:443"),
        ("[fe80::1%2]:80", "[fe80::1%2]:80"),
        ("[::ffff:192.0.2.1]:80", "[::ffff:192.0.2.1]:80"),
        ("example.com:80", "example.com:80"),
        ("EXAMPLE.Com.:65535", "example.com.:65535"),
        ("localhost:1", "localhost:1"),
        ("a-b.1c.xn--mnchen-3ya:80", "a-b.1c.xn--mnchen-3ya:80"),
        ("srv:80", "srv:80"),
        ("srv.:80", "srv.:80"),
        ("srv:_http._tcp.Example.com", "srv:_http._tcp.example.com"),
        ("srv:_http._tcp.example.com.", "srv:_http._tcp.example.com."),
        ("srv:backend.service.consul", "srv:backend.service.consul"),
    ] {
        assert_eq!(query(text).to_string(), written);
        assert_eq!(query(written), query(text));
    }
}

#[test]
fn what_a_query_says_of_itself() {
    let host = query("Example.com.:80");
    assert_eq!((host.name(), host.port()), (Some("example.com"), Some(80)));
    assert!(host.is_absolute() && !host.is_service() && host.address().is_none());
    assert_ne!(host, query("example.com:80"), "a list of domains may make a difference");

    let service = query("srv:_a._tcp.example.com");
    assert_eq!((service.name(), service.port()), (Some("_a._tcp.example.com"), None));
    assert!(service.is_service() && !service.is_absolute());

    let address = query("192.0.2.1:80");
    assert_eq!(address.address(), Some(SocketAddr::from(([192, 0, 2, 1], 80))));
    assert_eq!((address.name(), address.port()), (None, Some(80)));
}

#[test]
fn what_is_not_taken_and_why() {
    let long_label = format!("{}.example:80", "a".repeat(64));
    let long_name = format!("{}abcde:80", "abcdefghi.".repeat(25));
    for (text, expected) in [
        ("", QueryFault::NameMissing),
        (":80", QueryFault::NameMissing),
        (".:80", QueryFault::NameMissing),
        ("srv:", QueryFault::NameMissing),
        ("example.com", QueryFault::PortMissing),
        ("example.com:", QueryFault::PortMissing),
        ("127.0.0.1", QueryFault::PortMissing),
        ("[::1]", QueryFault::PortMissing),
        ("[::1]:", QueryFault::PortMissing),
        ("example.com:0", QueryFault::PortZero),
        ("192.0.2.1:0", QueryFault::PortZero),
        ("[::1]:000", QueryFault::PortZero),
        ("example.com:+80", QueryFault::Port),
        ("example.com:-1", QueryFault::Port),
        ("example.com:65536", QueryFault::Port),
        ("example.com:99999999999999999999", QueryFault::Port),
        ("example.com: 80", QueryFault::Port),
        ("example.com:http", QueryFault::Port),
        ("192.0.2.1:http", QueryFault::Port),
        ("http://example.com:80", QueryFault::Url),
        ("2001:db8::1:443", QueryFault::Colons),
        ("::1", QueryFault::Colons),
        ("a:b:c", QueryFault::Colons),
        ("[::1:80", QueryFault::Bracket),
        ("[192.0.2.1]:80", QueryFault::Bracket),
        ("[example.com]:80", QueryFault::Bracket),
        ("[::1]80", QueryFault::Bracket),
        ("[fe80::1%eth0]:80", QueryFault::Zone),
        ("[fe80::1%]:80", QueryFault::Zone),
        ("[fe80::1%+1]:80", QueryFault::Zone),
        ("[fe80::1%4294967296]:80", QueryFault::Zone),
        ("srv:_http._tcp.example.com:80", QueryFault::ServicePort),
        ("127.1:80", QueryFault::Number),
        ("256.0.0.1:80", QueryFault::Number),
        ("010.0.0.1:80", QueryFault::Number),
        ("1.2.3.4.5:80", QueryFault::Number),
        ("192.0.2.1.:80", QueryFault::Number),
        ("2130706433:80", QueryFault::Number),
        ("0x7F000001:80", QueryFault::Number),
        ("0x:80", QueryFault::Number),
        ("srv:80.", QueryFault::Number),
        (&long_name, QueryFault::NameLong { bytes: 255 }),
        (&long_label, QueryFault::LabelLong { bytes: 64 }),
        ("a..b:80", QueryFault::LabelEmpty),
        (".example.com:80", QueryFault::LabelEmpty),
        ("example.com..:80", QueryFault::LabelEmpty),
        ("-a.example:80", QueryFault::Hyphen),
        ("a-.example:80", QueryFault::Hyphen),
        ("_http._tcp.example.com:80", QueryFault::Underscore),
        ("münchen.example:80", QueryFault::NotAscii { character: 'ü' }),
        ("exa mple:80", QueryFault::Character { character: ' ' }),
        ("user@example.com:80", QueryFault::Character { character: '@' }),
        ("example.com/:80", QueryFault::Character { character: '/' }),
        ("a\0b:80", QueryFault::Character { character: '\0' }),
    ] {
        assert_eq!(fault(text), expected, "{text:?}");
    }
}

#[test]
fn bounds_of_lengths_are_exact() {
    let name = format!("{}abc", "abcdefghi.".repeat(25));
    assert_eq!(name.len(), 253);
    assert_eq!(query(&format!("{name}:80")).name(), Some(&*name));
    assert!(query(&format!("{name}.:80")).is_absolute(), "the dot at the end does not count");
    assert_eq!(fault(&format!("{name}d:80")), QueryFault::NameLong { bytes: 254 });
    assert!(format!("{}:80", "a".repeat(63)).parse::<Query>().is_ok());
}

#[test]
fn an_error_shows_the_text_a_cause_and_a_remedy() {
    let error = "example.com".parse::<Query>().expect_err("no port");
    let shown = error.to_string();
    assert_eq!(shown, "\"example.com\": there is no port; write host:port, as in example.com:443");
    let long = "ä\n".repeat(1000).parse::<Query>().expect_err("no name");
    assert!(long.to_string().len() < 600, "{long}");
    assert!(!long.to_string().contains('\n'));
}

#[test]
fn a_query_is_made_of_its_parts_too() {
    assert_eq!(Query::host("Example.com", 80), Ok(query("example.com:80")));
    assert_eq!(Query::host("::1", 80), Ok(query("[::1]:80")));
    assert_eq!(Query::host("192.0.2.1", 80), Ok(query("192.0.2.1:80")));
    assert_eq!(Query::service("_a._tcp.b"), Ok(query("srv:_a._tcp.b")));
    let fault = |made: Result<Query, QueryError>| made.map_err(|error| *error.fault());
    assert_eq!(fault(Query::host("a", 0)), Err(QueryFault::PortZero));
    assert_eq!(fault(Query::host("a:1", 1)), Err(QueryFault::Character { character: ':' }));
    assert_eq!(fault(Query::service("a/b")), Err(QueryFault::Character { character: '/' }));
    assert_eq!(
        fault(Query::try_from(SocketAddr::from(([1, 2, 3, 4], 0)))),
        Err(QueryFault::PortZero)
    );
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_taken_reads_back(text in "\\PC*") {
        if let Ok(query) = text.parse::<Query>() {
            prop_assert_eq!(query.to_string().parse(), Ok(query));
        }
    }

    /// Of what texts of queries are made of, so that some are taken.
    #[test]
    fn near_misses_do_not_panic(text in "(srv:)?\\[?[a0_.:%-]{0,12}\\]?(:[0-9+]{0,6})?") {
        if let Ok(query) = text.parse::<Query>() {
            prop_assert_eq!(query.to_string().parse(), Ok(query));
        }
    }

    #[test]
    fn a_host_reads_back(
        name in "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,2}(\\.[a-z][a-z0-9]{0,9}){0,4}\\.?", port in 1_u16..
    ) {
        let text = format!("{name}:{port}");
        prop_assert_eq!(text.parse::<Query>().expect("a host").to_string(), text);
    }

    #[test]
    fn an_address_reads_back(bits: u128, is_v4: bool, zone: u32, port in 1_u16..) {
        let address = match is_v4 {
            true => SocketAddr::from((Ipv4Addr::from_bits(bits as u32), port)),
            false => SocketAddrV6::new(Ipv6Addr::from_bits(bits), port, 0, zone).into(),
        };
        let query = Query::try_from(address).expect("a port");
        prop_assert_eq!(query.address(), Some(address));
        prop_assert_eq!(query.to_string().parse(), Ok(query));
    }
}

#[test]
fn a_certificate_is_for_the_host_or_for_the_domain_of_the_service() {
    for (text, name) in [
        ("Example.com:443", Some("example.com")),
        ("srv:_http._tcp.example.com.", Some("example.com")),
        ("srv:cache.example.com", Some("cache.example.com")),
        ("srv:_http._tcp", Some("_tcp")),
        ("192.0.2.1:80", None),
    ] {
        let query: Query = text.parse().expect("a query");
        assert_eq!(query.certified(), name, "{text}");
    }
}
