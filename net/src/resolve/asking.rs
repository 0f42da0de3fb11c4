//! One look-up: in its time, whatever the source does.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::{Query, Source};
use crate::failure::Resolve;
use crate::policy::names::Answer;
use crate::tasks::{catch, timeout};

/// Asks a source. An address needs no asking, and is the answer for as long as anything is.
///
/// # Panics
/// Outside of a reactor's tasks.
pub(super) async fn ask(
    source: &dyn Source,
    query: &Query,
    within: Duration,
) -> Result<Answer, Resolve> {
    debug_assert!(query.address().is_none(), "nobody asks for an address");
    // What users wrote: when it panics, those who wait for the name have to hear of it.
    let Some(mut lookup) = catch(|| source.lookup(query)) else {
        return Err(panicked(query));
    };
    let caught = poll_fn(|cx| match catch(|| lookup.as_mut().poll(cx)) {
        Some(polled) => polled,
        None => Poll::Ready(Err(panicked(query))),
    });
    timeout(within, caught).await.unwrap_or(Err(Resolve::Timeout))
}

fn panicked(query: &Query) -> Resolve {
    tracing::error!(%query, "a source of names panicked; the look-up has failed");
    Resolve::ServerFailure
}
