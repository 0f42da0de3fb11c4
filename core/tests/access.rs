//! The lists of prefixes against a reader of lists: whatever is looked up, the longest match decides.
//!
//! The model compares every entry bit by bit. It knows nothing of ranges.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use slipring_core::{Access, Prefix, PrefixError, SetupError};

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| prefix(text)).collect()
}

fn access(allow: &[&str], deny: &[&str]) -> Access {
    Access::new(prefixes(allow), prefixes(deny)).expect("no prefix is in both")
}

#[track_caller]
fn assert_allows(access: &Access, allowed: &[&str], denied: &[&str]) {
    for text in allowed {
        assert!(access.allows(address(text)), "{text} is denied");
    }
    for text in denied {
        assert!(!access.allows(address(text)), "{text} is allowed");
    }
}

// --------------------------------------------------------------------------------------- boundaries

#[test]
fn no_list_lets_everybody_in() {
    assert_allows(&access(&[], &[]), &["0.0.0.0", "255.255.255.255", "::", "::1"], &[]);
}

#[test]
fn only_denied_ones_are_kept_out() {
    let access = access(&[], &["10.0.0.0/8", "2001:db8::/32"]);
    assert_allows(
        &access,
        &["9.255.255.255", "11.0.0.0", "2001:db7:ffff::", "2001:db9::", "::1"],
        &["10.0.0.0", "10.255.255.255", "2001:db8::", "2001:db8:ffff::1"],
    );
}

#[test]
fn what_is_allowed_keeps_all_others_out_of_both_families() {
    assert_allows(&access(&["10.0.0.0/8"], &[]), &["10.1.2.3"], &["11.0.0.0", "::1", "::"]);
    assert_allows(&access(&["::1"], &[]), &["::1"], &["::", "::2", "127.0.0.1"]);
}

#[test]
fn the_longest_match_decides_however_deep() {
    let access = access(
        &["10.0.0.0/8", "10.1.2.0/24", "10.1.2.128/25"],
        &["10.1.0.0/16", "10.1.2.129", "0.0.0.0/0"],
    );
    assert_allows(
        &access,
        &["10.0.0.1", "10.2.0.0", "10.1.2.0", "10.1.2.128", "10.1.2.130", "10.1.2.255"],
        &["10.1.0.0", "10.1.1.255", "10.1.3.0", "10.1.255.255", "10.1.2.129", "11.0.0.0"],
    );
}

#[test]
fn whole_families_are_prefixes_and_do_not_overlap() {
    let access = access(&["0.0.0.0/0"], &["::/0"]);
    assert_allows(
        &access,
        &["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4", "::ffff:0.0.0.0"],
        &["::", "::1", "::fffe:102:304", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
    );
}

#[test]
fn the_first_and_the_last_address_are_in() {
    let access = access(&["0.0.0.0", "255.255.255.255", "::", "ffff:ffff::/32"], &[]);
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_allows(
        &access,
        &["0.0.0.0", "255.255.255.255", "::", last],
        &["0.0.0.1", "255.255.255.254", "::1", "ffff:fffe:ffff::"],
    );
}

#[test]
fn mapped_addresses_are_the_ipv4_ones_in_lists_and_of_clients() {
    let of_ipv4 = access(&[], &["10.0.0.0/8"]);
    assert_allows(&of_ipv4, &["::ffff:11.0.0.1", "::10.0.0.1"], &["::ffff:10.0.0.1"]);
    let of_mapped = access(&["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"], &[]);
    assert_allows(&of_mapped, &["10.9.9.9", "::ffff:10.9.9.9", "192.0.2.1"], &["192.0.2.2"]);
    assert_eq!(prefix("::ffff:0:0/96"), prefix("0.0.0.0/0"));
}

#[test]
fn a_prefix_in_both_lists_is_refused_however_it_is_written() {
    for (allow, deny) in
        [("10.0.0.0/8", "10.0.0.0/8"), ("::1", "::1/128"), ("10.0.0.0/8", "::ffff:10.0.0.0/104")]
    {
        let error = Access::new(prefixes(&["1.1.1.1", allow]), prefixes(&[deny]))
            .expect_err("it cannot be both");
        assert!(matches!(error, SetupError::Config { .. }));
        let message = error.to_string();
        assert!(message.contains(&format!("{} is both", prefix(allow))), "{message}");
        assert!(message.contains("; keep it in one"), "{message}");
    }
    // Neither the same twice nor the same address at another length is a contradiction.
    access(&["10.0.0.0/8", "10.0.0.0/8"], &["10.0.0.0/9", "10.0.0.0/9"]);
}

#[test]
fn reactors_can_share_it() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Access>();
}

#[test]
fn a_long_list_is_found_in() {
    let every_other = (0..1_u32 << 16).map(|net| {
        Prefix::new(Ipv4Addr::from(net << 16).into(), 16 + (net % 2) as u8 * 8).expect("aligned")
    });
    let access = Access::new(every_other, []).expect("all allowed");
    for net in 0..1_u32 << 16 {
        assert!(access.allows(Ipv4Addr::from(net << 16).into()));
        assert_eq!(access.allows(Ipv4Addr::from(net << 16 | 0xffff).into()), net % 2 == 0);
    }
}

// ------------------------------------------------------------------------------------------- words

#[test]
fn prefixes_are_read_and_written() {
    for (text, written) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/08", "10.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("255.255.255.255/32", "255.255.255.255/32"),
        ("::/0", "::/0"),
        ("::1", "::1/128"),
        ("2001:DB8:0::/33", "2001:db8::/33"),
        ("8000::/1", "8000::/1"),
        ("::ffff:1.2.3.4", "1.2.3.4/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::1.2.3.4", "::102:304/128"),
    ] {
        assert_eq!(prefix(text).to_string(), written);
        assert_eq!(prefix(written), prefix(text));
    }
}

#[test]
fn bad_prefixes_are_refused_with_cause_and_remedy() {
    for (text, cause, remedy) in [
        ("10.0.0.1/8", "10.0.0.1/8 goes on beyond its 8 bits", "write 10.0.0.0/8 for all"),
        ("10.0.0.1/8", "goes on", "or 10.0.0.1 for the one"),
        ("10.0.0.1/31", "goes on beyond its 31 bits", "write 10.0.0.0/31"),
        ("1.0.0.0/0", "goes on beyond its 0 bits", "write 0.0.0.0/0"),
        ("::1/127", "goes on", "write ::/127"),
        ("2001:db8::1/64", "goes on", "write 2001:db8::/64 for all of them, or 2001:db8::1"),
        ("::ffff:10.0.0.1/104", "10.0.0.1/8 goes on", "write 10.0.0.0/8"),
        ("::ffff:10.0.0.0/8", "shorter than the 96 bits", "write it as IPv4"),
        ("::ffff:0.0.0.0/95", "shorter than the 96 bits", "write it as IPv4"),
        ("10.0.0.0/33", "10.0.0.0 has no 33 bits", "at most 32"),
        ("10.0.0.0/300", "no 300 bits", "at most 32"),
        ("::/129", ":: has no 129 bits", "at most 128"),
        ("::ffff:10.0.0.0/129", "no 129 bits", "at most 128"),
        ("10.0.0.0/", "`` is not the length", "such as 10.0.0.0/8"),
        ("10.0.0.0/+8", "`+8` is not the length", "such as 10.0.0.0/8"),
        ("10.0.0.0/-1", "`-1` is not the length", "how many bits"),
        ("10.0.0.0/8/8", "`8/8` is not the length", "how many bits"),
        ("10.0.0.0/99999999999", "`99999999999` is not the length", "how many bits"),
        ("10.0.0.0/255.0.0.0", "`255.0.0.0` is not the length", "how many bits"),
        ("10.0.0.0/ 8", "` 8` is not the length", "how many bits"),
        ("", "`` is not an IP address", "write all of it"),
        ("/8", "`` is not an IP address", "write all of it"),
        ("10/8", "`10` is not an IP address", "write all of it"),
        ("10.0.0/8", "`10.0.0` is not an IP address", "write all of it"),
        ("10.0.0.0.0/8", "`10.0.0.0.0` is not", "write all of it"),
        ("010.0.0.0/8", "`010.0.0.0` is not", "write all of it"),
        ("256.0.0.0/8", "`256.0.0.0` is not", "write all of it"),
        ("2001:db8/32", "`2001:db8` is not", "2001:db8::/32"),
        ("[::1]/128", "`[::1]` is not", "leave the brackets out"),
        ("[::1]:80", "`[::1]:80` is not", "leave the brackets out"),
        ("10.0.0.1:80", "`10.0.0.1:80` is not", "leave the port out"),
        ("fe80::1%eth0/64", "`fe80::1%eth0` is not", "has no zone"),
        ("localhost", "`localhost` is not", "names are not looked up"),
        ("any", "`any` is not", "0.0.0.0/0 and ::/0"),
        (" 10.0.0.0/8", "` 10.0.0.0` is not", "write all of it"),
    ] {
        let error = text.parse::<Prefix>().expect_err(text).to_string();
        let (said_cause, said_remedy) = error.split_once("; ").expect("a cause and a remedy");
        assert!(said_cause.contains(cause), "{text}: {error}");
        assert!(said_remedy.contains(remedy), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn what_the_remedy_says_is_taken() {
    let Err(PrefixError::BeyondLength { network, address }) = "10.1.2.3/9".parse::<Prefix>() else {
        panic!("10.1.2.3/9 is taken");
    };
    assert_eq!(prefix(&network.to_string()), network);
    assert!(network.contains(address));
}

// -------------------------------------------------------------------------------------- any lists

/// What the top of access.rs says, by reading both lists from end to end.
fn expected(entries: &BTreeMap<Prefix, bool>, address: IpAddr) -> bool {
    let matches = entries.iter().filter(|(entry, _)| begins_with(address, entry));
    match matches.max_by_key(|(entry, _)| entry.length()) {
        Some((_, allowed)) => *allowed,
        None => !entries.values().any(|allowed| *allowed),
    }
}

/// Family and bits of an address.
fn bits(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(address) => (4, u128::from(u32::from(address)) << 96),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => bits(address.into()),
            None => (6, address.into()),
        },
    }
}

fn begins_with(address: IpAddr, entry: &Prefix) -> bool {
    let ((family, bits), (entry_family, entry_bits)) = (bits(address), bits(entry.address()));
    let same = |bit: u8| bits >> (127 - bit) & 1 == entry_bits >> (127 - bit) & 1;
    family == entry_family && (0..entry.length()).all(same)
}

/// Few bits that differ, at either end and in the middle, so that prefixes nest and meet.
fn crowded(width: u32) -> impl Strategy<Value = u128> {
    let ends = (0..4_u128, 0..4_u128, 0..4_u128);
    ends.prop_map(move |(high, middle, low)| {
        let all = u128::MAX >> (128 - width);
        (high << (width - 2) | middle << (width / 2) | low) & all
    })
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let v4 = || prop_oneof![3 => crowded(32).prop_map(|bits| bits as u32), 1 => any::<u32>()];
    prop_oneof![
        4 => v4().prop_map(|bits| IpAddr::V4(bits.into())),
        2 => v4().prop_map(|bits| IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())),
        4 => crowded(128).prop_map(|bits| IpAddr::V6(bits.into())),
        1 => any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    let length = prop_oneof![0..=2_u8, 15..=18_u8, 30..=34_u8, 62..=66_u8, 126..=128_u8];
    (any_address(), length).prop_map(|(address, length)| Prefix::covering(address, length))
}

/// The edges of a prefix, and what lies just beyond them.
fn around(entry: &Prefix) -> Vec<IpAddr> {
    match entry.address() {
        IpAddr::V4(first) => {
            let first = u32::from(first);
            let last = first | u32::MAX.checked_shr(entry.length().into()).unwrap_or(0);
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|bits| IpAddr::V4(bits.into()))
                .into()
        }
        IpAddr::V6(first) => {
            let first = u128::from(first);
            let last = first | u128::MAX.checked_shr(entry.length().into()).unwrap_or(0);
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|bits| IpAddr::V6(bits.into()))
                .into()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn lists_say_what_their_longest_match_says(
        entries in prop::collection::btree_map(any_prefix(), any::<bool>(), 0..40),
        others in prop::collection::vec(any_address(), 1..40),
    ) {
        let list = |wanted: bool| {
            let entries = entries.iter().filter(move |(_, allowed)| **allowed == wanted);
            entries.map(|(entry, _)| *entry)
        };
        let access = Access::new(list(true), list(false)).expect("each is in one list");
        for address in entries.keys().flat_map(around).chain(others) {
            prop_assert_eq!(access.allows(address), expected(&entries, address), "{}", address);
        }
    }

    #[test]
    fn a_prefix_is_what_its_address_and_length_say(address in any_address(), length in 0..=128_u8) {
        let covering = Prefix::covering(address, length);
        prop_assert!(covering.contains(address));
        prop_assert!(begins_with(address, &covering));
        prop_assert_eq!(Prefix::new(covering.address(), covering.length()), Ok(covering));
        prop_assert_eq!(covering.to_string().parse(), Ok(covering));
        // A prefix is taken as it stands exactly if it has nothing beyond its length.
        let canonical = address.to_canonical();
        let fits = length <= if canonical.is_ipv4() { 32 } else { 128 };
        let taken = Prefix::new(canonical, length).is_ok();
        prop_assert_eq!(taken, fits && covering.address() == canonical);
    }

    #[test]
    fn what_a_prefix_contains_begins_with_it(entry in any_prefix(), address in any_address()) {
        prop_assert_eq!(entry.contains(address), begins_with(address, &entry));
    }

    #[test]
    fn no_text_panics(text in "[0-9a-f:./%\\[\\]+-]{0,24}|\\PC{0,12}") {
        if let Err(error) = text.parse::<Prefix>() {
            prop_assert!(error.to_string().contains("; "));
        }
    }
}

#[test]
fn the_model_knows_mapped_addresses() {
    let mapped = IpAddr::V6(Ipv6Addr::from(0xffff_0a00_0001));
    assert!(begins_with(mapped, &prefix("10.0.0.0/8")));
    assert!(!begins_with(mapped, &prefix("::/0")));
}
