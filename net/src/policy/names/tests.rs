use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn target(text: &str) -> Target {
    Target::new(text.parse().expect("an address"))
}

fn answer(targets: &[&str], ttl_s: u64) -> Result<Answer, Resolve> {
    Ok(Answer { targets: targets.iter().map(|text| target(text)).collect(), ttl: seconds(ttl_s) })
}

fn name() -> Name {
    Name::new(&NameLimits::default())
}

#[test]
fn at_first_nothing_is_known_and_it_is_asked_for_at_once() {
    let name = name();
    assert_eq!(name.next_lookup(), Duration::ZERO);
    assert_eq!(name.targets(SECOND), Err(Resolve::Timeout));
    assert!(!name.is_stale(SECOND));
}

#[test]
fn an_answer_is_sorted_each_counts_once_and_order_is_no_news() {
    let (mut name, mut rng) = (name(), rng());
    let shuffled = ["192.0.2.2:80", "192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"];
    assert!(name.answered(SECOND, answer(&shuffled, 9), &mut rng));
    let sorted = ["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"].map(target);
    assert_eq!(name.targets(SECOND), Ok(&sorted[..]));
    let other_order = ["[2001:db8::1]:80", "192.0.2.2:80", "192.0.2.1:80"];
    assert!(!name.answered(2 * SECOND, answer(&other_order, 9), &mut rng));
    assert!(name.answered(3 * SECOND, answer(&["192.0.2.1:80"], 9), &mut rng));
}

#[test]
fn an_answer_is_fresh_for_its_ttl_and_runs_out_when_it_has_stood_in_for_long_enough() {
    let (mut name, mut rng) = (name(), rng());
    assert!(!name.is_fresh(SECOND));
    assert_eq!(name.runs_out(SECOND), None, "there is nothing to run out");
    name.answered(seconds(10), answer(&["192.0.2.1:80"], 30), &mut rng);
    assert!(name.is_fresh(seconds(39)) && !name.is_fresh(seconds(40)));
    assert_eq!(name.runs_out(seconds(50)), None, "nothing has failed");
    name.answered(seconds(30), Err(Resolve::Timeout), &mut rng);
    assert!(!name.is_fresh(seconds(31)), "it stands in for a failure");
    let end = name.runs_out(seconds(31)).expect("it stands in");
    assert_eq!(end, seconds(100));
    assert!(name.targets(end - Duration::from_nanos(1)).is_ok());
    assert_eq!(name.targets(end), Err(Resolve::Timeout));
    assert_eq!(name.runs_out(end), None);
    name.answered(seconds(101), answer(&["192.0.2.1:80"], 30), &mut rng);
    name.answered(seconds(102), Err(Resolve::NotFound), &mut rng);
    assert!(!name.is_fresh(seconds(103)));
    assert_eq!(name.runs_out(seconds(103)), None);
}

#[test]
fn a_ttl_is_clamped_and_the_refresh_comes_in_its_last_fifth() {
    for (ttl_s, counts_s) in [(0, 1), (1, 1), (30, 30), (300, 300), (86_400, 300)] {
        let mut rng = rng();
        let mut earliest = Duration::MAX;
        let mut latest = Duration::ZERO;
        for _ in 0..500 {
            let mut name = name();
            name.answered(seconds(100), answer(&["192.0.2.1:80"], ttl_s), &mut rng);
            let after = name.next_lookup() - seconds(100);
            (earliest, latest) = (earliest.min(after), latest.max(after));
        }
        let counts = seconds(counts_s);
        assert!(earliest >= counts * 80 / 100 && latest <= counts, "{earliest:?} to {latest:?}");
        assert!(earliest < counts * 82 / 100 && latest > counts * 98 / 100, "they are spread");
    }
}

#[test]
fn when_asking_fails_the_last_answer_goes_on_for_a_minute_beyond_its_ttl() {
    for failure in [Resolve::ServerFailure, Resolve::Timeout] {
        let (mut name, mut rng) = (name(), rng());
        name.answered(seconds(100), answer(&["192.0.2.1:80"], 30), &mut rng);
        assert!(!name.answered(seconds(129), Err(failure), &mut rng), "nothing has changed");
        assert!(name.is_stale(seconds(129)));
        let again = name.next_lookup() - seconds(129);
        assert!((seconds(5) / 2..=seconds(5)).contains(&again), "asked again after {again:?}");
        assert!(name.targets(seconds(189)).is_ok());
        assert_eq!(name.targets(seconds(190)), Err(failure));
        assert!(!name.is_stale(seconds(190)));
        // It comes back: the same targets, and news.
        assert!(name.answered(seconds(200), answer(&["192.0.2.1:80"], 30), &mut rng));
        assert!(name.targets(seconds(200)).is_ok() && !name.is_stale(seconds(200)));
    }
}

#[test]
fn that_it_is_not_there_is_an_answer_and_ends_what_was() {
    for failure in [Resolve::NotFound, Resolve::NoAddress, Resolve::NotPublic] {
        let (mut name, mut rng) = (name(), rng());
        name.answered(seconds(100), answer(&["192.0.2.1:80"], 30), &mut rng);
        assert!(name.answered(seconds(101), Err(failure), &mut rng));
        assert_eq!(name.targets(seconds(101)), Err(failure));
        assert!(name.next_lookup() <= seconds(106));
        // Behind it a server that fails brings back nothing.
        assert!(
            name.answered(seconds(106), Err(Resolve::ServerFailure), &mut rng),
            "another error"
        );
        assert_eq!(name.targets(seconds(106)), Err(Resolve::ServerFailure));
    }
}

#[test]
fn an_answer_without_addresses_is_none() {
    let (mut name, mut rng) = (name(), rng());
    name.answered(SECOND, answer(&[], 30), &mut rng);
    assert_eq!(name.targets(SECOND), Err(Resolve::NoAddress));
}

#[test]
fn a_public_upstream_takes_public_addresses_only() {
    let limits = NameLimits { is_public: true, ..NameLimits::default() };
    let (mut name, mut rng) = (Name::new(&limits), rng());
    let mixed = ["127.0.0.1:80", "8.8.8.8:80", "[::1]:80", "10.1.2.3:80"];
    name.answered(SECOND, answer(&mixed, 30), &mut rng);
    assert_eq!(name.targets(SECOND), Ok(&[target("8.8.8.8:80")][..]));
    name.answered(2 * SECOND, answer(&["127.0.0.1:80", "[fe80::1]:80"], 30), &mut rng);
    assert_eq!(name.targets(2 * SECOND), Err(Resolve::NotPublic), "a name that turns against us");
}

#[test]
fn addresses_of_special_purpose_are_not_public() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
    ] {
        assert!(!is_public_address(text.parse().expect("an address")), "{text}");
    }
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.0.1",
        "169.255.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.0.3.1",
        "192.167.1.1",
        "192.169.1.1",
        "198.17.1.1",
        "198.20.1.1",
        "198.51.99.1",
        "203.0.112.1",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2002:808:808::1",
        "2606:4700::1111",
        "2a00::1",
        "3ffe::1",
    ] {
        assert!(is_public_address(text.parse().expect("an address")), "{text}");
    }
}

#[test]
fn limits_that_make_no_sense_are_refused_with_a_remedy() {
    let good = NameLimits::default();
    good.check().expect("the defaults");
    for bad in [
        NameLimits { ttl_min: Duration::ZERO, ..good },
        NameLimits { ttl_min: seconds(400), ..good },
        NameLimits { ttl_max: Duration::MAX, ..good },
        NameLimits { negative: Duration::ZERO, ..good },
        NameLimits { negative: Duration::MAX, ..good },
    ] {
        let text = bad.check().expect_err("nonsense").to_string();
        assert!(text.contains("; say "), "{text}");
    }
}

#[derive(Clone, Debug)]
enum Told {
    Answer { targets: Vec<u8>, ttl: u64 },
    Failed(Resolve),
    Nothing,
}

fn told() -> impl Strategy<Value = Told> {
    let failures = [
        Resolve::NotFound,
        Resolve::NoAddress,
        Resolve::ServerFailure,
        Resolve::Timeout,
        Resolve::NotPublic,
    ];
    prop_oneof![
        3 => (prop::collection::vec(0..4_u8, 0..4), 0..500_u64)
            .prop_map(|(targets, ttl)| Told::Answer { targets, ttl }),
        2 => prop::sample::select(failures.to_vec()).prop_map(Told::Failed),
        2 => Just(Told::Nothing),
    ]
}

proptest! {
    /// Against a list of all that was ever told.
    #[test]
    fn what_counts_follows_from_what_was_told(
        steps in prop::collection::vec((0..200_u64, told()), 1..40),
        seed in any::<u64>(),
    ) {
        let limits = NameLimits::default();
        let (mut name, mut rng) = (Name::new(&limits), fastrand::Rng::with_seed(seed));
        let (mut now, mut history) = (Duration::ZERO, Vec::<(Duration, Result<Answer, Resolve>)>::new());
        for (wait, told) in steps {
            now += seconds(wait);
            let answer = match told {
                Told::Nothing => None,
                Told::Failed(failure) => Some(Err(failure)),
                Told::Answer { targets, ttl } => {
                    let address = |last: u8| SocketAddr::from(([192, 0, 2, last], 80));
                    let targets = targets.into_iter().map(|last| Target::new(address(last))).collect();
                    Some(Ok(Answer { targets, ttl: seconds(ttl) }))
                }
            };
            if let Some(answer) = answer {
                let before = name.targets(now).map(<[Target]>::to_vec);
                let is_new = name.answered(now, answer.clone(), &mut rng);
                let after = name.targets(now).map(<[Target]>::to_vec);
                if !is_new && before.is_ok() {
                    prop_assert_eq!(&before, &after, "no news, and yet another answer");
                }
                prop_assert!(name.next_lookup() > now && name.next_lookup() <= now + limits.ttl_max);
                history.push((now, answer.and_then(|answer| match answer.targets.is_empty() {
                    true => Err(Resolve::NoAddress),
                    false => Ok(answer),
                })));
            }
            let expected = expected(&history, now, &limits);
            prop_assert_eq!(name.targets(now).map(<[Target]>::to_vec), expected);
        }
    }
}

fn expected(
    history: &[(Duration, Result<Answer, Resolve>)],
    now: Duration,
    limits: &NameLimits,
) -> Result<Vec<Target>, Resolve> {
    let failure = match history.last() {
        None => return Err(Resolve::Timeout),
        Some((_, Ok(answer))) => return Ok(sorted(answer)),
        Some((_, Err(failure))) => *failure,
    };
    // The last that was no passing failure.
    let lasting = history.iter().rev().find(|(_, told)| match told {
        Ok(_) => true,
        Err(failure) => !matches!(failure, Resolve::ServerFailure | Resolve::Timeout),
    });
    match lasting {
        Some((at, Ok(answer))) => {
            let ttl = answer.ttl.clamp(limits.ttl_min, limits.ttl_max);
            if now < *at + ttl + limits.stale { Ok(sorted(answer)) } else { Err(failure) }
        }
        _ => Err(failure),
    }
}

fn sorted(answer: &Answer) -> Vec<Target> {
    let mut targets = answer.targets.clone();
    targets.sort_unstable();
    targets.dedup();
    targets
}
