//! The floors test: imports go down only.
//!
//! Is: the table below, a reader of `use` lines and paths (floors/source.rs), and the rules that
//! compare one with the other (floors/rules.rs), run over core/src and net/src. Beside it, the
//! width of comments, in the folders that `COMMENTED` names.
//! docs/architecture.md shows the same table with its reasons.
//! Is not: a check of visibility or of what types lead to; the compiler does that. It reads words.
//!
//! ```text
//! 9 composition   net: upstream drain admin
//! 8 kept          net: cap resolve connector pool health faults
//! 7 established   net: conn tls proxy_protocol relay adapters
//! 6 tasks         net: tasks
//! 5 verdicts      net: failure, policy/*                 (words only)
//! ---------------------------------------------------------------------- the public API of core
//! 4 the process   runtime
//! 3 the reactor   handler connections reactor acceptor dialer
//! 2 the kernel    driver, sys/*                          (the only unsafe)
//! 1 the machine   slab wheel outbox connection
//!                 tokens admission polling drain
//!                 front mailbox moving loads placement
//!                 places pace access rates sources       (cannot name floor 2)
//! 0 words         token span clock config error counters
//!                 control calling canary slip sync       (std)
//! ```
//!
//! Why a test and not crates: the floors of one crate share private types, and a package a floor
//! would make those public. Why a table and not attributes in the files: the whole house fits on
//! one screen, and moving a file between floors shows in one diff.
//!
//! A new file fails until its module stands in the table. Tests (`#[cfg(test)]`) may import
//! anything; a test module in a file of its own is called `tests.rs`.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "floors/checked.rs"]
mod checked;
#[path = "floors/rules.rs"]
mod rules;
#[path = "floors/source.rs"]
mod source;

use rules::{Package, check, texts, wide_comments};

// ------------------------------------------------------------------------------------- the table

/// Modules that stand together: same floor, same permissions. A file in a folder belongs to the
/// folder's module (`reactor/turn.rs` to `reactor`), and a module may always name itself.
struct Row {
    floor: u8,
    modules: &'static [&'static str],
    /// Floors whose modules it may name.
    floors: &'static [u8],
    /// Single modules besides, by path (`sys::memory` allows that and what is in it).
    also: &'static [&'static str],
    /// Crates besides `std`, by path (`slipring_core::clock` allows that module of it).
    crates: &'static [&'static str],
}

const CORE: &[Row] = &[
    Row { floor: 0, modules: &["error"], floors: &[0], also: &[], crates: &["thiserror"] },
    Row {
        floor: 0,
        modules: &[
            "token", "span", "clock", "config", "counters", "control", "calling", "canary", "slip",
            "sync",
        ],
        floors: &[0],
        also: &[],
        crates: &[],
    },
    Row { floor: 1, modules: &["slab"], floors: &[0, 1], also: &[], crates: &["slab"] },
    Row {
        floor: 1,
        modules: &[
            "door",
            "front",
            "listen",
            "loads",
            "mailbox",
            "moving",
            "pace",
            "placement",
            "places",
        ],
        floors: &[0, 1],
        also: &[],
        crates: &["crossbeam_queue", "crossbeam_utils", "fastrand"],
    },
    Row {
        floor: 1,
        modules: &["tokens"],
        floors: &[0, 1],
        also: &[],
        crates: &["crossbeam_utils"],
    },
    Row {
        floor: 1,
        modules: &["wheel", "outbox", "connection", "admission", "polling", "shedding", "drain"],
        floors: &[0, 1],
        also: &[],
        crates: &[],
    },
    Row {
        floor: 1,
        modules: &["access"],
        floors: &[0, 1],
        also: &[],
        crates: &["rangemap", "thiserror"],
    },
    Row { floor: 1, modules: &["rates"], floors: &[0, 1], also: &[], crates: &["thiserror"] },
    Row {
        floor: 1,
        modules: &["sources"],
        floors: &[0, 1],
        also: &[],
        crates: &["slab", "thiserror"],
    },
    // The trait knows the store of buffers, so that `Lease` is one type under every driver.
    Row {
        floor: 2,
        modules: &["driver"],
        floors: &[0],
        also: &["sys::memory"],
        crates: &["thiserror"],
    },
    Row {
        floor: 2,
        modules: &["sys"],
        floors: &[0],
        also: &["driver"],
        // `slab` numbers the owned blocks of sys/memory.
        crates: &["libc", "io_uring", "socket2", "slab", "thiserror", "tracing"],
    },
    Row {
        floor: 3,
        modules: &["handler", "connections", "reactor", "acceptor", "dialer"],
        floors: &[0, 1, 2, 3],
        also: &[],
        crates: &["thiserror", "tracing"],
    },
    Row { floor: 4, modules: &["runtime"], floors: &[0, 1, 2, 3, 4], also: &[], crates: &[ANY] },
];

const NET: &[Row] = &[
    // Verdicts take `now` and `rng` and cannot name a connection.
    Row {
        floor: 5,
        modules: &["policy", "failure"],
        floors: &[5],
        also: &[],
        crates: &[
            "fastrand",
            "slipring_core::token",
            "slipring_core::clock",
            "slipring_core::config",
            "slipring_core::error",
            "slipring_core::counters",
            "thiserror",
        ],
    },
    Row { floor: 6, modules: &["tasks"], floors: &[5, 6], also: &[], crates: &[ANY] },
    Row {
        floor: 7,
        modules: &["relay", "conn", "adapters", "tls", "proxy_protocol"],
        floors: &[5, 6, 7],
        also: &[],
        crates: &[ANY],
    },
    Row {
        floor: 8,
        modules: &["cap", "resolve", "connector", "pool", "health", "faults"],
        floors: &[5, 6, 7, 8],
        also: &[],
        crates: &[ANY],
    },
    Row {
        floor: 9,
        modules: &["upstream", "drain", "admin"],
        floors: &[5, 6, 7, 8, 9],
        also: &[],
        crates: &[ANY],
    },
];

/// Any crate of the package's Cargo.toml.
const ANY: &str = "*";

/// Always allowed: the language's own crates, and core under its own name inside core.
const LANGUAGE_CRATES: &[&str] = &["std", "core", "alloc"];

/// Whatever the table says: what floors 0 and 1 never name. The machine runs without a kernel.
const NEVER_BELOW_THE_KERNEL: &[&str] = &["sys", "driver", "libc", "io_uring", "socket2"];
const KERNEL_FLOOR: u8 = 2;

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;

/// Columns of a line that is a comment: rustfmt, which knows those of code, leaves comments alone.
const COMMENT_COLUMNS_MAX: usize = 120;
/// The folders whose comments are looked at, tests included.
const COMMENTED: &[&str] = &["core", "sim", "net", "examples", "benches"];

/// The only file that may name the standard library's clock.
const CLOCK_FILE: &str = "core/src/clock.rs";
const CLOCK_TYPE: &[&str] = &["std", "time", "Instant"];

/// The only folder that may say `unsafe` (and its module file, should `sys` have one beside it).
const UNSAFE_ROOM: &[&str] = &["core/src/sys/", "core/src/sys.rs"];

const NET_ROOT_FILE: &str = "net/src/lib.rs";

// --------------------------------------------------------------------------------- the real check

#[test]
fn imports_go_down_only() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core is a member");
    let core = Package::read(workspace, "core", "slipring_core", CORE);
    let net = Package::read(workspace, "net", "slipring", NET);
    assert!(core.files.contains_key("core/src/lib.rs"), "core/src was not found");
    assert!(net.files.contains_key(NET_ROOT_FILE), "net/src was not found");

    let violations = check(&core, &net);
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn comments_are_no_wider_than_they_may_be() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core is a member");
    let mut wide = Vec::new();
    for folder in COMMENTED {
        let texts = texts(workspace, &workspace.join(folder));
        assert!(!texts.is_empty(), "{folder} was not found");
        wide.extend(texts.iter().flat_map(|(path, text)| wide_comments(path, text)));
    }
    assert!(wide.is_empty(), "\n{}\n", wide.join("\n"));
}

/// The table itself: no module stands twice, and floors grant nothing above themselves.
#[test]
fn table_is_sound() {
    for rows in [CORE, NET] {
        let mut seen = BTreeSet::new();
        for row in rows {
            assert!(row.floors.iter().all(|floor| *floor <= row.floor), "{:?}", row.modules);
            for module in row.modules {
                assert!(seen.insert(module), "`{module}` stands twice in the table");
            }
        }
    }
}
