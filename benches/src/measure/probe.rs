//! A latency probe: one connection, 64 B there and back, now and then.
//!
//! ```text
//!   pause (100 to 700 us, drawn) ──> write 64 B ──> read 64 B ──> histogram
//! ```
//! It is to see what others do to a server, so it is no load itself: it pauses between two pings, each time for
//! another time, or it would fall into step with the turns of what it looks at. And it must not wait for
//! the load that it runs beside: its thread is a real-time one meanwhile, where that is permitted.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::clock::{now, pause};
use super::held::{check_echo, connect};
use super::note;
use crate::pin::RealTime;

/// Microseconds between an answer and the next ping.
const PAUSE_US: Range<u64> = 100..700;
/// Longer than anybody waits for an answer.
const LATENCY_MAX_NS: u64 = 10_000_000_000;

/// What the pings of one stretch took, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    /// The median.
    pub p50_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
    /// How many there were.
    pub count: u64,
}

/// Pings a server for `warmup`, which does not count, and then for `measured`.
///
/// # Errors
/// When the server does not answer, or not with what it was sent.
///
/// # Panics
/// Never: the bounds of its histogram are constants.
pub fn ping(server: SocketAddr, warmup: Duration, measured: Duration) -> io::Result<Pings> {
    let mut stream = connect(server, 0)?;
    let real_time = RealTime::begin();
    if let Err(error) = &real_time {
        note(format_args!("no real-time priority ({error}): pings wait for the load beside them"));
    }
    let mut latencies = Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_NS, 3)
        .expect("1 to the maximum, 3 digits, are valid bounds");
    let begin = now();
    let mut dice = fastrand::Rng::with_seed(1);
    loop {
        let sent_at = now();
        if sent_at - begin >= warmup + measured {
            break;
        }
        check_echo(&mut stream, dice.u8(..))?;
        if sent_at - begin >= warmup {
            latencies.saturating_record(sent_at.elapsed().as_nanos() as u64);
        }
        pause(Duration::from_micros(dice.u64(PAUSE_US)));
    }
    let us = |ns: u64| ns as f64 / 1e3;
    Ok(Pings {
        p50_us: us(latencies.value_at_quantile(0.5)),
        p99_us: us(latencies.value_at_quantile(0.99)),
        max_us: us(latencies.max()),
        count: latencies.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answer_once(change: impl Fn(&mut [u8]) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::Builder::new()
            .spawn(move || {
                let (mut stream, _) = listener.accept().expect("somebody connects");
                let mut message = [0; 64];
                while stream.read_exact(&mut message).is_ok() {
                    change(&mut message);
                    stream.write_all(&message).expect("it reads");
                }
            })
            .expect("a thread");
        address
    }

    #[test]
    fn what_counts_is_what_comes_after_the_warm_up() {
        let server = answer_once(|_| {});
        let pings = ping(server, Duration::from_millis(20), Duration::from_millis(60));
        let pings = pings.expect("it answers");
        assert!(pings.count > 0 && pings.count <= 600, "{pings:?}");
        assert!(pings.p50_us > 0.0 && pings.p50_us <= pings.p99_us, "{pings:?}");
        assert!(pings.p99_us <= pings.max_us * 1.001, "{pings:?}");
    }

    #[test]
    fn another_byte_is_no_answer() {
        let server = answer_once(|message| message[63] ^= 1);
        assert!(ping(server, Duration::ZERO, Duration::from_millis(50)).is_err());
    }
}
