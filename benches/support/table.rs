//! What the benches of the runtime print: Markdown tables, bars, and one line of JSON each; and the
//! words of their command lines.

use serde_json::{Value, json};

/// `--quick`: few samples, which show that the bench works and nothing else.
pub(crate) fn is_quick() -> bool {
    std::env::args().any(|word| word == "--quick")
}

/// The word after `name` on the command line.
pub(crate) fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

/// The percentile of times that are in order; NaN of none.
pub(crate) fn at(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (sorted.len() * percent / 100).min(last);
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// Median, 95th and 99th percentile.
pub(crate) fn percentiles(sorted: &[f64]) -> [f64; 3] {
    [50, 95, 99].map(|percent| at(sorted, percent))
}

/// Three significant digits or so.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// Prints a paragraph of Markdown.
pub(crate) fn paragraph(text: &str) {
    println!("\n{text}");
}

/// Prints a table of Markdown that can be read as it stands.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) {
    let long = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let wide: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| head.len().max(long(column)))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells
            .zip(&wide)
            .map(|(cell, wide)| format!("{cell:<wide$}"))
            .collect();
        println!("| {} |", cells.join(" | "));
    };
    println!();
    line(&mut heads.iter().copied());
    let rules: Vec<String> = wide.iter().map(|wide| "-".repeat(*wide)).collect();
    line(&mut rules.iter().map(String::as_str));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// The promises of a bench, and what became of them.
#[derive(Debug)]
pub(crate) struct Bars {
    bench: &'static str,
    rows: Vec<Vec<String>>,
    lines: Vec<Value>,
}

impl Bars {
    pub(crate) fn new(bench: &'static str) -> Self {
        let (rows, lines) = (Vec::new(), Vec::new());
        Self { bench, rows, lines }
    }

    /// `value` may be this much at most.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, bar: f64) {
        self.note(what, (value, "at most", bar), value <= bar);
    }

    /// `value` must be this much at least.
    pub(crate) fn at_least(&mut self, what: &str, value: f64, bar: f64) {
        self.note(what, (value, "at least", bar), value >= bar);
    }

    fn note(&mut self, what: &str, (value, side, bar): (f64, &str, f64), is_met: bool) {
        let verdict = match (is_quick(), is_met) {
            (true, _) => "too few samples",
            (false, true) => "met",
            (false, false) => "missed",
        };
        let bar_words = format!("{side} {}", short(bar));
        let row = [what, &short(value), &bar_words, verdict];
        self.rows.push(row.map(str::to_owned).to_vec());
        let met = (!is_quick()).then_some(is_met);
        self.lines
            .push(json!({ "what": what, "value": value, side: bar, "met": met }));
    }

    /// Prints the bars, and one line of JSON with them and `figures`.
    pub(crate) fn report(self, figures: &Value) {
        table(&["promise", "measured", "bar", ""], &self.rows);
        println!(
            "\n{}",
            json!({ "bench": self.bench, "quick": is_quick(), "bars": self.lines,
                    "figures": figures })
        );
    }
}
