//! Names lead to trees, trees go with their last name, and damage is refused.

use std::os::fd::AsFd;

use super::*;
use crate::image::{Package, needs};

const BOUNDS: Bounds = Bounds {
    tree_bytes: 1 << 30,
    file_bytes: 1 << 30,
    entries: 1000,
};

/// Whether the directories of an image can get their owners here.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A store with one image of `content` under `name`, made without packages.
fn store_with(dir: &Path, name: &str, content: &str) -> (Store, Digest) {
    let store = Store::open(dir);
    store.make_dirs().unwrap();
    let staging = dir.join("staging");
    let root = staging.join("rootfs");
    fs::create_dir_all(&root).unwrap();
    needs::complete(File::open(&root).unwrap().as_fd()).unwrap();
    fs::write(root.join("etc/content"), content).unwrap();
    let summary = tree::summarise(&root, &BOUNDS, &mut || Ok(())).unwrap();
    let recipe = recipe::find("python").unwrap();
    let image = Image {
        name: name.to_owned(),
        tag: "latest".to_owned(),
        digest: summary.digest,
        recipe: recipe.key,
        origin: String::new(),
        languages: recipe.languages,
        env: recipe.env,
        uid: recipe.uid,
        gid: recipe.gid,
        created_s: 1,
        suite: recipe.suite,
        architecture: architecture().to_owned(),
        packages: vec![Package {
            name: "p".to_owned(),
            version: "1".to_owned(),
        }],
        size_bytes: summary.size_bytes,
        entries: summary.entries,
        warm_bytes: recipe.warm_bytes,
    };
    store.place(&image, &staging).unwrap();
    let mut names = store.names().unwrap();
    names.insert(format!("{name}:latest"), image.digest);
    store.write_names(&names).unwrap();
    clear(&staging).unwrap();
    (store, image.digest)
}

#[test]
fn an_image_is_found_by_name_with_tag_or_digest_and_is_what_its_digest_says() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, digest) = store_with(dir.path(), "python", "x");
    for reference in ["python", "python:latest", &digest.to_string()] {
        let image = store.resolve(reference).unwrap();
        assert_eq!(
            (image.digest, image.name.as_str(), image.tag.as_str()),
            (digest, "python", "latest")
        );
    }
    assert_eq!(
        store.inspect("python", &BOUNDS).unwrap(),
        store.resolve("python").unwrap()
    );
    for unknown in ["node", "python:2", &Digest([9; 32]).to_string()] {
        assert!(
            matches!(store.resolve(unknown), Err(Error::Unknown { .. })),
            "{unknown}"
        );
    }
}

#[test]
fn a_tree_that_was_changed_is_told() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, digest) = store_with(dir.path(), "python", "x");
    fs::write(store.home(digest).join("rootfs/etc/content"), "y").unwrap();
    assert!(matches!(
        store.inspect("python", &BOUNDS),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn two_names_of_one_tree_share_it_and_the_last_one_takes_it_along() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, first) = store_with(dir.path(), "one", "same");
    let (_, second) = store_with(dir.path(), "two", "same");
    let (_, third) = store_with(dir.path(), "three", "other");
    assert_eq!(first, second);
    let names: Vec<String> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["one", "three", "two"]);

    let refused = store.remove(&first.to_string());
    assert!(
        matches!(refused, Err(Error::StillNamed { .. })),
        "{refused:?}"
    );
    let removed = store.remove("one").unwrap();
    assert_eq!(
        removed,
        Removed {
            names: vec!["one:latest".to_owned()],
            images: Vec::new()
        }
    );
    assert!(store.home(first).exists());
    let removed = store.remove("two").unwrap();
    assert_eq!(removed.images, [first]);
    assert!(!store.home(first).exists());
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(store.home(third).join("rootfs/etc/content").exists());
}

#[test]
fn an_unchanged_recipe_is_not_built_again_and_a_changed_one_is_noticed() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, digest) = store_with(dir.path(), "python", "x");
    let options = Build {
        mirror: None,
        force: false,
        bounds: BOUNDS,
    };
    // Neither root nor a mirror is asked for: nothing is built.
    let built = store
        .build("python", &options, &mut |_| panic!("builds"))
        .unwrap();
    assert_eq!(built, Built::Unchanged(store.resolve("python").unwrap()));

    let path = store.home(digest).join("image.json");
    let mut image = store.resolve("python").unwrap();
    image.recipe = "0".repeat(64);
    write_json(&path, &image).unwrap();
    let recipe = recipe::find("python").unwrap();
    assert_eq!(store.unchanged(&recipe).unwrap(), None);
}

#[test]
fn an_empty_store_lists_nothing_and_a_broken_index_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("nowhere"));
    assert_eq!(store.list().unwrap(), []);
    let error = store.resolve("python").unwrap_err().to_string();
    assert!(error.contains("farebox image build"), "{error}");
    fs::write(dir.path().join("names.json"), "{").unwrap();
    let store = Store::open(dir.path());
    assert!(matches!(store.list(), Err(Error::Malformed { .. })));
}

#[test]
fn what_a_killed_command_has_left_is_swept_unless_another_is_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    store.make_dirs().unwrap();
    let left = ["staging/rootfs/etc", "removed-00/rootfs"];
    for path in left {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let lock = store.lock(&mut |_| {}).unwrap();
    store.sweep();
    assert!(left.iter().all(|path| dir.path().join(path).exists()));
    drop(lock);
    store.sweep();
    assert!(left.iter().all(|path| !dir.path().join(path).exists()));
    assert!(!dir.path().join("staging").exists() && dir.path().join("sha256").exists());
}
