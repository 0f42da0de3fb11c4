//! P11: ping-pong latency of a lightly loaded server, and what an idle one costs.
//!
//! One and eight connections, a 64 B message each in flight. Ours runs once with every way of
//! polling its completion queue before it sleeps. Then the price: the CPU time of our idle server, polling
//! adaptively, shortly after it was busy.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use slipring_benches::measure::binaries::Binaries;
use slipring_benches::measure::clock::{now, pause};
use slipring_benches::measure::contenders::{echo, floor, peers};
use slipring_benches::measure::drive::Load;
use slipring_benches::measure::rounds::{Figure, compare};
use slipring_benches::measure::settings::Settings;
use slipring_benches::measure::usage::cpu_time;
use slipring_benches::measure::{SERVER_CPU, run_bench, say};

const POLLING: [&str; 3] = ["adaptive", "off", "always"];

/// How long the idle server is watched.
const IDLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    run_bench("p11_latency", || {
        let settings = Settings::from_env()?;
        let binaries = Binaries::build(&settings.peers)?;
        for connections in [1, 8] {
            ping_pong(&settings, &binaries, connections)?;
        }
        idle(&binaries)
    })
}

fn ping_pong(settings: &Settings, binaries: &Binaries, connections: usize) -> io::Result<()> {
    let mut contenders = vec![floor(binaries, "ring-echo"), floor(binaries, "epoll-echo")];
    for polling in POLLING {
        let name = format!("slipring --poll {polling}");
        contenders.extend(echo(binaries, &name, &["--poll", polling]));
    }
    contenders.extend(peers(binaries));
    let load = Load {
        connections,
        size: 64,
        churn: false,
        depth: 1,
        tls: None,
        seconds: settings.seconds,
    };
    let title = format!("P11: ping-pong of 64 B, connections: {connections}, loopback");
    compare(&title, Figure::P50, settings.rounds, &load, binaries, &contenders).map(drop)
}

fn idle(binaries: &Binaries) -> io::Result<()> {
    let Some(contender) = echo(binaries, "slipring", &["--poll", "adaptive"]) else {
        return Ok(());
    };
    let server = contender.recipe.start(SERVER_CPU)?;
    let load = Load { connections: 8, size: 64, churn: false, depth: 1, tls: None, seconds: 1.0 };
    load.run(binaries, &server)?;
    let (cpu_before, before) = (cpu_time(server.pid())?, now());
    pause(IDLE);
    let used = cpu_time(server.pid())? - cpu_before;
    let share = used.as_secs_f64() / before.elapsed().as_secs_f64() * 100.0;
    say(format_args!("\nidle after load, --poll adaptive, over {IDLE:?}: {share:.3} % of a CPU"));
    Ok(())
}
