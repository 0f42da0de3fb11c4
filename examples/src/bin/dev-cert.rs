//! `dev-cert`: a certificate and a key to try TLS with, on the machine at hand.
//!
//! Not a certificate authority, and nothing for others: the certificate is signed with its own key, so only who is
//! told to trust it does.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use slipring_examples::cli::{self, fail};

/// Years for which the certificate is good, this one included.
const YEARS: i32 = 2;
const SECONDS_PER_YEAR: u64 = 31_556_952;

/// Makes a certificate and its key, `cert.pem` and `key.pem`, to try TLS with.
#[derive(Parser, Debug)]
#[command(name = "dev-cert", version)]
struct Options {
    /// What the certificate is for: a DNS name or an IP address. May be given several times
    /// [default: localhost, 127.0.0.1, ::1]
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,

    /// The folder to write the two files to
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,

    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    let mut options: Options = cli::parse();
    if options.name.is_empty() {
        options.name = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    }
    let (certificate, key) = (options.out.join("cert.pem"), options.out.join("key.pem"));
    for file in [&certificate, &key] {
        if file.exists() && !options.force {
            fail(format_args!(
                "{} is there already; choose another folder (--out) or replace it (--force)",
                file.display()
            ));
        }
    }
    let (certificate_pem, key_pem) = make(&options.name);
    // The key first: with an old key beside it, a new certificate is of no use.
    write(&key, &key_pem, 0o600);
    write(&certificate, &certificate_pem, 0o644);
    let (certificate, key) = (certificate.display(), key.display());
    let lines = format!(
        "wrote {certificate} and {key}, for {}\n\
         next: cargo run --release --bin echo -- --tls-cert {certificate} --tls-key {key}\n\
         then: openssl s_client -quiet -CAfile {certificate} -verify_return_error -connect 127.0.0.1:7000\n",
        options.name.join(", ")
    );
    // Whoever closed stdout does not want to know.
    let _ = io::stdout().write_all(lines.as_bytes());
    ExitCode::SUCCESS
}

/// The certificate and its key, as PEM.
fn make(names: &[String]) -> (String, String) {
    let refused = |error: rcgen::Error| -> ! {
        fail(format_args!(
            "no certificate for {}: {error}; give DNS names or IP addresses",
            names.join(", ")
        ))
    };
    let mut parameters = CertificateParams::new(names).unwrap_or_else(|error| refused(error));
    let year = this_year();
    // What tools show of it.
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "dev-cert, for tests only");
    parameters.not_before = date_time_ymd(year, 1, 1);
    parameters.not_after = date_time_ymd(year + YEARS, 1, 1);
    let key = KeyPair::generate().unwrap_or_else(|error| refused(error));
    let certificate = parameters.self_signed(&key).unwrap_or_else(|error| refused(error));
    (certificate.pem(), key.serialize_pem())
}

#[expect(clippy::disallowed_methods, reason = "a certificate is valid by the calendar")]
fn this_year() -> i32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    1970 + since.map_or(0, |since| (since.as_secs() / SECONDS_PER_YEAR) as i32)
}

/// Writes a file with these permissions from the start, whatever those of one that was there.
fn write(path: &Path, text: &str, mode: u32) {
    let cannot = |error: io::Error| -> ! {
        fail(format_args!(
            "cannot write {}: {error}; choose a folder that this user may write to (--out)",
            path.display()
        ))
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => cannot(error),
        _ => {}
    }
    let mut open = OpenOptions::new();
    let file = open.write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.unwrap_or_else(|error| cannot(error));
}
