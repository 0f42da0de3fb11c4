//! Sources one behind the other.

use std::fmt;
use std::sync::Arc;

use super::{Lookup, Query, Source};
use crate::failure::Resolve;

/// Asks one source after the other, until one knows the name.
///
/// One that says [`NotFound`](Resolve::NotFound) does not know it. All else is an answer, failures too: a name that a
/// name server could not tell today should not lead elsewhere meanwhile.
///
/// ```
/// use slipring::resolve::{Chain, Fixed, HostsFile};
///
/// let fixed = Fixed::new();
/// let source = Chain::new().then(fixed.clone()).then(HostsFile::new("/etc/hosts"));
/// ```
#[derive(Clone, Default)]
pub struct Chain {
    sources: Vec<Arc<dyn Source>>,
}

impl Chain {
    /// Of nobody: it knows no name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks this one if none of those before knows the name.
    #[must_use]
    pub fn then(mut self, source: impl Source) -> Self {
        self.sources.push(Arc::new(source));
        self
    }
}

impl Source for Chain {
    fn lookup(&self, query: &Query) -> Lookup {
        let (sources, query) = (self.sources.clone(), query.clone());
        Box::pin(async move {
            for source in sources {
                match source.lookup(&query).await {
                    Err(Resolve::NotFound) => {}
                    known => return known,
                }
            }
            Err(Resolve::NotFound)
        })
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("sources", &self.sources.len()).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::resolve::Fixed;

    pub(in crate::resolve) fn query(text: &str) -> Query {
        text.parse().expect("a query")
    }

    /// Of what is there without waiting.
    pub(in crate::resolve) fn now_or_never<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    fn ip(chain: &Chain, name: &str) -> Result<IpAddr, Resolve> {
        let answer = now_or_never(chain.lookup(&query(name)));
        answer.map(|answer| answer.targets[0].address.ip())
    }

    #[test]
    fn the_first_that_knows_a_name_says_where_it_leads() {
        let [first, second] = [Fixed::new(), Fixed::new()];
        let [one, two] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        first.set("a", [one]).expect("a name");
        second.set("a", [two]).expect("a name");
        second.set("b", [two]).expect("a name");
        let chain = Chain::new().then(first.clone()).then(Arc::new(second));
        assert_eq!(ip(&chain, "a:80"), Ok(one));
        assert_eq!(ip(&chain, "b:80"), Ok(two));
        assert_eq!(ip(&chain, "c:80"), Err(Resolve::NotFound));
        for failure in [Resolve::ServerFailure, Resolve::Timeout, Resolve::NoAddress] {
            first.fail("b", failure).expect("a name");
            assert_eq!(ip(&chain, "b:80"), Err(failure), "it does not fall through");
        }
        assert_eq!(ip(&Chain::new(), "a:80"), Err(Resolve::NotFound));
    }
}
