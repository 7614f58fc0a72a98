//! Where the packages come from: the host's own package sources, so that no mirror is named in this
//! program.

use std::fs;
use std::path::{Path, PathBuf};

/// One source in one-line form, `deb [signed-by=KEYS] URI SUITE main`.
type Line = String;

/// The host's sources for `suite` and its updates, read from the `sources.list` files below
/// `etc_apt`.
///
/// Only `main`, and only places that look like the distribution's own (their path ends in `debian`
/// or `debian-security`). Empty if the host has none: mmdebstrap then takes the distribution's
/// default.
pub(super) fn of_host(etc_apt: &Path, suite: &str) -> Vec<Line> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) {
        let mut more: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut lines = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => lines.extend(text.lines().filter_map(|line| one_line(line, suite))),
            Some("sources") => lines.extend(text.split("\n\n").flat_map(|one| stanza(one, suite))),
            _ => {}
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

/// Reads `deb [options] URI SUITE COMPONENT...`.
fn one_line(line: &str, suite: &str) -> Option<Line> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, found) = (words.next()?, words.next()?);
    let keys = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="));
    let main = words.any(|component| component == "main");
    (main && wanted(uri, found, suite)).then(|| write(keys, uri, found))
}

/// Reads one stanza of a `.sources` file.
fn stanza(text: &str, suite: &str) -> Vec<Line> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let has = |name, word: &str| {
        field(name).is_some_and(|value| value.split_whitespace().any(|found| found == word))
    };
    if !has("Types", "deb") || !has("Components", "main") || field("Enabled") == Some("no") {
        return Vec::new();
    }
    // Keys may also stand in the stanza itself; the distribution's own are in a file.
    let keys = field("Signed-By").filter(|keys| keys.starts_with('/'));
    let mut lines = Vec::new();
    for uri in field("URIs").unwrap_or_default().split_whitespace() {
        for found in field("Suites").unwrap_or_default().split_whitespace() {
            if wanted(uri, found, suite) {
                lines.push(write(keys, uri, found));
            }
        }
    }
    lines
}

fn wanted(uri: &str, found: &str, suite: &str) -> bool {
    let same = found == suite
        || found
            .strip_prefix(suite)
            .is_some_and(|rest| matches!(rest, "-updates" | "-security"));
    let path = uri.trim_end_matches('/');
    same && (path.ends_with("/debian") || path.ends_with("/debian-security"))
}

fn write(keys: Option<&str>, uri: &str, suite: &str) -> Line {
    let options = keys
        .map(|keys| format!("[signed-by={keys}] "))
        .unwrap_or_default();
    format!("deb {options}{uri} {suite} main")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
# a comment
deb http://mirror.test/debian bookworm main contrib
deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian-security/ bookworm-security main
deb-src http://mirror.test/debian bookworm main
deb http://mirror.test/debian trixie main
deb http://mirror.test/debian bookworm-backports main
deb http://third.test/repo bookworm main
";

    const SOURCES: &str = "\
Types: deb
# why
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates trixie
Components: main
Signed-By: /k.gpg

Types: deb
Enabled: no
URIs: http://off.test/debian
Suites: bookworm
Components: main
";

    fn found(name: &str, content: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        fs::write(dir.path().join(name), content).unwrap();
        of_host(dir.path(), "bookworm")
    }

    #[test]
    fn one_line_sources_of_the_suite_are_taken() {
        let want = [
            "deb [signed-by=/k.gpg] http://mirror.test/debian-security/ bookworm-security main",
            "deb http://mirror.test/debian bookworm main",
        ];
        assert_eq!(found("sources.list", LIST), want);
        assert_eq!(found("sources.list.d/a.list", LIST), want);
    }

    #[test]
    fn stanzas_of_the_suite_are_taken() {
        let want = [
            "deb [signed-by=/k.gpg] http://mirror.test/debian bookworm main",
            "deb [signed-by=/k.gpg] http://mirror.test/debian bookworm-updates main",
        ];
        assert_eq!(found("sources.list.d/debian.sources", SOURCES), want);
    }

    #[test]
    fn a_file_that_is_switched_off_by_its_name_is_not_read() {
        assert_eq!(
            found("sources.list.d/a.list.off", LIST),
            Vec::<String>::new()
        );
    }
}
