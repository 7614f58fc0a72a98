//! Which crate may depend on which, and which file may name what.

use super::text;
use super::tree::Tree;

/// A crate's manifest, which of our own crates it may depend on, and foreign ones it may not.
struct Manifest {
    path: &'static str,
    own: &'static [&'static str],
    never: &'static [&'static str],
}

const CRATES: [&str; 3] = ["api", "ledger", "runtime"];

/// DESIGN: `farebox -> api -> {runtime, ledger}`; the two leaves do not know each other.
const MANIFESTS: [Manifest; 4] = [
    Manifest {
        path: "Cargo.toml",
        own: &["api", "ledger", "runtime"],
        never: &["actix-web", "libcontainer", "sled", "tokio"],
    },
    Manifest {
        path: "api/Cargo.toml",
        own: &["ledger", "runtime"],
        never: &["libcontainer", "oci-spec", "sled"],
    },
    Manifest {
        path: "runtime/Cargo.toml",
        own: &[],
        never: &[
            "actix-web",
            "sled",
            "jiff",
            "jsonwebtoken",
            "utoipa",
            "ureq",
        ],
    },
    Manifest {
        path: "ledger/Cargo.toml",
        own: &[],
        never: &[
            "actix-web",
            "libcontainer",
            "tokio",
            "futures",
            "utoipa",
            "ureq",
        ],
    },
];

/// Each crate depends on what it may, and on nothing that is another's to know.
pub(crate) fn dependencies(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for manifest in &MANIFESTS {
        let Some(source) = tree.text(manifest.path) else {
            continue;
        };
        for name in section(source, "[dependencies]") {
            let ours = CRATES.contains(&name.as_str()) && !manifest.own.contains(&name.as_str());
            if ours || manifest.never.contains(&name.as_str()) {
                faults.push(format!("{}: must not depend on {name}", manifest.path));
            }
        }
    }
    faults
}

/// The names on the left in one section of a manifest.
fn section(source: &str, title: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == title;
            let table = title.trim_end_matches(']');
            if let Some(rest) = line.strip_prefix(&format!("{table}.")) {
                names.push(rest.trim_end_matches(']').to_owned());
            }
        } else if inside && !line.starts_with('#') && line.contains('=') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or("");
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}

/// Where a word may stand in code; comments and strings do not count.
struct Rule {
    word: &'static str,
    why: &'static str,
    /// Files, or folders when they end in `/`.
    may: &'static [&'static str],
    /// How many files may name it in all.
    most: usize,
}

const ANY: usize = usize::MAX;

const RULES: [Rule; 13] = [
    Rule {
        word: "libcontainer",
        why: "it runs only in a shim: one file",
        may: &["runtime/src/"],
        most: 1,
    },
    Rule {
        word: "sled",
        why: "the view's store: one file",
        may: &["ledger/src/"],
        most: 1,
    },
    Rule {
        word: "actix_web",
        why: "HTTP is api's",
        may: &["api/src/"],
        most: ANY,
    },
    Rule {
        word: "actix_rt",
        why: "tasks live on the server's own runtime",
        may: &[],
        most: 0,
    },
    Rule {
        word: "env::var",
        why: "only api's configuration reads the environment",
        may: &[
            "api/src/config.rs",
            "api/src/config/",
            "ledger/src/testing.rs",
            "ledger/tests/",
            "tests/support/",
            "runtime/tests/",
            "benches/",
        ],
        most: ANY,
    },
    Rule {
        word: "env::var_os",
        why: "only api's configuration reads the environment",
        may: &[
            "runtime/build.rs",
            "api/src/config.rs",
            "api/src/config/",
            "tests/http/sample.rs",
            "tests/support/",
            "runtime/tests/",
            "benches/",
        ],
        most: ANY,
    },
    Rule {
        word: "env::vars",
        why: "only api's configuration reads the environment",
        may: &["api/src/config.rs", "api/src/config/"],
        most: ANY,
    },
    Rule {
        word: "SystemTime",
        why: "only the clock modules read the wall clock",
        may: &[
            "api/src/clock.rs",
            "runtime/src/clock.rs",
            "tests/support/",
            "runtime/tests/",
            "benches/",
        ],
        most: ANY,
    },
    Rule {
        word: "Instant::now",
        why: "only the clock modules read a clock",
        may: &[
            "api/src/clock.rs",
            "runtime/src/clock.rs",
            "tests/support/",
            "runtime/tests/",
            "benches/",
        ],
        most: ANY,
    },
    Rule {
        word: "unsafe",
        why: "only runtime has unsafe code",
        may: &["runtime/src/", "runtime/tests/"],
        most: ANY,
    },
    Rule {
        word: "f64",
        why: "money is never a float",
        may: FLOATS,
        most: ANY,
    },
    Rule {
        word: "f32",
        why: "money is never a float",
        may: FLOATS,
        most: ANY,
    },
    Rule {
        word: "process::exit",
        why: "main returns its exit code",
        may: &[],
        most: 0,
    },
];

const FLOATS: &[&str] = &["api/src/", "runtime/src/", "tests/", "benches/"];

/// Each word of the table stands only where the table allows it.
pub(crate) fn who_may_name(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for rule in &RULES {
        let mut files = Vec::new();
        for (path, source) in tree.ending("rs") {
            let code = text::code(source);
            let Some(at) = code.lines().position(|line| text::names(line, rule.word)) else {
                continue;
            };
            files.push(path);
            let allowed = rule.may.iter().any(|may| match may.ends_with('/') {
                true => path.starts_with(may),
                false => path == *may,
            });
            if !allowed {
                faults.push(format!(
                    "{path}:{}: names `{}`: {}",
                    at + 1,
                    rule.word,
                    rule.why
                ));
            }
        }
        if files.len() > rule.most {
            let all = files.join(", ");
            faults.push(format!("`{}` is named by {all}: {}", rule.word, rule.why));
        }
    }
    faults
}

/// No ignored test, no `should_panic`, no sleep as synchronisation, no name that starts in `test`.
pub(crate) fn honest_tests(tree: &Tree) -> Vec<String> {
    let never = [
        "#[ignore",
        "#[should_panic",
        "fn test_",
        "todo!",
        "unimplemented!",
    ];
    let mut faults = Vec::new();
    for (path, source) in tree.ending("rs") {
        for (at, line) in text::code(source).lines().enumerate() {
            for word in never.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{path}:{}: `{word}` is not used here", at + 1));
            }
            let sleeps = text::names(line, "thread::sleep") || text::names(line, "time::sleep");
            if sleeps && path.starts_with("tests/") && !path.starts_with("tests/support/") {
                faults.push(format!("{path}:{}: sleeps; wait for a condition", at + 1));
            }
        }
        for (at, line) in source.lines().enumerate() {
            let mark = ["TO", "FIX", "X"].iter().zip(["DO", "ME", "XX"]);
            for (head, tail) in mark {
                if text::names(line, &format!("{head}{tail}")) {
                    faults.push(format!("{path}:{}: {head}{tail} left behind", at + 1));
                }
            }
        }
    }
    faults
}
