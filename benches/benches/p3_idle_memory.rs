//! P3: user memory of a server that holds 10,000 idle connections, after one echo of 64 B on each.
//!
//! User memory is what the server's process has resident of its own (`measure::usage`): its heap,
//! its buffers as far as they were ever touched, its rings. What the kernel keeps for each socket is
//! not in it. Read three times: before any connection; after one connection echoed often enough that
//! buffers shared by all connections have been used; and with all connections. The growth from the
//! second to the third is what the connections themselves cost; from the first, all that is there.
//! This process is the client: it holds the other ends, from several source addresses so that ports
//! do not run out.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use slipring_benches::measure::binaries::Binaries;
use slipring_benches::measure::clock::pause;
use slipring_benches::measure::contenders::{Contender, echo, floor, peers};
use slipring_benches::measure::held::{check_echo, connect};
use slipring_benches::measure::settings::Settings;
use slipring_benches::measure::usage::memory_bytes;
use slipring_benches::measure::{SERVER_CPU, note, run_bench, say};

const CONNECTIONS: usize = 10_000;

/// What a server gets to settle before its memory is read.
const SETTLE: Duration = Duration::from_millis(300);

/// Echoes that touch every shared buffer of a server at least once.
const WARMUP_ECHOES: usize = 10_000;

/// Connections ours is to make room for; its default stands lower.
const ROOM: &str = "10100";

struct Memory {
    base: u64,
    warm: u64,
    loaded: u64,
}

fn main() -> ExitCode {
    run_bench("p3_idle_memory", || {
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
        say(format_args!("\n### P3: {CONNECTIONS} idle connections after one 64 B echo each\n"));
        say("| server | base KiB | warm KiB | loaded KiB | each, from warm | from base |");
        say("|---|---|---|---|---|---|");
        for contender in &contenders {
            match measure(contender) {
                Ok(memory) => print(&contender.name, &memory),
                Err(error) => note(format_args!("{}: {error}", contender.name)),
            }
        }
        Ok(())
    })
}

fn measure(contender: &Contender) -> io::Result<Memory> {
    let server = contender.recipe.start(SERVER_CPU)?;
    pause(SETTLE);
    let base = memory_bytes(server.pid())?;
    let mut held = Vec::with_capacity(CONNECTIONS);
    held.push(connect(server.address, 0)?);
    for echo in 0..WARMUP_ECHOES {
        check_echo(&mut held[0], echo as u8)?;
    }
    let warm = memory_bytes(server.pid())?;
    while held.len() < CONNECTIONS {
        let mut stream = connect(server.address, held.len())?;
        check_echo(&mut stream, held.len() as u8)?;
        held.push(stream);
    }
    pause(SETTLE);
    let loaded = memory_bytes(server.pid())?;
    Ok(Memory { base, warm, loaded })
}

fn print(name: &str, memory: &Memory) {
    let each = |before: u64| (memory.loaded as f64 - before as f64) / CONNECTIONS as f64;
    say(format_args!(
        "| {name} | {} | {} | {} | {:.0} B | {:.0} B |",
        memory.base / 1024,
        memory.warm / 1024,
        memory.loaded / 1024,
        each(memory.warm),
        each(memory.base),
    ));
}
