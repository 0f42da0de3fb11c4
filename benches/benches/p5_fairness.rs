//! P5: what a ping takes while four hogs stream through the same echo server.
//!
//! ```text
//!   probe, real-time priority (CPU 1) ──── 64 B, now and then ────> echo server (CPU 0)
//!   hogs: four connections    (CPU 1) ──── 1 MiB in flight each ──>      "
//! ```
//! A server that gives a hog all it asks for has the ping wait. One that is fair by doing little at a time pays
//! with throughput: so that of the hogs stands beside, relative to the plain epoll loop's of the same round. The row
//! of an idle server is what a ping takes with no hog at all.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use slipring_benches::measure::binaries::Binaries;
use slipring_benches::measure::contenders::{Contender, echo, floor, peers};
use slipring_benches::measure::drive::{Load, WARMUP};
use slipring_benches::measure::probe::{Pings, ping};
use slipring_benches::measure::rounds::Spread;
use slipring_benches::measure::settings::Settings;
use slipring_benches::measure::{SERVER_CPU, note, run_bench, say};

const HOGS: usize = 4;
/// What a hog has in flight: so many messages of so many bytes.
const DEPTH: usize = 16;
const MESSAGE_BYTES: usize = 64 * 1024;

/// Longer than the hogs take to connect.
const SETTLE: Duration = Duration::from_millis(200);

/// The plain epoll loop: what the hogs' throughput is a ratio of.
const PLAIN: &str = "floor epoll-echo";

struct Row {
    contender: Contender,
    with_hogs: bool,
    /// One a round.
    samples: Vec<Option<Sample>>,
}

#[derive(Clone, Copy)]
struct Sample {
    pings: Pings,
    hogs_gb_per_s: f64,
    hogs_failed: u64,
}

fn main() -> ExitCode {
    run_bench("p5_fairness", || {
        let settings = Settings::from_env()?;
        let binaries = Binaries::build(&settings.peers)?;
        let row = |with_hogs| move |contender| Row { contender, with_hogs, samples: Vec::new() };
        let mut rows = vec![row(true)(floor(&binaries, "epoll-echo"))];
        rows.push(row(true)(floor(&binaries, "ring-echo")));
        rows.extend(echo(&binaries, "slipring, idle", &[]).map(row(false)));
        rows.extend(echo(&binaries, "slipring", &[]).map(row(true)));
        rows.extend(peers(&binaries).into_iter().map(row(true)));
        for round in 0..settings.rounds {
            note(format_args!("P5: round {} of {}", round + 1, settings.rounds));
            // Every round starts with another one, so that drift inside a round favours nobody.
            for turn in 0..rows.len() {
                let index = (round + turn) % rows.len();
                let row = &mut rows[index];
                let sample = measure(row, &binaries, settings.seconds);
                if let Err(error) = &sample {
                    note(format_args!("{}: {error}", row.contender.name));
                }
                row.samples.push(sample.ok());
            }
        }
        print(&rows);
        Ok(())
    })
}

fn measure(row: &Row, binaries: &Binaries, seconds: f64) -> io::Result<Sample> {
    let server = row.contender.recipe.start(SERVER_CPU)?;
    let load = Load {
        connections: HOGS,
        size: MESSAGE_BYTES,
        churn: false,
        depth: DEPTH,
        tls: None,
        // The pings end before the hogs do.
        seconds: seconds + SETTLE.as_secs_f64(),
    };
    let hogs = match row.with_hogs {
        true => Some(load.start(binaries, &server)?),
        false => None,
    };
    let pings = ping(server.address, WARMUP + SETTLE, Duration::from_secs_f64(seconds))?;
    let hogs = hogs.map(|hogs| hogs.finish()).transpose()?;
    Ok(Sample {
        pings,
        hogs_gb_per_s: hogs.map_or(0.0, |sample| sample.mb_per_s / 1e3),
        hogs_failed: hogs.map_or(0, |sample| sample.failed),
    })
}

fn print(rows: &[Row]) {
    say(format_args!("\n### P5: ping of 64 B while {HOGS} hogs stream, loopback\n"));
    say(
        "| server | ping p50 us | spread | p99 us | spread | max us | hogs GB/s | to epoll | spread |",
    );
    say("|---|---|---|---|---|---|---|---|---|");
    let Some(plain) = rows.iter().find(|row| row.contender.name == PLAIN) else { return };
    for row in rows {
        let failed: u64 = row.samples.iter().flatten().map(|sample| sample.hogs_failed).sum();
        let name = match (row.samples.iter().all(Option::is_none), failed) {
            (true, _) => {
                say(format_args!("| {} | failed | | | | | | | |", row.contender.name));
                continue;
            }
            (false, 0) => row.contender.name.clone(),
            (false, failed) => format!("{} ({failed} FAILED)", row.contender.name),
        };
        let spread =
            |figure: fn(&Sample) -> f64| Spread::of(row.samples.iter().flatten().map(figure));
        let (p50, p99) = (spread(|s| s.pings.p50_us), spread(|s| s.pings.p99_us));
        let max = spread(|s| s.pings.max_us);
        let pings = format!(
            "{:.0} | {:.0}..{:.0} | {:.0} | {:.0}..{:.0} | {:.0}",
            p50.median, p50.min, p50.max, p99.median, p99.min, p99.max, max.max
        );
        if !row.with_hogs {
            say(format_args!("| {name} | {pings} | | | |"));
            continue;
        }
        let pairs = row.samples.iter().zip(&plain.samples);
        let pairs = pairs.filter_map(|(own, plain)| own.as_ref().zip(plain.as_ref()));
        let ratio = Spread::of(pairs.map(|(own, plain)| own.hogs_gb_per_s / plain.hogs_gb_per_s));
        say(format_args!(
            "| {name} | {pings} | {:.2} | {:.2} | {:.2}..{:.2} |",
            spread(|s| s.hogs_gb_per_s).median,
            ratio.median,
            ratio.min,
            ratio.max,
        ));
    }
    say("\nAim: p50 <= 65 and p99 <= 400 where idle is 50 and 120, with the hogs at 1.00 or more.");
}
