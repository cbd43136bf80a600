//! Builds the sample agents from source, and compares them with the modules
//! that `agents/prebuilt` keeps for those who have no WebAssembly compiler.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::command::run as run_command;
use crate::toolchain::{self, Rust, TARGET, Target, Toolchain, clean_environment};
use crate::wasm_interface::Interface;
use crate::workspace::Workspace;

/// What `agents` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Compare with agents/prebuilt: bytes where the compilers are those recorded there, else imports and exports
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Replace agents/prebuilt by what was built, and record the compilers
    #[arg(long)]
    update: bool,
}

/// The compilers of `agents/prebuilt`, in the order in which they are compared.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Compilers of the agents written in Rust.
    rust: BTreeMap<String, String>,
    /// Compilers of the agents written in C.
    c: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    C,
}

const AGENTS: [(&str, Language); 5] = [
    ("counter", Language::Rust),
    ("digest", Language::Rust),
    ("hello", Language::C),
    ("notebook", Language::Rust),
    ("sensor", Language::Rust),
];

const RECORD_FILE: &str = "TOOLCHAIN.toml";
const RECORD_HEADER: &str = "# The compilers that built the modules in this folder. Written by\n\
     # `cargo xtask agents --update`; `cargo xtask agents --check` builds them again\n\
     # and compares bytes where these compilers are found, else imports and exports.\n\n";

/// Builds every agent; with `--check` compares, with `--update` replaces.
///
/// # Errors
/// No compiler, an agent does not compile, or a comparison failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = toolchain::setup(workspace)?;
    let built = build(workspace, &toolchain)?;
    let prebuilt = workspace.root().join("agents/prebuilt");
    if options.update {
        update(&toolchain, &built, &prebuilt)
    } else if options.check {
        check(&toolchain, &built, &prebuilt)
    } else {
        for path in built.values() {
            println!("{}", path.display());
        }
        Ok(())
    }
}

/// Builds and compares: `run` with `--check`.
pub(crate) fn build_and_check(workspace: &Workspace) -> Result<()> {
    run(
        workspace,
        &Options {
            check: true,
            update: false,
        },
    )
}

/// Builds every agent and gives the path of each module.
fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<BTreeMap<&'static str, PathBuf>> {
    let output = workspace.output().join("agents");
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let cargo_output = workspace.output().join("agents-cargo");
    build_rust(workspace, &toolchain.rust, &cargo_output, &[], &[])?;
    let mut built = BTreeMap::new();
    for (name, language) in AGENTS {
        let module = output.join(name).with_extension("wasm");
        match language {
            Language::Rust => {
                let made = built_rust(&cargo_output, name);
                fs::copy(&made, &module).with_context(|| made.display().to_string())?;
            }
            Language::C => build_c(workspace, toolchain, name, &module)?,
        }
        built.insert(name, module);
    }
    Ok(built)
}

/// Builds an agent in Rust that is not kept prebuilt, such as `coremark`, and gives the path of its module.
pub(crate) fn build_one(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let toolchain = toolchain::setup(workspace)?;
    let cargo_output = workspace.output().join("agents-cargo");
    build_rust(workspace, &toolchain.rust, &cargo_output, &[], &[])?;
    Ok(built_rust(&cargo_output, name))
}

/// Builds the agent of that program alone, with vectors of 128 bits, and gives the path of its module.
pub(crate) fn build_vectors(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let rust = toolchain::setup_rust(workspace, Target::Wasm)?;
    let cargo_output = workspace.output().join("agents-simd128");
    let vectors = ["-Ctarget-feature=+simd128"];
    build_rust(workspace, &rust, &cargo_output, &vectors, &["--bin", name])?;
    Ok(built_rust(&cargo_output, name))
}

/// Where cargo puts the module of an agent.
fn built_rust(cargo_output: &Path, name: &str) -> PathBuf {
    let release = cargo_output.join(TARGET).join("release");
    release.join(name).with_extension("wasm")
}

/// Builds the workspace `agents/`. Paths of this machine are remapped, or they
/// would stand in panic messages and differ between two checkouts.
fn build_rust(
    workspace: &Workspace,
    rust: &Rust,
    output: &Path,
    flags: &[&str],
    choice: &[&str],
) -> Result<()> {
    let mut all_flags = vec![
        format!("--remap-path-prefix={}=/mielin", workspace.root().display()),
        format!(
            "--remap-path-prefix={}=/rust",
            rust.library_source.display()
        ),
    ];
    all_flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let mut cargo = Command::new(&rust.cargo);
    clean_environment(&mut cargo)
        .current_dir(workspace.root().join("agents"))
        .env("RUSTC", &rust.rustc)
        .env("CARGO_TARGET_DIR", output)
        .env("CARGO_ENCODED_RUSTFLAGS", all_flags.join("\u{1f}"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            TARGET,
        ])
        .args(choice);
    run_command(&mut cargo)
}

/// Compiles and links in two steps: clang's link step would run whatever
/// `wasm-opt` is on PATH if it were told to optimise, and other bytes would come
/// out where there is one than where there is none.
fn build_c(workspace: &Workspace, toolchain: &Toolchain, name: &str, module: &Path) -> Result<()> {
    let clang = || {
        let mut clang = Command::new(&toolchain.c.clang);
        clang
            .current_dir(workspace.root())
            .args(&toolchain.c.arguments);
        clang
    };
    let object = module.with_extension("o");
    run_command(
        clang()
            .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-c"])
            .args(["-I", "crates/mielin-agent/include"])
            .arg(format!("agents/{name}/{name}.c"))
            .arg("-o")
            .arg(&object),
    )?;
    run_command(
        clang()
            .arg("-Wl,--strip-all")
            .arg(&object)
            .arg("-o")
            .arg(module),
    )
}

/// The compilers as they are recorded.
fn record(toolchain: &Toolchain) -> Record {
    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Record {
        rust: BTreeMap::from([
            entry("rustc", &toolchain.rust.version),
            entry("library", &toolchain.rust.library),
        ]),
        c: BTreeMap::from([
            entry("clang", &toolchain.c.version),
            entry("linker", &toolchain.c.linker),
            entry("wasi-libc", &toolchain.c.libc),
        ]),
    }
}

fn update(toolchain: &Toolchain, built: &BTreeMap<&str, PathBuf>, prebuilt: &Path) -> Result<()> {
    fs::create_dir_all(prebuilt)?;
    for (name, path) in built {
        let size = fs::copy(path, prebuilt.join(name).with_extension("wasm"))?;
        eprintln!("{name}: {size} bytes");
    }
    let text = basic_toml::to_string(&record(toolchain))?;
    fs::write(prebuilt.join(RECORD_FILE), format!("{RECORD_HEADER}{text}"))?;
    Ok(())
}

fn check(toolchain: &Toolchain, built: &BTreeMap<&str, PathBuf>, prebuilt: &Path) -> Result<()> {
    let path = prebuilt.join(RECORD_FILE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let recorded: Record =
        basic_toml::from_str(&text).with_context(|| path.display().to_string())?;
    let found = record(toolchain);

    let mut failures = Vec::new();
    for (name, language) in AGENTS {
        let differences = match language {
            Language::Rust => compiler_differences(&recorded.rust, &found.rust),
            Language::C => compiler_differences(&recorded.c, &found.c),
        };
        let kept_path = prebuilt.join(name).with_extension("wasm");
        let kept = fs::read(&kept_path).with_context(|| kept_path.display().to_string())?;
        let made = fs::read(&built[name])?;
        match compare(&kept, &made, &differences) {
            Ok(verdict) => eprintln!("agents/{name}: {verdict}"),
            Err(error) => failures.push(format!("agents/{name}: {error:#}")),
        }
    }
    if !failures.is_empty() {
        bail!(
            "agents/prebuilt is not what the source gives; if the source changed, run \
             `cargo xtask agents --update`\n{}",
            failures.join("\n")
        );
    }
    Ok(())
}

/// One line for every compiler that is not the recorded one.
fn compiler_differences(
    recorded: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> Vec<String> {
    let absent = String::from("none");
    recorded
        .keys()
        .chain(found.keys().filter(|key| !recorded.contains_key(*key)))
        .filter_map(|key| {
            let (old, new) = (
                recorded.get(key).unwrap_or(&absent),
                found.get(key).unwrap_or(&absent),
            );
            (old != new).then(|| format!("{key}: recorded `{old}`, here `{new}`"))
        })
        .collect()
}

/// Says how far a kept module was verified against a built one.
fn compare(kept: &[u8], made: &[u8], compiler_differences: &[String]) -> Result<String> {
    if kept == made {
        return Ok(format!("equal, {} bytes", kept.len()));
    }
    if compiler_differences.is_empty() {
        let at = kept
            .iter()
            .zip(made)
            .position(|(a, b)| a != b)
            .unwrap_or(kept.len().min(made.len()));
        bail!(
            "the same compilers gave other bytes ({} kept, {} built, first difference at {at:#x})",
            kept.len(),
            made.len()
        );
    }
    let (kept, made) = (
        Interface::of(kept).context("kept")?,
        Interface::of(made).context("built")?,
    );
    for (what, kept, made) in [
        ("imports", &kept.imports, &made.imports),
        ("exports", &kept.exports, &made.exports),
    ] {
        if kept != made {
            let lost: Vec<_> = kept.difference(made).collect();
            let gained: Vec<_> = made.difference(kept).collect();
            bail!("other {what}: only kept {lost:?}, only built {gained:?}");
        }
    }
    Ok(format!(
        "bytes not comparable, since the compilers differ; imports and exports are equal\n    {}",
        compiler_differences.join("\n    ")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{compare, compiler_differences};
    use std::collections::BTreeMap;

    fn module(export: u8) -> Vec<u8> {
        [
            b"\0asm\x01\0\0\0\x07\x05\x01\x01".as_slice(),
            &[export],
            b"\0\0",
        ]
        .concat()
    }

    /// The same interface with one more custom section.
    fn other_bytes(export: u8) -> Vec<u8> {
        [module(export).as_slice(), b"\0\x02\x01n"].concat()
    }

    #[test]
    fn equal_bytes_need_no_equal_compilers() {
        assert!(
            compare(&module(b'a'), &module(b'a'), &["rustc".into()])
                .unwrap()
                .starts_with("equal")
        );
    }

    #[test]
    fn equal_compilers_must_give_equal_bytes() {
        assert!(compare(&module(b'a'), &other_bytes(b'a'), &[]).is_err());
    }

    #[test]
    fn other_compilers_must_give_an_equal_interface() {
        let differ = ["rustc: recorded `1`, here `2`".to_owned()];
        let verdict = compare(&module(b'a'), &other_bytes(b'a'), &differ).unwrap();
        assert!(verdict.contains("recorded `1`, here `2`"), "{verdict}");
        assert!(compare(&module(b'a'), &other_bytes(b'b'), &differ).is_err());
    }

    #[test]
    fn differences_name_both_sides() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let differences = compiler_differences(
            &map(&[("a", "1"), ("b", "2")]),
            &map(&[("a", "1"), ("c", "3")]),
        );
        assert_eq!(
            differences,
            [
                "b: recorded `2`, here `none`",
                "c: recorded `none`, here `3`"
            ]
        );
    }
}
