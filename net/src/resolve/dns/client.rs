//! What is asked of name servers, and what is made of what they say.
//!
//! *Search lists.* Names without a dot at their end are tried in the domains of resolv.conf here, and not by hickory:
//! that tries them for A and for AAAA apart, and so may put two hosts together into one.
//!
//! *Half an answer* (one kind of addresses came, the other failed or is late) is better than none, but counts for a
//! short time only: the next one may be whole. And a negative answer to one kind says nothing about the other: there
//! are name servers that say NXDOMAIN when they mean that there is no AAAA.

use std::fs;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::DnsConfig;
use crate::failure::Resolve;
use crate::policy::names::{Answer, Target};
use crate::resolve::Query;
use crate::resolve::hosts::{EVERY, Reader, Strictness};
use crate::resolve::stamp::Stamp;

/// How long half an answer counts at most.
const HALF_TTL_MAX: Duration = Duration::from_secs(5);
/// Hosts of one service that are looked up; the others are left out.
const SERVICE_HOSTS_MAX: usize = 256;
/// Questions to one name server under way at once: hickory refuses the next ones. Each name is two.
const QUESTIONS_PER_NAME: usize = 2;

/// Addresses or records, and for how long they count.
type Found<T> = Result<(Vec<T>, Duration), Resolve>;

pub(super) struct Client {
    config: DnsConfig,
    hosts: Option<Reader>,
    /// Names that may be asked for at once.
    places: Semaphore,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    stamp: Option<Stamp>,
    servers: Option<Arc<Servers>>,
    /// What was wrong last, so that it is said once.
    fault: Option<String>,
}

/// Whom to ask, and in which domains.
struct Servers {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl Client {
    pub(super) fn new(config: DnsConfig) -> Self {
        let hosts = config.hosts_file.clone().map(|path| Reader::new(path, Strictness::Line));
        let places = Semaphore::new(config.lookups_max);
        Self { config, hosts, places, loaded: Mutex::default() }
    }

    pub(super) async fn look_up(self: &Arc<Self>, query: &Query) -> Result<Answer, Resolve> {
        let Some(name) = query.name() else { return Err(Resolve::NotFound) };
        match query.port() {
            Some(port) => {
                let (addresses, ttl) = self.host(name, query.is_absolute()).await?;
                let target = |ip| Target::new(SocketAddr::new(ip, port));
                Ok(Answer { targets: addresses.into_iter().map(target).collect(), ttl })
            }
            None => self.service(name, query.is_absolute()).await,
        }
    }

    // ------------------------------------------------------------------------------------- hosts

    /// The addresses of a host.
    async fn host(&self, name: &str, is_absolute: bool) -> Found<IpAddr> {
        if let Some(addresses) = self.written_down(name) {
            return Ok((addresses, EVERY));
        }
        let servers = self.servers()?;
        let mut failure = Resolve::NotFound;
        for name in servers.candidates(name, is_absolute)? {
            match self.addresses(&servers, &name).await {
                Err(Resolve::NotFound) => {}
                Err(Resolve::NoAddress) => failure = Resolve::NoAddress,
                found => return found,
            }
        }
        Err(failure)
    }

    /// What the file of hosts says of it.
    fn written_down(&self, name: &str) -> Option<Vec<IpAddr>> {
        let hosts = self.hosts.as_ref()?;
        hosts.look();
        let places = hosts.places()?;
        let addresses: Vec<_> = places.of(name)?.iter().map(|place| place.ip).collect();
        Some(addresses).filter(|addresses| !addresses.is_empty())
    }

    /// A and AAAA of one name. The one that comes first waits a little for the other.
    async fn addresses(&self, servers: &Servers, name: &Name) -> Found<IpAddr> {
        let _place = self.places.acquire().await;
        let address = |record: &Record| record.data.ip_addr();
        let [mut v4, mut v6] = [RecordType::A, RecordType::AAAA]
            .map(|kind| Box::pin(servers.ask(name.clone(), kind, address)));
        let (mut of_v4, mut of_v6): (Option<Found<IpAddr>>, Option<Found<IpAddr>>) = (None, None);
        let mut late: Option<Pin<Box<tokio::time::Sleep>>> = None;
        poll_fn(|cx| {
            for (asking, found) in [(&mut v4, &mut of_v4), (&mut v6, &mut of_v6)] {
                if found.is_none()
                    && let Poll::Ready(came) = asking.as_mut().poll(cx)
                {
                    *found = Some(came);
                }
            }
            if of_v4.is_some() && of_v6.is_some() {
                return Poll::Ready(());
            }
            if [&of_v4, &of_v6].iter().any(|found| matches!(found, Some(Ok(_)))) {
                let delay = self.config.resolution_delay;
                return late.get_or_insert_with(|| Box::pin(sleep(delay))).as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await;
        both(of_v4, of_v6)
    }

    // ---------------------------------------------------------------------------------- services

    /// Where a service is to be had.
    async fn service(self: &Arc<Self>, name: &str, is_absolute: bool) -> Result<Answer, Resolve> {
        let servers = self.servers()?;
        let mut failure = Resolve::NotFound;
        for name in servers.candidates(name, is_absolute)? {
            let records = {
                let _place = self.places.acquire().await;
                let service = |record: &Record| match &record.data {
                    RData::SRV(service) => Some(service.clone()),
                    _ => None,
                };
                servers.ask(name, RecordType::SRV, service).await
            };
            match records {
                Err(Resolve::NotFound) => {}
                Err(Resolve::NoAddress) => failure = Resolve::NoAddress,
                Err(other) => return Err(other),
                Ok((records, ttl)) => {
                    let offered = records
                        .into_iter()
                        // A dot alone says that it is not to be had (RFC 2782).
                        .filter(|record| !record.target.is_root() && record.port != 0)
                        .take(SERVICE_HOSTS_MAX)
                        .map(|record| Offer {
                            host: record.target.to_ascii(),
                            port: record.port,
                            tier: record.priority,
                            weight: record.weight,
                        });
                    return self.offered(offered.collect(), ttl).await;
                }
            }
        }
        Err(failure)
    }

    /// The hosts that a service is to be had of.
    async fn offered(
        self: &Arc<Self>,
        offers: Vec<Offer>,
        mut ttl: Duration,
    ) -> Result<Answer, Resolve> {
        // Dropped, it gives all of them up.
        let mut asking = JoinSet::new();
        for offer in offers {
            let client = Arc::clone(self);
            asking.spawn(async move {
                let host = offer.host.trim_end_matches('.').to_ascii_lowercase();
                let found = client.host(&host, true).await;
                (offer, found)
            });
        }
        let mut targets = Vec::new();
        let mut failure = None;
        while let Some(joined) = asking.join_next().await {
            let Ok((Offer { port, tier, weight, .. }, found)) = joined else {
                failure = Some(Resolve::ServerFailure);
                continue;
            };
            match found {
                Ok((addresses, of_host)) => {
                    ttl = ttl.min(of_host);
                    targets.extend(addresses.into_iter().map(|ip| Target {
                        tier,
                        address: SocketAddr::new(ip, port),
                        weight,
                    }));
                }
                // It is left out.
                Err(Resolve::NotFound | Resolve::NoAddress) => {}
                Err(passing) => failure = Some(passing),
            }
        }
        match failure {
            None if targets.is_empty() => Err(Resolve::NoAddress),
            None => Ok(Answer { targets, ttl }),
            Some(failure) if targets.is_empty() => Err(failure),
            Some(_) => Ok(Answer { targets, ttl: ttl.min(HALF_TTL_MAX) }),
        }
    }

    // ----------------------------------------------------------------------------- configuration

    /// Whom to ask, as resolv.conf says now. What is wrong with it is logged once, and what was good still counts.
    fn servers(&self) -> Result<Arc<Servers>, Resolve> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.config.resolv_conf.as_deref();
        let stamp = path.and_then(|path| fs::metadata(path).ok()).map(|found| Stamp::of(&found));
        if let Some(servers) = loaded.servers.as_ref().filter(|_| loaded.stamp == stamp) {
            return Ok(Arc::clone(servers));
        }
        match self.load(path, loaded.servers.is_none()) {
            Ok(servers) => {
                loaded.servers = Some(Arc::new(servers));
                loaded.stamp = stamp;
                loaded.fault = None;
            }
            Err(fault) if loaded.fault.as_ref() != Some(&fault) => {
                tracing::warn!(?path, "name servers cannot be asked: {fault}");
                loaded.fault = Some(fault);
            }
            Err(_) => {}
        }
        loaded.servers.clone().ok_or(Resolve::ServerFailure)
    }

    fn load(&self, path: Option<&Path>, is_first: bool) -> Result<Servers, String> {
        let has_servers = !self.config.servers.is_empty();
        let read = || -> Result<(ResolverConfig, ResolverOpts), String> {
            let Some(path) = path else { return Ok(Default::default()) };
            let mut text = fs::read(path).map_err(|error| error.to_string())?;
            if has_servers {
                // Its own do not matter then, and it would not count without.
                text.extend(b"\nnameserver 127.0.0.1\n");
            }
            parse_resolv_conf(text).map_err(|error| error.to_string())
        };
        let (config, mut options) = match read() {
            // Whoever says whom to ask can do without the file.
            Err(_) if has_servers && is_first => Default::default(),
            read => read?,
        };
        let (domain, mut search, mut servers) = config.into_parts();
        if search.is_empty() {
            search.extend(domain.filter(|domain| !domain.is_root()));
        }
        if has_servers {
            servers = self.config.servers.iter().map(|server| of_address(*server)).collect();
        }
        options.timeout = self.config.attempt_timeout.unwrap_or(options.timeout);
        // It counts those behind the first.
        options.attempts = self.config.attempts.unwrap_or(options.attempts).saturating_sub(1);
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.max_active_requests = self.config.lookups_max.saturating_mul(QUESTIONS_PER_NAME);
        let ndots = options.ndots;
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options);
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Servers { resolver, search, ndots })
    }
}

/// One of the hosts of a service.
struct Offer {
    host: String,
    port: u16,
    tier: u16,
    weight: u16,
}

fn of_address(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

impl Servers {
    /// The whole names that one may stand for, in the order in which they are asked for (resolv.conf(5)).
    fn candidates(&self, text: &str, is_absolute: bool) -> Result<Vec<Name>, Resolve> {
        let mut name = Name::from_ascii(text).map_err(|_| Resolve::NotFound)?;
        name.set_fqdn(true);
        let is_local = text == "localhost" || text.ends_with(".localhost");
        if is_absolute || is_local {
            return Ok(vec![name]);
        }
        let mut relative = name.clone();
        relative.set_fqdn(false);
        // One that gets too long is none.
        let mut names: Vec<Name> = self
            .search
            .iter()
            .filter_map(|domain| relative.clone().append_domain(domain).ok())
            .map(|mut name| {
                name.set_fqdn(true);
                name
            })
            .filter(|found| *found != name)
            .collect();
        let dots = text.matches('.').count();
        let at = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(at, name);
        Ok(names)
    }

    /// The records of one kind, never none.
    async fn ask<T>(
        &self,
        name: Name,
        kind: RecordType,
        of: impl Fn(&Record) -> Option<T>,
    ) -> Found<T> {
        let lookup = match pin!(self.resolver.lookup(name.clone(), kind)).await {
            Ok(lookup) => lookup,
            Err(error) => {
                tracing::debug!(%name, %kind, %error, "a name server gave no answer");
                return Err(failure_of(&error));
            }
        };
        // The names on the way there (CNAME) count too: any of them may lead elsewhere later.
        let records = lookup.answers();
        let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
        let found: Vec<_> = records.iter().filter_map(of).collect();
        match found.is_empty() {
            true => Err(Resolve::NoAddress),
            false => Ok((found, Duration::from_secs(ttl.into()))),
        }
    }
}

fn failure_of(error: &NetError) -> Resolve {
    let code = match error {
        NetError::Timeout => return Resolve::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        _ => return Resolve::ServerFailure,
    };
    match code {
        ResponseCode::NXDomain => Resolve::NotFound,
        ResponseCode::NoError => Resolve::NoAddress,
        _ => Resolve::ServerFailure,
    }
}

/// What A and AAAA come to together. `None` is late.
fn both(v4: Option<Found<IpAddr>>, v6: Option<Found<IpAddr>>) -> Found<IpAddr> {
    match (v4, v6) {
        (Some(Ok((mut addresses, ttl))), Some(Ok((others, other_ttl)))) => {
            addresses.extend(others);
            Ok((addresses, ttl.min(other_ttl)))
        }
        (Some(Ok(found)), Some(Err(Resolve::NoAddress | Resolve::NotFound)))
        | (Some(Err(Resolve::NoAddress | Resolve::NotFound)), Some(Ok(found))) => Ok(found),
        // Half an answer.
        (Some(Ok((addresses, ttl))), _) | (_, Some(Ok((addresses, ttl)))) => {
            Ok((addresses, ttl.min(HALF_TTL_MAX)))
        }
        (Some(Err(one)), Some(Err(other))) => Err(worse(one, other)),
        (Some(Err(failure)), None) | (None, Some(Err(failure))) => Err(failure),
        (None, None) => Err(Resolve::Timeout),
    }
}

/// Of two failures the one that says less about the name; and it exists if either says so.
fn worse(one: Resolve, other: Resolve) -> Resolve {
    let rank = |failure: Resolve| match failure {
        Resolve::ServerFailure => 0,
        Resolve::Timeout => 1,
        Resolve::NoAddress => 2,
        _ => 3,
    };
    if rank(one) <= rank(other) { one } else { other }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn servers(search: &[&str], ndots: usize) -> Servers {
        let resolver = TokioResolver::builder_with_config(
            ResolverConfig::from_parts(None, Vec::new(), Vec::new()),
            TokioRuntimeProvider::default(),
        );
        let name = |text: &&str| Name::from_ascii(text).expect("a name");
        let search = search.iter().map(name).collect();
        Servers { resolver: resolver.build().expect("built"), search, ndots }
    }

    #[test]
    fn names_are_tried_in_the_order_of_resolv_conf() {
        let servers = servers(&["one.example", "two.example."], 2);
        let tried = |text: &str, is_absolute: bool| -> Vec<String> {
            let names = servers.candidates(text, is_absolute).expect("names");
            names.iter().map(Name::to_ascii).collect()
        };
        assert_eq!(tried("a.b", false), ["a.b.one.example.", "a.b.two.example.", "a.b."]);
        assert_eq!(tried("a.b.c", false), ["a.b.c.", "a.b.c.one.example.", "a.b.c.two.example."]);
        assert_eq!(tried("a.b", true), ["a.b."]);
        assert_eq!(tried("localhost", false), ["localhost."]);
        assert_eq!(tried("a.localhost", false), ["a.localhost."]);
        assert_eq!(tried("_http._tcp", false)[0], "_http._tcp.one.example.");
        let long = format!("{}abc", "abcdefghi.".repeat(25));
        assert_eq!(tried(&long, false), [format!("{long}.")], "with a domain it is too long");
    }

    #[test]
    fn two_kinds_of_addresses_are_one_answer() {
        let found = |octet: u8, ttl_s: u64| -> Option<Found<IpAddr>> {
            Some(Ok((vec![[192, 0, 2, octet].into()], Duration::from_secs(ttl_s))))
        };
        let ttl = |found: Found<IpAddr>| found.map(|(found, ttl)| (found.len(), ttl.as_secs()));
        assert_eq!(ttl(both(found(1, 30), found(2, 20))), Ok((2, 20)));
        assert_eq!(ttl(both(found(1, 30), Some(Err(Resolve::NoAddress)))), Ok((1, 30)));
        assert_eq!(ttl(both(Some(Err(Resolve::NotFound)), found(1, 30))), Ok((1, 30)));
        for late in [None, Some(Err(Resolve::Timeout)), Some(Err(Resolve::ServerFailure))] {
            assert_eq!(ttl(both(found(1, 30), late.clone())), Ok((1, 5)), "half an answer");
            assert_eq!(ttl(both(late, found(1, 3))), Ok((1, 3)));
        }
        for (one, other, expected) in [
            (Resolve::NotFound, Resolve::NotFound, Resolve::NotFound),
            (Resolve::NotFound, Resolve::NoAddress, Resolve::NoAddress),
            (Resolve::NoAddress, Resolve::Timeout, Resolve::Timeout),
            (Resolve::NotFound, Resolve::ServerFailure, Resolve::ServerFailure),
            (Resolve::Timeout, Resolve::ServerFailure, Resolve::ServerFailure),
        ] {
            assert_eq!(both(Some(Err(one)), Some(Err(other))), Err(expected));
            assert_eq!(both(Some(Err(other)), Some(Err(one))), Err(expected));
        }
    }
}
