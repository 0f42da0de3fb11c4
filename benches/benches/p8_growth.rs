//! P8: what a message costs with 16,000 busy connections, compared with 64.
//!
//! Everybody's caches hold 64 connections and nobody's hold 16,000, the kernel's sockets least of all. So the
//! question is not what grows, but whether ours grows more than a bare loop over the same sockets: the last
//! column is our growth divided by the ring floor's, each taken within a round.

use std::io;
use std::process::ExitCode;

use slipring_benches::measure::binaries::Binaries;
use slipring_benches::measure::contenders::{Contender, echo, floor, peers};
use slipring_benches::measure::drive::{Load, Sample};
use slipring_benches::measure::rounds::Spread;
use slipring_benches::measure::settings::Settings;
use slipring_benches::measure::{SERVER_CPU, note, run_bench, say};

/// Connections: few, many, and what the usual limit of 20,000 descriptors has room for.
const COUNTS: [usize; 3] = [64, 1024, 16_000];
/// Ours makes room for all of them; its default stands higher, but not by much.
const ROOM: &str = "16384";

struct Row {
    contender: Contender,
    /// One a round, and in it one for each of `COUNTS`.
    samples: Vec<[Option<Sample>; COUNTS.len()]>,
}

fn main() -> ExitCode {
    run_bench("p8_growth", || {
        let settings = Settings::from_env()?;
        let binaries = Binaries::build(&settings.peers)?;
        let mut contenders = vec![floor(&binaries, "ring-echo"), floor(&binaries, "epoll-echo")];
        contenders.extend(echo(&binaries, "slipring", &["--max-connections", ROOM]));
        contenders.extend(echo(
            &binaries,
            "slipring async",
            &["--api", "async", "--max-connections", ROOM],
        ));
        contenders.extend(peers(&binaries));
        let row = |contender| Row { contender, samples: Vec::new() };
        let mut rows: Vec<Row> = contenders.into_iter().map(row).collect();
        for round in 0..settings.rounds {
            note(format_args!("P8: round {} of {}", round + 1, settings.rounds));
            // Every round starts with another one, so that drift inside a round favours nobody.
            for turn in 0..rows.len() {
                let index = (round + turn) % rows.len();
                let row = &mut rows[index];
                let samples = COUNTS.map(|count| {
                    let sample = measure(&row.contender, &binaries, count, settings.seconds);
                    if let Err(error) = &sample {
                        note(format_args!("{}, {count}: {error}", row.contender.name));
                    }
                    sample.ok()
                });
                row.samples.push(samples);
            }
        }
        print(&rows);
        Ok(())
    })
}

fn measure(
    contender: &Contender,
    binaries: &Binaries,
    connections: usize,
    seconds: f64,
) -> io::Result<Sample> {
    // A server of its own for each: what 16,000 connections leave behind is no business of 64.
    let server = contender.recipe.start(SERVER_CPU)?;
    Load { connections, size: 64, churn: false, depth: 1, tls: None, seconds }
        .run(binaries, &server)
}

/// By what the cost of a message grows from the first count to the one of this index, in one round.
fn growth(samples: &[Option<Sample>; COUNTS.len()], count: usize) -> Option<f64> {
    Some(samples[count]?.cpu_us / samples[0]?.cpu_us)
}

fn print(rows: &[Row]) {
    let [few, many, most] = COUNTS;
    say(format_args!("\n### P8: echo, 64 B, from {few} to {most} connections, loopback\n"));
    say(format_args!(
        "| server | CPU us each at {few} | at {many} | at {most} | growth to {most} | spread | \
         growth to the floor's | spread |"
    ));
    say("|---|---|---|---|---|---|---|---|");
    let Some(reference) = rows.first() else { return };
    let last = COUNTS.len() - 1;
    for row in rows {
        let cpu = |count: usize| {
            Spread::of(row.samples.iter().filter_map(|s| Some(s[count]?.cpu_us))).median
        };
        let grown = Spread::of(row.samples.iter().filter_map(|samples| growth(samples, last)));
        let pairs = row.samples.iter().zip(&reference.samples);
        let relative = Spread::of(
            pairs.filter_map(|(own, floor)| Some(growth(own, last)? / growth(floor, last)?)),
        );
        let failed: u64 = row.samples.iter().flatten().flatten().map(|sample| sample.failed).sum();
        let failed = if failed == 0 { String::new() } else { format!(" ({failed} FAILED)") };
        say(format_args!(
            "| {}{failed} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2}..{:.2} | {:.2} | {:.2}..{:.2} |",
            row.contender.name,
            cpu(0),
            cpu(1),
            cpu(last),
            grown.median,
            grown.min,
            grown.max,
            relative.median,
            relative.min,
            relative.max,
        ));
    }
    say("\nAim: growth to the floor's <= 1.00.");
}
