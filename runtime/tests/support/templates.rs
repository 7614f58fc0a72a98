//! What interpreters are forked from, seen from outside.

use std::fs;

/// Whether a process is a template.
pub(crate) fn is_template(pid: impl std::fmt::Display) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.contains("/templates/")
}
