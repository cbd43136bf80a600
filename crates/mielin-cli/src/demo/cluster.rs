//! The demo's three nodes: processes of this same executable, with directories of their own.
//!
//! The nodes end when their standard input does, so they do not outlive the demo, however it ends.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::api::{TokenIssued, TokenRequest};
use crate::client::Client;
use crate::failure::{Class, Failure};
use crate::output::short;

/// How long a node may take to come up, and to stop.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Lines of each node's log that explain a failure.
const LOG_LINES: usize = 3;

pub(super) struct Cluster {
    dir: TempDir,
    nodes: Vec<DemoNode>,
}

struct DemoNode {
    name: &'static str,
    child: Child,
    /// The node stops when this is closed.
    stdin: Option<ChildStdin>,
    /// Kept so that the node never writes into a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

/// What a node prints when it is up.
#[derive(Deserialize)]
struct Ready {
    node: String,
    address: String,
}

impl Cluster {
    /// Starts nothing yet.
    pub(super) fn new() -> Result<Cluster, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("mielin-demo-")
            .tempdir()
            .map_err(|error| Failure::io("cannot make a temporary directory", &error))?;
        Ok(Cluster {
            dir,
            nodes: Vec::new(),
        })
    }

    /// Founds a mesh on `core`, and lets `relay` and `edge` join with a token each.
    pub(super) async fn start(&mut self, mut tell: impl FnMut(String)) -> Result<(), Failure> {
        let core = self.start_node("core", &["mesh", "start"], None).await?;
        tell(line("core", &core));
        for name in ["relay", "edge"] {
            let request = TokenRequest {
                uses: 1,
                role: Some(name.to_owned()),
                ttl_s: 60,
            };
            let token: TokenIssued = self
                .client("core")
                .post("/v1/mesh/tokens", &request)
                .await?;
            let ready = self
                .start_node(name, &["mesh", "join", &core.address], Some(&token.token))
                .await?;
            tell(line(name, &ready));
        }
        Ok(())
    }

    pub(super) fn client(&self, name: &str) -> Client {
        Client::new(&self.data_dir(name))
    }

    /// Says of a failure which node has ended, and what the nodes last logged, if that may be why.
    pub(super) fn explain(&mut self, failure: Failure) -> Failure {
        let ended = self.nodes.iter_mut().find_map(|node| {
            let status = node.child.try_wait().ok().flatten()?;
            Some(format!("the node {} has ended: {status}", node.name))
        });
        if ended.is_none() && failure.class != Class::Internal {
            return failure;
        }
        let message = ended.map_or_else(
            || failure.message.clone(),
            |ended| format!("{ended} ({failure})"),
        );
        let logged: String = self
            .nodes
            .iter()
            .map(|node| self.last_logged(node))
            .collect();
        match logged.as_str() {
            "" => Failure::internal(message).hint(failure.hint),
            lines => Failure::internal(message).hint(format!("the nodes last logged{lines}")),
        }
    }

    /// The last lines of a node's log, each indented under the hint.
    fn last_logged(&self, node: &DemoNode) -> String {
        let log = fs::read_to_string(self.log_file(node.name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        last.iter()
            .map(|line| format!("\n    {}: {line}", node.name))
            .collect()
    }

    /// Stops the nodes, the last one first, and kills those that do not.
    pub(super) async fn stop(mut self) {
        while let Some(mut node) = self.nodes.pop() {
            drop(node.stdin.take());
            if tokio::time::timeout(STOP_LIMIT, node.child.wait())
                .await
                .is_err()
            {
                // It may just have ended.
                let _ = node.child.kill().await;
            }
        }
    }

    async fn start_node(
        &mut self,
        name: &'static str,
        command: &[&str],
        token: Option<&str>,
    ) -> Result<Ready, Failure> {
        let failed = |error| Failure::io(format!("cannot start the node {name}"), &error);
        let executable = std::env::current_exe().map_err(failed)?;
        let log = File::create(self.log_file(name)).map_err(failed)?;
        let mut process = Command::new(executable);
        process
            .args(command)
            .args([
                "--bind",
                "127.0.0.1:0",
                "--name",
                name,
                "--role",
                name,
                "--preset",
                "lan",
            ])
            .args(["--stop-on-stdin-end", "-o", "json", "--data-dir"])
            .arg(self.data_dir(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for the demo, which then stops its nodes in order.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(token) = token {
            // Not as an argument: those are for everybody to see.
            process.env("MIELIN_TOKEN", token);
        }
        let mut child = process.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::internal("the node has no standard output"))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = tokio::time::timeout(START_LIMIT, stdout.read_line(&mut line)).await;
        self.nodes.push(DemoNode {
            name,
            child,
            stdin,
            _stdout: stdout,
        });
        match read {
            Ok(Ok(count)) if count > 0 => serde_json::from_str(&line).map_err(|error| {
                Failure::internal(format!(
                    "the node {name} did not say that it is up: {error}"
                ))
            }),
            Ok(Ok(_)) => Err(Failure::internal(format!(
                "the node {name} ended before it was up"
            ))),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(Failure::internal(format!(
                "the node {name} was not up within {START_LIMIT:?}"
            ))),
        }
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }
}

fn line(name: &str, ready: &Ready) -> String {
    format!("{name:<6} {}  node {}", ready.address, short(&ready.node))
}
