//! One run: an agent, a move, a fault, and what must be so afterwards.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mielin_cells::{Cells, CellsConfig, LogKind, MoveOptions, SpawnRequest};
use mielin_mesh::{MeshService, create_mesh};
use mielin_mesh_core::{AgentId, MemberState, MigrationStrategy, NodeId, NodeRole};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::plan::{Harm, Plan, Victim, When};
use crate::process::Process;
use crate::{Failure, listening, programs};

/// The agent's table of 512 KiB, written at random without a pause, behind 4 MiB that are not.
const WORDS: u32 = 1 << 16;
const FILL: u32 = 4;
/// How long everything may take to come to rest after a fault, and any one answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// Counts over runs.
#[derive(Default)]
pub(crate) struct Outcome {
    runs: u64,
    lost: u64,
    doubled: u64,
    reordered: u64,
    wrong_copies: u64,
    leaks: u64,
    died_with_holder: u64,
    moved: u64,
    stayed: u64,
    broken_runs: u64,
}

impl Outcome {
    /// Whether something happened that may not.
    pub(crate) fn is_bad(&self) -> bool {
        self.lost
            + self.doubled
            + self.reordered
            + self.wrong_copies
            + self.leaks
            + self.broken_runs
            > 0
    }

    pub(crate) fn add(&mut self, other: &Outcome) {
        self.runs += other.runs;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.wrong_copies += other.wrong_copies;
        self.leaks += other.leaks;
        self.died_with_holder += other.died_with_holder;
        self.moved += other.moved;
        self.stayed += other.stayed;
        self.broken_runs += other.broken_runs;
    }

    pub(crate) fn json(&self) -> String {
        format!(
            r#"{{"runs":{},"lost":{},"doubled":{},"reordered":{},"wrong_copies":{},"leaks":{},"died_with_holder":{},"moved":{},"stayed":{},"broken_runs":{}}}"#,
            self.runs,
            self.lost,
            self.doubled,
            self.reordered,
            self.wrong_copies,
            self.leaks,
            self.died_with_holder,
            self.moved,
            self.stayed,
            self.broken_runs
        )
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "{} runs: {} moved, {} stayed, {} died with the only node that had all of them\n\
             lost {}, doubled {}, reordered {}, wrong copies {}, leaks {}, runs that could not be judged {}",
            self.runs,
            self.moved,
            self.stayed,
            self.died_with_holder,
            self.lost,
            self.doubled,
            self.reordered,
            self.wrong_copies,
            self.leaks,
            self.broken_runs
        )
    }
}

/// The nodes of all runs: one here, which nothing happens to, a pair that can dial each other, and a pair behind a relay.
pub(crate) struct Stage {
    cells: Cells,
    mesh: MeshService,
    _directory: TempDir,
    /// Source and target, and source and target behind the relay.
    pairs: [[Process; 2]; 2],
    relay: Process,
}

impl Stage {
    pub(crate) async fn set() -> Result<Stage, Failure> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let credentials = create_mesh(&path.join("witness/node"), "witness", NodeRole::Core)?;
        let mesh = MeshService::start(listening()?, credentials).await?;
        let address = mesh.local().address.to_string();
        let authority = mesh.authority().ok_or("no authority")?;
        let start = async |name: &str, role, dialable| {
            let token = authority
                .issue_token(None, Duration::from_secs(60))?
                .to_string();
            let own = path.join(name);
            Process::start(own, name, role, dialable, &address, &token).await
        };
        let relay = start("relay", NodeRole::Relay, true).await?;
        let near = [
            start("near-source", NodeRole::Core, true).await?,
            start("near-target", NodeRole::Core, true).await?,
        ];
        let far = [
            start("far-source", NodeRole::Edge, false).await?,
            start("far-target", NodeRole::Edge, false).await?,
        ];
        let config = CellsConfig {
            data_dir: Some(path.join("witness/cells")),
            ..CellsConfig::default()
        };
        let cells = Cells::start(config, mesh.clone()).await?;
        let stage = Stage {
            cells,
            mesh,
            _directory: directory,
            pairs: [near, far],
            relay,
        };
        stage.all_alive().await?;
        Ok(stage)
    }

    pub(crate) async fn close(self) {
        self.cells.shutdown().await;
        self.mesh.shutdown().await;
    }

    /// Waits until the witness sees every other node alive.
    async fn all_alive(&self) -> Result<(), Failure> {
        let pairs = self.pairs.iter().flatten();
        let ids: Vec<NodeId> = pairs
            .chain([&self.relay])
            .map(|process| process.id)
            .collect();
        let mut events = self.mesh.subscribe();
        within("all nodes are members", async {
            loop {
                let members = self.mesh.members();
                let alive = |id: &NodeId| {
                    let found = members.iter().find(|member| member.identity.id == *id);
                    found.is_some_and(|member| member.state == MemberState::Alive)
                };
                if ids.iter().all(alive) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
            }
        })
        .await
    }

    /// Makes a run and judges it; also in words.
    pub(crate) async fn run(&mut self, index: usize, plan: &Plan) -> (Outcome, String) {
        let mut outcome = Outcome {
            runs: 1,
            ..Outcome::default()
        };
        let story = match self.try_run(index, plan, &mut outcome).await {
            Ok(story) => story,
            Err(error) => {
                outcome.broken_runs = 1;
                format!("cannot be judged: {error}")
            }
        };
        (outcome, story)
    }

    async fn try_run(
        &mut self,
        index: usize,
        plan: &Plan,
        outcome: &mut Outcome,
    ) -> Result<String, Failure> {
        let far = usize::from(plan.victim == Victim::Relay);
        let (source, target) = (self.pairs[far][0].id, self.pairs[far][1].id);
        let agent = self.agent(index, source).await?;
        let sender = Sender::start(self.cells.clone(), agent);
        let moved = self.move_and_harm(plan, far, agent, target).await?;
        self.restart(far).await?;
        let place = self.rest(far, agent).await;
        let sent = sender.stop().await?;
        let said = format!(
            "the move {}",
            if moved { "was made" } else { "was not made" }
        );
        let place = match place {
            Ok(place) => place,
            Err(error) => {
                outcome.wrong_copies = 1;
                return Ok(format!("{said}, and then: {error}"));
            }
        };
        let story = match place {
            Some(side) => {
                match side {
                    0 => outcome.stayed = 1,
                    _ => outcome.moved = 1,
                }
                let heard = self.end(agent, sent, outcome).await?;
                format!(
                    "{said}; it lives at the {}; {heard}",
                    ["source", "target"][side]
                )
            }
            None if plan.may_lose(moved) => {
                outcome.died_with_holder = 1;
                format!("{said}; it died with the only node that had all of it")
            }
            None => {
                outcome.lost = 1;
                format!("{said}; it is lost")
            }
        };
        self.forget(far, agent).await;
        let mut leaks = Vec::new();
        for process in &self.pairs[far] {
            leaks.extend(process.leftovers(agent));
        }
        if leaks.is_empty() {
            return Ok(story);
        }
        outcome.leaks = 1;
        Ok(format!("{story}; left behind: {}", leaks.join(", ")))
    }

    /// An agent that has begun to compute at the source.
    async fn agent(&self, index: usize, source: NodeId) -> Result<AgentId, Failure> {
        let mut request = SpawnRequest::new(programs::ledger(WORDS, FILL));
        request.name = Some(format!("agent-{index}"));
        let agent = self.cells.spawn(request).await?;
        let options = MoveOptions {
            strategy: Some(MigrationStrategy::StopCopy),
            ..MoveOptions::default()
        };
        self.cells.migrate(agent, source, options, None).await?;
        let before = self.cells.inspect(agent).await?.stdout_bytes;
        let news = self
            .cells
            .read_log(agent, LogKind::Stdout, before, PATIENCE);
        match news.await?.bytes.is_empty() {
            true => Err("the agent does not compute".into()),
            false => Ok(agent),
        }
    }

    /// Moves the agent while the plan's harm is done; whether the move was made, as far as whoever asked was told.
    async fn move_and_harm(
        &mut self,
        plan: &Plan,
        far: usize,
        agent: AgentId,
        target: NodeId,
    ) -> Result<bool, Failure> {
        let victim = match plan.victim {
            Victim::Source => &mut self.pairs[far][0],
            Victim::Target => &mut self.pairs[far][1],
            Victim::Relay => &mut self.relay,
        };
        if let (When::Phase(phase), Some(side)) = (plan.when, plan.side()) {
            let harm = if plan.harm == Harm::Kill {
                "kill"
            } else {
                "break"
            };
            let side = format!("{side:?}").to_lowercase();
            victim.ask(&format!("harm {side} {harm} {phase}")).await?;
        }
        let (cells, options) = (
            self.cells.clone(),
            MoveOptions {
                strategy: Some(plan.strategy),
                ..MoveOptions::default()
            },
        );
        let began = Instant::now();
        let moving =
            tokio::spawn(async move { cells.migrate(agent, target, options, None).await.is_ok() });
        if let When::After(moment) = plan.when {
            tokio::time::sleep_until((began + moment).into()).await;
            match plan.harm {
                Harm::Kill => victim.signal("-KILL").await?,
                Harm::CutOff(span) => {
                    victim.signal("-STOP").await?;
                    tokio::time::sleep(span).await;
                    victim.signal("-CONT").await?;
                }
                Harm::Break => {}
            }
        }
        match tokio::time::timeout(PATIENCE, moving).await {
            Ok(moved) => Ok(moved?),
            Err(_) => Ok(false),
        }
    }

    /// Starts again what has been killed, and waits until the mesh is whole.
    async fn restart(&mut self, far: usize) -> Result<(), Failure> {
        // A process that has killed itself may not have ended yet.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for process in self.pairs[far].iter_mut().chain([&mut self.relay]) {
            if process.has_ended() {
                process.restart().await?;
            }
        }
        for process in &mut self.pairs[far] {
            process.ask("spare").await?;
        }
        self.all_alive().await
    }

    /// Waits until exactly one of the two has a living copy that is not on its way, or neither has and one says that it
    /// ended. Gives who has it.
    async fn rest(&mut self, far: usize, agent: AgentId) -> Result<Option<usize>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen;
        loop {
            let mut states = Vec::new();
            for process in &mut self.pairs[far] {
                states.push(process.state_of(agent).await?.unwrap_or_default());
            }
            seen = format!("{states:?}");
            let living = |state: &String| !state.is_empty() && state != "ended";
            let moving = |state: &String| state == "Moving" || state == "InDoubt";
            let places: Vec<usize> = (0..2).filter(|side| living(&states[*side])).collect();
            let settled = !states.iter().any(moving);
            match places[..] {
                [side] if settled => return Ok(Some(side)),
                [] if states.iter().any(|state| state == "ended") => return Ok(None),
                _ if Instant::now() > deadline => break,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Err(format!("source and target say {seen}").into())
    }

    /// Ends the agent, and compares what it heard and computed with what it should have.
    async fn end(
        &self,
        agent: AgentId,
        sent: Sent,
        outcome: &mut Outcome,
    ) -> Result<String, Failure> {
        within("the agent takes its last message", async {
            let stop = Bytes::from_static(b"stop");
            while self.cells.send(agent, stop.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await?;
        let wait = within("the agent ends", self.cells.wait(agent));
        let code = wait.await??.exit_code;
        let mut reader = self.cells.logs(agent, LogKind::Stdout, 0, false);
        let mut text = Vec::new();
        while let Some(bytes) = reader.next().await? {
            text.extend_from_slice(&bytes);
        }
        let text = String::from_utf8(text)?;
        let (computed, heard): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.len() == 16);
        let numbers: Vec<u64> = heard.iter().filter_map(|line| line.parse().ok()).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        if numbers != sorted {
            outcome.reordered = 1;
        }
        sorted.dedup();
        if sorted.len() < numbers.len() {
            outcome.doubled = 1;
        }
        // The last one may have been given up by its sender, and arrived or not.
        let missing = (0..sent.certain).any(|number| sorted.binary_search(&number).is_err());
        let invented = sorted.last().is_some_and(|last| *last >= sent.tried);
        let right = computed.join("\n") + "\n" == programs::recorded(WORDS, computed.len());
        if missing {
            outcome.lost = 1;
        }
        // It heard or computed what the agent cannot have.
        if invented || !right || code != 7 {
            outcome.wrong_copies = 1;
        }
        Ok(format!(
            "{} of {} messages heard, {} lines{}, code {code}",
            numbers.len(),
            sent.certain,
            computed.len(),
            if right {
                ""
            } else {
                " that differ from an undisturbed run's"
            }
        ))
    }

    /// Removes what is kept of an ended agent, everywhere.
    async fn forget(&mut self, far: usize, agent: AgentId) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let _ = self.cells.remove(agent).await;
            let mut gone = true;
            for process in &mut self.pairs[far] {
                gone &= matches!(process.state_of(agent).await, Ok(None));
            }
            if gone {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What a sender has done.
struct Sent {
    /// So many messages were said to be in the mailbox.
    certain: u64,
    /// So many were sent, of which the last may not have arrived.
    tried: u64,
}

/// Sends numbered messages, some forty in a second, until it is stopped or one is given up.
struct Sender {
    task: JoinHandle<Sent>,
    stop: watch::Sender<bool>,
}

impl Sender {
    fn start(cells: Cells, agent: AgentId) -> Sender {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(25));
            let mut sent = Sent {
                certain: 0,
                tried: 0,
            };
            while !*stopped.borrow_and_update() {
                let number = Bytes::from(sent.tried.to_string());
                sent.tried += 1;
                if cells.send(agent, number).await.is_err() {
                    break;
                }
                sent.certain += 1;
                pace.tick().await;
            }
            sent
        });
        Sender { task, stop }
    }

    async fn stop(self) -> Result<Sent, Failure> {
        self.stop.send_replace(true);
        Ok(within("the last message arrives", self.task).await??)
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.map_err(|_| format!("not in time: {what}").into())
}
