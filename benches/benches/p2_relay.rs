//! P2: relaying, 64 connections of small, middling and large messages. Proxy CPU a round trip.
//!
//! ```text
//!   load (CPU 1) ──> proxy under test (CPU 0) ──> floor epoll-echo (CPU 1)   and back
//! ```
//! Ratios are to the relay floor; below each table ours stands against each of the proxies, round
//! by round, since that is what the aim is stated in.

use std::io;
use std::process::ExitCode;

use slipring_benches::measure::binaries::Binaries;
use slipring_benches::measure::contenders::{floor, proxy};
use slipring_benches::measure::drive::Load;
use slipring_benches::measure::proxies::Configurations;
use slipring_benches::measure::rounds::{Figure, Series, compare};
use slipring_benches::measure::settings::{Peers, Settings};
use slipring_benches::measure::{CLIENT_CPU, run_bench, say};

/// Message sizes: a request, a page, a download.
const SIZES: [usize; 3] = [64, 16 * 1024, 256 * 1024];

const OURS: &str = "slipring proxy";

fn main() -> ExitCode {
    run_bench("p2_relay", || {
        let settings = Settings::from_env()?;
        let binaries = Binaries::build(&Peers::Only(Vec::new()))?;
        let configurations = Configurations::new()?;
        let upstream = floor(&binaries, "epoll-echo").recipe.start(CLIENT_CPU)?;
        let to = upstream.address.to_string();
        let mut contenders = vec![floor(&binaries, "ring-relay").with(&["--to", &to])];
        contenders.extend(proxy(&binaries, OURS, upstream.address));
        contenders.extend(configurations.contenders(upstream.address)?);
        for size in SIZES {
            let load = Load {
                connections: 64,
                size,
                churn: false,
                depth: 1,
                tls: None,
                seconds: settings.seconds,
            };
            let title = format!("P2: relay, {size} B, 64 connections, closed loop, loopback");
            let figure = Figure::Cpu;
            let series = compare(&title, figure, settings.rounds, &load, &binaries, &contenders)?;
            against_proxies(&series);
        }
        Ok::<(), io::Error>(())
    })
}

/// Ours against each of the others that is a product.
fn against_proxies(series: &[Series]) {
    let Some(ours) = series.iter().find(|row| row.name == OURS) else { return };
    for other in series.iter().filter(|row| !row.name.starts_with("floor") && row.name != OURS) {
        if ours.is_empty() || other.is_empty() {
            continue;
        }
        let ratio = ours.ratio(other, Figure::Cpu);
        let (median, min, max) = (ratio.median, ratio.min, ratio.max);
        say(format_args!("- {OURS} to {}: {median:.2} ({min:.2}..{max:.2})", other.name));
    }
}
