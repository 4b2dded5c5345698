//! Each `unsafe` block or implementation has a `// SAFETY:` of its own, and only two crates have any.

use std::{fs, path::Path};

use super::rust_files;

/// The crates that may.
const ALLOWED: [&str; 2] = ["hyp/el2", "guest-tests"];
/// The crates that may not.
const FORBIDDEN: [&str; 7] = ["hyp/abi", "hyp/core", "hyp/dma", "hyp/ring", "hyp/smmu", "hyp/vdev", "tools"];

/// Looks through the repository at `root`.
///
/// # Errors
/// The files where the counts differ.
pub fn check(root: &Path) -> Result<(), String> {
    let mut faults = Vec::new();
    for file in ALLOWED.iter().flat_map(|folder| rust_files(&root.join(folder))) {
        let (uses, reasons) = count(&fs::read_to_string(&file).unwrap_or_default());
        if uses != reasons {
            faults.push(format!("{}: {uses} unsafe, {reasons} SAFETY", file.display()));
        }
    }
    for file in FORBIDDEN.iter().flat_map(|folder| rust_files(&root.join(folder))) {
        let (uses, _) = count(&fs::read_to_string(&file).unwrap_or_default());
        if uses > 0 {
            faults.push(format!("{}: {uses} unsafe in a crate that has none", file.display()));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("\n  {}", faults.join("\n  "))) }
}

/// `unsafe` uses that need a reason, and reasons.
///
/// A declaration (`unsafe fn`, `unsafe extern`, `unsafe trait`) asks for one from its user, not of itself.
fn count(text: &str) -> (usize, usize) {
    let mut uses = 0;
    let mut reasons = 0;
    for line in text.lines() {
        let (code, comment) = line.split_once("//").unwrap_or((line, ""));
        reasons += usize::from(comment.trim_start().starts_with("SAFETY:"));
        let after = code.match_indices("unsafe").map(|(at, word)| (&code[..at], code[at + word.len()..].trim_start()));
        uses += after.filter(|(before, rest)| is_use(before, rest)).count();
    }
    (uses, reasons)
}

fn is_use(before: &str, rest: &str) -> bool {
    let is_in_text = before.matches('"').count() % 2 == 1;
    let is_attribute = rest.starts_with('(') && before.trim_end().ends_with("#[");
    !is_in_text && (rest.starts_with('{') || rest.starts_with("impl") || is_attribute)
}

#[cfg(test)]
mod tests {
    use super::count;

    /// Would miss: one reason for two blocks, or a block that is taken for a declaration.
    #[test]
    fn uses_and_reasons_are_counted() {
        assert_eq!(count("// SAFETY: fine\nunsafe { a() };\nunsafe { b() };"), (2, 1));
        assert_eq!(count("unsafe fn f() {}\nunsafe extern \"C\" {}\n#![forbid(unsafe_code)]"), (0, 0));
        assert_eq!(count("// SAFETY: x\nunsafe impl Sync for A {}\n// SAFETY: y\n#[unsafe(no_mangle)]"), (2, 2));
        assert_eq!(count("// unsafe { } in words\nlet text = \"unsafe {\";"), (0, 0));
    }
}
