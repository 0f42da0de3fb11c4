//! Names asked of name servers, as the host's configuration says. Behind the feature `dns`.
//!
//! ```text
//!   lookup ---> line ---> the thread `slipring-dns` ---> A and AAAA at once, or SRV and then those of its targets
//!      |                       |                              |
//!   dropped: given up          +-- no handle left: it ends    +--> least TTL, or why there is no answer
//! ```
//!
//! Is: the thread and its line, and how it is configured; `dns/client.rs` is what it asks. Is not: a cache, nor does
//! hickory keep one beneath it.
//!
//! Why hickory and not `getaddrinfo`: that says no TTL, knows no SRV, cannot be given up, and holds a thread for each
//! look-up. Why one thread with tokio's runtime: hickory asks for one. It reaches no reactor, and a look-up takes
//! microseconds of it beside the wait for a name server.

mod client;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::{Lookup, Query, Source};
use crate::failure::Resolve;
use crate::policy::names::Answer;
use crate::tasks::run_on_any_core;
use client::Client;

const THREAD_NAME: &str = "slipring-dns";
const LOOKUPS_MOST: usize = 4096;
const ATTEMPTS_MOST: usize = 16;
const SPAN_MIN: Duration = Duration::from_millis(1);
const SPAN_MAX: Duration = Duration::from_secs(60);

/// Which name servers are asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Name servers, the domains to search in, and options are those of this file, which is read again when it has
    /// changed. Default `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// If there are any: these name servers, whatever the file says. They are asked by UDP, and by TCP if an answer
    /// does not fit. Default none.
    pub servers: Vec<SocketAddr>,
    /// Names of hosts that stand in this file are not asked for. A line that is not good is passed over, as glibc does.
    /// Default `/etc/hosts`. Its answers count for 2 s †.
    pub hosts_file: Option<PathBuf>,
    /// A name server has so long to answer. Default `None`: what the file says, or else 5 s (resolv.conf(5)). It is
    /// asked again meanwhile, should the question have been lost.
    pub attempt_timeout: Option<Duration>,
    /// How often the name servers are asked. Default `None`: what the file says, or else 2 (resolv.conf(5)).
    pub attempts: Option<usize>,
    /// Names that are asked for at once, from 1 to 4096; the rest wait in line. Default 64 †.
    pub lookups_max: usize,
    /// When one kind of addresses has come, the other has so much longer. An answer that had to do without counts for
    /// 5 s † at most. Default 50 ms (RFC 8305).
    pub resolution_delay: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            resolv_conf: Some("/etc/resolv.conf".into()),
            servers: Vec::new(),
            hosts_file: Some("/etc/hosts".into()),
            attempt_timeout: None,
            attempts: None,
            lookups_max: 64,
            resolution_delay: Duration::from_millis(50),
        }
    }
}

/// Why a [`DnsConfig`] makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsConfigError {
    /// There is nobody to ask.
    #[error("there is nobody to ask; name servers, or a file that does (/etc/resolv.conf)")]
    NoServers,
    /// A name server without a port.
    #[error("the name server {server} has no port; that of name servers is 53")]
    ServerPort {
        /// Which.
        server: SocketAddr,
    },
    /// No name server could answer, or one that does not would be waited for without end.
    #[error("a name server has {timeout:?} to answer; say from 1 ms to 60 s")]
    AttemptTimeout {
        /// The time it would have.
        timeout: Duration,
    },
    /// Nobody would be asked, or without end.
    #[error("name servers are asked {attempts} times; say from 1 to {ATTEMPTS_MOST}")]
    Attempts {
        /// How often.
        attempts: usize,
    },
    /// Nothing could be asked for, or more at once than a name server bears.
    #[error("{lookups_max} names are asked for at once; say from 1 to {LOOKUPS_MOST}")]
    LookupsMax {
        /// How many.
        lookups_max: usize,
    },
    /// The other kind of addresses would be waited for without end.
    #[error("the other kind of addresses has {delay:?} longer; say 60 s at most")]
    ResolutionDelay {
        /// How long.
        delay: Duration,
    },
}

impl DnsConfig {
    /// These name servers and nothing of the host: neither its list of domains nor its file of hosts.
    pub fn of_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let servers = servers.into_iter().collect();
        Self { resolv_conf: None, hosts_file: None, servers, ..Self::default() }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`DnsConfigError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), DnsConfigError> {
        let &Self { attempt_timeout, attempts, lookups_max, resolution_delay: delay, .. } = self;
        if self.servers.is_empty() && self.resolv_conf.is_none() {
            return Err(DnsConfigError::NoServers);
        }
        if let Some(&server) = self.servers.iter().find(|server| server.port() == 0) {
            return Err(DnsConfigError::ServerPort { server });
        }
        if let Some(timeout) = attempt_timeout.filter(|span| !(SPAN_MIN..=SPAN_MAX).contains(span))
        {
            return Err(DnsConfigError::AttemptTimeout { timeout });
        }
        if let Some(attempts) = attempts.filter(|times| !(1..=ATTEMPTS_MOST).contains(times)) {
            return Err(DnsConfigError::Attempts { attempts });
        }
        if !(1..=LOOKUPS_MOST).contains(&lookups_max) {
            return Err(DnsConfigError::LookupsMax { lookups_max });
        }
        if delay > SPAN_MAX {
            return Err(DnsConfigError::ResolutionDelay { delay });
        }
        Ok(())
    }
}

/// Asks name servers, on a thread of its own, which starts with the first look-up and ends with the last clone.
///
/// Hosts: A and AAAA at once, and the file of hosts before. Services: SRV, and then the hosts it leads to; priority
/// becomes the tier, and a host with several addresses has the weight with each. The TTL is the least of all records.
/// NXDOMAIN is [`NotFound`](Resolve::NotFound), no record of a kind that was asked for
/// [`NoAddress`](Resolve::NoAddress), an answer that is none, a refusal and a server that cannot be reached
/// [`ServerFailure`](Resolve::ServerFailure), silence [`Timeout`](Resolve::Timeout).
///
/// Dropping a look-up gives it up.
///
/// ```no_run
/// use slipring::resolve::{Dns, ResolveLimits, Resolver};
///
/// let resolver = Resolver::new(Dns::system(), ResolveLimits::default())?;
/// # Ok::<(), slipring::resolve::ResolveLimitsError>(())
/// ```
#[derive(Clone)]
pub struct Dns {
    desk: Arc<Desk>,
}

struct Desk {
    config: DnsConfig,
    /// To the thread, if there is one. It ends when this does.
    line: Mutex<Option<UnboundedSender<Job>>>,
}

struct Job {
    query: Query,
    answer: oneshot::Sender<Result<Answer, Resolve>>,
}

impl Dns {
    /// As the host's files say.
    #[must_use]
    pub fn system() -> Self {
        Self { desk: Arc::new(Desk { config: DnsConfig::default(), line: Mutex::default() }) }
    }

    /// As this says. Starts nothing yet.
    ///
    /// # Errors
    /// [`DnsConfigError`].
    pub fn new(config: DnsConfig) -> Result<Self, DnsConfigError> {
        config.check()?;
        Ok(Self { desk: Arc::new(Desk { config, line: Mutex::default() }) })
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("config", &self.desk.config).finish_non_exhaustive()
    }
}

impl Source for Dns {
    fn lookup(&self, query: &Query) -> Lookup {
        // With it the look-up is a handle too: who drops the last one may still wait for an answer.
        let (desk, query) = (Arc::clone(&self.desk), query.clone());
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            desk.put(Job { query, answer })?;
            // Without an answer: the thread has ended in a panic.
            answered.await.unwrap_or(Err(Resolve::ServerFailure))
        })
    }
}

impl Desk {
    /// Puts a look-up into the line, and sees to the thread.
    fn put(&self, job: Job) -> Result<(), Resolve> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*line {
            Some(to_thread) => match to_thread.send(job) {
                Ok(()) => return Ok(()),
                // It has ended, in a panic or for want of a descriptor. Perhaps another one does better.
                Err(refused) => refused.0,
            },
            None => job,
        };
        let (to_thread, jobs) = unbounded_channel();
        let config = self.config.clone();
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned());
        if let Err(error) = thread.spawn(|| serve(config, jobs)) {
            tracing::warn!(%error, "no thread could be started to ask name servers");
            return Err(Resolve::ServerFailure);
        }
        let _ = to_thread.send(job);
        *line = Some(to_thread);
        Ok(())
    }
}

/// What the thread does, until the line ends.
fn serve(config: DnsConfig, mut jobs: UnboundedReceiver<Job>) {
    // It was started by a reactor, and must not share its core.
    run_on_any_core();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::warn!(%error, "there is nothing to ask name servers with");
            return;
        }
    };
    runtime.block_on(async {
        let client = Arc::new(Client::new(config));
        while let Some(job) = jobs.recv().await {
            tokio::spawn(look_up(Arc::clone(&client), job));
        }
    });
}

async fn look_up(client: Arc<Client>, Job { query, mut answer }: Job) {
    let found = {
        let (mut gone, mut looking) = (pin!(answer.closed()), pin!(client.look_up(&query)));
        poll_fn(|cx| match gone.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => looking.as_mut().poll(cx).map(Some),
        })
        .await
    };
    if let Some(found) = found {
        let _ = answer.send(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused() {
        let server = SocketAddr::from(([127, 0, 0, 1], 53));
        let good = DnsConfig::of_servers([server]);
        assert_eq!(good.check(), Ok(()));
        assert_eq!(DnsConfig::default().check(), Ok(()));
        let refused = |change: fn(&mut DnsConfig)| {
            let mut config = DnsConfig::of_servers([SocketAddr::from(([127, 0, 0, 1], 53))]);
            change(&mut config);
            Dns::new(config).map(|_| ()).expect_err("it makes no sense")
        };
        assert_eq!(refused(|config| config.servers.clear()), DnsConfigError::NoServers);
        assert!(matches!(
            refused(|config| config.servers[0].set_port(0)),
            DnsConfigError::ServerPort { .. }
        ));
        assert!(matches!(
            refused(|config| config.attempt_timeout = Some(Duration::ZERO)),
            DnsConfigError::AttemptTimeout { .. }
        ));
        assert!(matches!(
            refused(|config| config.attempts = Some(0)),
            DnsConfigError::Attempts { attempts: 0 }
        ));
        assert!(matches!(
            refused(|config| config.lookups_max = 0),
            DnsConfigError::LookupsMax { lookups_max: 0 }
        ));
        assert!(matches!(
            refused(|config| config.resolution_delay = Duration::MAX),
            DnsConfigError::ResolutionDelay { .. }
        ));
    }
}
