//! Codes of errors.

use core::fmt;

/// A code of RFC 1350 or RFC 2347, or one that neither knows, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// What no other code says: see the message.
    pub const UNDEFINED: ErrorCode = ErrorCode(0);
    /// File not found.
    pub const NOT_FOUND: ErrorCode = ErrorCode(1);
    /// Access violation.
    pub const ACCESS: ErrorCode = ErrorCode(2);
    /// Disk full or allocation exceeded.
    pub const FULL: ErrorCode = ErrorCode(3);
    /// Illegal TFTP operation.
    pub const ILLEGAL: ErrorCode = ErrorCode(4);
    /// Unknown transfer identifier: the sender has no transfer here.
    pub const UNKNOWN_TRANSFER: ErrorCode = ErrorCode(5);
    /// File already exists.
    pub const EXISTS: ErrorCode = ErrorCode(6);
    /// No such user.
    pub const NO_USER: ErrorCode = ErrorCode(7);
    /// The options that were acknowledged are not those that were asked for (RFC 2347).
    pub const OPTIONS: ErrorCode = ErrorCode(8);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ErrorCode::UNDEFINED => f.write_str("error"),
            ErrorCode::NOT_FOUND => f.write_str("file not found"),
            ErrorCode::ACCESS => f.write_str("access violation"),
            ErrorCode::FULL => f.write_str("disk full or allocation exceeded"),
            ErrorCode::ILLEGAL => f.write_str("illegal operation"),
            ErrorCode::UNKNOWN_TRANSFER => f.write_str("unknown transfer"),
            ErrorCode::EXISTS => f.write_str("file already exists"),
            ErrorCode::NO_USER => f.write_str("no such user"),
            ErrorCode::OPTIONS => f.write_str("options refused"),
            ErrorCode(code) => write!(f, "error {code}"),
        }
    }
}
