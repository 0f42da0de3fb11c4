//! What shortens a bench run: environment variables, since `cargo bench` takes the arguments.
//!
//! | variable | default | |
//! |---|---|---|
//! | `SLIPRING_BENCH_ROUNDS` | 5 | rounds: every contender once each |
//! | `SLIPRING_BENCH_SECONDS` | 2 | measured seconds of one contender in one round |
//! | `SLIPRING_BENCH_PEERS` | `all` | `none`, `all`, or a list such as `tokio,monoio` |

use std::io;
use std::str::FromStr;

/// The settings of one run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often every contender runs.
    pub rounds: usize,
    /// How long it is measured each time.
    pub seconds: f64,
    /// Which peers take part.
    pub peers: Peers,
}

/// Which of the peers take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Those that were built.
    All,
    /// These, which may be none.
    Only(Vec<String>),
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// When a variable is set to something that is not a number above zero.
    pub fn from_env() -> io::Result<Self> {
        let peers = std::env::var("SLIPRING_BENCH_PEERS").unwrap_or_else(|_| "all".to_owned());
        Ok(Self {
            rounds: number("SLIPRING_BENCH_ROUNDS", 5)?,
            seconds: number("SLIPRING_BENCH_SECONDS", 2.0)?,
            peers: Peers::parse(&peers),
        })
    }
}

impl Peers {
    fn parse(text: &str) -> Self {
        match text {
            "all" => Self::All,
            "none" => Self::Only(Vec::new()),
            list => Self::Only(list.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    /// Whether the peer of this name takes part.
    #[must_use]
    pub fn include(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|only| only == name),
        }
    }

    /// Whether there is nothing to build.
    #[must_use]
    pub fn are_none(&self) -> bool {
        matches!(self, Self::Only(names) if names.is_empty())
    }
}

fn number<T: FromStr + Default + PartialOrd>(name: &str, default: T) -> io::Result<T> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    match text.parse() {
        Ok(value) if value > T::default() => Ok(value),
        _ => {
            let text = format!("{name}={text}: want a number above 0");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_all_none_or_a_list() {
        assert!(Peers::parse("all").include("tokio"));
        assert!(Peers::parse("none").are_none() && !Peers::parse("none").include("tokio"));
        let list = Peers::parse("tokio, monoio");
        assert!(list.include("monoio") && !list.include("glommio") && !list.are_none());
    }
}
