//! The Debian mirror that this machine is set up with.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

const RELEASE: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A mirror and the key that signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    uri: String,
    signed_by: String,
}

impl Source {
    /// The first source of Debian 12's main archive in apt's configuration.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_this_machine() -> Result<Self> {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(parts.flatten().map(|part| part.path()));
        }
        files.sort();
        let found = files.iter().find_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "list" => Self::in_list(&text),
                "sources" => Self::in_deb822(&text),
                _ => None,
            }
        });
        found.context("no source of Debian 12's main archive (suite bookworm) in /etc/apt: add one")
    }

    /// One-line form: `deb [options] URI suite components`.
    fn in_list(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let mut words = rest.split_whitespace();
            let uri = words.next()?;
            if words.next()? != RELEASE || !words.any(|word| word == "main") {
                return None;
            }
            let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            Some(Self::new(uri, signed_by))
        })
    }

    /// deb822 form: stanzas of `Key: value`.
    fn in_deb822(text: &str) -> Option<Self> {
        text.split("\n\n").find_map(|stanza| {
            let field = |key: &str| {
                stanza.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.trim().eq_ignore_ascii_case(key).then(|| value.trim())
                })
            };
            let has =
                |key: &str, word: &str| field(key).is_some_and(|value| value.split_whitespace().any(|w| w == word));
            let is_off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
            if is_off || !has("Types", "deb") || !has("Suites", RELEASE) || !has("Components", "main") {
                return None;
            }
            let uri = field("URIs")?.split_whitespace().next()?;
            Some(Self::new(uri, field("Signed-By").filter(|value| value.starts_with('/'))))
        })
    }

    fn new(uri: &str, signed_by: Option<&str>) -> Self {
        Self { uri: uri.to_owned(), signed_by: signed_by.unwrap_or(KEYRING).to_owned() }
    }

    /// A sources.list of the release and its backports.
    pub fn with_backports(&self, architecture: Option<&str>) -> String {
        let architecture = architecture.map(|name| format!("arch={name} ")).unwrap_or_default();
        let line =
            |suite: &str| format!("deb [{architecture}signed-by={}] {} {suite} main\n", self.signed_by, self.uri);
        line(RELEASE) + &line(BACKPORTS)
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYRING, Source};

    fn source(uri: &str, signed_by: &str) -> Option<Source> {
        Some(Source { uri: uri.to_owned(), signed_by: signed_by.to_owned() })
    }

    /// Would miss: the security archive taken for the main one, comments and disabled stanzas read.
    #[test]
    fn finds_the_main_archive_in_both_forms() {
        let list = "# deb http://old.example/ bookworm main\n\
            deb http://mirror.example/security bookworm-security main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib\n";
        assert_eq!(Source::in_list(list), source("http://mirror.example/debian", "/k.gpg"));
        assert_eq!(Source::in_list("deb http://m.example/ bookworm main\n"), source("http://m.example/", KEYRING));
        let deb822 = "Types: deb\nURIs: http://off.example/\nSuites: bookworm\nComponents: main\nEnabled: no\n\n\
            Types: deb deb-src\n# note\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(Source::in_deb822(deb822), source("http://mirror.example/debian", KEYRING));
        assert_eq!(Source::in_deb822("Types: deb\nURIs: http://m.example/\nSuites: trixie\nComponents: main\n"), None);
    }

    /// Would miss: a list for the wrong architecture, which apt reads without a word and finds nothing in.
    #[test]
    fn lists_the_release_and_its_backports() {
        let list = source("http://m.example/", "/k.gpg").expect("a source").with_backports(Some("arm64"));
        let expected = "deb [arch=arm64 signed-by=/k.gpg] http://m.example/ bookworm main\n\
            deb [arch=arm64 signed-by=/k.gpg] http://m.example/ bookworm-backports main\n";
        assert_eq!(list, expected);
    }
}
