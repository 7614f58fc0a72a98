//! The repository checks itself: what may depend on what, who may name what, sizes, documents.
//!
//! Each rule is a function from a [`Tree`] to its faults, so that the same function is run on the
//! repository and, in `samples`, on small bad trees that it must object to.

#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/samples.rs"]
mod samples;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/text.rs"]
mod text;
#[path = "tidy/tree.rs"]
mod tree;

use tree::Tree;

/// Fails with every fault of `rule`, one a line.
fn hold(rule: fn(&Tree) -> Vec<String>) {
    let faults = rule(&Tree::of_repository());
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn dependencies_point_one_way() {
    hold(names::dependencies);
}

#[test]
fn only_the_named_files_name_it() {
    hold(names::who_may_name);
}

#[test]
fn files_functions_and_lines_stay_short() {
    hold(sizes::sizes);
}

#[test]
fn rust_and_toml_are_ascii() {
    hold(sizes::ascii);
}

#[test]
fn every_module_says_what_it_owns() {
    hold(sizes::module_docs);
}

#[test]
fn no_rust_file_is_dead() {
    hold(tree::dead_files);
}

#[test]
fn tests_neither_sleep_nor_hide() {
    hold(names::honest_tests);
}

#[test]
fn every_configuration_key_is_documented() {
    hold(documents::configuration_keys);
}

#[test]
fn every_error_code_is_documented() {
    hold(documents::error_codes);
}

#[test]
fn the_readme_is_short() {
    hold(documents::readme);
}

#[test]
fn links_in_documents_resolve() {
    hold(documents::links);
}

#[test]
fn every_file_of_the_map_exists() {
    hold(documents::code_map);
}

#[test]
fn every_invariant_names_a_test_that_is_there() {
    hold(documents::invariants);
}

#[test]
fn every_threat_names_the_tests_that_show_it_is_held() {
    hold(documents::threats);
}
