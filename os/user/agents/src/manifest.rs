//! What an agent is granted, and begins with: lines of a key and a value.
//!
//! | key | value |
//! |---|---|
//! | `allow` | capabilities, separated by spaces: those of `mielin agent spawn --allow` |
//! | `argument` | an argument; one line for each |
//! | `input` | the file that is its standard input |
//! | `cpu` | percent of the processor that it has at most |

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

/// What an agent is granted, and begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) allow: Vec<String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) input: Option<String>,
    pub(crate) cpu_percent: Option<u8>,
}

impl Manifest {
    /// Reads one, or gives the line that is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut manifest = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || line.to_string();
            let (key, value) = line.split_once(' ').ok_or_else(wrong)?;
            let value = value.trim().to_string();
            match key {
                "allow" => manifest
                    .allow
                    .extend(value.split_whitespace().map(str::to_string)),
                "argument" => manifest.arguments.push(value),
                "input" => manifest.input = Some(value),
                "cpu" => {
                    let percent = value
                        .parse()
                        .ok()
                        .filter(|percent| (1..=100).contains(percent));
                    manifest.cpu_percent = Some(percent.ok_or_else(wrong)?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(manifest)
    }

    /// Whether it may send messages of its own accord, to anybody.
    pub(crate) fn may_send(&self) -> bool {
        self.allow
            .iter()
            .any(|one| one == "message" || one.starts_with("message:"))
    }

    /// Whether it may send messages of its own accord to this address.
    pub(crate) fn may_send_to(&self, address: &[u8; 16]) -> bool {
        self.allow
            .iter()
            .any(|one| match one.strip_prefix("message:") {
                Some(hex) => *hex == hexadecimal(address),
                None => one == "message",
            })
    }

    /// What the agent's program is told, in lines of a key and a value.
    pub(crate) fn specification(&self, name: &str, address: &[u8; 16], goes_on: bool) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            // Writing into memory does not fail.
            let _ = writeln!(text, "{key} {value}");
        };
        line("name", name);
        line("address", &hexadecimal(address));
        line("begin", if goes_on { "checkpoint" } else { "module" });
        for one in &self.allow {
            line("allow", one);
        }
        for one in &self.arguments {
            line("argument", one);
        }
        text
    }
}

fn hexadecimal(address: &[u8; 16]) -> String {
    let mut hex = String::new();
    for byte in address {
        // Writing into memory does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
