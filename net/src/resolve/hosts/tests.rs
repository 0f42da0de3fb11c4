use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::policy::names::Target;
use crate::resolve::chain::tests::query;

/// A file of its own for each test, gone with it.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("slipring-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    /// Where it lies.
    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("written");
    }

    /// Beside, and put in its place.
    fn replace(&self, text: &str) {
        let beside = self.0.with_extension("new");
        fs::write(&beside, text).expect("written");
        fs::rename(&beside, &self.0).expect("renamed");
    }

    fn reader(&self) -> Reader {
        Reader::new(self.0.clone(), Strictness::Whole)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn targets(reader: &Reader, text: &str) -> Result<Vec<Target>, Resolve> {
    reader.answer(&query(text), EVERY).map(|answer| answer.targets)
}

fn addresses(reader: &Reader, text: &str) -> Vec<String> {
    let targets = targets(reader, text).expect("an answer");
    targets.iter().map(|target| target.address.to_string()).collect()
}

/// Looks until it is settled.
fn settle(reader: &Reader) {
    for _ in 0..READS_UNTIL_SETTLED {
        reader.look();
    }
}

#[test]
fn lines_are_addresses_names_and_settings() {
    let text = "\u{feff}# first\r\n\
        127.0.0.1\tlocalhost  LOCALHOST # twice \u{e4}\r\n\
        \n   \t \n\
        192.0.2.1            web.example web\n\
        192.0.2.2:8080       web.example. tier=3 weight=5\n\
        [2001:db8::1]:8080   web.example weight=65535 tier=65535\n\
        2001:db8::2          web.example\n\
        192.0.2.4:81         _http._tcp.example.com";
    let places = format::parse(text.as_bytes(), Strictness::Whole).expect("it is good");
    let answer = |text: &str| places.answer(&query(text), EVERY).map(|answer| answer.targets);
    let target = |tier, address: &str, weight| {
        let address = address.parse().expect("an address");
        Target { tier, address, weight }
    };
    assert_eq!(answer("localhost:7"), Ok(vec![target(0, "127.0.0.1:7", 1)]));
    assert_eq!(answer("WEB:80"), Ok(vec![target(0, "192.0.2.1:80", 1)]));
    let web = [
        target(0, "192.0.2.1:80", 1),
        target(3, "192.0.2.2:8080", 5),
        target(65535, "[2001:db8::1]:8080", 65535),
        target(0, "[2001:db8::2]:80", 1),
    ];
    assert_eq!(answer("web.example:80"), Ok(web.to_vec()));
    assert_eq!(answer("srv:_http._tcp.example.com"), Ok(vec![target(0, "192.0.2.4:81", 1)]));
    assert_eq!(answer("srv:web.example"), Ok(web[1..3].to_vec()), "those with ports");
    assert_eq!(answer("srv:localhost"), Err(Resolve::NoAddress), "nobody has a port");
    assert_eq!(answer("db.example:80"), Err(Resolve::NotFound));
    // Latin-1, in a comment.
    assert!(format::parse(b"192.0.2.1 a # \xe4", Strictness::Whole).is_ok());
}

#[test]
fn a_line_that_is_not_good_is_named_with_its_cause_and_remedy() {
    for (line, expected) in [
        ("web 192.0.2.1", "\"web\" is no address; begin"),
        ("192.0.2.1:0 web", "\"192.0.2.1:0\" is no address"),
        ("192.0.2.256 web", "is no address"),
        ("fe80::1%eth0 web", "is no address"),
        ("[fe80::1%2]:80 web", "is no address"),
        ("tier=1 192.0.2.1 web", "is no address"),
        ("192.0.2.1", "there is no name behind the address; write one"),
        ("192.0.2.1 tier=1", "there is no name behind the address"),
        ("192.0.2.1 web tier=65536", "\"tier=65536\" is no setting; there are"),
        ("192.0.2.1 web tier=-1", "is no setting"),
        ("192.0.2.1 web tier=+1", "is no setting"),
        ("192.0.2.1 web weight=0", "is no setting"),
        ("192.0.2.1 web wait=1", "is no setting"),
        ("192.0.2.1 web =", "is no setting"),
        ("192.0.2.1 web/1", "\"web/1\": '/' is in no name; use"),
        ("192.0.2.1 web m\u{fc}nchen", "punycode"),
    ] {
        let text = format!("192.0.2.1 good\n\n{line}\n192.0.2.1 good");
        let (number, fault) = format::parse(text.as_bytes(), Strictness::Whole).expect_err(line);
        assert_eq!(number, 3, "{line}");
        assert!(fault.to_string().contains(expected), "{line}: {fault}");
        assert!(fault.to_string().contains("; "), "cause and remedy: {fault}");
    }
    let not_text = format::parse(b"192.0.2.1 \xff", Strictness::Whole);
    assert_eq!(not_text, Err((1, HostsFault::NotText)));
}

#[cfg(feature = "dns")]
#[test]
fn where_a_line_is_passed_over_the_others_count_and_no_file_is_an_empty_one() {
    let file = Temp::new("lenient");
    let reader = Reader::new(file.0.clone(), Strictness::Line);
    reader.look();
    assert_eq!(targets(&reader, "a:80"), Err(Resolve::NotFound));
    file.write("fe80::1%lo0 a\n192.0.2.1 a\n192.0.2.2 b c/d\n");
    reader.look();
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.1:80"]);
    assert_eq!(targets(&reader, "b:80"), Err(Resolve::NotFound));
}

#[test]
fn a_file_that_changes_is_read_again_however_it_changes() {
    let file = Temp::new("changes");
    file.write("192.0.2.1 a");
    let reader = file.reader();
    assert_eq!(targets(&reader, "a:80"), Err(Resolve::ServerFailure), "it was not looked at");
    settle(&reader);
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.1:80"]);
    // Another file, just as long.
    file.replace("192.0.2.2 a");
    reader.look();
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.2:80"]);
    settle(&reader);
    // The same file, longer.
    file.write("192.0.2.33 a");
    reader.look();
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.33:80"]);
    settle(&reader);
    let stamp = reader.lock().stamp;
    reader.look();
    assert_eq!(reader.lock().stamp, stamp);
    assert_eq!(reader.lock().reads, READS_UNTIL_SETTLED, "as it was, it is not read again");
}

#[test]
fn what_was_written_within_one_tick_of_the_clock_is_seen_too() {
    let file = Temp::new("tick");
    file.write("192.0.2.1 a");
    let reader = file.reader();
    reader.look();
    // Just as long, and with the same times, as if the clock had not ticked.
    file.write("192.0.2.2 a");
    reader.lock().stamp = Some(stamp(&file.0).expect("it is there"));
    reader.look();
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.2:80"]);
}

#[test]
fn what_was_good_still_counts_while_the_file_is_not() {
    let file = Temp::new("last-good");
    let reader = file.reader();
    reader.look();
    let fault = reader.lock().fault.clone().expect("there is no file");
    assert_eq!((fault.line(), fault.fault()), (None, &HostsFault::Missing));
    assert_eq!(targets(&reader, "a:80"), Err(Resolve::ServerFailure));
    file.write("192.0.2.1 a");
    reader.look();
    assert_eq!(reader.lock().fault, None);

    file.write("192.0.2.2 a\nnonsense\n");
    settle(&reader);
    let fault = reader.lock().fault.clone().expect("it is not good");
    assert_eq!(fault.line(), Some(2));
    let shown = fault.to_string();
    assert!(shown.starts_with(&format!("{}:2: ", file.0.display())), "{shown}");
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.1:80"]);

    fs::remove_file(&file.0).expect("removed");
    settle(&reader);
    assert_eq!(reader.lock().fault.as_ref().map(HostsFileError::fault), Some(&HostsFault::Missing));
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.1:80"]);

    fs::create_dir(&file.0).expect("a directory");
    reader.look();
    fs::remove_dir(&file.0).expect("removed");
    assert_eq!(
        reader.lock().fault.as_ref().map(HostsFileError::fault),
        Some(&HostsFault::NotAFile)
    );
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.1:80"]);

    file.write("192.0.2.2 a");
    reader.look();
    assert_eq!(reader.lock().fault, None);
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.2:80"]);
}

#[test]
fn a_file_cut_to_nothing_counts_at_the_second_look() {
    let file = Temp::new("cut");
    file.write("192.0.2.1 a");
    let reader = file.reader();
    settle(&reader);
    file.write("");
    reader.look();
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.1:80"], "it may be on its way");
    file.write("192.0.2.2 a");
    reader.look();
    assert_eq!(addresses(&reader, "a:80"), ["192.0.2.2:80"]);
    file.write("# nobody\n");
    settle(&reader);
    assert_eq!(targets(&reader, "a:80"), Err(Resolve::NotFound), "it is meant");
}

#[test]
fn a_file_too_long_is_not_taken() {
    let file = Temp::new("long");
    let long = File::create(&file.0).expect("created");
    long.set_len(FILE_BYTES_MAX + 1).expect("sparse");
    let hosts = HostsFile::new(&file.0);
    let error = hosts.read().expect_err("it is too long");
    assert_eq!(error.fault(), &HostsFault::TooLong);
    assert_eq!(error.path(), file.0);
    (&long).write_all(b"x").expect("written");
    file.replace("192.0.2.1 a");
    assert_eq!(hosts.read(), Ok(()));
}

proptest! {
    #[test]
    fn no_content_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = format::parse(&bytes, Strictness::Whole);
    }

    #[test]
    fn no_text_panics(text in "([0-9.:\\[\\]%]{0,12}[ \t=#a\n]{1,3}(tier=|weight=)?){0,8}") {
        let _ = format::parse(text.as_bytes(), Strictness::Whole);
    }
}
