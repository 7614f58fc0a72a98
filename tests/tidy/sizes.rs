//! How long a thing may be, how it is written, and that each module says what it owns.

use super::text;
use super::tree::Tree;

/// Lines of a file, of code in a function body, and characters of a line.
const FILE: usize = 800;
const FUNCTION: usize = 70;
const LINE: usize = 100;

/// Files at most 800 lines, functions at most 70 lines of code, lines at most 100 characters.
pub(crate) fn sizes(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, source) in tree.ending("rs") {
        let lines = source.lines().count();
        if lines > FILE {
            faults.push(format!(
                "{path}: {lines} lines, {FILE} are allowed: split it"
            ));
        }
        faults.extend(long_lines(path, source));
        for (name, line, long) in functions(source) {
            if long > FUNCTION {
                faults.push(format!("{path}:{line}: `{name}` has {long} lines of code"));
            }
        }
    }
    faults
}

/// Lines that are too long, but for those that are wholly inside a string: there stand programs in
/// other languages, which have rules of their own.
fn long_lines(path: &str, source: &str) -> Vec<String> {
    let (code, words) = (text::code(source), text::without_comments(source));
    let lines = source.lines().zip(code.lines().zip(words.lines()));
    let mut faults = Vec::new();
    for (at, (line, (code, words))) in lines.enumerate() {
        let inside_a_string = code.trim().is_empty() && !words.trim().is_empty();
        let long = line.chars().count();
        if long > LINE && !inside_a_string {
            let at = at + 1;
            faults.push(format!(
                "{path}:{at}: {long} characters, {LINE} are allowed"
            ));
        }
    }
    faults
}

/// Name, first line and lines of code of each function with a body.
fn functions(source: &str) -> Vec<(String, usize, usize)> {
    let code = text::code(source);
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let mut depth = 0_usize;
        let mut opened = None;
        'body: for (at, line) in lines.iter().enumerate().skip(first) {
            let from = if at == first {
                line.find("fn ").unwrap_or(0)
            } else {
                0
            };
            for c in line[from..].chars() {
                match c {
                    ';' if opened.is_none() && depth == 0 => break 'body,
                    '[' | '(' if opened.is_none() => depth += 1,
                    ']' | ')' if opened.is_none() => depth -= 1,
                    '{' if opened.is_none() => {
                        opened = Some(at);
                        depth = 1;
                    }
                    '{' => depth += 1,
                    '}' if opened.is_some() => depth -= 1,
                    _ => {}
                }
                if let (Some(open), 0) = (opened, depth) {
                    let body = lines.get(open + 1..at).unwrap_or_default();
                    let long = body.iter().filter(|line| !line.trim().is_empty()).count();
                    found.push((name.to_owned(), first + 1, long));
                    break 'body;
                }
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let at = line.find("fn ")?;
    let before = line[..at].trim();
    let declared = before.split_whitespace().all(|word| {
        let starts = ["pub", "const", "async", "unsafe", "extern", "in", "default"];
        starts.iter().any(|start| word.starts_with(start)) || word.starts_with('"')
    });
    let name = line[at + 3..]
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    (declared && !name.is_empty()).then_some(name)
}

/// Nothing but ASCII in `.rs` and `.toml`.
pub(crate) fn ascii(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, source) in tree.ending("rs").chain(tree.ending("toml")) {
        for (at, line) in source.lines().enumerate() {
            if let Some(c) = line.chars().find(|c| !c.is_ascii()) {
                faults.push(format!("{path}:{}: {c:?} is not ASCII", at + 1));
            }
        }
    }
    faults
}

/// Each file opens with a sentence about what it owns.
pub(crate) fn module_docs(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, source) in tree.ending("rs") {
        let first = source
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("");
        let words = first
            .strip_prefix("//!")
            .unwrap_or("")
            .split_whitespace()
            .count();
        if words < 3 {
            faults.push(format!("{path}: the first line is not a sentence in `//!`"));
        }
    }
    faults
}
