//! Real daemons, each a process of the built executable, and the commands that talk to them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
pub mod link;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a loaded machine; nothing waits so long where nothing is wrong.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../agents/prebuilt")
        .join(name);
    path.canonicalize()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .display()
        .to_string()
}

/// The executable without the caller's settings.
pub fn mielin() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_mielin")))
}

/// The same, run by another program.
pub fn mielin_by(program: &str, args: &[&str]) -> Command {
    executable_by(program, args, env!("CARGO_BIN_EXE_mielin"))
}

/// Another build of the executable, run by another program.
pub fn executable_by(program: &str, args: &[&str], executable: &str) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg(executable);
    without_settings(command)
}

fn without_settings(mut command: Command) -> Command {
    command
        .env_remove("MIELIN_DATA_DIR")
        .env_remove("MIELIN_TOKEN")
        .env_remove("RUST_LOG");
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(args: &[&str]) -> Ran {
    Ran::of(args, mielin().args(args).output().unwrap())
}

/// Runs a command with this data directory.
pub fn run_in(dir: &Path, args: &[&str]) -> Ran {
    run_in_with(dir, args, Stdio::null())
}

/// Runs a command with this data directory and this standard input.
pub fn run_in_with(dir: &Path, args: &[&str], stdin: impl Into<Stdio>) -> Ran {
    let mut command = mielin();
    command.arg("--data-dir").arg(dir).args(args).stdin(stdin);
    Ran::of(args, command.output().unwrap())
}

pub struct Ran {
    line: String,
    output: Output,
}

impl Ran {
    fn of(args: &[&str], output: Output) -> Ran {
        Ran {
            line: args.join(" "),
            output,
        }
    }

    #[track_caller]
    pub fn ok(self) -> Vec<u8> {
        assert!(
            self.output.status.success(),
            "{}: {:?}",
            self.line,
            self.output
        );
        self.output.stdout
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let line = self.line.clone();
        let stdout = self.ok();
        assert_eq!(
            stdout.iter().filter(|&&byte| byte == b'\n').count(),
            1,
            "{line}: one line"
        );
        serde_json::from_slice(&stdout)
            .unwrap_or_else(|error| panic!("{line}: {error}: {stdout:?}"))
    }

    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }
}

/// The names of an object's fields, in alphabetical order.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

/// Asks again until the answer is there.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within {DEADLINE:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A daemon in the foreground of a process of its own.
pub struct Node {
    pub dir: PathBuf,
    pub ready: Value,
    child: Child,
    _stdout: BufReader<ChildStdout>,
    _temporary: Option<TempDir>,
}

impl Node {
    /// Founds a mesh.
    pub fn found(name: &str) -> Node {
        Node::found_with(name, &[])
    }

    /// The same with further arguments.
    pub fn found_with(name: &str, further: &[&str]) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let line = ["mesh", "start", "--bind", "127.0.0.1:0", "--name", name];
        let mut node = Node::run(&path, &[&line, further].concat());
        node._temporary = Some(dir);
        node
    }

    /// Joins with a token.
    pub fn join(&self, name: &str, role: &str) -> Node {
        self.join_with(name, role, &[])
    }

    /// The same with further arguments.
    pub fn join_with(&self, name: &str, role: &str, further: &[&str]) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let token = self.token();
        let named = ["--name", name, "--role", role];
        let line = [&self.joining(&token)[..], &named, further].concat();
        let mut node = Node::run(&path, &line);
        node._temporary = Some(dir);
        node
    }

    /// The command that joins this node's mesh with a token.
    pub fn joining<'a>(&'a self, token: &'a str) -> [&'a str; 7] {
        let address = self.address();
        [
            "mesh",
            "join",
            address,
            "--token",
            token,
            "--bind",
            "127.0.0.1:0",
        ]
    }

    /// Runs a command that runs a node, until the node is up.
    #[track_caller]
    pub fn run(dir: &Path, args: &[&str]) -> Node {
        Node::run_by(mielin(), dir, args)
    }

    /// The same with an executable that is not run directly. The node is found by nothing but what a test tells of
    /// it, unless the test says otherwise.
    #[track_caller]
    pub fn run_by(mut mielin: Command, dir: &Path, args: &[&str]) -> Node {
        let said = args.contains(&"--mdns");
        let mut child = mielin
            .args(args)
            .args(if said { &[][..] } else { &["--mdns", "off"] })
            .args(["-o", "json", "--data-dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut stderr = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut stderr)
                .unwrap();
            panic!("{args:?} ended: {stderr}");
        }
        // The node must not wait for somebody to read its log.
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
        let ready = serde_json::from_str(&line).unwrap();
        Node {
            dir: dir.to_path_buf(),
            ready,
            child,
            _stdout: stdout,
            _temporary: None,
        }
    }

    /// Keeps the directory above its own for as long as the node runs.
    #[must_use]
    pub fn owning(mut self, directory: TempDir) -> Node {
        self._temporary = Some(directory);
        self
    }

    /// Takes over the directory of the same node's process of before.
    #[must_use]
    pub fn keeping(mut self, mut before: Node) -> Node {
        self._temporary = before._temporary.take();
        self
    }

    pub fn address(&self) -> &str {
        self.ready["address"].as_str().unwrap()
    }

    pub fn id(&self) -> &str {
        self.ready["node"].as_str().unwrap()
    }

    pub fn token(&self) -> String {
        self.json(&["mesh", "token"])["token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Runs a command against this node.
    pub fn mielin(&self, args: &[&str]) -> Ran {
        run_in(&self.dir, args)
    }

    /// Runs a command with `-o json` and reads its answer.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        // Before a `--`, which ends the options.
        let at = args
            .iter()
            .position(|&arg| arg == "--")
            .unwrap_or(args.len());
        let line: Vec<&str> = args[..at]
            .iter()
            .chain(&["-o", "json"])
            .chain(&args[at..])
            .copied()
            .collect();
        self.mielin(&line).json()
    }

    #[track_caller]
    pub fn spawn(&self, args: &[&str]) -> String {
        let line: Vec<&str> = ["agent", "spawn"].iter().chain(args).copied().collect();
        self.json(&line)["agent"].as_str().unwrap().to_owned()
    }

    /// What an agent answers to a message from this node, if it does.
    pub fn reply(&self, agent: &str, text: &str) -> Option<String> {
        let ran = self.mielin(&["agent", "send", agent, text, "--wait"]);
        Some(ran.stdout()).filter(|reply| !reply.is_empty())
    }

    /// What this node believes about a member.
    #[track_caller]
    pub fn state_of(&self, node: &str) -> Option<String> {
        let status = self.json(&["mesh", "status"]);
        let members = status["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["node"] == node)?;
        Some(member["state"].as_str().unwrap().to_owned())
    }

    /// Waits until this node sees so many members alive.
    #[track_caller]
    pub fn sees(&self, count: usize) {
        until("membership", || {
            let status = self.json(&["mesh", "status"]);
            let members = status["members"].as_array().unwrap();
            (members
                .iter()
                .filter(|member| member["state"] == "alive")
                .count()
                == count)
                .then_some(())
        });
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Waits until the process has ended.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        until("the end of the daemon", || self.child.try_wait().unwrap())
    }

    /// Stops the node and keeps its directory.
    pub fn stop(mut self) -> Option<TempDir> {
        self.signal("-TERM");
        assert!(self.ended().success());
        self._temporary.take()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
