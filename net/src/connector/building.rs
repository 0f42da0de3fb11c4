//! What a connector is made of.

use std::net::IpAddr;
#[cfg(feature = "tls")]
use std::net::SocketAddr;
use std::sync::Arc;

use super::{ConnectLimits, ConnectLimitsError, Connector};
#[cfg(feature = "faults")]
use crate::faults::Faults;
use crate::proxy_protocol::Version;
#[cfg(feature = "tls")]
use crate::tls::{TlsClient, server_name};

/// What all clones of a connector share.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) limits: ConnectLimits,
    /// None of them is IPv4 written as IPv6.
    pub(super) sources: Vec<IpAddr>,
    pub(super) header: Option<Version>,
    /// Faults on purpose, and whose upstream's rules hold.
    #[cfg(feature = "faults")]
    pub(super) faults: Option<(Faults, String)>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsClient>,
    /// The name that certificates have to be for, whatever was dialed.
    #[cfg(feature = "tls")]
    server_name: Option<String>,
    /// The name that led to the addresses.
    #[cfg(feature = "tls")]
    dialed_name: Option<String>,
}

impl Parts {
    /// The name that the certificate of this endpoint has to be for.
    #[cfg(feature = "tls")]
    pub(super) fn name_for(&self, to: SocketAddr) -> String {
        match self.server_name.as_ref().or(self.dialed_name.as_ref()) {
            Some(name) => name.clone(),
            None => to.ip().to_canonical().to_string(),
        }
    }

    #[cfg(feature = "tls")]
    fn check_names(&self) -> Result<(), ConnectorError> {
        let Some(name) = self.server_name.as_ref().or(self.dialed_name.as_ref()) else {
            return Ok(());
        };
        match self.tls.is_none() || server_name(name).is_ok() {
            true => Ok(()),
            false => Err(ConnectorError::Name { name: name.clone() }),
        }
    }
}

/// Why there is no such connector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectorError {
    /// Its limits make no sense.
    #[error(transparent)]
    Limits(#[from] ConnectLimitsError),
    /// With TLS, a certificate has to be for a name.
    #[error("\"{name}\" is no name a certificate could be for; give a DNS name or an IP address")]
    Name {
        /// As it was given.
        name: String,
    },
    /// A name for certificates, and no TLS.
    #[error("a server name without TLS; call `tls` too, or leave the name out")]
    NameWithoutTls,
}

/// Makes a [`Connector`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ConnectorBuilder {
    parts: Parts,
}

impl ConnectorBuilder {
    /// How long what may take.
    pub fn limits(mut self, limits: ConnectLimits) -> Self {
        self.parts.limits = limits;
        self
    }

    /// The local addresses to come from: each connection from the next of those of its family, and from another one if
    /// that has no port left. So many more connections to one endpoint fit beside each other. By default the kernel
    /// chooses one.
    pub fn sources(mut self, sources: impl IntoIterator<Item = IpAddr>) -> Self {
        self.parts.sources = sources.into_iter().map(|source| source.to_canonical()).collect();
        self
    }

    /// Dials with faults on purpose, by the rules for an upstream of this name. What is done to the bytes of a
    /// connection is [`Faults::relay`]'s.
    #[cfg(feature = "faults")]
    pub fn faults(mut self, faults: Faults, upstream: impl Into<String>) -> Self {
        self.parts.faults = Some((faults, upstream.into()));
        self
    }

    /// Begins each connection with a PROXY header of this version. By default none is sent.
    pub fn proxy_header(mut self, version: Version) -> Self {
        self.parts.header = Some(version);
        self
    }

    /// Speaks TLS. Certificates have to be for the [`server_name`](Self::server_name), else for the name that was
    /// dialed ([`Connector::for_name`]; an upstream that follows names sees to that itself), else for the IP address.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, client: TlsClient) -> Self {
        self.parts.tls = Some(client);
        self
    }

    /// The name that certificates have to be for, and that is asked for (SNI), whatever is dialed.
    #[cfg(feature = "tls")]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.parts.server_name = Some(name.into());
        self
    }

    /// The connector.
    ///
    /// # Errors
    /// [`ConnectorError`], with the cause and the remedy.
    pub fn build(self) -> Result<Connector, ConnectorError> {
        self.parts.limits.check()?;
        #[cfg(feature = "tls")]
        {
            if self.parts.server_name.is_some() && self.parts.tls.is_none() {
                return Err(ConnectorError::NameWithoutTls);
            }
            self.parts.check_names()?;
        }
        Ok(Connector { parts: Arc::new(self.parts), ..Connector::default() })
    }
}

impl Connector {
    /// The same for the addresses that this name leads to: certificates have to be for it, if there is no fixed
    /// [`server_name`](ConnectorBuilder::server_name). Without TLS it makes no difference.
    ///
    /// # Errors
    /// [`ConnectorError::Name`].
    #[cfg(feature = "tls")]
    pub fn for_name(&self, name: &str) -> Result<Self, ConnectorError> {
        let mut parts = Parts::clone(&self.parts);
        parts.dialed_name = Some(name.to_owned());
        parts.check_names()?;
        Ok(Self { parts: Arc::new(parts), ..self.clone() })
    }

    /// The same for what this name leads to, unless it is said already whom certificates have to be for. One that none
    /// can be for changes nothing: then they have to be for the address, and hardly are.
    #[cfg(feature = "tls")]
    pub(crate) fn for_what_leads_there(&self, name: &str) -> Self {
        match self.parts.tls.is_some() && self.parts.dialed_name.is_none() {
            true => self.for_name(name).unwrap_or_else(|_| self.clone()),
            false => self.clone(),
        }
    }

    /// The same for what this name leads to.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn for_what_leads_there(&self, _name: &str) -> Self {
        self.clone()
    }

    /// The same for the addresses that this name leads to. Without TLS it makes no difference.
    ///
    /// # Errors
    /// None without TLS.
    #[cfg(not(feature = "tls"))]
    pub fn for_name(&self, _name: &str) -> Result<Self, ConnectorError> {
        Ok(self.clone())
    }
}
