//! The judge of what a program printed: lines of a name and a result against lines that are
//! expected.
//!
//! An expected line is a name and what its result may be: one word, several parted by `|`, `*` for
//! any, or a bound such as `>=10` or `<=10`. Every expected line must be there once, unless `?`
//! stands before it, and no other.

use std::collections::BTreeMap;

/// All that is wrong with an end and the lines printed.
pub(super) fn faults_of(ends: &str, prints: &str, seen: &(String, String)) -> Vec<String> {
    let mut faults = Vec::new();
    if !ends.split('|').any(|end| end == seen.0) {
        faults.push(format!(
            "ended as {:?}, expected {ends:?}; it printed:\n{}",
            seen.0, seen.1
        ));
    }
    faults.extend(missing_lines(prints, &seen.1));
    let expected = prints.replace('?', "");
    let expected = parse(&expected);
    for (name, results) in parse(&seen.1) {
        if name == "stderr:" {
            // Only there to explain.
            continue;
        }
        if !expected.contains_key(name) {
            faults.push(format!(
                "printed {name:?} {results:?}, which is not expected"
            ));
        } else if results.len() > 1 {
            faults.push(format!("printed {name:?} more than once: {results:?}"));
        }
    }
    faults
}

/// The expected lines that are not there, or that say something else.
pub(super) fn missing_lines(prints: &str, text: &str) -> Vec<String> {
    let found = parse(text);
    let mut faults = Vec::new();
    for line in prints.lines() {
        for (name, wanted) in parse(line.trim_start().trim_start_matches('?')) {
            let want = wanted.first().copied().unwrap_or_default();
            match found.get(name) {
                Some(results) if results.iter().any(|result| fits(want, result)) => {}
                Some(results) => faults.push(format!("{name}: {results:?}, expected {want:?}")),
                None if is_optional(line) => {}
                None => faults.push(format!("{name}: not printed, expected {want:?}:\n{text}")),
            }
        }
    }
    faults
}

fn is_optional(line: &str) -> bool {
    line.trim_start().starts_with('?')
}

fn parse(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, result) = line.split_once(' ').unwrap_or((line, ""));
        lines.entry(name).or_default().push(result.trim());
    }
    lines
}

fn fits(wanted: &str, result: &str) -> bool {
    let one = |wanted: &str| {
        let bound = |sign: &str| wanted.strip_prefix(sign)?.parse::<i64>().ok();
        match (bound(">="), bound("<="), result.parse::<i64>()) {
            (Some(least), _, Ok(found)) => found >= least,
            (_, Some(most), Ok(found)) => found <= most,
            (None, None, _) => wanted == "*" || wanted == result,
            _ => false,
        }
    };
    wanted.split('|').any(one)
}

/// Shows that the judge objects to each kind of difference.
pub(super) fn objects() {
    let seen = |text: &str| ("exited 0".to_owned(), text.to_owned());
    let faults = |ends, prints, text| faults_of(ends, prints, &seen(text)).len();
    assert_eq!(
        faults(
            "exited 0",
            "a 1\nb x|y\nc >=3\nd *\n",
            "a 1\nc 3\nb y\nd e f\n"
        ),
        0
    );
    assert_eq!(faults("exited 0|lost", "? a 1", ""), 0);
    assert_eq!(faults("exited 0|lost", "? a 1", "a 1"), 0);
    assert_eq!(
        faults("exited 0", "? a 1", "a 2"),
        1,
        "another result where none need be"
    );
    assert_eq!(faults("exited 1", "", ""), 1, "another end");
    assert_eq!(faults("exited 0", "a 1", "a 2"), 1, "another result");
    assert_eq!(faults("exited 0", "a 1", ""), 1, "a missing line");
    assert_eq!(faults("exited 0", "", "a 1"), 1, "a line too many");
    assert_eq!(faults("exited 0", "a 1", "a 1\na 1"), 1, "a line twice");
    assert_eq!(faults("exited 0", "a >=3", "a 2"), 1, "too little");
    assert_eq!(faults("exited 0", "a <=3", "a x"), 1, "no number");
}
