//! Which reactor a new client goes to.
//!
//! | policy | the kernel gives the client to | it goes on to |
//! |---|---|---|
//! | `Kernel` | a listener of the port, by a hash of the addresses | |
//! | `Cpu` | the listener of the CPU that received it | |
//! | `LeastLoaded` | as `Kernel` | one of two others, drawn, if that has clearly less to do |
//! | `RoundRobin` | as `Kernel` | each in turn |
//!
//! **Why not leave it to the kernel?** A hash is even over many clients, and not over few: of 16 connections
//! over 4 reactors one has 8 as often as not, for as long as they last. Nor does it know who is busy.
//!
//! **Why two drawn and not all?** Two are enough to be nearly as even (the power of two choices), cost two cache
//! lines however many reactors there are, and keep all acceptors from choosing the same one at the same time.
//!
//! **Why only if it has clearly less?** A hand-over costs a message and cold caches. Even counts that are off by
//! chance are not worth it, so the other has to have less by a quarter; and where there are many, by a
//! thirty-second or eight, whichever is more: then chance is a smaller part.
//!
//! **And when a reactor is full**, as the table of its ring is? Then it gets none by choice, and gives away what it
//! accepts if another has room, however little that is. If none has, it keeps its own.
//!
//! A verdict, no act: pure, from the loads as they are told.

use std::fmt;

use crate::listen::Placement;
use crate::loads::Loads;

/// The part by which another has to have less: a quarter,
const SLACK_PART: u64 = 4;
/// and where there are many, a thirty-second,
const SLACK_PART_OF_MANY: u64 = 32;
/// but no less than this.
const SLACK_OF_MANY_MIN: u64 = 8;
/// Whoever has been in one turn for this long gets no client by choice, microseconds: it would wait.
const LATE_US: u64 = 50_000;

/// The policy for one listener of one reactor; what it draws comes from the seed.
#[must_use]
pub fn policy(placement: Placement, seed: u64) -> Box<dyn Place> {
    match placement {
        Placement::Kernel | Placement::Cpu => Box::new(Stay),
        Placement::LeastLoaded => Box::new(LeastLoaded { dice: fastrand::Rng::with_seed(seed) }),
        Placement::RoundRobin => Box::new(RoundRobin { next: seed as usize }),
    }
}

/// A placement policy.
pub trait Place: fmt::Debug {
    /// The reactor that the client goes to which `at` has accepted.
    fn place(&mut self, at: usize, loads: &Loads, now_us: u64) -> usize;
}

/// The client stays where it was accepted.
#[derive(Debug)]
struct Stay;

impl Place for Stay {
    fn place(&mut self, at: usize, _: &Loads, _: u64) -> usize {
        at
    }
}

#[derive(Debug)]
struct RoundRobin {
    next: usize,
}

impl Place for RoundRobin {
    fn place(&mut self, at: usize, loads: &Loads, now_us: u64) -> usize {
        for _ in 0..loads.reactors() {
            let next = self.next % loads.reactors();
            self.next = next + 1;
            if may_get(next, loads, now_us) {
                return next;
            }
        }
        at
    }
}

#[derive(Debug)]
struct LeastLoaded {
    dice: fastrand::Rng,
}

impl LeastLoaded {
    /// Up to two others, drawn: the same one may be drawn twice.
    fn draw(&mut self, at: usize, reactors: usize) -> [usize; 2] {
        [(); 2].map(|()| {
            let other = self.dice.usize(..reactors - 1);
            if other < at { other } else { other + 1 }
        })
    }
}

impl Place for LeastLoaded {
    fn place(&mut self, at: usize, loads: &Loads, now_us: u64) -> usize {
        if loads.reactors() == 1 {
            return at;
        }
        let drawn = self.draw(at, loads.reactors());
        let others = drawn.into_iter().filter(|other| may_get(*other, loads, now_us));
        let scored = others.map(|other| (loads.score(other, now_us), other));
        let own = if loads.is_full(at) { u64::MAX } else { loads.score(at, now_us) };
        match scored.min() {
            Some((score, other)) if own > score + slack(score) => other,
            _ => at,
        }
    }
}

/// By how much more one has to have than another with `score` for a client to be handed over.
fn slack(score: u64) -> u64 {
    let of_many = (score / SLACK_PART_OF_MANY).max(SLACK_OF_MANY_MIN);
    (score / SLACK_PART).min(of_many)
}

fn may_get(reactor: usize, loads: &Loads, now_us: u64) -> bool {
    !loads.is_gone(reactor)
        && !loads.is_strained(reactor)
        && !loads.is_full(reactor)
        && loads.turning_for_us(reactor, now_us) < LATE_US
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::Business;

    /// When the busy reactor has told how busy it is.
    const NOW_US: u64 = 20_000;

    /// Places so many clients, each accepted by a reactor that the kernel draws.
    fn place_all(placement: Placement, clients: usize, loads: &Loads, dice: &mut fastrand::Rng) {
        let reactors = loads.reactors();
        let mut policies: Vec<_> = (0..reactors as u64).map(|r| policy(placement, r)).collect();
        for _ in 0..clients {
            let at = dice.usize(..reactors);
            let to = policies[at].place(at, loads, NOW_US);
            loads.add(to);
        }
    }

    fn most_to_mean(loads: &Loads) -> f64 {
        let counts: Vec<f64> =
            (0..loads.reactors()).map(|r| f64::from(loads.connections(r))).collect();
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        counts.into_iter().fold(0.0, f64::max) / mean
    }

    #[test]
    fn least_loaded_is_even_over_few_and_over_many() {
        for (reactors, clients, worst) in
            [(2, 4, 1.5), (4, 16, 1.5), (2, 10_000, 1.02), (16, 10_000, 1.05)]
        {
            for seed in 0..50 {
                let loads = Loads::new(reactors);
                let mut dice = fastrand::Rng::with_seed(seed);
                place_all(Placement::LeastLoaded, clients, &loads, &mut dice);
                let ratio = most_to_mean(&loads);
                assert!(ratio <= worst, "{clients} over {reactors}, seed {seed}: {ratio}");
            }
        }
    }

    #[test]
    fn the_kernels_choice_alone_is_not() {
        let uneven = (0..50).filter(|seed| {
            let loads = Loads::new(4);
            place_all(Placement::Kernel, 16, &loads, &mut fastrand::Rng::with_seed(*seed));
            most_to_mean(&loads) > 1.5
        });
        assert!(uneven.count() > 10);
    }

    /// Most to mean of 10,000 connections over 16 reactors, of which each in turn has ended and another come.
    fn churn(seed: u64, loads: &Loads) -> f64 {
        let mut dice = fastrand::Rng::with_seed(seed);
        place_all(Placement::LeastLoaded, 10_000, loads, &mut dice);
        for _ in 0..1000 {
            for ended in 0..10 {
                // One of all connections ends, each as likely.
                let mut at = dice.u32(..10_000 - ended);
                let reactor = (0..16).find(|reactor| {
                    let here = loads.connections(*reactor);
                    let found = at < here;
                    at = at.saturating_sub(here);
                    found
                });
                loads.remove(reactor.expect("so many there are"));
            }
            place_all(Placement::LeastLoaded, 10, loads, &mut dice);
        }
        most_to_mean(loads)
    }

    #[test]
    fn churn_leaves_it_even() {
        for seed in 0..10 {
            let ratio = churn(seed, &Loads::new(16));
            assert!(ratio <= 1.05, "seed {seed}: {ratio}");
        }
    }

    #[test]
    fn churn_leaves_it_even_beside_a_busy_reactor() {
        for seed in 0..10 {
            let loads = Loads::new(16);
            Business::default().note(&loads, 7, NOW_US, NOW_US);
            assert!(loads.score(7, NOW_US) > 0, "it is busy");
            let ratio = churn(seed, &loads);
            assert!(ratio <= 1.05, "seed {seed}: {ratio}");
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let loads = Loads::new(3);
        let mut policy = policy(Placement::RoundRobin, 7);
        let placed: Vec<_> = (0..6).map(|_| policy.place(0, &loads, 0)).collect();
        assert_eq!(placed, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn who_is_gone_or_late_or_strained_gets_none() {
        for placement in [Placement::LeastLoaded, Placement::RoundRobin] {
            let loads = Loads::new(4);
            loads.leave(1);
            loads.set_strained(3, true);
            loads.begin_turn(2, 1000);
            (0..10).for_each(|_| loads.add(0));
            let mut policy = policy(placement, 0);
            for _ in 0..20 {
                assert_eq!(policy.place(0, &loads, 1000 + LATE_US), 0, "{placement}");
            }
            let placed: Vec<_> = (0..20).map(|_| policy.place(0, &loads, 1001)).collect();
            assert!(placed.contains(&2) && !placed.contains(&1), "{placement}: {placed:?}");
            assert!(!placed.contains(&3), "{placement}: {placed:?}");
            loads.set_strained(3, false);
            assert!((0..20).any(|_| policy.place(0, &loads, 1001) == 3), "{placement}");
        }
    }

    #[test]
    fn who_is_full_gets_none_and_gives_its_own_away() {
        for placement in [Placement::LeastLoaded, Placement::RoundRobin] {
            let loads = Loads::new(2).with_room(100);
            (0..100).for_each(|_| loads.add(0));
            (0..99).for_each(|_| loads.add(1));
            let mut policy = policy(placement, 0);
            for _ in 0..4 {
                assert_eq!(
                    policy.place(0, &loads, 0),
                    1,
                    "{placement}: the other has room for one"
                );
                assert_eq!(policy.place(1, &loads, 0), 1, "{placement}");
            }
            loads.add(1);
            for at in [0, 1] {
                assert_eq!(policy.place(at, &loads, 0), at, "{placement}: none has room");
            }
        }
    }

    #[test]
    fn a_busy_reactor_with_few_connections_gets_no_more_while_others_have_none() {
        let loads = Loads::new(2);
        loads.add(0);
        let mut policy = policy(Placement::LeastLoaded, 0);
        assert_eq!(policy.place(0, &loads, 0), 1);
    }
}
