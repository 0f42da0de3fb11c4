//! Who is compared: a name and how to start it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::SERVER_CPU;
use super::binaries::Binaries;
use super::note;
use super::process::{Ready, Recipe};

/// `SERVER_CPU`, as our servers' command line has it.
const OUR_CORE: &str = "0";
const _: () = assert!(SERVER_CPU == 0);

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As it stands in the table.
    pub name: String,
    /// How it is started.
    pub recipe: Recipe,
}

impl Contender {
    /// A server that takes the options of ours and announces itself.
    #[must_use]
    pub fn new(name: &str, program: PathBuf, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let recipe = Recipe { program, arguments, ready: Ready::Announces };
        Self { name: name.to_owned(), recipe }
    }

    /// The same with further arguments.
    #[must_use]
    pub fn with(mut self, further: &[&str]) -> Self {
        self.recipe.arguments.extend(further.iter().map(|&argument| argument.to_owned()));
        self
    }
}

/// One of the floors, with its options if any. It stays on the CPU it is started on.
#[must_use]
pub fn floor(binaries: &Binaries, which: &str) -> Contender {
    let arguments: Vec<&str> = which.split(' ').collect();
    Contender::new(&format!("floor {which}"), binaries.own("floor"), &arguments)
}

/// Our echo server, when it was built.
#[must_use]
pub fn echo(binaries: &Binaries, name: &str, further: &[&str]) -> Option<Contender> {
    let Some(program) = binaries.example("echo") else {
        note("slipring: no echo binary, so it is left out");
        return None;
    };
    Some(Contender::new(name, program, &ours()).with(further))
}

/// Our proxy in front of `upstream`, when it was built.
#[must_use]
pub fn proxy(binaries: &Binaries, name: &str, upstream: SocketAddr) -> Option<Contender> {
    let Some(program) = binaries.example("proxy") else {
        note("slipring: no proxy binary, so it is left out");
        return None;
    };
    let upstream = upstream.to_string();
    Some(Contender::new(name, program, &ours()).with(&["--to", &upstream]))
}

/// What our servers are always told: all defaults but where to run, and to end soon.
fn ours() -> [&'static str; 6] {
    ["--listen", "127.0.0.1:0", "--cores", OUR_CORE, "--drain-deadline", "1s"]
}

/// The other runtimes' echo servers.
#[must_use]
pub fn peers(binaries: &Binaries) -> Vec<Contender> {
    let cpu = SERVER_CPU.to_string();
    let arguments = ["--listen", "127.0.0.1:0", "--cpu", &cpu];
    binaries.peers().map(|(name, path)| Contender::new(name, path, &arguments)).collect()
}
