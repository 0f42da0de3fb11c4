//! Connections served by a tower service, on the real kernel: readiness, its order, and what waits for it.

mod support;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use slipring::Conn;
use slipring::adapters::tower::serve_service;
use support::{
    bounded, connect, echo, echo_pattern, end, expect_reset, hears_within, ms, one_reactor, ping,
    read_bytes, reset, try_connect, two_reactors,
};
use tower_service::Service;

type Served<E> = Pin<Box<dyn Future<Output = Result<(), E>>>>;

/// An echo with so many places, which says who is called.
#[derive(Clone)]
struct Places {
    free: Rc<RefCell<(usize, Option<Waker>)>>,
    tell: mpsc::Sender<usize>,
    reactor: usize,
}

impl Places {
    fn new(free: usize, reactor: usize, tell: mpsc::Sender<usize>) -> Self {
        Self { free: Rc::new(RefCell::new((free, None))), tell, reactor }
    }
}

/// A place, until it is dropped.
struct Place(Rc<RefCell<(usize, Option<Waker>)>>);

impl Drop for Place {
    fn drop(&mut self) {
        let waker = {
            let mut free = self.0.borrow_mut();
            free.0 += 1;
            free.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Service<Conn> for Places {
    type Response = ();
    type Error = Infallible;
    type Future = Served<Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let mut free = self.free.borrow_mut();
        if free.0 > 0 {
            return Poll::Ready(Ok(()));
        }
        free.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, conn: Conn) -> Self::Future {
        let mut free = self.free.borrow_mut();
        free.0 = free.0.checked_sub(1).expect("called without being ready");
        let place = Place(Rc::clone(&self.free));
        self.tell.send(self.reactor).expect("the test waits");
        Box::pin(async move {
            let _ = echo(conn).await;
            drop(place);
            Ok(())
        })
    }
}

/// Says its number; it comes back as soon as it is served.
fn says(address: std::net::SocketAddr, number: u8) -> TcpStream {
    let mut client = connect(address);
    client.write_all(&[number]).expect("sent");
    client
}

#[test]
fn every_reactor_has_a_service_of_its_own() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let builder = two_reactors().placement(slipring::Placement::RoundRobin);
        let make = move |reactor| Places::new(100, reactor, tell.clone());
        let serving = serve_service(builder, make).expect("it starts");
        let address = serving.addresses()[0];
        for seed in 0..8 {
            echo_pattern(&connect(address), seed, 300_000, 20_000);
        }
        let mut reactors: Vec<_> = told.try_iter().collect();
        reactors.sort_unstable();
        assert_eq!(reactors, [0, 0, 0, 0, 1, 1, 1, 1]);
        end(serving);
    });
}

#[test]
fn who_finds_no_place_waits_for_one_in_the_order_of_coming() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let make = move |reactor| Places::new(2, reactor, tell.clone());
        let serving = serve_service(one_reactor(), make).expect("it starts");
        let address = serving.addresses()[0];
        let mut served = std::collections::VecDeque::new();
        for number in 0..2 {
            let client = says(address, number);
            assert_eq!(read_bytes(&client, 1), [number]);
            served.push_back(client);
        }
        let mut waiting = std::collections::VecDeque::new();
        for number in 2..12 {
            waiting.push_back((number, says(address, number)));
            support::eventually("it is accepted", || {
                let counters = serving.handle().counters();
                counters.iter().map(|counters| counters.accepted).sum::<u64>() > u64::from(number)
            });
        }
        assert!(!hears_within(&waiting[0].1, ms(100)), "there are two places");
        assert_eq!(told.try_iter().count(), 2);
        while let Some((number, next)) = waiting.pop_front() {
            drop(served.pop_front());
            assert_eq!(read_bytes(&next, 1), [number], "whoever has waited longest");
            assert_eq!(told.try_iter().count(), 1);
            if let Some((_, behind)) = waiting.front() {
                assert!(!hears_within(behind, ms(5)), "one place, one client");
            }
            served.push_back(next);
        }
        drop(served);
        end(serving);
    });
}

/// One who goes away while it waits is passed over, be it the first or behind another.
#[test]
fn who_goes_away_while_it_waits_is_not_served() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let make = move |reactor| Places::new(1, reactor, tell.clone());
        let serving = serve_service(one_reactor(), make).expect("it starts");
        let address = serving.addresses()[0];
        let first = says(address, 0);
        assert_eq!(read_bytes(&first, 1), [0]);
        let [head, second, third] = [1, 2, 3].map(|number| says(address, number));
        let closed = |count: u64| {
            support::eventually("its end is seen", || {
                let counters = serving.handle().counters();
                counters.iter().map(|counters| counters.closed).sum::<u64>() == count
            });
        };
        reset(second);
        closed(1);
        reset(head);
        closed(2);
        drop(first);
        assert_eq!(read_bytes(&third, 1), [3]);
        ping(&third, b"served");
        assert_eq!(told.try_iter().count(), 2);
        drop(third);
        end(serving);
    });
}

/// Clients beyond the cap stay in the kernel's backlog as long as the service takes nobody.
#[test]
fn a_service_that_is_not_ready_holds_accept_back_at_the_cap() {
    bounded(|| {
        let (tell, _told) = mpsc::channel();
        let make = move |reactor| Places::new(1, reactor, tell.clone());
        let serving = serve_service(one_reactor().max_connections(3), make).expect("it starts");
        let address = serving.addresses()[0];
        let accepted = || -> u64 {
            serving.handle().counters().iter().map(|counters| counters.accepted).sum()
        };
        let mut clients: Vec<_> = (0..6).map(|number| says(address, number)).collect();
        assert_eq!(read_bytes(&clients[0], 1), [0]);
        support::eventually("three have a place", || accepted() == 3);
        assert!(!hears_within(&clients[5], ms(200)));
        assert_eq!(accepted(), 3, "two wait, and three in the backlog");
        for number in 1..6 {
            drop(clients.remove(0));
            assert_eq!(read_bytes(&clients[0], 1), [number]);
        }
        support::eventually("all had a place", || accepted() == 6);
        drop(clients);
        end(serving);
    });
}

struct Broken;

impl Service<Conn> for Broken {
    type Response = ();
    type Error = &'static str;
    type Future = Served<&'static str>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Err("the database is gone"))
    }

    fn call(&mut self, _conn: Conn) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[test]
fn the_clients_of_a_broken_service_are_reset() {
    bounded(|| {
        let serving = serve_service(one_reactor(), |_reactor| Broken).expect("it starts");
        for _ in 0..3 {
            // It may come before the connect returns.
            if let Ok(client) = try_connect(serving.addresses()[0]) {
                assert_eq!(expect_reset(&client), 0);
            }
        }
        serving.handle().drain();
        let counters = serving.join().expect("a drain in order");
        let of = |count: fn(&slipring::Counters) -> u64| counters.iter().map(count).sum::<u64>();
        assert_eq!((of(|counters| counters.accepted), of(|counters| counters.closed)), (3, 3));
    });
}

/// A panic in a call ends that connection, and the next in the queue is not forgotten.
#[test]
fn a_panic_in_a_call_is_one_connections_affair() {
    #[derive(Default)]
    struct Moody {
        calls: u32,
    }

    impl Service<Conn> for Moody {
        type Response = ();
        type Error = Infallible;
        type Future = Served<Infallible>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, conn: Conn) -> Self::Future {
            self.calls += 1;
            assert!(!self.calls.is_multiple_of(2), "every second one");
            Box::pin(async move {
                let _ = echo(conn).await;
                Ok(())
            })
        }
    }

    bounded(|| {
        let serving = serve_service(one_reactor(), |_reactor| Moody::default()).expect("it starts");
        let address = serving.addresses()[0];
        for number in 0..6 {
            if number % 2 == 0 {
                assert_eq!(read_bytes(&says(address, number), 1), [number]);
                continue;
            }
            // The reset may come before the connect returns, or before a word is said.
            let said = try_connect(address).and_then(|mut client| {
                client.write_all(&[number])?;
                Ok(client)
            });
            match said {
                Ok(client) => {
                    expect_reset(&client);
                }
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                ),
            }
        }
        serving.handle().drain();
        let counters = serving.join().expect("a drain in order");
        assert_eq!(counters.iter().map(|counters| counters.handler_panics).sum::<u64>(), 3);
    });
}
