//! Expected output: lines that must come, in order or at any time, and lines that must not come.

use std::collections::{BTreeMap, BTreeSet};

/// One line of an expectation: literal text, `*` for anything, `{{hex}}` for a hexadecimal number, `{{NAME}}` for a word
/// that is the same wherever the name comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Anything,
    Hex,
    Same(String),
}

/// What names stand for.
type Words = BTreeMap<String, String>;

/// An `expected.txt`: `#` begins a comment, `!` a line that must not appear, `~` one that may come at any time: VMs run
/// side by side, so the order of two VMs' lines says nothing.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    wanted: Vec<Pattern>,
    anytime: Vec<Pattern>,
    forbidden: Vec<Pattern>,
}

/// How far an expectation has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    matched: usize,
    /// Of [`Expectation::anytime`], by place.
    seen: BTreeSet<usize>,
    words: Words,
}

impl Pattern {
    /// Reads one line.
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['*', '{']) {
            let (part, bytes) = match rest[at..].strip_prefix("{{").and_then(|name| name.split_once("}}")) {
                Some((name, _)) => {
                    let part = if name == "hex" { Part::Hex } else { Part::Same(name.to_owned()) };
                    (part, name.len() + "{{}}".len())
                }
                None if rest[at..].starts_with('*') => (Part::Anything, 1),
                None => (Part::Literal("{".to_owned()), 1),
            };
            if at > 0 {
                parts.push(Part::Literal(rest[..at].to_owned()));
            }
            parts.push(part);
            rest = &rest[at + bytes..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Self { text: text.to_owned(), parts }
    }

    /// Whether all of `line` matches, whatever names stand for.
    pub fn matches(&self, line: &str) -> bool {
        self.matches_with(line, &Words::new()).is_some()
    }

    /// What names stand for once all of `line` has matched.
    fn matches_with(&self, line: &str, words: &Words) -> Option<Words> {
        matches_parts(&self.parts, line, words)
    }
}

fn matches_parts(parts: &[Part], line: &str, words: &Words) -> Option<Words> {
    let Some((first, rest)) = parts.split_first() else {
        return line.is_empty().then(|| words.clone());
    };
    match first {
        Part::Literal(text) => matches_parts(rest, line.strip_prefix(text.as_str())?, words),
        Part::Anything => {
            let mut ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
            ends.find_map(|at| matches_parts(rest, &line[at..], words))
        }
        Part::Hex => {
            let digits = line.strip_prefix("0x").unwrap_or(line);
            let after = digits.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            if after.len() < digits.len() { matches_parts(rest, after, words) } else { None }
        }
        Part::Same(name) => {
            let word = &line[..line.find(char::is_whitespace).unwrap_or(line.len())];
            let known = words.get(name).map_or(word, String::as_str);
            if word.is_empty() || known != word {
                return None;
            }
            let mut words = words.clone();
            words.insert(name.clone(), word.to_owned());
            matches_parts(rest, &line[word.len()..], &words)
        }
    }
}

impl Expectation {
    /// Reads an `expected.txt`.
    pub fn parse(text: &str) -> Self {
        let mut expectation = Self::default();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (patterns, text) = match line.split_at_checked(1) {
                Some(("!", text)) => (&mut expectation.forbidden, text.trim_start()),
                Some(("~", text)) => (&mut expectation.anytime, text.trim_start()),
                _ => (&mut expectation.wanted, line),
            };
            patterns.push(Pattern::new(text));
        }
        expectation
    }

    /// Takes the next console line.
    ///
    /// # Errors
    /// When it is one that must not come; the message says which.
    pub fn see(&self, progress: &mut Progress, line: &str) -> Result<(), String> {
        if let Some(pattern) = self.forbidden.iter().find(|pattern| pattern.matches(line)) {
            return Err(format!("this must not come: {line:?} (matches `! {}`)", pattern.text));
        }
        let wanted = self.wanted.get(progress.matched);
        if let Some(words) = wanted.and_then(|pattern| pattern.matches_with(line, &progress.words)) {
            progress.matched += 1;
            progress.words = words;
        }
        let matching = self.anytime.iter().enumerate().filter(|(_, pattern)| pattern.matches(line));
        progress.seen.extend(matching.map(|(place, _)| place));
        Ok(())
    }

    /// The line that has not come yet, if any.
    pub fn missing(&self, progress: &Progress) -> Option<&str> {
        let in_order = self.wanted.get(progress.matched);
        let unseen = || self.anytime.iter().enumerate().find(|(place, _)| !progress.seen.contains(place));
        in_order.or_else(|| unseen().map(|(_, pattern)| pattern)).map(|pattern| pattern.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Expectation, Pattern, Progress};

    /// Would miss: a wildcard that takes too little or too much, a number that matches nothing.
    #[test]
    fn patterns_match_whole_lines() {
        let matches = |pattern: &str, line: &str| Pattern::new(pattern).matches(line);
        assert!(matches("[a] done", "[a] done"));
        assert!(!matches("[a] done", "[a] done twice"));
        assert!(matches("*done*", "[a] done twice"));
        assert!(matches("a*b*c", "abbc"));
        assert!(!matches("a*b*c", "abb"));
        assert!(matches("at {{hex}}: fault", "at 0x4000beef: fault"));
        assert!(matches("at {{hex}}: fault", "at beef: fault"));
        assert!(!matches("at {{hex}}: fault", "at 0x: fault"));
    }

    /// Would miss: a figure that is another one later, or one that is never compared.
    #[test]
    fn named_words_stay_the_same() {
        let expected = "{{used}} of {{all}} frames\n{{used}} of * frames, {{all}}\n";
        assert_eq!(verdict(expected, &["3 of 7 frames", "3 of 8 frames, 7"]), Ok(None));
        assert!(verdict(expected, &["3 of 7 frames", "4 of 7 frames, 7"]).is_ok_and(|missing| missing.is_some()));
        assert!(verdict(expected, &["3 of 7 frames", "3 of 7 frames, 6"]).is_ok_and(|missing| missing.is_some()));
        assert!(Pattern::new("a {b} c").matches("a {b} c"));
    }

    /// Would miss: a line of another VM that comes between, before or after the ordered ones.
    #[test]
    fn unordered_lines_may_come_at_any_time_but_must_come() {
        let expected = "one\n~ any*\ntwo\n~ other\n";
        assert_eq!(verdict(expected, &["other", "one", "two", "anything"]), Ok(None));
        assert_eq!(verdict(expected, &["anything", "one", "two"]), Ok(Some("other".to_owned())));
    }

    fn verdict(expected: &str, lines: &[&str]) -> Result<Option<String>, String> {
        let expectation = Expectation::parse(expected);
        let mut progress = Progress::default();
        for line in lines {
            expectation.see(&mut progress, line)?;
        }
        Ok(expectation.missing(&progress).map(str::to_owned))
    }

    /// Would miss: lines accepted in another order, and output after the last wanted line unread.
    #[test]
    fn lines_come_in_order_and_forbidden_ones_never() {
        let expected = "# why\n\none\ntwo*\n! *FAIL*\n";
        assert_eq!(verdict(expected, &["zero", "one", "else", "two three"]), Ok(None));
        assert_eq!(verdict(expected, &["two", "one"]), Ok(Some("two*".to_owned())));
        assert!(verdict(expected, &["one", "two", "[a] FAIL: x"]).is_err());
    }

    /// Would miss: an order asked of lines that have none, and a line that never came.
    #[test]
    fn some_lines_come_at_any_time() {
        let expected = "~ late\none\n~ early*\ntwo\n";
        assert_eq!(verdict(expected, &["early bird", "one", "two", "late"]), Ok(None));
        assert_eq!(verdict(expected, &["one", "late", "two", "early"]), Ok(None));
        assert_eq!(verdict(expected, &["early", "one", "two"]), Ok(Some("late".to_owned())));
        assert_eq!(verdict(expected, &["early", "late", "two", "one"]), Ok(Some("two".to_owned())));
    }
}
