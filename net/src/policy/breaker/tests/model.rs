//! The breaker beside a slow one that remembers everything: lists of calls, permits by name, no words, no wrapping.

use proptest::prelude::*;

use super::*;

const REACTORS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Admit(usize),
    /// One of the calls under way ends like this.
    End(usize, Outcome),
    /// One of the calls under way is dropped.
    Drop(usize),
    Publish(usize),
    Merge(usize),
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        5 => Just(Outcome::Success), 4 => Just(Outcome::Failure), 1 => Just(Outcome::Ignored)
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let passes = prop_oneof![
        4 => 0..20_u64, 3 => 100..1500_u64, 2 => 900..11_000_u64, 2 => 20_000..70_000_u64
    ];
    prop_oneof![
        4 => passes.prop_map(Step::Pass),
        12 => (0..REACTORS).prop_map(Step::Admit),
        9 => (0..40_usize, outcomes()).prop_map(|(which, outcome)| Step::End(which, outcome)),
        1 => (0..40_usize).prop_map(Step::Drop),
        1 => (0..REACTORS).prop_map(Step::Publish),
        2 => (0..REACTORS).prop_map(Step::Merge),
    ]
}

/// Small numbers, so that few steps go a long way.
fn limits() -> impl Strategy<Value = BreakerLimits> {
    (
        (1..=100_u32, 1..6_u32, 1000..5000_u64),
        (1..3000_u64, 1..8_u64),
        (1..4_u32, 1..4_u32, 1..3000_u64),
    )
        .prop_map(
            |((percent, calls_min, window), (open, times), (permits, successes, permit))| {
                BreakerLimits {
                    is_enabled: true,
                    failures_percent: percent,
                    calls_min,
                    window: at(window),
                    open: at(open),
                    open_max: at(open * times),
                    permits,
                    successes,
                    permit_timeout: at(permit),
                }
            },
        )
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("it is not that far")
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pass {
    Call { time: usize },
    Probe { time: usize, round: usize, name: usize, taken: u64 },
}

#[derive(Debug)]
enum State {
    Closed { forgiven: u64 },
    Open { until: u64 },
    HalfOpen { round: usize, out: Vec<usize>, last_taken: u64, successes: u32 },
}

/// What the documentation says, as slowly as it is said.
struct Slow {
    limits: BreakerLimits,
    state: State,
    /// The number of the state: each change begins another.
    time: usize,
    openings: u32,
    names: usize,
    /// Who counted what and when, in which state.
    counted: Vec<(usize, usize, u64, bool)>,
    /// What each has published, and in which bucket: the state of each call, and whether it went well.
    published: Vec<(u128, Vec<(usize, bool)>)>,
}

impl Slow {
    fn new(limits: BreakerLimits) -> Self {
        Self {
            limits,
            state: State::Closed { forgiven: 0 },
            time: 0,
            openings: 0,
            names: 0,
            counted: Vec::new(),
            published: vec![(0, Vec::new()); REACTORS],
        }
    }

    fn become_(&mut self, state: State) {
        self.state = state;
        self.time += 1;
    }

    fn open(&mut self, now: u64) -> Option<Change> {
        self.openings += 1;
        let (first, most) = (whole_ms(self.limits.open), whole_ms(self.limits.open_max));
        let length = (1..self.openings).fold(first, |length, _| (length * 2).min(most));
        let until = now + length.min(most);
        self.become_(State::Open { until });
        Some(Change::Opened { until: at(until), openings: self.openings.min(31) })
    }

    fn permit_lasts(&self) -> u64 {
        whole_ms(self.limits.permit_timeout).min(whole_ms(self.limits.open) * 1024)
    }

    fn void(&mut self, now: u64) {
        let lasts = self.permit_lasts();
        if let State::HalfOpen { round, out, last_taken, .. } = &mut self.state
            && !out.is_empty()
            && now >= *last_taken + lasts
        {
            out.clear();
            *round += 1;
        }
    }

    fn admit(&mut self, now: u64) -> Result<Pass, u64> {
        self.void(now);
        if let State::Open { until } = self.state {
            if now < until {
                return Err(until);
            }
            self.become_(State::HalfOpen {
                round: 0,
                out: Vec::new(),
                last_taken: 0,
                successes: 0,
            });
        }
        let (time, lasts) = (self.time, self.permit_lasts());
        let State::HalfOpen { round, out, last_taken, .. } = &mut self.state else {
            return Ok(Pass::Call { time });
        };
        if out.len() as u32 == self.limits.permits {
            return Err(*last_taken + lasts);
        }
        self.names += 1;
        out.push(self.names);
        *last_taken = now;
        Ok(Pass::Probe { time, round: *round, name: self.names, taken: now })
    }

    fn bucket(&self, ms: u64) -> u128 {
        at(ms).as_nanos() / (self.limits.window.as_nanos() / 10)
    }

    fn publish(&mut self, reactor: usize, now: u64) {
        self.published[reactor] = (self.bucket(now), self.counts_of(reactor, now));
    }

    fn counts_of(&self, reactor: usize, now: u64) -> Vec<(usize, bool)> {
        let is_recent = |when: u64| self.bucket(when) + 10 > self.bucket(now);
        let own =
            self.counted.iter().filter(|(who, _, when, _)| *who == reactor && is_recent(*when));
        own.map(|(_, time, _, went_well)| (*time, *went_well)).collect()
    }

    fn judge(&mut self, now: u64, evidence: &[(usize, bool)]) -> Option<Change> {
        let of_now: Vec<bool> =
            evidence.iter().filter(|(time, _)| *time == self.time).map(|(_, well)| *well).collect();
        let failures = of_now.iter().filter(|well| !**well).count();
        let State::Closed { forgiven } = self.state else { return None };
        let is_enough = of_now.len() >= self.limits.calls_min as usize && failures > 0;
        if !is_enough || failures * 100 < of_now.len() * self.limits.failures_percent as usize {
            return None;
        }
        if now >= forgiven {
            self.openings = 0;
        }
        self.open(now)
    }

    fn end(&mut self, reactor: usize, now: u64, pass: Pass, outcome: Outcome) -> Option<Change> {
        match pass {
            Pass::Call { time } => {
                let is_closed = matches!(self.state, State::Closed { .. });
                if !is_closed || time != self.time || outcome == Outcome::Ignored {
                    return None;
                }
                self.counted.push((reactor, time, now, outcome == Outcome::Success));
                if outcome == Outcome::Success {
                    return None;
                }
                let own = self.counts_of(reactor, now);
                self.judge(now, &own)
            }
            Pass::Probe { time, round, name, taken } => {
                let late = (self.permit_lasts() * 16).min(whole_ms(self.limits.open) * 2048);
                let is_of_now = time == self.time;
                let State::HalfOpen { round: present, out, successes, .. } = &mut self.state else {
                    return None;
                };
                if !is_of_now || *present - round > 15 || now >= taken + late {
                    return None;
                }
                match outcome {
                    Outcome::Failure | Outcome::DialFailure | Outcome::DialTimeout => {
                        return self.open(now);
                    }
                    Outcome::Success => *successes += 1,
                    Outcome::Ignored => {}
                }
                out.retain(|other| *other != name);
                if *successes == self.limits.successes {
                    let forgiven = now + whole_ms(self.limits.window);
                    self.become_(State::Closed { forgiven });
                    return Some(Change::Closed);
                }
                None
            }
        }
    }

    /// A drop is too late for nobody but who holds no permit any more.
    fn drop_(&mut self, now: u64, pass: Pass) {
        let change = match pass {
            Pass::Call { .. } => None,
            Pass::Probe { .. } => self.end(0, now, pass, Outcome::Ignored),
        };
        assert_eq!(change, None);
    }

    fn merge(&mut self, reactor: usize, now: u64) -> Option<Change> {
        self.void(now);
        // Of the number of a bucket, 11 bits are published.
        let is_fresh = |bucket: u128| matches!((self.bucket(now) - bucket) % 2048, 0..=3 | 2045..);
        let others = (0..REACTORS).filter(|other| *other != reactor);
        let others = others.map(|other| &self.published[other]);
        let mut evidence: Vec<_> = others
            .filter(|(bucket, _)| is_fresh(*bucket))
            .flat_map(|(_, calls)| calls.iter().copied())
            .collect();
        evidence.extend(self.counts_of(reactor, now));
        self.judge(now, &evidence)
    }

    fn standing(&self) -> Standing {
        match &self.state {
            State::Closed { .. } => Standing::Closed,
            State::Open { until } => Standing::Open { until: at(*until) },
            State::HalfOpen { out, successes, .. } => {
                Standing::HalfOpen { permits: out.len() as u32, successes: *successes }
            }
        }
    }
}

/// Both do the same steps. What was met on the way: changes, and calls refused.
fn compare(limits: BreakerLimits, steps: Vec<Step>) -> Result<[usize; 4], TestCaseError> {
    let mut room = Room::new(&limits, REACTORS);
    let mut slow = Slow::new(limits);
    let mut under_way: Vec<(usize, Ticket, Pass)> = Vec::new();
    let mut published = [0_u64; REACTORS];
    let mut now = 0;
    let [mut opened, mut closed, mut refused, mut voided] = [0; 4];
    for step in steps {
        let mut change = None;
        match step {
            Step::Pass(ms) => now += ms,
            Step::Admit(reactor) => match (room.admit(reactor, now), slow.admit(now)) {
                (Ok(ticket), Ok(pass)) => {
                    prop_assert_eq!(ticket.is_probe(), matches!(pass, Pass::Probe { .. }));
                    voided += usize::from(matches!(pass, Pass::Probe { round: 1.., .. }));
                    under_way.push((reactor, ticket, pass));
                }
                (Err(open), Err(until)) => {
                    prop_assert_eq!(open.until, at(until));
                    refused += 1;
                }
                (fast, slow) => prop_assert!(false, "{:?} beside {:?} at {}", fast, slow, now),
            },
            Step::End(which, outcome) if !under_way.is_empty() => {
                let which = which % under_way.len();
                let (reactor, ticket, pass) = under_way.swap_remove(which);
                change = room.report(reactor, now, ticket, outcome);
                prop_assert_eq!(change, slow.end(reactor, now, pass, outcome));
            }
            Step::Drop(which) if !under_way.is_empty() => {
                let which = which % under_way.len();
                let (_, ticket, pass) = under_way.swap_remove(which);
                room.state.give_back(at(now), ticket);
                slow.drop_(now, pass);
            }
            Step::End(..) | Step::Drop(_) => {}
            Step::Publish(reactor) => {
                published[reactor] = room.reactors[reactor].own_counts(at(now)).to_bits();
                slow.publish(reactor, now);
            }
            Step::Merge(reactor) => {
                let others = (0..REACTORS).filter(|other| *other != reactor);
                let counts = others.map(|other| Counts::from_bits(published[other]));
                change = room.reactors[reactor].merge(at(now), &room.state, counts);
                prop_assert_eq!(change, slow.merge(reactor, now));
            }
        }
        opened += usize::from(matches!(change, Some(Change::Opened { .. })));
        closed += usize::from(change == Some(Change::Closed));
        prop_assert_eq!(room.state.standing(), slow.standing(), "at {}", now);
        prop_assert_eq!(room.state.openings(), slow.openings.min(31));
    }
    Ok([opened, closed, refused, voided])
}

/// A model that goes nowhere finds nothing: this is how far it goes.
#[test]
fn the_model_sees_all_there_is() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut met = [0; 4];
    for _ in 0..100 {
        let cases = (limits(), prop::collection::vec(steps(), 300));
        let (limits, steps) = cases.new_tree(&mut runner).expect("there is one").current();
        let one = compare(limits, steps).expect("they agree");
        (0..4).for_each(|what| met[what] += one[what]);
    }
    let [opened, closed, refused, voided] = met;
    assert!(opened > 300 && closed > 100 && refused > 1000 && voided > 100, "{met:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn it_does_what_a_slow_one_does(
        limits in limits(), steps in prop::collection::vec(steps(), 1..300),
    ) {
        compare(limits, steps)?;
    }
}
