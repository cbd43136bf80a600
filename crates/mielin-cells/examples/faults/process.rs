//! Nodes that are processes of their own, so that they can be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use mielin_cells::{Cells, CellsConfig, MoveProbe, MoveSide, ProbeAnswer};
use mielin_mesh::{Dialling, JoinRequest, MeshConfig, MeshService, join, load_credentials};
use mielin_mesh_core::{AgentId, NodeId, NodeRole};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{Failure, listening};

/// The first argument of this program when it is a node.
pub(crate) const NODE: &str = "node";

/// A node's process as its parent sees it.
pub(crate) struct Process {
    pub(crate) id: NodeId,
    pub(crate) directory: PathBuf,
    arguments: Vec<String>,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a node that joins the mesh at `address`.
    pub(crate) async fn start(
        directory: PathBuf,
        name: &str,
        role: NodeRole,
        dialable: bool,
        address: &str,
        token: &str,
    ) -> Result<Process, Failure> {
        let directory_text = directory.display().to_string();
        let arguments = [
            NODE,
            &directory_text,
            name,
            &role.to_string(),
            if dialable { "dialable" } else { "hidden" },
            address,
            token,
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        let (child, stdin, stdout, id) = launch(&arguments).await?;
        Ok(Process {
            id,
            directory,
            arguments,
            child,
            stdin,
            stdout,
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal by name, as a user would.
    pub(crate) async fn signal(&self, name: &str) -> Result<(), Failure> {
        let pid = self.pid().ok_or("the process has ended")?.to_string();
        Command::new("kill").args([name, &pid]).status().await?;
        Ok(())
    }

    /// Waits until it has been killed, and starts it again.
    pub(crate) async fn restart(&mut self) -> Result<(), Failure> {
        self.child.wait().await?;
        let (child, stdin, stdout, _) = launch(&self.arguments).await?;
        (self.child, self.stdin, self.stdout) = (child, stdin, stdout);
        Ok(())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Asks it something; one line for one line.
    pub(crate) async fn ask(&mut self, question: &str) -> Result<String, Failure> {
        self.stdin
            .write_all(format!("{question}\n").as_bytes())
            .await?;
        let answer = self.stdout.next_line().await?;
        Ok(answer.ok_or("the node has ended")?)
    }

    /// Its own word for the state of an agent, if it has it; others are not asked.
    pub(crate) async fn state_of(&mut self, agent: AgentId) -> Result<Option<String>, Failure> {
        let answer = self.ask(&format!("state {agent}")).await?;
        Ok((answer != "none").then_some(answer))
    }

    /// What a move that is over has left behind here: files of the agent, threads or descriptors that wait for pages.
    pub(crate) fn leftovers(&self, agent: AgentId) -> Vec<String> {
        let mut found = Vec::new();
        let files = self.directory.join("cells/agents").join(agent.to_string());
        if files.exists() {
            found.push(format!("{}", files.display()));
        }
        let Some(pid) = self.pid() else { return found };
        let proc = Path::new("/proc").join(pid.to_string());
        for thread in std::fs::read_dir(proc.join("task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            if name.trim() == "page faults" {
                found.push("a thread that waits for pages".to_owned());
            }
        }
        for descriptor in std::fs::read_dir(proc.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let to = std::fs::read_link(descriptor.path()).unwrap_or_default();
            if to.to_string_lossy().contains("userfaultfd") {
                found.push("a descriptor of userfaultfd".to_owned());
            }
        }
        found
    }
}

type Launched = (Child, ChildStdin, Lines<BufReader<ChildStdout>>, NodeId);

async fn launch(arguments: &[String]) -> Result<Launched, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take().ok_or("no standard input")?;
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let mut stdout = BufReader::new(stdout).lines();
    let id = stdout.next_line().await?.ok_or("the node did not start")?;
    Ok((child, stdin, stdout, id.parse().map_err(|_| "no node id")?))
}

/// The harm that the next move comes to, by this side and phase of it; used up when it is done.
type Harm = Arc<Mutex<Option<(MoveSide, String, ProbeAnswer)>>>;

/// Is a node until its parent goes away.
pub(crate) async fn be(arguments: &[String]) -> Result<(), Failure> {
    let [directory, name, role, dialable, address, token] = arguments else {
        return Err("a node has six arguments".into());
    };
    let directory = Path::new(directory);
    let own = directory.join("node");
    let address = address.parse()?;
    let credentials = if own.exists() {
        load_credentials(&own)?.ok_or("no credentials")?
    } else {
        let request = JoinRequest {
            address,
            token: Some(token.parse()?),
            name: name.clone(),
            role: role.parse().map_err(|_| "no role")?,
        };
        join(&own, request, |_| {}).await?
    };
    let config = MeshConfig {
        dialling: match dialable.as_str() {
            "dialable" => Dialling::Tried,
            _ => Dialling::Impossible,
        },
        ..listening()?
    };
    let mesh = MeshService::start(config.bootstrap(address), credentials).await?;
    let harm = Harm::default();
    let config = CellsConfig {
        data_dir: Some(directory.join("cells")),
        probe: Some(probe(&harm)),
        ..CellsConfig::default()
    };
    let cells = Cells::start(config, mesh.clone()).await?;
    say(&mesh.local().id.to_string());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["state", agent] => {
                let here = cells.residents();
                let found = here.iter().find(|here| here.agent.to_string() == agent);
                let state = found.map(|found| match &found.state {
                    state if state.is_final() => "ended".to_owned(),
                    state => format!("{state:?}"),
                });
                say(&state.unwrap_or_else(|| "none".to_owned()));
            }
            ["harm", side, answer, phase] => {
                let side = match side {
                    "source" => MoveSide::Source,
                    _ => MoveSide::Target,
                };
                // `Kill` stands for the whole process here.
                let answer = match answer {
                    "kill" => ProbeAnswer::Kill,
                    _ => ProbeAnswer::Drop,
                };
                *locked(&harm) = Some((side, phase.to_owned(), answer));
                say("done");
            }
            ["spare"] => {
                *locked(&harm) = None;
                say("done");
            }
            _ => return Err(format!("not understood: {line}").into()),
        }
    }
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn probe(harm: &Harm) -> MoveProbe {
    let harm = Arc::clone(harm);
    MoveProbe(Arc::new(move |side, _, phase| {
        let phase = phase.to_string();
        let due = locked(&harm).take_if(|(at, when, _)| *at == side && *when == phase);
        match due {
            Some((_, _, ProbeAnswer::Kill)) => die(),
            Some((_, _, answer)) => answer,
            None => ProbeAnswer::Continue,
        }
    }))
}

/// A signal that cannot be caught: nothing is flushed, closed or said.
fn die() -> ! {
    let id = std::process::id().to_string();
    let _ = std::process::Command::new("kill")
        .args(["-KILL", &id])
        .status();
    loop {
        std::thread::park();
    }
}

fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // The parent may have gone.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
