//! A node of this host, with which a guest exchanges agents: `mielin` itself, on the loopback interface.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::command::{capture, run};
use crate::emulator::Running;
use crate::workspace::Workspace;

/// How long an agent may take to come to the middle of its work.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node that runs.
pub(super) struct Host {
    program: PathBuf,
    samples: PathBuf,
    input: PathBuf,
    directory: PathBuf,
    _node: Running,
}

impl Host {
    /// Builds `mielin`, as its tests do.
    ///
    /// # Errors
    /// It does not build.
    pub(super) fn build(workspace: &Workspace) -> Result<()> {
        // With the features of the workspace's tests, for which it was built already if these ran: of its package alone
        // it would be another build of everything.
        let build = ["test", "--quiet", "--no-run", "--locked", "--workspace"];
        let tests = ["--test", "architectures"];
        run(workspace.cargo().args(build).args(tests))
    }

    /// Starts a node of its own, with what was built, for the machine of this name.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(workspace: &Workspace, machine: &str) -> Result<Self> {
        let directory = workspace.output().join("os/host").join(machine);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let program = workspace.target().join("debug/mielin");
        let mut command = Command::new(&program);
        command
            .args(["mesh", "start", "--bind", "127.0.0.1:0", "--mdns", "off"])
            .args(["-o", "json", "--data-dir"])
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut node = Running::start(&mut command)?;
        let stdout = node.0.stdout.take().context("its standard output")?;
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        ensure!(!ready.is_empty(), "the node did not start");
        Ok(Self {
            program,
            samples: workspace.root().join("agents/prebuilt"),
            input: workspace.root().join("os/system/digest.txt"),
            directory,
            _node: node,
        })
    }

    /// Runs a command against the node, and gives what it prints.
    fn mielin<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(self.directory.join("data"));
        capture(command.args(arguments))
    }

    fn spawn_digest(&self, name: &str, options: &[&str], rounds: &str) -> Result<()> {
        let module = self.samples.join("digest.wasm");
        let first = ["agent", "spawn"].map(OsStr::new);
        let middle = ["--name", name, "--stdin"].map(OsStr::new);
        let last = ["--", rounds];
        let last = options.iter().chain(&last).map(OsStr::new);
        let line = first
            .into_iter()
            .chain([module.as_os_str()])
            .chain(middle)
            .chain([self.input.as_os_str()])
            .chain(last);
        self.mielin(line).map(|_| ())
    }

    /// What an agent has printed when it has ended.
    fn end_of(&self, name: &str) -> Result<String> {
        let code = self.mielin(["agent", "wait", name])?;
        ensure!(code.trim() == "0", "{name} has ended with {code}");
        self.mielin(["agent", "logs", name])
    }

    /// What the sample `digest` prints when it stays here.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn digest(&self, rounds: &str) -> Result<String> {
        self.spawn_digest("stays", &[], rounds)?;
        self.end_of("stays")
    }

    /// The sample `digest` as a checkpoint, taken when it has said something.
    ///
    /// # Errors
    /// It fails, or was too quick.
    pub(super) fn digest_in_the_middle(&self, rounds: &str, said: &str) -> Result<Vec<u8>> {
        // Slowly, so that it has not ended before it is asked.
        self.spawn_digest("comes", &["--budget", "cpu=1%"], rounds)?;
        let deadline = Instant::now() + PATIENCE;
        while !self
            .mielin(["agent", "logs", "--stderr", "comes"])?
            .contains(said)
        {
            ensure!(Instant::now() < deadline, "the agent has not said {said:?}");
        }
        let file = self.directory.join("comes.checkpoint");
        let line = ["agent", "checkpoint", "comes", "-o"].map(OsStr::new);
        self.mielin(line.into_iter().chain([file.as_os_str()]))?;
        let end = self.mielin(["agent", "logs", "comes"])?;
        ensure!(end.is_empty(), "the agent was not in the middle: {end}");
        self.mielin(["agent", "terminate", "comes"])?;
        Ok(fs::read(file)?)
    }

    /// What an agent prints that goes on here from a checkpoint.
    ///
    /// # Errors
    /// It does not go on, or fails.
    pub(super) fn resume(&self, name: &str, checkpoint: &[u8]) -> Result<String> {
        let file = self.directory.join(format!("{name}.checkpoint"));
        fs::write(&file, checkpoint)?;
        let line = ["agent", "restore", "--name", name].map(OsStr::new);
        self.mielin(line.into_iter().chain([file.as_os_str()]))?;
        self.end_of(name)
    }
}
