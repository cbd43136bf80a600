//! A running node: mesh, agents and control socket in one process.

mod admission;
mod answer;
mod body;
mod copies;
mod files;
mod leaves;
mod reach;
mod routes;
mod spelling;
mod usage;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use mielin_cells::{Cells, CellsConfig, CellsError};
use mielin_mesh::{
    Authority, AuthorityError, Departure, Dialling, LeafConfig, MeshConfig, MeshError, MeshService,
    NodeCredentials, Preset, WireError,
};
use mielin_mesh_core::{AgentId, NodeId, NodeRole};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{info, warn};

use crate::api;
use crate::args::{DialableChoice, PresetChoice};
use crate::control;
use crate::failure::Failure;
use crate::home::{Home, Settings};

pub(crate) use spelling::role_name;

/// Where a node listens unless it is told otherwise.
pub(crate) const DEFAULT_BIND: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9000);
/// How long an agent or node that nobody has heard of is waited for.
const NEWS_LIMIT: Duration = Duration::from_secs(1);
/// How long telling the members that the node stops may take.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long commands that are being answered may hold up the end.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(1);

/// A node whose services run and whose control socket is open, but not served yet.
pub(crate) struct Node {
    home: Home,
    cells: Cells,
    listener: UnixListener,
    state: NodeState,
    stops: mpsc::Receiver<Departure>,
    /// Completes at the first signal since the node began to start.
    signals: Pin<Box<dyn Future<Output = ()> + Send>>,
    closing: watch::Sender<bool>,
}

/// What the routes know.
#[derive(Clone)]
pub(crate) struct NodeState {
    pub(crate) cells: Cells,
    pub(crate) data_dir: PathBuf,
    pub(crate) engine: String,
    /// The parts that are switched off.
    pub(crate) off: Vec<String>,
    pub(crate) limits: api::NodeLimits,
    /// Fingerprint of the mesh's root.
    pub(crate) mesh_id: String,
    pub(crate) started: Instant,
    stop: mpsc::Sender<Departure>,
    closing: watch::Receiver<bool>,
}

impl NodeState {
    pub(crate) fn mesh(&self) -> &MeshService {
        self.cells.mesh()
    }

    /// The power over who is in the mesh, which one node of it holds. `what` is what it is wanted for.
    pub(crate) fn authority(&self, what: &str) -> Result<&Authority, Failure> {
        let mesh = self.mesh();
        mesh.authority().ok_or_else(|| {
            let founder = mesh.issuer().and_then(|id| {
                let members = mesh.members();
                let member = members.into_iter().find(|m| m.identity.id == id)?;
                Some(format!("{} ({})", member.identity.name, id.short()))
            });
            let hint = match founder {
                Some(founder) => format!("run this on the founding node, {founder}"),
                None => {
                    "run this on the node where `mielin mesh start` founded the mesh".to_owned()
                }
            };
            let message = format!("only the node that founded the mesh can {what}");
            Failure::refused(message).hint(hint)
        })
    }

    /// The agent of this id, prefix or name.
    pub(crate) async fn agent(&self, query: &str) -> Result<AgentId, Failure> {
        Ok(self.cells.resolve(query).await?)
    }

    /// The node of this id, prefix or name, which may just have joined.
    pub(crate) async fn node(&self, query: &str) -> Result<NodeId, Failure> {
        let news = self.mesh().subscribe();
        let look = || self.cells.resolve_node(query);
        if self.mesh().members().len() < 2 {
            return Ok(look()?);
        }
        // One that is awaited here may have come to another host.
        if let Err(CellsError::NodeNotFound(_) | CellsError::LeafAwaited(_)) = look() {
            match self.cells.resolve_leaf(query).await {
                Err(CellsError::NodeNotFound(_)) => {}
                found => return Ok(found?),
            }
        }
        Ok(look_again(news, look).await?)
    }

    /// The same for what only members do, and leaves do not.
    pub(crate) async fn member(&self, query: &str) -> Result<NodeId, Failure> {
        let node = self.node(query).await?;
        self.not_a_leaf(&node).await?;
        Ok(node)
    }

    /// Refuses what is asked of a leaf. Of members nobody is asked.
    pub(crate) async fn not_a_leaf(&self, node: &NodeId) -> Result<(), Failure> {
        let members = self.mesh().members();
        if members.iter().any(|member| member.identity.id == *node) {
            return Ok(());
        }
        let leaves = self.cells.mesh_leaves().await.leaves;
        match leaves.iter().find(|leaf| leaf.leaf == *node) {
            None => Ok(()),
            Some(leaf) => Err(Failure::refused(format!(
                "{} is a leaf: its host alone speaks with it, and it is no member",
                leaf.name
            ))
            .hint("`mielin mesh leaf list` on its host shows how it is, and `mielin mesh leaf remove` shuts it out; agents can be sent to it")),
        }
    }

    /// Asks the node to stop; nothing happens if it is stopping already.
    pub(crate) fn request_stop(&self, departure: Departure) {
        let _ = self.stop.try_send(departure);
    }

    /// Returns when the node begins to stop.
    pub(crate) async fn closing(&self) {
        let mut closing = self.closing.clone();
        // An error means that the node is gone, which is closing too.
        let _ = closing.wait_for(|closing| *closing).await;
    }
}

impl Node {
    /// Starts every service of the node. The agents of its last run come last: from then on they are on the disk no more,
    /// and live only as long as a clean stop is certain.
    pub(crate) async fn start(
        home: Home,
        credentials: NodeCredentials,
        settings: Settings,
    ) -> Result<Node, Failure> {
        let signals = Box::pin(stop_signals()?);
        let bind = settings.bind.unwrap_or(DEFAULT_BIND);
        let engine = settings.engine()?;
        let mesh_id = credentials.mesh_id().to_string();
        let leaf_config = leaf_config(&settings, credentials.role())?;
        let mut config = MeshConfig::new(bind);
        config.bootstrap_nodes = settings.bootstrap()?;
        config.preset = match settings.preset {
            Some(PresetChoice::Wan) => Preset::Wan,
            Some(PresetChoice::Lan) | None => Preset::Lan,
        };
        config.dialling = match settings.dialable {
            Some(DialableChoice::No) => Dialling::Impossible,
            Some(DialableChoice::Auto) | None => Dialling::Tried,
        };
        let switches = settings.switches;
        config.enable_mdns = switches.mdns.unwrap_or(true);
        config.enable_gossip = switches.gossip.unwrap_or(true);
        config.enable_registry = switches.registry.unwrap_or(true);
        config.enable_migration = switches.migration.unwrap_or(true);
        let mesh = MeshService::start(config, credentials)
            .await
            .map_err(|error| cannot_start(bind, &error))?;
        let mut cells_config = CellsConfig {
            data_dir: Some(home.path().to_path_buf()),
            engine,
            ..CellsConfig::default()
        };
        let count = |bound: Option<u32>| bound.and_then(|count| usize::try_from(count).ok());
        if let Some(count) = count(settings.bounds.agents_max) {
            cells_config.agents_max = count;
        }
        if let Some(count) = count(settings.bounds.live_instances_max) {
            cells_config.live_instances_max = count;
        }
        files::raise_limit(cells_config.live_instances_max);
        let limits = api::NodeLimits {
            agents_max: cells_config.agents_max,
            live_instances_max: cells_config.live_instances_max,
        };
        let leaves = match leaf_config {
            Some(config) => match mesh.host_leaves(config).await {
                Ok(hosted) => Some(hosted),
                Err(error) => {
                    mesh.shutdown().await;
                    return Err(error.into());
                }
            },
            None => None,
        };
        let listener = match opened(&home, &settings) {
            Ok(listener) => listener,
            Err(failure) => {
                mesh.shutdown().await;
                return Err(failure);
            }
        };
        let cells = match Cells::start(cells_config, mesh.clone()).await {
            Ok(cells) => cells,
            Err(error) => {
                control::remove(home.path());
                mesh.shutdown().await;
                return Err(error.into());
            }
        };
        let on_leaves = cells.agents_on_leaves().len();
        match leaves {
            Some((leaves, news)) => cells.host_leaves(leaves, news).await?,
            None if on_leaves > 0 => warn!(
                "agents that are on leaves can neither be reached nor come back until this node hosts leaves again \
                 (--leaf-serial, --leaf-udp): {on_leaves}"
            ),
            None => {}
        }
        let (stop, stops) = mpsc::channel(4);
        let (closing, closing_seen) = watch::channel(false);
        let state = NodeState {
            cells: cells.clone(),
            data_dir: home.path().to_path_buf(),
            engine: engine.to_string(),
            off: switches.off(),
            limits,
            mesh_id,
            started: Instant::now(),
            stop,
            closing: closing_seen,
        };
        let local = mesh.local();
        info!(
            "listening on {}, node id {}, name {}, role {}, data in {}",
            local.address,
            local.id,
            local.name,
            role_name(local.role),
            home.path().display(),
        );
        Ok(Node {
            home,
            cells,
            listener,
            state,
            stops,
            signals,
            closing,
        })
    }

    pub(crate) fn mesh(&self) -> &MeshService {
        self.cells.mesh()
    }

    /// Serves the control socket until the node is told to stop, then stops cleanly.
    ///
    /// If nobody can be told that it runs, it stops at once, cleanly too.
    pub(crate) async fn run(
        mut self,
        stop_on_stdin_end: bool,
        announce: impl FnOnce(&MeshService) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let announced = announce(self.mesh());
        let mut closing = self.closing.subscribe();
        let server = axum::serve(self.listener, routes::router(self.state.clone()))
            .with_graceful_shutdown(async move {
                let _ = closing.wait_for(|closing| *closing).await;
            });
        let server = tokio::spawn(server.into_future());
        let departure = tokio::select! {
            biased;
            () = std::future::ready(()), if announced.is_err() => Departure::Stopped,
            () = self.signals => Departure::Stopped,
            () = stdin_end(), if stop_on_stdin_end => Departure::Stopped,
            departure = self.stops.recv() => departure.unwrap_or(Departure::Stopped),
        };
        info!("stopping");
        let _ = self.closing.send(true);
        let answered = within(LAST_ANSWERS_LIMIT, "the last commands", server).await;
        if let Some(Ok(Err(error))) = answered {
            warn!("the control socket failed: {error}");
        }
        let mesh = self.cells.mesh().clone();
        // Writing the agents down takes as long as it takes: what is not written is lost.
        let unstored = self.cells.shutdown().await;
        within(STOP_LIMIT, "the mesh", mesh.depart(departure)).await;
        control::remove(self.home.path());
        info!("stopped");
        // Whoever waits for the directory waits for the end of the process.
        self.home.keep();
        if unstored.is_empty() {
            return announced;
        }
        let agents: Vec<String> = unstored.iter().map(AgentId::to_string).collect();
        let agents = agents.join(", ");
        Err(
            Failure::internal(format!("not stored, and lost unless a move took them along: {agents}"))
                .hint("the log says why; `mielin agent list` shows what became of them when the node runs again"),
        )
    }
}

/// Where leaves are to reach the node, if it is to host any.
fn leaf_config(settings: &Settings, role: NodeRole) -> Result<Option<LeafConfig>, Failure> {
    let config = settings.leaves()?;
    if config.is_some() && role == NodeRole::Edge {
        return Err(Failure::refused(
            "a node with the role edge hosts no leaves: it may vanish with all that they rely on",
        )
        .hint("use a node with the role relay or core, or start this one with --no-leaves"));
    }
    Ok(config)
}

/// Remembers the settings and opens the control socket, whose clients wait until it is served.
fn opened(home: &Home, settings: &Settings) -> Result<UnixListener, Failure> {
    home.save(settings)?;
    control::listen(home.path()).map_err(|error| {
        let directory = home.path().display();
        let what = format!("cannot open the control socket in {directory}");
        let failure = Failure::io(what, &error);
        match error.kind() {
            io::ErrorKind::IsADirectory => failure.hint("a directory has its place; remove it"),
            _ => failure,
        }
    })
}

/// Looks, and while nothing is found looks again at all news of a moment: what one node has
/// answered for, the others learn a little later.
async fn look_again<T, N: Clone>(
    mut news: broadcast::Receiver<N>,
    look: impl Fn() -> Result<T, CellsError>,
) -> Result<T, CellsError> {
    let deadline = tokio::time::Instant::now() + NEWS_LIMIT;
    loop {
        let error = match look() {
            Err(error) if error.kind() == mielin_cells::ErrorKind::NotFound => error,
            found => return found,
        };
        let heard = tokio::time::timeout_at(deadline, news.recv()).await;
        if !matches!(heard, Ok(Ok(_) | Err(RecvError::Lagged(_)))) {
            return Err(error);
        }
    }
}

/// An address to try when nothing was asked for: the default port if it is free, else any.
pub(crate) fn free_default_bind() -> SocketAddr {
    if bind_for_a_moment(DEFAULT_BIND).is_ok() {
        DEFAULT_BIND
    } else {
        SocketAddr::new(DEFAULT_BIND.ip(), 0)
    }
}

/// Whether a node could listen there. To be asked before something is made that stays when it
/// cannot: a mesh, or a token's use.
pub(crate) fn check_bind(bind: SocketAddr) -> Result<(), Failure> {
    bind_for_a_moment(bind).map_err(|error| cannot_listen(bind, &error))
}

fn bind_for_a_moment(bind: SocketAddr) -> io::Result<()> {
    let _udp = UdpSocket::bind(bind)?;
    TcpListener::bind(bind).map(drop)
}

/// Whether this is a link-local address of no link.
fn lacks_interface(bind: SocketAddr) -> bool {
    matches!(bind, SocketAddr::V6(bind) if bind.ip().is_unicast_link_local() && bind.scope_id() == 0)
}

fn cannot_start(bind: SocketAddr, error: &MeshError) -> Failure {
    match error {
        MeshError::Wire(WireError::AddressInUse { .. }) => {
            cannot_listen(bind, &io::ErrorKind::AddrInUse.into())
        }
        MeshError::Wire(WireError::Bind { source, .. }) => cannot_listen(bind, source),
        _ => Failure::internal(format!("cannot start the mesh on {bind}: {error}")),
    }
}

fn cannot_listen(bind: SocketAddr, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Failure::refused(format!("port {} of {} is in use", bind.port(), bind.ip()))
                .hint("choose another with --bind; port 0 takes a free one")
        }
        io::ErrorKind::AddrNotAvailable => {
            Failure::refused(format!("{} is not an address of this machine", bind.ip()))
                .hint("0.0.0.0 listens on all of its addresses")
        }
        io::ErrorKind::InvalidInput if lacks_interface(bind) => {
            Failure::refused(format!("{} is one address on each link", bind.ip()))
                .hint("say which with the number of the interface, which `ip link` shows: --bind '[fe80::1%2]:9000'")
        }
        _ => Failure::io(format!("cannot listen on {bind}"), error)
            .hint("choose another address with --bind"),
    }
}

impl From<AuthorityError> for Failure {
    fn from(error: AuthorityError) -> Failure {
        match error {
            AuthorityError::NotPending(_) => Failure::not_found(error.to_string())
                .hint("`mielin mesh approve` without a node lists those that wait"),
            AuthorityError::NameTaken(_) => {
                Failure::refused(error.to_string()).hint("let it join again with another --name")
            }
            AuthorityError::TooManyTokens => Failure::refused(error.to_string())
                .hint("use one of those, or give new ones a shorter --ttl"),
            AuthorityError::Uses(_) => {
                Failure::usage(error.to_string()).hint("choose another number with --uses")
            }
            AuthorityError::Lifetime(_) => {
                Failure::usage(error.to_string()).hint("choose another --ttl")
            }
            _ => Failure::internal(error.to_string()),
        }
    }
}

/// Completes at the first SIGTERM, SIGINT or SIGHUP from now on.
pub(crate) fn stop_signals() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

async fn stdin_end() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 256];
    while stdin.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// Waits for a step of stopping, but not for ever.
async fn within<T>(limit: Duration, what: &str, step: impl Future<Output = T>) -> Option<T> {
    match tokio::time::timeout(limit, step).await {
        Ok(value) => Some(value),
        Err(_) => {
            warn!("gave up waiting for {what} after {limit:?}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A record that arrives after the question.
    #[tokio::test]
    async fn what_is_not_known_yet_is_looked_for_again_at_every_piece_of_news() {
        let (tell, news) = broadcast::channel(8);
        let looks = Cell::new(0);
        let found = look_again(news, || {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                return Ok("agent");
            }
            let _ = tell.send(());
            Err(CellsError::AgentNotFound("agent".to_owned()))
        });
        assert_eq!(found.await.ok(), Some("agent"));
    }

    #[tokio::test]
    async fn other_errors_are_not_waited_for() {
        let (_tell, news) = broadcast::channel::<()>(8);
        let looks = Cell::new(0);
        let found = look_again::<(), ()>(news, || {
            looks.set(looks.get() + 1);
            Err(CellsError::AgentAmbiguous {
                query: "a".to_owned(),
                count: 2,
            })
        });
        assert!(found.await.is_err());
        assert_eq!(looks.get(), 1);
    }
}
