//! The programs that the tests run.

/// Imports, memory and `$print(address, length)`.
fn program(memory_pages: u32, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
        (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
        (import "mielin" "send" (func $send (param i32 i32 i32 i32) (result i32)))
        (import "mielin" "reply" (func $reply (param i32 i64 i32 i32) (result i32)))
        (memory (export "memory") {memory_pages})
        (func $print (param $at i32) (param $len i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (local.get $len))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        (func $hex (param $value i64) (param $at i32)
            (local $digit i32) (local $index i32)
            (loop $next
                (local.set $digit (i32.wrap_i64 (i64.and (local.get $value) (i64.const 15))))
                (i32.store8
                    (i32.add (local.get $at) (i32.sub (i32.const 15) (local.get $index)))
                    (i32.add
                        (local.get $digit)
                        (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $digit) (i32.const 9)))))
                (local.set $value (i64.shr_u (local.get $value) (i64.const 4)))
                (local.set $index (i32.add (local.get $index) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $index) (i32.const 16)))))
        {body})"#
    );
    wat::parse_str(&text).unwrap()
}

/// Says of itself that it has been rewritten, and counts for ever without a poll.
pub(crate) fn deaf() -> Vec<u8> {
    let text = r#"(module
        (@custom "mielin.safepoint" (before first) "\02\00\00\00")
        (memory (export "memory") 1 1)
        (memory (export "mielin:frames") 64 64)
        (global (export "mielin:mode") (mut i32) (i32.const 0))
        (func $run (export "mielin:run") (export "_start")
            (loop $again
                (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                (br $again))))"#;
    let deaf = wat::parse_str(text).unwrap();
    // Nothing but the missing polls tells it from one that was rewritten.
    mielin_safepoint::Resumable::from_rewritten(deaf.clone()).unwrap();
    deaf
}

/// Calls a function of more locals than wasmi takes once a message has come, and exits with 5.
pub(crate) fn large_when_told() -> Vec<u8> {
    let locals = " i64".repeat(33_000);
    let body = format!(
        r#"(func $large (result i32) (local{locals}) (local.set 32999 (i64.const 5)) (i32.wrap_i64 (local.get 32999)))
        (func (export "_start")
            (drop (call $receive (i32.const 1024) (i32.const 4096) (i64.const -1) (i32.const 16)))
            (call $proc_exit (call $large)))"#
    );
    program(1, &body)
}

/// Says hello and exits with 3.
pub(crate) fn hello() -> Vec<u8> {
    program(
        1,
        r#"(data (i32.const 64) "hello\n")
        (func (export "_start") (call $print (i32.const 64) (i32.const 6)) (call $proc_exit (i32.const 3)))"#,
    )
}

/// Clears a page that its module has data in, says so, waits for a message, and ends with what is in the page then.
pub(crate) fn cleared() -> Vec<u8> {
    program(
        2,
        r#"(data (i32.const 256) "x") (data (i32.const 12288) "\2a")
        (func (export "_start")
            (memory.fill (i32.const 12288) (i32.const 0) (i32.const 4096))
            (call $print (i32.const 256) (i32.const 1))
            (drop (call $receive (i32.const 65536) (i32.const 4096) (i64.const -1) (i32.const 16)))
            (call $proc_exit (i32.load8_u (i32.const 12288))))"#,
    )
}

/// Fills 4 MiB, says so, and then writes half of it with what is there already, until a message comes.
pub(crate) fn rewriting() -> Vec<u8> {
    program(
        64,
        r#"(data (i32.const 256) "x")
        (func $write (param $at i32) (param $end i32)
            (loop $next
                (i64.store (local.get $at) (i64.extend_i32_u (local.get $at)))
                (local.set $at (i32.add (local.get $at) (i32.const 64)))
                (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))
        (func (export "_start")
            (call $write (i32.const 65536) (i32.const 4194304))
            (call $print (i32.const 256) (i32.const 1))
            (loop $again
                (call $write (i32.const 2097152) (i32.const 4194304))
                (br_if $again (call $receive (i32.const 1024) (i32.const 64) (i64.const 0) (i32.const 16)))))"#,
    )
}

/// Fills 2 MiB in turn with ones and with zeros, page by page, and ends with 1 if a page is not as it left it; with 0 when
/// a message comes. Says so when the first turn is over.
pub(crate) fn blinking() -> Vec<u8> {
    program(
        64,
        r#"(data (i32.const 256) "x")
        (func (export "_start")
            (local $at i32) (local $old i64)
            (loop $again
                (local.set $at (i32.const 2097152))
                (loop $next
                    (if (i64.ne (i64.load offset=2048 (local.get $at)) (local.get $old))
                        (then (call $proc_exit (i32.const 1))))
                    (memory.fill (local.get $at) (i32.wrap_i64 (i64.xor (local.get $old) (i64.const -1))) (i32.const 4096))
                    (local.set $at (i32.add (local.get $at) (i32.const 4096)))
                    (br_if $next (i32.lt_u (local.get $at) (i32.const 4194304))))
                (local.set $old (i64.xor (local.get $old) (i64.const -1)))
                (if (i32.load8_u (i32.const 256))
                    (then
                        (call $print (i32.const 256) (i32.const 1))
                        (i32.store8 (i32.const 256) (i32.const 0))))
                (br_if $again (call $receive (i32.const 1024) (i32.const 64) (i64.const 0) (i32.const 16)))))"#,
    )
}

/// Never ends and never calls anything.
pub(crate) fn spin() -> Vec<u8> {
    program(1, r#"(func (export "_start") (loop $again (br $again)))"#)
}

/// Makes its memory larger until that is refused, and ends with its size in pages.
pub(crate) fn growing() -> Vec<u8> {
    program(
        1,
        r#"(func (export "_start")
            (loop $again (br_if $again (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0))))
            (call $proc_exit (memory.size)))"#,
    )
}

/// Divides by zero.
pub(crate) fn trap() -> Vec<u8> {
    program(
        1,
        r#"(func (export "_start") (drop (i32.div_u (i32.const 1) (i32.load (i32.const 512)))))"#,
    )
}

/// Writes every message's payload as a line and replies with the same; ends with code 0 at `stop`.
///
/// Received: address at 16, sequence at 32, kind at 48, length at 52; the payload at 65536.
pub(crate) fn echo() -> Vec<u8> {
    program(
        4,
        r#"(func (export "_start")
            (local $len i32)
            (loop $again
                (drop (call $receive (i32.const 65536) (i32.const 131072) (i64.const -1) (i32.const 16)))
                (local.set $len (i32.load (i32.const 52)))
                (i32.store8 (i32.add (i32.const 65536) (local.get $len)) (i32.const 10))
                (call $print (i32.const 65536) (i32.add (local.get $len) (i32.const 1)))
                (drop (call $reply (i32.const 16) (i64.load (i32.const 32)) (i32.const 65536) (local.get $len)))
                (br_if $again
                    (i32.ne (i32.load (i32.const 65536)) (i32.const 0x706f7473)))))"#,
    )
}

/// Writes `begin`, waits so long for a message, and ends with 5 if none came.
pub(crate) fn patient(wait_ms: u64) -> Vec<u8> {
    program(
        1,
        &format!(
            r#"(data (i32.const 64) "begin\n")
            (func (export "_start")
                (call $print (i32.const 64) (i32.const 6))
                (if (call $receive (i32.const 1024) (i32.const 64) (i64.const {}) (i32.const 16))
                    (then (call $proc_exit (i32.const 5)))))"#,
            wait_ms * 1_000_000
        ),
    )
}

/// Waits for a message with an address and a count, sends that many numbered messages there, 16 digits each, and
/// then `stop`; needs the capability `message`.
pub(crate) fn talker() -> Vec<u8> {
    talking("")
}

/// The same, and then waits for a message.
pub(crate) fn announcer() -> Vec<u8> {
    talking(
        "(drop (call $receive (i32.const 65536) (i32.const 4096) (i64.const -1) (i32.const 16)))",
    )
}

fn talking(then: &str) -> Vec<u8> {
    let body = format!(
        r#"(data (i32.const 256) "stop")
        (func (export "_start")
            (local $index i64) (local $count i64)
            (drop (call $receive (i32.const 65536) (i32.const 4096) (i64.const -1) (i32.const 16)))
            (local.set $count (i64.load (i32.const 65552)))
            (loop $again
                (call $hex (local.get $index) (i32.const 128))
                (drop (call $send (i32.const 65536) (i32.const 128) (i32.const 16) (i32.const 200)))
                (local.set $index (i64.add (local.get $index) (i64.const 1)))
                (br_if $again (i64.lt_u (local.get $index) (local.get $count))))
            (drop (call $send (i32.const 65536) (i32.const 256) (i32.const 4) (i32.const 200)))
            {then})"#
    );
    program(2, &body)
}

/// Steps of [`compute`] between two lines, and of [`ledger`], which is followed for longer.
const STEPS: u64 = 1 << 14;
const LEDGER_STEPS: u64 = 1 << 11;
const FACTOR: u64 = 6_364_136_223_846_793_005;

/// Computes for ever in a table of `words` 64-bit words behind `fill` MiB of used memory, and writes a line of 16
/// digits after each [`STEPS`]; ends with code 7 at the first message.
pub(crate) fn compute(words: u32, fill: u32) -> Vec<u8> {
    computing(
        words,
        fill,
        STEPS,
        r#"(br_if $line (call $receive (i32.const 1024) (i32.const 1024) (i64.const 0) (i32.const 16)))"#,
    )
}

/// The same, but waits 10 ms for a message after each line, writes what comes as a line of its own, and ends with
/// code 7 at `stop`. Messages must be shorter than the lines of the computation.
pub(crate) fn ledger(words: u32, fill: u32) -> Vec<u8> {
    computing(
        words,
        fill,
        LEDGER_STEPS,
        r#"(br_if $line (call $receive (i32.const 1024) (i32.const 1024) (i64.const 10000000) (i32.const 16)))
        (local.set $at (i32.load (i32.const 52)))
        (i32.store8 (i32.add (i32.const 1024) (local.get $at)) (i32.const 10))
        (call $print (i32.const 1024) (i32.add (local.get $at) (i32.const 1)))
        (br_if $line (i32.ne (i32.load (i32.const 1024)) (i32.const 0x706f7473)))"#,
    )
}

/// Computes, with `$line` as the loop and `between` after each line.
fn computing(words: u32, fill: u32, steps: u64, between: &str) -> Vec<u8> {
    assert!(words.is_power_of_two());
    let table = 65536 + fill * (1 << 20);
    let pages = table / 65536 + (words * 8).div_ceil(65536);
    let body = format!(
        r#"(func (export "_start")
            (local $x i64) (local $step i32) (local $at i32)
            (local.set $at (i32.const 65536))
            (block $filled
                (loop $fill
                    (br_if $filled (i32.ge_u (local.get $at) (i32.const {table})))
                    (i64.store (local.get $at) (i64.extend_i32_u (local.get $at)))
                    (local.set $at (i32.add (local.get $at) (i32.const 2048)))
                    (br $fill)))
            (local.set $x (i64.const 1))
            (loop $line
                (local.set $step (i32.const {steps}))
                (loop $again
                    (local.set $at (i32.add (i32.const {table}) (i32.shl
                        (i32.and (i32.wrap_i64 (i64.shr_u (local.get $x) (i64.const 40))) (i32.const {mask}))
                        (i32.const 3))))
                    (local.set $x (i64.add
                        (i64.mul (local.get $x) (i64.const {FACTOR}))
                        (i64.add (i64.load (local.get $at)) (i64.const 1))))
                    (i64.store (local.get $at) (local.get $x))
                    (local.set $step (i32.sub (local.get $step) (i32.const 1)))
                    (br_if $again (local.get $step)))
                (call $hex (local.get $x) (i32.const 128))
                (i32.store8 (i32.const 144) (i32.const 10))
                (call $print (i32.const 128) (i32.const 17))
                {between})
            (call $proc_exit (i32.const 7)))"#,
        mask = words - 1,
    );
    program(pages, &body)
}

/// The first `lines` lines that [`compute`] writes.
pub(crate) fn computed(words: u32, lines: usize) -> String {
    results(words, STEPS, lines)
}

/// The first `lines` lines that [`ledger`] writes of its own accord.
pub(crate) fn recorded(words: u32, lines: usize) -> String {
    results(words, LEDGER_STEPS, lines)
}

fn results(words: u32, steps: u64, lines: usize) -> String {
    let mut table = vec![0_u64; words as usize];
    let (mut x, mut text) = (1_u64, String::new());
    for _ in 0..lines {
        for _ in 0..steps {
            let word = &mut table[(x >> 40) as usize & (words as usize - 1)];
            x = x.wrapping_mul(FACTOR).wrapping_add(word.wrapping_add(1));
            *word = x;
        }
        text.push_str(&format!("{x:016x}\n"));
    }
    text
}
