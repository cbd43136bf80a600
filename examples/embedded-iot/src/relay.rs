//! A relay, by the command `mielin`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long a command may be tried again while an agent is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

/// A relay that runs, and ends with this value.
pub(crate) struct Relay {
    program: PathBuf,
    data: PathBuf,
    daemon: Child,
    /// Its end is the daemon's, too.
    stdin: Option<ChildStdin>,
}

/// How a leaf is.
#[derive(Deserialize)]
pub(crate) struct Leaf {
    name: String,
    state: String,
    ready: Option<bool>,
    pub(crate) battery_percent: Option<u8>,
    #[serde(default, deserialize_with = "or_false")]
    pub(crate) charging: bool,
    pub(crate) agents: Vec<String>,
    pub(crate) handovers: Vec<Handover>,
}

/// One move.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Handover {
    pub(crate) direction: String,
    pub(crate) bytes: u64,
    pub(crate) us: u64,
}

fn or_false<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or_default())
}

/// Builds the command, as optimised as this program, and says where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked"])
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .args([
            "-p",
            "mielin-cli",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(built.status.success(), "the relay could not be built");
    let text = String::from_utf8_lossy(&built.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs =
        messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next_back().context("cargo names no program")
}

impl Relay {
    /// Founds a mesh with a relay that waits for a leaf on the Unix socket at `line`.
    pub(crate) fn start(program: &Path, scratch: &Path, line: &Path) -> Result<Relay> {
        let data = scratch.join("relay");
        let mut daemon = Command::new(program)
            .arg("--data-dir")
            .arg(&data)
            .args(["mesh", "start", "--bind", "127.0.0.1:0", "--name", "relay"])
            .args(["--role", "relay", "--mdns", "off", "--stop-on-stdin-end"])
            .args([
                "--leaf-serial",
                &format!("unix:{}", line.display()),
                "-o",
                "json",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the relay")?;
        let stdin = daemon.stdin.take();
        let stdout = daemon.stdout.take().context("the relay's output")?;
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        ensure!(!ready.is_empty(), "the relay did not start");
        Ok(Relay {
            program: program.to_owned(),
            data,
            daemon,
            stdin,
        })
    }

    /// Admits a leaf; its provisioning page comes to `page`.
    pub(crate) fn admit(&self, name: &str, page: &Path) -> Result<()> {
        let page = page.to_str().context("a path that is no text")?;
        self.run(&["mesh", "leaf", "add", name, "--page", page])?;
        Ok(())
    }

    /// How a leaf is.
    pub(crate) fn leaf(&self, name: &str) -> Result<Leaf> {
        let list = self.run(&["mesh", "leaf", "list"])?;
        let leaves: Vec<Leaf> = serde_json::from_value(list["leaves"].clone())?;
        let leaf = leaves.into_iter().find(|leaf| leaf.name == name);
        leaf.with_context(|| format!("no leaf {name}"))
    }

    /// Waits until a leaf is there and takes agents.
    pub(crate) fn until_ready(&self, name: &str, deadline: Instant) -> Result<()> {
        loop {
            let leaf = self.leaf(name)?;
            if leaf.ready == Some(true) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the board does not take agents: it is {}",
                leaf.state
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts the sample agent `sensor`.
    pub(crate) fn spawn(&self, name: &str) -> Result<()> {
        let module = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../agents/prebuilt/sensor.wasm"
        );
        let allow = ["--allow", "sensor:0", "--allow", "actuator:0"];
        let spawn = ["agent", "spawn", module, "--name", name];
        self.run(&[&spawn[..], &allow[..]].concat())?;
        Ok(())
    }

    /// Moves an agent.
    pub(crate) fn migrate(&self, agent: &str, node: &str) -> Result<()> {
        self.run(&["agent", "migrate", agent, node])?;
        Ok(())
    }

    /// Sends an agent a message, wherever it is, and gives its answer.
    pub(crate) fn ask(&self, agent: &str) -> Result<Vec<u8>> {
        let deadline = Instant::now() + ON_ITS_WAY;
        loop {
            match self.run(&["agent", "send", agent, "?", "--wait", "--timeout", "10s"]) {
                Ok(answer) => {
                    if let Some(text) = answer["reply"].as_str() {
                        return Ok(text.as_bytes().to_vec());
                    }
                    let base64 = answer["reply_base64"].as_str().context("no reply")?;
                    let decoded = BASE64.decode(base64.as_bytes());
                    return decoded.map_err(|error| anyhow!("no base 64: {error}"));
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<Value> {
        let ran = Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.data)
            .args(arguments)
            .args(["-o", "json"])
            .output()
            .context("cannot start mielin")?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            bail!("`mielin {}` failed: {}", arguments.join(" "), said.trim());
        }
        Ok(serde_json::from_slice(&ran.stdout)?)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stdin.take();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.daemon.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // It did not stop by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
