//! The rules: which path leads where, and whether its floor allows it.
//!
//! Is: `check`, which reads the packages' sources and says a line for each violation, the resolving of
//! paths (`super::`, a `use`d name, what lib.rs re-exports) that this takes, and how wide comments are.
//! Is not: the table; that is data, in floors.rs. Is not exact: an alias counts for its whole file.
//!
//! ```text
//! path as written -> resolve -> Target -> broken_rule(row, target) -> "file:line: what: why"
//! ```
//!
//! Why resolve at all, when `grep` finds `crate::sys`: because `super::sys`, `crate::{sys as s}` and
//! a re-export by lib.rs are the ways a floor is crossed without meaning to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{Name, Source};
use crate::{
    ANY, CLOCK_FILE, CLOCK_TYPE, COMMENT_COLUMNS_MAX, FILE_LINES_MAX, KERNEL_FLOOR,
    LANGUAGE_CRATES, NET_ROOT_FILE, NEVER_BELOW_THE_KERNEL, Row, UNSAFE_ROOM,
};

/// A package's sources and what resolving its paths takes.
pub(crate) struct Package {
    /// Its name in paths.
    name: &'static str,
    /// Its source folder from the workspace's root, `core/src`.
    folder: String,
    rows: &'static [Row],
    /// Names of the crates it depends on.
    dependencies: BTreeSet<String>,
    /// By path from the workspace's root.
    pub(crate) files: BTreeMap<String, Source>,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// Into this package, from its root.
    Inside(Vec<String>),
    /// Into another crate, whose name comes first.
    Outside(Vec<String>),
    /// A local type, a child module, the prelude: nothing a floor could forbid.
    Local,
}

/// Everything that breaks a rule, a line each, in the order of the files.
pub(crate) fn check(core: &Package, net: &Package) -> Vec<String> {
    let mut violations = Vec::new();
    for package in [core, net] {
        for (path, source) in &package.files {
            check_words(path, source, &mut violations);
            if is_test_file(path) {
                continue;
            }
            check_clock(package, path, source, &mut violations);
            check_floors(package, core, path, source, &mut violations);
        }
    }
    if net.files.get(NET_ROOT_FILE).is_some_and(|source| !source.forbids_unsafe) {
        violations.push(format!("{NET_ROOT_FILE}:1: has no `#![forbid(unsafe_code)]`"));
    }
    violations
}

fn check_words(path: &str, source: &Source, violations: &mut Vec<String>) {
    let mut fail = |line: usize, rule: &str| violations.push(format!("{path}:{line}: {rule}"));
    if !UNSAFE_ROOM.iter().any(|room| path.starts_with(room)) {
        for line in &source.unsafe_lines {
            fail(*line, "says `unsafe`: unsafe code lives below core/src/sys only");
        }
    }
    for line in &source.path_attribute_lines {
        fail(*line, "says `#[path = ..]`: a file's place decides its floor");
    }
    for line in &source.unguarded_tests_lines {
        fail(*line, "declares `mod tests` without `#[cfg(test)]`, which would exempt it");
    }
    if !is_test_file(path) && source.lines_before_tests > FILE_LINES_MAX {
        let lines = source.lines_before_tests;
        let rule = format!("{lines} lines before its tests, {FILE_LINES_MAX} at most: split it");
        fail(lines, &rule);
    }
}

/// The comments of a file that are too wide, a line each.
pub(crate) fn wide_comments(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
    let wide = lines.filter(|(_, line)| line.chars().count() > COMMENT_COLUMNS_MAX);
    let say = |(at, line): (usize, &str)| {
        let columns = line.chars().count();
        format!("{path}:{}: {columns} columns of comment, {COMMENT_COLUMNS_MAX} at most", at + 1)
    };
    wide.map(say).collect()
}

fn check_clock(package: &Package, path: &str, source: &Source, violations: &mut Vec<String>) {
    if path == CLOCK_FILE {
        return;
    }
    for name in &source.names {
        let full = package.expand(source, &name.path);
        let names_clock = full.starts_with(&owned(CLOCK_TYPE)) || full == ["std", "time", "*"];
        if names_clock {
            violations.push(format!(
                "{path}:{}: names `{}`: std::time::Instant is named in {CLOCK_FILE} only; take \
                 `now` as a parameter",
                name.line,
                name.path.join("::"),
            ));
        }
    }
}

fn check_floors(
    package: &Package,
    core: &Package,
    path: &str,
    source: &Source,
    violations: &mut Vec<String>,
) {
    let module = package.module_of(path);
    let Some(own) = module.first() else {
        return; // lib.rs stands above all floors: it declares the modules and re-exports.
    };
    let Some(row) = package.row_of(own) else {
        let table = if package.name == "slipring_core" { "CORE" } else { "NET" };
        violations.push(format!(
            "{path}:1: `{own}` stands on no floor: add it to the row of its floor in {table}, in \
             core/tests/floors.rs, and to the table in docs/architecture.md"
        ));
        return;
    };
    for name in &source.names {
        let target = package.resolve(core, path, source, name);
        if let Some(rule) = broken_rule(package, row, own, &target) {
            let line = name.line;
            let verb = if name.imported { "imports" } else { "names" };
            let written = name.path.join("::");
            violations.push(format!("{path}:{line}: {verb} `{written}`: {rule}"));
        }
    }
}

/// The decision: may a module of `row` reach `target`?
fn broken_rule(package: &Package, row: &Row, own: &str, target: &Target) -> Option<String> {
    let place = format!("`{own}` (floor {})", row.floor);
    let (Target::Inside(path) | Target::Outside(path)) = target else {
        return None;
    };
    let reached = path.first().map_or("*", String::as_str);
    let inside = matches!(target, Target::Inside(_));
    // `slab` is both a crate and a module; nothing in this list is, save through core's own name.
    if row.floor < KERNEL_FLOOR && NEVER_BELOW_THE_KERNEL.contains(&reached) {
        return Some(format!("{place} stands below the kernel and never names `{reached}`"));
    }
    if !inside {
        let allowed = LANGUAGE_CRATES.contains(&reached)
            || row.crates.contains(&ANY)
            || row.crates.iter().any(|prefix| is_within(path, prefix));
        let crates = list(row.crates);
        return (!allowed).then(|| {
            format!("{place} may use std{crates}, and `{}` is not among them", path.join("::"))
        });
    }
    if reached == own || row.also.iter().any(|prefix| is_within(path, prefix)) {
        return None;
    }
    if reached == "*" {
        return Some("names the crate's root whole: name the module it is after".into());
    }
    let Some(reached_row) = package.row_of(reached) else {
        return Some(format!(
            "`{reached}` is no module of the floors table: name it by the module it comes from \
             (a new module is added in core/tests/floors.rs)"
        ));
    };
    if row.floors.contains(&reached_row.floor) {
        return None;
    }
    let floors: Vec<String> = row.floors.iter().map(u8::to_string).collect();
    let also = list(row.also);
    Some(format!(
        "{place} may import floors {}{also}, and `{reached}` is on floor {}",
        floors.join(", "),
        reached_row.floor,
    ))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!(", `{name}`")).collect()
}

fn is_within(path: &[String], prefix: &str) -> bool {
    path.starts_with(&owned(&prefix.split("::").collect::<Vec<_>>()))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

// ---------------------------------------------------------------------------------- the packages

impl Package {
    pub(crate) fn read(
        workspace: &Path,
        member: &str,
        name: &'static str,
        rows: &'static [Row],
    ) -> Package {
        let manifest = fs::read_to_string(workspace.join(member).join("Cargo.toml"))
            .expect("a member has a manifest");
        let texts = texts(workspace, &workspace.join(member).join("src"));
        Package::new(member, name, rows, dependencies(&manifest), texts)
    }

    pub(crate) fn new(
        member: &str,
        name: &'static str,
        rows: &'static [Row],
        dependencies: BTreeSet<String>,
        texts: impl IntoIterator<Item = (String, String)>,
    ) -> Package {
        let files = texts.into_iter().map(|(path, text)| (path, Source::read(&text))).collect();
        Package { name, folder: format!("{member}/src"), rows, dependencies, files }
    }

    fn row_of(&self, module: &str) -> Option<&'static Row> {
        self.rows.iter().find(|row| row.modules.contains(&module))
    }

    fn root(&self) -> Option<&Source> {
        self.files.get(&format!("{}/lib.rs", self.folder))
    }

    /// `core/src/reactor/turn.rs` is the module `reactor::turn`; lib.rs is the empty path.
    fn module_of(&self, path: &str) -> Vec<String> {
        let relative = path.strip_prefix(&self.folder).unwrap_or(path).trim_start_matches('/');
        let stem = relative.strip_suffix(".rs").unwrap_or(relative);
        let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
            module.pop();
        }
        module
    }

    /// Replaces a first segment bound by a `use` with what it is bound to.
    fn expand(&self, source: &Source, path: &[String]) -> Vec<String> {
        match source.aliases.get(&path[0]) {
            Some(full) if full[0] != path[0] => [full.as_slice(), &path[1..]].concat(),
            _ => path.to_vec(),
        }
    }

    fn resolve(&self, core: &Package, file: &str, source: &Source, name: &Name) -> Target {
        let mut module = self.module_of(file);
        module.extend(name.within.iter().cloned());
        let first = name.path[0].as_str();
        let is_crate = self.dependencies.contains(first) || LANGUAGE_CRATES.contains(&first);
        match first {
            "crate" => self.reexported(core, &name.path[1..]),
            "self" | "super" => {
                let mut rest = name.path.as_slice();
                while let Some((step @ ("self" | "super"), tail)) =
                    rest.split_first().map(|(step, tail)| (step.as_str(), tail))
                {
                    if step == "super" {
                        module.pop();
                    }
                    rest = tail;
                }
                self.reexported(core, &[module.as_slice(), rest].concat())
            }
            _ if name.rooted && is_crate => core.canonical(&name.path),
            // Bound by a `use` of this file: that `use` is judged where it stands.
            _ if !name.imported && source.aliases.contains_key(first) => Target::Local,
            _ if source.declared.contains(first) => Target::Local,
            _ if is_crate => core.canonical(&name.path),
            _ => Target::Local,
        }
    }

    /// Follows what lib.rs re-exports: `crate::Lease` is `handler::Lease`.
    fn reexported(&self, core: &Package, path: &[String]) -> Target {
        let Some(first) = path.first() else {
            return Target::Inside(Vec::new());
        };
        if first == "*" {
            return Target::Inside(Vec::new());
        }
        if self.row_of(first).is_some() {
            return Target::Inside(path.to_vec());
        }
        let Some(full) = self.root().and_then(|root| root.aliases.get(first)) else {
            return Target::Inside(path.to_vec());
        };
        let full: Vec<String> = match full[0].as_str() {
            "crate" | "self" => full[1..].to_vec(),
            _ => full.clone(),
        };
        let whole = [full.as_slice(), &path[1..]].concat();
        if self.dependencies.contains(&whole[0]) && self.row_of(&whole[0]).is_none() {
            core.canonical(&whole)
        } else {
            Target::Inside(whole)
        }
    }

    /// A path that begins with a crate's name; core's re-exports are led back to their module, so
    /// that `slipring_core::Lease` is `slipring_core::handler::Lease`. `self` is core.
    fn canonical(&self, path: &[String]) -> Target {
        if path[0] != self.name || path.len() < 2 {
            return Target::Outside(path.to_vec());
        }
        match self.reexported(self, &path[1..]) {
            Target::Inside(rest) => {
                Target::Outside([&[self.name.to_owned()], rest.as_slice()].concat())
            }
            other => other,
        }
    }
}

/// Every source file below a folder, by its path from the workspace's root.
pub(crate) fn texts(workspace: &Path, folder: &Path) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    rust_files(folder, &mut paths);
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is UTF-8");
        let from_root = path.strip_prefix(workspace).expect("found below the workspace");
        (from_root.to_string_lossy().into_owned(), text)
    };
    paths.into_iter().map(text).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder can be read") {
        let path = entry.expect("a source folder can be listed").path();
        // What a build leaves in a workspace of its own is nobody's source.
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names under `[dependencies]`, as paths write them.
pub(crate) fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    section
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .map(|name| name.trim().replace('-', "_"))
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}
