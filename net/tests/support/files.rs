//! A file of a test's own.

use std::path::{Path, PathBuf};
use std::{fs, process};

/// A place for a file, with nothing there yet; at the end nothing is there any more.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("slipring-{}-{name}", process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    /// The file with this text.
    pub(crate) fn of(name: &str, text: &str) -> Self {
        let file = Self::new(name);
        file.replace(text);
        file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Another file in its place at once, as editors and configuration management do: nobody reads half of it.
    pub(crate) fn replace(&self, text: &str) {
        let beside = self.0.with_extension("new");
        fs::write(&beside, text).expect("written");
        fs::rename(&beside, &self.0).expect("renamed");
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
