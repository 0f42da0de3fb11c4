//! What a simulated kernel does out of the ordinary, and how often.
//!
//! Drawn per seed, each off half of the time (swarm testing): a run in which everything goes wrong at once
//! hides what goes wrong only while the rest is well. Chances are in a thousand.
//!
//! All knobs at rest ([`Knobs::calm`]) is a healthy kernel and a fast network; so runs the liveness phase.

use crate::dice::Dice;

macro_rules! knobs {
    ($($(#[doc = $doc:literal])+ $name:ident: $low:literal ..= $high:literal, calm $calm:literal
        $(, $aside:ident)?;)+) => {
        /// See the module's documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Knobs {
            $($(#[doc = $doc])+ pub $name: u32,)+
        }

        impl Knobs {
            /// The names, in the order of drawing: what a reproduction line turns off.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// All of them at rest.
            #[must_use]
            pub const fn calm() -> Self {
                Self { $($name: $calm),+ }
            }

            /// Each at rest in half of all draws, anywhere in its range in the other.
            pub(crate) fn draw_all(dice: &mut Dice) -> Self {
                Self {
                    $($name: {
                        $(let dice = &mut dice.$aside(stringify!($name));)?
                        // Drawn either way, so that turning one off leaves the others as they are.
                        let (on, value) = (dice.coin(), dice.log_between($low, $high) as u32);
                        if on { value } else { $calm }
                    }),+
                }
            }

            /// Puts the knob of that name to rest; false if there is none.
            pub fn put_to_rest(&mut self, name: &str) -> bool {
                match name {
                    $(stringify!($name) => self.$name = $calm,)+
                    _ => return false,
                }
                true
            }

            /// Gives the knob of that name a value; false if there is none.
            pub fn set(&mut self, name: &str, value: u32) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)+
                    _ => return false,
                }
                true
            }

            /// Those that are not at rest, with their values.
            pub fn settings(&self) -> impl Iterator<Item = (&'static str, u32)> {
                let calm = Self::calm();
                let all = [$((stringify!($name), self.$name, calm.$name)),+];
                let turned = all.into_iter().filter(|(_, value, calm)| value != calm);
                turned.map(|(name, value, _)| (name, value))
            }

            /// The names of those that are not at rest.
            #[must_use]
            pub fn turned(&self) -> Vec<&'static str> {
                self.settings().map(|(name, _)| name).collect()
            }
        }
    };
}

knobs! {
    /// A send takes only part of what fits.
    short_send: 20..=600, calm 0;
    /// A send says EAGAIN although there is room.
    refused_send: 5..=200, calm 0;
    /// A zero-copy send fails for want of pinned memory.
    unpinned_send: 20..=500, calm 0;
    /// A receive brings less than there is.
    short_receive: 20..=600, calm 0;
    /// A multishot ends by itself, with what it brought.
    ended_multishot: 5..=300, calm 0;
    /// Bytes a socket can have waiting to be sent; and to be read.
    socket_bytes: 200..=20_000, calm 65_536;
    /// Bytes that travel at once.
    segment_bytes: 1..=3_000, calm 65_536;
    /// Microseconds that anything takes on the network, at most.
    latency_us: 50..=400_000, calm 30;
    /// An enter is interrupted, or told EAGAIN or EBUSY, and takes some of the submissions or none.
    refused_enter: 5..=300, calm 0;
    /// An enter returns although nothing happened.
    early_return: 5..=200, calm 0;
    /// What is ready is worked through in another order than it became ready.
    shuffled_work: 20..=800, calm 0;
    /// The end of a cancelled operation comes before the answer to its cancel.
    early_end: 50..=900, calm 0;
    /// What is cancelled has just completed, and says so.
    lost_cancel: 20..=700, calm 0;
    /// Microseconds that a notification takes after the bytes have gone, at most.
    notification_us: 100..=2_000_000, calm 20;
    /// A zero-copy send is copied all the same.
    copied_send: 50..=900, calm 0;
    /// Microseconds that a half-close takes on a worker thread, at most.
    shutdown_us: 100..=100_000, calm 20;
    /// An accept fails: the client has gone, or the host is short of something.
    failed_accept: 10..=300, calm 0;
    /// A socket to dial with cannot be had, nor can one be moved into a ring's table.
    failed_socket: 10..=300, calm 0;
    /// A dial is refused, unreachable, or denied.
    failed_dial: 50..=700, calm 0;
    /// A dial is never answered.
    lost_dial: 30..=400, calm 0;
    /// A poll says ready and is wrong.
    false_ready: 10..=300, calm 0;
    /// Published buffers are scribbled over.
    scribble: 50..=900, calm 0;
    /// A turn takes up to half a second.
    stalled_turn: 2..=60, calm 0;
    /// A handler panics.
    panics: 1..=20, calm 0;
    /// A peer resets instead of whatever it was about to do.
    peer_resets: 5..=120, calm 0;
    /// A reset is not told to a receive that is armed (seen on 6.18).
    silent_reset: 20..=400, calm 0;
    /// Bytes that a peer reads at once, at most.
    peer_reads: 1..=2_000, calm 65_536;
    /// Milliseconds that a peer pauses, at most.
    peer_pauses_ms: 20..=60_000, calm 1;
    // What came later is drawn aside, for the seeds in the corpus to stay what they were.
    /// What a handler keeps of a connection panics as it is made, or as it is dropped.
    failed_states: 5..=200, calm 0, aside;
    /// A vectored or zero-copy send finds no place for its segments in the ring.
    full_vectors: 20..=500, calm 0, aside;
    /// A connection ends with an errno that is no reset's: its peer is not to be reached any more.
    lost_peer: 100..=900, calm 0, aside;
    /// A send fails for want of memory, for good.
    failed_send: 1..=60, calm 0, aside;
    /// A receive that brings nothing, or fails, gives a buffer back by that.
    empty_buffer: 50..=900, calm 0, aside;
    /// Clients are handed over from reactor to reactor: 1 to who has less to do, 2 to each in turn.
    handed_over: 1..=2, calm 0, aside;
    /// Idle connections are moved to a reactor that has less to do, of listeners whose clients are handed over.
    moved: 1..=1, calm 0, aside;
    /// A turn takes up to four seconds.
    stalled_reactor: 1..=20, calm 0, aside;
    /// A message from ring to ring fails.
    failed_notice: 50..=900, calm 0, aside;
    /// Clients are let in so many a second: in half of those runs, at all listeners or at one.
    accept_rate: 20..=2_000, calm 0, aside;
    /// Clients that stay are kept in tables of the rings, of so many places each.
    table_places: 1..=64, calm 0, aside;
}

/// Knobs that only the swarm draws: what they do, a script could not tell from a fault of its handler, or has
/// not been seen of a kernel.
const SWARM_ONLY: &[&str] = &[
    "lost_peer",
    "failed_send",
    "empty_buffer",
    "handed_over",
    "moved",
    "accept_rate",
    "table_places",
];

impl Knobs {
    /// As [`draw_all`](Self::draw_all), for runs that say what they see.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut knobs = Self::draw_all(dice);
        for name in SWARM_ONLY {
            let known = knobs.put_to_rest(name);
            debug_assert!(known, "no knob is called {name}");
        }
        knobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_knob_is_at_rest_about_half_of_the_time() {
        let mut at_rest = std::collections::BTreeMap::new();
        for seed in 0..1000 {
            let turned = Knobs::draw_all(&mut Dice::new(seed)).turned();
            for name in Knobs::NAMES.iter().filter(|name| !turned.contains(name)) {
                *at_rest.entry(*name).or_insert(0) += 1;
            }
        }
        for name in Knobs::NAMES {
            assert!((420..580).contains(&at_rest[name]), "{name}: {}", at_rest[name]);
        }
    }

    #[test]
    fn putting_one_to_rest_leaves_the_others() {
        let drawn = Knobs::draw_all(&mut Dice::new(7));
        for name in drawn.turned() {
            let mut knobs = drawn;
            assert!(knobs.put_to_rest(name));
            let left: Vec<_> = drawn.turned().into_iter().filter(|other| *other != name).collect();
            assert_eq!(knobs.turned(), left);
        }
        assert!(!Knobs::calm().put_to_rest("no_such_knob"));
        assert!(Knobs::calm().turned().is_empty());
    }
}
