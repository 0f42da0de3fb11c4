//! What a task has under way is not cut off: by a drain while its answer is made, nor is a read deadline put off by who
//! comes back to it.

mod support;

use std::io::{Read, Write};
use std::sync::mpsc;

use slipring::{Conn, End, Timeout, sleep, timeout};
use support::{PATIENCE, bounded, connect, expect_eof, ms, one_reactor, ping, serve};

/// Answers at once, but for `slow`.
async fn answer(mut conn: Conn, begun: mpsc::Sender<()>) {
    while let Some(data) = conn.recv().await {
        if &data[..] == b"slow" {
            // Waits that were given up are none.
            let given_up = timeout(ms(5), conn.recv()).await;
            assert!(given_up.is_err() && timeout(ms(5), conn.closed()).await.is_err());
            begun.send(()).expect("the test waits");
            sleep(ms(600)).await;
        }
        if conn.send(data).await.is_err() {
            return;
        }
    }
}

#[test]
fn a_drain_waits_for_an_answer_in_the_making_and_for_nobody_who_waits() {
    bounded(|| {
        let (tell, begun) = mpsc::channel();
        // Quiet is who has been silent for 100 ms; and in the first steps everybody is asked who is.
        let builder = one_reactor().drain_deadline(ms(4000));
        let serving = serve(builder, move |conn| answer(conn, tell.clone()));
        let (mut slow, idle) = (connect(serving.addresses()[0]), connect(serving.addresses()[0]));
        ping(&idle, b"hello");
        slow.write_all(b"slow").expect("sent");
        begun.recv_timeout(PATIENCE).expect("begun");
        let started = support::now();
        serving.handle().drain();
        expect_eof(&idle);
        assert!(started.elapsed() < ms(600), "who waits goes first");
        let mut answer = [0; 4];
        slow.read_exact(&mut answer).expect("its answer");
        assert_eq!(&answer, b"slow");
        expect_eof(&slow);
        drop((slow, idle));
        let counters = serving.join().expect("a drain in order");
        assert_eq!(counters[0].drain_aborted, 0);
        assert!(started.elapsed() < ms(3000), "it does not take until its deadline");
    });
}

#[test]
fn a_read_deadline_goes_on_when_its_wait_is_dropped() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let serving = serve(one_reactor(), move |mut conn: Conn| {
            let tell = tell.clone();
            async move {
                conn.set_read_deadline(Timeout::After(ms(100)));
                let began = slipring::now();
                // Given up again and again, and not put off.
                while timeout(ms(10), conn.recv()).await.is_err() {}
                let end = conn.end();
                tell.send((end, slipring::now() - began)).expect("the test waits");
            }
        });
        let client = connect(serving.addresses()[0]);
        let (end, took) = told.recv_timeout(PATIENCE).expect("told");
        assert_eq!(end, Some(End::ReadTimeout));
        support::assert_kept("the read deadline", took, ms(100));
        drop(client);
        serving.handle().drain();
        serving.join().expect("a drain in order");
    });
}
