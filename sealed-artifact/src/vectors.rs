//! The vectors of the specification's section 12: made here, read here by two implementations, committed under `tests/vectors/artifact`.

mod format;
mod generate;
mod kinds;
mod run;
mod second;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use format::Vector;
use run::Engine;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/artifact")
}

fn committed() -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory()).expect("tests/vectors/artifact is there");
    let files = entries.map(|entry| entry.unwrap().path());
    let texts = files.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    texts.collect()
}

/// `cargo test -p sealed-artifact --profile ci -- --ignored write_vectors` writes the files anew.
#[test]
#[ignore = "writes tests/vectors/artifact"]
fn write_vectors() {
    fs::create_dir_all(directory()).unwrap();
    for entry in fs::read_dir(directory()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, text) in generate::files() {
        fs::write(directory().join(name), text).unwrap();
    }
}

#[test]
fn committed_vectors_are_current() {
    let (generated, committed) = (generate::files(), committed());
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&generated), names(&committed), "run the ignored test write_vectors");
    for (name, text) in &generated {
        assert!(committed.get(name) == Some(text), "{name} is stale: run the ignored test write_vectors");
    }
    let total: usize = committed.values().map(String::len).sum();
    assert!(total < 3_000_000, "{total} bytes of vectors");
}

fn run_all(engine: Engine) {
    let files = committed();
    let mut failures = Vec::new();
    let mut count = 0;
    for (name, text) in
        files.iter().filter(|(name, _)| !name.starts_with("fixture-") && name.ends_with(".txt"))
    {
        let vector = Vector::parse(text, &files).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        for (variant, case) in vector.expand().enumerate() {
            count += 1;
            if let Err(problem) = run::run(&case, engine) {
                failures.push(format!("{name} (variant {variant}): {problem}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(count > 100, "only {count} vectors");
}

#[test]
fn every_vector_has_its_outcome_with_aws_lc() {
    run_all(Engine::AwsLc);
}

#[test]
fn every_vector_has_its_outcome_with_aes_gcm() {
    run_all(Engine::Second);
}
