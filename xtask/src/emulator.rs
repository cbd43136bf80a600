//! Emulators that run beside this process, and what they print.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

use crate::command::display;

/// A line without what moves a terminal's cursor and clears its screen, as firmware does.
fn without_controls(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line.trim_end().chars();
    while let Some(char) = rest.next() {
        match char {
            // ECMA-48, 5.4: a sequence ends with the first of these characters.
            '\x1b' if rest.as_str().starts_with('[') => {
                rest.next();
                rest.by_ref().find(|char| ('@'..='~').contains(char));
            }
            char => plain.push(char),
        }
    }
    plain
}

/// A running emulator, which does not outlive its use.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start `{}`", display(command)))?;
        Ok(Self(child))
    }

    /// What it prints, line by line; its standard output is a pipe.
    ///
    /// # Errors
    /// It is none, or was taken before.
    pub(crate) fn lines(&mut self) -> Result<mpsc::Receiver<String>> {
        let stdout = self.0.stdout.take().context("its standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = without_controls(&String::from_utf8_lossy(&line));
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already in most cases, and then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_firmware_leave_the_terminal_alone() {
        let check = |line, plain| assert_eq!(without_controls(line), plain);
        check(
            "\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: starting\r",
            "BdsDxe: starting",
        );
        check("test a::b ... ok", "test a::b ... ok");
        check("cut off\x1b[2", "cut off");
    }
}
