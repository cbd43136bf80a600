//! The whole system: for a person, who sits at its console, and for the tests.
//!
//! The tests sit at the console, too, and at the other end of the network: see [`peer`].

use std::io::Write;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mielin_transfer::{Client, Wanted};

use super::host::Host;
use super::peer::{self, Peer};
use super::{Arch, image, machine};
use crate::command::display;
use crate::emulator::Running;
use crate::workspace::Workspace;

/// The host's port behind which a person's system has TFTP.
const TRANSFER_PORT: u16 = 6969;

/// Runs the system with this terminal as its console, until it ends.
///
/// # Errors
/// Something does not build, or the machine ends with a failure.
pub(super) fn run(workspace: &Workspace, arch: Arch) -> Result<()> {
    let image = image::system(workspace, arch)?;
    let mut command = machine::command(arch, &machine::for_system(arch), &image)?;
    command
        .args(machine::card(arch))
        .arg("-netdev")
        .arg(format!(
            "user,id={},hostfwd=udp:127.0.0.1:{TRANSFER_PORT}-:69",
            machine::NETWORK
        ))
        .args(["-serial", "mon:stdio"]);
    let line = display(&command);
    eprintln!("os: stored agents are files at tftp://127.0.0.1:{TRANSFER_PORT}/ of this machine");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    match status.code() {
        Some(code) if code == arch.success() || code == 0 => Ok(()),
        _ => bail!(
            "the system has failed ({status}); if QEMU could not forward port {TRANSFER_PORT}, another system runs already"
        ),
    }
}

/// How long the system may take to begin, and an answer of its to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// After so long without an answer, a line is typed again.
const AGAIN: Duration = Duration::from_secs(5);
/// Rounds of the sample `digest`: some seconds on an emulated machine.
const ROUNDS: &str = "30000";
/// By then an agent is in the middle of them.
const MIDDLE: &str = "digest: round 1500 of 30000";
/// A stored agent has fewer bytes.
const STORED_BYTES_MAX: u64 = 16 << 20;

/// Runs the system, and tries all of it: the services, the samples, the network, and agents that cross to a node of this host and back in the
/// middle of a loop.
///
/// # Errors
/// Something does not do what it should.
pub(super) fn check(workspace: &Workspace, arch: Arch, image: &Path) -> Result<()> {
    eprintln!("os: the system on {}", machine::for_system(arch).name);
    let mut system = System::start(arch, image)?;
    system.wait_for("shell:")?;
    system.peer.check_answers(peer::GUEST, PATIENCE)?;
    system.services_begin_again()?;
    system.samples_run()?;
    system.agents_cross(workspace, arch)?;
    system.shut_down(arch)
}

/// Runs the system with a program in place of the agents' that has broken out of WebAssembly, and sees what it finds.
///
/// # Errors
/// It finds something, or the system does not do what it should.
pub(super) fn check_walls(arch: Arch, image: &Path) -> Result<()> {
    eprintln!("os: the walls on {}", machine::for_system(arch).name);
    let mut system = System::start(arch, image)?;
    system.wait_for("shell:")?;
    for _ in 0..2 {
        system.say("start hello")?;
        system.wait_for("hello: nothing was found")?;
        system.wait_for("hello: failed: Page fault")?;
    }
    system.ask("services", "agents     runs      0 restarts")?;
    system.shut_down(arch)
}

/// A machine that runs the system.
struct System {
    machine: Running,
    lines: Receiver<String>,
    console: ChildStdin,
    peer: Peer,
}

impl System {
    fn start(arch: Arch, image: &Path) -> Result<Self> {
        let peer = Peer::new()?;
        let mut command = machine::command(arch, &machine::for_system(arch), image)?;
        command
            .args(peer.arguments(arch))
            .args(["-monitor", "none", "-serial", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut machine = Running::start(&mut command)?;
        Ok(Self {
            lines: machine.lines()?,
            console: machine.0.stdin.take().context("its standard input")?,
            machine,
            peer,
        })
    }

    /// Types a line.
    fn say(&mut self, line: &str) -> Result<()> {
        self.console.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Waits for a line with this text.
    fn wait_for(&self, text: &str) -> Result<()> {
        ensure!(
            self.says(text, PATIENCE)?,
            "the system has not said {text:?}"
        );
        Ok(())
    }

    /// Whether a line with this text comes in so much time.
    fn says(&self, text: &str, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    println!("{line}");
                    if line.contains(text) {
                        return Ok(true);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => bail!("the system has ended"),
            }
        }
    }

    /// Types a line until the answer has this text: the console's device drops what is typed while its server begins.
    fn ask(&mut self, line: &str, answer: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.say(line)?;
            if self.says(answer, AGAIN)? {
                return Ok(());
            }
        }
        bail!("the system has not answered {answer:?} to {line:?}")
    }

    /// Each service that fails is started again, and serves.
    fn services_begin_again(&mut self) -> Result<()> {
        self.say("fail net")?;
        self.wait_for("net was started again")?;
        self.peer.check_answers(peer::GUEST, PATIENCE)?;
        self.say("fail console")?;
        self.wait_for("console was started again")?;
        self.ask("services", "shell      runs")?;
        self.say("fail shell")?;
        self.wait_for("shell was started again")?;
        self.wait_for("shell:")?;
        self.say("start counter")?;
        self.wait_for("counter runs")?;
        for service in ["agents", "pages"] {
            self.say(&format!("fail {service}"))?;
            self.wait_for("agents was started again")?;
            self.wait_for("agents: there is memory for")?;
            self.ask("start counter", "counter runs")?;
        }
        self.say("stop counter")?;
        self.wait_for("counter is no more")?;
        self.say("fail transfer")?;
        self.wait_for("transfer: stored agents are files")?;
        self.ask("services", "transfer   runs")
    }

    fn samples_run(&mut self) -> Result<()> {
        self.say("start hello")?;
        self.wait_for("hello: argument 1: MielinOS")?;
        self.wait_for("hello: ended with code 0")?;
        self.say("start counter")?;
        self.wait_for("counter runs")?;
        self.say("send counter one")?;
        self.wait_for("counter answers: 1: one")?;
        self.say("freeze counter")?;
        self.wait_for("counter: stored, ")?;
        self.say("resume counter")?;
        self.wait_for("counter goes on")?;
        self.say("send counter stop")?;
        self.wait_for("counter answers: 2: stop")?;
        self.wait_for("counter: ended with code 0")?;
        Ok(())
    }

    /// An agent leaves for the host in the middle of a loop, and another one comes from there.
    fn agents_cross(&mut self, workspace: &Workspace, arch: Arch) -> Result<()> {
        let host = Host::start(workspace, arch.name())?;
        let expected = host.digest(ROUNDS)?;

        self.say(&format!("start digest leaves -- {ROUNDS}"))?;
        self.wait_for(MIDDLE)?;
        self.say("freeze leaves")?;
        self.wait_for("leaves: stored, ")?;
        let left = self.transfer(Client::get(
            server(),
            "leaves",
            Wanted::default(),
            STORED_BYTES_MAX,
        )?)?;
        let resumed = host.resume("leaves", &left.into_content())?;
        ensure!(
            resumed == expected,
            "what had begun on the microkernel ended on the host as\n{resumed}\nand not as\n{expected}"
        );

        let checkpoint = host.digest_in_the_middle(ROUNDS, MIDDLE)?;
        self.what_is_no_agent_is_refused(&checkpoint)?;
        self.transfer(Client::put(
            server(),
            "comes",
            checkpoint,
            Wanted::default(),
        )?)?;
        self.wait_for("comes: came, ")?;
        self.say("resume comes")?;
        for line in expected.lines() {
            self.wait_for(&format!("comes: {line}"))?;
        }
        self.wait_for("comes: ended with code 0")?;
        Ok(())
    }

    /// A part of an agent does not begin, and stays what it was; what is too large does not come.
    fn what_is_no_agent_is_refused(&mut self, checkpoint: &[u8]) -> Result<()> {
        let half = checkpoint[..checkpoint.len() / 2].to_vec();
        self.transfer(Client::put(server(), "half", half, Wanted::default())?)?;
        self.wait_for("half: came, ")?;
        for _ in 0..2 {
            self.say("resume half")?;
            self.wait_for("half: could not begin")?;
        }
        self.ask("stop half", "half is no more")?;
        let large = vec![0; 7 << 20];
        let large = self.transfer(Client::put(server(), "large", large, Wanted::default())?);
        ensure!(large.is_err(), "the system has taken 7 MiB as an agent");
        Ok(())
    }

    /// Reads or writes a file of the guest.
    fn transfer(&mut self, mut client: Client) -> Result<Client> {
        let began = Instant::now();
        let now = || began.elapsed().as_millis() as u64;
        let first = client.start(now()).bytes.to_vec();
        self.peer.send(SERVER, &first)?;
        while client.outcome().is_none() {
            let due = client.poll_timeout().unwrap_or(0).saturating_sub(now());
            let arrived = self.peer.receive(Duration::from_millis(due))?;
            let answer = match &arrived {
                Some((from, bytes)) => client.handle_datagram(now(), (*from).into(), bytes),
                None => client.handle_timeout(now()),
            };
            if let Some(answer) = answer {
                self.peer.send(SERVER, answer.bytes)?;
            }
        }
        match client.outcome() {
            Some(Err(error)) => bail!("the transfer has failed: {error}"),
            _ => Ok(client),
        }
    }

    fn shut_down(mut self, arch: Arch) -> Result<()> {
        self.say("shutdown")?;
        let deadline = Instant::now() + PATIENCE;
        // Its output ends with it.
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            println!("{line}");
        }
        ensure!(Instant::now() < deadline, "the system does not end");
        let status = self.machine.0.wait()?;
        match status.code() {
            Some(code) if code == arch.success() => Ok(()),
            _ => bail!("the system has failed ({status})"),
        }
    }
}

/// The guest's TFTP.
const SERVER: SocketAddrV4 = SocketAddrV4::new(peer::GUEST, 69);

fn server() -> SocketAddr {
    SERVER.into()
}
