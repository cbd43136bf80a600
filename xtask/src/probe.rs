//! `cargo xtask probe`: runs the firmware in `os/probe` under QEMU, on several boards and processors, and compares what
//! it prints with what these processors have.
//!
//! A firmware that hangs is ended after [`PATIENCE`]. That its clock keeps the rate that it says is seen from outside:
//! by this process's own clock between two lines.

mod cases;
mod transcript;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::cases::{CASES, Case};
use self::transcript::Transcript;
use crate::command::{display, run as run_command};
use crate::toolchain;
use crate::workspace::Workspace;
use crate::{firmware, os};

/// How long a machine may run: most take a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// The line by which the firmware asks for a byte, and the byte.
const ASKS: &str = "console: send m";
const ANSWER: &[u8] = b"m";

/// What `probe` is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the boards of this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Show what the firmware prints
    #[arg(long)]
    verbose: bool,
}

/// What the firmware can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Arch {
    Aarch64,
    CortexM,
    Riscv64,
    #[value(name = "x86_64")]
    X86_64,
}

/// Runs the firmware on the boards that were asked for.
///
/// # Errors
/// A compiler or QEMU is missing and cannot be installed here, the firmware does not build, or one of its runs did not
/// go as its case says.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let wanted = |case: &&Case| options.arch.is_none_or(|arch| arch == case.arch);
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    let emulators: BTreeSet<&str> = cases.iter().map(|case| case.emulator).collect();
    toolchain::setup_emulators(&emulators)?;
    let targets: BTreeSet<&str> = cases.iter().map(|case| case.target).collect();
    for target in targets {
        build(workspace, target)?;
    }
    for case in &cases {
        let firmware = firmware(workspace, case.target);
        let transcript =
            emulate(case, &firmware).with_context(|| format!("the firmware on {}", case.name))?;
        if options.verbose {
            println!("{}", transcript.text());
        }
        if let Err(wrong) = transcript.check(case) {
            bail!("{}: {wrong}\n{}", case.name, transcript.text());
        }
        eprintln!("probe: {}: {}", case.name, transcript.features());
    }
    eprintln!("probe: {} machines are what they should be", cases.len());
    Ok(())
}

/// All of them, for `cargo xtask test`.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let all = Options {
        arch: None,
        verbose: false,
    };
    run(workspace, &all)
}

/// Where it is built: where other programs for the target are, with the same library.
fn output(workspace: &Workspace, target: &str) -> PathBuf {
    let folder = if is_board(target) {
        firmware::IMAGES
    } else {
        os::PROGRAMS
    };
    workspace.output().join(folder)
}

/// What `os/user` says of its release profile, and what the firmware says otherwise.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_DEBUG", "none"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];

/// Whether the target is that of a board of `firmware`.
fn is_board(target: &str) -> bool {
    target.starts_with("thumb")
}

fn firmware(workspace: &Workspace, target: &str) -> PathBuf {
    output(workspace, target)
        .join(target)
        .join("release")
        .join("mielin-probe")
}

/// Builds the firmware for a target; a warning fails it.
fn build(workspace: &Workspace, target: &str) -> Result<()> {
    let mut cargo = toolchain::bare_cargo(workspace, target)?;
    cargo
        .current_dir(workspace.root().join("os/probe"))
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", output(workspace, target))
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--target", target]);
    if is_board(target) {
        cargo.env("RUSTFLAGS", firmware::flags(workspace)?);
    } else {
        cargo.env("RUSTFLAGS", "-Dwarnings").envs(PROFILE);
    }
    run_command(&mut cargo)
}

/// Starts the machine and talks to its console until it ends.
fn emulate(case: &Case, firmware: &Path) -> Result<Transcript> {
    let mut command = Command::new(case.emulator);
    command
        .args(case.arguments)
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(firmware)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let line = display(&command);
    let mut child = Machine(
        command
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?,
    );
    converse(&mut child.0).with_context(|| format!("`{line}`"))
}

/// A running emulator, which does not outlive its use.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has ended already in most cases, and then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn converse(child: &mut Child) -> Result<Transcript> {
    let deadline = Instant::now() + PATIENCE;
    let mut stdin = child.stdin.take().context("its standard input")?;
    let stdout = child.stdout.take().context("its standard output")?;
    let stderr = child.stderr.take().context("its standard error")?;
    let complaints = thread::spawn(move || read_all(stderr));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send((Instant::now(), line)).is_err() {
                break;
            }
        }
    });

    let mut transcript = Transcript::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok((at, line)) => {
                if line == ASKS {
                    stdin.write_all(ANSWER).and_then(|()| stdin.flush())?;
                }
                transcript.add(at, line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                bail!("it did not end in {PATIENCE:?}\n{}", transcript.text());
            }
        }
    }
    let status = child.wait()?;
    transcript.end(status.code(), complaints.join().unwrap_or_default());
    Ok(transcript)
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What could be read until an error is all that can be shown.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
