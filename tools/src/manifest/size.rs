//! Sizes as people write them: `512 MiB`.

/// Bytes of `text`: a whole number and `KiB`, `MiB` or `GiB`. `None` for anything else and past 2^64.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - digits.len()].parse().ok()?;
    let unit: u64 = match digits.trim() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::parse;

    /// Would miss: a unit read as 10^6, or a number without one taken for bytes.
    #[test]
    fn sizes_have_a_number_and_a_binary_unit() {
        assert_eq!(parse("512 MiB"), Some(512 << 20));
        assert_eq!(parse("2GiB"), Some(2 << 30));
        assert_eq!(parse("4 KiB"), Some(4096));
        for wrong in ["512", "512 MB", "MiB", "", "-1 MiB", "1.5 GiB", "99999999999999 GiB"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
