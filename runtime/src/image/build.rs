//! Makes the tree of a recipe with mmdebstrap, in a mount namespace of its own.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::recipe::{BUILD_SCRIPT, ETC, FINISH_SCRIPT, Recipe};
use super::{Error, Package, Progress, sources};

/// Where the distribution's keys are, as its own package of them installs them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How many of the tools' last lines an error quotes.
const TAIL_LINES: usize = 12;

/// Steps of a build, as shown: the tree, its digest, the store.
pub(super) const STEPS: u32 = 3;

/// Says what a build needs and this host lacks.
pub(super) fn check_host() -> Result<(), Error> {
    let missing = |missing: &str, cure: &str| {
        Err(Error::Missing {
            missing: missing.to_owned(),
            cure: cure.to_owned(),
        })
    };
    if !nix::unistd::geteuid().is_root() {
        return missing(
            "building an image needs root",
            "run the command as root: it makes device nodes and files of other users",
        );
    }
    if !in_path("mmdebstrap") {
        return missing(
            "mmdebstrap is not installed",
            "`apt-get install mmdebstrap`",
        );
    }
    if !in_path("unshare") {
        return missing("unshare is not installed", "`apt-get install util-linux`");
    }
    if !Path::new(KEYS).exists() {
        return missing(
            "the keys of the image's distribution are not installed",
            "`apt-get install debian-archive-keyring` (also on Ubuntu), and set images.mirror if \
             the default mirror cannot be reached",
        );
    }
    Ok(())
}

fn in_path(program: &str) -> bool {
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .any(|dir| Path::new(dir).join(program).exists())
}

/// Makes the tree of `recipe` at `work`/rootfs; `work` is an empty directory. Answers what is
/// installed.
pub(super) fn tree(
    recipe: &Recipe,
    mirror: Option<&str>,
    work: &Path,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Package>, Error> {
    lay_scripts(recipe, work)?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--", "sh"])
        .arg(work.join("build.sh"))
        .arg(work)
        .args([recipe.uid.to_string(), recipe.gid.to_string()])
        .args(arguments(recipe, mirror, work))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::io("start", "unshare"))?;
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.map_err(Error::io("read the messages of", "mmdebstrap"))?;
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(text) = line.strip_prefix("I: ") {
                on_progress(Progress {
                    step: 1,
                    steps: STEPS,
                    text,
                });
            }
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }
    let status = child.wait().map_err(Error::io("wait for", "unshare"))?;
    if !status.success() {
        let tail: Vec<String> = tail.into();
        return Err(failed(recipe, status.to_string(), &tail.join("\n")));
    }
    packages(work)
}

fn lay_scripts(recipe: &Recipe, work: &Path) -> Result<(), Error> {
    let lay =
        |path: PathBuf, content: &str| fs::write(&path, content).map_err(Error::io("write", path));
    lay(work.join("build.sh"), BUILD_SCRIPT)?;
    lay(work.join("finish.sh"), FINISH_SCRIPT)?;
    lay(work.join("hook.sh"), recipe.hook)?;
    let etc = work.join("etc");
    fs::create_dir(&etc).map_err(Error::io("make", &etc))?;
    for (name, content) in ETC {
        lay(etc.join(name), content)?;
    }
    Ok(())
}

/// The arguments of mmdebstrap.
fn arguments(recipe: &Recipe, mirror: Option<&str>, work: &Path) -> Vec<String> {
    let mut all = vec![
        "--mode=root".to_owned(),
        "--format=directory".to_owned(),
        format!("--variant={}", recipe.variant),
        format!("--include={}", recipe.packages.join(",")),
        format!(
            "--customize-hook=sh '{}' \"$1\"",
            work.join("hook.sh").display()
        ),
    ];
    all.extend(
        recipe
            .exclude
            .iter()
            .map(|glob| format!("--dpkgopt=path-exclude={glob}")),
    );
    for scheme in ["http", "https"] {
        if let Some(proxy) = host_proxy(scheme) {
            all.push(format!("--aptopt=Acquire::{scheme}::Proxy \"{proxy}\""));
        }
    }
    all.push(recipe.suite.clone());
    all.push(work.join("rootfs").display().to_string());
    match mirror {
        Some(mirror) => all.push(format!(
            "deb [signed-by={KEYS}] {mirror} {} main",
            recipe.suite
        )),
        None => all.extend(sources::of_host(Path::new("/etc/apt"), &recipe.suite)),
    }
    all
}

/// The proxy that the host's package manager goes through.
fn host_proxy(scheme: &str) -> Option<String> {
    let key = format!("Acquire::{scheme}::Proxy");
    let output = Command::new("apt-config")
        .args(["dump", "--format", "%v", &key])
        .output()
        .ok()?;
    let proxy = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!proxy.is_empty() && !proxy.contains('"')).then_some(proxy)
}

/// Reads which step the tools stumbled over from what they said.
fn failed(recipe: &Recipe, status: String, tail: &str) -> Error {
    let any = |words: &[&str]| words.iter().any(|word| tail.contains(word));
    let cure = if any(&[
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Network is",
    ]) {
        "the package mirror cannot be reached: mend the network, or set images.mirror"
    } else if any(&["NO_PUBKEY", "not signed", "invalid signature"]) {
        "the mirror is signed by a key that this host does not know: \
         `apt-get install debian-archive-keyring`"
    } else if any(&["No space left"]) {
        "the disk under images.dir is full: a build needs about 1 GiB"
    } else if any(&["Unable to locate package"]) {
        "the mirror lacks a package of the recipe: set images.mirror to a whole one"
    } else if any(&["Operation not permitted"]) {
        "this host forbids a step even to root; `farebox doctor` tells more"
    } else {
        "see the lines below"
    };
    let name = recipe.name.clone();
    Error::Build {
        name,
        status,
        cure: cure.to_owned(),
        tail: tail.to_owned(),
    }
}

fn packages(work: &Path) -> Result<Vec<Package>, Error> {
    let path = work.join("packages");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let mut all: Vec<Package> = text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| Package {
            name: name.to_owned(),
            version: version.to_owned(),
        })
        .collect();
    all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::recipe;

    #[test]
    fn a_mirror_that_is_configured_replaces_the_hosts_sources() {
        let recipe = recipe::find("python").unwrap();
        let all = arguments(&recipe, Some("http://mirror.test/debian"), Path::new("/w"));
        let last = all.last().unwrap();
        assert!(
            last.ends_with("http://mirror.test/debian bookworm main"),
            "{last}"
        );
        let suite = all.iter().position(|one| one == "bookworm").unwrap();
        assert_eq!(all[suite + 1], "/w/rootfs");
        assert_eq!(all.len(), suite + 3);
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let recipe = recipe::find("node").unwrap();
        let text = |tail| failed(&recipe, "exit status: 1".to_owned(), tail).to_string();
        assert!(text("E: Could not resolve 'x'").contains("images.mirror"));
        assert!(text("tar: No space left on device").contains("images.dir"));
        assert!(text("E: what?").contains("see the lines below; the last lines were:\nE: what?"));
    }
}
