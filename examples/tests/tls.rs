//! TLS from the command line: `dev-cert` makes what `echo` serves, and bad files are refused in one line.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use slipring::tls::{Machine, Plain, TlsClient};
use support::{Serving, connect, refusal};

const ECHO: &str = env!("CARGO_BIN_EXE_echo");
const DEV_CERT: &str = env!("CARGO_BIN_EXE_dev-cert");

/// A folder of the test's own, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("slipring-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn dev_cert(folder: &Folder, more: &[&str]) -> Output {
    let mut command = Command::new(DEV_CERT);
    command.arg("--out").arg(&folder.0).args(more).output().expect("the binary is there")
}

/// Sends a message by TLS, and gets it back.
fn ping(address: std::net::SocketAddr, certificate: &Path, name: &str) {
    let client = TlsClient::builder().roots_file(certificate).build().expect("a client");
    let mut machine = Machine::client(&client, name).expect("a name");
    let mut stream = connect(address);
    let (mut plain, mut received, mut has_sent) = (Vec::new(), Vec::new(), false);
    while received.len() < 5 {
        if machine.agreed().is_some() && !std::mem::replace(&mut has_sent, true) {
            machine.seal(b"hello").expect("established");
        }
        while let Some(bytes) = machine.poll_outgoing() {
            (&stream).write_all(&bytes).expect("sent");
        }
        let mut buffer = vec![0; 20_000];
        let count = stream.read(&mut buffer).expect("received");
        assert!(count > 0, "ended before it answered");
        machine.handle_received(&mut buffer[..count], &mut plain).expect("good records");
        for plain in plain.drain(..) {
            match plain {
                Plain::Here(range) => received.extend_from_slice(&buffer[range]),
                Plain::Whole(bytes) => received.extend(bytes),
            }
        }
    }
    assert_eq!(received, b"hello");
}

#[test]
fn what_dev_cert_writes_is_what_echo_serves() {
    let folder = Folder::new("serves");
    let made = dev_cert(&folder, &[]);
    let said = String::from_utf8(made.stdout).expect("text");
    assert!(made.status.success() && said.contains("localhost, 127.0.0.1, ::1"), "{said}");
    let (certificate, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    assert!(said.contains(&format!("echo -- --tls-cert {certificate} --tls-key {key}")), "{said}");
    let mode = fs::metadata(&key).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads a key");

    let arguments = ["--listen", "127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key];
    let mut echo = Serving::start(ECHO, &arguments);
    let address = echo.address();
    for name in ["localhost", "127.0.0.1", "::1"] {
        ping(address, Path::new(&certificate), name);
    }
    echo.signal("TERM");
    let (status, stderr, _) = echo.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn dev_cert_replaces_nothing_unless_it_is_told_to() {
    let folder = Folder::new("replaces");
    assert!(dev_cert(&folder, &["--name", "one.example"]).status.success());
    let before = fs::read(folder.file("key.pem")).expect("written");
    let again = dev_cert(&folder, &[]);
    let said = String::from_utf8(again.stderr).expect("text");
    assert_eq!(again.status.code(), Some(2));
    assert!(said.lines().count() == 1 && said.contains("--force"), "{said}");
    assert_eq!(fs::read(folder.file("key.pem")).expect("still there"), before);
    assert!(dev_cert(&folder, &["--force"]).status.success());
    assert_ne!(fs::read(folder.file("key.pem")).expect("there"), before);
}

#[test]
fn dev_cert_refuses_what_is_no_name_and_where_it_cannot_write() {
    let folder = Folder::new("refuses");
    let odd = dev_cert(&folder, &["--name", "ümlaut.example"]);
    let said = String::from_utf8(odd.stderr).expect("text");
    assert!(odd.status.code() == Some(2) && said.contains("give DNS names"), "{said}");
    let nowhere = dev_cert(&Folder(folder.0.join("missing")), &[]);
    let said = String::from_utf8(nowhere.stderr).expect("text");
    assert!(nowhere.status.code() == Some(2) && said.contains("--out"), "{said}");
}

#[test]
fn echo_refuses_files_that_are_none_in_one_line() {
    let folder = Folder::new("echo-refuses");
    assert!(dev_cert(&folder, &[]).status.success());
    let (certificate, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    let missing = folder.file("missing.pem");
    for (arguments, words) in [
        (vec!["--tls-cert", &certificate], vec!["--tls-key"]),
        (vec!["--tls-cert", &missing, "--tls-key", &key], vec![&*missing, "check the path"]),
        (vec!["--tls-cert", &key, "--tls-key", &certificate], vec!["swapped"]),
    ] {
        let said = refusal(Command::new(ECHO).args(&arguments));
        for word in words {
            assert!(said.contains(word), "no `{word}` in: {said}");
        }
    }
}
