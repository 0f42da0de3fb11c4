//! Several addresses tried side by side, as the verdict says ([`crate::policy::race`]).
//!
//! Is: the attempts under way, their timer, and what is said when all of them have failed. Is not: anything beyond TCP:
//! the PROXY header and TLS are for the winner alone.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;

use super::limits::Whole;
use super::{ConnectLimits, Connector};
use crate::conn::Conn;
use crate::failure::{Dial, Error, Kind, Upstream};
use crate::policy::names::Target;
use crate::policy::race::{Race, Step};
use crate::tasks::{now, sleep_until};

/// One dial.
type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Conn, Error>> + 'a>>;

/// Failures that are told in full; of the others only how many there are.
const TOLD: usize = 8;

/// The other attempts of a race that was lost: the source of its error.
#[derive(Debug)]
pub struct Attempts {
    /// What lay beneath the error that is told.
    cause: Option<String>,
    others: Vec<Error>,
}

impl Attempts {
    /// Why they failed, in the order in which they did.
    #[must_use]
    pub fn others(&self) -> &[Error] {
        &self.others
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cause) = &self.cause {
            write!(f, "{cause}; ")?;
        }
        f.write_str("it was tried elsewhere too: ")?;
        for (place, error) in self.others.iter().take(TOLD).enumerate() {
            let comma = if place == 0 { "" } else { "; " };
            write!(f, "{comma}{error}")?;
        }
        match self.others.len().saturating_sub(TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Attempts {}

/// The first connection that comes about, and to whom. All others have been given up by then.
pub(super) async fn first(
    connector: &Connector,
    limits: &ConnectLimits,
    targets: &[Target],
    whole: Whole,
) -> Result<(Conn, SocketAddr), Error> {
    if targets.is_empty() {
        return Err(Error::new(Upstream::Empty));
    }
    let reachable = targets.iter().filter(|target| connector.has_source_for(target.address));
    let reachable: Vec<Target> = reachable.copied().collect();
    if reachable.is_empty() {
        return Err(Error::new(Dial::NoSource).at(targets[0].address));
    }
    let mut race = Race::new(&limits.race, &reachable, now(), whole.until);
    let mut under_way: Vec<(SocketAddr, Attempt<'_>)> = Vec::new();
    let mut failed = Vec::new();
    let mut timer = pin!(sleep_until(whole.until));
    let won = poll_fn(|cx| {
        loop {
            let mut place = 0;
            while let Some((address, attempt)) = under_way.get_mut(place) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(conn)) => return Poll::Ready(Some((conn, *address))),
                    Poll::Ready(Err(error)) => {
                        drop(under_way.remove(place));
                        failed.push(error);
                        race.failed(now());
                    }
                    Poll::Pending => place += 1,
                }
            }
            match race.step(now()) {
                Step::Start(address) => {
                    under_way.push((address, Box::pin(connector.dial(address, whole))));
                }
                Step::Wait(until) => {
                    timer.as_mut().reset(until);
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Step::Failed => return Poll::Ready(None),
            }
        }
    });
    if let Some(won) = won.await {
        return Ok(won);
    }
    let at = now();
    // Those that the end of the whole has cut off.
    failed.extend(under_way.iter().map(|(address, _)| {
        Error::new(Dial::Timeout).at(*address).after(whole.elapsed(at)).over(whole.passed())
    }));
    Err(lost(failed).after(whole.elapsed(at)))
}

/// The most telling failure, with all the others beneath it.
fn lost(mut failed: Vec<Error>) -> Error {
    // The last of those that say most.
    let best = (0..failed.len()).max_by_key(|place| telling(&failed[*place]));
    let Some(best) = best else { return Error::new(Dial::Timeout) };
    let error = failed.remove(best);
    if failed.is_empty() {
        return error;
    }
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    error.over(Attempts { cause, others: failed })
}

/// How much a failure says about the upstream, or about us: who answered says more than who did not, and that there is
/// no way by IPv6 says nothing on a host that has none.
fn telling(error: &Error) -> u8 {
    match error.kind() {
        Kind::Dial(Dial::NoSource) => 0,
        Kind::Dial(Dial::Unreachable) => 1,
        Kind::Dial(Dial::Denied) => 2,
        Kind::Dial(Dial::Timeout) => 3,
        Kind::Dial(Dial::Failed(_)) => 4,
        Kind::Dial(Dial::Refused) => 5,
        // Of our own: no attempt would have come further.
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use slipring_core::Fault;

    use super::*;
    use crate::failure::Resource;

    fn labels(kinds: Vec<Kind>) -> (&'static str, String) {
        let error = lost(kinds.into_iter().map(Error::new).collect());
        let source = std::error::Error::source(&error).map(ToString::to_string);
        (error.label(), source.unwrap_or_default())
    }

    #[test]
    fn the_most_telling_failure_is_told_and_the_last_of_equals() {
        let (timeout, refused) = (Kind::from(Dial::Timeout), Kind::from(Dial::Refused));
        let unreachable = Kind::from(Dial::Unreachable);
        let (label, source) = labels(vec![refused.clone(), timeout.clone(), unreachable.clone()]);
        assert_eq!(label, "refused");
        assert!(source.contains("timeout") && source.contains("no route"), "{source}");
        assert_eq!(labels(vec![timeout.clone(), unreachable]).0, "connect_timeout");
        assert_eq!(labels(vec![refused, Resource::FdProcess.into(), timeout.clone()]).0, "emfile");
        assert_eq!(labels(vec![timeout]), ("connect_timeout", String::new()));
        let last = lost([1, 2].map(|errno| Error::new(Dial::Failed(Fault::Other(errno)))).into());
        assert!(last.to_string().contains("errno 2"), "{last}");
    }

    #[test]
    fn what_is_told_of_the_others_is_bounded() {
        let source = labels(vec![Dial::Refused.into(); 100]).1;
        assert!(source.len() < 1_000 && source.ends_with("; and 91 more"), "{source}");
    }
}
