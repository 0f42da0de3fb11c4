//! What ends a dial, a handshake or a stream, as errors of upstreams.
//!
//! Is: the conversions, by what was under way. Is not: endpoint and time, which are added by who waited. They stand
//! here since `failure` knows neither connections nor TLS.

use slipring_core::{CloseReason, DialRefused};

use crate::conn::{DialError, End, SendError};
use crate::failure::{Admit, Dial, Drain, Error, Kind, Traffic, Transfer};
#[cfg(feature = "tls")]
use crate::{failure::Tls, tls::TlsError};

/// A connection was not established. Nothing was sent.
pub(super) fn of_dial(error: DialError) -> Error {
    match error {
        DialError::Failed(fault) => {
            Error::of_close(CloseReason::DialFailed(fault), Traffic::default())
        }
        DialError::Timeout => Error::new(Dial::Timeout),
        DialError::Ended(reason) => Error::new(Dial::GivenUp(reason)).over(error),
        DialError::NotBegun(DialRefused::Full { .. }) => {
            Error::new(Admit::ProcessLimit).over(error)
        }
        DialError::NotBegun(DialRefused::Ending) => Error::new(Drain::Refusing).over(error),
        DialError::NotBegun(DialRefused::Families { .. }) => Error::new(Dial::NoSource).over(error),
    }
}

/// Nothing more can be sent.
pub(super) fn of_send(error: SendError, traffic: Traffic) -> Error {
    // Nothing of the request has left, and nobody refused it: it only met a connection that was on its way out.
    let is_unused = traffic.is_reused && traffic.bytes_sent == 0 && traffic.bytes_received == 0;
    let with = |kind: Transfer| Error::new(kind).with_traffic(traffic).over(error);
    match error {
        SendError::Closing
        | SendError::Ended(CloseReason::IdleTimeout | CloseReason::Evicted | CloseReason::Shed)
            if is_unused =>
        {
            with(Transfer::StaleReuse)
        }
        SendError::Ended(reason) => of_close(reason, traffic),
        SendError::Closing | SendError::ShutDown => with(Transfer::Ended(CloseReason::LocalClosed)),
        SendError::TooMany { .. } | SendError::TooManyOwned { .. } => with(Transfer::TooLarge),
    }
}

/// Nothing more comes, though something was expected.
pub(super) fn of_end(end: Option<End>, traffic: Traffic) -> Error {
    match end {
        Some(End::ReadTimeout) => Error::new(Transfer::ReadTimeout).with_traffic(traffic),
        Some(End::Eof) => of_close(CloseReason::PeerClosed, traffic),
        Some(End::Closed(reason)) => of_close(reason, traffic),
        // Nothing is known of it any more: its reactor is going.
        None => of_close(CloseReason::DriverFailed, traffic),
    }
}

/// The connection has ended.
pub(super) fn of_close(reason: CloseReason, traffic: Traffic) -> Error {
    let mut traffic = traffic;
    // It stalls with bytes that wait.
    traffic.is_partial |= reason == CloseReason::WriteStall && traffic.bytes_sent > 0;
    Error::of_close(reason, traffic)
}

/// What ended a connection before anybody could use it: what we did then is a connection not established.
pub(super) fn of_introduction(error: Error) -> Error {
    match *error.kind() {
        Kind::Transfer(Transfer::Ended(reason)) => Error::new(Dial::GivenUp(reason)).over(reason),
        _ => error,
    }
}

/// The same in a handshake.
#[cfg(feature = "tls")]
pub(super) fn of_handshake(error: TlsError) -> Error {
    match error {
        // The peer was silent for longer than the connection may be idle: to its users it is the same.
        TlsError::Ended(reason @ (CloseReason::IdleTimeout | CloseReason::PhaseTimeout)) => {
            Error::new(Tls::Timeout).over(reason)
        }
        error => of_introduction(of_tls(error, Traffic::default())),
    }
}

/// TLS failed, or what carries it. The phase is that of the handshake, where TLS itself failed.
#[cfg(feature = "tls")]
pub(super) fn of_tls(error: TlsError, traffic: Traffic) -> Error {
    let kind: Kind = match &error {
        TlsError::Ended(reason) => return of_close(*reason, traffic),
        TlsError::Closing => return of_send(SendError::Closing, traffic),
        TlsError::SentClose => return of_send(SendError::ShutDown, traffic),
        // As with a plain connection: those who give up what is kept announce nothing, as a rule.
        TlsError::Truncated if traffic.is_reused && traffic.bytes_received == 0 => {
            Transfer::StaleReuse.into()
        }
        TlsError::Truncated | TlsError::EndedInHandshake => Tls::Truncated.into(),
        TlsError::Timeout => Tls::Timeout.into(),
        TlsError::PeerCert(_) => Tls::PeerCert.into(),
        TlsError::NameMismatch(_) | TlsError::BadName { .. } => Tls::NameMismatch.into(),
        TlsError::ClientCertRequired => Tls::ClientCertRequired.into(),
        TlsError::NoCommonProtocol | TlsError::Alert(_) => Tls::Alert.into(),
        TlsError::Protocol(_) | TlsError::HandshakeTooLarge { .. } => Tls::Protocol.into(),
        TlsError::ReadTimeout => Transfer::ReadTimeout.into(),
        TlsError::TooMany { .. } | TlsError::TooManyOwned { .. } => Transfer::TooLarge.into(),
        TlsError::KeysUsedUp => Transfer::Ended(CloseReason::LocalClosed).into(),
        // Of the reactor, not of the kernel.
        TlsError::NoMemory | TlsError::HandshakeCap { .. } => Admit::Overloaded.into(),
    };
    Error::new(kind).with_traffic(traffic).over(error)
}

#[cfg(test)]
mod tests;
