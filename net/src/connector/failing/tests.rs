//! Every way in which the parts beneath fail, and what it is called above.

use slipring_core::Fault;

use super::*;
use crate::failure::{Idempotency, Side};

fn kept() -> Traffic {
    Traffic { is_reused: true, ..Traffic::default() }
}

fn sent(bytes_sent: u64) -> Traffic {
    Traffic { bytes_sent, ..Traffic::default() }
}

#[test]
fn dials_that_come_to_nothing() {
    let (to, from) = ("192.0.2.1:80".parse().expect("one"), "::1".parse().expect("one"));
    for (error, label, side) in [
        (DialError::Timeout, "connect_timeout", Side::Upstream),
        (DialError::Failed(Fault::Refused), "refused", Side::Upstream),
        (DialError::Failed(Fault::TimedOut), "connect_timeout", Side::Upstream),
        (DialError::Failed(Fault::Denied), "denied", Side::Local),
        (DialError::Failed(Fault::Unreachable), "unreachable", Side::Upstream),
        (DialError::Failed(Fault::Other(71)), "connect_failed", Side::Upstream),
        (DialError::Failed(Fault::DescriptorsOfProcess), "emfile", Side::Local),
        (DialError::Failed(Fault::AddressUnavailable), "ports", Side::Local),
        (DialError::Ended(CloseReason::DrainDeadline), "connect_given_up", Side::Local),
        (DialError::NotBegun(DialRefused::Full { limit: 1 }), "limit_process", Side::Local),
        (DialError::NotBegun(DialRefused::Ending), "draining", Side::Local),
        (DialError::NotBegun(DialRefused::Families { to, from }), "no_source", Side::Local),
    ] {
        let made = of_dial(error);
        assert_eq!((made.label(), made.side()), (label, side), "{error}");
        let fault = if let DialError::Failed(fault) = error { Some(fault) } else { None };
        assert_eq!(made.fault(), fault);
    }
}

#[test]
fn sends_that_come_to_nothing() {
    let too_many = SendError::TooMany { bytes: 9, most: 8 };
    for (error, traffic, label) in [
        (SendError::Ended(CloseReason::Reset), kept(), "stale_reuse"),
        (SendError::Ended(CloseReason::Reset), sent(1), "reset_early"),
        (SendError::Ended(CloseReason::PeerClosed), kept(), "stale_reuse"),
        (SendError::Ended(CloseReason::IdleTimeout), kept(), "stale_reuse"),
        (SendError::Ended(CloseReason::IdleTimeout), sent(1), "idle"),
        (SendError::Ended(CloseReason::Aborted), kept(), "ended"),
        (SendError::Closing, kept(), "stale_reuse"),
        (SendError::Closing, Traffic { bytes_sent: 1, ..kept() }, "ended"),
        (SendError::ShutDown, kept(), "ended"),
        (too_many, kept(), "too_large"),
    ] {
        assert_eq!(of_send(error, traffic).label(), label, "{error}");
    }
}

#[test]
fn who_stalls_has_some_of_it() {
    let error = of_close(CloseReason::WriteStall, sent(10));
    assert!(error.traffic().is_partial && !error.retry(Idempotency::Idempotent).is_allowed());
    assert!(!of_close(CloseReason::WriteStall, sent(0)).traffic().is_partial);
    assert!(!of_close(CloseReason::Reset, sent(10)).traffic().is_partial);
}

#[test]
fn what_we_end_before_it_can_be_used_was_given_up() {
    let drained = of_send(SendError::Ended(CloseReason::Drained), sent(0));
    assert_eq!(of_introduction(drained).label(), "connect_given_up");
    let reset = of_send(SendError::Ended(CloseReason::Reset), sent(0));
    assert_eq!(of_introduction(reset).label(), "reset_early");
}

#[cfg(feature = "tls")]
#[test]
fn tls_that_fails() {
    use crate::tls::{AlertDescription, CertificateError};
    let plain = Traffic::default();
    for (error, traffic, label) in [
        (TlsError::Timeout, plain, "tls_timeout"),
        (TlsError::HandshakeCap { cap: 1 }, plain, "shed"),
        (TlsError::EndedInHandshake, plain, "tls_truncated"),
        (TlsError::Truncated, plain, "tls_truncated"),
        (TlsError::Truncated, kept(), "stale_reuse"),
        (TlsError::Truncated, Traffic { bytes_received: 1, ..kept() }, "tls_truncated"),
        (TlsError::Ended(CloseReason::Reset), plain, "reset_early"),
        (TlsError::Closing, kept(), "stale_reuse"),
        (TlsError::SentClose, plain, "ended"),
        (TlsError::TooMany { bytes: 9, most: 8 }, plain, "too_large"),
        (TlsError::TooManyOwned { bytes: 9, most: 8 }, plain, "too_large"),
        (TlsError::ReadTimeout, plain, "read_timeout"),
        (TlsError::PeerCert(CertificateError::Expired), plain, "tls_peer_cert"),
        (TlsError::NameMismatch(CertificateError::NotValidForName), plain, "tls_name_mismatch"),
        (TlsError::BadName { name: String::new() }, plain, "tls_name_mismatch"),
        (TlsError::ClientCertRequired, plain, "tls_client_cert_required"),
        (TlsError::NoCommonProtocol, plain, "tls_alert"),
        (TlsError::Alert(AlertDescription::AccessDenied), plain, "tls_alert"),
        (TlsError::Protocol(rustls::Error::DecryptError), plain, "tls_protocol"),
        (TlsError::HandshakeTooLarge { limit: 1 }, plain, "tls_protocol"),
        (TlsError::NoMemory, plain, "shed"),
        (TlsError::KeysUsedUp, plain, "ended"),
    ] {
        let text = error.to_string();
        let made = of_tls(error, traffic);
        assert_eq!(made.label(), label, "{text}");
        assert_eq!(made.traffic(), traffic, "{text}");
    }
    for (reason, label) in [
        (CloseReason::IdleTimeout, "tls_timeout"),
        (CloseReason::PhaseTimeout, "tls_timeout"),
        (CloseReason::DrainDeadline, "connect_given_up"),
        (CloseReason::Reset, "reset_early"),
    ] {
        assert_eq!(of_handshake(TlsError::Ended(reason)).label(), label, "{reason}");
    }
}
