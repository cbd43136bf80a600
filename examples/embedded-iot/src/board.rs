//! The board: its firmware, which `cargo xtask` builds, and QEMU.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

/// Lines of the console that are shown if something goes wrong.
const LINES_KEPT: usize = 40;

/// How the console says what share of its time the board was asleep.
const ASLEEP: &str = " permille asleep";

/// A board that runs, and ends with this value.
pub(crate) struct Board {
    emulator: Child,
    console: Arc<Mutex<Vec<String>>>,
    asleep_permille: Arc<Mutex<Option<u64>>>,
}

/// Builds the firmware.
pub(crate) fn build(board: &str) -> Result<()> {
    let built = xtask(&["build", "--board", board, "--image", "node"])
        .stdout(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "the firmware could not be built");
    Ok(())
}

impl Board {
    /// Starts a board with this provisioning page, whose serial line is the Unix socket at `line`.
    pub(crate) fn start(board: &str, page: &Path, line: &Path) -> Result<Board> {
        let mut emulator = xtask(&["run", "--board", board, "--image", "node", "--page"])
            .arg(page)
            .arg("--line")
            .arg(line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let stdout = emulator.stdout.take().context("the board's console")?;
        let started = Board {
            emulator,
            console: Arc::default(),
            asleep_permille: Arc::default(),
        };
        let (console, asleep) = (
            Arc::clone(&started.console),
            Arc::clone(&started.asleep_permille),
        );
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let permille = text.split_once(ASLEEP).and_then(|(before, _)| {
                    let digits = before.split_whitespace().next_back()?;
                    digits.parse().ok()
                });
                if permille.is_some() {
                    *asleep.lock().unwrap_or_else(PoisonError::into_inner) = permille;
                }
                let mut lines = console.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINES_KEPT {
                    lines.remove(0);
                }
                lines.push(text);
            }
        });
        Ok(started)
    }

    /// The share of its time that the board was asleep, in thousandths, as it said last.
    pub(crate) fn asleep_permille(&self) -> Option<u64> {
        *self
            .asleep_permille
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has printed last.
    pub(crate) fn console(&self) -> String {
        let lines = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        lines.join("\n")
    }

    /// Fails if the board runs no more.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.emulator.try_wait()? {
            bail!("it ended ({status}); its console:\n{}", self.console());
        }
        Ok(())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // It has ended already if something went wrong.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

fn xtask(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args(["xtask", "firmware"])
        .args(arguments);
    command
}
