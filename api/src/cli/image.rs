//! `farebox image`: builds and looks after the image store; works beside a running server.

use api::Config;
use runtime::image::{Build, Built, Error, Image, Store};
use serde_json::{Value, json};

use super::arguments::{ImageArgs, ImageCommand};
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;
use super::place::configuration;

/// Builds, lists, inspects or removes.
pub(crate) fn image(command: &ImageCommand, output: &mut Output) -> Result<(), Fault> {
    match command {
        ImageCommand::Build(args) => build(args, output),
        ImageCommand::List(place) => {
            let store = store(&configuration(place, Vec::new())?);
            let images = store
                .list()
                .map_err(|error| fault("cannot list images", &error))?;
            list(&images, output)
        }
        ImageCommand::Inspect(args) => {
            let store = store(&configuration(&args.place, Vec::new())?);
            let image = store.inspect(&args.name);
            let what = format!("cannot inspect image {}", args.name);
            inspect(&image.map_err(|error| fault(&what, &error))?, output)
        }
        ImageCommand::Remove(args) => {
            let store = store(&configuration(&args.place, Vec::new())?);
            let what = format!("cannot remove image {}", args.name);
            let removed = store
                .remove(&args.name)
                .map_err(|error| fault(&what, &error))?;
            let digests: Vec<String> = removed.images.iter().map(ToString::to_string).collect();
            if output.json {
                return output.value(&json!({ "names": removed.names, "digests": digests }));
            }
            output.line(&format!(
                "removed {}",
                [removed.names, digests].concat().join(", ")
            ))
        }
    }
}

fn build(args: &ImageArgs, output: &mut Output) -> Result<(), Fault> {
    let store = store(&configuration(&args.place, Vec::new())?);
    let built = store.build(&args.name, &Build::default(), &mut |at| {
        output.progress(&format!(
            "{} ({} of {}): {}",
            args.name, at.step, at.steps, at.text
        ));
    });
    output.end_progress();
    let what = format!("cannot build image {}", args.name);
    let built = built.map_err(|error| fault(&what, &error))?;
    let image = built.image();
    if output.json {
        return output.value(&value(image));
    }
    let verb = if matches!(built, Built::Unchanged(_)) {
        "unchanged"
    } else {
        "built"
    };
    output.line(&format!(
        "{verb} {}:{} {}",
        image.name, image.tag, image.digest
    ))
}

fn store(config: &Config) -> Store {
    Store::open(&config.images_dir())
}

/// The store's errors say themselves what to do; only where they do not, a cure is added.
fn fault(what: &str, error: &Error) -> Fault {
    let fault = Fault::new(Exit::Failed, what).caused_by(error);
    match error {
        Error::Io { .. } => fault.cure("check the store's directory: images.dir, or DIR/images"),
        _ => fault,
    }
}

fn list(images: &[Image], output: &mut Output) -> Result<(), Fault> {
    if output.json {
        return output.value(&images.iter().map(value).collect());
    }
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            vec![
                format!("{}:{}", image.name, image.tag),
                image.digest.to_string(),
                image.languages.join(","),
                mib(image.size_bytes),
                image.packages.len().to_string(),
            ]
        })
        .collect();
    output.table(&["image", "digest", "languages", "MiB", "packages"], &rows)
}

fn inspect(image: &Image, output: &mut Output) -> Result<(), Fault> {
    if output.json {
        return output.value(&value(image));
    }
    let lines = [
        ("image", format!("{}:{}", image.name, image.tag)),
        ("digest", image.digest.to_string()),
        ("languages", image.languages.join(", ")),
        ("user", format!("{}:{}", image.uid, image.gid)),
        ("from", format!("{} {}", image.suite, image.architecture)),
        (
            "size",
            format!("{} MiB in {} entries", mib(image.size_bytes), image.entries),
        ),
        ("recipe", image.recipe.clone()),
    ];
    for (name, text) in lines {
        output.line(&format!("{name:<10} {text}"))?;
    }
    for (name, value) in &image.env {
        output.line(&format!("{:<10} {name}={value}", "env"))?;
    }
    let rows: Vec<Vec<String>> = image
        .packages
        .iter()
        .map(|package| vec![package.name.clone(), package.version.clone()])
        .collect();
    output.table(&["package", "version"], &rows)
}

fn value(image: &Image) -> Value {
    json!({
        "name": image.name, "tag": image.tag, "digest": image.digest.to_string(),
        "recipe": image.recipe, "languages": image.languages, "env": image.env,
        "uid": image.uid, "gid": image.gid, "created_s": image.created_s,
        "suite": image.suite, "architecture": image.architecture,
        "size_bytes": image.size_bytes, "entries": image.entries, "warm_bytes": image.warm_bytes,
        "packages": image.packages.iter().map(|package| {
            json!({ "name": package.name, "version": package.version })
        }).collect::<Vec<Value>>(),
    })
}

fn mib(bytes: u64) -> String {
    bytes.div_euclid(1 << 20).to_string()
}
