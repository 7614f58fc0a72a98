//! Recipes: what an image is made from; the files of `rootfs/`, embedded, and the key that names
//! their state.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::spec::hex;

/// What all recipes share.
const COMMON: &str = include_str!("../../../rootfs/images.toml");
pub(super) const BUILD_SCRIPT: &str = include_str!("../../../rootfs/build.sh");
pub(super) const FINISH_SCRIPT: &str = include_str!("../../../rootfs/base/finish.sh");

/// Files of every image's `/etc`, by name.
pub(super) const ETC: [(&str, &str); 6] = [
    ("group", include_str!("../../../rootfs/base/etc/group")),
    (
        "hostname",
        include_str!("../../../rootfs/base/etc/hostname"),
    ),
    ("hosts", include_str!("../../../rootfs/base/etc/hosts")),
    (
        "nsswitch.conf",
        include_str!("../../../rootfs/base/etc/nsswitch.conf"),
    ),
    ("passwd", include_str!("../../../rootfs/base/etc/passwd")),
    (
        "resolv.conf",
        include_str!("../../../rootfs/base/etc/resolv.conf"),
    ),
];

/// Every recipe: name, `recipe.toml`, `hook.sh`.
const SOURCES: [(&str, &str, &str); 2] = [
    (
        "python",
        include_str!("../../../rootfs/python/recipe.toml"),
        include_str!("../../../rootfs/python/hook.sh"),
    ),
    (
        "node",
        include_str!("../../../rootfs/node/recipe.toml"),
        include_str!("../../../rootfs/node/hook.sh"),
    ),
];

/// Changed when the builder itself makes another tree of the same recipe.
const BUILDER_VERSION: &str = "1";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    recipes: Vec<String>,
    suite: String,
    variant: String,
    packages: Vec<String>,
    exclude: Vec<String>,
    uid: u32,
    gid: u32,
    env: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    packages: Vec<String>,
    languages: Vec<String>,
    warm_bytes: u64,
    env: BTreeMap<String, String>,
}

/// A recipe, ready to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) suite: String,
    pub(super) variant: String,
    pub(super) packages: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) env: BTreeMap<String, String>,
    pub(super) languages: Vec<String>,
    pub(super) warm_bytes: u64,
    pub(super) hook: &'static str,
}

/// Names of the recipes that can be built, the default one first.
#[must_use]
pub fn recipe_names() -> Vec<String> {
    SOURCES
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect()
}

/// Finds and reads a recipe.
pub(super) fn find(name: &str) -> Result<Recipe, Error> {
    let Some(&(_, text, hook)) = SOURCES.iter().find(|(known, ..)| *known == name) else {
        return Err(Error::NoRecipe {
            name: name.to_owned(),
            known: recipe_names(),
        });
    };
    let malformed = |what: String| {
        move |fault: toml::de::Error| Error::Malformed {
            what,
            reason: fault.to_string(),
        }
    };
    let common: Common =
        toml::from_str(COMMON).map_err(malformed("rootfs/images.toml".to_owned()))?;
    let own: Own = toml::from_str(text).map_err(malformed(format!("rootfs/{name}/recipe.toml")))?;
    if !common.recipes.iter().any(|listed| listed == name) {
        let reason = format!("{name:?} is not listed under recipes");
        return Err(Error::Malformed {
            what: "rootfs/images.toml".to_owned(),
            reason,
        });
    }
    let mut env = common.env;
    env.extend(own.env);
    Ok(Recipe {
        name: name.to_owned(),
        key: key(text, hook),
        suite: common.suite,
        variant: common.variant,
        packages: common.packages.into_iter().chain(own.packages).collect(),
        exclude: common.exclude,
        uid: common.uid,
        gid: common.gid,
        env,
        languages: own.languages,
        warm_bytes: own.warm_bytes,
        hook,
    })
}

/// Hash of everything that goes into an image but the packages themselves, each part with its
/// length, so that moving a byte from one to the next changes it.
fn key(recipe: &str, hook: &str) -> String {
    let mut hash = Sha256::new();
    let etc = ETC.iter().flat_map(|(name, content)| [*name, *content]);
    let parts = [
        BUILDER_VERSION,
        std::env::consts::ARCH,
        COMMON,
        BUILD_SCRIPT,
        FINISH_SCRIPT,
    ];
    for part in parts.into_iter().chain(etc).chain([recipe, hook]) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_recipe_is_embedded_and_reads() {
        let common: Common = toml::from_str(COMMON).unwrap();
        assert_eq!(common.recipes, recipe_names());
        for name in recipe_names() {
            let recipe = find(&name).unwrap();
            assert_eq!(recipe.languages.first(), Some(&name));
            assert!(recipe.env.contains_key("PATH"), "{name} has no PATH");
            assert_eq!(recipe.key.len(), 64);
        }
    }

    #[test]
    fn the_key_changes_with_the_recipe_and_with_the_hook() {
        assert_ne!(key("a", "b"), key("ab", ""));
        assert_ne!(key("a", "b"), key("a", "c"));
        assert_eq!(key("a", "b"), key("a", "b"));
    }

    #[test]
    fn an_unknown_recipe_is_refused_with_the_known_ones() {
        let error = find("cobol").unwrap_err().to_string();
        assert!(error.contains("python, node"), "{error}");
    }
}
