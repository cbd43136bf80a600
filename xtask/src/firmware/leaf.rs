//! The other end of a board's line, and what is tried on that line.
//!
//! - [`host`]: a host on a Unix socket, by the cores that a relay has, too.
//! - [`agents`]: agents that go to the board and come back.

mod agents;
mod host;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mielin_mesh_core::leaf::{MESSAGE_BYTES_MAX, SecretKey};
use mielin_page::Page;

use self::host::Host;
use super::boards::{self, Board};
use crate::emulator::Running;
use crate::workspace::Workspace;

/// How long a board may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is tried on one board.
pub(super) struct Trial {
    board: Board,
    link: PathBuf,
    node: PathBuf,
    /// Where sockets and pages are.
    folder: PathBuf,
}

/// A board that runs an image, with its line.
struct Leaf {
    _machine: Running,
    console: Receiver<String>,
    host: Host,
}

impl Trial {
    /// Builds the images.
    ///
    /// # Errors
    /// It does not build.
    pub(super) fn build(workspace: &Workspace, board: Board) -> Result<Self> {
        let folder = workspace.output().join("firmware/leaf").join(board.name());
        fs::create_dir_all(&folder)?;
        let readings = folder.join("readings.csv");
        fs::write(&readings, agents::readings())?;
        Ok(Self {
            board,
            link: boards::build(workspace, board, "link")?,
            node: boards::build_with(workspace, board, "node", Some(&readings))?,
            folder,
        })
    }

    /// Tries all of it.
    ///
    /// # Errors
    /// Something is not as it should be.
    pub(super) fn run(&self) -> Result<()> {
        eprintln!("firmware: the line of {}", self.board.name());
        self.messages().context("messages and garbage")?;
        self.wrong_key().context("a wrong key")?;
        self.no_page().context("no page")?;
        let mut leaf = self.start(&self.node, "agents", |page| Some(page.encode().to_vec()))?;
        agents::run(&mut leaf).context("agents")
    }

    /// It connects and says back what it is told, and garbage on the line does no harm.
    fn messages(&self) -> Result<()> {
        let mut leaf = self.start(&self.link, "messages", |page| Some(page.encode().to_vec()))?;
        leaf.sees("link: connected")?;
        leaf.echoes(&[0, 1, 17, 200, MESSAGE_BYTES_MAX])?;
        leaf.host.write_garbage(8 << 10)?;
        leaf.echoes(&[MESSAGE_BYTES_MAX; 12])?;
        ensure!(leaf.host.connections() == 1, "it has connected anew");
        Ok(())
    }

    /// A leaf whose secret is not the host's is not connected, says so, and does nothing else.
    fn wrong_key(&self) -> Result<()> {
        let mut leaf = self.start(&self.link, "wrong-key", |page| {
            let mut admission = page.admission().clone();
            admission.secret[0] ^= 1;
            let wrong = Page::new(page.name(), page.key().clone(), admission, *page.seed());
            wrong.ok().map(|page| page.encode().to_vec())
        })?;
        leaf.sees("link: refused: the host has another secret for the admission")?;
        ensure!(leaf.host.connections() == 0, "it is connected all the same");
        Ok(())
    }

    /// A board without a page, or with a damaged one, says so and sleeps.
    fn no_page(&self) -> Result<()> {
        let mut leaf = self.start(&self.link, "no-page", |_| None)?;
        leaf.sees("cannot be used: there is none; asleep until a reset")?;
        let mut leaf = self.start(&self.link, "damaged-page", |page| {
            let mut bytes = page.encode().to_vec();
            bytes[100] ^= 1;
            Some(bytes)
        })?;
        leaf.sees("cannot be used: it is damaged; asleep until a reset")
    }

    /// Starts the board with the page that is made of the right one.
    fn start(
        &self,
        image: &Path,
        name: &str,
        make: impl FnOnce(&Page) -> Option<Vec<u8>>,
    ) -> Result<Leaf> {
        let socket = self.folder.join(format!("{name}.line"));
        let mut host = Host::listen(&socket)?;
        let key = SecretKey::from_bytes(host::secret(name, "key"));
        let seed = host::secret(name, "seed");
        let page = Page::new(self.board.name(), key, host.admission().clone(), seed)?;
        let file = self.folder.join(format!("{name}.page"));
        let bytes = make(&page);
        if let Some(bytes) = &bytes {
            fs::write(&file, bytes)?;
        }
        let page: Option<&Path> = bytes.as_ref().map(|_| file.as_path());
        let ends = boards::Ends {
            line: &socket,
            listens: false,
        };
        let mut command = boards::leaf_command(self.board, image, ends, page)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut machine = Running::start(&mut command)?;
        let console = machine.lines()?;
        host.accept(Instant::now() + PATIENCE)?;
        Ok(Leaf {
            _machine: machine,
            console,
            host,
        })
    }
}

impl Leaf {
    /// Waits until the console has a line that contains this; shows all lines.
    fn sees(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.host.turn()?;
            if self.lines().any(|line| line.contains(text)) {
                return Ok(());
            }
        }
        bail!("the console does not say {text:?} in {PATIENCE:?}")
    }

    /// What the console has said, which is shown.
    fn lines(&self) -> impl Iterator<Item = String> {
        self.console.try_iter().inspect(|line| println!("{line}"))
    }

    /// Sends messages of these sizes, and waits until all have come back, in order.
    fn echoes(&mut self, sizes: &[usize]) -> Result<()> {
        let message = |(index, size): (usize, &usize)| vec![index as u8; *size];
        let sent: Vec<_> = sizes.iter().enumerate().map(message).collect();
        for message in &sent {
            self.host.send(message)?;
        }
        let deadline = Instant::now() + PATIENCE;
        for expected in sent {
            let got = loop {
                if let Some(got) = self.host.take() {
                    break got;
                }
                ensure!(Instant::now() < deadline, "no answer in {PATIENCE:?}");
                self.host.turn()?;
            };
            ensure!(
                got == expected,
                "{} bytes have come back changed",
                got.len()
            );
        }
        Ok(())
    }
}
