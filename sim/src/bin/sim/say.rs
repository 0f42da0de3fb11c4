//! How the binaries write: a reader who has gone is no error, a report that is lost is one.

use std::io;
use std::process::ExitCode;

/// The report could not be written.
pub(crate) const EXIT_UNWRITTEN: u8 = 2;

/// Writes to standard output. Whoever closed it (`| head -1`) does not want the rest; the exit code still
/// tells how it went.
///
/// # Errors
/// Of any other kind: a report is lost.
pub(crate) fn out(text: &str) -> io::Result<()> {
    written(&mut io::stdout(), text)
}

/// Writes to standard error: if that fails there is nobody left to tell.
pub(crate) fn err(text: &str) {
    drop(written(&mut io::stderr(), text));
}

/// The exit code of a program that has written its report, or tried to.
pub(crate) fn exit(program: &str, report: io::Result<()>, code: ExitCode) -> ExitCode {
    let Err(error) = report else { return code };
    err(&format!("{program}: the report cannot be written: {error}; send it elsewhere\n"));
    ExitCode::from(EXIT_UNWRITTEN)
}

fn written(to: &mut impl io::Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
