//! `farebox image`: builds and looks after the image store; works beside a running server.

use std::io;

use api::Config;
use runtime::image::{Bounds, Build, Built, Error, Image, Import, Progress, Source, Store};
use serde_json::{Value, json};

use super::arguments::{ImageArgs, ImageCommand, ImportArgs, Language};
use super::exit::Exit;
use super::fault::Fault;
use super::output::Output;
use super::place::configuration;

/// Builds, imports, lists, inspects or removes.
pub(crate) fn image(command: &ImageCommand, output: &mut Output) -> Result<(), Fault> {
    match command {
        ImageCommand::Build(args) => build(args, output),
        ImageCommand::Import(args) => import(args, output),
        ImageCommand::List(place) => {
            let store = store(&configuration(place, Vec::new())?);
            let images = store
                .list()
                .map_err(|error| fault("cannot list images", &error))?;
            list(&images, output)
        }
        ImageCommand::Inspect(args) => {
            let config = configuration(&args.place, Vec::new())?;
            let image = store(&config).inspect(&args.name, &bounds(&config));
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
    let config = configuration(&args.place, Vec::new())?;
    let options = Build {
        mirror: None,
        force: false,
        bounds: bounds(&config),
    };
    let built = store(&config).build(&args.name, &options, &mut |at| {
        show(&args.name, at, output);
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

fn import(args: &ImportArgs, output: &mut Output) -> Result<(), Fault> {
    let config = configuration(&args.place, Vec::new())?;
    let import = Import {
        name: args.name.clone(),
        languages: languages(&args.language),
        source: match args.source.as_os_str() == "-" {
            true => Source::StandardInput,
            false => Source::Path(args.source.clone()),
        },
        bounds: bounds(&config),
    };
    let imported = store(&config).import(&import, &mut |at| show(&args.name, at, output));
    output.end_progress();
    let what = format!("cannot import image {:?} from {:?}", args.name, args.source);
    let imported = imported.map_err(|error| match &error {
        Error::Io { path, source, .. }
            if *path == args.source && source.kind() == io::ErrorKind::NotFound =>
        {
            Fault::new(Exit::Usage, &what)
                .caused_by(&error)
                .cure("name an archive or the directory of a layout, or - for standard input")
        }
        _ => fault(&what, &error),
    })?;
    let image = &imported.image;
    let (set_ids, attributes) = (imported.set_ids_dropped, imported.attributes_dropped);
    if output.json {
        let mut value = value(image);
        value["set_ids_dropped"] = json!(set_ids);
        value["attributes_dropped"] = json!(attributes);
        return output.value(&value);
    }
    output.line(&format!(
        "imported {}:{} {}",
        image.name, image.tag, image.digest
    ))?;
    if set_ids + attributes > 0 {
        output.line(&format!(
            "left out {set_ids} set-id bits and {attributes} extended attributes"
        ))?;
    }
    Ok(())
}

/// The languages as they are given, each once.
fn languages(given: &[Language]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for one in given {
        if !all.iter().any(|known| known == one.name()) {
            all.push(one.name().to_owned());
        }
    }
    all
}

fn show(name: &str, at: Progress<'_>, output: &mut Output) {
    output.progress(&format!(
        "{name} ({} of {}): {}",
        at.step, at.steps, at.text
    ));
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        tree_bytes: config.images.tree_max_bytes,
        file_bytes: config.images.file_max_bytes,
        entries: config.images.entries_max,
    }
}

/// The store, without what an earlier command that was killed has left in it.
fn store(config: &Config) -> Store {
    let store = Store::open(&config.images_dir());
    store.sweep();
    store
}

/// Most of the store's errors say themselves what to do; where they do not, a cure is added.
fn fault(what: &str, error: &Error) -> Fault {
    let exit = match error {
        Error::Unsafe { .. } | Error::Layout { .. } => Exit::Refused,
        Error::Reference { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    let fault = Fault::new(exit, what).caused_by(error);
    match error {
        Error::Unsafe { flaw, .. } => fault.cure(flaw.cure()),
        Error::Layout { .. } => fault.cure(
            "make the layout again with one image for this machine: skopeo copy SOURCE oci:DIR",
        ),
        Error::Io { .. } => {
            fault.cure("check the file, and the store's directory: images.dir, or DIR/images")
        }
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
        ("from", from(image)),
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
        // An imported image's own words.
        let (name, value) = (name.escape_debug(), value.escape_debug());
        output.line(&format!("{:<10} {name}={value}", "env"))?;
    }
    let rows: Vec<Vec<String>> = image
        .packages
        .iter()
        .map(|package| vec![package.name.clone(), package.version.clone()])
        .collect();
    output.table(&["package", "version"], &rows)
}

fn from(image: &Image) -> String {
    if image.origin.is_empty() {
        format!("{} {}", image.suite, image.architecture)
    } else {
        image.origin.clone()
    }
}

fn value(image: &Image) -> Value {
    json!({
        "name": image.name, "tag": image.tag, "digest": image.digest.to_string(),
        "recipe": image.recipe, "origin": image.origin,
        "languages": image.languages, "env": image.env,
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
