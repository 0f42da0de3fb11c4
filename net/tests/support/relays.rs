//! What every relay of tasks promises, whatever it does to the bytes.

use std::future::Future;
use std::io::Write;
use std::sync::mpsc;

use slipring::{Conn, dial, timeout};

use super::{
    PATIENCE, accept, connect, end, expect_eof, expect_reset, listener, ms, one_reactor,
    read_bytes, reporting,
};

/// Dropped while it relays it resets both connections; dropped before it was polled it closes both.
pub(crate) fn given_up<R: Future>(relay: impl Fn(Conn, Conn) -> R + Clone + Send + 'static) {
    let (listener, upstream) = listener();
    for is_polled in [true, false] {
        let relay = relay.clone();
        let builder = one_reactor().max_dialed(16);
        let (serving, told) = reporting(builder, move |client: Conn, tell: mpsc::Sender<()>| {
            let relay = relay.clone();
            async move {
                let server = dial(upstream).await.expect("it listens");
                let relaying = relay(client, server);
                if is_polled {
                    assert!(timeout(ms(200), relaying).await.is_err(), "it ended by itself");
                } else {
                    drop(relaying);
                }
                tell.send(()).expect("the test waits");
            }
        });
        let mut client = connect(serving.addresses()[0]);
        let mut server = accept(&listener);
        if is_polled {
            client.write_all(b"there").expect("sent");
            server.write_all(b"back!").expect("sent");
            assert_eq!(read_bytes(&server, 5), b"there");
            assert_eq!(read_bytes(&client, 5), b"back!");
            assert_eq!((expect_reset(&client), expect_reset(&server)), (0, 0));
        } else {
            expect_eof(&client);
            expect_eof(&server);
        }
        drop((client, server));
        told.recv_timeout(PATIENCE).expect("told");
        end(serving);
    }
}
