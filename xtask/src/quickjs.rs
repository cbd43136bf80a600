//! Builds the JavaScript engine QuickJS-ng for WASI, from its public C source, as a program that was
//! not written for agents: `agents/quickjs/main.c` evaluates a script, everything else is the engine's.
//!
//! Nothing of the engine is kept here. The crate `rquickjs-sys` carries its source (MIT), so that cargo
//! fetches it from wherever it fetches everything else; what is compiled is compared with a hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{capture, run as run_command};
use crate::toolchain::{self, C};
use crate::workspace::Workspace;

const CRATE: &str = "rquickjs-sys";
const VERSION: &str = "0.14.0";
/// BLAKE3 over the names and bytes of [`HEADERS`] and [`SOURCES`].
const HASH: &str = "f4a5854ecb80b050553d3bd6c97e85f656a943d18d04abd08288f79958a9628b";

const SOURCES: [&str; 4] = ["dtoa.c", "libregexp.c", "libunicode.c", "quickjs.c"];
const HEADERS: [&str; 14] = [
    "builtin-array-fromasync.h",
    "builtin-iterator-zip-keyed.h",
    "builtin-iterator-zip.h",
    "cutils.h",
    "dtoa.h",
    "libregexp-opcode.h",
    "libregexp.h",
    "libunicode-table.h",
    "libunicode.h",
    "list.h",
    "quickjs-atom.h",
    "quickjs-c-atomics.h",
    "quickjs-opcode.h",
    "quickjs.h",
];

/// Fetches and compiles it, and prints the path of the module.
///
/// # Errors
/// No C compiler for WASI, no source, other source than was looked at, or it does not compile.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    println!("{}", build(workspace)?.display());
    Ok(())
}

/// The same without printing. Compiles nothing again that is there.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let toolchain = toolchain::setup_c(workspace)?;
    let output = workspace.output().join("quickjs");
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let source = output.join("source");
    copy_source(workspace, &output, &source)?;
    let main = workspace.root().join("agents/quickjs/main.c");
    let module = output.join("qjs.wasm");
    let done = output.join("qjs.inputs");
    let inputs = inputs(&toolchain, &main)?;
    if module.exists() && fs::read_to_string(&done).is_ok_and(|old| old == inputs) {
        return Ok(module);
    }
    compile(&toolchain, &source, &main, &module)?;
    fs::write(&done, inputs)?;
    Ok(module)
}

/// What the module depends on, as text.
fn inputs(toolchain: &C, main: &Path) -> Result<String> {
    let main = fs::read(main).with_context(|| main.display().to_string())?;
    Ok(format!(
        "{HASH} {} {} {} {} {:?}",
        blake3::hash(&main),
        toolchain.version,
        toolchain.linker,
        toolchain.libc,
        [&COMPILING[..], &LINKING[..]].concat(),
    ))
}

/// Lets cargo fetch the crate, copies what is compiled, and checks it.
fn copy_source(workspace: &Workspace, output: &Path, source: &Path) -> Result<()> {
    if hash(source).is_ok_and(|found| found == HASH) {
        return Ok(());
    }
    let engine = fetch(workspace, &output.join("fetch"))?.join("quickjs");
    fs::create_dir_all(source).with_context(|| source.display().to_string())?;
    for name in HEADERS.iter().chain(&SOURCES) {
        let from = engine.join(name);
        fs::copy(&from, source.join(name)).with_context(|| from.display().to_string())?;
    }
    let found = hash(source)?;
    if found != HASH {
        bail!("{CRATE} {VERSION} carries other source than was looked at: {found}, not {HASH}");
    }
    Ok(())
}

fn hash(source: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for name in HEADERS.iter().chain(&SOURCES) {
        let path = source.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        hasher.update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The folder of the crate, which nothing of ours depends on: a package that does is made for that.
fn fetch(workspace: &Workspace, package: &Path) -> Result<PathBuf> {
    fs::create_dir_all(package.join("src")).with_context(|| package.display().to_string())?;
    let manifest = package.join("Cargo.toml");
    fs::write(
        &manifest,
        format!(
            "[package]\nname = \"fetch\"\nedition = \"2024\"\n\n\
             [dependencies]\n{CRATE} = \"={VERSION}\"\n\n[workspace]\n"
        ),
    )?;
    fs::write(package.join("src/lib.rs"), "")?;
    let mut cargo = workspace.cargo();
    cargo.args(["metadata", "--format-version", "1", "--manifest-path"]);
    let metadata = capture(cargo.arg(&manifest))
        .with_context(|| format!("cargo cannot fetch {CRATE} {VERSION}"))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let path = packages
        .filter(|package| package["name"] == CRATE)
        .find_map(|package| package["manifest_path"].as_str())
        .and_then(|manifest| Path::new(manifest).parent());
    let path = path.with_context(|| format!("cargo does not say where {CRATE} is"))?;
    Ok(path.to_owned())
}

/// Without assertions, as the engine's own releases.
const COMPILING: [&str; 6] = [
    "-std=c11",
    "-O2",
    "-DNDEBUG",
    "-D_GNU_SOURCE",
    "-D_WASI_EMULATED_PROCESS_CLOCKS",
    "-D_WASI_EMULATED_SIGNAL",
];

/// QuickJS has no limit of its own on recursion under WASI. The stack lies below everything else, so that one
/// that is too deep ends the program and does not overwrite its data.
const LINKING: [&str; 5] = [
    "-Wl,-z,stack-size=1048576",
    "-Wl,--stack-first",
    "-Wl,--strip-all",
    "-lwasi-emulated-process-clocks",
    "-lwasi-emulated-signal",
];

/// In two steps, for the reason that `agents` gives.
fn compile(toolchain: &C, source: &Path, main: &Path, module: &Path) -> Result<()> {
    let clang = || {
        let mut clang = Command::new(&toolchain.clang);
        clang.args(&toolchain.arguments);
        clang
    };
    let mut objects = Vec::new();
    for name in SOURCES {
        let object = source.join(name).with_extension("o");
        run_command(
            clang()
                .args(COMPILING)
                // Its warnings are its own business.
                .args(["-w", "-c"])
                .arg(source.join(name))
                .arg("-o")
                .arg(&object),
        )?;
        objects.push(object);
    }
    let object = source.join("main.o");
    run_command(
        clang()
            .args(COMPILING)
            .args(["-Wall", "-Wextra", "-Werror", "-c", "-isystem"])
            .arg(source)
            .arg(main)
            .arg("-o")
            .arg(&object),
    )?;
    objects.push(object);
    run_command(clang().args(&objects).args(LINKING).arg("-o").arg(module))
}
