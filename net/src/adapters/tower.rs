//! Feature `tower`: connections as the requests of a `tower_service::Service`.
//!
//! ```text
//!   accepted --> line of this reactor --> poll_ready --> call --> its future, a task of its own
//!                  the first one asks       one each, in the order of their coming
//! ```
//!
//! A reactor has one service, made on it: neither the service nor its futures have to be `Send`, and what limits them
//! (a concurrency limit, a load shed) does so for the whole reactor.
//!
//! *Back-pressure.* As long as the service is not ready, connections wait, the first to come for the first place. Who
//! waits is not read from beyond what one turn brings, holds its place under the caps
//! ([`Builder::max_connections`](crate::Builder::max_connections),
//! [`Listen::max_connections`](crate::Listen::max_connections)) and keeps its idle timeout; clients beyond the caps
//! wait in the kernel's backlog. So a service that is not ready holds `accept` back once the cap is reached, and what
//! it may keep waiting is what the cap lets in. Who goes away while it waits is not served.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slipring_core::{Builder, SetupError};
use tower_service::Service;

use crate::conn::start;
use crate::tasks::{drop_waiters, keep, wake_waiter};
use crate::{Conn, Serving, Tasks, tasks};

/// Starts the runtime, and hands each accepted connection to the service of its reactor, which `make` makes there, from
/// the reactor's number. What a call of the service returns is dropped; an error is logged. A service whose readiness
/// fails gets no more connections: they are aborted.
///
/// ```no_run
/// use std::convert::Infallible;
/// use std::future::Future;
/// use std::pin::Pin;
/// use std::task::{Context, Poll};
///
/// use slipring::{Conn, Runtime, SendError};
///
/// struct Echo;
///
/// impl tower_service::Service<Conn> for Echo {
///     type Response = ();
///     type Error = SendError;
///     type Future = Pin<Box<dyn Future<Output = Result<(), SendError>>>>;
///
///     fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
///         Poll::Ready(Ok(()))
///     }
///
///     fn call(&mut self, mut conn: Conn) -> Self::Future {
///         Box::pin(async move {
///             while let Some(data) = conn.recv().await {
///                 conn.send(data).await?;
///             }
///             Ok(())
///         })
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Runtime::builder().listen("127.0.0.1:7000".parse()?).max_connections(1000);
/// let serving = slipring::adapters::tower::serve_service(builder, |_reactor| Echo)?;
/// # serving.join()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`SetupError`]: the cause and the remedy.
pub fn serve_service<M, S>(builder: Builder, make: M) -> Result<Serving, SetupError>
where
    M: Fn(usize) -> S + Send + Sync + 'static,
    S: Service<Conn> + 'static,
    S::Error: Display,
    S::Future: 'static,
{
    start(builder, move |reactor| service_tasks(make(reactor)))
}

/// The handler of one reactor that [`serve_service`] runs: for [`Builder::start`], and for whoever runs handlers
/// otherwise, such as the simulator.
pub fn service_tasks<S>(
    service: S,
) -> Tasks<impl FnMut(Conn) -> Pin<Box<dyn Future<Output = ()>>> + use<S>>
where
    S: Service<Conn> + 'static,
    S::Error: Display,
    S::Future: 'static,
{
    let line = Rc::new(Line::new(service));
    tasks(move |conn| {
        let ticket = Ticket::new(&line);
        Box::pin(serve(ticket, conn)) as Pin<Box<dyn Future<Output = ()>>>
    })
}

async fn serve<S>(ticket: Ticket<S>, conn: Conn)
where
    S: Service<Conn>,
    S::Error: Display,
{
    let mut conn = Some(conn);
    let called = poll_fn(|cx| ticket.poll(cx, &mut conn)).await;
    // Whoever is next need not wait for this one's end.
    drop(ticket);
    match called {
        Called::Yes(response) => {
            if let Err(error) = response.await {
                tracing::debug!(%error, "a connection's service failed");
            }
        }
        Called::Gone => {}
        Called::NeverAgain(error) => {
            tracing::error!(%error, "a service is not ready, and never will be");
            if let Some(conn) = &mut conn {
                conn.abort();
            }
        }
    }
}

enum Called<F, E> {
    Yes(F),
    /// The connection ended while it waited.
    Gone,
    /// The service said so.
    NeverAgain(E),
}

/// Who waits for the service of a reactor.
struct Line<S> {
    service: RefCell<S>,
    order: RefCell<Order>,
}

#[derive(Default)]
struct Order {
    next: u64,
    waiting: BTreeMap<u64, Option<Waker>>,
}

impl<S> Line<S> {
    fn new(service: S) -> Self {
        Self { service: RefCell::new(service), order: RefCell::default() }
    }
}

/// A place in the line. The first one asks the service: a service remembers one who waits.
struct Ticket<S> {
    line: Rc<Line<S>>,
    number: u64,
}

impl<S> Ticket<S> {
    fn new(line: &Rc<Line<S>>) -> Self {
        let mut order = line.order.borrow_mut();
        let number = order.next;
        order.next += 1;
        order.waiting.insert(number, None);
        Self { line: Rc::clone(line), number }
    }

    /// Whether it is the first; remembered if not.
    fn is_first(&self, cx: &Context<'_>) -> bool {
        let waker = cx.waker().clone();
        let mut order = self.line.order.borrow_mut();
        if order.waiting.keys().next() == Some(&self.number) {
            return true;
        }
        let before = keep(order.waiting.entry(self.number).or_default(), waker);
        drop(order);
        // Somebody else's waker may run code of theirs.
        drop(before);
        false
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        conn: &mut Option<Conn>,
    ) -> Poll<Called<S::Future, S::Error>>
    where
        S: Service<Conn>,
    {
        let Some(waiting) = conn else { panic!("polled after it was ready") };
        if waiting.poll_closed(cx).is_ready() {
            return Poll::Ready(Called::Gone);
        }
        if !self.is_first(cx) {
            return Poll::Pending;
        }
        let mut service = self.line.service.borrow_mut();
        match service.poll_ready(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Called::NeverAgain(error)),
            Poll::Ready(Ok(())) => match conn.take() {
                Some(conn) => {
                    // From now on the service is at work, and waits only if it says so.
                    conn.forget_writer();
                    Poll::Ready(Called::Yes(service.call(conn)))
                }
                None => unreachable!("just seen"),
            },
        }
    }
}

impl<S> Drop for Ticket<S> {
    fn drop(&mut self) {
        let (own, first) = {
            let mut order = self.line.order.borrow_mut();
            let own = order.waiting.remove(&self.number).flatten();
            (own, order.waiting.first_entry().and_then(|mut first| first.get_mut().take()))
        };
        first.into_iter().for_each(wake_waiter);
        drop_waiters(own);
    }
}
