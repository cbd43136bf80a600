//! `cargo xtask deny`: licences, duplicate versions and sources of all
//! dependencies, from `cargo metadata` and the part of deny.toml that
//! cargo-deny reads too. It knows no list of vulnerabilities; `cargo deny check
//! advisories` does, where that tool is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::bench;
use crate::command::capture;
use crate::os;
use crate::spdx::Expression;
use crate::workspace::Workspace;

/// The parts of deny.toml that are checked here.
#[derive(Deserialize)]
struct Rules {
    licenses: LicenceRules,
    bans: BanRules,
}

#[derive(Deserialize)]
struct LicenceRules {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// Licences that one crate may have and others may not.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct BanRules {
    #[serde(default)]
    skip: Vec<Skip>,
}

/// A version that may stand beside another version of the same crate.
#[derive(Deserialize)]
struct Skip {
    /// `name@version`
    #[serde(rename = "crate")]
    package: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// The public registry, as `cargo metadata` names it whatever mirror is in use.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Workspaces for bare machines that have dependencies of their own.
const BARE: [&str; 3] = ["firmware", os::uefi::LOADER, "os/user"];

/// Checks the dependencies of the whole workspace, on every platform, and licences and sources of what programs for bare machines
/// consist of, and of what the tensor benchmark measures against: which versions of a crate those build with is nothing that ships.
///
/// # Errors
/// The metadata cannot be read, or a rule is broken; each breach is one line.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let path = workspace.root().join("deny.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rules: Rules = basic_toml::from_str(&text).with_context(|| path.display().to_string())?;
    let own = packages(&mut workspace.cargo())?;
    let rivals = packages(&mut bench::on_tensor(workspace).0).context(bench::TENSOR)?;
    let mut bare = Vec::new();
    for directory in BARE {
        let mut cargo = workspace.cargo();
        cargo.current_dir(workspace.root().join(directory));
        bare.extend(packages(&mut cargo).context(directory)?);
    }
    let mut breaches = check(&rules, &own);
    let others = bare.iter().chain(&rivals);
    breaches.extend(others.flat_map(|it| package_breaches(&rules, it)));
    if !breaches.is_empty() {
        bail!(
            "{} breaches of deny.toml\n{}",
            breaches.len(),
            breaches.join("\n")
        );
    }
    let (own, bare, rivals) = (own.len(), bare.len(), rivals.len());
    eprintln!(
        "deny: {own} packages keep deny.toml, {bare} of {}, and {rivals} of {}",
        BARE.join(", "),
        bench::TENSOR
    );
    Ok(())
}

/// The packages of the workspace in which this cargo works.
fn packages(cargo: &mut Command) -> Result<Vec<Package>> {
    let metadata = capture(cargo.args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    Ok(metadata.packages)
}

fn check(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let breaches = packages.iter().flat_map(|it| package_breaches(rules, it));
    let mut breaches: Vec<_> = breaches.collect();
    breaches.extend(duplicates(&rules.bans, packages));
    breaches
}

/// What is wrong with one package, whatever others there are.
fn package_breaches(rules: &Rules, package: &Package) -> Vec<String> {
    let Package {
        name,
        version,
        source,
        ..
    } = package;
    let foreign = source.as_deref().filter(|source| *source != REGISTRY);
    let foreign = foreign.map(|source| format!("{name} {version}: comes from {source}"));
    let licence = licence_breach(&rules.licenses, package);
    licence.into_iter().chain(foreign).collect()
}

fn licence_breach(rules: &LicenceRules, package: &Package) -> Option<String> {
    let Package {
        name,
        version,
        license,
        ..
    } = package;
    let Some(license) = license else {
        return Some(format!("{name} {version}: states no licence"));
    };
    let extra = rules
        .exceptions
        .iter()
        .filter(|exception| exception.name == *name);
    let allowed: BTreeSet<&str> = rules
        .allow
        .iter()
        .chain(extra.flat_map(|exception| &exception.allow))
        .map(String::as_str)
        .collect();
    match Expression::parse(license) {
        Err(error) => Some(format!("{name} {version}: licence `{license}`: {error}")),
        Ok(expression) if !expression.allowed(&|id| allowed.contains(id)) => Some(format!(
            "{name} {version}: licence `{license}` is not allowed"
        )),
        Ok(_) => None,
    }
}

/// Crates with more than one version beyond those that `skip` names, entries
/// of `skip` without a reason, and entries that no longer name anything.
fn duplicates(rules: &BanRules, packages: &[Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions
            .entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    let mut breaches = Vec::new();
    let mut skipped: BTreeSet<(&str, &str)> = BTreeSet::new();
    for skip in &rules.skip {
        let Some((name, version)) = skip.package.split_once('@') else {
            breaches.push(format!(
                "deny.toml: skip `{}` is not name@version",
                skip.package
            ));
            continue;
        };
        if skip.reason.trim().is_empty() {
            breaches.push(format!(
                "deny.toml: skip `{}` gives no reason",
                skip.package
            ));
        }
        let found = versions
            .get(name)
            .is_some_and(|found| found.len() > 1 && found.contains(version));
        if !found {
            breaches.push(format!(
                "deny.toml: skip `{}` is no duplicate any more",
                skip.package
            ));
        }
        skipped.insert((name, version));
    }
    for (name, found) in &versions {
        let left: Vec<_> = found
            .iter()
            .filter(|version| !skipped.contains(&(*name, **version)))
            .collect();
        if left.len() > 1 {
            breaches.push(format!(
                "{name}: versions {left:?}; unite them, or skip all but one with a reason"
            ));
        }
    }
    breaches
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Package, Rules, check};

    const RULES: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ crate = "odd", allow = ["MPL-2.0"] }]
        [bans]
        skip = [{ crate = "twice@1.0.0", reason = "an old dependency of x" }]
    "#;

    fn package(name: &str, version: &str, license: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            license: (!license.is_empty()).then(|| license.into()),
            source: None,
        }
    }

    fn breaches(packages: &[(&str, &str, &str)]) -> Vec<String> {
        let rules: Rules = basic_toml::from_str(RULES).unwrap();
        // The pair that the skip entry is about is always there.
        let pair = [("twice", "1.0.0", "MIT"), ("twice", "2.0.0", "MIT")];
        let all: Vec<_> = pair
            .iter()
            .chain(packages)
            .map(|(n, v, l)| package(n, v, l))
            .collect();
        check(&rules, &all)
    }

    #[test]
    fn good_packages_pass() {
        let good = [
            ("a", "1.0.0", "MIT OR GPL-3.0-only"),
            ("b", "1.0.0", "Apache-2.0 WITH LLVM-exception"),
        ];
        assert_eq!(breaches(&good), [""; 0]);
    }

    #[test]
    fn an_exception_holds_for_its_crate_only() {
        assert_eq!(breaches(&[("odd", "1.0.0", "MPL-2.0")]), [""; 0]);
        assert_eq!(
            breaches(&[("even", "1.0.0", "MPL-2.0")]),
            ["even 1.0.0: licence `MPL-2.0` is not allowed"]
        );
    }

    #[test]
    fn missing_and_unreadable_licences_are_breaches() {
        assert_eq!(breaches(&[("a", "1.0.0", "")]).len(), 1);
        assert_eq!(breaches(&[("a", "1.0.0", "MIT OR")]).len(), 1);
    }

    #[test]
    fn duplicates_need_an_entry_and_entries_a_duplicate() {
        assert_eq!(
            breaches(&[("a", "1.0.0", "MIT"), ("a", "2.0.0", "MIT")]).len(),
            1
        );
        assert_eq!(breaches(&[("twice", "3.0.0", "MIT")]).len(), 1);
        let rules: Rules = basic_toml::from_str(RULES).unwrap();
        let stale = check(&rules, &[package("twice", "1.0.0", "MIT")]);
        assert_eq!(
            stale,
            ["deny.toml: skip `twice@1.0.0` is no duplicate any more"]
        );
    }

    #[test]
    fn other_sources_are_breaches() {
        let rules: Rules = basic_toml::from_str("[licenses]\nallow = [\"MIT\"]\n[bans]\n").unwrap();
        let mut from_git = package("a", "1.0.0", "MIT");
        from_git.source = Some("git+https://example.org/a".into());
        assert_eq!(check(&rules, &[from_git]).len(), 1);
    }
}
