//! Names that the user gives.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::places::Places;
use super::query::{Underscore, name_of};
use super::{Lookup, Place, Query, QueryError, Source};
use crate::failure::Resolve;

/// How long its answers count: whoever changes them waits so long to see it.
const TTL: Duration = Duration::from_secs(1);

/// Names and their places, given by the user, and changed whenever he likes. Its clones are the same source.
///
/// An answer counts for 1 s † (longer, if [`NameLimits::ttl_min`](crate::policy::names::NameLimits::ttl_min) says so):
/// so long a change may take to be seen.
///
/// ```
/// use std::net::{IpAddr, SocketAddr};
/// use slipring::resolve::{Fixed, Place};
///
/// let fixed = Fixed::new();
/// // On the port that is asked for, and on one of its own.
/// fixed.set("web.example", [IpAddr::from([192, 0, 2, 1])])?;
/// fixed.set("db.example", [SocketAddr::from(([192, 0, 2, 2], 5432))])?;
/// // A second tier.
/// let spare = Place { tier: 1, ..Place::new([192, 0, 2, 9].into()) };
/// fixed.set("web.example", [IpAddr::from([192, 0, 2, 1]).into(), spare])?;
/// # Ok::<(), slipring::resolve::QueryError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    places: Places,
    failures: BTreeMap<String, Resolve>,
}

impl Fixed {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says where a name leads, whatever was said of it before. Nowhere: it has no address.
    ///
    /// # Errors
    /// [`QueryError`] if it is no name. Underscores are allowed, for names of services.
    pub fn set<P: Into<Place>>(
        &self,
        name: &str,
        places: impl IntoIterator<Item = P>,
    ) -> Result<(), QueryError> {
        let name = checked(name)?;
        let places = places.into_iter().map(Into::into).collect();
        self.change(|known| {
            known.failures.remove(&name);
            known.places.set(name, places);
        });
        Ok(())
    }

    /// Lets look-ups of a name fail, until it is set or removed: for tests.
    ///
    /// # Errors
    /// [`QueryError`] if it is no name.
    pub fn fail(&self, name: &str, failure: Resolve) -> Result<(), QueryError> {
        let name = checked(name)?;
        self.change(|known| known.failures.insert(name, failure));
        Ok(())
    }

    /// Knows a name no more. One that was not known, or is none, is no failure.
    pub fn remove(&self, name: &str) {
        let Ok(name) = checked(name) else { return };
        self.change(|known| {
            known.failures.remove(&name);
            known.places.remove(&name);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        // Nothing that can panic runs while it is locked.
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn checked(name: &str) -> Result<String, QueryError> {
    match name_of(name, Underscore::Yes) {
        Ok((name, _)) => Ok(name),
        Err(fault) => Err(QueryError::new(name, fault)),
    }
}

impl Source for Fixed {
    fn lookup(&self, query: &Query) -> Lookup {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let failure = query.name().and_then(|name| known.failures.get(name).copied());
        let answer = match failure {
            Some(failure) => Err(failure),
            None => known.places.answer(query, TTL),
        };
        Box::pin(std::future::ready(answer))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::policy::names::Target;
    use crate::resolve::chain::tests::{now_or_never, query};

    fn targets(fixed: &Fixed, text: &str) -> Result<Vec<Target>, Resolve> {
        now_or_never(fixed.lookup(&query(text))).map(|answer| answer.targets)
    }

    #[test]
    fn a_port_is_that_of_the_question_or_of_the_place() {
        let fixed = Fixed::new();
        let [ip, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let target = Target { tier: 2, address: (other, 81).into(), weight: 7 };
        fixed.set("A.Example.", [Place::new(ip), target.into()]).expect("a name");
        let of_question = Target::new(SocketAddr::new(ip, 80));
        assert_eq!(targets(&fixed, "a.example:80"), Ok(vec![of_question, target]));
        assert_eq!(targets(&fixed, "a.EXAMPLE.:80"), Ok(vec![of_question, target]));
        assert_eq!(targets(&fixed, "srv:a.example"), Ok(vec![target]), "the other has no port");
        assert_eq!(targets(&fixed, "b.example:80"), Err(Resolve::NotFound));
    }

    #[test]
    fn what_is_said_last_counts_for_all_clones() {
        let (fixed, ip) = (Fixed::new(), IpAddr::from([192, 0, 2, 1]));
        let clone = fixed.clone();
        fixed.set("a", [ip]).expect("a name");
        assert!(targets(&clone, "a:80").is_ok());
        clone.fail("a", Resolve::ServerFailure).expect("a name");
        assert_eq!(targets(&fixed, "a:80"), Err(Resolve::ServerFailure));
        fixed.set("a", [0; 0].map(|_: i32| ip)).expect("a name");
        assert_eq!(targets(&clone, "a:80"), Err(Resolve::NoAddress));
        clone.remove("A.");
        assert_eq!(targets(&fixed, "a:80"), Err(Resolve::NotFound));
        fixed.remove("no name at all");
        assert!(fixed.set("a b", [ip]).is_err());
    }
}
