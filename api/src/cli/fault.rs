//! What went wrong with a command: on what, why, and what to do about it.

use std::error::Error;
use std::fmt::Display;

use super::exit::Exit;

/// A failed command. Printed once, by [`super::main`].
#[derive(Debug)]
pub(crate) struct Fault {
    /// The exit code that it ends with.
    pub(crate) exit: Exit,
    /// What could not be done, with its operand: `cannot read /etc/farebox.toml`.
    pub(crate) what: String,
    /// Why, from the outermost cause in; several lines where several things are wrong.
    pub(crate) cause: String,
    /// What mends it; empty when nobody knows.
    pub(crate) cure: String,
}

impl Fault {
    /// A fault without cause and cure yet.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            cause: String::new(),
            cure: String::new(),
        }
    }

    /// With the cause in words.
    pub(crate) fn because(mut self, cause: impl Display) -> Self {
        self.cause = cause.to_string();
        self
    }

    /// With an error and all its sources as the cause.
    pub(crate) fn caused_by(mut self, error: &dyn Error) -> Self {
        self.cause = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            // Some errors repeat their source in their own words.
            if !self.cause.contains(&text) {
                self.cause.push_str(": ");
                self.cause.push_str(&text);
            }
            source = inner.source();
        }
        self
    }

    /// With what to do about it.
    pub(crate) fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = cure.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_names_every_source_once() {
        let inner = std::io::Error::other("no room");
        let outer = std::io::Error::other(inner);
        let fault = Fault::new(Exit::Failed, "cannot write x").caused_by(&outer);
        assert_eq!(fault.cause, "no room");
    }
}
