//! Meshes of nodes in one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use mielin_cells::{Cells, CellsConfig, CellsError, LogKind, SpawnRequest};
use mielin_mesh::{
    JoinRequest, JoinToken, MeshConfig, MeshService, create_mesh, join, load_credentials,
};
use mielin_mesh_core::{AgentId, AgentState, MemberState, NodeId, NodeRole};
use tempfile::TempDir;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A node with everything that belongs to it.
pub(crate) struct Node {
    pub(crate) cells: Cells,
    pub(crate) mesh: MeshService,
    pub(crate) directory: TempDir,
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.mesh.local().id
    }

    /// Lets somebody join; only the first node of a mesh can.
    pub(crate) fn token(&self) -> JoinToken {
        let authority = self.mesh.authority().unwrap();
        authority
            .issue_token(None, Duration::from_secs(60))
            .unwrap()
    }

    pub(crate) async fn spawn(&self, module: &[u8], name: &str) -> AgentId {
        self.spawn_granted(module, name, &[]).await
    }

    pub(crate) async fn spawn_within(&self, module: &[u8], name: &str, budget: &str) -> AgentId {
        let mut request = SpawnRequest::new(module.to_vec());
        request.name = Some(name.to_owned());
        request.grants = ["message".parse().unwrap()].into_iter().collect();
        request.budget = budget.parse().unwrap();
        self.cells.spawn(request).await.unwrap()
    }

    pub(crate) async fn spawn_granted(
        &self,
        module: &[u8],
        name: &str,
        grants: &[&str],
    ) -> AgentId {
        let mut request = SpawnRequest::new(module.to_vec());
        request.name = Some(name.to_owned());
        request.grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
        self.cells.spawn(request).await.unwrap()
    }

    pub(crate) async fn stdout(&self, agent: AgentId) -> String {
        read(&self.cells, agent, false).await
    }

    /// Follows stdout until the agent has ended.
    pub(crate) async fn whole_stdout(&self, agent: AgentId) -> String {
        within(read(&self.cells, agent, true)).await
    }

    /// Waits until the agent has written this many lines.
    pub(crate) async fn lines(&self, agent: AgentId, count: usize) {
        let mut reader = self.cells.logs(agent, LogKind::Stdout, 0, true);
        let mut seen = 0;
        within(async {
            while seen < count {
                let bytes = reader
                    .next()
                    .await
                    .unwrap()
                    .expect("the agent goes on writing");
                seen += bytes.iter().filter(|byte| **byte == b'\n').count();
            }
        })
        .await;
    }

    /// Waits until this node knows the agent to be in such a state.
    pub(crate) async fn until(&self, agent: AgentId, wanted: impl Fn(&AgentState, NodeId) -> bool) {
        let mut events = self.mesh.subscribe();
        within(async {
            loop {
                let agents = self.cells.agents().await.unwrap().agents;
                let summary = agents.into_iter().find(|summary| summary.agent == agent);
                if summary.is_some_and(|summary| wanted(&summary.state, summary.node)) {
                    return;
                }
                // States of agents of this node itself change without an event.
                let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
            }
        })
        .await;
    }
}

async fn read(cells: &Cells, agent: AgentId, follow: bool) -> String {
    let mut reader = cells.logs(agent, LogKind::Stdout, 0, follow);
    let mut text = Vec::new();
    while let Some(bytes) = reader.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

/// Fails the test if it takes too long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// A node that is found by nothing but what a test tells of it.
fn listening() -> MeshConfig {
    let mut config = MeshConfig::new("127.0.0.1:0".parse().unwrap());
    config.enable_mdns = false;
    config
}

/// A new member of the mesh that is to be found at `address`.
pub(crate) async fn joined(
    directory: &Path,
    name: String,
    address: SocketAddr,
    token: JoinToken,
) -> MeshService {
    let request = JoinRequest {
        address,
        token: Some(token),
        name,
        role: NodeRole::Core,
    };
    let credentials = join(directory, request, |_| {}).await.unwrap();
    MeshService::start(listening().bootstrap(address), credentials)
        .await
        .unwrap()
}

/// A member that was in the mesh before.
pub(crate) async fn rejoined(directory: &Path, address: SocketAddr) -> MeshService {
    let credentials = load_credentials(directory).unwrap().unwrap();
    MeshService::start(listening().bootstrap(address), credentials)
        .await
        .unwrap()
}

/// A mesh of `count` nodes that all know each other.
pub(crate) async fn mesh(count: usize, configure: impl Fn(usize, &mut CellsConfig)) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..count {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node");
        let name = format!("n{index}");
        let mesh = match nodes.first() {
            None => {
                let credentials = create_mesh(&path, &name, NodeRole::Core).unwrap();
                MeshService::start(listening(), credentials).await.unwrap()
            }
            Some(first) => {
                let address = first.mesh.local().address;
                joined(&path, name, address, first.token()).await
            }
        };
        let mut config = CellsConfig {
            data_dir: Some(directory.path().join("cells")),
            ..CellsConfig::default()
        };
        configure(index, &mut config);
        let cells = Cells::start(config, mesh.clone()).await.unwrap();
        nodes.push(Node {
            cells,
            mesh,
            directory,
        });
    }
    for node in &nodes {
        let mut events = node.mesh.subscribe();
        within(async {
            while node
                .mesh
                .members()
                .iter()
                .filter(|member| member.state == MemberState::Alive)
                .count()
                < count
            {
                let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
            }
        })
        .await;
    }
    nodes
}

/// The same with the configuration that users get.
pub(crate) async fn plain_mesh(count: usize) -> Vec<Node> {
    mesh(count, |_, _| {}).await
}

pub(crate) async fn shut_down(nodes: Vec<Node>) {
    for node in nodes {
        node.cells.shutdown().await;
        node.mesh.shutdown().await;
    }
}

/// The error of something that must not work.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, CellsError>) -> CellsError {
    result.expect_err("this must be refused")
}

/// Sends a message and gives the reply.
pub(crate) async fn ask(node: &Node, agent: AgentId, words: &'static str) -> String {
    let words = Bytes::from_static(words.as_bytes());
    let answer = within(node.cells.request(agent, words, PATIENCE)).await;
    String::from_utf8(answer.unwrap().to_vec()).unwrap()
}

/// Copies a directory as it is at one moment: what changes meanwhile, as the ledger may, would be what never was.
pub(crate) fn copy(from: &Path, to: &Path) {
    let mut seen = None;
    let entries = loop {
        match (seen, contents(from)) {
            (Some(before), Some(now)) if before == now => break now,
            (_, now) => seen = now,
        }
    };
    std::fs::create_dir(to).unwrap();
    for (path, bytes) in entries {
        match bytes {
            None => std::fs::create_dir(to.join(path)).unwrap(),
            Some(bytes) => std::fs::write(to.join(path), bytes).unwrap(),
        }
    }
}

/// Files and directories below one, these before what is in them; `None` if one of them went away.
fn contents(root: &Path) -> Option<BTreeMap<PathBuf, Option<Vec<u8>>>> {
    let mut entries = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).ok()? {
            let path = entry.ok()?.path();
            let name = path.strip_prefix(root).ok()?.to_owned();
            let bytes = if path.is_dir() {
                directories.push(path);
                None
            } else {
                Some(std::fs::read(&path).ok()?)
            };
            entries.insert(name, bytes);
        }
    }
    Some(entries)
}
