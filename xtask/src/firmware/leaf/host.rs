//! A host on a Unix socket, by the cores that a relay has, too.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mielin_mesh_core::handover::HostEnd;
use mielin_mesh_core::leaf::{
    Admission, FRAME_BYTES_MAX, FrameDecoder, HostEventKind, LeafHost, LeafNumber,
    PACKET_BYTES_MAX, SecretKey, frame,
};
use mielin_mesh_core::limits::LEAF_HOST_QUEUE_MAX;

/// The one leaf.
const NUMBER: LeafNumber = LeafNumber(1);
/// How long a turn waits for bytes.
const TURN: Duration = Duration::from_millis(5);

/// The host of one leaf.
pub(super) struct Host {
    listener: UnixListener,
    line: Option<UnixStream>,
    core: LeafHost<()>,
    decoder: FrameDecoder,
    admission: Admission,
    began: Instant,
    connections: usize,
    /// What is said of agents, if the leaf knows any.
    end: Option<HostEnd>,
}

/// 32 bytes that differ for each name and use, as nothing is secret between a trial and its emulator.
pub(super) fn secret(name: &str, usage: &str) -> [u8; 32] {
    *blake3::hash(format!("{name} {usage}").as_bytes()).as_bytes()
}

impl Host {
    /// Begins to listen at a path, instead of whoever has listened there before.
    pub(super) fn listen(path: &Path) -> Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
        listener.set_nonblocking(true)?;
        let name = path.display().to_string();
        let key = SecretKey::from_bytes(secret(&name, "host"));
        let mut core = LeafHost::new(key, secret(&name, "mesh"), secret(&name, "entropy"));
        let admission = core.admit(NUMBER, secret(&name, "admission"), None)?;
        Ok(Self {
            listener,
            line: None,
            core,
            decoder: FrameDecoder::new(),
            admission,
            began: Instant::now(),
            connections: 0,
            end: None,
        })
    }

    /// What the leaf has to know.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Waits for the emulator.
    pub(super) fn accept(&mut self, deadline: Instant) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((line, _)) => {
                    line.set_nonblocking(false)?;
                    line.set_read_timeout(Some(TURN))?;
                    self.line = Some(line);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("the line"),
            }
            if Instant::now() > deadline {
                bail!("the emulator has not opened its line");
            }
            std::thread::yield_now();
        }
    }

    /// Takes in what has come, waiting a moment for it, and sends what is due.
    pub(super) fn turn(&mut self) -> Result<()> {
        let line = self.line.as_mut().context("there is no line")?;
        let mut bytes = [0; 4096];
        let got = match line.read(&mut bytes) {
            Ok(0) => bail!("the emulator has closed its line"),
            Ok(got) => got,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(error) => return Err(error).context("the line"),
        };
        let now = now(self.began);
        for byte in &bytes[..got] {
            if let Some(packet) = self.decoder.push(*byte) {
                // What is dropped was damaged on purpose, or comes from a leaf that is not admitted.
                let _ = self.core.handle_packet(now, (), packet);
            }
        }
        while let Some(event) = self.core.poll_event() {
            match event.kind {
                HostEventKind::Connected { .. } => self.connections += 1,
                HostEventKind::Restarted { .. } => {
                    if let Some(end) = &mut self.end {
                        end.restarted();
                    }
                }
                _ => {}
            }
        }
        if let Some(end) = &mut self.end {
            // As many as the events of one message are handled before the next.
            if let Some(message) = self.core.take(NUMBER) {
                end.handle_message(&message)?;
            }
            while self.core.unacknowledged(NUMBER) < LEAF_HOST_QUEUE_MAX
                && let Some(message) = end.poll_message(0)
            {
                self.core.send(NUMBER, &message)?;
            }
        }
        self.core.handle_timeout(now);
        let mut packet = [0; PACKET_BYTES_MAX];
        let mut framed = [0; FRAME_BYTES_MAX];
        while let Some(((), packet)) = self.core.poll_transmit(now, &mut packet) {
            line.write_all(frame(packet, &mut framed))?;
        }
        Ok(())
    }

    /// From here on messages are those of agents.
    pub(super) fn agents(&mut self) -> &mut HostEnd {
        self.end.get_or_insert_default()
    }

    /// How often the leaf has connected.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    /// Takes a message for the leaf.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.core.send(NUMBER, message)?)
    }

    /// The leaf's next message.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.core.take(NUMBER)
    }

    /// Writes bytes on the line that nobody has framed, the same each time.
    pub(super) fn write_garbage(&mut self, bytes: u32) -> Result<()> {
        let noise = (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8);
        let noise: Vec<u8> = noise.collect();
        let line = self.line.as_mut().context("there is no line")?;
        Ok(line.write_all(&noise)?)
    }
}

/// The time since a beginning, for the core.
fn now(began: Instant) -> mielin_mesh_core::Instant {
    mielin_mesh_core::Instant::from_start(began.elapsed())
}
