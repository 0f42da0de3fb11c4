//! Verdicts: what is to be done about upstreams, said by values that wait for nothing.
//!
//! Is: the rules of pools, retries, budgets, breakers, balancers, ejection and health, a file each. Each is told what
//! happened, with the time and, where it draws, a source of random numbers, and says what is to be done. Is not: who
//! does it; docs/upstreams.md has the table of verdicts and their rooms. Nothing here can name a connection.
//!
//! *Time* is a `Duration` on the runtime's clock ([`slipring::now`](crate::now)). Going back in time is not a failure:
//! a verdict treats an earlier time as the latest it has seen.

pub mod backoff;
pub mod balancer;
pub mod breaker;
pub mod budget;
#[cfg(feature = "faults")]
pub mod faults;
pub mod health;
pub mod names;
pub mod outcome;
pub mod outlier;
pub mod pool;
pub mod race;
pub mod retry;
mod window;
