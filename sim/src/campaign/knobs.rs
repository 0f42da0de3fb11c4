//! Knobs as people write them: names with commas between, or `name=value`. A dash is none of them.

use crate::knobs::Knobs;

/// Reads `NAME,NAME..`.
///
/// # Errors
/// Cause and remedy, if one of them is no knob.
pub fn names(text: &str) -> Result<Vec<String>, String> {
    let mut scratch = Knobs::calm();
    let mut names = Vec::new();
    for name in parts(text) {
        if !scratch.put_to_rest(name) {
            return Err(unknown(name));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Reads `NAME=VALUE,NAME=VALUE..`; those that are not named are at rest.
///
/// # Errors
/// Cause and remedy, if one of them is no knob, or its value no number.
pub fn settings(text: &str) -> Result<Knobs, String> {
    let mut knobs = Knobs::calm();
    for part in parts(text) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` has no value; write {part}=NUMBER"))?;
        let value = value
            .parse()
            .map_err(|_| format!("`{value}` is no value of {name}; write a whole number"))?;
        if !knobs.set(name, value) {
            return Err(unknown(name));
        }
    }
    Ok(knobs)
}

/// Those that are not at rest, as [`settings`] reads them.
#[must_use]
pub fn written(knobs: &Knobs) -> String {
    let settings: Vec<String> =
        knobs.settings().map(|(name, value)| format!("{name}={value}")).collect();
    settings.join(",")
}

/// A text, or a dash in place of an empty one.
pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !matches!(*part, "" | "-"))
}

fn unknown(name: &str) -> String {
    format!("no knob is called `{name}`; they are {}", Knobs::NAMES.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_as_it_was() {
        let mut knobs = Knobs::calm();
        assert_eq!(settings("-"), Ok(knobs));
        assert!(knobs.set("panics", 7) && knobs.set("short_send", 300));
        assert_eq!(written(&knobs), "short_send=300,panics=7");
        assert_eq!(settings(&written(&knobs)), Ok(knobs));
        assert_eq!(names("panics, short_send"), Ok(vec!["panics".into(), "short_send".into()]));
        assert_eq!(names(""), Ok(Vec::new()));
    }

    #[test]
    fn mistakes_are_told_with_a_remedy() {
        let unknown = names("panics,panic").expect_err("there is no such knob");
        assert!(
            unknown.starts_with("no knob is called `panic`; they are short_send, "),
            "{unknown}"
        );
        assert_eq!(settings("panic=1"), Err(unknown));
        assert_eq!(settings("panics"), Err("`panics` has no value; write panics=NUMBER".into()));
        assert!(settings("panics=x").is_err_and(|text| text.contains("whole number")));
    }
}
