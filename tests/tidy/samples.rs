//! Each rule is shown able to fail: a small bad tree it objects to, and a good one it lets pass.

use super::tree::{Tree, dead_files};
use super::{documents, names, sizes, text};

type RuleFn = fn(&Tree) -> Vec<String>;

/// `rule` finds exactly one fault in `bad`, which says `word`, and none in `good`.
fn tells(rule: RuleFn, bad: &[(&str, &str)], word: &str, good: &[(&str, &str)]) {
    let faults = rule(&Tree::of(bad));
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].contains(word),
        "{} does not say {word}",
        faults[0]
    );
    let faults = rule(&Tree::of(good));
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn a_leaf_that_knows_the_other_is_a_fault() {
    tells(
        names::dependencies,
        &[(
            "ledger/Cargo.toml",
            "[dependencies]\nserde = \"1\"\nruntime.workspace = true\n",
        )],
        "runtime",
        &[(
            "ledger/Cargo.toml",
            "[dependencies]\nserde = \"1\"\n[dev-dependencies]\napi = \"1\"\n",
        )],
    );
    tells(
        names::dependencies,
        &[(
            "runtime/Cargo.toml",
            "[dependencies.ledger]\npath = \"../ledger\"\n",
        )],
        "ledger",
        &[(
            "api/Cargo.toml",
            "[dependencies]\nledger.workspace = true\n",
        )],
    );
}

#[test]
fn a_foreign_engine_in_the_wrong_crate_is_a_fault() {
    tells(
        names::dependencies,
        &[("api/Cargo.toml", "[dependencies]\nsled = \"=0.34.7\"\n")],
        "sled",
        &[("ledger/Cargo.toml", "[dependencies]\nsled = \"=0.34.7\"\n")],
    );
}

#[test]
fn a_second_file_that_names_the_store_is_a_fault() {
    tells(
        names::who_may_name,
        &[
            ("ledger/src/a.rs", "use sled::Db;"),
            ("ledger/src/b.rs", "fn f(db: sled::Db) {}"),
        ],
        "sled",
        &[
            ("ledger/src/a.rs", "use sled::Db;"),
            (
                "ledger/src/b.rs",
                "// sled\n/* sled */ const S: &str = \"sled\";",
            ),
        ],
    );
}

#[test]
fn a_word_outside_its_files_is_a_fault() {
    let cases = [
        (
            "runtime/src/a.rs",
            "use actix_web::App;",
            "actix_web",
            "api/src/a.rs",
        ),
        (
            "api/src/a.rs",
            "let v = std::env::var(\"X\");",
            "env::var",
            "api/src/config.rs",
        ),
        (
            "ledger/src/a.rs",
            "let t = SystemTime::now();",
            "SystemTime",
            "api/src/clock.rs",
        ),
        (
            "api/src/a.rs",
            "let t = Instant::now();",
            "Instant",
            "runtime/src/clock.rs",
        ),
        (
            "api/src/a.rs",
            "unsafe { f() }",
            "unsafe",
            "runtime/src/a.rs",
        ),
        (
            "ledger/src/a.rs",
            "let rate: f64 = 0.1;",
            "f64",
            "runtime/src/a.rs",
        ),
    ];
    for (bad, source, word, good) in cases {
        tells(
            names::who_may_name,
            &[(bad, source)],
            word,
            &[(good, source)],
        );
    }
}

#[test]
fn a_long_file_function_or_line_is_a_fault() {
    let body = "    let a = 1;\n".repeat(71);
    let short = "    let a = 1;\n    // why\n\n".repeat(70);
    tells(
        sizes::sizes,
        &[(
            "a.rs",
            &format!("pub(crate) fn long(\n    a: [u8; 4],\n) {{\n{body}}}\n"),
        )],
        "long",
        &[(
            "a.rs",
            &format!("fn short() -> String {{\n{short}}}\ntrait T {{ fn none(&self); }}\n"),
        )],
    );
    tells(
        sizes::sizes,
        &[("a.rs", &"// a\n".repeat(801))],
        "801 lines",
        &[("a.rs", &"// a\n".repeat(800))],
    );
    tells(
        sizes::sizes,
        &[("a.rs", &format!("// {}\n", "a".repeat(98)))],
        "101 characters",
        &[("a.rs", &format!("// {}\n", "a".repeat(97)))],
    );
}

#[test]
fn a_long_line_of_another_language_is_no_fault_but_a_long_string_is() {
    let long = "a".repeat(101);
    tells(
        sizes::sizes,
        &[("a.rs", &format!("const A: &str = \"{long}\";\n"))],
        "characters",
        &[("a.rs", &format!("const A: &str = r\"\n{long}\n\";\n"))],
    );
}

#[test]
fn what_is_not_ascii_is_a_fault() {
    tells(
        sizes::ascii,
        &[("a.toml", "a = \"\u{b5}\"")],
        "ASCII",
        &[("a.md", "\u{b5}")],
    );
}

#[test]
fn a_module_without_its_sentence_is_a_fault() {
    tells(
        sizes::module_docs,
        &[("a.rs", "use std::fs;\n")],
        "sentence",
        &[("a.rs", "//! Owns the disk.\n")],
    );
}

#[test]
fn a_file_that_no_module_names_is_a_fault() {
    tells(
        dead_files,
        &[
            ("x/src/lib.rs", "mod a;\n// mod b;\n"),
            ("x/src/a.rs", ""),
            ("x/src/b.rs", ""),
        ],
        "x/src/b.rs",
        &[
            ("x/src/lib.rs", "pub mod a;\n"),
            ("x/src/a.rs", "mod c;\n"),
            ("x/src/a/c.rs", ""),
            ("tests/t/main.rs", "#[path = \"../support/s.rs\"]\nmod s;\n"),
            ("tests/support/s.rs", "mod k;\n"),
            ("tests/support/k.rs", ""),
        ],
    );
}

#[test]
fn a_test_that_hides_or_sleeps_is_a_fault() {
    tells(
        names::honest_tests,
        &[("tests/a.rs", "#[ignore]\nfn behaves() {}")],
        "ignore",
        &[("tests/a.rs", "// #[ignore]\nfn behaves() {}")],
    );
    tells(
        names::honest_tests,
        &[("tests/a.rs", "std::thread::sleep(d);")],
        "sleeps",
        &[("tests/support/a.rs", "std::thread::sleep(d);")],
    );
    let mark = ["// TO", "DO later"].concat();
    tells(
        names::honest_tests,
        &[("api/src/a.rs", &mark)],
        "left behind",
        &[("a.rs", "// do")],
    );
}

#[test]
fn a_key_without_a_comment_is_a_fault() {
    tells(
        documents::configuration_keys,
        &[("config/farebox.toml", "[a]\n# Why.\nb = 1\nc = 2\n")],
        "`c`",
        &[(
            "config/farebox.toml",
            "[a]\n# Why.\nb = 1\nc = 2 # ms\n# All.\nd = [\n  \"x=1\",\n]\n",
        )],
    );
}

#[test]
fn an_error_code_that_no_page_explains_is_a_fault() {
    let source =
        "    fn contract(self) -> (u16, &str) {\n        (404, \"not_found\", \"No\")\n    }\n";
    tells(
        documents::error_codes,
        &[
            ("api/src/error.rs", source),
            ("docs/errors.md", "| code |\n"),
        ],
        "not_found",
        &[
            ("api/src/error.rs", source),
            ("docs/errors.md", "| `not_found` | 404 |\n"),
        ],
    );
    tells(
        documents::error_codes,
        &[
            ("api/src/error.rs", source),
            (
                "docs/errors.md",
                "| `not_found` | 404 |\n| `gone` | 410 |\n",
            ),
        ],
        "never sent",
        &[
            ("api/src/error.rs", source),
            ("docs/errors.md", "| `not_found` | 404 |\n"),
        ],
    );
}

#[test]
fn a_long_readme_is_a_fault() {
    tells(
        documents::readme,
        &[("README.md", &"a\n".repeat(151))],
        "151 lines",
        &[("README.md", &"a\n".repeat(150))],
    );
}

#[test]
fn a_link_to_nothing_is_a_fault() {
    tells(
        documents::links,
        &[("docs/a.md", "[b](b.md)")],
        "b.md",
        &[
            ("docs/a.md", "[b](../b.md#the-end)\n```\n[c](c.md)\n```\n"),
            ("b.md", "## The end\n"),
        ],
    );
    tells(
        documents::links,
        &[("a.md", "[b](b.md#begin)"), ("b.md", "# End\n")],
        "heading",
        &[("a.md", "[b](https://example.org/b.md)")],
    );
}

#[test]
fn a_source_file_missing_in_the_code_map_is_a_fault() {
    let map = "## Code map\n| `api/src/a.rs` | a |\n## Next\n";
    tells(
        documents::code_map,
        &[
            ("ARCHITECTURE.md", map),
            ("api/src/a.rs", ""),
            ("api/src/b.rs", ""),
        ],
        "b.rs",
        &[("ARCHITECTURE.md", map), ("api/src/a.rs", "")],
    );
    tells(
        documents::code_map,
        &[("ARCHITECTURE.md", map)],
        "does not exist",
        &[
            ("ARCHITECTURE.md", "## Code map\n| `api/src/` | all |\n"),
            ("api/src/b.rs", ""),
        ],
    );
}

#[test]
fn an_invariant_without_its_test_is_a_fault() {
    let page = "## Invariants\n\n1. It holds.\n   Tests: `it_holds`.\n";
    let test = ("tests/a.rs", "fn it_holds() {}");
    tells(
        documents::invariants,
        &[("ARCHITECTURE.md", page)],
        "it_holds",
        &[("ARCHITECTURE.md", page), test],
    );
    tells(
        documents::invariants,
        &[
            (
                "ARCHITECTURE.md",
                "## Invariants\n\n1. It holds.\n2. Yes.\n   Tests: `it_holds`.\n",
            ),
            test,
        ],
        "1 names no test",
        &[("ARCHITECTURE.md", page), test],
    );
}

#[test]
fn a_threat_without_its_test_is_a_fault() {
    let head = "## Threats, held\n\n| threat | what holds it | tests |\n|---|---|---|\n";
    let page = format!("{head}| bomb | limit | `it_holds` |\n\n## After\n| a |\n");
    let bare = format!("{head}| bomb | limit | none |\n");
    let test = ("tests/a.rs", "name: \"it_holds\",");
    let good = [("SECURITY.md", page.as_str()), test];
    tells(documents::threats, &good[..1], "it_holds", &good);
    tells(
        documents::threats,
        &[("SECURITY.md", bare.as_str())],
        "names no test",
        &good,
    );
}

#[test]
fn strings_comments_and_characters_are_not_code() {
    let source = "let a = r#\"x \"unsafe\" y\"#; let b = '\"'; unsafe {} // unsafe\nfn f<'a>() {}";
    let code = text::code(source);
    assert_eq!(code.matches("unsafe").count(), 1);
    assert!(code.ends_with("fn f<'a>() {}"), "{code}");
    assert_eq!(code.lines().count(), source.lines().count());
    assert!(!text::names("my_sled::Db", "sled"));
    assert!(text::names("(sled::Db)", "sled"));
}
