//! Reads the list: which call gets which verdict, each name checked against the known numbers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::numbers;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: Vec<Group>,
    absent: Absent,
    rule: Vec<Rule>,
    template: Template,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    allow: Vec<String>,
    allow_on_v2: Vec<String>,
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Absent {
    calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    calls: Vec<String>,
    when: Vec<Vec<Condition>>,
}

/// A condition on the lower 32 bits of one argument; exactly one of the three tests is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    arg: u8,
    one_of: Option<Vec<u32>>,
    none_of: Option<Vec<u32>>,
    no_bits: Option<u32>,
}

/// What the lower 32 bits of an argument must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    OneOf(Vec<u32>),
    NoneOf(Vec<u32>),
    NoBits(u32),
}

/// A test and the argument that it looks at, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) arg: u8,
    pub(super) test: Test,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// `ENOSYS`.
    Absent,
    /// `EPERM`.
    Refuse,
    /// Allowed if all checks of one of the lists hold, else `EPERM`.
    When(Vec<Vec<Check>>),
}

/// Whose calls the filter judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Everyone in a sandbox.
    Sandbox,
    /// A template, until it has become a sandbox's process.
    Template {
        /// Whether it forks into groups of cgroup v2.
        is_v2: bool,
    },
}

/// Verdicts by call number; what is not in it is refused.
pub(super) type Policy = BTreeMap<u32, Verdict>;

/// Reads the list for this architecture. Names that only the other one has are left out.
pub(super) fn parse(text: &str, who: Who) -> Result<Policy, String> {
    let mut file: File = toml::from_str(text).map_err(|fault| fault.to_string())?;
    if let Who::Template { is_v2 } = who {
        let Template {
            mut allow,
            allow_on_v2,
            rule,
        } = file.template;
        if is_v2 {
            let absent = &mut file.absent.calls;
            absent.retain(|name| !allow_on_v2.contains(name));
            allow.extend(allow_on_v2);
        }
        file.group.push(Group { allow });
        file.rule.extend(rule);
    }
    let mut policy = Policy::new();
    for name in file.group.iter().flat_map(|group| &group.allow) {
        add(&mut policy, name, Verdict::Allow)?;
    }
    for name in &file.absent.calls {
        add(&mut policy, name, Verdict::Absent)?;
    }
    for rule in &file.rule {
        let when = rule.when.iter().map(|all| all.iter().map(check).collect());
        let when = when.collect::<Result<Vec<Vec<Check>>, String>>()?;
        if when.is_empty() || when.iter().any(Vec::is_empty) {
            return Err(format!("the rule on {:?} has an empty list", rule.calls));
        }
        for name in &rule.calls {
            add(&mut policy, name, Verdict::When(when.clone()))?;
        }
    }
    Ok(policy)
}

fn add(policy: &mut Policy, name: &str, verdict: Verdict) -> Result<(), String> {
    let number = match numbers::find(name) {
        Some(numbers::Found::Here(number)) => number,
        Some(numbers::Found::Elsewhere) => return Ok(()),
        None => return Err(format!("unknown system call {name:?}")),
    };
    match policy.insert(number, verdict) {
        None => Ok(()),
        Some(_) => Err(format!("system call {name:?} is listed twice")),
    }
}

fn check(condition: &Condition) -> Result<Check, String> {
    let Condition {
        arg,
        one_of,
        none_of,
        no_bits,
    } = condition.clone();
    let test = match (one_of, none_of, no_bits) {
        (Some(values), None, None) if !values.is_empty() => Test::OneOf(values),
        (None, Some(values), None) if !values.is_empty() => Test::NoneOf(values),
        (None, None, Some(bits)) => Test::NoBits(bits),
        _ => {
            return Err(format!(
                "a condition on argument {arg} needs exactly one test"
            ));
        }
    };
    if arg > 5 {
        return Err(format!("there is no argument {arg}"));
    }
    Ok(Check { arg, test })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rest: &str) -> Result<Policy, String> {
        let head = "[[group]]\nallow = [\"read\"]\n[absent]\ncalls = []\n";
        let template = "[template]\nallow = [\"setns\"]\nallow_on_v2 = []\nrule = []\n";
        parse(&format!("{head}{template}{rest}"), Who::Sandbox)
    }

    #[test]
    fn clone3_is_there_for_templates_on_v2_alone() {
        let list = include_str!("../../../rootfs/seccomp.toml");
        let number = u32::try_from(libc::SYS_clone3).unwrap();
        let verdict = |who| parse(list, who).unwrap().remove(&number);
        assert_eq!(verdict(Who::Sandbox), Some(Verdict::Absent));
        let template = |is_v2| verdict(Who::Template { is_v2 });
        assert_eq!(template(false), Some(Verdict::Absent));
        assert_eq!(template(true), Some(Verdict::Allow));
    }

    #[test]
    fn a_misspelt_call_is_an_error_and_not_left_out() {
        let found = with("[[rule]]\ncalls = [\"sokcet\"]\nwhen = [[{ arg = 0, one_of = [1] }]]");
        assert_eq!(found, Err("unknown system call \"sokcet\"".to_owned()));
    }

    #[test]
    fn a_call_with_two_verdicts_is_an_error() {
        let found = with("[[rule]]\ncalls = [\"read\"]\nwhen = [[{ arg = 0, one_of = [1] }]]");
        assert_eq!(
            found,
            Err("system call \"read\" is listed twice".to_owned())
        );
    }

    #[test]
    fn rules_that_would_allow_everything_are_errors() {
        for when in [
            "[]",
            "[[]]",
            "[[{ arg = 0 }]]",
            "[[{ arg = 6, one_of = [1] }]]",
        ] {
            let found = with(&format!("[[rule]]\ncalls = [\"socket\"]\nwhen = {when}"));
            assert!(found.is_err(), "{when}");
        }
    }
}
