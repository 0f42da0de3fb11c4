//! Files of hosts, looked at beside a reactor while somebody writes them.

use std::fmt::{self, Write};
use std::fs;
use std::process::Command;
use std::sync::Mutex;

use slipring::failure::Resolve;
use slipring::resolve::{
    HostsFault, HostsFile, NameLimits, Query, ResolveLimits, Source, Target, watch,
};
use slipring::{now, sleep, spawn_local};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::setting::run;
use crate::support::{PATIENCE, TempFile, bounded, ms};

fn query(text: &str) -> Query {
    text.parse().expect("a query")
}

#[test]
fn what_is_written_is_followed_and_what_breaks_the_file_is_not() {
    bounded(|| {
        let file = TempFile::of("followed", "192.0.2.1 web.example\n");
        let hosts = HostsFile::new(file.path()).every(ms(10));
        run(move || async move {
            let names = NameLimits { ttl_min: ms(1), negative: ms(10), ..NameLimits::default() };
            let limits = ResolveLimits { names, ..ResolveLimits::default() };
            let (tell, told) = std::sync::mpsc::channel();
            let rng = fastrand::Rng::with_seed(1);
            let following = watch(query("web.example:80"), hosts.clone(), limits, rng, move |to| {
                tell.send(to.map(<[Target]>::to_vec)).expect("the test listens");
            });
            let following = spawn_local(following);
            let next = async || {
                let until = now() + PATIENCE;
                loop {
                    if let Ok(told) = told.try_recv() {
                        return told;
                    }
                    assert!(now() < until, "nothing is published");
                    sleep(ms(1)).await;
                }
            };
            let target = |octet: u8| Target::new(([192, 0, 2, octet], 80).into());
            assert_eq!(next().await, Ok(vec![target(1)]));
            file.replace("192.0.2.2 web.example\n");
            assert_eq!(next().await, Ok(vec![target(2)]));
            file.replace("192.0.2.3 web.example\nnonsense\n");
            let until = now() + PATIENCE;
            while hosts.fault().is_none() {
                assert!(now() < until, "never read");
                sleep(ms(1)).await;
            }
            let fault = hosts.fault().expect("it is not good");
            assert_eq!((fault.path(), fault.line()), (file.path(), Some(2)));
            fs::remove_file(file.path()).expect("removed");
            sleep(ms(60)).await;
            assert!(told.try_recv().is_err(), "what was good still counts");
            file.replace("192.0.2.4 web.example\n");
            assert_eq!(next().await, Ok(vec![target(4)]));
            assert_eq!(hosts.fault(), None);
            following.cancel();
        });
    });
}

#[test]
fn many_who_ask_have_the_file_looked_at_by_one_thread_at_a_time() {
    bounded(|| {
        let file = TempFile::of("many", "192.0.2.1 web.example\n");
        let hosts = HostsFile::new(file.path());
        let before = slipring::blocking_snapshot().threads;
        let found = run(move || async move {
            let asking: Vec<_> =
                (0..100).map(|_| spawn_local(hosts.lookup(&query("web.example:80")))).collect();
            // One that has gone takes nothing from the others.
            asking[0].cancel();
            let mut found = 0;
            for asking in asking.into_iter().skip(1) {
                found += usize::from(asking.await.expect("it ends").is_ok());
            }
            found
        });
        assert_eq!(found, 99);
        // The other test's, and ours.
        assert!(slipring::blocking_snapshot().threads <= before + 4);
    });
}

#[test]
fn a_pipe_is_not_waited_for() {
    bounded(|| {
        let file = TempFile::new("pipe");
        let made = Command::new("mkfifo").arg(file.path()).status().expect("coreutils");
        assert!(made.success());
        let hosts = HostsFile::new(file.path());
        let reader = hosts.clone();
        let failure = run(move || async move { reader.lookup(&query("web.example:80")).await });
        assert_eq!(failure.map(|_| ()), Err(Resolve::ServerFailure));
        assert_eq!(hosts.fault().expect("a pipe").fault(), &HostsFault::NotAFile);
    });
}

/// Keeps the warnings of the process.
struct Warnings;

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        WARNINGS.lock().expect("no panic").push(text.0);
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

#[test]
fn the_log_tells_of_a_fault_once_for_each_change_of_the_file() {
    bounded(|| {
        let _ = tracing::subscriber::set_global_default(Warnings);
        let file = TempFile::new("logged");
        let path = file.path().display().to_string();
        let warnings = move || -> Vec<String> {
            let warnings = WARNINGS.lock().expect("no panic");
            warnings.iter().filter(|warning| warning.contains(&path)).cloned().collect()
        };
        let hosts = HostsFile::new(file.path());
        let look = |times: u32| {
            for _ in 0..times {
                let _ = hosts.read();
            }
        };
        look(5);
        assert_eq!(warnings().len(), 1, "{:?}", warnings());
        assert!(warnings()[0].contains("there is no such file; write one"), "{:?}", warnings());
        assert!(warnings()[0].contains("its names are not known"), "{:?}", warnings());
        file.replace("192.0.2.1 a\n\nnonsense\n");
        look(5);
        assert_eq!(warnings().len(), 2, "{:?}", warnings());
        assert!(warnings()[1].contains(":3: \"nonsense\" is no address"), "{:?}", warnings());
        file.replace("192.0.2.2 a\n\nnonsense\n");
        look(5);
        assert_eq!(warnings().len(), 3, "another file, though the fault is the same");
        file.replace("192.0.2.1 a\n");
        look(5);
        assert_eq!(warnings().len(), 3);
        fs::remove_file(file.path()).expect("removed");
        look(5);
        assert_eq!(warnings().len(), 4, "{:?}", warnings());
        assert!(warnings()[3].contains("what it said before still counts"), "{:?}", warnings());
    });
}
