//! The list of all host functions: module, name, type, and what performs them.
//!
//! `u32` and `u64` in a type stand for wasm's `i32` and `i64`; `()` for no result.

/// Hands the list to the macro `$each`, as
/// `"module" "name" (argument: type, …) -> type = |call| expression;` repeated.
macro_rules! host_functions {
    ($each:ident) => {
        $each! {
            "wasi_snapshot_preview1" "args_get" (pointers: u32, buffer: u32) -> u32 = |call| wasi::program::args_get(call, pointers, buffer);
            "wasi_snapshot_preview1" "args_sizes_get" (count: u32, size: u32) -> u32 = |call| wasi::program::args_sizes_get(call, count, size);
            "wasi_snapshot_preview1" "environ_get" (pointers: u32, buffer: u32) -> u32 = |call| wasi::program::environ_get(call, pointers, buffer);
            "wasi_snapshot_preview1" "environ_sizes_get" (count: u32, size: u32) -> u32 = |call| wasi::program::environ_sizes_get(call, count, size);
            "wasi_snapshot_preview1" "clock_res_get" (id: u32, out: u32) -> u32 = |call| wasi::clock::clock_res_get(call, id, out);
            "wasi_snapshot_preview1" "clock_time_get" (id: u32, precision: u64, out: u32) -> u32 = |call| wasi::clock::clock_time_get(call, id, precision, out);
            "wasi_snapshot_preview1" "fd_advise" (fd: u32, _offset: u64, _len: u64, advice: u32) -> u32 = |call| wasi::file::fd_advise(call, fd, advice);
            "wasi_snapshot_preview1" "fd_allocate" (fd: u32, offset: u64, len: u64) -> u32 = |call| wasi::file::fd_allocate(call, fd, offset, len);
            "wasi_snapshot_preview1" "fd_close" (fd: u32) -> u32 = |call| wasi::descriptor::fd_close(call, fd);
            "wasi_snapshot_preview1" "fd_datasync" (fd: u32) -> u32 = |call| wasi::descriptor::fd_sync(call, fd);
            "wasi_snapshot_preview1" "fd_fdstat_get" (fd: u32, out: u32) -> u32 = |call| wasi::descriptor::fd_fdstat_get(call, fd, out);
            "wasi_snapshot_preview1" "fd_fdstat_set_flags" (fd: u32, flags: u32) -> u32 = |call| wasi::descriptor::fd_fdstat_set_flags(call, fd, flags);
            "wasi_snapshot_preview1" "fd_fdstat_set_rights" (fd: u32, base: u64, inheriting: u64) -> u32 = |call| wasi::descriptor::fd_fdstat_set_rights(call, fd, base, inheriting);
            "wasi_snapshot_preview1" "fd_filestat_get" (fd: u32, out: u32) -> u32 = |call| wasi::descriptor::fd_filestat_get(call, fd, out);
            "wasi_snapshot_preview1" "fd_filestat_set_size" (fd: u32, size: u64) -> u32 = |call| wasi::file::fd_filestat_set_size(call, fd, size);
            "wasi_snapshot_preview1" "fd_filestat_set_times" (fd: u32, accessed: u64, modified: u64, flags: u32) -> u32 = |call| wasi::file::fd_filestat_set_times(call, fd, accessed, modified, flags);
            "wasi_snapshot_preview1" "fd_pread" (fd: u32, vectors: u32, count: u32, offset: u64, out: u32) -> u32 = |call| wasi::file::fd_pread(call, fd, vectors, count, offset, out);
            "wasi_snapshot_preview1" "fd_prestat_get" (fd: u32, out: u32) -> u32 = |call| wasi::directory::fd_prestat_get(call, fd, out);
            "wasi_snapshot_preview1" "fd_prestat_dir_name" (fd: u32, path: u32, len: u32) -> u32 = |call| wasi::directory::fd_prestat_dir_name(call, fd, path, len);
            "wasi_snapshot_preview1" "fd_pwrite" (fd: u32, vectors: u32, count: u32, offset: u64, out: u32) -> u32 = |call| wasi::file::fd_pwrite(call, fd, vectors, count, offset, out);
            "wasi_snapshot_preview1" "fd_read" (fd: u32, vectors: u32, count: u32, out: u32) -> u32 = |call| wasi::stream::fd_read(call, fd, vectors, count, out);
            "wasi_snapshot_preview1" "fd_readdir" (fd: u32, buffer: u32, len: u32, cookie: u64, out: u32) -> u32 = |call| wasi::directory::fd_readdir(call, fd, buffer, len, cookie, out);
            "wasi_snapshot_preview1" "fd_renumber" (from: u32, to: u32) -> u32 = |call| wasi::descriptor::fd_renumber(call, from, to);
            "wasi_snapshot_preview1" "fd_seek" (fd: u32, offset: u64, whence: u32, out: u32) -> u32 = |call| wasi::file::fd_seek(call, fd, offset, whence, out);
            "wasi_snapshot_preview1" "fd_sync" (fd: u32) -> u32 = |call| wasi::descriptor::fd_sync(call, fd);
            "wasi_snapshot_preview1" "fd_tell" (fd: u32, out: u32) -> u32 = |call| wasi::file::fd_tell(call, fd, out);
            "wasi_snapshot_preview1" "fd_write" (fd: u32, vectors: u32, count: u32, out: u32) -> u32 = |call| wasi::stream::fd_write(call, fd, vectors, count, out);
            "wasi_snapshot_preview1" "path_create_directory" (fd: u32, path: u32, len: u32) -> u32 = |call| wasi::path::path_create_directory(call, fd, path, len);
            "wasi_snapshot_preview1" "path_filestat_get" (fd: u32, _flags: u32, path: u32, len: u32, out: u32) -> u32 = |call| wasi::path::path_filestat_get(call, fd, path, len, out);
            "wasi_snapshot_preview1" "path_filestat_set_times" (fd: u32, _look_up: u32, path: u32, len: u32, accessed: u64, modified: u64, flags: u32) -> u32 = |call| wasi::path::path_filestat_set_times(call, fd, path, len, wasi::path::SetTimes { accessed, modified, flags });
            "wasi_snapshot_preview1" "path_link" (fd: u32, _flags: u32, path: u32, len: u32, to: u32, to_path: u32, to_len: u32) -> u32 = |call| wasi::path::path_link(call, wasi::path::Two { from: (fd, path, len), to: (to, to_path, to_len) });
            "wasi_snapshot_preview1" "path_open" (fd: u32, _look_up: u32, path: u32, len: u32, open: u32, base: u64, inheriting: u64, descriptor: u32, out: u32) -> u32 = |call| wasi::path::path_open(call, fd, path, len, wasi::path::Flags { open, base, inheriting, descriptor }, out);
            "wasi_snapshot_preview1" "path_readlink" (fd: u32, path: u32, len: u32, _buffer: u32, _capacity: u32, _out: u32) -> u32 = |call| wasi::path::path_readlink(call, fd, path, len);
            "wasi_snapshot_preview1" "path_remove_directory" (fd: u32, path: u32, len: u32) -> u32 = |call| wasi::path::path_remove_directory(call, fd, path, len);
            "wasi_snapshot_preview1" "path_rename" (fd: u32, path: u32, len: u32, to: u32, to_path: u32, to_len: u32) -> u32 = |call| wasi::path::path_rename(call, wasi::path::Two { from: (fd, path, len), to: (to, to_path, to_len) });
            "wasi_snapshot_preview1" "path_symlink" (target: u32, target_len: u32, fd: u32, path: u32, len: u32) -> u32 = |call| wasi::path::path_symlink(call, (target, target_len), fd, path, len);
            "wasi_snapshot_preview1" "path_unlink_file" (fd: u32, path: u32, len: u32) -> u32 = |call| wasi::path::path_unlink_file(call, fd, path, len);
            "wasi_snapshot_preview1" "poll_oneoff" (subscriptions: u32, events: u32, count: u32, out: u32) -> u32 = |call| wasi::poll::poll_oneoff(call, subscriptions, events, count, out);
            "wasi_snapshot_preview1" "proc_exit" (code: u32) -> () = |call| wasi::program::proc_exit(call, code);
            "wasi_snapshot_preview1" "proc_raise" (signal: u32) -> u32 = |call| wasi::program::proc_raise(call, signal);
            "wasi_snapshot_preview1" "random_get" (buffer: u32, len: u32) -> u32 = |call| wasi::program::random_get(call, buffer, len);
            "wasi_snapshot_preview1" "sched_yield" () -> u32 = |call| wasi::program::sched_yield(call);
            "wasi_snapshot_preview1" "sock_accept" (fd: u32, _flags: u32, _out: u32) -> u32 = |call| wasi::absent::needs_socket(call, fd);
            "wasi_snapshot_preview1" "sock_recv" (fd: u32, _vectors: u32, _count: u32, _flags: u32, _out: u32, _out_flags: u32) -> u32 = |call| wasi::absent::needs_socket(call, fd);
            "wasi_snapshot_preview1" "sock_send" (fd: u32, _vectors: u32, _count: u32, _flags: u32, _out: u32) -> u32 = |call| wasi::absent::needs_socket(call, fd);
            "wasi_snapshot_preview1" "sock_shutdown" (fd: u32, _how: u32) -> u32 = |call| wasi::absent::needs_socket(call, fd);
            "mielin" "abi_version" () -> u32 = |call| mielin::abi_version(call);
            "mielin" "self_id" (out: u32) -> u32 = |call| mielin::self_id(call, out);
            "mielin" "send" (to: u32, payload: u32, len: u32, out: u32) -> u32 = |call| mielin::send(call, to, payload, len, out);
            "mielin" "receive" (buffer: u32, capacity: u32, timeout_ns: u64, out: u32) -> u32 = |call| mielin::receive(call, buffer, capacity, timeout_ns, out);
            "mielin" "reply" (to: u32, sequence: u64, payload: u32, len: u32) -> u32 = |call| mielin::reply(call, to, sequence, payload, len);
            "mielin" "log" (level: u32, text: u32, len: u32) -> u32 = |call| mielin::log(call, level, text, len);
            "mielin" "capabilities" (buffer: u32, capacity: u32, out: u32) -> u32 = |call| mielin::capabilities(call, buffer, capacity, out);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_matmul" (a: u32, b: u32, c: u32, bias: u32, function: u32, accumulate: u32) -> u32 = |call| tensor::matmul(call, [a, b, c], bias, function, accumulate);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_matmul_i8" (a: u32, b: u32, c: u32) -> u32 = |call| tensor::matmul_bytes(call, [a, b, c]);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_map" (function: u32, from: u32, to: u32) -> u32 = |call| tensor::map(call, function, from, to);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_zip" (operation: u32, a: u32, b: u32, to: u32) -> u32 = |call| tensor::zip(call, operation, [a, b, to]);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_reduce" (reduction: u32, from: u32, to: u32) -> u32 = |call| tensor::reduce(call, reduction, from, to);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_softmax" (x: u32) -> u32 = |call| tensor::softmax_rows(call, x);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_norm" (x: u32, gain: u32, offset: u32, epsilon: u32) -> u32 = |call| tensor::norm(call, x, gain, offset, epsilon);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_attention" (queries: u32, keys: u32, values: u32, to: u32, scale: u32, past: u32) -> u32 = |call| tensor::attend(call, [queries, keys, values, to], scale, past);
            #[cfg(feature = "tensor")]
            "mielin" "tensor_embedding" (table: u32, numbers: u32, to: u32) -> u32 = |call| tensor::look_up(call, table, numbers, to);
            "mielin" "sense" (sensor: u32, after: u64, timeout_ns: u64, out: u32) -> u32 = |call| device::sense(call, sensor, after, timeout_ns, out);
            "mielin" "actuate" (actuator: u32, value: u64) -> u32 = |call| device::actuate(call, actuator, value);
            "mielin" "discard" (longer_than: u32, out: u32) -> u32 = |call| mielin::discard(call, longer_than, out);
        }
    };
}
pub(crate) use host_functions;

/// A number type of WebAssembly that host functions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    I32,
    I64,
}

/// What a module must say to import a host function.
pub(crate) struct HostFunction {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    pub(crate) parameters: &'static [Number],
    pub(crate) results: &'static [Number],
}

macro_rules! number {
    (u32) => {
        Number::I32
    };
    (u64) => {
        Number::I64
    };
}

macro_rules! results {
    (u32) => {
        &[Number::I32]
    };
    (()) => {
        &[]
    };
}

macro_rules! list {
    ($($(#[$condition:meta])* $module:literal $name:literal ($($argument:ident: $ty:tt),*) -> $result:tt = $body:expr;)*) => {
        /// Every host function, in the order of the documentation.
        pub(crate) const HOST_FUNCTIONS: &[HostFunction] = &[$($(#[$condition])* HostFunction {
            module: $module,
            name: $name,
            parameters: &[$(number!($ty)),*],
            results: results!($result),
        }),*];
    };
}
host_functions!(list);
