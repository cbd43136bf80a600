//! The product of matrices, of 32-bit floats and of bytes.

use std::num::NonZeroUsize;
use std::rc::Rc;

use mielin_tensor::{Fused, MatMut, MatRef, Rayon, matmul, matmul_i8, matmul_with};

use super::{Bench, Plan};
use crate::case::{Case, Copies, Load, numbers};
#[cfg(feature = "rivals")]
use crate::rivals::crates;
use crate::rivals::{Bytes, Floats, Product};

/// Rows and columns of the product, and the terms of each sum.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
    depth: usize,
    /// Whether the right factor has its columns contiguous, and not its rows.
    transposed: bool,
}

/// Squares in and out of the caches; a block of an attention head; one token and eight through a layer, whose weights are
/// read from memory once for each.
pub(super) fn plans() -> Vec<Plan> {
    let squares = [32, 64, 128, 256, 512, 1024, 2048];
    let mut shapes = squares.map(|n| shape(n, n, n, false)).to_vec();
    shapes.push(shape(384, 384, 32, false));
    for rows in [1, 8] {
        shapes.extend([false, true].map(|transposed| shape(rows, 4096, 4096, transposed)));
    }
    let of_bytes = [
        shape(256, 256, 256, false),
        shape(1024, 1024, 1024, false),
        shape(1, 4096, 4096, true),
        shape(8, 4096, 4096, true),
    ];
    let bytes = of_bytes.map(|shape| plan("matmul i8", shape, bytes));
    let plans = shapes.into_iter().map(|it| plan("matmul", it, floats));
    plans.chain(bytes).collect()
}

fn shape(rows: usize, columns: usize, depth: usize, transposed: bool) -> Shape {
    Shape {
        rows,
        columns,
        depth,
        transposed,
    }
}

impl Shape {
    fn operations(self) -> f64 {
        2.0 * self.rows as f64 * self.columns as f64 * self.depth as f64
    }

    /// Of a large right factor each element is used once for each row: with few rows the time is that of reading it.
    fn is_of_memory(self) -> bool {
        self.rows < 16
    }

    fn label(self) -> String {
        let Shape {
            rows,
            columns,
            depth,
            transposed,
        } = self;
        let suffix = if transposed { " B transposed" } else { "" };
        format!("{rows}x{columns}x{depth}{suffix}")
    }
}

fn plan(kernel: &'static str, shape: Shape, make: fn(&Bench, Shape) -> Case) -> Plan {
    Plan {
        kernel,
        operations: shape.operations(),
        is_for_threads: shape.rows >= 1024 && kernel == "matmul",
        make: Box::new(move |bench| make(bench, shape)),
    }
}

/// The factors, which all contenders share.
struct Factors<T> {
    shape: Shape,
    a: Rc<Vec<T>>,
    b: Copies<T>,
}

impl<T: Clone + 'static> Factors<T> {
    fn new(bench: &Bench, shape: Shape, numbers: fn(usize) -> Vec<T>) -> Factors<T> {
        let beyond = match shape.is_of_memory() {
            true => bench.beyond_caches,
            false => 0,
        };
        Factors {
            shape,
            a: Rc::new(numbers(shape.rows * shape.depth)),
            b: Copies::of(numbers(shape.depth * shape.columns), beyond),
        }
    }

    fn contender<S: 'static>(
        &self,
        run: impl Fn(Product<'_, T, S>) + 'static,
    ) -> impl FnMut(&mut [S]) + 'static {
        let (a, b) = (self.a.clone(), self.b.clone());
        let Shape {
            rows,
            columns,
            depth,
            transposed,
        } = self.shape;
        let shape = [rows, columns, depth];
        move |c| run(Product::new(shape, &a, b.next(), transposed, c))
    }

    fn load(&self) -> Load {
        let Shape { columns, depth, .. } = self.shape;
        let right = (depth * columns * size_of::<T>()) as f64;
        Load {
            operations: self.shape.operations(),
            is_fused: true,
            read_bytes: if self.shape.is_of_memory() {
                right
            } else {
                0.0
            },
            written_bytes: 0.0,
        }
    }
}

fn floats(bench: &Bench, shape: Shape) -> Case {
    let factors = Factors::new(bench, shape, numbers);
    let threads = bench.threads;
    let ours = factors.contender(move |product| ours(product, threads));
    let mut case = Case::new("matmul", shape.label(), shape.rows * shape.columns, ours);
    case.load = factors.load();
    case.tolerance = shape.depth as f32 * f32::EPSILON;
    if let Some(openblas) = bench.libraries.openblas {
        case = case.with("openblas", factors.contender(|it| openblas.sgemm(it)));
        if shape.rows == 1 {
            let gemv = factors.contender(|it| openblas.sgemv(it));
            case = case.with("openblas sgemv", gemv);
        }
    }
    if let Some(onednn) = bench.libraries.onednn {
        case = case.with("onednn", factors.contender(|it| onednn.sgemm(it)));
    }
    #[cfg(feature = "rivals")]
    {
        let gemm = factors.contender(move |it| crates::gemm(it, threads));
        let faer = factors.contender(move |it| crates::faer(it, threads));
        case = case
            .with("gemm", gemm)
            .with("matrixmultiply", factors.contender(crates::matrixmultiply))
            .with("faer", faer);
    }
    case
}

fn bytes(bench: &Bench, shape: Shape) -> Case {
    let numbers = |count| numbers(count).iter().map(|it| (it * 255.0) as i8).collect();
    let factors = Factors::new(bench, shape, numbers);
    let len = shape.rows * shape.columns;
    let mut case = Case::of_integers("matmul i8", shape.label(), len, factors.contender(ours_i8));
    // Its operations are none of those for which there is a limit.
    case.load = Load {
        is_fused: false,
        ..factors.load()
    };
    if let Some(onednn) = bench.libraries.onednn {
        let theirs = factors.contender(|it| onednn.gemm_s8s8s32(it));
        case = case.with_integers("onednn", theirs);
    }
    case
}

/// The factors of a product, as ours takes them.
fn factors<'a, T, S>(product: &Product<'a, T, S>) -> [MatRef<'a, T>; 2] {
    let [rows, columns, depth] = product.shape();
    let a = MatRef::row_major(product.a(), rows, depth);
    let b = match product.is_transposed() {
        true => MatRef::row_major(product.b(), columns, depth).map(MatRef::transposed),
        false => MatRef::row_major(product.b(), depth, columns),
    };
    [a, b].map(|it| it.expect("it has the elements of its shape"))
}

fn ours(mut product: Floats<'_>, threads: NonZeroUsize) {
    let [a, b] = factors(&product);
    let [rows, columns, _] = product.shape();
    let mut c = MatMut::row_major(product.c(), rows, columns).expect("as above");
    let done = match threads.get() {
        1 => matmul(a, b, &mut c),
        // Of which there are as many as the environment says.
        _ => matmul_with(&Rayon, a, b, Fused::default(), &mut c),
    };
    done.expect("the shapes fit together");
}

fn ours_i8(mut product: Bytes<'_>) {
    let [a, b] = factors(&product);
    let [rows, columns, _] = product.shape();
    let mut c = MatMut::row_major(product.c(), rows, columns).expect("as above");
    matmul_i8(a, b, &mut c).expect("the shapes fit together");
}
