//! What went wrong, in the classes that become exit codes and HTTP statuses.

use std::fmt;

use mielin_cells::{CellsError, ErrorKind};
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

/// Says what happened and, where something can be done about it, what.
///
/// In JSON: `{"code","message","hint"}`, where `code` is the class in kebab case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    #[serde(rename = "code")]
    pub(crate) class: Class,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// How a failure stands in a JSON document: `{"error": …}`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ErrorDocument {
    pub(crate) error: Failure,
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Failure {
        Failure {
            class,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Class::Usage, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Class::Refused, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Class::NotFound, message)
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Failure {
        Failure::new(Class::Unreachable, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure::new(Class::Internal, message)
    }

    /// Adds what the user can do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// A file or directory operation that the operating system denied.
    pub(crate) fn io(what: impl fmt::Display, error: &std::io::Error) -> Failure {
        let class = match error.kind() {
            std::io::ErrorKind::NotFound => Class::NotFound,
            std::io::ErrorKind::PermissionDenied => Class::Refused,
            _ => Class::Internal,
        };
        Failure::new(class, format!("{what}: {}", describe(error)))
    }
}

/// The operating system's words without Rust's "(os error 2)".
fn describe(error: &std::io::Error) -> String {
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
        let failure = Failure::new(error.kind().into(), error.to_string());
        match error {
            CellsError::AgentNotFound(_) => failure.hint("`mielin agent list` shows the agents of the mesh"),
            CellsError::NodeNotFound(_) => failure.hint("`mielin mesh status` shows the members"),
            CellsError::NameTaken(_) => failure.hint("choose another --name, or end the other agent first"),
            CellsError::SameNode { .. } => failure.hint("choose another node; `mielin mesh status` shows them"),
            CellsError::TimedOut { .. } => {
                failure.hint("look at its state with `mielin agent inspect`, or give it more time with --timeout")
            }
            CellsError::Alive(_) => failure.hint("end it first with `mielin agent terminate`"),
            CellsError::Ended(_) => failure.hint("`mielin agent logs` still prints what it wrote"),
            CellsError::BadModule(_) => {
                failure.hint("an agent is a WASI preview-1 command: a module with `_start`, as clang and rustc build it")
            }
            _ => failure,
        }
    }
}
