//! Who looks at a reactor while it is in a callback is told in which, and for whom; between two turns it is in none.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::calling::{Call, Callback};
use slipring_core::front::Front;
use slipring_core::token::Op;
use slipring_core::{Fault, Timeout};

use crate::support::{Noted, Told, limited, stage};

/// What a look from outside would have seen during each callback, beside what the callback itself knows.
type Looks = Rc<RefCell<Vec<(Callback, Option<Call>)>>>;

fn callback(told: &Told) -> Callback {
    match told {
        Told::Open(_) => Callback::OnOpen,
        Told::Data(_) => Callback::OnData,
        Told::Eof => Callback::OnEof,
        Told::Writable => Callback::OnWritable,
        Told::KeepAlive => Callback::OnKeepAlive,
        Told::Close(_) => Callback::OnClose,
    }
}

/// Answers with more than its outbox may hold, asks for a keep-alive, and looks at itself in every callback.
fn looking() -> (Noted, Looks) {
    let (looks, front) = (Looks::default(), Rc::new(OnceCell::<Arc<Front>>::new()));
    let (seen, seen_by) = (Rc::clone(&looks), Rc::clone(&front));
    let conditions =
        limited(|limits| (limits.outbox_high_bytes, limits.outbox_low_bytes) = (16, 8));
    let stage = stage(&conditions, move |ctx, told, _| {
        let call = seen_by.get().and_then(|front| front.loads().calling(0).get());
        let (callback, key) = (callback(told), Some(ctx.key()));
        assert!(
            call.is_none_or(|call| call == Call { callback, key, task: None }),
            "{call:?} in {callback:?}"
        );
        seen.borrow_mut().push((callback, call));
        match told {
            Told::Open(_) => ctx.set_keep_alive(Timeout::After(Duration::from_secs(1))),
            Told::Data(_) => ctx.send(vec![b'x'; 64]),
            Told::Eof => ctx.close(),
            _ => {}
        }
    });
    front.set(Arc::clone(stage.front())).expect("set once");
    (stage, looks)
}

fn is_in_none(stage: &Noted) -> bool {
    stage.front().loads().calling(0).get().is_none()
}

#[test]
fn every_callback_is_named_while_it_runs_and_none_behind_it() {
    let (mut stage, looks) = looking();
    assert!(is_in_none(&stage), "it has started");
    // The first slot is another's: the second is what is to be named.
    stage.accept();
    let client = stage.accept();
    looks.borrow_mut().clear();
    stage.accept();
    stage.driver().receive(client, b"hello");
    stage.rest();
    let send = stage.driver().expect(Op::Send, client);
    stage.driver().complete(send, Err(Fault::WouldBlock));
    stage.rest();
    let watch = stage.driver().expect(Op::Watch, client);
    stage.driver().complete(watch, Ok(4));
    stage.settle();
    assert!(is_in_none(&stage));
    stage.pass_ms(1_100);
    stage.end_of_stream(client);
    assert!(is_in_none(&stage) && stage.driver().is_closed(client));
    let looks = looks.borrow();
    // Without a connection, and where there is another reactor.
    let others = [
        Callback::OnStart,
        Callback::OnTurn,
        Callback::OnLeave,
        Callback::OnArrive,
        Callback::OnEnd,
    ];
    for callback in Callback::ALL.into_iter().filter(|callback| !others.contains(callback)) {
        let of = |(in_callback, call): &&(Callback, Option<Call>)| {
            *in_callback == callback && call.is_some()
        };
        assert!(looks.iter().any(|look| of(&look)), "no look in {callback:?}: {looks:?}");
    }
}

#[test]
fn a_panic_is_laid_to_the_callback_it_came_from_and_leaves_no_name_behind() {
    let mut stage = stage(&limited(|_| {}), |_, told, _| {
        assert!(!matches!(told, Told::Data(_)), "a bug of the user's");
    });
    let (bad, good) = (stage.accept(), stage.accept());
    stage.receive(bad, b"bad");
    assert!(is_in_none(&stage));
    assert!(stage.driver().is_abortive(bad) && !stage.driver().is_closed(good));
    assert_eq!(stage.counters().handler_panics, 1);
}
