//! What went wrong, in the classes that become exit codes and HTTP statuses.

use std::path::Path;
use std::{fmt, io};

use mielin_cells::{BudgetError, CellsError, ErrorKind};
use mielin_mesh::MeshError;
use mielin_mesh_core::MemberState;
use mielin_safepoint::InstrumentError;
use mielin_wasm::EngineError;
use serde::{Deserialize, Serialize};

/// The class of a failure. Its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    /// A fault of this program or its environment.
    Internal = 1,
    /// The command line or the request is wrong.
    Usage = 2,
    /// Understood and denied.
    Refused = 3,
    /// No such agent, node or file.
    NotFound = 4,
    /// The daemon or a peer does not answer.
    Unreachable = 5,
}

impl Class {
    pub(crate) fn exit_code(self) -> u8 {
        self as u8
    }
}

impl From<ErrorKind> for Class {
    fn from(kind: ErrorKind) -> Class {
        match kind {
            ErrorKind::Usage => Class::Usage,
            ErrorKind::Refused => Class::Refused,
            ErrorKind::NotFound => Class::NotFound,
            ErrorKind::Unreachable => Class::Unreachable,
            ErrorKind::Internal => Class::Internal,
        }
    }
}

/// What may help with a failure that is nobody's intention.
const INTERNAL_HINT: &str =
    "this should not happen; with RUST_LOG=debug the daemon and this command say more about it";

/// Says what happened and what can be done about it.
///
/// In JSON: `{"code","message","hint"}`, where `code` is the class in kebab case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    #[serde(rename = "code")]
    pub(crate) class: Class,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// A failure that does not say yet what can be done about it.
#[must_use]
pub(crate) struct Unadvised {
    class: Class,
    message: String,
}

/// How a failure stands in a JSON document: `{"error": …}`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ErrorDocument {
    pub(crate) error: Failure,
}

impl Unadvised {
    /// Adds what the user can do.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Failure {
        Failure {
            class: self.class,
            message: self.message,
            hint: hint.into(),
        }
    }
}

impl Failure {
    pub(crate) fn of(class: Class, message: impl Into<String>) -> Unadvised {
        Unadvised {
            class,
            message: message.into(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Unadvised {
        Failure::of(Class::Usage, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Unadvised {
        Failure::of(Class::Refused, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Unadvised {
        Failure::of(Class::NotFound, message)
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Unadvised {
        Failure::of(Class::Unreachable, message)
    }

    /// With a hint that fits all faults of the program; [`Failure::hint`] gives a better one.
    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure::of(Class::Internal, message).hint(INTERNAL_HINT)
    }

    /// The same with another hint.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }

    /// A file or directory operation that the operating system denied.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Failure {
        let (class, hint) = match error.kind() {
            io::ErrorKind::NotFound => (Class::NotFound, "check the path"),
            io::ErrorKind::NotADirectory => (
                Class::Usage,
                "a part of that path is a file; name another path",
            ),
            io::ErrorKind::PermissionDenied => (
                Class::Refused,
                "`ls -ld` shows who may; use another path, or run as a user who may",
            ),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
                Class::Internal,
                "make room on that file system and try again",
            ),
            _ => (Class::Internal, INTERNAL_HINT),
        };
        Failure::of(class, format!("{what}: {}", describe(error))).hint(hint)
    }

    /// A file that the command line names and that cannot be read.
    pub(crate) fn input(path: &Path, error: &io::Error) -> Failure {
        let failure = Failure::io(format!("cannot read {}", path.display()), error);
        let class = match failure.class {
            Class::NotFound => Class::NotFound,
            _ => Class::Usage,
        };
        let hint = match error.kind() {
            io::ErrorKind::IsADirectory => "name a file",
            io::ErrorKind::PermissionDenied => "name a file that you may read",
            io::ErrorKind::NotFound => "check the path",
            _ => "name another file",
        };
        Failure {
            class,
            ..failure.hint(hint)
        }
    }
}

/// The operating system's words without Rust's "(os error 2)".
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<CellsError> for Failure {
    fn from(error: CellsError) -> Failure {
        let hint = match &error {
            CellsError::AgentNotFound(_) => "`mielin agent list` shows the agents of the mesh",
            CellsError::AgentAmbiguous { .. } => "`mielin agent list` shows the whole ids",
            CellsError::NodeNotFound(_) => "`mielin mesh status` shows the members",
            CellsError::NodeAmbiguous { .. } => "`mielin mesh status -o json` shows the whole ids",
            CellsError::LeafAwaited(_) => "`mielin mesh leaf list` shows what has come from it",
            CellsError::BadName(_) => "choose another --name, or leave it out to get one",
            CellsError::NameTaken(_) => "choose another --name, or end the other agent first",
            CellsError::BadArgument(_) => "give the program text without zero bytes",
            CellsError::Unwakeable { .. } => {
                "bring that file back from a backup and try again; or end the agent with `mielin agent terminate`, and \
                 go on from a checkpoint with `mielin agent restore`, if there is one"
            }
            CellsError::MemoryBudget { needed, .. } => {
                // Memory comes in pieces of 64 KiB.
                let least = match needed.div_ceil(1024) {
                    kib if kib % 1024 == 0 => format!("{}MiB", kib / 1024),
                    kib => format!("{kib}KiB"),
                };
                let hint = format!("give it at least --budget memory={least}");
                return Failure::of(error.kind().into(), error.to_string()).hint(hint);
            }
            CellsError::Engine(EngineError::OverLimit { .. }) => {
                "make it smaller; the limit is the node's"
            }
            CellsError::BadModule(InstrumentError::AlreadyRewritten) => {
                "give it the module as it was before `mielin wasm instrument`: a node makes it resumable itself"
            }
            CellsError::OtherRewriter { .. } => {
                "use a node with the version of mielin that the agent was stopped under"
            }
            CellsError::BadModule(InstrumentError::ReservedExport(_)) => {
                "give that export another name"
            }
            CellsError::Engine(EngineError::Refused { .. }) => {
                "those are the engine's words; a node with the other one (`--engine`) may take it"
            }
            CellsError::BadModule(InstrumentError::Unsupported { .. }) => {
                "build it for `wasm32-wasip1` without the feature that is named"
            }
            CellsError::BadModule(_) | CellsError::Engine(_) => {
                "an agent is a WASI preview-1 command: a module with `_start`, as clang and rustc build it"
            }
            CellsError::Checkpoint(_) => {
                "name a file that `mielin agent checkpoint` or a bare node of this version wrote, or write it again"
            }
            CellsError::TooLarge { .. } => "make it smaller; the limit is the node's",
            CellsError::Full { .. } => {
                "end an agent or move it to another node, or spawn on another node"
            }
            CellsError::Busy { .. } => "`mielin agent inspect` shows its state",
            CellsError::OnLeaf { .. } => {
                "`mielin agent migrate AGENT NODE` brings it back; on a leaf it can be sent messages, moved and terminated"
            }
            CellsError::AtHost { .. } => {
                "`mielin agent migrate` tries again from there, or brings it elsewhere"
            }
            CellsError::LeafNotReady { .. } | CellsError::NotTaken { .. } => {
                "`mielin mesh leaf list` on its host shows how it is"
            }
            CellsError::NoDisk => "start that node with a data directory",
            CellsError::NotInDoubt(_) => "`mielin agent inspect` shows its state",
            CellsError::Alive(_) => "end it first with `mielin agent terminate`",
            CellsError::Ended(_) => {
                "`mielin agent wait` says how, and `mielin agent logs` prints what it wrote"
            }
            CellsError::SameNode { .. } => "choose another node; `mielin mesh status` shows them",
            CellsError::Unreachable { .. } => {
                "`mielin mesh status` shows who is there; try again when the node is"
            }
            CellsError::Mesh(MeshError::RegistryOff) => "ask a node whose registry is on",
            CellsError::Mesh(_) => "try again in a moment",
            CellsError::Gone(absence) | CellsError::OnItsWay { absence, .. } if absence.revoked => {
                "it is shut out for good; its machine can join again with a new --data-dir, and `mielin mesh revoke` \
                 shows why"
            }
            CellsError::Gone(absence) | CellsError::OnItsWay { absence, .. }
                if absence.state == MemberState::Dead =>
            {
                "it is down, or the network between here and there is; `mielin mesh status` shows who is there, \
                 `mielin daemon` on its machine starts it again"
            }
            CellsError::Gone(_) | CellsError::OnItsWay { .. } => {
                "`mielin daemon` on its machine starts it again; `mielin mesh status` shows who is there"
            }
            CellsError::TimedOut { .. } => {
                "look at its state with `mielin agent inspect`, or give it more time with --timeout"
            }
            CellsError::RolledBack { .. } => {
                "try again, or choose another node; `mielin mesh status` shows them"
            }
            CellsError::InDoubt { .. } => {
                "it is frozen until the target answers: bring that node back, or, if it is gone for good, let the agent go \
                 on with `mielin agent recover`"
            }
            CellsError::MailboxFull(_) => "try again when it has received some of its messages",
            CellsError::Remote { .. } => {
                "the agent's node says so; `mielin agent inspect` shows the agent's state"
            }
            CellsError::ShuttingDown => "`mielin daemon` starts the node again",
            CellsError::Io { what, source } => return Failure::io(what, source),
            CellsError::MigrationOff(_) => {
                "start that node with `--migration on`, or choose another"
            }
            CellsError::Ledger { .. } => {
                "make room on the node's disk if it is full; if the file is damaged, move it away, and the node starts without \
                 what it knows of its agents"
            }
            CellsError::Internal(_) => INTERNAL_HINT,
        };
        Failure::of(error.kind().into(), error.to_string()).hint(hint)
    }
}

impl From<BudgetError> for Failure {
    fn from(error: BudgetError) -> Failure {
        Failure::usage(error.to_string())
            .hint("`mielin agent spawn --help` shows budgets, such as --budget cpu=20%,messages=100/s,memory=64MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_command_line_names_wrongly_is_a_fault_of_the_command_line() {
        for (kind, class) in [
            (io::ErrorKind::NotFound, Class::NotFound),
            (io::ErrorKind::PermissionDenied, Class::Usage),
            (io::ErrorKind::IsADirectory, Class::Usage),
        ] {
            let failure = Failure::input(Path::new("/some/file"), &kind.into());
            assert_eq!(failure.class, class, "{failure}");
            assert!(failure.message.contains("/some/file"), "{failure}");
        }
    }
}
