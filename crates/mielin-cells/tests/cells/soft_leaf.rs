//! A leaf in software: the link and the hand-over as on a microcontroller, and wasmi.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mielin_mesh_core::delivery::MessageKind as Kind;
use mielin_mesh_core::handover::{
    LeafEnd, LeafEndEvent, PostResult, Profile, Reading, Reason, Status,
};
use mielin_mesh_core::leaf::{Admission, Leaf, LeafEvent, PACKET_BYTES_MAX, SecretKey};
use mielin_mesh_core::{AgentId, Instant, Name, NodeId};
use mielin_safepoint::{Resumable, SnapshotLimits};
use mielin_wasm::{
    Address, Capability, Checkpoint, EngineKind, HostState, Instance, Level, Limits, LogError,
    LogStream, MessageKind, Outcome, Receive, Received, SendError, Sensed, Services, StopHandle,
    engine,
};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Room for one agent.
const ROOM_BYTES: u32 = 400_000;

/// What a test does to it and sees of it.
#[derive(Default)]
pub(crate) struct Controls {
    /// Offer all agents to the host, and take none.
    pub(crate) flee: bool,
    /// Nothing goes out and nothing comes in.
    pub(crate) cut: bool,
    /// Readings of sensor 0, by number from 1.
    pub(crate) readings: Vec<i64>,
    /// Agents that run here.
    pub(crate) running: Vec<AgentId>,
    /// How often an agent began to run here.
    pub(crate) arrivals: u32,
}

pub(crate) struct SoftLeaf {
    pub(crate) controls: Arc<Mutex<Controls>>,
    tasks: [JoinHandle<()>; 2],
    pub(crate) id: NodeId,
}

impl SoftLeaf {
    /// One that has this admission and key, and starts now.
    pub(crate) fn start(admission: &Admission, key: u8, host: SocketAddr) -> SoftLeaf {
        let key = SecretKey::from_bytes([key; 32]);
        let id = key.public().node_id();
        let controls = Arc::new(Mutex::new(Controls::default()));
        let link = Leaf::new(key, admission.clone(), rand::random());
        let profile = Profile {
            name: Name::new("soft").unwrap(),
            sensors: 1,
            actuators: 0,
            status: status(false),
        };
        let body = Body {
            link,
            end: LeafEnd::new(rand::random(), profile).unwrap(),
            guests: HashMap::new(),
            unsent: None,
            controls: Arc::clone(&controls),
            wanted: 0,
            turn: Arc::default(),
        };
        let tasks = [
            tokio::spawn(end_turns(Arc::clone(&body.turn))),
            tokio::spawn(body.run(host)),
        ];
        SoftLeaf {
            controls,
            tasks,
            id,
        }
    }

    pub(crate) fn with<R>(&self, action: impl FnOnce(&mut Controls) -> R) -> R {
        action(&mut self.controls.lock().unwrap())
    }
}

/// Its power is cut: all that it has is gone.
impl Drop for SoftLeaf {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The one that runs now, so that its slice ends.
type Turn = Arc<Mutex<Option<StopHandle>>>;

async fn end_turns(turn: Turn) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        if let Some(stop) = &*turn.lock().unwrap() {
            stop.request();
        }
    }
}

fn status(flees: bool) -> Status {
    Status {
        ready: !flees,
        room_bytes: ROOM_BYTES,
        ..Status::default()
    }
}

struct Body {
    link: Leaf,
    end: LeafEnd,
    guests: HashMap<AgentId, Guest>,
    unsent: Option<Vec<u8>>,
    controls: Arc<Mutex<Controls>>,
    /// Readings up to this number were given to the host.
    wanted: u64,
    turn: Turn,
}

struct Guest {
    instance: Box<dyn Instance>,
    desk: Arc<Desk>,
    runs: bool,
    /// The host wants it.
    called: bool,
    /// The agent has been offered.
    leaving: bool,
    ended: bool,
}

/// What an agent reaches by its calls.
#[derive(Default)]
struct Desk {
    papers: Mutex<Papers>,
    controls: Arc<Mutex<Controls>>,
}

#[derive(Default)]
struct Papers {
    mail: Option<(Received, u32)>,
    /// It has looked, and there was nothing.
    looks: bool,
    asked: bool,
    taken: u64,
    post: Option<(AgentId, Kind, Vec<u8>)>,
    posted: bool,
    answer: Option<PostResult>,
    log: Vec<(u8, Vec<u8>)>,
}

impl Services for Desk {
    fn write_log(&self, stream: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        let stream = u8::from(stream == LogStream::Stderr);
        let mut papers = self.papers.lock().unwrap();
        for piece in bytes.chunks(256) {
            papers.log.push((stream, piece.to_vec()));
        }
        Ok(bytes.len())
    }

    fn log(&self, _: Level, message: &str) {
        self.papers
            .lock()
            .unwrap()
            .log
            .push((4, message.as_bytes().to_vec()));
    }

    fn send(&self, to: Address, kind: MessageKind, payload: &[u8]) -> Result<u64, SendError> {
        let mut papers = self.papers.lock().unwrap();
        match papers.answer.take() {
            Some(PostResult::Sent { sequence }) => return Ok(sequence),
            Some(PostResult::Full) => return Err(SendError::Full),
            Some(PostResult::TooLarge) => return Err(SendError::TooLarge { limit: 0 }),
            Some(PostResult::Unknown) => return Err(SendError::Unknown),
            Some(PostResult::Closed | PostResult::InDoubt) => return Err(SendError::Closed),
            None => {}
        }
        if papers.post.is_none() && !papers.posted {
            let kind = match kind {
                MessageKind::Message => Kind::Send,
                MessageKind::Reply { to } => Kind::Reply { to_sequence: to },
            };
            papers.post = Some((AgentId(to.0), kind, payload.to_vec()));
        }
        Err(SendError::Full)
    }

    fn receive(&self, max_len: usize) -> Receive {
        let mut papers = self.papers.lock().unwrap();
        match papers.mail.take() {
            Some((mail, length)) if length as usize > max_len => {
                papers.mail = Some((mail, length));
                Receive::TooLarge {
                    len: length as usize,
                }
            }
            Some((mail, _)) => {
                papers.taken += 1;
                papers.asked = false;
                Receive::Message(mail)
            }
            None => {
                papers.looks = true;
                Receive::Empty
            }
        }
    }

    fn sense(&self, sensor: u8, after: u64) -> Sensed {
        if sensor != 0 {
            return Sensed::Absent;
        }
        let controls = self.controls.lock().unwrap();
        match controls.readings.get(after as usize) {
            Some(value) => Sensed::Reading(mielin_wasm::Reading {
                number: after + 1,
                time_ns: 0,
                value: *value,
            }),
            None => Sensed::NotYet,
        }
    }

    fn denied(&self, _: &Capability, _: &'static str) {}
}

impl Body {
    async fn run(mut self, host: SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let started = std::time::Instant::now();
        let now = || Instant::from_start(started.elapsed());
        loop {
            let mut datagram = [0; PACKET_BYTES_MAX];
            let received =
                tokio::time::timeout(Duration::from_millis(2), socket.recv(&mut datagram));
            let mut received = received.await.ok().and_then(Result::ok);
            let cut = self.controls.lock().unwrap().cut;
            while let Some(len) = received {
                if !cut {
                    let _ = self.link.handle_packet(now(), &datagram[..len]);
                }
                received = socket.try_recv(&mut datagram).ok();
            }
            self.link.handle_timeout(now());
            while let Some(event) = self.link.poll_event() {
                if let LeafEvent::Restarted { .. } = event {
                    self.end.restarted();
                }
            }
            while let Some(message) = self.link.take() {
                // What was said before the welcome is dropped, as it must be.
                let _ = self.end.handle_message(&message);
                while let Some(event) = self.end.poll_event() {
                    self.happened(event);
                }
            }
            tokio::task::block_in_place(|| self.turn());
            self.say();
            let mut buffer = [0; PACKET_BYTES_MAX];
            while let Some(packet) = self.link.poll_transmit(now(), &mut buffer) {
                if !cut {
                    let _ = socket.send_to(packet, host).await;
                }
            }
        }
    }

    fn happened(&mut self, event: LeafEndEvent) {
        match event {
            LeafEndEvent::Arrived { agent, bytes, .. } => match self.made(agent, &bytes) {
                Some(guest) => {
                    self.guests.insert(agent, guest);
                    self.end.accept(agent).unwrap();
                }
                None => self.end.refuse(agent, Reason::Unsuitable).unwrap(),
            },
            LeafEndEvent::Run { agent, .. } => {
                self.guests.get_mut(&agent).unwrap().runs = true;
                self.controls.lock().unwrap().arrivals += 1;
            }
            LeafEndEvent::HandedOver { agent, .. } | LeafEndEvent::Cancelled { agent, .. } => {
                self.guests.remove(&agent);
            }
            LeafEndEvent::Refused { agent, .. } => {
                let guest = self.guests.get_mut(&agent).unwrap();
                (guest.leaving, guest.called) = (false, false);
            }
            LeafEndEvent::Come { agent } => {
                if let Some(guest) = self.guests.get_mut(&agent) {
                    guest.called = true;
                }
            }
            LeafEndEvent::Mail {
                agent,
                letter,
                length,
                payload,
                ..
            } => {
                let Some(guest) = self.guests.get(&agent) else {
                    return;
                };
                let received = Received {
                    from: Address(letter.from.0),
                    sequence: letter.sequence,
                    kind: match letter.kind {
                        Kind::Send | Kind::Request => MessageKind::Message,
                        Kind::Reply { to_sequence } => MessageKind::Reply { to: to_sequence },
                    },
                    payload,
                };
                guest.desk.papers.lock().unwrap().mail = Some((received, length));
            }
            LeafEndEvent::Posted { agent, result, .. } => {
                if let Some(guest) = self.guests.get(&agent) {
                    let mut papers = guest.desk.papers.lock().unwrap();
                    papers.answer = Some(result);
                    papers.posted = false;
                }
            }
            _ => {}
        }
    }

    fn made(&self, agent: AgentId, bytes: &[u8]) -> Option<Guest> {
        let checkpoint = Checkpoint::decode(bytes, &SnapshotLimits::default()).ok()?;
        let module = Resumable::from_rewritten(checkpoint.module).ok()?;
        let prepared = engine(EngineKind::Wasmi)
            .ok()?
            .prepare(&module, None)
            .ok()?;
        let desk = Arc::new(Desk {
            controls: Arc::clone(&self.controls),
            ..Desk::default()
        });
        let state = HostState::new(Address(agent.0));
        let services = Arc::clone(&desk) as Arc<dyn Services>;
        let mut instance = prepared
            .instantiate(state, services, &Limits::default())
            .ok()?;
        instance.load(&checkpoint.snapshot).ok()?;
        Some(Guest {
            instance,
            desk,
            runs: false,
            called: false,
            leaving: false,
            ended: false,
        })
    }

    fn offer(&mut self, agent: AgentId) {
        let Some(guest) = self.guests.get_mut(&agent) else {
            return;
        };
        let papers = guest.desk.papers.lock().unwrap();
        if guest.leaving || papers.post.is_some() || papers.posted || papers.answer.is_some() {
            return;
        }
        let taken = papers.taken;
        drop(papers);
        let bytes = guest.instance.snapshot().encode();
        guest.leaving = self.end.offer(agent, bytes, taken).is_ok();
    }

    /// A slice for each agent, and what comes of it.
    fn turn(&mut self) {
        let flee = {
            let mut controls = self.controls.lock().unwrap();
            let running = self.guests.iter().filter(|(_, guest)| guest.runs);
            controls.running = running.map(|(agent, _)| *agent).collect();
            controls.flee
        };
        self.end.set_status(status(flee));
        let agents: Vec<AgentId> = self.guests.keys().copied().collect();
        for agent in agents {
            let guest = self.guests.get_mut(&agent).unwrap();
            if guest.runs && !guest.leaving && !guest.ended {
                *self.turn.lock().unwrap() = Some(guest.instance.stop_handle());
                guest.ended = matches!(
                    guest.instance.run(),
                    Outcome::Exited(_) | Outcome::Trapped(_)
                );
                *self.turn.lock().unwrap() = None;
            }
            let leaves = guest.runs && (flee || guest.ended || guest.called);
            let mut papers = guest.desk.papers.lock().unwrap();
            if papers.looks && !papers.asked && papers.mail.is_none() && !guest.leaving {
                papers.asked = self.end.want(agent, papers.taken).is_ok();
            }
            papers.looks = false;
            if let Some((to, kind, payload)) = papers.post.take() {
                match self.end.post(agent, to, kind, &payload) {
                    Ok(_) => papers.posted = true,
                    Err(_) => papers.post = Some((to, kind, payload)),
                }
            }
            while let Some((stream, bytes)) = papers.log.first() {
                if self.end.log(agent, *stream, bytes).is_err() {
                    break;
                }
                papers.log.remove(0);
            }
            let wrote_all = papers.log.is_empty();
            drop(papers);
            if leaves && wrote_all {
                self.offer(agent);
            }
        }
        if let Some(after) = self.end.wanted_readings(0) {
            self.wanted = self.wanted.max(after);
            let value = self
                .controls
                .lock()
                .unwrap()
                .readings
                .get(after as usize)
                .copied();
            if let Some(value) = value {
                let reading = Reading {
                    number: after + 1,
                    time_ns: 0,
                    value,
                };
                let _ = self.end.reading(0, reading);
            }
        }
    }

    fn say(&mut self) {
        while let Some(message) = self.unsent.take().or_else(|| self.end.poll_message()) {
            if self.link.send(&message).is_err() {
                self.unsent = Some(message);
                return;
            }
        }
    }
}
