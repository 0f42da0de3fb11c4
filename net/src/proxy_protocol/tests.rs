//! Headers byte by byte, as the specification has them, and what has to hold for all addresses.

use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn line(client: &str, local: &str) -> String {
    let bytes = Header::proxied(address(client), address(local)).encode(Version::V1);
    String::from_utf8(bytes).expect("text")
}

fn binary(client: &str, local: &str) -> Vec<u8> {
    Header::proxied(address(client), address(local)).encode(Version::V2)
}

#[test]
fn the_lines_of_the_specification() {
    // Its example, section 2.1.
    assert_eq!(
        line("192.168.0.1:56324", "192.168.0.11:443"),
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    );
    // Its longest ones: 56 and 104 characters.
    let longest = line("255.255.255.255:65535", "255.255.255.255:65535");
    assert_eq!(longest, "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n");
    assert_eq!(longest.len(), 56);
    let all = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    let longest = line(all, all);
    assert_eq!(
        longest,
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
    );
    assert_eq!(longest.len(), 104);
    assert_eq!(Header::Local.encode(Version::V1), b"PROXY UNKNOWN\r\n");
}

#[test]
fn the_binary_headers_of_the_specification() {
    assert_eq!(SIGNATURE, [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);
    let mut expected = SIGNATURE.to_vec();
    expected.extend([0x20, 0, 0, 0]);
    assert_eq!(Header::Local.encode(Version::V2), expected);

    let mut expected = SIGNATURE.to_vec();
    expected.extend([0x21, 0x11, 0, 12]);
    expected.extend([192, 168, 0, 1, 192, 168, 0, 11]);
    expected.extend([0xdc, 0x04, 0x01, 0xbb]);
    assert_eq!(binary("192.168.0.1:56324", "192.168.0.11:443"), expected);

    let mut expected = SIGNATURE.to_vec();
    expected.extend([0x21, 0x21, 0, 36]);
    expected.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    expected.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 2]);
    expected.extend([0x00, 0x50, 0xff, 0xff]);
    assert_eq!(binary("[2001:db8::1]:80", "[2001:db8::ff02]:65535"), expected);
}

#[test]
fn ipv4_in_ipv6_is_taken_for_what_it_is() {
    let plain = ("192.0.2.7:1", "198.51.100.1:2");
    let mapped = ("[::ffff:192.0.2.7]:1", "[::ffff:198.51.100.1]:2");
    for (client, local) in [(mapped.0, mapped.1), (mapped.0, plain.1), (plain.0, mapped.1)] {
        assert_eq!(line(client, local), line(plain.0, plain.1));
        assert_eq!(binary(client, local), binary(plain.0, plain.1));
    }
}

#[test]
fn two_families_make_a_header_of_ipv6() {
    assert_eq!(
        line("192.0.2.7:1", "[2001:db8::1]:2"),
        "PROXY TCP6 ::ffff:c000:207 2001:db8::1 1 2\r\n"
    );
    assert_eq!(
        line("[2001:db8::1]:2", "192.0.2.7:1"),
        "PROXY TCP6 2001:db8::1 ::ffff:c000:207 2 1\r\n"
    );
    let bytes = binary("192.0.2.7:1", "[2001:db8::1]:2");
    assert_eq!((bytes[13], bytes[15]), (0x21, 36));
    assert_eq!(bytes[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7]);
}

/// Reads a line of version 1, as strictly as the specification writes it.
fn read_line(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n")?;
    let parts: Vec<_> = text.split(' ').collect();
    let ["PROXY", family, source, destination, source_port, port] = parts[..] else { return None };
    let ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            // No dots in there.
            "TCP6" if !text.contains('.') => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| n.to_string() == text);
    Some((
        SocketAddr::new(ip(source)?, number(source_port)?),
        SocketAddr::new(ip(destination)?, number(port)?),
    ))
}

fn read_binary(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let rest = bytes.strip_prefix(&SIGNATURE)?;
    let [PROXY, family, high, low, ref rest @ ..] = *rest else { return None };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let size = match family {
        TCP_OVER_IPV4 => 4,
        TCP_OVER_IPV6 => 16,
        _ => return None,
    };
    if length != rest.len() || length != 2 * size + 4 {
        return None;
    }
    let ip = |bytes: &[u8]| -> Option<IpAddr> {
        match size {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        }
    };
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    Some((
        SocketAddr::new(ip(&rest[..size])?, port(2 * size)),
        SocketAddr::new(ip(&rest[size..2 * size])?, port(2 * size + 2)),
    ))
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let mapped =
        any::<[u8; 4]>().prop_map(|octets| IpAddr::from(Ipv4Addr::from(octets).to_ipv6_mapped()));
    // With many zeros, for the places where they are left out.
    let group = prop_oneof![Just(0_u16), any::<u16>()];
    let v6 = proptest::array::uniform8(group).prop_map(IpAddr::from);
    (prop_oneof![v4, mapped, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(client in any_address(), local in any_address()) {
        let header = Header::proxied(client, local);
        let is_v4 = |address: SocketAddr| address.ip().to_canonical().is_ipv4();
        let both = is_v4(client) && is_v4(local);
        prop_assert_eq!(matches!(header, Header::Tcp4 { .. }), both);
        let same = |read: SocketAddr, given: SocketAddr| {
            read.is_ipv4() == both
                && (read.ip().to_canonical(), read.port()) == (given.ip().to_canonical(), given.port())
        };
        for (version, read) in [
            (Version::V1, read_line as fn(&[u8]) -> _),
            (Version::V2, read_binary),
        ] {
            let bytes = header.encode(version);
            prop_assert!(bytes.len() <= HEADER_BYTES_MAX);
            let Some((source, destination)) = read(&bytes) else {
                return Err(TestCaseError::fail(format!("{version:?}: {bytes:?}")));
            };
            prop_assert!(same(source, client) && same(destination, local), "{:?}", bytes);
        }
    }
}
