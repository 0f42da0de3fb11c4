//! P4: connect, echo 64 B, close, 64 at a time. Server CPU a connection, against the ring floor.

use std::process::ExitCode;

use slipring_benches::measure::binaries::Binaries;
use slipring_benches::measure::contenders::{echo, floor, peers};
use slipring_benches::measure::drive::Load;
use slipring_benches::measure::rounds::{Figure, compare};
use slipring_benches::measure::run_bench;
use slipring_benches::measure::settings::Settings;

fn main() -> ExitCode {
    run_bench("p4_churn", || {
        let settings = Settings::from_env()?;
        let binaries = Binaries::build(&settings.peers)?;
        let floors = ["ring-echo", "ring-echo --direct", "epoll-echo"];
        let mut contenders = floors.map(|which| floor(&binaries, which)).to_vec();
        contenders.extend(echo(&binaries, "slipring", &[]));
        contenders.extend(echo(&binaries, "slipring async", &["--api", "async"]));
        contenders.extend(peers(&binaries));
        let load = Load {
            connections: 64,
            size: 64,
            churn: true,
            depth: 1,
            tls: None,
            seconds: settings.seconds,
        };
        let title = "P4: connect + echo 64 B + close, 64 at a time, loopback";
        compare(title, Figure::Cpu, settings.rounds, &load, &binaries, &contenders).map(drop)
    })
}
