//! `cargo xtask firmware`: builds the images for boards with a Cortex-M, runs them under QEMU, and says how large they are.
//!
//! - [`boards`]: the boards, and how an image is built for one and run on it.
//! - [`leaf`]: the other end of a board's line, and what is tried on that line.
//! - [`size`]: flash and RAM of the images.

mod boards;
mod leaf;
mod size;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mielin_page::Page;

use self::boards::Board;
pub(crate) use self::boards::{IMAGES, flags};
use crate::command::{display, run as run_command};
use crate::emulator::Running;
use crate::trials::Trial;
use crate::workspace::Workspace;

/// How long a board may run.
const PATIENCE: Duration = Duration::from_secs(120);

/// The line by which the suite asks for bytes, and the bytes.
const ASKS: &str = "suite: send mielin";
const ANSWER: &[u8] = b"mielin";

/// What `firmware` is told.
#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// Run the runtime's tests on a board; the exit status says whether all passed
    #[command(after_help = "\
Examples:
  cargo xtask firmware test --board mps2-an386")]
    Test(On),
    /// Build an image, and say where it is
    #[command(after_help = "\
Examples:
  cargo xtask firmware build --board mps2-an386 --image node")]
    Build(Build),
    /// Run an image that holds on to a host, under QEMU, until it is stopped
    ///
    /// The board's serial line is a Unix socket at which this listens, for `mielin mesh start --leaf-serial unix:PATH`; its
    /// console is standard output. Who the board is says a provisioning page (`mielin mesh leaf add NAME --page FILE`), which is
    /// given a new seed at each start.
    #[command(after_help = "\
Examples:
  cargo xtask firmware run --board mps2-an386 --page board.page --line /tmp/line")]
    Run(Emulate),
    /// Say how much flash and RAM the images take
    #[command(after_help = "\
Examples:
  cargo xtask firmware size -o json")]
    Size(size::Options),
}

/// Which board.
#[derive(clap::Args)]
pub(crate) struct On {
    /// The board
    #[arg(long)]
    board: Board,
}

/// Which image for which board.
#[derive(clap::Args)]
pub(crate) struct Build {
    /// The board
    #[arg(long)]
    board: Board,
    /// The image: suite, runtime, link or node
    #[arg(long)]
    image: Image,
}

/// An image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Image {
    /// The tests of the runtime
    Suite,
    /// The runtime alone
    Runtime,
    /// The runtime and the leaf link
    Link,
    /// A node that runs agents
    Node,
}

impl Image {
    const fn name(self) -> &'static str {
        match self {
            Self::Suite => "suite",
            Self::Runtime => "runtime",
            Self::Link => "link",
            Self::Node => "node",
        }
    }
}

/// A board that holds on to a host.
#[derive(clap::Args)]
pub(crate) struct Emulate {
    /// The board: mps2-an386 or mps2-an505
    #[arg(long)]
    board: Board,
    /// The image: link or node
    #[arg(long, default_value = "node")]
    image: Image,
    /// The file with the provisioning page
    #[arg(long)]
    page: PathBuf,
    /// Where the board's serial line is to be
    #[arg(long)]
    line: PathBuf,
}

/// Does what was asked for.
///
/// # Errors
/// A compiler or QEMU is missing and cannot be installed here, something does not build, or not all tests passed.
pub(crate) fn run(workspace: &Workspace, task: &Task) -> Result<()> {
    match task {
        Task::Test(On { board }) => {
            test(*board, &boards::build(workspace, *board, "suite")?)?;
            if board.is_leaf() {
                leaf::Trial::build(workspace, *board)?.run()?;
            }
            Ok(())
        }
        Task::Build(Build { board, image }) => {
            let built = boards::build(workspace, *board, image.name())?;
            println!("{}", built.display());
            Ok(())
        }
        Task::Run(options) => emulate(workspace, options),
        Task::Size(options) => size::run(workspace, options),
    }
}

/// Becomes the emulator, so that whoever ends this process ends that.
fn emulate(workspace: &Workspace, options: &Emulate) -> Result<()> {
    let Emulate {
        board,
        image,
        page,
        line,
    } = options;
    if !board.is_leaf() || !matches!(image, Image::Link | Image::Node) {
        bail!("only the images `link` and `node` hold on to a host, on mps2-an386 and mps2-an505");
    }
    let image = boards::build(workspace, *board, image.name())?;
    reseed(page)?;
    let ends = boards::Ends {
        line,
        listens: true,
    };
    let mut command = boards::leaf_command(*board, &image, ends, Some(page))?;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", display(&command)))
}

/// Gives a page another seed: an emulator starts with cold memory, in which no count of starts is left.
fn reseed(path: &Path) -> Result<()> {
    let about = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(about)?;
    let page = Page::decode(&bytes)
        .with_context(|| format!("{} is no provisioning page", path.display()))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    // In its place, so that nobody else can read it now.
    let file = std::fs::OpenOptions::new().write(true).open(path);
    let mut file = file.with_context(about)?;
    file.write_all(&page.with_seed(seed).encode())
        .with_context(about)
}

/// All boards, for `cargo xtask test`.
pub(crate) fn trials(workspace: &Workspace) -> impl Iterator<Item = Trial<'_>> {
    let on_boards = Board::ALL.into_iter().map(move |board| -> Trial<'_> {
        Box::new(move || {
            let image = boards::build(workspace, board, "suite")?;
            Ok(Box::new(move || test(board, &image)))
        })
    });
    let size: Trial<'_> = Box::new(move || {
        size::check(workspace)?;
        Ok(Box::new(|| Ok(())))
    });
    // One is enough for each change: the other is the same code for another processor, which the suite tries, and two more
    // images take minutes.
    let leaves = Board::ALL.into_iter().find(|board| board.is_leaf());
    let leaves = leaves.into_iter().map(move |board| -> Trial<'_> {
        Box::new(move || {
            let trial = leaf::Trial::build(workspace, board)?;
            Ok(Box::new(move || trial.run()))
        })
    });
    on_boards.chain(leaves).chain([size])
}

/// The example of an agent that leaves a dying sensor, as a test, with what the tests of the workspace have built.
///
/// # Errors
/// It does not build, or a reading was lost or doubled.
pub(crate) fn example(workspace: &Workspace) -> Result<()> {
    // With an example, so that the features are those of the tests, and nothing is compiled again.
    let build = ["build", "--quiet", "--locked", "--workspace"];
    let targets = [
        "--example",
        "converse",
        "--bin",
        "mielin",
        "--bin",
        "embedded-iot",
    ];
    run_command(workspace.cargo().args(build).args(targets))?;
    let built = workspace.target().join("debug");
    let mut example = std::process::Command::new(built.join("embedded-iot"));
    example
        .args(["-o", "json", "--relay"])
        .arg(built.join("mielin"));
    run_command(example.current_dir(workspace.root()))
}

/// Runs the suite on a board and shows what it prints.
fn test(board: Board, image: &Path) -> Result<()> {
    eprintln!("firmware: the suite on {}", board.name());
    let mut command = boards::command(board, image)?;
    command
        .args(["-serial", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let line = display(&command);
    let mut machine = Running::start(&mut command)?;
    let mut console = machine.0.stdin.take().context("its standard input")?;
    let lines = machine.lines()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                println!("{line}");
                if line == ASKS {
                    console.write_all(ANSWER)?;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("`{line}` did not end in {PATIENCE:?}"),
        }
    }
    let status = machine.0.wait()?;
    if !status.success() {
        bail!("{} has failed ({status}): `{line}`", board.name());
    }
    Ok(())
}
