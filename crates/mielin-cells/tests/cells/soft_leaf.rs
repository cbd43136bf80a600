//! A leaf in software: all that a microcontroller runs but its drivers, on a Unix socket for a serial line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mielin_leaf::{BatteryTraits, Devices, Line, LineEvent, Node, Parts, Recording, Report};
use mielin_mesh_core::leaf::{
    Admission, FRAME_BYTES_MAX, FrameDecoder, Leaf, PACKET_BYTES_MAX, SecretKey, frame,
};
use mielin_mesh_core::{AgentId, Instant, Name, NodeId};
use mielin_wasm::{Hosted, StopHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What sensor 0 measures, again and again.
pub(crate) const SERIES: [i32; 4] = [20_500, 21_000, 20_750, 19_000];
const PERIOD: Duration = Duration::from_millis(10);

/// What a test does to it and sees of it.
#[derive(Default)]
pub(crate) struct Controls {
    /// The battery loses this much of it, in percent.
    pub(crate) drain: u64,
    /// So many frames cross the line, in both directions together, and then none: `None` for no limit.
    pub(crate) frames_left: Option<u64>,
    /// The same from the moment on in which it offers an agent to its host.
    pub(crate) frames_of_offer: Option<u64>,
    /// The charger gives this much.
    pub(crate) charge: u64,
    /// The agents that are here, running or not.
    pub(crate) guests: Vec<AgentId>,
    /// What it said on its console.
    pub(crate) console: Vec<String>,
}

pub(crate) struct SoftLeaf {
    controls: Arc<Mutex<Controls>>,
    tasks: [JoinHandle<()>; 2],
    pub(crate) id: NodeId,
}

impl SoftLeaf {
    /// One that has this admission and key, listens at `path`, and starts now.
    pub(crate) fn start(admission: &Admission, key: u8, path: &Path) -> SoftLeaf {
        let key = SecretKey::from_bytes([key; 32]);
        let id = key.public().node_id();
        let controls = Arc::new(Mutex::new(Controls::default()));
        let sensor = Recording::new(&SERIES, PERIOD, Instant::START, 0);
        let parts = Parts {
            name: Name::new("soft").unwrap(),
            boot: rand::random(),
            platform: &Hosted,
            devices: Devices::new(vec![sensor], 1),
            battery: BatteryTraits {
                capacity: 100,
                awake_ms: 1,
                asleep_ms: 0,
                line_byte: 0,
                charger_ms: 1,
                charger_at_percent: 10,
                full_percent: 90,
            },
            room: |_| true,
        };
        let body = Body {
            node: Node::new(parts).unwrap(),
            line: Line::new(Leaf::new(key, admission.clone(), rand::random())),
            unsent: None,
            controls: Arc::clone(&controls),
            turn: Turn::default(),
            started: std::time::Instant::now(),
        };
        // Another may have listened there before.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let tasks = [
            tokio::spawn(end_turns(Arc::clone(&body.turn))),
            tokio::spawn(body.run(listener)),
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

    /// How often it has let an agent run.
    pub(crate) fn arrivals(&self) -> usize {
        self.with(|leaf| {
            let lines = leaf.console.iter();
            lines.filter(|line| line.contains(" runs")).count()
        })
    }
}

/// Its power is cut: all that it has is gone.
impl Drop for SoftLeaf {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Brings the packets of the line at `path` to a host that takes datagrams, and its own back.
pub(crate) async fn over_udp(path: PathBuf, host: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(host).await.unwrap();
    let mut line = UnixStream::connect(path).await.unwrap();
    let mut decoder = FrameDecoder::new();
    let (mut bytes, mut datagram) = ([0; 4096], [0; PACKET_BYTES_MAX]);
    loop {
        tokio::select! {
            read = line.read(&mut bytes) => {
                let Ok(len @ 1..) = read else { return };
                let mut bytes = &bytes[..len];
                while let Some(packet) = decoder.next_packet(&mut bytes) {
                    socket.send(packet).await.unwrap();
                }
            }
            received = socket.recv(&mut datagram) => {
                let len = received.unwrap();
                let mut framed = [0; FRAME_BYTES_MAX];
                let framed = frame(&datagram[..len], &mut framed);
                line.write_all(framed).await.unwrap();
            }
        }
    }
}

/// Whether the line carries this, and counts it if it is the end of a frame.
fn may_cross(controls: &Mutex<Controls>, ends_frame: bool) -> bool {
    match &mut controls.lock().unwrap().frames_left {
        None => true,
        Some(0) => false,
        Some(left) => {
            *left -= u64::from(ends_frame);
            true
        }
    }
}

/// The agent that runs now, so that its slice ends.
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

struct Body {
    node: Node,
    line: Line,
    unsent: Option<Vec<u8>>,
    controls: Arc<Mutex<Controls>>,
    turn: Turn,
    started: std::time::Instant,
}

impl Body {
    async fn run(mut self, listener: UnixListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            self.serve(stream).await;
        }
    }

    fn now(&self) -> Instant {
        Instant::from_start(self.started.elapsed())
    }

    /// Until the host closes the line.
    async fn serve(&mut self, stream: UnixStream) {
        let (mut read, mut write) = stream.into_split();
        let mut bytes = [0; 4096];
        loop {
            let waited = tokio::time::timeout(Duration::from_millis(1), read.read(&mut bytes));
            match waited.await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(len)) => {
                    for byte in &bytes[..len] {
                        // A zero ends a frame.
                        if self.may_cross(*byte == 0) {
                            self.line.receive(self.now(), *byte);
                        }
                    }
                }
                Err(_) => {}
            }
            let now = self.now();
            self.line.handle_time(now, false);
            self.hear();
            self.node.handle_time(now);
            self.use_power(now);
            tokio::task::block_in_place(|| self.give_turn());
            self.say(now);
            let mut frame = [0; FRAME_BYTES_MAX];
            while let Some(frame) = self.line.poll_frame(now, &mut frame) {
                let crosses = may_cross(&self.controls, true);
                if crosses && write.write_all(frame).await.is_err() {
                    return;
                }
            }
        }
    }

    fn may_cross(&self, ends_frame: bool) -> bool {
        may_cross(&self.controls, ends_frame)
    }

    fn hear(&mut self) {
        while let Some(event) = self.line.poll_event() {
            if let LineEvent::Restarted { .. } = event {
                self.unsent = None;
                self.node.restarted();
            }
        }
        while let Some(message) = self.line.take() {
            // What was said before the welcome is dropped, as it must be.
            self.node.handle_message(&message);
        }
    }

    fn use_power(&mut self, now: Instant) {
        let (drain, charge) = {
            let mut controls = self.controls.lock().unwrap();
            controls.guests = self.node.guests().map(|(agent, _)| agent).collect();
            let taken = (controls.drain, controls.charge);
            (controls.drain, controls.charge) = (0, 0);
            taken
        };
        self.node.handle_battery(now, drain, charge, 0);
    }

    fn give_turn(&mut self) {
        let turn = Arc::clone(&self.turn);
        self.node.turn(|stop| *turn.lock().unwrap() = Some(stop));
        *turn.lock().unwrap() = None;
    }

    fn say(&mut self, now: Instant) {
        while let Some(report) = self.node.poll_report() {
            let mut controls = self.controls.lock().unwrap();
            if let Report::Offered { .. } = report
                && let Some(frames) = controls.frames_of_offer.take()
            {
                controls.frames_left = Some(frames);
            }
            controls.console.push(report.to_string());
        }
        while let Some(message) = self.unsent.take().or_else(|| self.node.poll_message()) {
            if self.line.send(now, &message).is_err() {
                self.unsent = Some(message);
                break;
            }
        }
    }
}
