//! How much of the node one program may use.

/// Bounds on one program. Exceeding one is an error to whoever asked: the guest (`memory.grow`
/// gives −1, a message gives `EMSGSIZE`) or the spawner (a module that is too large).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest size of the program's memory, in bytes. The stack frames that it leaves behind
    /// when it is suspended are in a memory of their own, of fixed size, which does not count.
    pub memory_bytes: u64,
    /// The largest number of elements in each of its tables.
    pub table_elements: usize,
    /// The largest rewritten module, in bytes.
    pub module_bytes: usize,
    /// The largest payload of a message, either way.
    pub message_bytes: usize,
    /// How many bytes of each stream the program may write to its log. Kept by
    /// [`Services::write_log`](crate::Services::write_log), which knows what the log holds.
    pub log_bytes: u64,
    /// The largest sum of arguments, environment and standard input, in bytes.
    pub input_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            table_elements: 1 << 20,
            module_bytes: MODULE_BYTES_MAX,
            message_bytes: 16 << 20,
            log_bytes: 64 << 20,
            // Below what a snapshot may hold of host state by default.
            input_bytes: 48 << 20,
        }
    }
}

/// No engine prepares a module larger than this, whatever the limits say.
pub const MODULE_BYTES_MAX: usize = 64 << 20;

/// Bytes of native stack that a program may use while it runs. The thread that calls
/// [`Instance::run`](crate::Instance::run) must have at least [`THREAD_STACK_BYTES`].
pub const WASM_STACK_BYTES: usize = 1 << 20;

/// The smallest stack for a thread that runs programs: the program's own part and the host's.
pub const THREAD_STACK_BYTES: usize = 2 << 20;

/// What `/data` may hold if it is granted without a size, in bytes.
pub(crate) const DATA_BYTES: u64 = 64 << 20;

/// No `/data` may hold more: it is kept in the node's memory, and in a move must cross within its time.
pub const DATA_BYTES_MAX: u64 = 512 << 20;
