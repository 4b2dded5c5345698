//! Line assembly: what passes, what does not, and that no input can do anything else.

use std::{string::String, vec::Vec};

use crate::vuart::{LINE_MAX, LineBuffer};
use proptest::prelude::{any, proptest};

fn lines(input: &[u8]) -> Vec<Vec<u8>> {
    let (mut buffer, mut lines) = (LineBuffer::new(), Vec::new());
    for &byte in input {
        buffer.push(byte, |line| lines.push(line.to_vec()));
    }
    buffer.flush(|line| lines.push(line.to_vec()));
    lines
}

fn one(input: &[u8]) -> String {
    let lines = lines(input);
    assert_eq!(lines.len(), 1, "{lines:?}");
    String::from_utf8(lines.concat()).expect("nothing but UTF-8 comes out")
}

#[test]
fn lines_end_at_newline_and_lose_their_carriage_return() {
    assert_eq!(lines(b"one\r\ntwo\n\nthree"), [&b"one"[..], b"two", b"", b"three"]);
}

#[test]
fn colour_passes_and_nothing_else_that_starts_with_escape() {
    assert_eq!(one(b"\x1b[1;31mred\x1b[0m\n"), "\x1b[1;31mred\x1b[0m");
    assert_eq!(one(b"\x1b[m\n"), "\x1b[m");
    assert_eq!(one(b"\x1b[2J\x1b[H\n"), "^[[2J^[[H");
    assert_eq!(one(b"\x1b]0;title\x07\n"), "^[]0;title^G");
    assert_eq!(one(b"\x1b[?25l\n"), "^[[?25l");
    assert_eq!(one(b"\x1b[31\x1b[32mx\n"), "^[[31\x1b[32mx");
    assert_eq!(one(b"\x1bm\n"), "^[m");
    assert_eq!(one(b"x\x1b[1;2\n"), "x^[[1;2");
    assert_eq!(one(b"\x1b[1;1;1;1;1;1;1;1;1;1;1;1m\n"), "^[[1;1;1;1;1;1;1;1;1;1;1;1m", "too long to be a colour");
}

/// Shells ask it at every prompt; only the very question goes, not what looks like it.
#[test]
fn the_question_for_the_cursor_is_dropped() {
    assert_eq!(one(b"/ # \x1b[6nls\n"), "/ # ls");
    assert_eq!(one(b"\x1b[5n\x1b[16n\n"), "^[[5n^[[16n");
}

#[test]
fn control_bytes_are_shown() {
    assert_eq!(one(b"a\x08\x07\x00\x7f\tb\n"), "a^H^G^@^?\tb");
    assert_eq!(one(b"\x9b2J\xc2\x9b2J\n"), "?2J?2J", "C1, bare and as UTF-8");
}

#[test]
fn text_passes_and_malformed_or_reordering_text_does_not() {
    assert_eq!(one("grüß — 日本 🦀\n".as_bytes()), "grüß — 日本 🦀");
    assert_eq!(one(b"\xe0\x82\x9bx\xc3\xc3\xa4\xff\xe2\x82\n"), "?x?ä??");
    assert_eq!(one("\u{202e}desrever\u{2028}\n".as_bytes()), "?desrever?");
}

#[test]
fn a_prompt_is_flushed_and_its_end_is_no_empty_line() {
    let (mut buffer, mut lines) = (LineBuffer::new(), Vec::new());
    for &byte in b"login: " {
        buffer.push(byte, |_| panic!("not yet"));
    }
    assert!(buffer.is_pending());
    assert!(buffer.flush(|line| lines.push(line.to_vec())));
    assert!(!buffer.is_pending() && !buffer.flush(|_| panic!("twice")));
    for &byte in b"\n\n" {
        buffer.push(byte, |line| lines.push(line.to_vec()));
    }
    assert_eq!(lines, [&b"login: "[..], b""]);
}

#[test]
fn long_lines_are_cut_and_lose_nothing() {
    let input = [b'x'; 1000];
    let lines = lines(&input);
    assert!(lines.len() > 3 && lines.iter().all(|line| line.len() <= LINE_MAX));
    assert_eq!(lines.concat(), input);
}

/// What a terminal may be sent: text, tab, and colours.
fn is_harmless(line: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(line) else { return false };
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        if rest[..at].contains(|c: char| c.is_control() && c != '\t') {
            return false;
        }
        let Some(sequence) = rest[at..].strip_prefix("\x1b[") else { return false };
        rest = sequence.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        let Some(after) = rest.strip_prefix('m') else { return false };
        rest = after;
    }
    !rest.contains(|c: char| c.is_control() && c != '\t')
}

proptest! {
    /// Would miss only what `is_harmless` takes for harmless.
    #[test]
    fn nothing_harmful_comes_out(input in proptest::collection::vec(any::<u8>(), 0..600)) {
        for line in lines(&input) {
            assert!(line.len() <= LINE_MAX && is_harmless(&line), "{line:?}");
        }
    }

    #[test]
    fn nor_of_input_that_is_all_escapes(
        input in proptest::collection::vec(proptest::sample::select(b"\x1b[;0m\xc2\x9b\xe2\n".to_vec()), 0..600)
    ) {
        for line in lines(&input) {
            assert!(line.len() <= LINE_MAX && is_harmless(&line), "{line:?}");
        }
    }
}
