//! One node as a process of its own on one of the hosts, and the program that it is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use mielin_mesh::{JoinRequest, MeshConfig, MeshService, create_mesh, join, load_credentials};
use mielin_mesh_core::NodeRole;
use tempfile::TempDir;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use crate::link::Link;

const DEADLINE: Duration = Duration::from_secs(120);

/// The first argument of this program when it is to be a node.
pub(crate) const ROLE: &str = "be-a-node";

/// A setting of a node that finds others on its link.
pub(crate) const MDNS: &str = "mdns";

/// Data directories of nodes of one mesh, which have joined before, by loopback,
/// and remember nobody's address.
pub(crate) async fn mesh_of(names: &[&str]) -> Vec<TempDir> {
    let mut here = MeshConfig::new(([127, 0, 0, 1], 0).into());
    here.enable_mdns = false;
    let first = tempfile::tempdir().unwrap();
    let credentials = create_mesh(first.path(), names[0], NodeRole::Core).unwrap();
    let founder = MeshService::start(here, credentials).await.unwrap();
    let mut directories = vec![first];
    for name in &names[1..] {
        let directory = tempfile::tempdir().unwrap();
        let authority = founder.authority().unwrap();
        let request = JoinRequest {
            address: founder.local().address,
            token: Some(authority.issue_token(None, DEADLINE).unwrap()),
            name: (*name).into(),
            role: NodeRole::Edge,
        };
        drop(join(directory.path(), request, |_| {}).await.unwrap());
        std::fs::remove_file(directory.path().join("peers")).unwrap();
        directories.push(directory);
    }
    founder.shutdown().await;
    let _ = std::fs::remove_file(directories[0].path().join("peers"));
    directories
}

/// A running node, as far as its process tells.
pub(crate) struct Node {
    child: Child,
    told: Receiver<String>,
    /// State by name.
    members: HashMap<String, String>,
}

impl Node {
    /// Starts a node on a host. `settings` are bootstrap addresses, and [`MDNS`].
    pub(crate) fn start(
        link: &Link,
        host: usize,
        directory: &TempDir,
        bind: &str,
        settings: &[&str],
    ) -> Node {
        let program = std::env::current_exe().unwrap();
        let mut child = link
            .command(host, &program)
            .arg(ROLE)
            .arg(directory.path())
            .arg(bind)
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut node = Node {
            child,
            told,
            members: HashMap::new(),
        };
        node.hear_until("the node to run", |members| !members.is_empty());
        node
    }

    /// Waits until the named members, and no others, are known in these states.
    pub(crate) fn sees(&mut self, expected: &[(&str, &str)]) {
        let expected: HashMap<_, _> = expected
            .iter()
            .map(|(name, state)| (name.to_string(), state.to_string()))
            .collect();
        self.hear_until(&format!("{expected:?}"), |members| *members == expected);
    }

    /// Waits until a member is known in this state, which may pass.
    pub(crate) fn sees_one(&mut self, name: &str, state: &str) {
        self.hear_until(&format!("{name} {state}"), |members| {
            members.get(name).is_some_and(|known| known == state)
        });
    }

    /// Who is known now.
    pub(crate) fn knows(&mut self) -> Vec<String> {
        while let Ok(line) = self.told.try_recv() {
            self.note(&line);
        }
        let mut names: Vec<_> = self.members.keys().cloned().collect();
        names.sort();
        names
    }

    fn hear_until(&mut self, what: &str, reached: impl Fn(&HashMap<String, String>) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !reached(&self.members) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(line) => self.note(&line),
                Err(error) => panic!("waited for {what}: {error}; last: {:?}", self.members),
            }
        }
    }

    fn note(&mut self, line: &str) {
        let (name, state) = line.split_once(' ').expect("a name and a state");
        self.members.insert(name.to_owned(), state.to_owned());
    }

    /// Ends the process without a chance to say so.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It ends by itself when its input ends, which a test that is killed brings about.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The node's program: says what becomes of the members, until its input ends.
pub(crate) async fn be(arguments: &[String]) {
    let [directory, bind, settings @ ..] = arguments else {
        panic!("a directory and an address");
    };
    let credentials = load_credentials(Path::new(directory)).unwrap().unwrap();
    let mut config = MeshConfig::new(bind.parse().unwrap());
    // Most cases are about other ways to be found.
    config.enable_mdns = settings.iter().any(|setting| setting == MDNS);
    for setting in settings.iter().filter(|setting| *setting != MDNS) {
        config = config.bootstrap(setting.parse::<mielin_mesh::BootstrapNode>().unwrap());
    }
    let mesh = MeshService::start(config, credentials).await.unwrap();
    let mut events = mesh.subscribe();
    let (end, mut ended) = oneshot::channel::<()>();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(end);
    });
    let mut told = HashMap::new();
    loop {
        for member in mesh.members() {
            let (name, state) = (member.identity.name.to_string(), member.state.to_string());
            if told.insert(name.clone(), state.clone()).as_ref() != Some(&state) {
                println!("{name} {state}");
            }
        }
        tokio::select! {
            event = events.recv() => assert!(!matches!(event, Err(RecvError::Closed))),
            _ = &mut ended => return,
        }
    }
}
