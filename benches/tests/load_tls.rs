//! The load over TLS, against servers of rustls that are right, and against such as are wrong in one way each.
//!
//! As `load.rs`: the servers are threads of this process on loopback, the load is the real binary.

#![expect(clippy::disallowed_methods, reason = "servers of threads")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A socket with TLS over it, the server's side.
type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A server of this process whose connections are served by a thread each, for as long as the process lives.
fn server(
    tickets: bool,
    serve: impl Fn(Stream) -> std::io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("both versions")
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key.into())
        .expect("a pair");
    if tickets {
        config.ticketer = rustls::crypto::ring::Ticketer::new().expect("random numbers");
    } else {
        config.send_tls13_tickets = 0;
    }
    let (config, serve) = (Arc::new(config), Arc::new(serve));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let (config, serve) = (Arc::clone(&config), Arc::clone(&serve));
            thread::spawn(move || {
                let rustls = ServerConnection::new(config).expect("a configuration");
                // How it ended is the load's to tell.
                serve(StreamOwned::new(rustls, socket)).is_ok()
            });
        }
    });
    address
}

/// Echoes until the client's close_notify; whether it came.
fn echo_all(stream: &mut Stream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len])?;
    }
}

fn echo(mut stream: Stream) -> std::io::Result<()> {
    echo_all(&mut stream)?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// What a run of the load printed, and its exit code.
fn load(address: SocketAddr, arguments: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .arg(address.to_string())
        .args(["--tls", "--json", "--timeout", "10"])
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the binary is built");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn number(json: &str, key: &str) -> u64 {
    let (_, value) = json.split_once(&format!("\"{key}\":")).expect(key);
    value.split([',', '}']).next().and_then(|text| text.parse().ok()).expect(key)
}

#[test]
fn streams_come_back_whole_through_records() {
    let server = server(true, echo);
    for arguments in [
        "--connections 8 --size 64",
        "--connections 3 --size 1 --depth 8",
        "--connections 2 --size 16384",
        // More than rustls takes before the handshake is done, and than a socket takes at once.
        "--connections 2 --size 1000000 --depth 2",
    ] {
        let (code, json) = load(server, &format!("{arguments} --seconds 0.3 --warmup 0.2"));
        assert_eq!(code, Some(0), "{arguments}: {json}");
        assert!(number(&json, "completed") > 0, "{arguments}: {json}");
    }
}

#[test]
fn handshakes_are_full_unless_sessions_are_to_be_resumed() {
    let server = server(true, echo);
    let churn = "--connections 4 --size 64 --seconds 0.3 --churn";
    let (code, json) = load(server, churn);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!(number(&json, "full_handshakes"), number(&json, "completed"), "{json}");
    assert_eq!(number(&json, "resumed_handshakes"), 0, "{json}");
    // The first of each place is a full one.
    let (code, json) = load(server, &format!("{churn} --resume --warmup 0"));
    assert_eq!(code, Some(0), "{json}");
    assert_eq!(number(&json, "full_handshakes"), 4, "{json}");
    assert_eq!(number(&json, "resumed_handshakes") + 4, number(&json, "completed"), "{json}");
}

#[test]
fn a_server_without_tickets_resumes_nothing() {
    let server = server(false, echo);
    let churn = "--connections 4 --size 64 --seconds 0.3 --churn --resume --warmup 0.1";
    let (code, json) = load(server, churn);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!(number(&json, "resumed_handshakes"), 0, "{json}");
}

#[test]
fn a_changed_byte_and_an_end_without_close_notify_are_found() {
    let churn = "--connections 2 --size 64 --seconds 0.2 --warmup 0 --churn";
    let changes = server(true, |mut stream| {
        let mut message = [0; 64];
        stream.read_exact(&mut message)?;
        message[63] ^= 1;
        stream.write_all(&message)
    });
    let (code, json) = load(changes, churn);
    assert_eq!(code, Some(1), "{json}");
    assert!(number(&json, "corrupted") > 0, "{json}");
    let cuts = server(true, |mut stream| echo_all(&mut stream));
    let (code, json) = load(cuts, churn);
    assert_eq!(code, Some(1), "{json}");
    assert!(number(&json, "early_eof") > 0 && number(&json, "completed") == 0, "{json}");
}

#[test]
fn a_server_without_tls_is_an_error_and_not_measured() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(len @ 1..) = socket.read(&mut buffer) {
                    if socket.write_all(&buffer[..len]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let (code, json) = load(address, "--connections 2 --size 64 --seconds 0.2 --warmup 0");
    assert_eq!(code, Some(1), "{json}");
    assert_eq!((number(&json, "completed"), number(&json, "other")), (0, 2), "{json}");
}
