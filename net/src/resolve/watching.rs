//! One name, followed for as long as somebody wants it.
//!
//! ```text
//!        +--> ask, at most so long --> tell Name --+
//!        |                                         v
//!   next look-up <-- sleep <-- publish, if what it leads to is another than was published
//!                                 ^
//!              an old answer runs out, also while asking
//! ```
//!
//! Why what was published is kept and compared, and not what `Name` says of a change: an answer that has run out is no
//! answer to anything. It happens by time alone, while the source is asked or nobody is.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::asking::ask;
use super::{Query, ResolveLimits, Source};
use crate::failure::Resolve;
use crate::policy::names::{Answer, Name, NameLimits, Target};
use crate::tasks::{now, sleep_until, timeout};

/// Follows a name: calls `publish` with where it leads, or why that is not known, first when that is found out, and
/// then whenever it has changed. Targets are sorted, each once, never none. It never ends: run it as a task, and drop
/// that to end it.
///
/// Between two look-ups it sleeps. Limits that [`check`](ResolveLimits::check) refuses are held to what it allows.
/// `rng` draws when to ask again, so that those who asked together do not ask together again.
///
/// ```no_run
/// use slipring::resolve::{Fixed, Query, ResolveLimits, watch};
///
/// # async fn example(query: Query, fixed: Fixed) {
/// let follow = watch(query, fixed, ResolveLimits::default(), fastrand::Rng::new(), |targets| {
///     println!("{targets:?}");
/// });
/// let task = slipring::spawn_local(follow);
/// # }
/// ```
///
/// # Panics
/// Outside of a reactor's tasks, and if `publish` does.
pub async fn watch<S, P>(
    query: Query,
    source: S,
    limits: ResolveLimits,
    mut rng: fastrand::Rng,
    mut publish: P,
) -> Infallible
where
    S: Source,
    P: FnMut(Result<&[Target], Resolve>),
{
    let limits = held(limits);
    let mut name = Name::new(&limits.names);
    if let Some(address) = query.address() {
        let answer = Answer { targets: vec![Target::new(address)], ttl: limits.names.ttl_max };
        name.answered(now(), Ok(answer), &mut rng);
        publish(name.targets(now()));
        return std::future::pending().await;
    }
    let source: Arc<dyn Source> = Arc::new(source);
    let begin = || {
        let (source, query) = (Arc::clone(&source), query.clone());
        Box::pin(async move { ask(&*source, &query, limits.lookup_timeout).await })
    };
    let mut asking: Option<Asking> = Some(begin());
    let mut published: Option<Result<Vec<Target>, Resolve>> = None;
    loop {
        let runs_out = name.runs_out(now()).unwrap_or(Duration::MAX);
        match &mut asking {
            Some(under_way) => {
                if let Some(answer) = until(runs_out, under_way.as_mut()).await {
                    asking = None;
                    name.answered(now(), answer, &mut rng);
                }
            }
            None if now() >= name.next_lookup() => asking = Some(begin()),
            None => sleep_until(runs_out.min(name.next_lookup())).await,
        }
        // Before the first answer there is nothing to tell.
        if asking.is_some() && published.is_none() {
            continue;
        }
        let leads_to = name.targets(now());
        let is_news = match (&published, leads_to) {
            (Some(Ok(before)), Ok(targets)) => before != targets,
            (Some(Err(before)), Err(failure)) => *before != failure,
            _ => true,
        };
        if is_news {
            publish(leads_to);
            published = Some(leads_to.map(<[Target]>::to_vec));
        }
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<Answer, Resolve>>>>;

/// Polls a future until then; `None` if it has not ended.
async fn until<F: Future>(at: Duration, future: F) -> Option<F::Output> {
    if at == Duration::MAX {
        return Some(future.await);
    }
    timeout(at.saturating_sub(now()), future).await.ok()
}

/// Within what [`ResolveLimits::check`] allows.
fn held(limits: ResolveLimits) -> ResolveLimits {
    if limits.check().is_ok() {
        return limits;
    }
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
    let NameLimits { ttl_min, ttl_max, negative, .. } = limits.names;
    let ttl_min = ttl_min.clamp(least, most);
    let names = NameLimits {
        ttl_min,
        ttl_max: ttl_max.clamp(ttl_min, most),
        negative: negative.clamp(least, most),
        ..limits.names
    };
    let lookup_timeout =
        limits.lookup_timeout.clamp(super::LOOKUP_TIMEOUT_MIN, super::LOOKUP_TIMEOUT_MAX);
    ResolveLimits { names, lookup_timeout, names_max: limits.names_max.clamp(1, super::NAMES_MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_held_to_what_makes_sense() {
        assert_eq!(held(ResolveLimits::default()), ResolveLimits::default());
        for span in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            for other in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
                let names = NameLimits {
                    ttl_min: span,
                    ttl_max: other,
                    negative: span,
                    stale: other,
                    is_public: true,
                };
                let names_max = usize::try_from(span.as_secs()).unwrap_or(usize::MAX);
                let limits = ResolveLimits { names, lookup_timeout: other, names_max };
                assert_eq!(held(limits).check(), Ok(()), "{limits:?}");
                assert!(held(limits).names.is_public);
            }
        }
    }
}
