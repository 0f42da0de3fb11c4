//! What a rule says, and whether that makes sense.
//!
//! Is: [`Rule`], [`Rules`] and the effects they have, as values. Is not: how they are written (`faults/text.rs`), nor
//! which connection has which (`Plan`).

use std::time::Duration;

use super::values::DURATION_MAX;

/// A share of connections. Kept as millionths, so that it is written and read without a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

/// Millionths in one.
const WHOLE: u32 = 1_000_000;

impl Share {
    /// Every connection. What a rule has that says nothing of it.
    pub const ALL: Self = Self(WHOLE);
    /// No connection: a rule that is there, and is not applied.
    pub const NONE: Self = Self(0);

    /// So many of one, from 0 to 1, to the millionth.
    ///
    /// # Errors
    /// [`RuleError::Ratio`], for anything else.
    pub fn new(ratio: f64) -> Result<Self, RuleError> {
        match (0.0..=1.0).contains(&ratio) {
            true => Ok(Self((ratio * f64::from(WHOLE)).round() as u32)),
            false => Err(RuleError::Ratio { ratio: ratio.to_string() }),
        }
    }

    /// So many of a million; more than that are all.
    #[must_use]
    pub const fn of_millionths(millionths: u32) -> Self {
        Self(if millionths > WHOLE { WHOLE } else { millionths })
    }

    /// So many of a million.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a connection is of the share.
    pub(super) fn draw(self, rng: &mut fastrand::Rng) -> bool {
        rng.u32(0..WHOLE) < self.0
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the upstream.
    To,
    /// From the upstream to the client.
    From,
    /// Each of the two by itself: counts and times are of one direction. The default.
    #[default]
    Both,
}

/// When something happens to a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// Behind so many bytes of this direction.
    Bytes(u64),
    /// So long after the relay began.
    Time(Duration),
}

impl After {
    /// At once.
    pub const NOTHING: Self = Self::Bytes(0);
}

/// A wait that differs from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delay {
    /// At least so long.
    pub least: Duration,
    /// And up to so much longer, drawn evenly. Zero: always the same.
    pub jitter: Duration,
}

impl Delay {
    /// Always so long.
    #[must_use]
    pub const fn of(least: Duration) -> Self {
        Self { least, jitter: Duration::ZERO }
    }

    /// Up to so much longer.
    #[must_use]
    pub const fn with_jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// Never longer than this.
    pub(super) fn most(self) -> Duration {
        self.least.saturating_add(self.jitter)
    }

    pub(super) fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        if self.jitter.is_zero() {
            return self.least;
        }
        let nanos = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        self.least.saturating_add(Duration::from_nanos(rng.u64(0..=nanos)))
    }
}

/// What happens to a name that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolveEffect {
    /// There is no such name (NXDOMAIN).
    NotFound,
    /// No name server answers, and after so long it is given up.
    Timeout(Duration),
    /// The answer comes later.
    Delay(Delay),
}

impl ResolveEffect {
    /// How long a resolver waits that is not told: glibc's `timeout` of resolv.conf(5).
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

/// What happens to a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectEffect {
    /// The host refuses it.
    Refuse,
    /// Nobody answers: the dial's own timeout ends it, or, after this long, the kernel.
    Blackhole(Duration),
    /// The dial is begun later. The time counts for its timeout.
    Delay(Delay),
}

impl ConnectEffect {
    /// When Linux itself gives a dial up that nobody answers: `net.ipv4.tcp_syn_retries` 6, which is its default.
    pub const KERNEL_GIVES_UP: Duration = Duration::from_secs(127);
}

/// What happens to a client that has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptEffect {
    /// It is served later.
    Delay(Delay),
    /// It is reset at once.
    Fail,
}

/// What happens to the bytes of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoEffect {
    /// All comes later, in its order: the FIN too.
    Latency(Delay),
    /// No more bytes each second than these, and a burst.
    Bandwidth {
        /// Bytes each second. More than zero.
        bytes_per_s: u64,
        /// Bytes that may pass at once when there was nothing to pass before, the first of all among them. `None`: what
        /// passes in 50 ms †.
        burst_bytes: Option<u64>,
    },
    /// Bytes pass in pieces, with a pause between two.
    Slice {
        /// No piece is smaller, unless no more bytes are there. More than zero.
        least_bytes: u64,
        /// None is larger; the size is drawn evenly.
        most_bytes: u64,
        /// From one piece to the next. At least 1 ms, or the kernel would put them together again.
        pause: Duration,
    },
    /// Nothing passes any more, the FIN neither.
    Stall {
        /// From when on.
        after: After,
        /// For how long; `None`: for ever.
        lasts: Option<Duration>,
    },
    /// Both connections are reset.
    Reset {
        /// When. Behind bytes, the receiver gets exactly these first.
        after: After,
    },
    /// Both connections are closed in order.
    Close {
        /// When. Behind bytes, the receiver gets exactly these first.
        after: After,
    },
    /// The FIN comes later than the bytes before it.
    SlowClose {
        /// By so much.
        delay: Duration,
    },
}

/// What a rule does to the connections that it applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// To the lookup of an upstream's name.
    Resolve(ResolveEffect),
    /// To a dial.
    Connect(ConnectEffect),
    /// To a client that has connected.
    Accept(AcceptEffect),
    /// To the bytes of a relay.
    Io {
        /// Which of them.
        direction: Direction,
        /// What, one behind the other: what the first lets pass comes to the second.
        effects: Vec<IoEffect>,
    },
}

impl Effect {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "resolve",
            Self::Connect(_) => "connect",
            Self::Accept(_) => "accept",
            Self::Io { .. } => "io",
        }
    }
}

/// Some connections, and what happens to them. It is written as a line: see the [module](super).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Only connections of this listener; `None`: of any.
    pub listener: Option<String>,
    /// Only connections to this upstream; `None`: to any.
    pub upstream: Option<String>,
    /// Only so many of those. Drawn for each connection.
    pub share: Share,
    /// What happens to them.
    pub effect: Effect,
}

impl Rule {
    /// For all connections.
    #[must_use]
    pub const fn new(effect: Effect) -> Self {
        Self { listener: None, upstream: None, share: Share::ALL, effect }
    }

    /// What happens to all bytes in this direction.
    #[must_use]
    pub fn io(direction: Direction, effects: impl Into<Vec<IoEffect>>) -> Self {
        Self::new(Effect::Io { direction, effects: effects.into() })
    }

    /// Whether it makes sense, and can be written as a line.
    ///
    /// # Errors
    /// [`RuleError`], with the first thing that does not.
    pub fn check(&self) -> Result<(), RuleError> {
        for name in [&self.listener, &self.upstream].into_iter().flatten() {
            check_name(name)?;
        }
        let kind = self.effect.kind();
        let foreign = |key| Err(RuleError::Foreign { kind, key });
        match &self.effect {
            Effect::Resolve(_) | Effect::Connect(_) if self.listener.is_some() => {
                foreign("listener")
            }
            Effect::Accept(_) if self.upstream.is_some() => foreign("upstream"),
            Effect::Resolve(ResolveEffect::Delay(delay))
            | Effect::Connect(ConnectEffect::Delay(delay))
            | Effect::Accept(AcceptEffect::Delay(delay)) => check_delay(*delay, "delay"),
            Effect::Resolve(ResolveEffect::Timeout(span)) => check_span(*span),
            Effect::Connect(ConnectEffect::Blackhole(span)) => check_some(*span, "blackhole"),
            Effect::Resolve(ResolveEffect::NotFound)
            | Effect::Connect(ConnectEffect::Refuse)
            | Effect::Accept(AcceptEffect::Fail) => Ok(()),
            Effect::Io { effects, .. } if effects.is_empty() => Err(RuleError::Nothing { kind }),
            Effect::Io { effects, .. } => effects.iter().try_for_each(check_io),
        }
    }
}

fn check_name(name: &str) -> Result<(), RuleError> {
    let is_sound = |c: char| !c.is_whitespace() && !c.is_control() && c != ';';
    if name.is_empty() || name == "*" || !name.chars().all(is_sound) {
        return Err(RuleError::Name { name: name.to_owned() });
    }
    Ok(())
}

fn check_span(span: Duration) -> Result<(), RuleError> {
    match span > DURATION_MAX {
        true => Err(RuleError::TooLong { text: format!("{span:?}") }),
        false => Ok(()),
    }
}

fn check_some(span: Duration, word: &'static str) -> Result<(), RuleError> {
    match span.is_zero() {
        true => Err(RuleError::Zero { word }),
        false => check_span(span),
    }
}

fn check_delay(delay: Delay, word: &'static str) -> Result<(), RuleError> {
    check_span(delay.least)?;
    check_span(delay.jitter)?;
    check_some(delay.most().min(DURATION_MAX), word)
}

fn check_after(after: After) -> Result<(), RuleError> {
    match after {
        After::Bytes(_) => Ok(()),
        After::Time(span) => check_span(span),
    }
}

fn check_io(effect: &IoEffect) -> Result<(), RuleError> {
    match *effect {
        IoEffect::Latency(delay) => check_delay(delay, "latency"),
        IoEffect::Bandwidth { bytes_per_s: 0, .. } => Err(RuleError::NoBandwidth),
        IoEffect::Bandwidth { burst_bytes: Some(0), .. } => Err(RuleError::Zero { word: "burst" }),
        IoEffect::Bandwidth { .. } => Ok(()),
        IoEffect::Slice { least_bytes: least, most_bytes: most, .. }
            if least == 0 || least > most =>
        {
            Err(RuleError::Slice { least, most })
        }
        IoEffect::Slice { pause, .. } => match pause < super::PAUSE_MIN {
            true => Err(RuleError::Pause { pause }),
            false => check_span(pause),
        },
        IoEffect::Stall { after, lasts } => {
            lasts.map_or(Ok(()), |span| check_some(span, "for"))?;
            check_after(after)
        }
        IoEffect::Reset { after } | IoEffect::Close { after } => check_after(after),
        IoEffect::SlowClose { delay } => check_some(delay, "slow-close"),
    }
}

/// Rules, in the order in which they are applied. They are written one a line: see the [module](super).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Those, in their order.
    ///
    /// # Errors
    /// [`RulesError`], with the first that makes no sense.
    pub fn new(rules: impl Into<Vec<Rule>>) -> Result<Self, RulesError> {
        let rules = Self(rules.into());
        rules.check()?;
        Ok(rules)
    }

    /// None at all: nothing is done to anybody.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether all make sense. Those that were read, and those of [`new`](Self::new), do.
    ///
    /// # Errors
    /// [`RulesError`], with the first that does not.
    pub fn check(&self) -> Result<(), RulesError> {
        for (index, rule) in self.0.iter().enumerate() {
            rule.check().map_err(|cause| RulesError {
                number: index + 1,
                text: rule.to_string(),
                cause,
            })?;
        }
        Ok(())
    }

    pub(super) fn of_read(rules: Vec<Rule>) -> Self {
        Self(rules)
    }
}

impl std::ops::Deref for Rules {
    type Target = [Rule];
    fn deref(&self) -> &[Rule] {
        &self.0
    }
}

/// Why a text is no rule, or a rule is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It does not begin as a rule does.
    #[error("`{word}` is no kind of fault; begin with resolve, connect, accept or io")]
    Kind {
        /// What it begins with.
        word: String,
    },
    /// A word that has no meaning there.
    #[error("`{word}` is not known in a rule of {kind}; it knows {known}")]
    Word {
        /// The kind of rule.
        kind: &'static str,
        /// The word.
        word: String,
        /// Those it may have.
        known: &'static str,
    },
    /// A word that is there already.
    #[error("`{word}` is said twice; say it once")]
    Twice {
        /// The word.
        word: String,
    },
    /// A word that says more of another, which is not before it.
    #[error("`{word}` stands behind nothing that it belongs to; write it behind {owner}")]
    Alone {
        /// The word.
        word: &'static str,
        /// What it says more of.
        owner: &'static str,
    },
    /// A word that needs a value.
    #[error("`{word}` has no value; write it as in {example}")]
    NoValue {
        /// The word.
        word: &'static str,
        /// One that has a value.
        example: &'static str,
    },
    /// A word that takes none.
    #[error("`{word}` takes no value, and has `{value}`; write `{word}` alone")]
    Value {
        /// The word.
        word: &'static str,
        /// What stands behind it.
        value: String,
    },
    /// No time.
    #[error("`{text}` is no duration; write a number and a unit, such as 250ms, 1.5s or 5m")]
    Duration {
        /// What was read.
        text: String,
    },
    /// Too much of it.
    #[error("{text} is too long; 1000h is the most")]
    TooLong {
        /// What was read, or given.
        text: String,
    },
    /// No size.
    #[error(
        "`{text}` is no size; write whole numbers with a unit: B, KiB, MiB or GiB, such as 64KiB"
    )]
    Size {
        /// What was read.
        text: String,
    },
    /// No rate.
    #[error("`{text}` is no rate; write a size each second, such as 64KiB/s")]
    Rate {
        /// What was read.
        text: String,
    },
    /// Neither time nor bytes.
    #[error("`{text}` is neither bytes nor a time; write, for example, 64KiB or 2s")]
    After {
        /// What was read.
        text: String,
    },
    /// No share.
    #[error(
        "`{text}` is no share of connections; write a percentage up to 100%, such as 10% or 0.5%"
    )]
    Share {
        /// What was read.
        text: String,
    },
    /// No share either.
    #[error("{ratio} is no share of connections; give a number from 0 to 1")]
    Ratio {
        /// What was given.
        ratio: String,
    },
    /// No direction.
    #[error("`{text}` is no direction; write to, from or both, as the upstream sees it")]
    Direction {
        /// What was read.
        text: String,
    },
    /// Two effects where one can be.
    #[error("`{word}` is a second effect in a rule of {kind}; write a rule for each")]
    Second {
        /// The kind of rule.
        kind: &'static str,
        /// The second.
        word: String,
    },
    /// No effect.
    #[error("a rule of {kind} without an effect; say what happens, or leave the rule out")]
    Nothing {
        /// The kind of rule.
        kind: &'static str,
    },
    /// A name that cannot be written.
    #[error(
        "`{name}` cannot name a listener or an upstream; use no blanks or semicolons, and leave it out for any"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// It would never apply.
    #[error("a rule of {kind} cannot know its {key}; leave `{key}` out")]
    Foreign {
        /// The kind of rule.
        kind: &'static str,
        /// What it names.
        key: &'static str,
    },
    /// It would do nothing, or for no time.
    #[error("`{word}` of nothing does nothing; give it more than zero, or leave it out")]
    Zero {
        /// The word.
        word: &'static str,
    },
    /// It would be another.
    #[error("a bandwidth of nothing; say `stall` for no bytes at all")]
    NoBandwidth,
    /// Pieces of no size.
    #[error("slices of {least} to {most} bytes; give at least 1 byte, the smaller first")]
    Slice {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// Pieces that are not apart.
    #[error(
        "a pause of {pause:?} between slices; give at least 1ms, or the kernel puts them together again"
    )]
    Pause {
        /// The pause.
        pause: Duration,
    },
}

/// Which of some rules is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {number}, `{text}`: {cause}")]
pub struct RulesError {
    /// From one on. Of a text, blank lines and comments do not count.
    pub number: usize,
    /// The rule.
    pub text: String,
    /// What is wrong with it.
    #[source]
    pub cause: RuleError,
}
