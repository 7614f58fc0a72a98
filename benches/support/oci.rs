//! What the peers are asked for as an OCI configuration: the same root, program and limits as a
//! sandbox of ours has; with a filter of system calls, or a user namespace, where wanted.

use std::path::Path;

use serde_json::{Value, json};

/// Our own list of system calls.
const LIST: &str = include_str!("../../rootfs/seccomp.toml");
/// Number of `ENOSYS`.
const ENOSYS: u32 = 38;

/// Limits of a run that names none, as in `config/tiers.toml`.
pub(crate) const MEMORY_BYTES: u64 = 268_435_456;
pub(crate) const PIDS: u32 = 64;
pub(crate) const OPEN_FILES: u32 = 1024;

/// What one peer has more than another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extras {
    /// A filter of system calls of the usual form and size.
    pub(crate) seccomp: bool,
    /// A user namespace.
    pub(crate) users: bool,
}

/// A configuration that runs `argv` on `root`.
pub(crate) fn config(root: &Path, argv: &[&str], extras: Extras) -> Value {
    let mut kinds = vec!["pid", "mount", "network", "ipc", "uts", "cgroup"];
    kinds.extend(extras.users.then_some("user"));
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    let files = json!({ "type": "RLIMIT_NOFILE", "soft": OPEN_FILES, "hard": OPEN_FILES });
    let mut linux = json!({
        "namespaces": namespaces,
        "resources": {
            "memory": { "limit": MEMORY_BYTES },
            "cpu": { "quota": 100_000, "period": 100_000 },
            "pids": { "limit": PIDS },
        },
    });
    if extras.users {
        let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        linux["uidMappings"] = ids.clone();
        linux["gidMappings"] = ids;
    }
    if extras.seccomp {
        linux["seccomp"] = seccomp();
    }
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 1000, "gid": 1000 }, "cwd": "/tmp",
            "args": argv,
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/user", "LANG=C.UTF-8"],
            "noNewPrivileges": true,
            "rlimits": [files],
        },
        "root": { "path": root, "readonly": true },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] },
        ],
        "linux": linux,
    })
}

/// Our list in the form that OCI runtimes take: some 300 calls by name, for three architectures, as
/// container engines ship it. What that form cannot say (an argument that is none of several
/// values) is allowed whatever its arguments are.
fn seccomp() -> Value {
    let list: toml::Table = LIST.parse().unwrap();
    let mut rules: Vec<Value> = tables(&list["group"])
        .map(|group| allow(words(&group["allow"]), Vec::new()))
        .collect();
    let absent = words(&list["absent"]["calls"]);
    rules.push(json!({ "names": absent, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    for rule in tables(&list["rule"]) {
        let calls = words(&rule["calls"]);
        for when in rule["when"].as_array().unwrap() {
            let choices = choices(when.as_array().unwrap());
            rules.extend(choices.into_iter().map(|args| allow(calls.clone(), args)));
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn allow(names: Vec<&str>, args: Vec<Value>) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args })
}

/// Every way in which all of the conditions can hold, each as a list of comparisons.
fn choices(conditions: &[toml::Value]) -> Vec<Vec<Value>> {
    let mut all = vec![Vec::new()];
    for condition in conditions {
        let index = condition["arg"].as_integer().unwrap();
        let one = |value: i64, mask: Option<i64>| match mask {
            Some(mask) => json!({ "index": index, "value": mask, "valueTwo": value,
                                  "op": "SCMP_CMP_MASKED_EQ" }),
            None => json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" }),
        };
        let ways: Vec<Value> = if let Some(bits) = condition.get("no_bits") {
            vec![one(0, bits.as_integer())]
        } else if let Some(values) = condition.get("one_of") {
            let values = values.as_array().unwrap().iter();
            values
                .map(|value| one(value.as_integer().unwrap(), None))
                .collect()
        } else {
            continue;
        };
        let longer = |args: &Vec<Value>| -> Vec<Vec<Value>> {
            let ways = ways.iter();
            ways.map(|way| [args.as_slice(), std::slice::from_ref(way)].concat())
                .collect()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

fn tables(list: &toml::Value) -> impl Iterator<Item = &toml::Table> {
    list.as_array()
        .unwrap()
        .iter()
        .filter_map(toml::Value::as_table)
}

fn words(list: &toml::Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|word| word.as_str().unwrap()).collect()
}
