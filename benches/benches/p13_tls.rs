//! P13: TLS. Echo of 64 B and of 16 KiB on 64 connections; full handshakes and resumptions, 64 at a time.
//!
//! Against tokio with tokio-rustls, whose rustls is the same and set up the same way. So the row tells what is done
//! around the ciphers: how bytes come from the kernel to rustls and back. All servers agree to the same version, suite
//! and group, since the load offers no other; that they do is looked at first.

use std::io;
use std::process::ExitCode;

use slipring_benches::load::tls::{Handshakes, agreed};
use slipring_benches::measure::binaries::{Binaries, single_peer};
use slipring_benches::measure::certificate::Certificate;
use slipring_benches::measure::contenders::{Contender, echo};
use slipring_benches::measure::drive::{Load, Sample};
use slipring_benches::measure::rounds::{Figure, Series, compare};
use slipring_benches::measure::settings::{Peers, Settings};
use slipring_benches::measure::{SERVER_CPU, run_bench, say};

fn main() -> ExitCode {
    run_bench("p13_tls", || {
        let settings = Settings::from_env()?;
        let binaries = Binaries::build(&Peers::Only(Vec::new()))?;
        let certificate = Certificate::new()?;
        let contenders = contenders(&settings, &binaries, &certificate)?;
        let terms = common_terms(&contenders)?;
        say(format_args!("\nall agree to: {terms}; certificate: ECDSA P-256"));
        for size in [64, 16 * 1024] {
            let load = load(&settings, size, None);
            let title = format!("P13: TLS echo, {size} B, 64 connections, closed loop, loopback");
            compare(&title, Figure::Cpu, settings.rounds, &load, &binaries, &contenders)?;
        }
        for (handshakes, what) in
            [(Handshakes::Full, "full handshake"), (Handshakes::Resumed, "resumption")]
        {
            let load = load(&settings, 64, Some(handshakes));
            let title =
                format!("P13: connect + {what} + echo 64 B + close, 64 at a time, loopback");
            let series =
                compare(&title, Figure::Cpu, settings.rounds, &load, &binaries, &contenders)?;
            check_handshakes(handshakes, &series)?;
        }
        Ok(())
    })
}

/// Whom to compare; first, what the others are ratios of.
fn contenders(
    settings: &Settings,
    binaries: &Binaries,
    certificate: &Certificate,
) -> io::Result<Vec<Contender>> {
    let Some(program) = single_peer("tokio-tls", &settings.peers)? else {
        return Err(io::Error::other("peer-tokio-tls is what others are measured against"));
    };
    let cpu = SERVER_CPU.to_string();
    let arguments = ["--listen", "127.0.0.1:0", "--cpu", &cpu];
    let tokio = Contender::new("tokio + tokio-rustls", program, &arguments);
    let mut contenders = vec![tokio];
    contenders.extend(echo(binaries, "slipring async", &["--api", "async"]));
    let files = certificate.arguments();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    Ok(contenders.into_iter().map(|contender| contender.with(&files)).collect())
}

/// With `churn`: connections that end after a message, and begin with this handshake.
fn load(settings: &Settings, size: usize, churn: Option<Handshakes>) -> Load {
    Load {
        connections: 64,
        size,
        churn: churn.is_some(),
        depth: 1,
        tls: Some(churn.unwrap_or(Handshakes::Full)),
        seconds: settings.seconds,
    }
}

/// What all of them agree to with the load.
fn common_terms(contenders: &[Contender]) -> io::Result<String> {
    let mut all = Vec::new();
    for contender in contenders {
        let server = contender.recipe.start(SERVER_CPU)?;
        all.push(agreed(server.address)?);
    }
    match all.iter().find(|terms| **terms != all[0]) {
        Some(other) => Err(io::Error::other(format!("one agrees to {}, one to {other}", all[0]))),
        None => Ok(all.swap_remove(0)),
    }
}

/// A table of handshakes is of one kind, or is wrong: a server may keep tickets to itself.
fn check_handshakes(handshakes: Handshakes, series: &[Series]) -> io::Result<()> {
    for row in series.iter().filter(|row| !row.is_empty()) {
        let other = |sample: &Sample| match handshakes {
            Handshakes::Full => sample.resumed,
            Handshakes::Resumed => sample.full,
        };
        let most = row.spread(|sample| other(sample) as f64).max;
        if most > 0.0 {
            let name = &row.name;
            let text = format!("{name}: up to {most} handshakes of a round were of the other kind");
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}
