//! What follows from an error: whether it may be repeated, whether a breaker counts it, its label.
//!
//! | kind | repeat | though not idempotent | breaker |
//! |---|---|---|---|
//! | name: server failed, timeout | later | yes | no |
//! | name: not there, no address, not public | no | | no |
//! | dial: timeout, refused, unreachable, failed | elsewhere, at once | yes | yes |
//! | dial: denied, no source address; given up | elsewhere; no | yes | no |
//! | TLS: timeout / certificate, name, alert, protocol | elsewhere / no | yes | yes / no |
//! | limits, lack of something, pool | later, or the caller's | yes | no |
//! | transfer: given up while kept | once, on a fresh connection | no | no |
//! | transfer: reset before the reply, eof, stall, no answer | if idempotent | no | yes |
//! | transfer: read timeout | if idempotent | no | no |
//! | transfer: too large, idle, ended by us | no | | no |
//! | transfer: a byte of the reply has come | no | | by its kind |
//! | none healthy / breaker open / draining | later / then / elsewhere | yes | no |
//! | retry budget empty | no | | no |
//!
//! Above all of it: bytes that went out only in part make a repetition unsafe, whatever else is known. So does a byte
//! of the reply.

use std::time::Duration;

use super::{
    Admit, Breaker, Checkout, Dial, Error, Kind, Phase, ProxyHeader, Resolve, Resource, Retry, Tls,
    Transfer, Upstream,
};
use crate::policy::outcome::Outcome;

/// What repeating a request could do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Nobody knows: it is repeated as long as none of it has been sent. The default.
    #[default]
    ConnectOnly,
    /// Carried out twice it does what it does once.
    Idempotent,
    /// The upstream knows it again by this number, and carries it out once.
    KeyedBy(u128),
    /// It is never repeated, not even if nothing was sent.
    Never,
}

impl Idempotency {
    /// Whether it may be carried out twice.
    #[must_use]
    pub fn may_repeat(self) -> bool {
        matches!(self, Self::Idempotent | Self::KeyedBy(_))
    }
}

/// Why something is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Never {
    /// It would fail again.
    #[error("it would fail again")]
    Final,
    /// The caller forbids it.
    #[error("the caller forbids it")]
    Forbidden,
    /// Some of it was sent, and it may not be carried out twice.
    #[error("some of it was sent, and it is not idempotent")]
    NotIdempotent,
    /// It was sent in part: what the upstream makes of it nobody knows.
    #[error("only some of it was sent")]
    Partial,
    /// Some of the reply has come.
    #[error("some of the reply has come")]
    Replied,
}

/// What may be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing.
    Never(Never),
    /// Again, with another endpoint if there is one.
    Elsewhere,
    /// Again, once, on a connection that was not kept.
    Fresh,
    /// Again, after a while.
    Later,
    /// Again, at this time on the runtime's clock.
    At(Duration),
}

impl Repeat {
    /// Whether there is anything.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        !matches!(self, Self::Never(_))
    }
}

impl Error {
    /// What may be done about it, for a request of this idempotency. What it may cost (attempts, budget, deadline) is
    /// for the policy of retries to say.
    #[must_use]
    pub fn retry(&self, idempotency: Idempotency) -> Repeat {
        let traffic = self.traffic();
        if idempotency == Idempotency::Never {
            return Repeat::Never(Never::Forbidden);
        }
        if traffic.bytes_received > 0 {
            return Repeat::Never(Never::Replied);
        }
        if traffic.is_partial {
            return Repeat::Never(Never::Partial);
        }
        let repeat = self.kind().repeat();
        if repeat.is_allowed() && traffic.bytes_sent > 0 && !idempotency.may_repeat() {
            return Repeat::Never(Never::NotIdempotent);
        }
        repeat
    }

    /// Whether it speaks against the upstream. What we did ourselves, what a limit of ours did, and a reply that took
    /// long on an established stream never do.
    #[must_use]
    pub fn counts_for_breaker(&self) -> bool {
        match self.kind() {
            Kind::Dial(Dial::Denied | Dial::NoSource | Dial::GivenUp(_)) => false,
            Kind::Dial(_) | Kind::Tls(Tls::Timeout | Tls::Truncated) => true,
            Kind::Transfer(transfer) => matches!(
                transfer,
                Transfer::WriteStall
                    | Transfer::PeerUnresponsive
                    | Transfer::ResetEarly
                    | Transfer::Reset
                    | Transfer::UnexpectedEof
            ),
            _ => false,
        }
    }

    /// What it comes to for those who judge the upstream and its endpoints.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.kind() {
            _ if !self.counts_for_breaker() => Outcome::Ignored,
            Kind::Dial(Dial::Timeout) | Kind::Tls(Tls::Timeout) => Outcome::DialTimeout,
            Kind::Dial(_) => Outcome::DialFailure,
            // Reset in the handshake, for instance: there never was a connection.
            _ if matches!(self.phase(), Phase::TlsHandshake | Phase::ProxyHeader) => {
                Outcome::DialFailure
            }
            _ => Outcome::Failure,
        }
    }

    /// What it is called in metrics and logs: one of few.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.kind().label()
    }
}

impl Kind {
    /// What may be done about it, as far as it goes by the kind.
    fn repeat(&self) -> Repeat {
        let r#final = Repeat::Never(Never::Final);
        match self {
            Self::Resolve(Resolve::ServerFailure | Resolve::Timeout) => Repeat::Later,
            Self::Resolve(_) => r#final,
            Self::Dial(Dial::GivenUp(_)) => r#final,
            Self::Dial(_) | Self::Tls(Tls::Timeout | Tls::Truncated) => Repeat::Elsewhere,
            Self::Tls(_) | Self::ProxyHeader(_) | Self::Admit(Admit::AclDenied) => r#final,
            Self::Admit(_) | Self::Resource(_) | Self::Checkout(_) => Repeat::Later,
            Self::Transfer(Transfer::StaleReuse) => Repeat::Fresh,
            Self::Transfer(
                Transfer::Reset | Transfer::TooLarge | Transfer::IdleTimeout | Transfer::Ended(_),
            ) => r#final,
            Self::Transfer(_) => Repeat::Elsewhere,
            Self::Upstream(Upstream::Empty | Upstream::NoneHealthy { .. }) => Repeat::Later,
            Self::Breaker(Breaker::Open { until }) => Repeat::At(*until),
            // Another process may serve it; this one will not.
            Self::Drain(_) | Self::Retry(Retry::BudgetExhausted) => r#final,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Resolve(Resolve::NotFound) => "dns_not_found",
            Self::Resolve(Resolve::NoAddress) => "dns_no_address",
            Self::Resolve(Resolve::ServerFailure) => "dns_server_failure",
            Self::Resolve(Resolve::Timeout) => "dns_timeout",
            Self::Resolve(Resolve::NotPublic) => "dns_not_public",
            Self::Dial(Dial::Timeout) => "connect_timeout",
            Self::Dial(Dial::Refused) => "refused",
            Self::Dial(Dial::Denied) => "denied",
            Self::Dial(Dial::Unreachable) => "unreachable",
            Self::Dial(Dial::NoSource) => "no_source",
            Self::Dial(Dial::Failed(_)) => "connect_failed",
            Self::Dial(Dial::GivenUp(_)) => "connect_given_up",
            Self::Tls(Tls::Timeout) => "tls_timeout",
            Self::Tls(Tls::PeerCert) => "tls_peer_cert",
            Self::Tls(Tls::NameMismatch) => "tls_name_mismatch",
            Self::Tls(Tls::ClientCertRequired) => "tls_client_cert_required",
            Self::Tls(Tls::Alert) => "tls_alert",
            Self::Tls(Tls::Protocol) => "tls_protocol",
            Self::Tls(Tls::Truncated) => "tls_truncated",
            Self::ProxyHeader(ProxyHeader::Missing) => "proxy_missing",
            Self::ProxyHeader(ProxyHeader::Malformed) => "proxy_malformed",
            Self::ProxyHeader(ProxyHeader::Untrusted) => "proxy_untrusted",
            Self::ProxyHeader(ProxyHeader::Timeout) => "proxy_timeout",
            Self::Admit(Admit::ProcessLimit) => "limit_process",
            Self::Admit(Admit::ListenerLimit) => "limit_listener",
            Self::Admit(Admit::SourceLimit) => "limit_source",
            Self::Admit(Admit::RateLimit) => "limit_rate",
            Self::Admit(Admit::UpstreamLimit { .. }) => "limit_upstream",
            Self::Admit(Admit::PendingLimit { .. }) => "limit_pending",
            Self::Admit(Admit::AclDenied) => "acl",
            Self::Admit(Admit::Overloaded) => "shed",
            Self::Resource(Resource::FdProcess) => "emfile",
            Self::Resource(Resource::FdSystem) => "enfile",
            Self::Resource(Resource::Memory) => "nomem",
            Self::Resource(Resource::EphemeralPorts) => "ports",
            Self::Checkout(Checkout::Saturated(_)) => "pool_saturated",
            Self::Checkout(Checkout::Timeout { .. }) => "pool_timeout",
            Self::Transfer(Transfer::ReadTimeout) => "read_timeout",
            Self::Transfer(Transfer::WriteStall) => "write_stall",
            Self::Transfer(Transfer::PeerUnresponsive) => "peer_dead",
            Self::Transfer(Transfer::StaleReuse) => "stale_reuse",
            Self::Transfer(Transfer::ResetEarly) => "reset_early",
            Self::Transfer(Transfer::Reset) => "reset",
            Self::Transfer(Transfer::UnexpectedEof) => "eof_early",
            Self::Transfer(Transfer::TooLarge) => "too_large",
            Self::Transfer(Transfer::IdleTimeout) => "idle",
            Self::Transfer(Transfer::Ended(_)) => "ended",
            Self::Upstream(Upstream::Empty) => "no_endpoints",
            Self::Upstream(Upstream::NoneHealthy { .. }) => "none_healthy",
            Self::Breaker(Breaker::Open { .. }) => "breaker_open",
            Self::Drain(_) => "draining",
            Self::Retry(Retry::BudgetExhausted) => "retry_budget",
        }
    }
}
