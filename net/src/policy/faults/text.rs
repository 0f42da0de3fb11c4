//! Rules as texts, and back: see the table in `faults`.
//!
//! What `Display` writes, `FromStr` reads, and it comes to the same rule.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::rules::{
    AcceptEffect, After, ConnectEffect, Delay, Direction, Effect, IoEffect, ResolveEffect, Rule,
    RuleError, Rules, RulesError, Share,
};
use super::values::{Percent, Size, Time, duration, rate, share, size};

// ---------------------------------------------------------------------------------------- writing

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Percent(self.millionths()).fmt(f)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::To => "to",
            Self::From => "from",
            Self::Both => "both",
        })
    }
}

/// A delay behind its word.
struct Delayed<'a>(&'a str, Delay);

impl fmt::Display for Delayed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(word, Delay { least, jitter }) = self;
        write!(f, "{word}={}", Time(*least))?;
        match jitter.is_zero() {
            true => Ok(()),
            false => write!(f, " jitter={}", Time(*jitter)),
        }
    }
}

/// When, behind its word; at once is the word alone.
struct Happens<'a>(&'a str, After);

impl fmt::Display for Happens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            After::NOTHING => f.write_str(self.0),
            After::Bytes(bytes) => write!(f, "{}={}", self.0, Size(bytes)),
            After::Time(span) => write!(f, "{}={}", self.0, Time(span)),
        }
    }
}

impl fmt::Display for ResolveEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("notfound"),
            Self::Timeout(span) => write!(f, "timeout={}", Time(*span)),
            Self::Delay(delay) => Delayed("delay", *delay).fmt(f),
        }
    }
}

impl fmt::Display for ConnectEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Blackhole(span) => write!(f, "blackhole={}", Time(*span)),
            Self::Delay(delay) => Delayed("delay", *delay).fmt(f),
        }
    }
}

impl fmt::Display for AcceptEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail => f.write_str("fail"),
            Self::Delay(delay) => Delayed("delay", *delay).fmt(f),
        }
    }
}

impl fmt::Display for IoEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Latency(delay) => Delayed("latency", delay).fmt(f),
            Self::Bandwidth { bytes_per_s, burst_bytes } => {
                write!(f, "bandwidth={}/s", Size(bytes_per_s))?;
                burst_bytes.map_or(Ok(()), |burst| write!(f, " burst={}", Size(burst)))
            }
            Self::Slice { least_bytes, most_bytes, pause } => {
                write!(f, "slice={}", Size(least_bytes))?;
                if most_bytes != least_bytes {
                    write!(f, "..{}", Size(most_bytes))?;
                }
                write!(f, " pause={}", Time(pause))
            }
            Self::Stall { after, lasts } => {
                Happens("stall", after).fmt(f)?;
                lasts.map_or(Ok(()), |span| write!(f, " for={}", Time(span)))
            }
            Self::Reset { after } => Happens("reset", after).fmt(f),
            Self::Close { after } => Happens("close", after).fmt(f),
            Self::SlowClose { delay } => write!(f, "slow-close={}", Time(delay)),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.effect.kind())?;
        if let Some(listener) = &self.listener {
            write!(f, " listener={listener}")?;
        }
        if let Some(upstream) = &self.upstream {
            write!(f, " upstream={upstream}")?;
        }
        if self.share != Share::ALL {
            write!(f, " share={}", self.share)?;
        }
        match &self.effect {
            Effect::Resolve(effect) => write!(f, " {effect}"),
            Effect::Connect(effect) => write!(f, " {effect}"),
            Effect::Accept(effect) => write!(f, " {effect}"),
            Effect::Io { direction, effects } => {
                if *direction != Direction::Both {
                    write!(f, " direction={direction}")?;
                }
                effects.iter().try_for_each(|effect| write!(f, " {effect}"))
            }
        }
    }
}

/// A line for each.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{rule}")?;
        }
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------- reading

impl FromStr for Rules {
    type Err = RulesError;

    /// Rules are separated by ends of lines or semicolons; blank ones, and lines that begin with `#`, are left out.
    fn from_str(text: &str) -> Result<Self, RulesError> {
        let mut rules = Vec::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        for text in lines.flat_map(|line| line.split(';')).map(str::trim) {
            if text.is_empty() {
                continue;
            }
            let rule = text.parse().map_err(|cause| RulesError {
                number: rules.len() + 1,
                text: text.to_owned(),
                cause,
            })?;
            rules.push(rule);
        }
        Ok(Self::of_read(rules))
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut words = text.split_whitespace();
        let kind = Kind::of(words.next().unwrap_or_default())?;
        let mut draft = Draft::new(kind);
        for word in words {
            draft.read(word)?;
        }
        let rule = draft.rule()?;
        rule.check()?;
        Ok(rule)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Resolve,
    Connect,
    Accept,
    Io,
}

impl Kind {
    fn of(word: &str) -> Result<Self, RuleError> {
        Ok(match word {
            "resolve" => Self::Resolve,
            "connect" => Self::Connect,
            "accept" => Self::Accept,
            "io" => Self::Io,
            _ => return Err(RuleError::Kind { word: word.to_owned() }),
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Io => "io",
        }
    }

    fn known(self) -> &'static str {
        match self {
            Self::Resolve => "upstream, share, notfound, timeout, delay and jitter",
            Self::Connect => "upstream, share, refuse, blackhole, delay and jitter",
            Self::Accept => "listener, share, fail, delay and jitter",
            Self::Io => {
                "listener, upstream, share, direction, latency, jitter, bandwidth, burst, slice, pause, stall, for, \
                 reset, close and slow-close"
            }
        }
    }
}

/// An effect of any kind.
#[derive(Clone, Copy, Debug)]
enum Any {
    Resolve(ResolveEffect),
    Connect(ConnectEffect),
    Accept(AcceptEffect),
    Io(IoEffect),
}

/// A rule as far as it was read.
struct Draft {
    kind: Kind,
    listener: Option<String>,
    upstream: Option<String>,
    share: Option<Share>,
    direction: Option<Direction>,
    effects: Vec<Any>,
    /// What more was said of the last of them.
    details: Vec<&'static str>,
}

/// A word and what stands behind its `=`.
#[derive(Clone, Copy)]
struct Said<'a> {
    word: &'a str,
    value: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn value(self, word: &'static str, example: &'static str) -> Result<&'a str, RuleError> {
        let value = self.value.filter(|value| !value.is_empty());
        value.ok_or(RuleError::NoValue { word, example })
    }

    fn duration(self, word: &'static str, example: &'static str) -> Result<Duration, RuleError> {
        duration(self.value(word, example)?)
    }

    /// Nothing behind it.
    fn alone(self, word: &'static str) -> Result<(), RuleError> {
        match self.value {
            None => Ok(()),
            Some(value) => Err(RuleError::Value { word, value: value.to_owned() }),
        }
    }

    fn after(self, word: &'static str, example: &'static str) -> Result<After, RuleError> {
        if self.value.is_none() {
            return Ok(After::NOTHING);
        }
        let text = self.value(word, example)?;
        match (size(text), duration(text)) {
            (Ok(bytes), _) => Ok(After::Bytes(bytes)),
            (_, Ok(span)) => Ok(After::Time(span)),
            (_, Err(error @ RuleError::TooLong { .. })) => Err(error),
            _ => Err(RuleError::After { text: text.to_owned() }),
        }
    }

    fn slice(self) -> Result<IoEffect, RuleError> {
        let text = self.value("slice", "slice=64B or slice=32B..96B")?;
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let (least_bytes, most_bytes) = (size(least)?, size(most)?);
        Ok(IoEffect::Slice { least_bytes, most_bytes, pause: super::PAUSE_MIN })
    }
}

/// Fills what is still open.
fn once<T>(place: &mut Option<T>, word: &str, value: T) -> Result<(), RuleError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(RuleError::Twice { word: word.to_owned() }),
    }
}

fn name(said: Said<'_>, word: &'static str) -> Result<String, RuleError> {
    said.value(word, "upstream=web").map(str::to_owned)
}

impl Draft {
    fn new(kind: Kind) -> Self {
        let (effects, details) = (Vec::new(), Vec::new());
        Self {
            kind,
            listener: None,
            upstream: None,
            share: None,
            direction: None,
            effects,
            details,
        }
    }

    fn read(&mut self, text: &str) -> Result<(), RuleError> {
        let (word, value) = match text.split_once('=') {
            Some((word, value)) => (word, Some(value)),
            None => (text, None),
        };
        let said = Said { word, value };
        match word {
            "listener" => once(&mut self.listener, word, name(said, "listener")?),
            "upstream" => once(&mut self.upstream, word, name(said, "upstream")?),
            "share" => {
                let value = share(said.value("share", "share=10%")?)?;
                once(&mut self.share, word, Share::of_millionths(value))
            }
            "direction" if self.kind == Kind::Io => {
                let value = match said.value("direction", "direction=from")? {
                    "to" => Direction::To,
                    "from" => Direction::From,
                    "both" => Direction::Both,
                    text => return Err(RuleError::Direction { text: text.to_owned() }),
                };
                once(&mut self.direction, word, value)
            }
            "jitter" => {
                let span = said.duration("jitter", "jitter=20ms")?;
                self.detail("jitter", "latency=.. or delay=..", |effect| {
                    effect.delay_mut().map(|delay| delay.jitter = span)
                })
            }
            "burst" if self.kind == Kind::Io => {
                let bytes = size(said.value("burst", "burst=16KiB")?)?;
                self.detail("burst", "bandwidth=..", |effect| match effect {
                    Any::Io(IoEffect::Bandwidth { burst_bytes, .. }) => {
                        *burst_bytes = Some(bytes);
                        Some(())
                    }
                    _ => None,
                })
            }
            "pause" if self.kind == Kind::Io => {
                let span = said.duration("pause", "pause=10ms")?;
                self.detail("pause", "slice=..", |effect| match effect {
                    Any::Io(IoEffect::Slice { pause, .. }) => {
                        *pause = span;
                        Some(())
                    }
                    _ => None,
                })
            }
            "for" if self.kind == Kind::Io => {
                let span = said.duration("for", "for=3s")?;
                self.detail("for", "stall or stall=..", |effect| match effect {
                    Any::Io(IoEffect::Stall { lasts, .. }) => {
                        *lasts = Some(span);
                        Some(())
                    }
                    _ => None,
                })
            }
            _ => {
                let effect = self.effect(said)?;
                if self.kind != Kind::Io && !self.effects.is_empty() {
                    let kind = self.kind.word();
                    return Err(RuleError::Second { kind, word: word.to_owned() });
                }
                self.effects.push(effect);
                self.details.clear();
                Ok(())
            }
        }
    }

    /// More of the effect that was read last.
    fn detail(
        &mut self,
        word: &'static str,
        owner: &'static str,
        set: impl FnOnce(&mut Any) -> Option<()>,
    ) -> Result<(), RuleError> {
        if self.details.contains(&word) {
            return Err(RuleError::Twice { word: word.to_owned() });
        }
        self.effects.last_mut().and_then(set).ok_or(RuleError::Alone { word, owner })?;
        self.details.push(word);
        Ok(())
    }

    fn effect(&self, said: Said<'_>) -> Result<Any, RuleError> {
        let delay = || said.duration("delay", "delay=250ms").map(Delay::of);
        Ok(match (self.kind, said.word) {
            (Kind::Resolve, "notfound") => {
                said.alone("notfound")?;
                Any::Resolve(ResolveEffect::NotFound)
            }
            (Kind::Resolve, "timeout") => Any::Resolve(ResolveEffect::Timeout(match said.value {
                None => ResolveEffect::TIMEOUT,
                Some(_) => said.duration("timeout", "timeout=5s")?,
            })),
            (Kind::Resolve, "delay") => Any::Resolve(ResolveEffect::Delay(delay()?)),
            (Kind::Connect, "refuse") => {
                said.alone("refuse")?;
                Any::Connect(ConnectEffect::Refuse)
            }
            (Kind::Connect, "blackhole") => {
                Any::Connect(ConnectEffect::Blackhole(match said.value {
                    None => ConnectEffect::KERNEL_GIVES_UP,
                    Some(_) => said.duration("blackhole", "blackhole=10s")?,
                }))
            }
            (Kind::Connect, "delay") => Any::Connect(ConnectEffect::Delay(delay()?)),
            (Kind::Accept, "fail") => {
                said.alone("fail")?;
                Any::Accept(AcceptEffect::Fail)
            }
            (Kind::Accept, "delay") => Any::Accept(AcceptEffect::Delay(delay()?)),
            (Kind::Io, word) => Any::Io(match word {
                "latency" => {
                    IoEffect::Latency(Delay::of(said.duration("latency", "latency=100ms")?))
                }
                "bandwidth" => IoEffect::Bandwidth {
                    bytes_per_s: rate(said.value("bandwidth", "bandwidth=64KiB/s")?)?,
                    burst_bytes: None,
                },
                "slice" => said.slice()?,
                "stall" => {
                    let after = said.after("stall", "stall, stall=64KiB or stall=2s")?;
                    IoEffect::Stall { after, lasts: None }
                }
                "reset" => {
                    IoEffect::Reset { after: said.after("reset", "reset=64KiB or reset=2s")? }
                }
                "close" => {
                    IoEffect::Close { after: said.after("close", "close=64KiB or close=2s")? }
                }
                "slow-close" => {
                    IoEffect::SlowClose { delay: said.duration("slow-close", "slow-close=2s")? }
                }
                _ => return Err(self.unknown(word)),
            }),
            (_, word) => return Err(self.unknown(word)),
        })
    }

    fn unknown(&self, word: &str) -> RuleError {
        let (kind, known) = (self.kind.word(), self.kind.known());
        RuleError::Word { kind, word: word.to_owned(), known }
    }

    fn rule(self) -> Result<Rule, RuleError> {
        let nothing = RuleError::Nothing { kind: self.kind.word() };
        let effect = match (self.kind, self.effects.first()) {
            (_, None) => return Err(nothing),
            (_, Some(Any::Resolve(effect))) => Effect::Resolve(*effect),
            (_, Some(Any::Connect(effect))) => Effect::Connect(*effect),
            (_, Some(Any::Accept(effect))) => Effect::Accept(*effect),
            (_, Some(Any::Io(_))) => {
                let io = |any: &Any| match any {
                    Any::Io(effect) => Some(*effect),
                    _ => None,
                };
                let effects = self.effects.iter().filter_map(io).collect();
                Effect::Io { direction: self.direction.unwrap_or_default(), effects }
            }
        };
        let share = self.share.unwrap_or(Share::ALL);
        Ok(Rule { listener: self.listener, upstream: self.upstream, share, effect })
    }
}

impl Any {
    fn delay_mut(&mut self) -> Option<&mut Delay> {
        match self {
            Self::Resolve(ResolveEffect::Delay(delay))
            | Self::Connect(ConnectEffect::Delay(delay))
            | Self::Accept(AcceptEffect::Delay(delay))
            | Self::Io(IoEffect::Latency(delay)) => Some(delay),
            _ => None,
        }
    }
}
