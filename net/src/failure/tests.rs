//! Every kind: where it happens, what follows from it, what it says.

use std::sync::Arc;

use super::*;
use crate::policy::outcome::Outcome;
use crate::policy::pool::PoolSnapshot;

fn reset_with(traffic: Traffic) -> Error {
    Error::of_close(CloseReason::Reset, traffic)
}

fn sent(bytes_sent: u64) -> Traffic {
    Traffic { bytes_sent, ..Traffic::default() }
}

/// One of each variant.
fn all() -> Vec<Kind> {
    let pool = PoolSnapshot { max: 10, checked_out: 10, waiting: 3, ..PoolSnapshot::default() };
    let last_dial_error = Some(Arc::new(Error::new(Dial::Refused)));
    let reason = CloseReason::Aborted;
    vec![
        Resolve::NotFound.into(),
        Resolve::NoAddress.into(),
        Resolve::ServerFailure.into(),
        Resolve::Timeout.into(),
        Resolve::NotPublic.into(),
        Dial::Timeout.into(),
        Dial::Refused.into(),
        Dial::Denied.into(),
        Dial::Unreachable.into(),
        Dial::NoSource.into(),
        Dial::Failed(Fault::Other(71)).into(),
        Dial::GivenUp(reason).into(),
        Tls::Timeout.into(),
        Tls::PeerCert.into(),
        Tls::NameMismatch.into(),
        Tls::ClientCertRequired.into(),
        Tls::Alert.into(),
        Tls::Protocol.into(),
        Tls::Truncated.into(),
        ProxyHeader::Missing.into(),
        ProxyHeader::Malformed.into(),
        ProxyHeader::Untrusted.into(),
        ProxyHeader::Timeout.into(),
        Admit::ProcessLimit.into(),
        Admit::ListenerLimit.into(),
        Admit::SourceLimit.into(),
        Admit::RateLimit.into(),
        Admit::UpstreamLimit { limit: 7 }.into(),
        Admit::PendingLimit { limit: 7 }.into(),
        Admit::AclDenied.into(),
        Admit::Overloaded.into(),
        Resource::FdProcess.into(),
        Resource::FdSystem.into(),
        Resource::Memory.into(),
        Resource::EphemeralPorts.into(),
        Checkout::Saturated(pool).into(),
        Checkout::Timeout { snapshot: pool, last_dial_error }.into(),
        Transfer::ReadTimeout.into(),
        Transfer::WriteStall.into(),
        Transfer::PeerUnresponsive.into(),
        Transfer::StaleReuse.into(),
        Transfer::ResetEarly.into(),
        Transfer::Reset.into(),
        Transfer::UnexpectedEof.into(),
        Transfer::TooLarge.into(),
        Transfer::IdleTimeout.into(),
        Transfer::Ended(reason).into(),
        Upstream::Empty.into(),
        Upstream::NoneHealthy { endpoints: 3 }.into(),
        Breaker::Open { until: Duration::from_millis(1500) }.into(),
        Drain::Refusing.into(),
        Retry::BudgetExhausted.into(),
    ]
}

#[test]
fn labels_are_few_different_and_fit_for_metrics() {
    let mut labels: Vec<_> = all().into_iter().map(|kind| Error::new(kind).label()).collect();
    assert!(labels.iter().all(|label| {
        label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && label.len() <= 24
    }));
    labels.sort_unstable();
    let count = labels.len();
    labels.dedup();
    assert_eq!(labels.len(), count, "two kinds share a label");
}

#[test]
fn each_is_one_line_that_says_more_than_its_name() {
    for kind in all() {
        let text = Error::new(kind).to_string();
        assert!(text.len() > 25 && !text.contains('\n'), "{text}");
        assert!(text.ends_with("[no endpoint, after 0.000 s]"), "{text}");
    }
}

#[test]
fn a_breaker_counts_what_speaks_against_the_upstream_and_nothing_of_ours() {
    let counted: Vec<_> = all()
        .into_iter()
        .map(Error::new)
        .filter(Error::counts_for_breaker)
        .map(|error| error.label())
        .collect();
    assert_eq!(
        counted,
        [
            "connect_timeout",
            "refused",
            "unreachable",
            "connect_failed",
            "tls_timeout",
            "tls_truncated",
            "write_stall",
            "peer_dead",
            "reset_early",
            "reset",
            "eof_early",
        ]
    );
    let of = |outcome| -> Vec<_> {
        let errors = all().into_iter().map(Error::new);
        errors.filter(|error| error.outcome() == outcome).map(|error| error.label()).collect()
    };
    assert_eq!(of(Outcome::DialFailure), ["refused", "unreachable", "connect_failed"]);
    assert_eq!(of(Outcome::DialTimeout), ["connect_timeout", "tls_timeout"]);
    for error in all().into_iter().map(Error::new) {
        assert_eq!(error.outcome().is_failure(), error.counts_for_breaker());
    }
}

#[test]
fn what_fails_before_there_is_a_connection_is_a_dial_that_failed_and_says_where() {
    for kind in [Kind::from(Transfer::ResetEarly), Tls::Truncated.into()] {
        let error = Error::new(kind.clone()).in_phase(Phase::TlsHandshake);
        assert_eq!(error.outcome(), Outcome::DialFailure, "{error}");
        assert!(error.to_string().ends_with(", in the TLS handshake]"), "{error}");
        assert_eq!(Error::new(kind).outcome(), Outcome::Failure);
    }
    let error = Error::new(Transfer::ReadTimeout).in_phase(Phase::TlsHandshake);
    assert_eq!(error.outcome(), Outcome::Ignored, "it does not count at all");
}

#[test]
fn what_was_not_sent_is_repeated_for_anybody() {
    let mut never = Vec::new();
    for error in all().into_iter().map(Error::new) {
        let repeat = error.retry(Idempotency::ConnectOnly);
        assert_eq!(repeat, error.retry(Idempotency::Idempotent));
        assert_eq!(error.retry(Idempotency::Never), Repeat::Never(super::Never::Forbidden));
        match repeat {
            Repeat::Never(why) => {
                assert_eq!(why, super::Never::Final);
                never.push(error.label());
            }
            Repeat::At(until) => assert_eq!(until, Duration::from_millis(1500)),
            _ => {}
        }
    }
    assert_eq!(
        never,
        [
            "dns_not_found",
            "dns_no_address",
            "dns_not_public",
            "connect_given_up",
            "tls_peer_cert",
            "tls_name_mismatch",
            "tls_client_cert_required",
            "tls_alert",
            "tls_protocol",
            "proxy_missing",
            "proxy_malformed",
            "proxy_untrusted",
            "proxy_timeout",
            "acl",
            "reset",
            "too_large",
            "idle",
            "ended",
            "draining",
            "retry_budget",
        ]
    );
}

#[test]
fn what_was_sent_is_repeated_if_that_does_no_harm() {
    let early = reset_with(sent(10));
    assert_eq!(early.label(), "reset_early");
    assert_eq!(early.retry(Idempotency::Idempotent), Repeat::Elsewhere);
    assert_eq!(early.retry(Idempotency::KeyedBy(7)), Repeat::Elsewhere);
    let refused = early.retry(Idempotency::ConnectOnly);
    assert_eq!(refused, Repeat::Never(super::Never::NotIdempotent));

    let partial = reset_with(Traffic { is_partial: true, ..sent(10) });
    let refused = partial.retry(Idempotency::Idempotent);
    assert_eq!(refused, Repeat::Never(super::Never::Partial));

    let replied = reset_with(Traffic { bytes_received: 1, ..sent(10) });
    assert_eq!(replied.label(), "reset");
    let refused = replied.retry(Idempotency::KeyedBy(7));
    assert_eq!(refused, Repeat::Never(super::Never::Replied));

    let stale = reset_with(Traffic { is_reused: true, ..sent(10) });
    assert_eq!(stale.retry(Idempotency::Idempotent), Repeat::Fresh);
    assert!(!stale.counts_for_breaker() && early.counts_for_breaker());
    let closed = Traffic { is_reused: true, ..sent(10) };
    assert_eq!(Error::of_close(CloseReason::PeerClosed, closed).label(), "stale_reuse");
    assert_eq!(Error::of_close(CloseReason::PeerClosed, sent(10)).label(), "eof_early");
}

#[test]
fn what_the_kernel_says_of_a_dial_has_its_kind() {
    for (reason, label) in [
        (CloseReason::DialTimeout, "connect_timeout"),
        (CloseReason::DialFailed(Fault::TimedOut), "connect_timeout"),
        (CloseReason::DialFailed(Fault::Refused), "refused"),
        (CloseReason::DialFailed(Fault::Reset), "connect_failed"),
        (CloseReason::DialFailed(Fault::Denied), "denied"),
        (CloseReason::DialFailed(Fault::Unreachable), "unreachable"),
        (CloseReason::DialFailed(Fault::AddressUnavailable), "ports"),
        (CloseReason::DialFailed(Fault::DescriptorsOfProcess), "emfile"),
        (CloseReason::DialFailed(Fault::DescriptorsOfHost), "enfile"),
        (CloseReason::DialFailed(Fault::Memory), "nomem"),
    ] {
        let error = Error::of_close(reason, Traffic::default());
        assert_eq!((error.label(), error.phase()), (label, Phase::Dial), "{reason:?}");
    }
    let failed = CloseReason::DialFailed(Fault::Refused);
    assert_eq!(Error::of_close(failed, Traffic::default()).fault(), Some(Fault::Refused));
}

#[test]
fn every_end_of_a_connection_has_its_kind() {
    for (reason, label) in [
        (CloseReason::PeerClosed, "eof_early"),
        (CloseReason::LocalClosed, "ended"),
        (CloseReason::Aborted, "ended"),
        (CloseReason::Reset, "reset_early"),
        (CloseReason::Transport(Fault::TimedOut), "peer_dead"),
        (CloseReason::Transport(Fault::BrokenPipe), "reset_early"),
        (CloseReason::Transport(Fault::Memory), "nomem"),
        (CloseReason::Transport(Fault::Unreachable), "reset_early"),
        (CloseReason::IdleTimeout, "idle"),
        (CloseReason::WriteStall, "write_stall"),
        (CloseReason::HalfClosedTimeout, "read_timeout"),
        (CloseReason::PhaseTimeout, "read_timeout"),
        (CloseReason::HandlerPanic, "ended"),
        (CloseReason::OutboxOverflow, "ended"),
        (CloseReason::Drained, "ended"),
        (CloseReason::DrainDeadline, "ended"),
        (CloseReason::Evicted, "ended"),
        (CloseReason::Shed, "ended"),
        (CloseReason::DriverFailed, "ended"),
    ] {
        assert_eq!(Error::of_close(reason, sent(1)).label(), label, "{reason:?}");
    }
}

#[test]
fn a_line_says_with_whom_after_how_long_and_how_far_it_had_come() {
    let traffic = Traffic { bytes_sent: 100, is_reused: true, ..Traffic::default() };
    let error = reset_with(traffic)
        .at(SocketAddr::from(([10, 0, 0, 1], 6379)))
        .after(Duration::from_millis(12));
    assert_eq!(
        error.to_string(),
        "a kept connection had been given up by its peer [10.0.0.1:6379, after 0.012 s, 100 bytes sent and 0 \
         received, on a kept connection]"
    );
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("reset by the peer"));
    let pool = PoolSnapshot {
        max: 10,
        checked_out: 10,
        waiting: 3,
        oldest_waiter: Duration::from_secs(5),
        oldest_checkout: Duration::from_secs(30),
        ..PoolSnapshot::default()
    };
    let last_dial_error = Some(Arc::new(Error::new(Dial::Timeout)));
    let error = Error::new(Checkout::Timeout { snapshot: pool, last_dial_error });
    assert_eq!(
        error.to_string(),
        "no connection was free in time: 10 of 10 in use, 3 waiting (the first for 5.000 s), the oldest in use for \
         30.000 s; its last dial failed: connect timeout: nobody answered [no endpoint, after 0.000 s] [no endpoint, \
         after 0.000 s]"
    );
}

/// The rows of docs/guide/errors.md: their labels, what they say of another attempt, and of the breaker.
fn rows() -> Vec<(Vec<&'static str>, &'static str, &'static str)> {
    let page = include_str!("../../../docs/guide/errors.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [labels, _, _, again, breaker] = cells[..] else { panic!("five cells: {line}") };
        let labels = labels.split(", ").map(|label| label.trim_matches('`')).collect();
        (labels, again, breaker.trim_end_matches('|').trim())
    })
    .collect()
}

#[test]
fn the_guide_has_each_of_them_and_says_what_is_so() {
    let mut rows: std::collections::BTreeMap<_, _> = rows()
        .into_iter()
        .flat_map(|(labels, again, breaker)| {
            labels.into_iter().map(move |label| (label, (again, breaker)))
        })
        .collect();
    for kind in all() {
        let is_sent = matches!(kind, Kind::Transfer(_) | Kind::Tls(Tls::Truncated));
        let traffic = Traffic { bytes_sent: u64::from(is_sent), ..Traffic::default() };
        let error = Error::new(kind).with_traffic(traffic);
        let row = rows.remove(error.label());
        let (again, breaker) = row.unwrap_or_else(|| panic!("{} is missing", error.label()));
        let (unsure, idempotent) =
            (error.retry(Idempotency::ConnectOnly), error.retry(Idempotency::Idempotent));
        let expected = match idempotent {
            Repeat::Never(_) => "no",
            Repeat::Elsewhere => "elsewhere",
            Repeat::Fresh => "fresh",
            Repeat::Later => "later",
            Repeat::At(_) => "then",
        };
        let condition = if unsure == idempotent { "" } else { ", if idempotent" };
        assert_eq!(again, format!("{expected}{condition}"), "{}", error.label());
        assert_eq!(breaker == "yes", error.counts_for_breaker(), "{}", error.label());
    }
    assert!(rows.is_empty(), "there are no such errors: {rows:?}");
}
