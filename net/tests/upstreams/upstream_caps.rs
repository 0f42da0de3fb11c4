//! The cap of an upstream, at which everybody gets something: who retries on a fresh connection, who goes to another
//! endpoint than all others, who has one of its own, who waits in vain and asks why.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::setting::{ask, with_upstream};
use crate::support::{bounded, ms, spawn};
use slipring::Idempotency;
use slipring::policy::retry::RetryPolicy;
use slipring::upstream::{Request, UpstreamLimits};

/// In two seconds.
fn soon_enough() -> Request {
    Request { within: Some(ms(2000)), ..Request::default() }
}

#[test]
fn a_retry_on_a_fresh_connection_waits_for_the_place_of_the_dead_one() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        spawn(move || {
            // The first of its connections answers once, and is dead when it is used again; the second answers.
            for answers in [1, 2] {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = [0; 5];
                for _ in 0..answers {
                    if stream.read_exact(&mut request).is_ok() {
                        let _ = stream.write_all(&request);
                    }
                }
                let _ = stream.read_exact(&mut request);
            }
        });
        let retry = RetryPolicy { attempts_max: 2, ..RetryPolicy::default() };
        let limits = UpstreamLimits { connections_max: 1, retry, ..UpstreamLimits::default() };
        with_upstream(&[address], limits, async |upstream| {
            let request = soon_enough();
            ask(&upstream, &request, Idempotency::Idempotent).await.expect("the first");
            ask(&upstream, &request, Idempotency::Idempotent).await.expect("on a fresh one");
        });
    });
}
