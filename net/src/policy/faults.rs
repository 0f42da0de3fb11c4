//! Faults on purpose: which connection has which, and what they do to its bytes.
//!
//! ```
//! use slipring::policy::faults::{Plan, Rules};
//!
//! let rules: Rules = "
//!     ## A slow and narrow way from one upstream in ten connections; another refuses.
//!     io upstream=web share=10% direction=from latency=100ms jitter=20ms bandwidth=64KiB/s
//!     connect upstream=db refuse
//! ".parse()?;
//! let mut rng = fastrand::Rng::with_seed(7);
//! let plan = Plan::draw(&rules, None, Some("db"), &mut rng);
//! assert!(plan.connect.end.is_some() && plan.from_upstream.is_empty());
//! # Ok::<(), slipring::policy::faults::RulesError>(())
//! ```
//!
//! Is: [`Rules`] as values and as texts (`faults/rules.rs`, `faults/text.rs`, `faults/values.rs`), the draw for one
//! connection ([`Plan`], here), and the way of a direction's bytes ([`Course`], `faults/course.rs`, an effect each in
//! `faults/stage.rs`). Is not: who moves the bytes; `crate::faults` does. So the same rules hold in a proxy, in a test
//! and under simulation, and a seed repeats a run.
//!
//! # A rule
//! One a line, or separated by semicolons; lines that begin with `#` are left out. First the kind, then, in any order,
//! whom it is for, and what happens; what says more of an effect stands behind it.
//!
//! | kind | whom it is for | what happens |
//! |---|---|---|
//! | `resolve` | `upstream=` `share=` | `notfound`, `timeout[=5s]`, `delay=D [jitter=D]` |
//! | `connect` | `upstream=` `share=` | `refuse`, `blackhole[=127s]`, `delay=D [jitter=D]` |
//! | `accept` | `listener=` `share=` | `fail`, `delay=D [jitter=D]` |
//! | `io` | `listener=` `upstream=` `share=` `direction=to\|from\|both` | one or more of those below, in their order |
//!
//! | of `io` | |
//! |---|---|
//! | `latency=D [jitter=D]` | all comes later, by `D` to `D + jitter`, in its order |
//! | `bandwidth=S/s [burst=S]` | no more than that in any time, and a burst; by default that of 50 ms |
//! | `slice=S[..S] [pause=D]` | in pieces of that size, so far apart; 1 ms by default, and at least |
//! | `stall[=S\|D] [for=D]` | behind so many bytes, or after so long, nothing passes, for so long or for ever |
//! | `reset[=S\|D]` | behind so many bytes, or after so long, both connections are reset |
//! | `close[=S\|D]` | the same, and both are closed in order |
//! | `slow-close=D` | the FIN comes later |
//!
//! `D` is a duration (`250ms`, `1.5s`), `S` a size (`512B`, `64KiB`), a share is in percent. Without a `listener` or an
//! `upstream` a rule is for all, without a `share` for all connections of those, and without a `direction` for both,
//! each by itself. Rules that apply to the same connection and direction form a chain, in the order given.
//!
//! # Toxiproxy's toxics as rules
//! `downstream` is `direction=from`, `upstream` is `direction=to`; `toxicity=0.1` is `share=10%`.
//!
//! | toxic | rules |
//! |---|---|
//! | `latency` latency L, jitter J | `io latency=(L-J) jitter=(2J)`: a toxic draws from L - J to L + J |
//! | `down` | `accept fail` for who comes to a proxy, `connect refuse` for who dials through [`Faults::dial`] |
//! | `bandwidth` rate R (KB/s) | `io bandwidth=R KiB/s` |
//! | `slow_close` delay D | `io slow-close=D` |
//! | `timeout` timeout T | `io stall close=T`; with T = 0 `io stall` |
//! | `reset_peer` timeout T | `io reset=T`; with T = 0 `io reset` |
//! | `slicer` average A, variation V, delay D | `io slice=(A-V)..(A+V) pause=D` |
//! | `limit_data` bytes B | `io close=B` |
//!
//! Two differences: rules hold for connections that begin, so who is connected keeps what was drawn for it; and `fail`
//! resets who has connected, since only a listener that is closed can refuse.
//!
//! [`Faults::dial`]: crate::faults::Faults::dial

use std::time::Duration;

mod course;
mod rules;
mod stage;
mod text;
mod values;

pub use course::{Course, Step};
pub use rules::{
    AcceptEffect, After, ConnectEffect, Delay, Direction, Effect, IoEffect, ResolveEffect, Rule,
    RuleError, Rules, RulesError, Share,
};

/// The least pause between two slices: timers count milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How something that takes one step, as a dial does, goes for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before<E> {
    /// It comes so much later; zero: at once.
    pub delay: Duration,
    /// And then fails like this; `None`: goes on.
    pub end: Option<E>,
    /// The rules that say so, by their places from zero on.
    pub rules: Vec<usize>,
}

impl<E> Before<E> {
    const fn nothing() -> Self {
        Self { delay: Duration::ZERO, end: None, rules: Vec::new() }
    }

    /// Whether nothing happens.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.rules.is_empty()
    }

    /// It is delayed, unless it has failed before.
    fn add_delay(&mut self, rule: usize, delay: Duration) {
        if self.end.is_none() {
            self.delay = self.delay.saturating_add(delay);
            self.rules.push(rule);
        }
    }

    fn add_end(&mut self, rule: usize, end: E) {
        if self.end.is_none() {
            self.end = Some(end);
            self.rules.push(rule);
        }
    }
}

/// Why a lookup fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolveEnd {
    /// There is no such name.
    NotFound,
    /// Given up after so long, from the delay on.
    Timeout(Duration),
}

/// Why a dial fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectEnd {
    /// Refused.
    Refused,
    /// Nobody answers; the kernel gives up after so long, from the delay on.
    Blackhole(Duration),
}

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptEnd {
    /// It is reset.
    Failed,
}

/// What happens to one connection, from its name's lookup to its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// To the lookup of its upstream's name.
    pub resolve: Before<ResolveEnd>,
    /// To the dial.
    pub connect: Before<ConnectEnd>,
    /// To the client, before it is served.
    pub accept: Before<AcceptEnd>,
    /// To the bytes for the upstream.
    pub to_upstream: Vec<IoEffect>,
    /// To the bytes from the upstream.
    pub from_upstream: Vec<IoEffect>,
    /// The rules for bytes that apply, by their places from zero on.
    pub io_rules: Vec<usize>,
    seed: u64,
}

impl Plan {
    /// Draws for one connection of this listener to this upstream; `None`: not known, or there is none. A rule that
    /// names one applies where it is known.
    ///
    /// Whatever the rules and the names are, the same is drawn from `rng` for each rule: whether one applies does not
    /// depend on those beside it.
    #[must_use]
    pub fn draw(
        rules: &Rules,
        listener: Option<&str>,
        upstream: Option<&str>,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut plan = Self {
            resolve: Before::nothing(),
            connect: Before::nothing(),
            accept: Before::nothing(),
            to_upstream: Vec::new(),
            from_upstream: Vec::new(),
            io_rules: Vec::new(),
            seed: rng.u64(..),
        };
        for (number, rule) in rules.iter().enumerate() {
            let mut rng = rng.fork();
            let names = |wanted: &Option<String>, is: Option<&str>| {
                wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
            };
            let is_meant = names(&rule.listener, listener) && names(&rule.upstream, upstream);
            if rule.share.draw(&mut rng) && is_meant {
                plan.add(number, &rule.effect, &mut rng);
            }
        }
        plan
    }

    fn add(&mut self, rule: usize, effect: &Effect, rng: &mut fastrand::Rng) {
        match effect {
            Effect::Resolve(ResolveEffect::Delay(delay)) => {
                self.resolve.add_delay(rule, delay.draw(rng));
            }
            Effect::Resolve(ResolveEffect::NotFound) => {
                self.resolve.add_end(rule, ResolveEnd::NotFound);
            }
            Effect::Resolve(ResolveEffect::Timeout(span)) => {
                self.resolve.add_end(rule, ResolveEnd::Timeout(*span));
            }
            Effect::Connect(ConnectEffect::Delay(delay)) => {
                self.connect.add_delay(rule, delay.draw(rng));
            }
            Effect::Connect(ConnectEffect::Refuse) => {
                self.connect.add_end(rule, ConnectEnd::Refused);
            }
            Effect::Connect(ConnectEffect::Blackhole(span)) => {
                self.connect.add_end(rule, ConnectEnd::Blackhole(*span));
            }
            Effect::Accept(AcceptEffect::Delay(delay)) => {
                self.accept.add_delay(rule, delay.draw(rng));
            }
            Effect::Accept(AcceptEffect::Fail) => self.accept.add_end(rule, AcceptEnd::Failed),
            Effect::Io { direction, effects } => {
                if *direction != Direction::From {
                    self.to_upstream.extend_from_slice(effects);
                }
                if *direction != Direction::To {
                    self.from_upstream.extend_from_slice(effects);
                }
                self.io_rules.push(rule);
            }
        }
    }

    /// The two directions, as they begin now: to the upstream, and from it.
    #[must_use]
    pub fn courses(&self, now: Duration) -> (Course, Course) {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let to = Course::new(&self.to_upstream, now, rng.fork());
        (to, Course::new(&self.from_upstream, now, rng.fork()))
    }
}

#[cfg(test)]
mod tests;
