//! The files that the rules look at, and the rule that each of them is reachable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::text;

/// Text files by their path from the top of the repository, with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    others: BTreeSet<String>,
}

/// Endings of the files whose text is read; of all others only the name is known.
const READ: [&str; 6] = ["rs", "toml", "md", "sh", "py", "mjs"];

/// Where generated and foreign files lie.
const SKIPPED: [&str; 4] = ["target", ".git", "rootfs/out", "node_modules"];

impl Tree {
    /// The repository that this test was built from.
    pub(crate) fn of_repository() -> Self {
        let mut tree = Self::default();
        tree.read(Path::new(env!("CARGO_MANIFEST_DIR")), "");
        assert!(
            tree.text("Cargo.toml").is_some(),
            "no manifest: wrong directory"
        );
        tree
    }

    /// A made-up tree, for showing that a rule can fail.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.files.insert((*path).to_owned(), (*text).to_owned());
        }
        tree
    }

    fn read(&mut self, directory: &Path, prefix: &str) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{prefix}{name}");
            if SKIPPED.contains(&path.as_str()) {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.others.insert(path.clone());
                self.read(&entry.path(), &format!("{path}/"));
            } else if READ.iter().any(|end| path.ends_with(&format!(".{end}"))) {
                self.files
                    .insert(path, fs::read_to_string(entry.path()).unwrap());
            } else {
                self.others.insert(path);
            }
        }
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a file or directory of this name is there.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.files.contains_key(path)
            || self.others.contains(path)
            || self.files.keys().any(|file| file.starts_with(&below))
    }

    /// All files that end in `.ending`, in order of their paths.
    pub(crate) fn ending(&self, ending: &str) -> impl Iterator<Item = (&str, &str)> {
        let ending = format!(".{ending}");
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(&ending))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// Every `.rs` file is the root of a target or is named by a `mod` of a file that is reachable.
pub(crate) fn dead_files(tree: &Tree) -> Vec<String> {
    let mut reached = BTreeSet::new();
    for (path, _) in tree.ending("rs") {
        if is_root(path) {
            reach(tree, path, &mut reached);
        }
    }
    tree.ending("rs")
        .filter(|(path, _)| !reached.contains(*path))
        .map(|(path, _)| format!("{path}: no module names it"))
        .collect()
}

fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [_, "src", "lib.rs" | "main.rs"] | ["build.rs"] | [_, "build.rs"] => true,
        // A crate of its own, which `runtime/build.rs` compiles.
        ["runtime", "src", "template", "native.rs"] => true,
        ["tests" | "benches", file] => file.ends_with(".rs"),
        ["tests" | "benches", _, "main.rs"] => true,
        [_, "tests" | "benches", file] => file.ends_with(".rs"),
        [_, "tests" | "benches", _, "main.rs"] => true,
        _ => false,
    }
}

fn reach(tree: &Tree, path: &str, reached: &mut BTreeSet<String>) {
    let Some(source) = tree.text(path) else {
        return;
    };
    if !reached.insert(path.to_owned()) {
        return;
    }
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    let own = ["lib", "main", "mod"].contains(&stem) || is_root(path);
    let below = if own {
        directory.to_owned()
    } else {
        format!("{directory}/{stem}")
    };
    for (name, at) in modules(source) {
        match at {
            Some(at) => reach(tree, &joined(directory, &at), reached),
            None => {
                // A file that was itself taken in by `#[path]` looks beside itself.
                for base in [&below, directory] {
                    reach(tree, &format!("{base}/{name}.rs"), reached);
                    reach(tree, &format!("{base}/{name}/mod.rs"), reached);
                }
            }
        }
    }
}

/// The modules that a file declares in files of their own: name, and `#[path]` if it has one.
fn modules(source: &str) -> Vec<(String, Option<String>)> {
    let bare = text::without_comments(source);
    let mut found = Vec::new();
    let mut at = None;
    for line in bare.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            at = rest.split('"').next().map(str::to_owned);
            continue;
        }
        let Some(rest) = line.strip_suffix(';') else {
            continue;
        };
        let Some((before, name)) = rest.rsplit_once("mod ") else {
            continue;
        };
        if before.is_empty() || before.starts_with("pub") {
            found.push((name.trim().to_owned(), at.take()));
        }
    }
    found
}

/// `base` and `path` as one path, with `..` worked out.
pub(crate) fn joined(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
