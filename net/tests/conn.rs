//! Connections held by async code, on the real kernel: bytes, ends, back-pressure, timeouts, dials, tasks.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use slipring::{Builder, CloseReason, Conn, End, SendError, Serve, Serving};
use support::{bounded, connect, echo_pattern, one_reactor};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn echo(mut conn: Conn) -> Result<(), SendError> {
    while let Some(data) = conn.recv().await {
        conn.send(data).await?;
    }
    Ok(())
}

fn start<S, F>(builder: Builder, service: S) -> Serving
where
    S: FnMut(Conn) -> F + Clone + Send + 'static,
    F: Future + 'static,
{
    builder.listen(LOCAL).serve(service).expect("it starts")
}

fn end(serving: Serving) {
    serving.handle().drain();
    serving.join().expect("a drain in order");
}

#[test]
fn what_is_received_is_sent_back() {
    bounded(|| {
        let serving = start(one_reactor(), echo);
        let address = serving.addresses()[0];
        for (seed, bytes) in [0, 1, 64, 65_536, 65_537, 8 << 20].into_iter().enumerate() {
            echo_pattern(&connect(address), seed as u64, bytes, 100_000);
        }
        let clients: Vec<_> = (0..4)
            .map(|seed| {
                std::thread::spawn(move || echo_pattern(&connect(address), seed, 2 << 20, 50_000))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("its bytes came back"));
        end(serving);
    });
}

/// Runs a service that reports to the test.
fn reporting<T, S, F>(builder: Builder, service: S) -> (Serving, mpsc::Receiver<T>)
where
    T: Send + 'static,
    S: Fn(Conn, mpsc::Sender<T>) -> F + Clone + Send + 'static,
    F: Future + 'static,
{
    let (tell, told) = mpsc::channel();
    let serving = start(builder, move |conn| service(conn, tell.clone()));
    (serving, told)
}

const PATIENCE: Duration = support::PATIENCE;

#[test]
fn what_is_not_taken_at_once_is_there_for_the_next_call() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            let mut head = [0; 3];
            assert_eq!(conn.recv_into(&mut []).await, 0, "no room is no end");
            assert_eq!(conn.recv_into(&mut head).await, 3);
            let mut rest = conn.recv().await.expect("there is more");
            let next = rest.split_to(2);
            conn.unrecv(rest);
            let rest = conn.recv().await.expect("what was put back");
            tell.send((head.to_vec(), next.to_vec(), rest.to_vec())).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"abcdefgh").expect("sent");
        let told = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(told, (b"abc".to_vec(), b"de".to_vec(), b"fgh".to_vec()));
        end(serving);
    });
}

#[test]
fn behind_the_peers_end_we_may_go_on_sending() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            let data = conn.recv().await.expect("bytes before the end");
            assert!(conn.recv().await.is_none());
            tell.send((conn.end(), conn.reason())).expect("the test waits");
            conn.send(data).await.expect("our direction is open");
            conn.shutdown();
            assert_eq!(conn.send("more").await, Err(SendError::ShutDown));
            tell.send((conn.end(), Some(conn.closed().await))).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"last words").expect("sent");
        client.shutdown(Shutdown::Write).expect("half-closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "last words");
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), (Some(End::Eof), None));
        let (_, reason) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(reason, Some(CloseReason::PeerClosed));
        end(serving);
    });
}

#[test]
fn what_came_before_a_reset_comes_before_its_end() {
    bounded(|| {
        let (serving, told) = reporting(one_reactor(), async |mut conn, tell| {
            // It lets the reset come first.
            let reason = conn.closed().await;
            let mut bytes = Vec::new();
            while let Some(data) = conn.recv().await {
                bytes.extend_from_slice(&data);
            }
            let sent = conn.send("too late").await;
            tell.send((bytes, conn.end(), reason, sent)).expect("the test waits");
        });
        let mut client = connect(serving.addresses()[0]);
        client.write_all(b"before").expect("sent");
        support::reset(client);
        let (bytes, end_, reason, sent) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(bytes, b"before");
        assert_eq!(reason, CloseReason::Reset);
        assert_eq!(end_, Some(End::Closed(CloseReason::Reset)));
        assert_eq!(sent, Err(SendError::Ended(CloseReason::Reset)));
        end(serving);
    });
}
