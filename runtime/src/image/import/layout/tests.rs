//! Layouts that lie, and the same ones when they do not.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::*;

const MACHINE: &str = "amd64";

/// A layout in the making.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new() -> Made {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(
            dir.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        Made { dir }
    }

    fn put(&self, content: &[u8]) -> Digest {
        let digest = Digest(Sha256::digest(content).into());
        fs::write(self.path(digest), content).unwrap();
        digest
    }

    fn path(&self, digest: Digest) -> std::path::PathBuf {
        self.dir.path().join("blobs/sha256").join(digest.hex())
    }

    fn describe(&self, kind: &str, content: &Value) -> Value {
        let text = serde_json::to_vec(content).unwrap();
        let digest = self.put(&text).to_string();
        json!({ "mediaType": kind, "digest": digest, "size": text.len() })
    }

    /// An image of one layer; answers its descriptor and the layer's digest.
    fn image(&self, architecture: &str, layer_type: &str) -> (Value, Digest) {
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": { "Env": ["PATH=/bin", "EMPTY="], "Labels": { "a": "b" } },
        });
        let config = self.describe("application/vnd.oci.image.config.v1+json", &config);
        let layer = self.put(b"a layer");
        let layers = [json!({ "mediaType": layer_type, "digest": layer.to_string(), "size": 7 })];
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        (self.describe(MANIFEST_TYPES[0], &manifest), layer)
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    fn plan(&self) -> Result<Plan, Error> {
        Layout::open(self.dir.path()).and_then(|layout| layout.plan(MACHINE))
    }

    /// What is wrong with it.
    fn fault(&self) -> String {
        match self.plan() {
            Err(error @ Error::Layout { .. }) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn good() -> (Made, Value, Digest) {
    let made = Made::new();
    let (image, layer) = made.image(MACHINE, TAR);
    made.index(std::slice::from_ref(&image));
    let plan = made.plan().unwrap();
    assert_eq!(
        plan.layers,
        [Blob {
            digest: layer,
            size: 7
        }]
    );
    assert_eq!(plan.env["PATH"], "/bin");
    assert_eq!(plan.env["EMPTY"], "");
    (made, image, layer)
}

#[test]
fn the_image_for_this_machine_is_found_also_below_another_index() {
    let (made, image, _) = good();
    let with = |architecture: &str, mut image: Value| {
        image["platform"] = json!({ "os": "linux", "architecture": architecture });
        image
    };
    let (other, _) = made.image("arm64", TAR);
    let both = [with("arm64", other.clone()), with(MACHINE, image.clone())];
    made.index(&both);
    let expected = made.plan().unwrap();
    let inner = json!({ "schemaVersion": 2, "manifests": both });
    made.index(&[made.describe(INDEX_TYPES[0], &inner)]);
    assert_eq!(made.plan().unwrap(), expected);

    made.index(&[with("arm64", other.clone())]);
    assert!(made.fault().contains("names no image for linux/amd64"));
    made.index(&[other]);
    assert!(made.fault().contains("is for linux/arm64, not linux/amd64"));
    let mut second = made
        .image(MACHINE, "application/vnd.docker.image.rootfs.diff.tar")
        .0;
    second["annotations"] = json!({ "org.opencontainers.image.ref.name": "2" });
    made.index(&[image.clone(), second]);
    assert!(made.fault().contains("names several images"));
    made.index(&[image.clone(), image]);
    assert_eq!(made.plan().unwrap().layers.len(), 1);
}

#[test]
fn blobs_are_what_their_digests_say() {
    let (made, image, layer) = good();
    let manifest: Digest = image["digest"].as_str().unwrap().parse().unwrap();
    let before = fs::read(made.path(manifest)).unwrap();
    let mut other = before.clone();
    let at = other.len() - 1;
    other[at] = b' ';
    fs::write(made.path(manifest), &other).unwrap();
    assert!(made.fault().contains("has another digest"));
    fs::write(made.path(manifest), &before[1..]).unwrap();
    assert!(made.fault().contains("bytes, not"));
    fs::write(made.path(manifest), &before).unwrap();
    assert!(made.plan().is_ok());

    let layout = Layout::open(made.dir.path()).unwrap();
    let blob = Blob {
        digest: layer,
        size: 7,
    };
    layout.open_blob(blob).unwrap();
    assert!(check_digest(blob, layer).is_ok());
    assert!(check_digest(blob, manifest).is_err());
    fs::remove_file(made.path(layer)).unwrap();
    assert!(
        layout
            .open_blob(blob)
            .unwrap_err()
            .to_string()
            .contains("is missing")
    );
}

#[test]
fn a_layout_is_not_followed_out_of_itself() {
    let (made, _, layer) = good();
    let blob = Blob {
        digest: layer,
        size: 7,
    };
    let outside = made.dir.path().with_extension("outside");
    fs::write(&outside, "a layer").unwrap();
    fs::remove_file(made.path(layer)).unwrap();
    symlink(&outside, made.path(layer)).unwrap();
    let layout = Layout::open(made.dir.path()).unwrap();
    let found = layout.open_blob(blob).unwrap_err().to_string();
    fs::remove_file(&outside).unwrap();
    assert!(found.contains("is a link"), "{found}");
    fs::remove_file(made.path(layer)).unwrap();
    nix::unistd::mkfifo(&made.path(layer), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let found = layout.open_blob(blob).unwrap_err().to_string();
    assert!(found.contains("is no file"), "{found}");
    for digest in ["sha256:../../../etc/passwd", "sha512:00", "../x", ""] {
        made.index(&[json!({ "mediaType": MANIFEST_TYPES[0], "digest": digest, "size": 1 })]);
        let found = made.fault();
        assert!(found.contains("not sha256:HEX"), "{found}");
    }
}

#[test]
fn documents_are_bounded_and_errors_printable() {
    let (made, image, _) = good();
    let index = made.dir.path().join("index.json");
    fs::write(&index, "[".repeat(100_000)).unwrap();
    assert!(made.fault().contains("is malformed"));
    fs::write(&index, " ".repeat(5 << 20)).unwrap();
    assert!(made.fault().contains("is longer than"));
    fs::write(&index, "{\"manifests\": \"\\u001b[2J\"}").unwrap();
    let found = made.fault();
    assert!(!found.contains(char::is_control), "{found:?}");

    let endless: Value = (0..5).fold(image.clone(), |inner, _| {
        made.describe(INDEX_TYPES[0], &json!({ "manifests": [inner] }))
    });
    made.index(&[endless]);
    assert!(made.fault().contains("leads from index to index"));
    let (odd, _) = made.image(MACHINE, "application/x-\u{1b}");
    made.index(&[odd]);
    let found = made.fault();
    assert!(
        found.contains("has a layer of the type application/x-\\x1b"),
        "{found}"
    );
    for env in [vec!["=x"], vec!["NONE"], vec!["A=\0"], vec!["A=1"; 200]] {
        let lines = env.into_iter().map(str::to_owned).collect();
        assert!(environment("x", lines).is_err());
    }
    made.index(&[image]);
    assert!(made.plan().is_ok());
}
