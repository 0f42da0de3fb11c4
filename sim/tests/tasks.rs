//! Tasks on a stage, where each completion is the test's: what those who are slow keep of the buffers, how waits end,
//! what is left at the end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use slipring::{Census, CloseReason, Conn, End, SendError, Timeout, tasks};
use slipring_core::driver::Driver as _;
use slipring_core::token::{Descriptor, Op};
use slipring_core::{Handler, Limits, OnFull};
use slipring_sim::{Conditions, Stage};

/// Clients, of whom each has sent something: one buffer for each is more than are left alone.
const CLIENTS: usize = 14;
const BUFFERS: u32 = 16;

fn conditions(owned_bytes_max: u64) -> Conditions {
    let limits = Limits { buffers: BUFFERS, owned_bytes_max, ..Conditions::default().limits };
    Conditions { limits, ..Conditions::default() }
}

fn buffers_free<H: Handler>(stage: &mut Stage<H>) -> u32 {
    stage.driver().memory().buffers_free()
}

/// Buffers are short below a quarter of them.
const ENOUGH: u32 = BUFFERS / 4;

fn clients<H: Handler>(stage: &mut Stage<H>) -> Vec<Descriptor> {
    (0..CLIENTS).map(|_| stage.accept()).collect()
}

/// Each of them sends, and the kernel has delivered it before it hears of anything else.
fn send<H: Handler>(stage: &mut Stage<H>, clients: &[Descriptor]) {
    for client in clients {
        stage.driver().receive(*client, b"0123456789abcdef");
    }
    stage.rest();
}

async fn asleep(_conn: Conn) {
    slipring::sleep(Duration::from_secs(10)).await;
}

#[test]
fn who_sleeps_keeps_no_buffers_from_others() {
    let mut stage = Stage::with(tasks(asleep), &conditions(1 << 20));
    let clients = clients(&mut stage);
    send(&mut stage, &clients);
    assert_eq!(buffers_free(&mut stage), ENOUGH);
    // No more is copied than that takes.
    let copied = CLIENTS as u64 - u64::from(BUFFERS - ENOUGH);
    assert_eq!(stage.driver().memory().spilled_bytes(), 16 * copied);
}

#[test]
fn a_wait_that_was_dropped_keeps_none_either() {
    let service = async |mut conn: Conn| {
        // It is woken by the bytes, and takes none of them.
        assert!(slipring::timeout(Duration::from_millis(5), conn.recv()).await.is_err());
        asleep(conn).await;
    };
    let mut stage = Stage::with(tasks(service), &conditions(1 << 20));
    let clients = clients(&mut stage);
    stage.pass_ms(10);
    send(&mut stage, &clients);
    assert_eq!(buffers_free(&mut stage), ENOUGH);
}

#[test]
fn what_comes_behind_the_pause_keeps_none_either() {
    let service = async |mut conn: Conn| {
        // Buffers are short for good.
        let _kept = if conn.key().index() > 0 { conn.recv().await } else { None };
        asleep(conn).await;
    };
    let mut stage = Stage::with(tasks(service), &conditions(1 << 20));
    let clients = clients(&mut stage);
    send(&mut stage, &clients);
    assert_eq!(buffers_free(&mut stage), ENOUGH - 1);
    // The receive has been cancelled, and had brought this by then.
    send(&mut stage, &clients[..1]);
    assert_eq!(buffers_free(&mut stage), ENOUGH - 1);
}

#[test]
fn who_finds_no_plain_memory_asks_again() {
    // There is plain memory for one, the first, who reads after a while.
    let service = async |mut conn: Conn| {
        let is_first = conn.key().index() == 0;
        slipring::sleep(Duration::from_millis(if is_first { 5 } else { 10_000 })).await;
        while conn.recv().await.is_some() {}
    };
    let mut stage = Stage::with(tasks(service), &conditions(16));
    let clients = clients(&mut stage);
    send(&mut stage, &clients);
    let all_but_one = BUFFERS + 1 - CLIENTS as u32;
    assert_eq!(buffers_free(&mut stage), all_but_one);
    stage.pass_ms(20);
    assert_eq!(buffers_free(&mut stage), all_but_one + 1, "the next has its place");
}

#[test]
fn who_finds_no_plain_memory_keeps_it_from_nobody() {
    // There is plain memory for one of the others, and not for what the first has.
    let mut stage = Stage::with(tasks(asleep), &conditions(20));
    let clients = clients(&mut stage);
    stage.driver().receive(clients[0], &[0; 64]);
    send(&mut stage, &clients[1..]);
    assert_eq!(buffers_free(&mut stage), BUFFERS + 1 - CLIENTS as u32);
    assert_eq!(stage.driver().memory().spilled_bytes(), 16);
}

/// Aborts its connection, and holds it.
async fn aborted(mut conn: Conn) -> Conn {
    slipring::sleep(Duration::from_millis(5)).await;
    conn.abort();
    conn.closed().await;
    conn
}

#[test]
fn what_is_left_of_those_that_have_ended_keeps_no_buffers_from_others() {
    const ENDED: u32 = 12;
    let service = async |mut conn: Conn| {
        if conn.key().index() < ENDED {
            return asleep(aborted(conn).await).await;
        }
        // There is nothing to be had from these.
        let _kept = conn.recv().await;
        asleep(conn).await;
    };
    let mut stage = Stage::with(tasks(service), &conditions(1 << 20));
    let clients: Vec<_> = (0..BUFFERS).map(|_| stage.accept()).collect();
    let (ended, others) = clients.split_at(ENDED as usize);
    send(&mut stage, ended);
    stage.pass_ms(10);
    assert_eq!(stage.handler().census().ended, ended.len());
    assert_eq!(buffers_free(&mut stage), ENOUGH, "which is not short");
    send(&mut stage, others);
    stage.rest();
    assert!(buffers_free(&mut stage) >= ENOUGH);
}

#[test]
fn what_is_put_back_behind_the_end_keeps_none_either() {
    let service = async |mut conn: Conn| {
        let first = conn.recv().await.expect("it has come");
        let mut conn = aborted(conn).await;
        conn.unrecv(first);
        asleep(conn).await;
    };
    let mut stage = Stage::with(tasks(service), &conditions(1 << 20));
    let clients = clients(&mut stage);
    send(&mut stage, &clients);
    stage.pass_ms(10);
    assert!(buffers_free(&mut stage) >= ENOUGH);
}

#[test]
fn a_half_that_is_dropped_behind_the_end_leaves_nothing_of_it() {
    let service = async |conn: Conn| {
        let (receives, sends) = aborted(conn).await.split();
        drop(receives);
        slipring::sleep(Duration::from_secs(10)).await;
        drop(sends);
    };
    let mut stage = Stage::with(tasks(service), &conditions(1 << 20));
    let client = stage.accept();
    send(&mut stage, &[client]);
    assert_eq!(buffers_free(&mut stage), BUFFERS - 1);
    stage.pass_ms(10);
    assert_eq!(stage.handler().census().ended, 1);
    assert_eq!(buffers_free(&mut stage), BUFFERS);
}

#[test]
fn many_bytes_are_cut_into_pieces_that_an_outbox_holds() {
    let service = async |mut conn: Conn| {
        conn.send_all(&[7; 5_000]).await.expect("in pieces");
        asleep(conn).await;
    };
    let usual = Conditions::default().limits;
    let limits =
        Limits { outbox_high_bytes: 800, outbox_low_bytes: 400, outbox_bytes_max: 1_000, ..usual };
    let mut stage = Stage::with(tasks(service), &Conditions { limits, ..Conditions::default() });
    let client = stage.accept();
    stage.settle();
    assert_eq!(stage.sent(client), [7; 5_000]);
}

#[test]
fn the_pieces_are_no_larger_than_the_memory_of_the_reactor() {
    let service = async |mut conn: Conn| {
        conn.send_all(&[7; 200]).await.expect("in pieces");
        let mut left = &[8; 200][..];
        while !left.is_empty() {
            let sent = poll_fn(|cx| conn.poll_send_from(cx, left)).await.expect("as many as fit");
            left = &left[sent..];
        }
        asleep(conn).await;
    };
    let mut stage = Stage::with(tasks(service), &conditions(64));
    let client = stage.accept();
    stage.pass_ms(200);
    let sent = stage.sent(client);
    assert_eq!((sent.len(), sent.iter().filter(|byte| **byte == 7).count()), (400, 200));
}

#[test]
fn who_copies_takes_what_memory_there_is_and_waits_for_more() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let of_task = Rc::clone(&told);
    let service = move |mut conn: Conn| {
        let told = Rc::clone(&of_task);
        async move {
            conn.send(vec![0; 60]).await.expect("there is memory for so much");
            for _ in 0..2 {
                let sent = poll_fn(|cx| conn.poll_send_from(cx, &[1; 90])).await;
                told.borrow_mut().push(sent);
            }
            asleep(conn).await;
        }
    };
    let mut stage = Stage::with(tasks(service), &conditions(100));
    let client = stage.accept();
    assert_eq!(*told.borrow(), [Ok(40)], "there is no memory for more, but for so much");
    stage.pass_ms(10);
    assert_eq!(*told.borrow(), [Ok(40), Ok(90)]);
    assert_eq!(stage.sent(client).len(), 60 + 40 + 90);
}

#[test]
fn more_at_once_than_the_reactor_may_own_is_refused() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let of_task = Rc::clone(&told);
    let service = move |mut conn: Conn| {
        let told = Rc::clone(&of_task);
        async move {
            let sent = conn.send(vec![0; 65]).await;
            told.borrow_mut().push(sent);
            let sent = conn.send(vec![0; 64]).await;
            told.borrow_mut().push(sent);
            let sent = conn.send(&[0; 65][..]).await;
            told.borrow_mut().push(sent);
        }
    };
    let mut stage = Stage::with(tasks(service), &conditions(64));
    stage.accept();
    let error = SendError::TooManyOwned { bytes: 65, most: 64 };
    assert_eq!(*told.borrow(), [Err(error), Ok(()), Ok(())]);
    assert!(error.to_string().contains("raise `Limits::owned_bytes_max`"), "{error}");
}

#[test]
fn who_may_own_nothing_is_told_so() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let of_task = Rc::clone(&told);
    let service = move |mut conn: Conn| {
        let told = Rc::clone(&of_task);
        async move {
            let sent = conn.send_all(&[0; 65]).await;
            told.borrow_mut().push(sent);
            let sent = poll_fn(|cx| conn.poll_send_from(cx, &[0; 65])).await;
            told.borrow_mut().push(sent.map(drop));
        }
    };
    let mut stage = Stage::with(tasks(service), &conditions(0));
    stage.accept();
    let error = SendError::TooManyOwned { bytes: 1, most: 0 };
    assert_eq!(*told.borrow(), [Err(error); 2]);
}

#[test]
fn a_drain_waits_for_a_task_that_is_on_its_way() {
    let mut stage = Stage::new(tasks(asleep));
    let spawner = stage.handler().spawner();
    stage.settle();
    stage.drain();
    let task = spawner.spawn(|| async {
        slipring::sleep(Duration::from_millis(5)).await;
        7
    });
    assert!(stage.handler().is_busy());
    stage.pass_ms(10);
    assert_eq!(task.join(), Ok(7));
    assert!(stage.is_drained() && !stage.handler().is_busy());
}

#[test]
fn a_read_deadline_that_passes_while_nobody_waits_does_not_end_the_next_wait() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let of_task = Rc::clone(&told);
    let service = move |mut conn: Conn| {
        let told = Rc::clone(&of_task);
        async move {
            let ms = Duration::from_millis;
            conn.set_read_deadline(Timeout::After(ms(100)));
            // It begins, and is dropped.
            assert!(slipring::timeout(ms(10), conn.recv()).await.is_err());
            slipring::sleep(ms(500)).await;
            let from = slipring::now();
            assert!(conn.recv().await.is_none());
            told.borrow_mut().push((conn.end(), slipring::now() - from));
        }
    };
    let mut stage = Stage::new(tasks(service));
    stage.accept();
    stage.pass_ms(1_000);
    let told = told.borrow();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, Some(End::ReadTimeout));
    assert!((100..=102).contains(&told[0].1.as_millis()), "{told:?}");
}

#[test]
fn who_waits_for_memory_to_send_is_told_of_the_end_at_once() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let of_task = Rc::clone(&told);
    let service = move |mut conn: Conn| {
        let told = Rc::clone(&of_task);
        async move {
            conn.send(vec![0; 100]).await.expect("there is memory for so much");
            let sent = conn.send(vec![0; 100]).await;
            told.borrow_mut().push(sent);
        }
    };
    let mut stage = Stage::with(tasks(service), &conditions(100));
    let client = stage.accept();
    stage.rest();
    assert!(told.borrow().is_empty(), "there is no memory for so much");
    stage.reset(client);
    assert_eq!(*told.borrow(), [Err(SendError::Ended(CloseReason::Reset))]);
}

/// Takes most of the plain memory for so long, as soon as something comes; not so much that the reactor is strained.
async fn keeps_memory(mut conn: Conn, ms: u64) {
    let lease = conn.recv().await.expect("it has come");
    let most = lease.adopt_beside(vec![0; 150]).expect("there is memory for so much");
    slipring::sleep(Duration::from_millis(ms)).await;
    drop(most);
}

#[test]
fn a_drain_waits_for_who_waits_for_memory_to_send() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let of_task = Rc::clone(&told);
    let service = move |mut conn: Conn| {
        let told = Rc::clone(&of_task);
        async move {
            if conn.key().index() == 0 {
                return keeps_memory(conn, 500).await;
            }
            let sent = conn.send(vec![1; 100]).await;
            told.borrow_mut().push(sent);
            // It waits for the peer now.
            while conn.recv().await.is_some() {}
        }
    };
    let mut stage = Stage::with(tasks(service), &conditions(200));
    let first = stage.accept();
    stage.receive(first, b"x");
    let second = stage.accept();
    stage.drain();
    stage.pass_ms(400);
    assert!(told.borrow().is_empty(), "it has not been sent, and the connection is there");
    stage.pass_ms(150);
    assert_eq!(*told.borrow(), [Ok(())]);
    assert_eq!(stage.sent(second), [1; 100]);
    stage.pass_ms(2_000);
    assert!(stage.is_drained(), "who has sent is idle");
}

#[test]
fn who_makes_room_is_one_whose_task_waits() {
    let service = async |mut conn: Conn| match conn.key().index() {
        0 => asleep(conn).await,
        _ => while conn.recv().await.is_some() {},
    };
    let limits = Limits { accepted_max: 2, backlog: 64, ..Conditions::default().limits };
    let conditions = Conditions { limits, on_full: OnFull::EvictIdle, ..Conditions::default() };
    let mut stage = Stage::with(tasks(service), &conditions);
    let at_work = stage.accept();
    stage.pass_ms(1_000);
    let waits = stage.accept();
    stage.pass_ms(3_000);
    let listener = stage.listener();
    stage.driver().queue_client(listener);
    let watch = stage.driver().expect(Op::WatchListener, listener);
    stage.driver().complete(watch, Ok(1));
    stage.settle();
    assert_eq!(stage.counters().evicted, 1);
    assert!(stage.driver().is_shut(waits) && !stage.driver().is_shut(at_work));
}

#[test]
fn a_send_that_is_given_up_waits_for_no_memory() {
    let service = async |mut conn: Conn| {
        if conn.key().index() == 0 {
            return keeps_memory(conn, 5_000).await;
        }
        let sent = slipring::timeout(Duration::from_millis(10), conn.send(vec![1; 100])).await;
        assert!(sent.is_err(), "there is no memory");
        while conn.recv().await.is_some() {}
    };
    let mut stage = Stage::with(tasks(service), &conditions(200));
    let first = stage.accept();
    stage.receive(first, b"x");
    let second = stage.accept();
    stage.pass_ms(20);
    stage.drain();
    stage.pass_ms(2_000);
    assert!(stage.driver().is_closed(second), "it is idle");
    assert!(!stage.driver().is_closed(first));
}

#[test]
fn what_a_task_holds_is_given_back_when_its_reactor_ends() {
    let service = async |mut conn: Conn| {
        let lease = conn.recv().await;
        let _goes_on = slipring::spawn_local(async move {
            std::future::pending::<()>().await;
            drop(lease);
        });
    };
    let mut stage = Stage::with(tasks(service), &conditions(1 << 20));
    let client = stage.accept();
    send(&mut stage, &[client]);
    stage.end_of_stream(client);
    assert_eq!(stage.handler().census().tasks, 1);
    stage.drain();
    stage.settle();
    assert!(stage.is_drained());
    let ended = stage.reactor().step();
    assert!(ended.is_break());
    assert_eq!(stage.handler().census(), Census::default());
    assert_eq!(buffers_free(&mut stage), BUFFERS);
}
