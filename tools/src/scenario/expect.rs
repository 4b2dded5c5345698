//! Expected output: lines that must come, in order or at any time, and lines that must not come.

use std::collections::BTreeSet;

/// One line of an expectation: literal text, `*` for anything, `{{hex}}` for a hexadecimal number.
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
}

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
}

impl Pattern {
    /// Reads one line.
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = [rest.find('*'), rest.find("{{hex}}")].into_iter().flatten().min() {
            if at > 0 {
                parts.push(Part::Literal(rest[..at].to_owned()));
            }
            let is_hex = rest[at..].starts_with('{');
            parts.push(if is_hex { Part::Hex } else { Part::Anything });
            rest = &rest[at + if is_hex { "{{hex}}".len() } else { 1 }..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Self { text: text.to_owned(), parts }
    }

    /// Whether all of `line` matches.
    pub fn matches(&self, line: &str) -> bool {
        matches_parts(&self.parts, line)
    }
}

fn matches_parts(parts: &[Part], line: &str) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return line.is_empty();
    };
    match first {
        Part::Literal(text) => line.strip_prefix(text.as_str()).is_some_and(|line| matches_parts(rest, line)),
        Part::Anything => {
            let mut ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
            ends.any(|at| matches_parts(rest, &line[at..]))
        }
        Part::Hex => {
            let digits = line.strip_prefix("0x").unwrap_or(line);
            let after = digits.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            after.len() < digits.len() && matches_parts(rest, after)
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
        if self.wanted.get(progress.matched).is_some_and(|pattern| pattern.matches(line)) {
            progress.matched += 1;
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
