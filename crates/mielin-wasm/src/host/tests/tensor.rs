//! The tensor functions: results, what is refused, and calls that are interrupted.

use super::*;
use crate::host::tensor;
use crate::state::Pending;

const F32: u32 = 0;
const I8: u32 = 1;
const I32: u32 = 2;
const INVALID: u32 = 28;
const FAULT: u32 = 21;
const TOO_LARGE: u32 = 35;

impl Bench {
    /// Describes a matrix at `at`; gives `at`.
    fn matrix(&mut self, at: u32, words: [u32; 6]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(at, &bytes);
        at
    }

    /// Puts floats at `at`, and describes them as rows that are contiguous.
    fn floats(&mut self, description: u32, at: u32, shape: [u32; 2], floats: &[f32]) -> u32 {
        let bytes: Vec<u8> = floats
            .iter()
            .flat_map(|float| float.to_le_bytes())
            .collect();
        self.put(at, &bytes);
        self.matrix(description, [at, F32, shape[0], shape[1], shape[1], 1])
    }

    fn read_floats(&self, at: u32, count: usize) -> Vec<f32> {
        let bytes = &self.memory[at as usize..][..4 * count];
        bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }
}

#[test]
fn products() {
    let mut bench = Bench::new(&["tensor"]);
    let a = bench.floats(0, 0x100, [2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = bench.floats(32, 0x200, [3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    let c = bench.floats(64, 0x300, [2, 2], &[10.0; 4]);
    let bias = bench.floats(96, 0x400, [1, 2], &[-20.0, 0.5]);
    assert_eq!(
        bench.call(|call| tensor::matmul(call, [a, b, c], 0, 0, 0)),
        0
    );
    assert_eq!(bench.read_floats(0x300, 4), [4.0, 5.0, 10.0, 11.0]);
    let relu = 7;
    assert_eq!(
        bench.call(|call| tensor::matmul(call, [a, b, c], bias, relu, 1)),
        0
    );
    assert_eq!(bench.read_floats(0x300, 4), [0.0, 10.5, 0.0, 22.5]);
    // Transposed by its strides: a · aᵀ.
    let turned = bench.matrix(32, [0x100, F32, 3, 2, 1, 3]);
    assert_eq!(
        bench.call(|call| tensor::matmul(call, [a, turned, c], 0, 0, 0)),
        0
    );
    assert_eq!(bench.read_floats(0x300, 4), [14.0, 32.0, 32.0, 77.0]);

    bench.put(0x500, &[1, 2, 0xFF, 0x80]);
    let left = bench.matrix(0, [0x500, I8, 1, 4, 4, 1]);
    let right = bench.matrix(32, [0x500, I8, 4, 1, 1, 0]);
    let product = bench.matrix(64, [0x600, I32, 1, 1, 1, 1]);
    assert_eq!(
        bench.call(|call| tensor::matmul_bytes(call, [left, right, product])),
        0
    );
    assert_eq!(
        bench.memory[0x600..0x604],
        (1 + 4 + 1 + 128 * 128_i32).to_le_bytes()
    );
}

#[test]
fn elements_and_rows() {
    let mut bench = Bench::new(&["tensor"]);
    let x = bench.floats(0, 0x100, [2, 2], &[1.0, -2.0, 3.0, 3.0]);
    let out = bench.floats(32, 0x200, [2, 2], &[9.0; 4]);
    let relu = 7;
    assert_eq!(bench.call(|call| tensor::map(call, relu, x, out)), 0);
    assert_eq!(bench.read_floats(0x200, 4), [1.0, 0.0, 3.0, 3.0]);
    // A row that is repeated by its stride, and in place.
    bench.floats(64, 0x300, [1, 2], &[10.0, 20.0]);
    let row = bench.matrix(64, [0x300, F32, 2, 2, 0, 1]);
    let add = 0;
    assert_eq!(
        bench.call(|call| tensor::zip(call, add, [out, row, out])),
        0
    );
    assert_eq!(bench.read_floats(0x200, 4), [11.0, 20.0, 13.0, 23.0]);
    assert_eq!(bench.call(|call| tensor::zip(call, add, [x, row, out])), 0);
    assert_eq!(bench.read_floats(0x200, 4), [11.0, 18.0, 13.0, 23.0]);

    let sums = bench.floats(96, 0x400, [2, 1], &[0.0; 2]);
    for (number, expected) in [(0, [-1.0, 6.0]), (1, [-0.5, 3.0]), (2, [1.0, 3.0])] {
        assert_eq!(bench.call(|call| tensor::reduce(call, number, x, sums)), 0);
        assert_eq!(bench.read_floats(0x400, 2), expected);
    }
    let places = bench.matrix(96, [0x400, I32, 2, 1, 1, 1]);
    assert_eq!(bench.call(|call| tensor::reduce(call, 3, x, places)), 0);
    assert_eq!(bench.memory[0x400..0x408], [0; 8]);

    assert_eq!(bench.call(|call| tensor::softmax_rows(call, x)), 0);
    assert_eq!(bench.read_floats(0x108, 2), [0.5, 0.5]);
    let gain = bench.floats(128, 0x500, [1, 2], &[2.0, 3.0]);
    let offset = bench.floats(160, 0x600, [1, 2], &[1.0, 1.0]);
    bench.floats(0, 0x100, [2, 2], &[1.0, 3.0, 3.0, 4.0]);
    assert_eq!(bench.call(|call| tensor::norm(call, x, gain, offset, 0)), 0);
    assert_eq!(bench.read_floats(0x100, 2), [-1.0, 4.0]);
    bench.floats(0, 0x100, [1, 2], &[3.0, 4.0]);
    assert_eq!(bench.call(|call| tensor::norm(call, x, gain, 0, 0)), 0);
    let root = 12.5_f32.sqrt();
    for (found, exact) in bench
        .read_floats(0x100, 2)
        .iter()
        .zip([6.0 / root, 12.0 / root])
    {
        assert!((found - exact).abs() < 1e-6);
    }
}

/// What is worked on in one piece has the bits of what is worked on row by row, and what is between rows stays.
#[test]
fn rows_without_gaps_are_as_rows_with_gaps() {
    const SHAPE: [u32; 2] = [3, 21];
    let [rows, columns] = SHAPE.map(|length| length as usize);
    let element = |row: usize, column: usize| ((7 * row + 3 * column) % 11) as f32 / 4.0 - 1.0;
    type Body = fn(&mut Call<'_>, [u32; 4]) -> Result<(), Errno>;
    let bodies: [Body; 7] = [
        |call, [x, _, _, _]| tensor::map(call, 2, x, x),
        |call, [x, y, _, _]| tensor::map(call, 5, y, x),
        |call, [x, y, _, _]| tensor::zip(call, 2, [x, y, x]),
        |call, [x, y, _, _]| tensor::zip(call, 3, [y, y, x]),
        |call, [x, _, _, _]| tensor::softmax_rows(call, x),
        |call, [x, _, gain, _]| tensor::norm(call, x, gain, 0, 0),
        |call, [x, _, gain, offset]| tensor::norm(call, x, gain, offset, 0),
    ];
    for (index, body) in bodies.into_iter().enumerate() {
        let run = |stride: usize| {
            let mut bench = Bench::new(&["tensor"]);
            let mut elements = vec![9.0; rows * stride];
            for (row, elements) in elements.chunks_mut(stride).enumerate() {
                (0..columns).for_each(|column| elements[column] = element(row, column));
            }
            let gain: Vec<f32> = (0..columns).map(|column| element(9, column)).collect();
            let matrices = [(0, 0x200), (32, 0x600)].map(|(at, elements_at)| {
                bench.floats(at, elements_at, [1, elements.len() as u32], &elements);
                let words = [elements_at, F32, SHAPE[0], SHAPE[1], stride as u32, 1];
                bench.matrix(at, words)
            });
            let gain = bench.floats(64, 0xA00, [1, SHAPE[1]], &gain);
            let all = [matrices[0], matrices[1], gain, gain];
            assert_eq!(bench.call(|call| body(call, all)), 0, "{index}");
            let found = bench.read_floats(0x200, elements.len());
            let (mut inside, mut between) = (Vec::new(), Vec::new());
            for row in found.chunks(stride) {
                inside.extend(row[..columns].iter().map(|element| element.to_bits()));
                between.extend_from_slice(&row[columns..]);
            }
            assert!(between.iter().all(|element| *element == 9.0), "{index}");
            inside
        };
        assert_eq!(run(columns), run(columns + 3), "{index}");
    }
}

#[test]
fn attention_and_lookup() {
    let mut bench = Bench::new(&["tensor"]);
    let x = bench.floats(0, 0x100, [2, 1], &[0.0, 1000.0]);
    let values = bench.floats(32, 0x200, [2, 1], &[5.0, 7.0]);
    let out = bench.floats(64, 0x300, [2, 1], &[0.0; 2]);
    let one = 1.0_f32.to_bits();
    let all = u32::MAX;
    assert_eq!(
        bench.call(|call| tensor::attend(call, [x, x, values, out], one, all)),
        0
    );
    assert_eq!(bench.read_floats(0x300, 2), [6.0, 7.0]);
    assert_eq!(
        bench.call(|call| tensor::attend(call, [x, x, values, out], one, 0)),
        0
    );
    assert_eq!(bench.read_floats(0x300, 2), [5.0, 7.0]);

    bench.put(0x400, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let numbers = bench.matrix(96, [0x400, I32, 1, 2, 2, 1]);
    assert_eq!(
        bench.call(|call| tensor::look_up(call, values, numbers, out)),
        0
    );
    assert_eq!(bench.read_floats(0x300, 2), [7.0, 5.0]);
    bench.put(0x400, &[2]);
    assert_eq!(
        bench.call(|call| tensor::look_up(call, values, numbers, out)),
        INVALID
    );
    bench.put(0x400, &[0xFF; 4]);
    assert_eq!(
        bench.call(|call| tensor::look_up(call, values, numbers, out)),
        INVALID
    );
    assert_eq!(bench.read_floats(0x300, 2), [7.0, 5.0]);
}

#[test]
fn nothing_without_the_capability() {
    let mut bench = Bench::new(&["clock", "data"]);
    type Body = fn(&mut Call<'_>) -> Result<(), Errno>;
    let calls: [Body; 9] = [
        |call| tensor::matmul(call, [0; 3], 0, 0, 0),
        |call| tensor::matmul_bytes(call, [0; 3]),
        |call| tensor::map(call, 0, 0, 0),
        |call| tensor::zip(call, 0, [0; 3]),
        |call| tensor::reduce(call, 0, 0, 0),
        |call| tensor::softmax_rows(call, 0),
        |call| tensor::norm(call, 0, 0, 0, 0),
        |call| tensor::attend(call, [0; 4], 0, 0),
        |call| tensor::look_up(call, 0, 0, 0),
    ];
    for (index, body) in calls.into_iter().enumerate() {
        assert_eq!(bench.call(body), 76, "{index}");
    }
    let denied = bench.desk.denied.lock().unwrap();
    assert_eq!(denied.len(), 9);
    assert!(
        denied
            .iter()
            .all(|(capability, _)| *capability == Capability::Tensor)
    );
}

#[test]
fn what_a_program_claims_is_checked() {
    let mut bench = Bench::new(&["tensor"]);
    let x = bench.floats(0, 0x100, [2, 2], &[1.0; 4]);
    let c = bench.floats(32, 0x200, [2, 2], &[7.0; 4]);
    let relu = 7;
    for (words, errno) in [
        // Outside, also by strides and by sums that would wrap.
        ([END - 12, F32, 2, 2, 2, 1], FAULT),
        ([0x100, F32, 2, 2, END, 1], FAULT),
        ([0x100, F32, 2, 1, u32::MAX, 1], FAULT),
        ([u32::MAX - 3, F32, 1, 1, 1, 1], FAULT),
        ([0x100, F32, 1 << 7, 1 << 7, u32::MAX, u32::MAX], FAULT),
        // Too many, though each is the same.
        ([0x100, F32, u32::MAX, u32::MAX, 0, 1], TOO_LARGE),
        ([0x100, F32, 1 << 7, (1 << 7) + 1, 0, 1], TOO_LARGE),
        ([0x100, F32, END, 0, 0, 1], TOO_LARGE),
        ([0x101, F32, 2, 2, 2, 1], INVALID),
        ([0x100, I32, 2, 2, 2, 1], INVALID),
        ([0x100, 99, 2, 2, 2, 1], INVALID),
        // Another shape, and rows that are not contiguous.
        ([0x100, F32, 2, 3, 3, 1], INVALID),
        ([0x100, F32, 2, 2, 1, 2], INVALID),
        // Overlaps the result, which is not the same.
        ([0x204, F32, 2, 2, 2, 1], INVALID),
    ] {
        let from = bench.matrix(64, words);
        assert_eq!(
            bench.call(|call| tensor::map(call, relu, from, c)),
            errno,
            "{words:?}"
        );
    }
    assert_eq!(
        bench.call(|call| tensor::map(call, relu, END - 23, c)),
        FAULT
    );
    assert_eq!(bench.call(|call| tensor::map(call, 0, x, c)), INVALID);
    assert_eq!(bench.call(|call| tensor::map(call, 8, x, c)), INVALID);
    // A result whose rows overlap.
    let overlapping = bench.matrix(64, [0x200, F32, 2, 2, 1, 1]);
    assert_eq!(
        bench.call(|call| tensor::map(call, relu, x, overlapping)),
        INVALID
    );
    assert_eq!(bench.call(|call| tensor::zip(call, 6, [x, x, c])), INVALID);
    assert_eq!(bench.call(|call| tensor::reduce(call, 4, x, c)), INVALID);
    assert_eq!(
        bench.call(|call| tensor::matmul(call, [x, c, c], 0, 0, 0)),
        INVALID
    );
    assert_eq!(
        bench.call(|call| tensor::matmul(call, [x, x, c], 0, 8, 0)),
        INVALID
    );
    assert_eq!(
        bench.call(|call| tensor::matmul(call, [x, x, c], 0, 0, 2)),
        INVALID
    );
    assert_eq!(
        bench.call(|call| tensor::matmul(call, [x, x, c], c, 0, 0)),
        INVALID
    );
    assert_eq!(bench.call(|call| tensor::norm(call, x, x, 0, 0)), INVALID);
    assert_eq!(
        bench.call(|call| tensor::attend(call, [x, x, x, x], 0, 0)),
        INVALID
    );
    assert_eq!(bench.read_floats(0x200, 4), [7.0; 4]);
    // Without elements there is nothing to be outside.
    let none = bench.matrix(64, [u32::MAX - 3, F32, 0, 2, 2, 1]);
    assert_eq!(
        bench.call(|call| tensor::map(call, relu, none, none)),
        FAULT
    );
    let none = bench.matrix(64, [0, F32, 0, 2, 2, 1]);
    assert_eq!(bench.call(|call| tensor::map(call, relu, none, none)), 0);
}

/// Also of rows that would have been looked up in an earlier step.
#[test]
fn a_lookup_of_a_row_that_is_not_there_writes_nothing() {
    let mut bench = Bench::new(&["tensor"]);
    bench.memory.resize(32 << 20, 0);
    let (rows, columns) = (3, 1 << 20);
    let table = bench.matrix(0, [0x1000, F32, 2, columns, 0, 1]);
    let numbers = bench.matrix(32, [128, I32, 1, rows, rows, 1]);
    bench.put(128 + 8, &[2]);
    let to = bench.matrix(64, [0x1000 + 4 * columns, F32, rows, columns, columns, 1]);
    bench.put(0x1000, &1.0_f32.to_le_bytes());
    let look_up = |call: &mut Call<'_>| tensor::look_up(call, table, numbers, to);
    assert_eq!(bench.call(look_up), INVALID);
    assert_eq!(bench.read_floats(0x1000 + 4 * columns, 1), [0.0]);
    bench.put(128 + 8, &[1]);
    assert_eq!(bench.call(look_up), 0);
    assert_eq!(bench.read_floats(0x1000 + 4 * columns, 1), [1.0]);
}

/// It is suspended after each step, and each step is done once.
#[test]
fn a_call_goes_on_where_it_was_interrupted() {
    let mut bench = Bench::new(&["tensor"]);
    let (rows, columns) = (5, 1 << 19);
    bench.memory.resize(16 << 20, 0);
    let x = bench.matrix(0, [0x1000, F32, rows, columns, columns, 1]);
    let one = bench.floats(32, 64, [1, 1], &[1.0]);
    let ones = bench.matrix(one, [64, F32, rows, columns, 0, 0]);
    assert_eq!(
        bench.call(|call| tensor::zip(call, 0, [x, ones, x])),
        INVALID
    );
    let ones = bench.matrix(one, [0x1000 + 4 * rows * columns, F32, rows, columns, 0, 1]);
    bench.memory[0x1000 + 4 * (rows * columns) as usize..][..4 * columns as usize]
        .chunks_exact_mut(4)
        .for_each(|bytes| bytes.copy_from_slice(&1.0_f32.to_le_bytes()));

    bench.context.stop = Some(StopHandle::requested());
    let mut suspended = 0;
    loop {
        let (result, unwinds) = bench
            .context
            .call(&mut bench.memory, |call| tensor::zip(call, 0, [x, ones, x]));
        assert_eq!(result.unwrap(), 0);
        if !unwinds {
            break;
        }
        suspended += 1;
        let done = Some(Pending::Tensor {
            rows: 2 * suspended,
        });
        assert_eq!(bench.context.host.pending, done);
        assert!(bench.context.waiting.is_none());
    }
    assert_eq!((suspended, bench.context.host.pending), (2, None));
    let all = bench.read_floats(0x1000, (rows * columns) as usize);
    assert!(all.iter().all(|element| *element == 1.0));
    // What is stored of a call may say anything.
    bench.context.host.pending = Some(Pending::Tensor { rows: u64::MAX });
    assert_eq!(bench.call(|call| tensor::zip(call, 0, [x, ones, x])), 0);
}

/// From inside of a program, on either engine; it is stopped and goes on in between.
#[test]
fn programs_multiply_on_both_engines() {
    let wat = r#"(module
        (import "mielin" "tensor_matmul" (func $matmul (param i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        ;; Descriptions: 2 x 2 at 256, and the product at 272.
        (data (i32.const 0) "\00\01\00\00\00\00\00\00\02\00\00\00\02\00\00\00\02\00\00\00\01\00\00\00")
        (data (i32.const 32) "\10\01\00\00\00\00\00\00\02\00\00\00\02\00\00\00\02\00\00\00\01\00\00\00")
        (func (export "_start") (local $i i32)
            (f32.store (i32.const 256) (f32.const 1)) (f32.store (i32.const 260) (f32.const 2))
            (f32.store (i32.const 264) (f32.const 3)) (f32.store (i32.const 268) (f32.const 4))
            (loop $again
                (if (call $matmul (i32.const 0) (i32.const 0) (i32.const 32) (i32.const 0) (i32.const 0) (i32.const 1))
                    (then unreachable))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 5))))
            (if (f32.ne (f32.load (i32.const 284)) (f32.const 110)) (then unreachable))))"#;
    let module = mielin_safepoint::instrument(&wat::parse_str(wat).unwrap()).unwrap();
    for kind in [crate::EngineKind::Wasmtime, crate::EngineKind::Wasmi] {
        let prepared = crate::engine(kind).unwrap().prepare(&module, None).unwrap();
        let grants = std::iter::once(Capability::Tensor).collect();
        let host = HostState::new(Address::default()).with_grants(grants);
        let desk = Arc::new(Desk {
            leaves_at: Some(2),
            ..Desk::default()
        });
        let services = Arc::clone(&desk) as Arc<dyn Services>;
        let mut instance = prepared
            .instantiate(host, services, &Limits::default())
            .unwrap();
        let mut stops = 0;
        while instance.run() == crate::Outcome::Stopped {
            stops += 1;
        }
        assert_eq!(instance.run(), crate::Outcome::Exited(0), "{kind}");
        assert_eq!((stops, *desk.calls.lock().unwrap()), (3, 5), "{kind}");
    }
}
