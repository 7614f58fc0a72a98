//! Rust source without what is not code, line by line as it was.

/// `source` with comments blanked out; strings stay.
pub(crate) fn without_comments(source: &str) -> String {
    blank(source, false)
}

/// `source` with comments and the insides of strings and characters blanked out.
pub(crate) fn code(source: &str) -> String {
    blank(source, true)
}

/// Whether `line` has `word` with no letter, digit or underscore on either side.
pub(crate) fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && (word.ends_with(':') || !after.is_some_and(part))
    })
}

fn blank(source: &str, strings: bool) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let (end, hide) = token(&chars, at);
        for &c in &chars[at..end] {
            let hidden = match hide {
                Hide::Comment => true,
                Hide::Text => strings,
                Hide::No => false,
            };
            out.push(if hidden && c != '\n' { ' ' } else { c });
        }
        at = end;
    }
    out
}

enum Hide {
    No,
    Comment,
    Text,
}

/// The end of the comment, string, character or plain character that starts at `at`.
fn token(chars: &[char], at: usize) -> (usize, Hide) {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => (find(chars, at, '\n'), Hide::Comment),
        '/' if next == Some('*') => (block_comment(chars, at), Hide::Comment),
        '"' => (string(chars, at + 1), Hide::Text),
        'r' if !in_word(chars, at) => match raw_string(chars, at + 1) {
            Some(end) => (end, Hide::Text),
            None => (at + 1, Hide::No),
        },
        '\'' => match character(chars, at) {
            Some(end) => (end, Hide::Text),
            None => (at + 1, Hide::No),
        },
        _ => (at + 1, Hide::No),
    }
}

/// Whether `at` is inside an identifier; `br"` counts as not.
fn in_word(chars: &[char], at: usize) -> bool {
    let word = |at: usize| chars[at].is_alphanumeric() || chars[at] == '_';
    match at {
        0 => false,
        1 => word(0) && !['b', 'c'].contains(&chars[0]),
        at => word(at - 1) && (!['b', 'c'].contains(&chars[at - 1]) || word(at - 2)),
    }
}

fn find(chars: &[char], from: usize, wanted: char) -> usize {
    chars[from..]
        .iter()
        .position(|&c| c == wanted)
        .map_or(chars.len(), |by| from + by)
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn raw_string(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from..].iter().take_while(|&&c| c == '#').count();
    let open = from + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let mut at = open + 1;
    while at < chars.len() {
        let close = chars[at] == '"'
            && chars[at + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes;
        if close {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

/// A character literal, as against a lifetime.
fn character(chars: &[char], from: usize) -> Option<usize> {
    if chars.get(from + 1) == Some(&'\\') {
        let escaped = from + 3;
        return Some((find(chars, escaped.min(chars.len()), '\'') + 1).min(chars.len()));
    }
    (chars.get(from + 2) == Some(&'\'')).then_some(from + 3)
}
