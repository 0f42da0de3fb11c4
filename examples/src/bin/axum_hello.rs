//! `axum_hello`: an axum router on reactors.
//!
//! The idea: a router is a service, so what serves hyper's connections serves it; what its handlers share among all
//! reactors is an `Arc`, as ever. Try it:
//!
//! ```text
//! cargo run --release --bin axum_hello
//! curl http://127.0.0.1:7000/hello/you
//! curl http://127.0.0.1:7000/count
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use clap::Parser;
use hyper_util::service::TowerToHyperService;
use slipring::Conn;
use slipring_examples::cli::ServerOptions;
use slipring_examples::{http, service};

/// Says hello, counts, and sends bodies back, by an axum router.
#[derive(Parser, Debug)]
#[command(name = "axum_hello", version)]
struct Options {
    #[command(flatten)]
    server: ServerOptions,
}

/// Greetings of all reactors.
type Greeted = Arc<AtomicU64>;

async fn hello(Path(name): Path<String>, State(greeted): State<Greeted>) -> String {
    greeted.fetch_add(1, Ordering::Relaxed);
    format!("hello {name}\n")
}

async fn count(State(greeted): State<Greeted>) -> String {
    format!("{}\n", greeted.load(Ordering::Relaxed))
}

async fn echo(body: String) -> String {
    body
}

/// By the reactor's clock: a sleep of a reactor may stand in a handler, which axum wants to be `Send`.
async fn wait(Path(span_ms): Path<u64>) -> &'static str {
    slipring::sleep(Duration::from_millis(span_ms)).await;
    "here I am\n"
}

fn main() -> ExitCode {
    let (options, signals) = service::begin::<Options>();
    let router = Router::new()
        .route("/hello/{name}", get(hello))
        .route("/count", get(count))
        .route("/echo", post(echo))
        .route("/wait/{span_ms}", get(wait))
        .with_state(Greeted::default());
    let tls = options.server.tls.server(&http::PROTOCOLS);
    service::serve(&options.server, signals, move |conn: Conn| {
        http::serve_conn(conn, tls.clone(), TowerToHyperService::new(router.clone()))
    })
}
