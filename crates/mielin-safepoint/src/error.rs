//! Why a module cannot be made resumable.

use alloc::string::String;
use core::fmt;

/// A function, by index and by the name that the module's name section gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionName {
    /// Index in the module's function index space.
    pub index: u32,
    /// Name, if the module has one for it.
    pub name: Option<String>,
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "function {} ({name:?})", self.index),
            None => write!(f, "function {}", self.index),
        }
    }
}

/// What a module uses that a resumable program cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// An instruction of this proposal (`exceptions`, `threads`, `gc`, ...).
    Proposal(&'static str),
    /// A type, a tag or the form of a section that this proposal adds.
    Definition(&'static str),
    /// A memory with 64-bit addresses, or shared, or with its own page size.
    MemoryKind(&'static str),
    /// More than one memory.
    SeveralMemories,
    /// Something other than a function of numbers is imported.
    Import {
        /// `memory`, `table`, `global`, `tag` or `function of references`.
        kind: &'static str,
        /// Module name of the import.
        module: String,
        /// Name of the import.
        name: String,
    },
    /// A type that is neither a number, a vector, nor a plain `funcref` or `externref`.
    Type,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Feature::Proposal(name) => write!(f, "an instruction of the {name} proposal"),
            Feature::Definition(name) => write!(f, "a definition of the {name} proposal"),
            Feature::MemoryKind(kind) => write!(f, "a {kind} memory"),
            Feature::SeveralMemories => write!(f, "more than one memory"),
            Feature::Import { kind, module, name } => {
                write!(f, "the imported {kind} {module:?} {name:?}")
            }
            Feature::Type => write!(f, "a type beyond numbers, vectors, funcref and externref"),
        }
    }
}

/// Why [`instrument`](crate::instrument) or
/// [`Resumable::from_rewritten`](crate::Resumable::from_rewritten) refused a module. The module
/// is at fault in every case but [`InstrumentError::Internal`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstrumentError {
    /// Not a WebAssembly module, or not a valid one.
    #[error("not a valid WebAssembly module: {message} (at offset {offset:#x})")]
    Invalid {
        /// What the validator said.
        message: String,
        /// Offset in the module.
        offset: usize,
    },
    /// A component instead of a core module.
    #[error("this is a component, not a core WebAssembly module")]
    Component,
    /// There is no exported function `_start` without parameters and results.
    #[error("the module exports no function _start: () -> (), so it is not a command")]
    NoStart,
    /// The module uses what a resumable program cannot have.
    #[error("{}{feature} cannot be made resumable", Within(.function))]
    Unsupported {
        /// Where, if it is in a function.
        function: Option<FunctionName>,
        /// What.
        feature: Feature,
    },
    /// The program exports a name that [`abi`](crate::abi) reserves.
    #[error("the module exports the reserved name {0:?}")]
    ReservedExport(String),
    /// The module was rewritten already; use
    /// [`Resumable::from_rewritten`](crate::Resumable::from_rewritten).
    #[error("the module has been made resumable already")]
    AlreadyRewritten,
    /// The rewritten module would exceed what engines accept.
    #[error("{}the rewritten code would be too large: more than {limit} {what}", Within(.function))]
    TooLarge {
        /// Where, if it is in a function.
        function: Option<FunctionName>,
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// Bytes that claim to be a rewritten module do not follow [`abi`](crate::abi).
    #[error("not a rewritten module: {0}")]
    NotRewritten(&'static str),
    /// The module was rewritten for another version of [`abi`](crate::abi).
    #[error("the module was rewritten for interface version {found}, this is version {expected}")]
    Version {
        /// What the module says.
        found: u32,
        /// [`abi::VERSION`](crate::abi::VERSION).
        expected: u32,
    },
    /// The rewriter produced an invalid module: a fault in this crate.
    #[error("internal error: the rewritten module is invalid: {0}")]
    Internal(String),
}

struct Within<'a>(&'a Option<FunctionName>);

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(function) => write!(f, "in {function}: "),
            None => Ok(()),
        }
    }
}

impl From<wasmparser::BinaryReaderError> for InstrumentError {
    fn from(error: wasmparser::BinaryReaderError) -> InstrumentError {
        InstrumentError::Invalid {
            message: String::from(error.message()),
            offset: error.offset(),
        }
    }
}
