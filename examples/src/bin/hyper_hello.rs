//! `hyper_hello`: says hello over HTTP/1.1 and HTTP/2, by hyper.
//!
//! The idea: hyper reads and writes a reactor's connection directly, with the reactor's timers and tasks. Try it:
//!
//! ```text
//! cargo run --release --bin hyper_hello
//! curl http://127.0.0.1:7000/you
//! curl --http2-prior-knowledge http://127.0.0.1:7000/you
//!
//! cargo run --release --bin dev-cert
//! cargo run --release --bin hyper_hello -- --tls-cert cert.pem --tls-key key.pem
//! curl --cacert cert.pem https://localhost:7000/you
//! ```

use std::convert::Infallible;
use std::process::ExitCode;

use clap::Parser;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use slipring::Conn;
use slipring_examples::cli::ServerOptions;
use slipring_examples::{http, service};

/// Says hello over HTTP/1.1 and HTTP/2.
#[derive(Parser, Debug)]
#[command(name = "hyper_hello", version)]
struct Options {
    #[command(flatten)]
    server: ServerOptions,
}

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("hello {}\n", request.uri().path().trim_start_matches('/'));
    Ok(Response::new(Full::from(text)))
}

fn main() -> ExitCode {
    let (options, signals) = service::begin::<Options>();
    let tls = options.server.tls.server(&http::PROTOCOLS);
    service::serve(&options.server, signals, move |conn: Conn| {
        http::serve_conn(conn, tls.clone(), service_fn(hello))
    })
}
