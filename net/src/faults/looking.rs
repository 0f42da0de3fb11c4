//! Lookups with faults on purpose: a source of names before another.

use super::Faults;
use crate::resolve::{Lookup, Query, Source};

/// A source of names whose lookups fail, or take longer, as the rules for an upstream say: [`Faults::source`].
#[derive(Clone, Debug)]
pub struct FaultySource<S> {
    source: S,
    faults: Faults,
    upstream: String,
}

impl Faults {
    /// A source that fails by the rules for an upstream of this name, and else is this one.
    pub fn source<S: Source>(&self, source: S, upstream: impl Into<String>) -> FaultySource<S> {
        FaultySource { source, faults: self.clone(), upstream: upstream.into() }
    }
}

impl<S: Source> Source for FaultySource<S> {
    fn lookup(&self, query: &Query) -> Lookup {
        let lookup = self.source.lookup(query);
        match self.faults.resolving(&self.upstream) {
            None => lookup,
            Some(resolving) => Box::pin(async move {
                resolving.pass().await?;
                lookup.await
            }),
        }
    }
}
