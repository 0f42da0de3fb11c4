//! The order of addresses, and races against a model that knows in advance how each attempt ends.

use proptest::prelude::*;

use super::*;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn v4(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 80))
}

fn v6(n: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 80))
}

fn plain(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<Target> {
    addresses.into_iter().map(Target::new).collect()
}

fn ordered(targets: &[Target]) -> Vec<SocketAddr> {
    order(targets, 16).into()
}

#[test]
fn families_take_turns_and_ipv6_begins() {
    let targets = plain([v4(1), v4(2), v4(3), v6(2), v6(1)]);
    assert_eq!(ordered(&targets), [v6(2), v4(1), v6(1), v4(2), v4(3)]);
    assert_eq!(ordered(&plain([v4(2), v4(1)])), [v4(2), v4(1)]);
    let mapped = SocketAddr::from((std::net::Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped(), 80));
    assert_eq!(ordered(&plain([mapped, v6(1)])), [v6(1), mapped]);
}

#[test]
fn tiers_come_first_and_weight_zero_last_in_its_tier() {
    let target = |tier, weight, address| Target { tier, weight, address };
    let targets = [
        target(2, 9, v6(1)),
        target(1, 0, v6(2)),
        target(1, 3, v4(1)),
        target(1, 9, v4(2)),
        target(0, 0, v4(3)),
    ];
    assert_eq!(ordered(&targets), [v4(3), v4(1), v4(2), v6(2), v6(1)]);
}

#[test]
fn each_counts_once_and_only_so_many() {
    let twice = plain([v4(1), v4(1), v6(1), v4(2), v6(1)]);
    assert_eq!(ordered(&twice), [v6(1), v4(1), v4(2)]);
    assert_eq!(order(&twice, 2), [v6(1), v4(1)]);
    assert!(order(&twice, 0).is_empty() && ordered(&[]).is_empty());
}

#[test]
fn nobody_to_try_is_a_race_lost() {
    let mut race = Race::new(&RaceLimits::default(), &[], ms(5), ms(100));
    assert_eq!(race.step(ms(5)), Step::Failed);
    race.failed(ms(5));
    assert_eq!(race.step(ms(5)), Step::Failed);
}

#[test]
fn the_time_of_the_whole_ends_it_whatever_is_under_way() {
    let mut race = Race::new(&RaceLimits::default(), &plain([v4(1), v4(2)]), ms(0), ms(100));
    assert_eq!(race.step(ms(0)), Step::Start(v4(1)));
    assert_eq!(race.step(ms(1)), Step::Wait(ms(100)), "the second would begin later than that");
    assert_eq!(race.step(ms(100)), Step::Failed);
    assert_eq!(race.untried(), 1);
    assert_eq!(race.step(ms(50)), Step::Failed, "time that goes back is none");
}

#[test]
fn a_failure_begins_the_next_once() {
    let limits = RaceLimits::default();
    let mut race = Race::new(&limits, &plain([v4(1), v4(2), v4(3)]), ms(0), ms(10_000));
    assert_eq!(race.step(ms(0)), Step::Start(v4(1)));
    race.failed(ms(10));
    assert_eq!(race.step(ms(10)), Step::Start(v4(2)));
    assert_eq!(race.step(ms(10)), Step::Wait(ms(260)));
    assert_eq!(race.step(ms(260)), Step::Start(v4(3)));
    // Nobody is left to begin.
    race.failed(ms(270));
    assert_eq!(race.step(ms(270)), Step::Wait(ms(10_000)));
}

#[test]
fn limits_that_make_no_sense_are_refused_with_a_remedy() {
    assert_eq!(RaceLimits::default().check(), Ok(()));
    let zero = RaceLimits { delay: Duration::ZERO, ..RaceLimits::default() };
    let none = RaceLimits { attempts_max: 0, ..RaceLimits::default() };
    for limits in [
        zero,
        none,
        RaceLimits { delay: Duration::MAX, ..zero },
        RaceLimits { attempts_max: u32::MAX, ..RaceLimits::default() },
    ] {
        let text = limits.check().expect_err("no sense").to_string();
        assert!(text.contains("; say from"), "{text}");
    }
}

#[test]
fn nothing_overflows() {
    let limits = RaceLimits { delay: Duration::MAX, attempts_max: u32::MAX };
    let mut race = Race::new(&limits, &plain([v4(1), v4(2)]), Duration::MAX, Duration::MAX);
    assert_eq!(race.step(Duration::MAX), Step::Failed);
    let late = Duration::MAX - ms(1);
    let mut race = Race::new(&limits, &plain([v4(1), v4(2)]), late, Duration::MAX);
    assert_eq!(race.step(late), Step::Start(v4(1)));
    assert_eq!(race.step(late), Step::Wait(Duration::MAX));
}

/// What happened, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Started(u64, SocketAddr),
    Failed(u64),
}

/// Runs a race whose attempts fail so long after their beginning, ms; who has no such time never does. What happened,
/// and when all was lost.
fn run(
    limits: &RaceLimits,
    targets: &[Target],
    fates: &[Option<u64>],
    until: u64,
) -> (Vec<Event>, u64) {
    let mut race = Race::new(limits, targets, ms(0), ms(until));
    let (mut now, mut trace, mut under_way) = (0, Vec::new(), Vec::new());
    let mut fates = fates.iter();
    loop {
        let due = under_way.extract_if(.., |at| *at <= now).count();
        for _ in 0..due {
            race.failed(ms(now));
            trace.push(Event::Failed(now));
        }
        match race.step(ms(now)) {
            Step::Start(address) => {
                trace.push(Event::Started(now, address));
                under_way.extend(fates.next().expect("one for each").map(|fate| now + fate));
            }
            Step::Wait(wait) => {
                assert!(wait > ms(now) && wait <= ms(until), "{wait:?} at {now}");
                let failure = under_way.iter().min().copied().unwrap_or(u64::MAX);
                now = failure.min(wait.as_millis() as u64);
            }
            Step::Failed => return (trace, now),
        }
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<bool>(), 0..8_u8).prop_map(|(is_v4, n)| if is_v4 { v4(n) } else { v6(n.into()) })
}

fn any_target() -> impl Strategy<Value = Target> {
    (0..3_u16, any_address(), 0..3_u16).prop_map(|(tier, address, weight)| Target {
        tier,
        address,
        weight,
    })
}

proptest! {
    #[test]
    fn each_begins_at_the_first_failure_or_when_its_delay_is_over(
        targets in proptest::collection::vec(any_target(), 0..12),
        fates in proptest::collection::vec(proptest::option::of(0..600_u64), 12),
        delay in 10..500_u64,
        attempts_max in 1..10_u32,
        until in 1..3_000_u64,
    ) {
        let limits = RaceLimits { delay: ms(delay), attempts_max };
        let (trace, lost) = run(&limits, &targets, &fates, until);
        let queue = order(&targets, attempts_max as usize);
        let mut starts = Vec::new();
        let mut failure = None;
        for event in &trace {
            match *event {
                Event::Failed(at) => {
                    failure.get_or_insert(at);
                }
                Event::Started(at, address) => {
                    let expected = match (starts.last(), failure.take()) {
                        (None, _) => 0,
                        (Some(_), Some(failure)) => failure,
                        (Some((last, _)), None) => last + delay,
                    };
                    prop_assert_eq!(at, expected, "{:?}", trace);
                    prop_assert!(at < until);
                    starts.push((at, address));
                }
            }
        }
        let began: Vec<_> = starts.iter().map(|(_, address)| *address).collect();
        prop_assert_eq!(&began[..], &Vec::from(queue.clone())[..began.len()]);
        let failures = trace.iter().filter(|event| matches!(event, Event::Failed(_))).count();
        if lost < until {
            prop_assert!(began.len() == queue.len() && failures == began.len(), "{:?}", trace);
        }
        if began.len() < queue.len() {
            prop_assert_eq!(lost, until);
        }
    }

    #[test]
    fn the_order_keeps_what_it_was_given_and_lets_families_take_turns(
        targets in proptest::collection::vec(any_target(), 0..30),
    ) {
        let queue: Vec<_> = order(&targets, usize::MAX).into();
        let mut all: Vec<_> = targets.iter().map(|target| target.address).collect();
        all.sort_unstable();
        all.dedup();
        let mut sorted = queue.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, all, "each once");
        // Each stands where its best mention puts it.
        let rank = |address: SocketAddr| {
            let same = targets.iter().filter(move |target| target.address == address);
            same.map(|target| (target.tier, target.weight == 0)).min().expect("one of them")
        };
        for pair in queue.windows(2) {
            prop_assert!(rank(pair[0]) <= rank(pair[1]), "{:?}", queue);
        }
        for group in queue.chunk_by(|one, other| rank(*one) == rank(*other)) {
            let first = |address: &SocketAddr| {
                let of = rank(*address);
                targets.iter().position(|target| {
                    target.address == *address && (target.tier, target.weight == 0) == of
                })
            };
            for wanted in [true, false] {
                let family: Vec<_> = group.iter().filter(|a| is_ipv6(**a) == wanted).collect();
                prop_assert!(family.is_sorted_by_key(|address| first(address)), "{:?}", group);
            }
            prop_assert!(is_ipv6(group[0]) || group.iter().all(|a| !is_ipv6(*a)) , "{:?}", group);
        }
    }

    #[test]
    fn families_alternate_as_long_as_there_are_two(v6s in 0..9_u16, v4s in 0..9_u8) {
        let targets = plain((0..v4s).map(v4).chain((0..v6s).map(v6)));
        let queue = ordered(&targets);
        let pairs = usize::from(v6s.min(v4s.into()));
        for (place, address) in queue.iter().take(2 * pairs).enumerate() {
            prop_assert_eq!(is_ipv6(*address), place % 2 == 0);
        }
    }
}
