//! Dependencies point down only, and every crate keeps the workspace's lints.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::rules::{Floor, Rules};
use super::{File, Finding, RULES_FILE};

/// The parts of a Cargo.toml that the rules are about.
#[derive(Deserialize)]
struct Manifest {
    package: Option<Package>,
    workspace: Option<Section>,
    #[serde(default)]
    dependencies: Table,
    #[serde(default, rename = "build-dependencies")]
    build_dependencies: Table,
    #[serde(default)]
    target: BTreeMap<String, TargetSection>,
    #[serde(default)]
    lints: Table,
}

type Table = BTreeMap<String, Value>;

#[derive(Deserialize)]
struct Package {
    name: String,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    lints: Table,
}

#[derive(Deserialize)]
struct TargetSection {
    #[serde(default)]
    dependencies: Table,
}

impl Manifest {
    /// Names of all dependencies but those of tests.
    fn dependencies(&self) -> impl Iterator<Item = &String> {
        self.dependencies
            .keys()
            .chain(self.build_dependencies.keys())
            .chain(
                self.target
                    .values()
                    .flat_map(|target| target.dependencies.keys()),
            )
    }
}

/// Checks every Cargo.toml of the main workspace.
pub(super) fn check(rules: &Rules, files: &[File], findings: &mut Vec<Finding>) {
    let listed: BTreeMap<&str, &Floor> = rules
        .crates
        .iter()
        .map(|entry| (entry.path.as_str(), entry))
        .collect();
    let floors: BTreeMap<&str, u32> = rules
        .crates
        .iter()
        .map(|entry| (entry.name.as_str(), entry.floor))
        .collect();
    let mut workspace_lints = Table::new();
    let mut met = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml"))
    {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        // Workspaces of their own, above all floors.
        let is_apart = ["agents/", "bench/", "firmware/", "fuzz/", "os/"]
            .iter()
            .any(|apart| file.path.starts_with(apart));
        if is_apart && !listed.contains_key(folder) {
            continue;
        }
        let manifest: Manifest = match basic_toml::from_str(&file.text) {
            Ok(manifest) => manifest,
            Err(error) => {
                findings.push(Finding::new(
                    &file.path,
                    0,
                    format!("cannot be read: {error}"),
                ));
                continue;
            }
        };
        if let Some(workspace) = manifest.workspace {
            // The root comes first in the order of paths, before every crate.
            workspace_lints = workspace.lints;
            continue;
        }
        let Some(entry) = listed.get(folder) else {
            findings.push(Finding::new(
                &file.path,
                0,
                format!("{RULES_FILE} gives this crate no floor"),
            ));
            continue;
        };
        met.push(folder.to_owned());
        crate_findings(entry, &manifest, &floors, &workspace_lints, |message| {
            findings.push(Finding::new(&file.path, 0, message));
        });
    }
    for entry in rules
        .crates
        .iter()
        .filter(|entry| !met.contains(&entry.path))
    {
        findings.push(Finding::new(
            RULES_FILE,
            0,
            format!("there is no crate in {}", entry.path),
        ));
    }
}

fn crate_findings(
    entry: &Floor,
    manifest: &Manifest,
    floors: &BTreeMap<&str, u32>,
    workspace_lints: &Table,
    mut found: impl FnMut(String),
) {
    if manifest
        .package
        .as_ref()
        .is_none_or(|package| package.name != entry.name)
    {
        found(format!(
            "is not the crate `{}` that {RULES_FILE} expects here",
            entry.name
        ));
    }
    for dependency in manifest.dependencies() {
        if entry.never.contains(dependency) {
            found(format!(
                "must not depend on `{dependency}`: it does not belong on floor {}",
                entry.floor
            ));
        }
        let Some(floor) = floors.get(dependency.as_str()) else {
            continue;
        };
        if *floor > entry.floor {
            found(format!(
                "depends upwards, on `{dependency}` of floor {floor} from floor {}",
                entry.floor
            ));
        } else if !entry.uses.contains(dependency) {
            found(format!(
                "depends on `{dependency}`, which {RULES_FILE} does not foresee"
            ));
        }
    }
    let inherits = manifest.lints.get("workspace") == Some(&Value::Bool(true));
    match (&entry.own_lints, inherits) {
        (None, true) => {}
        (None, false) => found("has no `[lints] workspace = true`".to_owned()),
        (Some(_), true) => found(format!(
            "takes the workspace's lints; strike `own_lints` in {RULES_FILE}"
        )),
        (Some(_), false) => {
            if without_unsafe(&manifest.lints) != without_unsafe(workspace_lints) {
                found(
                    "its lints differ from the workspace's in more than `unsafe_code`".to_owned(),
                );
            }
        }
    }
}

/// A lint table less the one lint that a crate may set for itself.
fn without_unsafe(lints: &Table) -> Table {
    let mut lints = lints.clone();
    if let Some(Value::Object(rust)) = lints.get_mut("rust") {
        rust.remove("unsafe_code");
        rust.remove("unsafe_op_in_unsafe_fn");
    }
    if let Some(Value::Object(clippy)) = lints.get_mut("clippy") {
        // Stricter than the workspace: welcome where there is unsafe code.
        clippy.remove("undocumented_unsafe_blocks");
        clippy.remove("multiple_unsafe_ops_per_block");
    }
    lints
}
