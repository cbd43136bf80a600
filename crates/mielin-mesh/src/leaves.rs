//! The leaves of this node: microcontrollers that hold on to it by a leaf link, over UDP and serial lines.
//!
//! [`Leaves`] drives `mielin_mesh_core::leaf::LeafHost`: it keeps the admissions, carries the packets, and hands over what
//! happens as [`LeafNews`]. What leaves and their host say to each other in messages is not known here.

mod admissions;
mod line;
mod way;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mielin_mesh_core::leaf::{
    Admission, HostEventKind, LeafHost, LeafNumber, LeafState, LinkError, PACKET_BYTES_MAX,
    PacketError, PublicKey,
};
use mielin_mesh_core::{Instant, Name, NodeId};
use mielin_mesh_wire::{DataDirectory, DirectoryError, MeshId};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};

use admissions::Admissions;
pub use line::{LineSource, LineSourceError};
use way::Arrival;
pub use way::{LeafWay, WayEnd};

/// Packets on their way from lines to the driver; more are lost, as on a line that is too slow.
const ARRIVING_MAX: usize = 64;
/// Packets on their way to one line.
const LEAVING_MAX: usize = 32;
/// News that nobody has taken yet. The driver waits for whoever takes them.
const NEWS_MAX: usize = 256;
/// How long the driver sleeps at most when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Where leaves reach this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafConfig {
    /// Where it listens for datagrams; port 0 lets the system choose.
    pub udp: Option<SocketAddr>,
    /// The serial lines.
    pub lines: Vec<LineSource>,
}

/// A leaf that is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafEntry {
    /// The number of its admission.
    pub number: LeafNumber,
    /// How it is called here.
    pub name: Name,
    /// Which node it is, once it has used its admission.
    pub node: Option<NodeId>,
    /// How it is.
    pub state: LeafPresence,
}

/// Whether a leaf is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafPresence {
    /// It has never been.
    Awaited,
    /// It speaks.
    Connected,
    /// It sleeps, and wakes at this time at the latest, as it says.
    Asleep(SystemTime),
    /// It has been silent for too long.
    Gone,
}

/// What happened to a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafNews {
    /// The number of its admission.
    pub leaf: LeafNumber,
    /// Which node it is.
    pub node: NodeId,
    /// What happened.
    pub kind: LeafNewsKind,
}

/// The kinds of [`LeafNews`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafNewsKind {
    /// It is there, for the first time since this node started, or has been silent or asleep.
    There,
    /// It has started anew, and the streams begin again: what it had not acknowledged may be lost.
    Restarted,
    /// There are messages to [take](Leaves::take).
    Readable,
    /// There is room again after [`Leaves::send`] said that there is none.
    Writable,
    /// It sleeps.
    Asleep,
    /// It has been silent for too long.
    Gone,
    /// It is admitted no more.
    Dismissed,
}

/// Why leaves cannot be hosted, or one not be admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// The socket for datagrams cannot be opened.
    #[error("cannot listen for leaves on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The admissions cannot be read or written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The file of the admissions is damaged.
    #[error("the file {file} in the data directory is damaged: {reason}")]
    Damaged {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Another leaf has this name.
    #[error("there is a leaf {0} already")]
    NameTaken(Name),
    /// No leaf is called so.
    #[error("no leaf {0}")]
    Unknown(String),
    /// There are as many as there may be.
    #[error("no more leaves can be admitted: {0}")]
    NoRoom(LinkError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Entropy(getrandom::Error),
}

/// The leaves of this node, and the way to them. Cheap to clone.
#[derive(Clone)]
pub struct Leaves {
    shared: Arc<Shared>,
}

struct Shared {
    hosting: Mutex<Hosting>,
    directory: DataDirectory,
    /// There may be something to send.
    stirred: Notify,
    started: std::time::Instant,
    closing: watch::Sender<bool>,
}

struct Hosting {
    host: LeafHost<Origin>,
    admissions: Admissions,
    /// The way of datagrams.
    udp: Option<LeafWay>,
    lines: Vec<LeafWay>,
    /// News that come from this side.
    own: Vec<LeafNews>,
}

/// Where a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Udp(SocketAddr),
    /// One of the lines.
    Line(usize),
}

impl Leaves {
    /// Opens sockets and lines, and serves the leaves that were admitted earlier. The second value gives what happens to them,
    /// and has to be asked for it: nothing goes on while nobody takes it.
    ///
    /// Lines that are not there yet are tried again until they are.
    ///
    /// # Errors
    /// The socket cannot be bound, or the admissions cannot be read.
    pub(crate) async fn start(
        config: LeafConfig,
        mesh: MeshId,
        directory: DataDirectory,
    ) -> Result<(Leaves, mpsc::Receiver<LeafNews>), LeafError> {
        let admissions = Admissions::open(&directory)?;
        let mut host = LeafHost::new(admissions.key(), mesh.0, random()?);
        for one in admissions.iter() {
            host.admit(one.number(), one.secret(), one.key())
                .map_err(LeafError::NoRoom)?;
        }
        let (udp, bound) = match config.udp {
            Some(address) => {
                let cannot = |source| LeafError::Bind { address, source };
                let socket = UdpSocket::bind(address).await.map_err(cannot)?;
                let bound = socket.local_addr().map_err(cannot)?;
                (Some(socket), Some(bound))
            }
            None => (None, None),
        };
        let (arriving, arrived) = mpsc::channel(ARRIVING_MAX);
        let (news, taken) = mpsc::channel(NEWS_MAX);
        let closing = watch::Sender::new(false);
        let mut lines = Vec::new();
        for (index, source) in config.lines.iter().enumerate() {
            let (leaving, packets) = mpsc::channel(LEAVING_MAX);
            let source = source.clone();
            let arriving = arriving.clone();
            let mut closed = closing.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    () = line::serve(source, index, packets, arriving) => {}
                    _ = closed.wait_for(|closing| *closing) => {}
                }
            });
            lines.push(leaving);
        }
        let shared = Arc::new(Shared {
            hosting: Mutex::new(Hosting {
                host,
                admissions,
                udp: bound.map(LeafWay::udp),
                lines: config.lines.into_iter().map(LeafWay::line).collect(),
                own: Vec::new(),
            }),
            directory,
            stirred: Notify::new(),
            started: std::time::Instant::now(),
            closing,
        });
        let driver = Driver {
            shared: Arc::clone(&shared),
            udp,
            lines,
            arrived,
            news,
        };
        let mut closed = shared.closing.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = driver.run() => {}
                _ = closed.wait_for(|closing| *closing) => {}
            }
        });
        Ok((Leaves { shared }, taken))
    }

    /// The ways on which leaves reach this node: the one of datagrams, if there is one, and the serial lines.
    #[must_use]
    pub fn ways(&self) -> Vec<LeafWay> {
        let hosting = self.shared.hosting();
        hosting.udp.iter().chain(&hosting.lines).cloned().collect()
    }

    /// Admits one leaf, under this name; what it has to be told. It is on the disk when this returns, which blocks.
    ///
    /// # Errors
    /// The name is taken, there are too many, or it cannot be written.
    pub fn admit(&self, name: Name) -> Result<Admission, LeafError> {
        let secret = random()?;
        let mut hosting = self.shared.hosting();
        if hosting.admissions.iter().any(|one| *one.name() == name) {
            return Err(LeafError::NameTaken(name));
        }
        let mut admissions = hosting.admissions.clone();
        let number = admissions.add(name, secret);
        let admission = hosting
            .host
            .admit(number, secret, None)
            .map_err(LeafError::NoRoom)?;
        if let Err(error) = admissions.save(&self.shared.directory) {
            // What was admitted a moment ago can be dismissed, and has sent nothing.
            let _ = hosting.host.dismiss(number);
            return Err(error.into());
        }
        hosting.admissions = admissions;
        Ok(admission)
    }

    /// Takes an admission back, by the leaf's name, number or id. It is on the disk when this returns, which blocks.
    ///
    /// # Errors
    /// There is no such leaf, or it cannot be written.
    pub fn dismiss(&self, leaf: &str) -> Result<LeafEntry, LeafError> {
        let entry = self.find(leaf)?;
        let mut hosting = self.shared.hosting();
        let mut admissions = hosting.admissions.clone();
        admissions.remove(entry.number);
        admissions.save(&self.shared.directory)?;
        hosting.admissions = admissions;
        // It may have been dismissed meanwhile.
        let _ = hosting.host.dismiss(entry.number);
        if let Some(node) = entry.node {
            hosting.own.push(LeafNews {
                leaf: entry.number,
                node,
                kind: LeafNewsKind::Dismissed,
            });
        }
        drop(hosting);
        self.shared.stirred.notify_one();
        Ok(entry)
    }

    /// The leaf of this name, number or id.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, leaf: &str) -> Result<LeafEntry, LeafError> {
        let fits = |entry: &LeafEntry| {
            entry.name == *leaf
                || entry.number.to_string() == leaf
                || entry.node.is_some_and(|node| {
                    leaf.len() >= 4 && node.to_string().starts_with(&leaf.to_lowercase())
                })
        };
        let found = self.list().into_iter().find(fits);
        found.ok_or_else(|| LeafError::Unknown(leaf.chars().take(64).collect()))
    }

    /// All leaves that are admitted, by number.
    #[must_use]
    pub fn list(&self) -> Vec<LeafEntry> {
        let hosting = self.shared.hosting();
        let now = self.shared.now();
        let entries = hosting.admissions.iter().map(|one| LeafEntry {
            number: one.number(),
            name: one.name().clone(),
            node: one.key().map(|key| key.node_id()),
            state: match hosting.host.state(one.number()) {
                Some(LeafState::Connected) => LeafPresence::Connected,
                Some(LeafState::Asleep { until }) => {
                    LeafPresence::Asleep(SystemTime::now() + until.since(now))
                }
                Some(LeafState::Gone) | None if one.key().is_some() => LeafPresence::Gone,
                Some(LeafState::Gone) | None => LeafPresence::Awaited,
            },
        });
        entries.collect()
    }

    /// Takes a message for a leaf. It may be given while the leaf sleeps or is gone.
    ///
    /// # Errors
    /// [`LinkError::Full`] until [`LeafNewsKind::Writable`], [`LinkError::TooLarge`], [`LinkError::NotAdmitted`].
    pub fn send(&self, leaf: LeafNumber, message: &[u8]) -> Result<(), LinkError> {
        self.shared.hosting().host.send(leaf, message)?;
        self.shared.stirred.notify_one();
        Ok(())
    }

    /// The next message of a leaf. It sends no more than a few that are not taken.
    #[must_use]
    pub fn take(&self, leaf: LeafNumber) -> Option<Vec<u8>> {
        let message = self.shared.hosting().host.take(leaf)?;
        // There is room for others.
        self.shared.stirred.notify_one();
        Some(message)
    }

    /// Closes sockets and lines. Leaves find nobody from then on.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }
}

impl Shared {
    /// Whoever panicked under the lock has left what the core's methods leave: they do not stop half-way.
    fn hosting(&self) -> MutexGuard<'_, Hosting> {
        self.hosting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::from_start(self.started.elapsed())
    }
}

impl Hosting {
    fn handle_arrival(&mut self, now: Instant, from: Origin, arrival: Arrival) {
        let way = match from {
            Origin::Udp(_) => self.udp.as_mut(),
            Origin::Line(line) => self.lines.get_mut(line),
        };
        // What arrives comes on one of them.
        let Some(way) = way else { return };
        match arrival {
            Arrival::Opened => way.closed = None,
            Arrival::Closed(why) => way.closed = Some(why),
            Arrival::Noise(frames) => way.drop_packets(frames, PacketError::Malformed),
            Arrival::Packet(packet) => match self.host.handle_packet(now, from, &packet) {
                Ok(()) => way.packets += 1,
                Err(error) => {
                    tracing::debug!(?from, %error, "a packet of a leaf link was dropped");
                    way.drop_packets(1, error);
                }
            },
        }
    }
}

/// Carries packets, and says what happened.
struct Driver {
    shared: Arc<Shared>,
    udp: Option<UdpSocket>,
    lines: Vec<mpsc::Sender<Vec<u8>>>,
    arrived: mpsc::Receiver<(usize, Arrival)>,
    news: mpsc::Sender<LeafNews>,
}

impl Driver {
    async fn run(mut self) {
        let mut datagram = vec![0; PACKET_BYTES_MAX + 1];
        loop {
            self.transmit().await;
            if !self.tell().await {
                return;
            }
            let due = self.shared.hosting().host.poll_timeout();
            let wait = due.map_or(IDLE, |due| due.since(self.shared.now()));
            let received = async {
                match &self.udp {
                    Some(socket) => socket.recv_from(&mut datagram).await,
                    None => std::future::pending().await,
                }
            };
            let arrived = tokio::select! {
                received = received => match received {
                    Ok((len, from)) => {
                        Some((Origin::Udp(from), Arrival::Packet(datagram[..len].to_vec())))
                    }
                    // A datagram of this node's was refused somewhere; the next is taken in all the same.
                    Err(error) => {
                        tracing::debug!(%error, "a datagram of a leaf could not be received");
                        None
                    }
                },
                arrived = self.arrived.recv(), if !self.lines.is_empty() => {
                    arrived.map(|(line, arrival)| (Origin::Line(line), arrival))
                }
                () = self.shared.stirred.notified() => None,
                () = tokio::time::sleep(wait) => None,
            };
            let now = self.shared.now();
            let mut hosting = self.shared.hosting();
            if let Some((from, arrival)) = arrived {
                hosting.handle_arrival(now, from, arrival);
            }
            if hosting.host.poll_timeout().is_some_and(|due| due <= now) {
                hosting.host.handle_timeout(now);
            }
        }
    }

    /// Sends all that is to be sent. What a line or the system does not take is lost, as on any line.
    async fn transmit(&self) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let now = self.shared.now();
            let next = {
                let mut hosting = self.shared.hosting();
                let next = hosting.host.poll_transmit(now, &mut buffer);
                next.map(|(to, packet)| (to, packet.len()))
            };
            match next {
                None => return,
                Some((Origin::Udp(to), len)) => {
                    if let Some(socket) = &self.udp
                        && let Err(error) = socket.send_to(&buffer[..len], to).await
                    {
                        tracing::debug!(%to, %error, "a datagram to a leaf could not be sent");
                    }
                }
                Some((Origin::Line(line), len)) => {
                    if let Some(line) = self.lines.get(line) {
                        let _ = line.try_send(buffer[..len].to_vec());
                    }
                }
            }
        }
    }

    /// Hands over what happened; whether anybody listens.
    async fn tell(&self) -> bool {
        loop {
            let (news, first_key) = {
                let mut hosting = self.shared.hosting();
                if let Some(news) = hosting.own.pop() {
                    (news, None)
                } else {
                    let Some(event) = hosting.host.poll_event() else {
                        return true;
                    };
                    let mut first_key = None;
                    let kind = match event.kind {
                        HostEventKind::Connected { key } => {
                            let known = hosting.admissions.key_of(event.leaf);
                            first_key = known.is_none().then_some(key);
                            LeafNewsKind::There
                        }
                        HostEventKind::Awake => LeafNewsKind::There,
                        HostEventKind::Restarted { .. } => LeafNewsKind::Restarted,
                        HostEventKind::Readable => LeafNewsKind::Readable,
                        HostEventKind::Writable => LeafNewsKind::Writable,
                        HostEventKind::Asleep { .. } => LeafNewsKind::Asleep,
                        HostEventKind::Gone => LeafNewsKind::Gone,
                    };
                    let (leaf, node) = (event.leaf, event.node);
                    (LeafNews { leaf, node, kind }, first_key)
                }
            };
            if let Some(key) = first_key {
                self.keep_key(news.leaf, key).await;
            }
            if self.news.send(news).await.is_err() {
                return false;
            }
        }
    }

    /// From now on the admission is for this key alone, also after the next start.
    async fn keep_key(&self, leaf: LeafNumber, key: PublicKey) {
        let shared = Arc::clone(&self.shared);
        let keeping = tokio::task::spawn_blocking(move || {
            let mut hosting = shared.hosting();
            hosting.admissions.set_key(leaf, key);
            hosting.admissions.save(&shared.directory)
        });
        match keeping.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%leaf, %error, "whose admission this is could not be written down; another start of this node would accept another key");
            }
            Err(error) => tracing::error!(%leaf, %error, "the key of a leaf was not kept"),
        }
    }
}

fn random() -> Result<[u8; 32], LeafError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(LeafError::Entropy)?;
    Ok(bytes)
}
