//! One node as a process of its own on one of the hosts, and the program that it is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mielin_mesh::{
    JoinRequest, MeshConfig, MeshEvent, MeshService, Path, create_mesh, join, load_credentials,
    request_handler,
};
use mielin_mesh_core::NodeRole;
use tempfile::TempDir;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::link::Link;

const DEADLINE: Duration = Duration::from_secs(120);
/// For an answer to a ping: no more than a message of an agent would wait.
const LIMIT: Duration = Duration::from_secs(20);

/// The first argument of this program when it is to be a node.
pub(crate) const ROLE: &str = "be-a-node";

/// A setting of a node that finds others on its link.
pub(crate) const MDNS: &str = "mdns";

/// What a node can be told to do.
const PING: &str = "ping";
const PUSH: &str = "push";
/// The protocol of what is pushed, of the class bulk, and 64 MiB in all.
const PUSHED: u16 = 299;
const PUSHED_BYTES: usize = 16 * 1024 * 1024;
const PUSHES: usize = 4;

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
    /// What else it has told.
    news: Vec<String>,
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
            news: Vec::new(),
        };
        node.hear_until("the node to run", |members, _| !members.is_empty());
        node
    }

    /// Waits until the named members, and no others, are known in these states.
    pub(crate) fn sees(&mut self, expected: &[(&str, &str)]) {
        let expected: HashMap<_, _> = expected
            .iter()
            .map(|(name, state)| (name.to_string(), state.to_string()))
            .collect();
        self.hear_until(&format!("{expected:?}"), |members, _| *members == expected);
    }

    /// Waits until a member is known in this state, which may pass.
    pub(crate) fn sees_one(&mut self, name: &str, state: &str) {
        self.hear_until(&format!("{name} {state}"), |members, _| {
            members.get(name).is_some_and(|known| known == state)
        });
    }

    /// Asks another node for an answer; whether it came.
    pub(crate) fn pings(&mut self, name: &str) -> bool {
        self.told_about(PING, name) == "answered"
    }

    /// Brings another node 64 MiB: on which way that went, and how long it took.
    pub(crate) fn pushes(&mut self, name: &str) -> (String, Duration) {
        let told = self.told_about(PUSH, name);
        let (way, micros) = told.split_once(' ').expect("a way and a time");
        (
            way.to_owned(),
            Duration::from_micros(micros.parse().unwrap()),
        )
    }

    /// What the node says when it has done something that concerns another.
    fn told_about(&mut self, what: &str, name: &str) -> String {
        let about = format!("{what} {name} ");
        self.news.retain(|news| !news.starts_with(&about));
        writeln!(self.child.stdin.as_mut().unwrap(), "{what} {name}").unwrap();
        let told = |news: &String| news.strip_prefix(&about).map(str::to_owned);
        self.hear_until(&about, |_, news| {
            news.iter().any(|news| told(news).is_some())
        });
        self.news.iter().find_map(told).unwrap()
    }

    /// Waits until a member is known at this address.
    pub(crate) fn sees_at(&mut self, name: &str, address: &str) {
        let told = format!("at {address} {name}");
        self.hear_until(&told, |_, news| news.contains(&told));
    }

    /// With whom it had no connection any more, at any time.
    pub(crate) fn lost(&mut self) -> Vec<String> {
        self.knows();
        let lost = self
            .news
            .iter()
            .filter_map(|news| news.strip_prefix("lost "));
        lost.map(str::to_owned).collect()
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

    fn hear_until(
        &mut self,
        what: &str,
        reached: impl Fn(&HashMap<String, String>, &[String]) -> bool,
    ) {
        let deadline = Instant::now() + DEADLINE;
        while !reached(&self.members, &self.news) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(line) => self.note(&line),
                Err(error) => panic!("waited for {what}: {error}; last: {:?}", self.members),
            }
        }
    }

    fn note(&mut self, line: &str) {
        if let Some(news) = line.strip_prefix("! ") {
            return self.news.push(news.to_owned());
        }
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

/// The node's program: says what becomes of the members, and does what the lines of its input say, until that ends.
pub(crate) async fn be(arguments: &[String]) {
    let [directory, bind, settings @ ..] = arguments else {
        panic!("a directory and an address");
    };
    let credentials = load_credentials(path::Path::new(directory))
        .unwrap()
        .unwrap();
    let mut config = MeshConfig::new(bind.parse().unwrap());
    // Most cases are about other ways to be found.
    config.enable_mdns = settings.iter().any(|setting| setting == MDNS);
    for setting in settings.iter().filter(|setting| *setting != MDNS) {
        config = config.bootstrap(setting.parse::<mielin_mesh::BootstrapNode>().unwrap());
    }
    let mesh = MeshService::start(config, credentials).await.unwrap();
    let mut events = mesh.subscribe();
    let taken = |_, content: Bytes| async move {
        assert_eq!(content.len(), PUSHED_BYTES);
        Ok(Bytes::new())
    };
    mesh.serve(PUSHED, request_handler(taken));
    let (ask, mut asked) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = ask.send(line);
        }
    });
    let mut told = HashMap::new();
    loop {
        for member in mesh.members() {
            let (name, state) = (member.identity.name.to_string(), member.state.to_string());
            let address = member.identity.address;
            let before = told.insert(name.clone(), (state.clone(), address));
            if before.as_ref().is_none_or(|(known, _)| *known != state) {
                println!("{name} {state}");
            }
            if before.is_none_or(|(_, known)| known != address) {
                println!("! at {address} {name}");
            }
        }
        tokio::select! {
            event = events.recv() => match event {
                Ok(MeshEvent::PeerConnectionLost(node)) => {
                    let members = mesh.members();
                    let lost = members.iter().find(|member| member.identity.id == node);
                    println!("! lost {}", lost.expect("a member").identity.name);
                }
                Err(RecvError::Closed) => panic!("the mesh has ended"),
                _ => {}
            },
            line = asked.recv() => match line {
                Some(line) => println!("! {line} {}", done(&mesh, &line).await),
                None => return,
            },
        }
    }
}

/// Does what a line asks for: a word, and the name of another node.
async fn done(mesh: &MeshService, line: &str) -> String {
    let (what, name) = line.split_once(' ').expect("what, and with whom");
    let members = mesh.members();
    let mut named = members
        .iter()
        .filter(|member| member.identity.name.to_string() == name);
    let node = named.next().expect("a member").identity.id;
    if what == PING {
        return match mesh.ping(&node, LIMIT).await {
            Ok(_) => "answered".to_owned(),
            Err(error) => format!("silent: {error}"),
        };
    }
    let start = Instant::now();
    let content = Bytes::from(vec![7; PUSHED_BYTES]);
    for _ in 0..PUSHES {
        let pushed = mesh.request(&node, PUSHED, content.clone(), DEADLINE);
        pushed.await.unwrap();
    }
    let passed = start.elapsed().as_micros();
    match mesh.path(&node) {
        Some(Path::Relayed { .. }) => format!("relayed {passed}"),
        _ => format!("direct {passed}"),
    }
}
