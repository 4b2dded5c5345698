//! Console text without what only terminals read.

/// `line` without escape sequences and control characters.
pub fn clean(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            skip_sequence(&mut characters);
        } else if !character.is_control() || character == '\t' {
            out.push(character);
        }
    }
    out.trim_end().to_owned()
}

/// Skips to the end of a CSI sequence (ECMA-48 5.4), or over the one character of another one.
fn skip_sequence(characters: &mut std::str::Chars<'_>) {
    if characters.next() == Some('[') {
        characters.find(|character| ('\x40'..='\x7e').contains(character));
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    /// Would miss: a coloured name that an expectation never matches.
    #[test]
    fn colours_and_carriage_returns_go() {
        assert_eq!(clean("\x1b[36m[alpha]\x1b[0m hello\r"), "[alpha] hello");
        assert_eq!(clean("\x1b[6nip \tx"), "ip \tx");
        assert_eq!(clean("cut off \x1b["), "cut off");
    }
}
