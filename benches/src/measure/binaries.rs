//! The binaries that a bench runs, built before it starts so that it never measures stale ones.
//!
//! They go to the target directory the bench itself came from; the peers, a workspace of its own,
//! to a `peers` directory inside it. What does not build is left out with a line that says so,
//! except the floors and the load generator, without which there is nothing to compare.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::note;
use super::settings::Peers;

/// Names of the peers, as `SLIPRING_BENCH_PEERS` has them. The binaries are `peer-NAME`.
pub const PEERS: [&str; 6] = ["tokio", "tokio-uring", "monoio", "compio", "ringline", "glommio"];

/// Where the binaries of this run are.
#[derive(Clone, Debug)]
pub struct Binaries {
    target: PathBuf,
    examples: bool,
    peers: Peers,
}

impl Binaries {
    /// Builds what is needed.
    ///
    /// # Errors
    /// When the benches' own binaries do not build.
    pub fn build(peers: &Peers) -> io::Result<Self> {
        let target = target_directory()?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = manifest.join("../Cargo.toml");
        if !cargo_build(&workspace, &target, &["-p", "slipring-benches", "--bins"])? {
            return Err(io::Error::other("the floors and the load generator do not build"));
        }
        let examples = cargo_build(&workspace, &target, &["-p", "slipring-examples", "--bins"])?;
        if !examples {
            note("slipring: its examples do not build, so it is left out");
        }
        let mut built = Self { target, examples, peers: peers.clone() };
        if !peers.are_none() {
            let target = built.target.join("peers");
            if !cargo_build(&manifest.join("peers/Cargo.toml"), &target, &["--bins"])? {
                note("peers: they do not build, so they are left out");
                built.peers = Peers::Only(Vec::new());
            }
        }
        Ok(built)
    }

    /// A binary of the benches.
    #[must_use]
    pub fn own(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// A binary of the examples, when it could be built.
    #[must_use]
    pub fn example(&self, name: &str) -> Option<PathBuf> {
        let path = self.own(name);
        (self.examples && path.exists()).then_some(path)
    }

    /// The peers that take part, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let release = self.target.join("peers/release");
        let chosen = PEERS.into_iter().filter(|name| self.peers.include(name));
        chosen.map(move |name| (name, release.join(format!("peer-{name}"))))
    }
}

/// Builds one peer and nothing else; `None`, and a line that says why, when it is not to be had.
///
/// # Errors
/// When this process was not started by `cargo bench`.
pub fn single_peer(name: &str, peers: &Peers) -> io::Result<Option<PathBuf>> {
    single_peer_with(name, &[], peers)
}

/// The same for one that has features of its own, which the others are not built with.
///
/// # Errors
/// When this process was not started by `cargo bench`.
pub fn single_peer_with(
    name: &str,
    features: &[&str],
    peers: &Peers,
) -> io::Result<Option<PathBuf>> {
    if !peers.include(name) {
        note(format_args!("{name}: left out, SLIPRING_BENCH_PEERS does not name it"));
        return Ok(None);
    }
    let target = target_directory()?.join("peers");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/Cargo.toml");
    let binary = format!("peer-{name}");
    let mut what = vec!["--bin", &binary];
    features.iter().for_each(|feature| what.extend(["--features", feature]));
    if !cargo_build(&manifest, &target, &what)? {
        note(format_args!("{name}: left out, {binary} does not build"));
        return Ok(None);
    }
    Ok(Some(target.join("release").join(binary)))
}

/// The bench runs as `TARGET/release/deps/NAME-HASH`.
fn target_directory() -> io::Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let target = bench.ancestors().nth(3);
    Ok(target.ok_or_else(|| io::Error::other("not run by cargo bench"))?.to_owned())
}

fn cargo_build(manifest: &Path, target: &Path, what: &[&str]) -> io::Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "--manifest-path"]).arg(manifest);
    command.arg("--target-dir").arg(target).args(what).stdout(Stdio::null());
    Ok(command.status()?.success())
}
