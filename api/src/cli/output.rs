//! The one way out: results to standard output, faults, bills and progress to standard error.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};

use super::exit::Exit;
use super::fault::Fault;

/// Where a command's words go. `--json` turns results and faults into JSON.
#[derive(Debug)]
pub(crate) struct Output {
    /// Whether results are printed as JSON.
    pub(crate) json: bool,
    progress: bool,
    open_line: bool,
}

impl Output {
    /// Progress shows only where somebody watches.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            progress: io::stderr().is_terminal(),
            open_line: false,
        }
    }

    /// One line of a result.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Fault> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// A result as JSON, indented: it is as often read as parsed.
    pub(crate) fn value(&mut self, value: &Value) -> Result<(), Fault> {
        self.line(&format!("{value:#}"))
    }

    /// Raw bytes to standard output.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.end_progress();
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // Who stops reading has what they wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => {
                Err(Fault::new(Exit::Failed, "cannot write to standard output").caused_by(&error))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Raw bytes to standard error. Losses there are nobody's loss.
    pub(crate) fn aside(&mut self, bytes: &[u8]) {
        self.end_progress();
        drop(io::stderr().lock().write_all(bytes));
    }

    /// Shows where long work stands, on one line that is written over; only on a terminal.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.progress {
            drop(write!(io::stderr().lock(), "\r\x1b[K{}", one_line(text)));
            self.open_line = true;
        }
    }

    /// Clears the progress line.
    pub(crate) fn end_progress(&mut self) {
        if self.open_line {
            drop(write!(io::stderr().lock(), "\r\x1b[K"));
            self.open_line = false;
        }
    }

    /// Prints a fault: what, why, what to do.
    pub(crate) fn fault(&mut self, fault: &Fault) {
        let text = if self.json {
            let body = json!({ "error": {
                "what": fault.what, "cause": fault.cause, "cure": fault.cure,
                "exit_code": fault.exit as u8,
            }});
            format!("{body}\n")
        } else {
            let mut text = format!("error: {}\n", fault.what);
            for (title, lines) in [("cause", &fault.cause), ("cure", &fault.cure)] {
                for (at, line) in lines.lines().enumerate() {
                    let title = if at == 0 {
                        format!("{title}:")
                    } else {
                        String::new()
                    };
                    text.push_str(&format!("{title:<6} {line}\n"));
                }
            }
            text
        };
        self.aside(text.as_bytes());
    }

    /// Rows under a head, each column as wide as its widest cell; numbers flush right.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Fault> {
        let text = table(head, rows);
        self.bytes(text.as_bytes())
    }
}

/// What fits on a terminal's line and moves nothing on it.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut wide: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (wide, cell) in wide.iter_mut().zip(row) {
            *wide = (*wide).max(cell.chars().count());
        }
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (at, (cell, &wide)) in row.iter().zip(&wide).enumerate() {
            let right = rows
                .iter()
                .all(|row| row.get(at).is_some_and(|cell| is_number(cell)));
            let cell = printable(cell);
            let cell = if right {
                format!("{cell:>wide$}")
            } else {
                format!("{cell:<wide$}")
            };
            line.push_str(&cell);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn is_number(cell: &str) -> bool {
    !cell.is_empty()
        && cell
            .chars()
            .all(|c| c.is_ascii_digit() || c == '.' || c == '-')
}

/// A tenant's words on an operator's terminal: control characters are shown, never obeyed.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = vec![
            vec!["acme".to_owned(), "5".to_owned()],
            vec!["a".to_owned(), "1234".to_owned()],
        ];
        assert_eq!(
            table(&["tenant", "runs"], &rows),
            "tenant  runs\nacme       5\na       1234\n"
        );
    }

    #[test]
    fn control_characters_reach_no_terminal() {
        let rows = vec![vec!["a\x1b[2Jb".to_owned()]];
        assert!(!table(&["name"], &rows).contains('\x1b'));
        assert!(!one_line("a\x1b[2J\nb").contains(['\x1b', '\n']));
    }
}
