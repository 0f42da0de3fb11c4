//! Canaries: mistakes put into the code on purpose, to see that the simulation finds them.
//!
//! Is: what `--canary` asks for, and where it goes. Is not: the mistakes; they live behind a feature, in the
//! code that they spoil, and this build is without them.

use std::convert::Infallible;
use std::str::FromStr;

/// How a build with canaries is made and run.
const REMEDY: &str = "cargo run --profile canary --features canaries --bin sim -- --canary all";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Which there are.
    List,
    /// Each of them is to be found.
    All,
    /// This one is to be found.
    One(String),
}

impl FromStr for Ask {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "list" => Self::List,
            "all" => Self::All,
            name => Self::One(name.to_owned()),
        })
    }
}

/// Hunts what is asked for; whether all of it was found, and the report.
///
/// # Errors
/// Cause and remedy, if there is nothing to hunt.
pub fn hunt(_: &Ask) -> Result<(bool, String), String> {
    Err(format!("this build carries no canaries; one that does: {REMEDY}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_canaries_says_how_to_get_one() {
        assert_eq!("all".parse(), Ok(Ask::All));
        assert_eq!("early_free".parse(), Ok(Ask::One("early_free".to_owned())));
        let refusal = hunt(&Ask::List).expect_err("it has none");
        assert!(refusal.contains("; ") && refusal.contains("--features canaries"), "{refusal}");
    }
}
