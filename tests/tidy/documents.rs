//! What the documents must say, and that what they point at is there.

use super::text;
use super::tree::{Tree, joined};

/// Lines that a newcomer reads before the first run.
const README: usize = 150;

/// Every key of the default configuration has a comment of its own: above it, or behind it.
pub(crate) fn configuration_keys(tree: &Tree) -> Vec<String> {
    let path = "config/farebox.toml";
    let Some(source) = tree.text(path) else {
        return vec![format!("{path} is missing")];
    };
    let mut faults = Vec::new();
    let mut said = false;
    let mut open = 0_usize;
    for (at, line) in source.lines().map(str::trim).enumerate() {
        if open > 0 {
            open = (open + brackets(line, '[')).saturating_sub(brackets(line, ']'));
            continue;
        }
        if line.starts_with('#') {
            said = true;
        } else if let Some((key, value)) = line.split_once('=') {
            open = brackets(value, '[').saturating_sub(brackets(value, ']'));
            if !said && !value.contains('#') {
                faults.push(format!(
                    "{path}:{}: `{}` has no comment",
                    at + 1,
                    key.trim()
                ));
            }
            said = false;
        } else if !line.is_empty() {
            said = false;
        }
    }
    faults
}

fn brackets(line: &str, which: char) -> usize {
    line.split('#')
        .next()
        .unwrap_or("")
        .chars()
        .filter(|c| *c == which)
        .count()
}

/// Every error code that the API can send has a row in `docs/errors.md`, and no other has one.
pub(crate) fn error_codes(tree: &Tree) -> Vec<String> {
    let (source, page) = ("api/src/error.rs", "docs/errors.md");
    let Some(code) = tree.text(source) else {
        return vec![format!("{source} is missing")];
    };
    let Some(doc) = tree.text(page) else {
        return vec![format!("{page} is missing")];
    };
    let sent = codes_in(code);
    let told: Vec<&str> = doc
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let mut faults = Vec::new();
    if sent.is_empty() {
        faults.push(format!("{source}: no code found in `fn contract`"));
    }
    for code in sent.iter().filter(|code| !told.contains(&code.as_str())) {
        faults.push(format!("{page}: `{code}` is missing"));
    }
    for code in told
        .iter()
        .filter(|code| !sent.iter().any(|sent| sent == *code))
    {
        faults.push(format!("{page}: `{code}` is never sent"));
    }
    faults
}

/// The string literals of snake case in the body of `fn contract`, which also has titles.
fn codes_in(source: &str) -> Vec<String> {
    let bare = text::without_comments(source);
    let Some(body) = bare.split("fn contract(").nth(1) else {
        return Vec::new();
    };
    let body = body.split("\n    }\n").next().unwrap_or("");
    let literals = body.split('"').skip(1).step_by(2);
    let snake = |text: &&str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut codes: Vec<String> = literals.filter(snake).map(str::to_owned).collect();
    codes.sort();
    codes.dedup();
    codes
}

/// The README is at most 150 lines.
pub(crate) fn readme(tree: &Tree) -> Vec<String> {
    let Some(source) = tree.text("README.md") else {
        return vec!["no README.md".to_owned()];
    };
    let lines = source.lines().count();
    match lines > README {
        true => vec![format!("README.md: {lines} lines, {README} are allowed")],
        false => Vec::new(),
    }
}

/// Every relative link of a document names a file, and its `#part` a heading of that file.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, source) in tree.ending("md") {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for target in targets(source) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() {
                path.to_owned()
            } else {
                joined(directory, file)
            };
            if !tree.exists(&file) {
                faults.push(format!("{path}: {target} does not exist"));
            } else if !part.is_empty() && !tree.text(&file).is_some_and(|t| headed(t, part)) {
                faults.push(format!("{path}: {target} has no such heading"));
            }
        }
    }
    faults
}

/// What stands in the round brackets of `[words](target)`, outside fenced blocks.
fn targets(source: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in source.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for rest in line.split("](").skip(1) {
            found.extend(rest.split(')').next().map(str::to_owned));
        }
    }
    found
}

fn headed(source: &str, part: &str) -> bool {
    source
        .lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| {
            let slug: String = line
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            slug == part
        })
}

/// Every path in the code map of `ARCHITECTURE.md` exists, and every source file stands in it.
pub(crate) fn code_map(tree: &Tree) -> Vec<String> {
    let page = "ARCHITECTURE.md";
    let Some(source) = tree.text(page) else {
        return vec![format!("{page} is missing")];
    };
    let map: Vec<&str> = source
        .split("## Code map")
        .nth(1)
        .unwrap_or("")
        .split("\n## ")
        .next()
        .unwrap_or("")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let mut faults = Vec::new();
    for path in map
        .iter()
        .filter(|path| !tree.exists(path.trim_end_matches('/')))
    {
        faults.push(format!(
            "{page}: the map names {path}, which does not exist"
        ));
    }
    for (path, _) in tree.ending("rs").filter(|(path, _)| path.contains("/src/")) {
        let told = map
            .iter()
            .any(|entry| *entry == path || (entry.ends_with('/') && path.starts_with(entry)));
        if !told {
            faults.push(format!("{page}: {path} is missing in the map"));
        }
    }
    faults
}

/// Every test that an invariant of `ARCHITECTURE.md` names is there, and each invariant names one.
pub(crate) fn invariants(tree: &Tree) -> Vec<String> {
    let page = "ARCHITECTURE.md";
    let Some(source) = tree.text(page) else {
        return vec![format!("{page} is missing")];
    };
    let part = source.split("## Invariants").nth(1).unwrap_or("");
    let part = part.split("\n## ").next().unwrap_or("");
    let mut faults = Vec::new();
    for line in part.lines() {
        let item = line
            .split_once(". ")
            .filter(|(number, _)| number.parse::<u32>().is_ok());
        if let Some((number, _)) = item {
            let next = part.split(&format!("\n{number}. ")).nth(1).unwrap_or("");
            if !next
                .lines()
                .nth(1)
                .is_some_and(|line| line.trim().starts_with("Tests: "))
            {
                faults.push(format!("{page}: invariant {number} names no test"));
            }
        }
        let Some(names) = line.trim().strip_prefix("Tests: ") else {
            continue;
        };
        faults.extend(missing_tests(tree, page, names));
    }
    faults
}

/// Every row of the tables of threats in `SECURITY.md` names tests, and they are there.
pub(crate) fn threats(tree: &Tree) -> Vec<String> {
    let page = "SECURITY.md";
    let Some(source) = tree.text(page) else {
        return vec![format!("{page} is missing")];
    };
    let part = source.split("## Threats, ").nth(1).unwrap_or("");
    let part = part.split("\n## ").next().unwrap_or("");
    let is_row = |line: &&str| {
        line.starts_with("| ") && !line.starts_with("| threat ") && !line.starts_with("|--")
    };
    let mut faults = Vec::new();
    for row in part.lines().filter(is_row) {
        let columns: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [threat, _, tests] = columns[..] else {
            faults.push(format!("{page}: not three columns: {row}"));
            continue;
        };
        if !tests.contains('`') {
            faults.push(format!("{page}: \"{threat}\" names no test"));
        }
        faults.extend(missing_tests(tree, page, tests));
    }
    faults
}

/// A fault for each name in backquotes that no test has.
fn missing_tests(tree: &Tree, page: &str, names: &str) -> Vec<String> {
    let names = names.split('`').skip(1).step_by(2);
    let is_missing = |name: &&str| {
        let function = format!("fn {name}(");
        let listed = format!("\"{name}\"");
        !tree
            .ending("rs")
            .any(|(_, text)| text.contains(&function) || text.contains(&listed))
    };
    names
        .filter(is_missing)
        .map(|name| format!("{page}: no test is called {name}"))
        .collect()
}
