//! Reads Rust source just far enough to know what a file names.
//!
//! Is: a lexer that knows comments, strings and lifetimes, and a walk over its tokens that collects
//! every `use` and every inline path, marks what stands below `#[cfg(test)]`, and follows inline
//! modules so that `super::` can be resolved.
//! Is not: a parser of the language, nor a name resolver. It sees no macro expansion and no scopes:
//! a name bound by a `use` anywhere in a file counts as bound in the whole file.
//!
//! Why by hand: the test guards the libraries' dependencies, so it brings none of its own, and the
//! questions are lexical ones ("which words does this file say?"), where an over-approximation fails
//! loudly and is easy to answer.
//!
//! ```text
//! text -> lex -> tokens -> mark_tests -> tokens + test flag -> walk -> Source { names, .. }
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// What a file says, as far as the rules ask.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Every path named outside tests: the leaves of `use` trees and the paths in code.
    pub(crate) names: Vec<Name>,
    /// Names bound by a `use` outside tests, with the path they stand for.
    pub(crate) aliases: BTreeMap<String, Vec<String>>,
    /// Modules declared in this file outside tests, inline ones too.
    pub(crate) declared: BTreeSet<String>,
    /// Lines that hold the keyword `unsafe`, tests included.
    pub(crate) unsafe_lines: Vec<usize>,
    /// Lines that hold a `#[path = ..]` attribute, tests included.
    pub(crate) path_attribute_lines: Vec<usize>,
    /// Lines with a `mod tests` that no `#[cfg(test)]` guards.
    pub(crate) unguarded_tests_lines: Vec<usize>,
    /// Whether the file says `#![forbid(unsafe_code)]`.
    pub(crate) forbids_unsafe: bool,
    /// Lines before the first test module, or of the whole file.
    pub(crate) lines_before_tests: usize,
}

/// One path as written, with the module it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) line: usize,
    /// Segments; the last is `*` for a glob.
    pub(crate) path: Vec<String>,
    /// The inline modules around it, below the file's own module.
    pub(crate) within: Vec<String>,
    /// From a `use` (or `extern crate`), as opposed to a path in code.
    pub(crate) imported: bool,
    /// Written with a leading `::`, so it can only be a crate.
    pub(crate) rooted: bool,
}

impl Source {
    pub(crate) fn read(text: &str) -> Source {
        let mut tokens = lex(text);
        let first_tests_line = mark_tests(&mut tokens);
        let mut source = Source {
            lines_before_tests: first_tests_line.map_or(text.lines().count(), |line| line - 1),
            ..Source::default()
        };
        source.note_words(&tokens);
        Walk { tokens: &tokens, at: 0, open: Vec::new(), depth: 0 }.run(&mut source);
        source
    }

    /// The rules about single words, which need no paths.
    fn note_words(&mut self, tokens: &[Token]) {
        for (at, token) in tokens.iter().enumerate() {
            let starts = |words: &[&str]| starts_with(&tokens[at..], words);
            if token.is("unsafe") {
                self.unsafe_lines.push(token.line);
            }
            if starts(&["#", "[", "path", "="]) {
                self.path_attribute_lines.push(token.line);
            }
            if !token.test && starts(&["mod", "tests"]) {
                self.unguarded_tests_lines.push(token.line);
            }
            self.forbids_unsafe |= starts(&["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"]);
        }
    }
}

// ------------------------------------------------------------------------------------- the lexer

#[derive(Clone, Debug)]
struct Token {
    /// An identifier or keyword, `::`, or one character of punctuation. Empty for a literal or a
    /// lifetime, so that no string can be mistaken for code.
    word: String,
    line: usize,
    /// Below `#[cfg(test)]`.
    test: bool,
}

impl Token {
    fn is(&self, word: &str) -> bool {
        self.word == word
    }

    fn is_ident(&self) -> bool {
        self.word.starts_with(is_ident_start)
    }
}

fn is_ident_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_ident_part(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn starts_with(tokens: &[Token], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.is(word))
}

fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < lexer.chars.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip(&mut self, count: usize) {
        let end = (self.at + count).min(self.chars.len());
        self.line += self.chars[self.at..end].iter().filter(|&&c| c == '\n').count();
        self.at = end;
    }

    fn push(&mut self, word: impl Into<String>) {
        self.tokens.push(Token { word: word.into(), line: self.line, test: false });
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.skip(1);
                }
            }
            ('/', '*') => self.block_comment(),
            (':', ':') => {
                self.push("::");
                self.skip(2);
            }
            ('"', _) => self.string(),
            ('\'', _) => self.char_or_lifetime(),
            (c, _) if is_ident_start(c) => self.word(),
            (c, _) if c.is_ascii_digit() => {
                self.push("");
                while is_ident_part(self.peek(0)) {
                    self.skip(1);
                }
            }
            (c, _) if c.is_whitespace() => self.skip(1),
            (c, _) => {
                self.push(c);
                self.skip(1);
            }
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.skip(1);
                    continue;
                }
            }
            self.skip(2);
            if depth == 0 {
                return;
            }
        }
    }

    /// An identifier, or the prefix of a literal (`b"`, `r#"`, `cr"`, `b'`), or `r#name`.
    fn word(&mut self) {
        let start = self.at;
        let mut end = start;
        while end < self.chars.len() && is_ident_part(self.chars[end]) {
            end += 1;
        }
        let word: String = self.chars[start..end].iter().collect();
        let next = self.chars.get(end).copied().unwrap_or('\0');
        let mut hashes = 0;
        while self.chars.get(end + hashes) == Some(&'#') {
            hashes += 1;
        }
        let opens_raw = self.chars.get(end + hashes) == Some(&'"');
        match word.as_str() {
            "r" | "br" | "cr" if opens_raw => {
                self.skip(end - start + hashes);
                self.raw_string(hashes);
            }
            "b" | "c" if next == '"' => {
                self.skip(1);
                self.string();
            }
            "b" if next == '\'' => {
                self.skip(1);
                self.char_or_lifetime();
            }
            "r" if hashes == 1 => self.skip(2),
            _ => {
                self.push(word);
                self.skip(end - start);
            }
        }
    }

    fn string(&mut self) {
        self.push("");
        self.skip(1);
        while self.at < self.chars.len() {
            match self.peek(0) {
                '\\' => self.skip(2),
                '"' => return self.skip(1),
                _ => self.skip(1),
            }
        }
    }

    /// At the opening quote; ends at a quote followed by as many hashes as it opened with.
    fn raw_string(&mut self, hashes: usize) {
        self.push("");
        self.skip(1);
        while self.at < self.chars.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|n| self.peek(n) == '#');
            if closes {
                return self.skip(1 + hashes);
            }
            self.skip(1);
        }
    }

    fn char_or_lifetime(&mut self) {
        self.push("");
        if self.peek(1) == '\\' {
            // `'\''`, `'\u{1F}'`: past the escaped character, then on to the closing quote.
            self.skip(3);
            while self.at < self.chars.len() && self.peek(0) != '\'' {
                self.skip(1);
            }
            self.skip(1);
        } else if self.peek(2) == '\'' {
            self.skip(3);
        } else {
            self.skip(1);
            while is_ident_part(self.peek(0)) {
                self.skip(1);
            }
        }
    }
}

// --------------------------------------------------------------------------------- test marking

/// Marks the tokens of every item below `#[cfg(test)]`; returns the line of the first such `mod`.
fn mark_tests(tokens: &mut [Token]) -> Option<usize> {
    let mut first_tests_line = None;
    let mut at = 0;
    while at < tokens.len() {
        let inner = starts_with(&tokens[at..], &["#", "!", "["]);
        if !inner && !starts_with(&tokens[at..], &["#", "["]) {
            at += 1;
            continue;
        }
        let attribute = at..end_of_group(tokens, at + 1 + usize::from(inner));
        if !is_cfg_test(&tokens[attribute.clone()]) {
            at = attribute.end;
            continue;
        }
        let end = if inner { tokens.len() } else { end_of_item(tokens, attribute.end) };
        let is_mod = inner || item_keyword(tokens, attribute.end) == Some("mod");
        if is_mod && first_tests_line.is_none() {
            first_tests_line = Some(tokens[at].line);
        }
        tokens[at..end].iter_mut().for_each(|token| token.test = true);
        at = end;
    }
    first_tests_line
}

/// `cfg(test)` and `cfg(all(test, ..))`, but not `cfg(not(test))` nor `cfg(any(test, ..))`, whose
/// code is there outside tests too.
fn is_cfg_test(attribute: &[Token]) -> bool {
    let says = |word: &str| attribute.iter().any(|token| token.is(word));
    says("cfg") && says("test") && !says("not") && !says("any")
}

/// The index after the bracket that closes the one at `open`.
fn end_of_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.word.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Skips attributes and a visibility; `at` may be any index.
fn start_of_item(tokens: &[Token], mut at: usize) -> usize {
    loop {
        let grouped = [["#", "["], ["pub", "("]];
        if grouped.iter().any(|words| starts_with(&tokens[at..], words)) {
            at = end_of_group(tokens, at + 1);
        } else if starts_with(&tokens[at..], &["pub"]) {
            at += 1;
        } else {
            return at;
        }
    }
}

fn item_keyword(tokens: &[Token], at: usize) -> Option<&str> {
    tokens.get(start_of_item(tokens, at)).map(|token| token.word.as_str())
}

/// The index after the item, field or statement that starts at `at`.
fn end_of_item(tokens: &[Token], at: usize) -> usize {
    const TO_SEMICOLON: &[&str] = &["use", "static", "type", "let"];
    const TO_BRACE: &[&str] = &[
        "mod",
        "fn",
        "struct",
        "enum",
        "union",
        "impl",
        "trait",
        "unsafe",
        "async",
        "extern",
        "const",
        "macro_rules",
    ];
    let mut at = start_of_item(tokens, at);
    let keyword = tokens.get(at).map_or("", |token| token.word.as_str());
    let is_const_fn = keyword == "const"
        && tokens.get(at + 1).is_some_and(|t| ["fn", "unsafe", "async"].contains(&t.word.as_str()));
    let to_semicolon = TO_SEMICOLON.contains(&keyword) || (keyword == "const" && !is_const_fn);
    let is_item = to_semicolon || TO_BRACE.contains(&keyword);
    while at < tokens.len() {
        match tokens[at].word.as_str() {
            ";" => return at + 1,
            // A field, variant or argument ends at its comma, or where its list ends.
            "," if !is_item => return at + 1,
            ")" | "]" | "}" => return at,
            "{" if !to_semicolon => return end_of_group(tokens, at),
            "(" | "[" | "{" => at = end_of_group(tokens, at),
            _ => at += 1,
        }
    }
    tokens.len()
}

// -------------------------------------------------------------------------------------- the walk

/// One pass over the tokens, outside tests, collecting what they name.
struct Walk<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Inline modules around the place, each with the brace depth it opened at.
    open: Vec<(String, usize)>,
    depth: usize,
}

impl Walk<'_> {
    fn run(mut self, source: &mut Source) {
        while self.at < self.tokens.len() {
            let rest = &self.tokens[self.at..];
            let token = &rest[0];
            let next_is_ident = rest.get(1).is_some_and(Token::is_ident);
            if token.test {
                self.at += 1;
            } else if token.is("use") && !starts_with(rest, &["use", "<"]) {
                self.at += 1;
                self.use_tree(&[], false, source);
            } else if starts_with(rest, &["extern", "crate"]) {
                self.at += 2;
                self.use_tree(&[], true, source);
            } else if token.is("mod") && next_is_ident {
                self.module(source);
            } else if token.is_ident() {
                self.inline_path(source);
            } else {
                self.brace();
                self.at += 1;
            }
        }
    }

    fn word(&self) -> &str {
        self.tokens.get(self.at).map_or("", |token| token.word.as_str())
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |token| token.line)
    }

    fn brace(&mut self) {
        match self.word() {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                self.open.pop_if(|(_, depth)| *depth == self.depth);
            }
            _ => {}
        }
    }

    fn module(&mut self, source: &mut Source) {
        let name = self.tokens[self.at + 1].word.clone();
        self.at += 2;
        source.declared.insert(name.clone());
        if self.word() == "{" {
            self.open.push((name, self.depth));
        }
    }

    /// At the first segment of a tree; leaves the place after it.
    fn use_tree(&mut self, prefix: &[String], rooted: bool, source: &mut Source) {
        let mut path = prefix.to_vec();
        let mut rooted = rooted;
        if self.word() == "::" {
            rooted |= path.is_empty();
            self.at += 1;
        }
        let line = self.line();
        loop {
            match self.word() {
                "{" => {
                    self.at += 1;
                    while !["}", ";", ""].contains(&self.word()) {
                        self.use_tree(&path, rooted, source);
                        if self.word() == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    path.push("*".into());
                    self.at += 1;
                }
                // `a::{self}` stands for `a`.
                "self" if !path.is_empty() => self.at += 1,
                word if word.starts_with(is_ident_start) => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
                // Not a use tree after all (half-written code): step on, so that the walk ends.
                _ => {
                    self.at += 1;
                    break;
                }
            }
            if self.word() != "::" {
                break;
            }
            self.at += 1;
        }
        let mut bound = path.last().cloned();
        if self.word() == "as" {
            bound = self.tokens.get(self.at + 1).map(|token| token.word.clone());
            self.at += 2;
        }
        if let Some(bound) = bound.filter(|bound| bound != "*") {
            source.aliases.insert(bound, path.clone());
        }
        self.name(line, path, true, rooted, source);
    }

    /// At an identifier that starts a path (or a lone word, which says nothing).
    fn inline_path(&mut self, source: &mut Source) {
        // Segments are consumed together, so a `::` before one is a leading `::` (or follows a `>`,
        // as in `Vec::<u8>::new`, where the rest names no crate).
        let rooted = self.at > 0 && self.tokens[self.at - 1].is("::");
        let line = self.line();
        let mut path = vec![self.word().to_owned()];
        self.at += 1;
        while self.word() == "::" && self.tokens.get(self.at + 1).is_some_and(Token::is_ident) {
            path.push(self.tokens[self.at + 1].word.clone());
            self.at += 2;
        }
        if path.len() > 1 {
            self.name(line, path, false, rooted, source);
        }
    }

    fn name(
        &self,
        line: usize,
        path: Vec<String>,
        imported: bool,
        rooted: bool,
        source: &mut Source,
    ) {
        let within = self.open.iter().map(|(name, _)| name.clone()).collect();
        source.names.push(Name { line, path, within, imported, rooted });
    }
}
