//! The node's data directory: where it is, who may use it, and the settings of its last run.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mielin_mesh::{BootstrapNode, DataDirectory, DirectoryError, LeafConfig};
use mielin_wasm::EngineKind;
use serde::{Deserialize, Serialize};

use crate::args::{Bounds, DialableChoice, NodeArgs, PresetChoice, Switches};
use crate::failure::Failure;

const LOCK_FILE: &str = "daemon.lock";
const SETTINGS_FILE: &str = "node.json";

/// A data directory that this process alone uses, until it is dropped.
pub(crate) struct Home {
    directory: DataDirectory,
    lock: File,
}

/// How the node ran last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) bind: Option<SocketAddr>,
    /// Members to contact first, each as HOST:PORT.
    pub(crate) bootstrap: Vec<String>,
    pub(crate) preset: Option<PresetChoice>,
    pub(crate) dialable: Option<DialableChoice>,
    pub(crate) bounds: Bounds,
    /// Serial lines of leaves, each as it was given.
    pub(crate) leaf_serial: Vec<String>,
    pub(crate) leaf_udp: Option<SocketAddr>,
    pub(crate) switches: Switches,
    /// `wasmtime` or `wasmi`.
    pub(crate) engine: Option<String>,
}

/// The directory that was named, or the user's own.
pub(crate) fn data_dir(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return std::path::absolute(named)
            .map_err(|error| Failure::io(format!("cannot use {}", named.display()), &error));
    }
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .map(|share| share.join("mielin"))
        .ok_or_else(|| {
            Failure::usage("there is no home directory to keep the node's data in")
                .hint("name a directory with --data-dir or MIELIN_DATA_DIR")
        })
}

/// Whether a daemon holds the directory. It does until its process has ended.
pub(crate) fn is_in_use(path: &Path) -> bool {
    let lock = File::open(path.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

impl Home {
    /// Keeps the directory until this process has ended.
    pub(crate) fn keep(self) {
        std::mem::forget(self.lock);
    }

    /// Opens or makes the directory and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Home, Failure> {
        let directory = DataDirectory::open(path)?;
        let lock = take_lock(path)?;
        Ok(Home { directory, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The settings of the last run, with those that were given now in their place.
    pub(crate) fn settings(&self, given: &NodeArgs) -> Result<Settings, Failure> {
        let last: Settings = match self.directory.read(SETTINGS_FILE)? {
            None => Settings::default(),
            Some(json) => serde_json::from_slice(&json).map_err(|error| {
                let file = self.path().join(SETTINGS_FILE);
                Failure::internal(format!("cannot understand {}: {error}", file.display()))
                    .hint("repair the file, or remove it and give --bind again")
            })?,
        };
        let leaves = &given.leaves;
        let (leaf_serial, leaf_udp) = match (&leaves.leaf_serial[..], leaves.leaf_udp) {
            _ if leaves.no_leaves => (Vec::new(), None),
            ([], None) => (last.leaf_serial, last.leaf_udp),
            (lines, udp) => (lines.iter().map(ToString::to_string).collect(), udp),
        };
        Ok(Settings {
            leaf_serial,
            leaf_udp,
            bind: given.bind.or(last.bind),
            bootstrap: if given.bootstrap.is_empty() {
                last.bootstrap
            } else {
                given.bootstrap.iter().map(ToString::to_string).collect()
            },
            preset: given.preset.or(last.preset),
            dialable: given.dialable.or(last.dialable),
            bounds: given.bounds.or(last.bounds),
            switches: given.switches.or(last.switches),
            engine: given
                .engine
                .map(|engine| engine.to_string())
                .or(last.engine),
        })
    }

    pub(crate) fn save(&self, settings: &Settings) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(settings)
            .map_err(|error| Failure::internal(format!("cannot write the settings: {error}")))?;
        Ok(self.directory.write(SETTINGS_FILE, &json)?)
    }
}

impl Settings {
    /// The members to contact first.
    pub(crate) fn bootstrap(&self) -> Result<Vec<BootstrapNode>, Failure> {
        let parse = |text: &String| {
            text.parse().map_err(|error| {
                Failure::usage(format!("`{text}` is no bootstrap node: {error}"))
                    .hint("give others with --bootstrap")
            })
        };
        self.bootstrap.iter().map(parse).collect()
    }

    /// Where leaves reach the node, if anywhere.
    pub(crate) fn leaves(&self) -> Result<Option<LeafConfig>, Failure> {
        if self.leaf_serial.is_empty() && self.leaf_udp.is_none() {
            return Ok(None);
        }
        let parse = |text: &String| {
            text.parse().map_err(|error| {
                Failure::usage(format!("`{text}` is no serial line: {error}"))
                    .hint("give others with --leaf-serial, or none with --no-leaves")
            })
        };
        let lines = self.leaf_serial.iter().map(parse);
        Ok(Some(LeafConfig {
            udp: self.leaf_udp,
            lines: lines.collect::<Result<_, _>>()?,
        }))
    }

    /// Contacts this member too, at every start.
    pub(crate) fn add_bootstrap(&mut self, node: &BootstrapNode) {
        let text = node.to_string();
        if !self.bootstrap.contains(&text) {
            self.bootstrap.push(text);
        }
    }

    pub(crate) fn engine(&self) -> Result<EngineKind, Failure> {
        let engine = self
            .engine
            .as_deref()
            .map_or(Ok(EngineKind::Wasmtime), str::parse);
        engine.map_err(|error| {
            Failure::usage(error.to_string()).hint("choose one with --engine: wasmtime or wasmi")
        })
    }
}

/// Whoever holds the lock is the directory's daemon; its process id is in the file, for people.
fn take_lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK_FILE);
    let failed = |error| Failure::io(format!("cannot lock {}", path.display()), &error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The holder may be about to write it.
            let _ = file.read_to_string(&mut pid);
            let who = match pid.trim() {
                "" => "another daemon".to_owned(),
                pid => format!("the daemon with process id {pid}"),
            };
            return Err(Failure::refused(format!(
                "{who} is using the data directory {}",
                dir.display()
            ))
            .hint("talk to it, stop it, or name another directory with --data-dir"));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Failure {
        match error {
            DirectoryError::Foreign { .. } => Failure::refused(error.to_string())
                .hint("name an empty directory, or one that does not exist, with --data-dir"),
            DirectoryError::Io {
                action,
                path,
                source,
            } => Failure::io(format!("cannot {action} {}", path.display()), &source),
            DirectoryError::NoVersion { .. } => Failure::refused(error.to_string())
                .hint("name another directory with --data-dir, or bring back a copy of this one"),
            DirectoryError::NotOwned { .. } => Failure::refused(error.to_string())
                .hint("`ls -ld` shows whose it is; `chown` gives it to you"),
            DirectoryError::OtherVersion { .. } => Failure::refused(error.to_string()).hint(
                "name another directory with --data-dir, or run the program that wrote this one",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::LeafArgs;

    #[test]
    fn a_directory_has_one_daemon() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = Home::open(dir.path()).expect("the first opens it");
        let failure = Home::open(dir.path()).err().expect("the second is refused");
        assert_eq!(failure.class, crate::failure::Class::Refused);
        assert!(
            failure.message.contains(&std::process::id().to_string()),
            "{failure}"
        );
        drop(home);
        Home::open(dir.path()).expect("free again");
    }

    #[test]
    fn settings_are_kept_until_others_are_given() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = Home::open(dir.path()).expect("opens");
        let none = NodeArgs {
            bind: None,
            bootstrap: Vec::new(),
            preset: None,
            dialable: None,
            bounds: Bounds::default(),
            leaves: LeafArgs::default(),
            switches: Switches::default(),
            engine: None,
            stop_on_stdin_end: false,
        };
        assert_eq!(home.settings(&none).expect("none yet"), Settings::default());
        let given = NodeArgs {
            bind: "127.0.0.1:7".parse().ok(),
            bootstrap: vec!["first.example:9000".parse().expect("a host and a port")],
            preset: Some(PresetChoice::Wan),
            dialable: Some(DialableChoice::No),
            bounds: Bounds {
                agents_max: Some(9),
                ..Bounds::default()
            },
            leaves: LeafArgs {
                leaf_serial: vec!["unix:/tmp/line".parse().expect("a line")],
                leaf_udp: "127.0.0.1:9".parse().ok(),
                no_leaves: false,
            },
            switches: Switches {
                mdns: Some(false),
                ..Switches::default()
            },
            ..none.clone()
        };
        home.save(&home.settings(&given).expect("merges"))
            .expect("saves");
        let again = NodeArgs {
            preset: Some(PresetChoice::Lan),
            bounds: Bounds {
                live_instances_max: Some(0),
                ..Bounds::default()
            },
            ..none.clone()
        };
        let settings = home.settings(&again).expect("reads");
        assert_eq!(settings.bind, given.bind);
        assert_eq!(
            settings.bootstrap().expect("what was given"),
            given.bootstrap
        );
        assert_eq!(settings.preset, Some(PresetChoice::Lan));
        let bounds = Bounds {
            agents_max: Some(9),
            live_instances_max: Some(0),
        };
        assert_eq!(settings.bounds, bounds);
        assert_eq!(settings.dialable, Some(DialableChoice::No));
        assert_eq!(settings.switches, given.switches);
        let leaves = settings.leaves().expect("what was given").expect("some");
        assert_eq!(leaves.lines, given.leaves.leaf_serial);
        assert_eq!(leaves.udp, given.leaves.leaf_udp);
        let without = NodeArgs {
            leaves: LeafArgs {
                no_leaves: true,
                ..LeafArgs::default()
            },
            ..none
        };
        let settings = home.settings(&without).expect("reads");
        assert_eq!(settings.leaves().expect("nothing wrong"), None);
    }
}
