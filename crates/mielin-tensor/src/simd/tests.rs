#![allow(clippy::unwrap_used)]

use alloc::vec::Vec;

use super::*;

/// Numbers between -1 and 1 that look random.
pub(crate) fn numbers(count: usize, mut seed: u32) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn supported() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|it| it.is_supported())
}

/// Holds every operation against the same in plain Rust, element by element.
struct Operations;

impl Kernel for Operations {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let all = |floats: S::Floats| {
            let mut elements = [0.0; 64];
            simd.store(&mut elements, floats);
            elements[..S::LANES].to_vec()
        };
        let (a, b, c) = (numbers(64, 1), numbers(64, 2), numbers(64, 3));
        let (x, y, z) = (simd.load(&a), simd.load(&b), simd.load(&c));
        let check = |found: S::Floats, of: &dyn Fn(usize) -> f32| {
            let expected: Vec<f32> = (0..S::LANES).map(of).collect();
            assert_eq!(all(found), expected);
        };
        check(simd.splat(2.5), &|_| 2.5);
        check(simd.add(x, y), &|i| a[i] + b[i]);
        check(simd.sub(x, y), &|i| a[i] - b[i]);
        check(simd.mul(x, y), &|i| a[i] * b[i]);
        check(simd.div(x, y), &|i| a[i] / b[i]);
        check(simd.max(x, y), &|i| a[i].max(b[i]));
        check(simd.min(x, y), &|i| a[i].min(b[i]));
        let nan = simd.splat(f32::NAN);
        assert!(all(simd.max(x, nan)).iter().all(|it| it.is_nan()));
        assert!(all(simd.min(x, nan)).iter().all(|it| it.is_nan()));
        check(simd.abs(x), &|i| a[i].abs());
        check(simd.sqrt(simd.abs(x)), &|i| a[i].abs().sqrt());
        let many = simd.mul(x, simd.splat(1_000.0));
        check(simd.round(many), &|i| (a[i] * 1_000.0).round_ties_even());
        let halves = [-2.5_f32, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 126.0].repeat(8);
        let rounded = simd.round(simd.load(&halves));
        check(rounded, &|i| halves[i].round_ties_even());
        check(simd.power_of_two(rounded), &|i| {
            2_f32.powi(halves[i].round_ties_even() as i32)
        });
        check(
            simd.scale(simd.splat(0.75), simd.mul(rounded, simd.splat(2.0))),
            &|i| {
                let exponent = 2 * halves[i].round_ties_even() as i32;
                (0.75 * 2_f64.powi(exponent)) as f32
            },
        );
        let subnormal = simd.scale(simd.splat(1.2345), simd.splat(-140.0));
        check(subnormal, &|_| {
            (1.2345_f32 as f64 * 2_f64.powi(-140)) as f32
        });
        let from_1 = simd.add(simd.mul(simd.abs(x), simd.splat(99.0)), simd.splat(1.0));
        for (a, found) in all(from_1)
            .iter()
            .zip(all(simd.quotient(simd.splat(3.0), from_1)))
        {
            let ulps = (f64::from(found) * f64::from(*a) / 3.0 - 1.0) / f64::from(f32::EPSILON);
            assert!(ulps.abs() <= 1.0, "3 / {a} is not {found}");
        }
        let lost = simd.lost(x, y, simd.mul(x, y));
        check(lost, &|i| {
            (f64::from(a[i]) * f64::from(b[i]) - f64::from(a[i] * b[i])) as f32
        });
        let sums = all(simd.mul_add(x, y, z));
        for (i, sum) in sums.iter().enumerate() {
            let once = (f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i])) as f32;
            assert!(*sum == once || *sum == a[i] * b[i] + c[i], "{sum} {once}");
        }
        check(simd.select(simd.less(x, y), x, z), &|i| {
            if a[i] < b[i] { a[i] } else { c[i] }
        });
        let odd: Vec<f32> = (0..64)
            .map(|i| if i % 2 == 1 { f32::NAN } else { a[i] })
            .collect();
        let odd_floats = simd.load(&odd);
        check(simd.select(simd.is_nan(odd_floats), y, z), &|i| {
            if i % 2 == 1 { b[i] } else { c[i] }
        });
        check(simd.select(simd.is_equal(odd_floats, x), y, z), &|i| {
            if i % 2 == 0 { b[i] } else { c[i] }
        });
        let bytes: Vec<u8> = (0..=255).collect();
        for from in (0..=256 - S::LANES).step_by(S::LANES - 1) {
            let bytes = &bytes[from..];
            check(simd.load_small(bytes), &|i| f32::from(bytes[i] as i8));
            let [low, high] = simd.load_nibbles(bytes);
            check(low, &|i| f32::from(bytes[i] & 15) - 8.0);
            check(high, &|i| f32::from(bytes[i] >> 4) - 8.0);
        }
        assert!(simd.any(simd.is_nan(odd_floats)) && !simd.any(simd.is_nan(x)));
        assert_eq!(
            simd.largest(x),
            a[..S::LANES].iter().copied().fold(-1.0, f32::max)
        );
        let mut halved = a[..S::LANES].to_vec();
        while halved.len() > 1 {
            let (first, second) = halved.split_at(halved.len() / 2);
            halved = first.iter().zip(second).map(|(a, b)| a + b).collect();
        }
        assert_eq!(simd.sum(x), halved[0]);
        let sums = simd.add_to_sums(simd.add_to_sums(simd.no_sums(), x), y);
        let exact: f64 = (0..S::LANES)
            .map(|i| f64::from(a[i]) + f64::from(b[i]))
            .sum();
        assert!((simd.total(sums) - exact).abs() < 1e-12);
        for count in 0..=S::LANES {
            check(simd.load_some(&a[..count], 9.0), &|i| {
                if i < count { a[i] } else { 9.0 }
            });
            let mut to = [7.0; 64];
            simd.store_some(&mut to[..count], x);
            let expected: Vec<f32> = (0..64)
                .map(|i| if i < count { a[i] } else { 7.0 })
                .collect();
            assert_eq!(to.to_vec(), expected);
        }
    }
}

/// The same for those on bytes, of which as many as a lane takes are a word.
struct Words;

impl Kernel for Words {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let all = |integers: S::Integers| {
            let mut lanes = [0; 64];
            // SAFETY: no backend has more lanes.
            unsafe { simd.write_integers(lanes.as_mut_ptr(), integers) };
            lanes[..S::LANES].to_vec()
        };
        // Every byte, in another order and at other places on the left.
        let right: Vec<i8> = (0..=255_u8).map(|it| it as i8).collect();
        let left: Vec<i8> = (0..=255_u8).map(|it| (it ^ 0x5A) as i8).collect();
        let per_vector = S::TERMS * S::LANES;
        // SAFETY: a vector takes at most 64 bytes.
        let read = |from: &[i8]| unsafe { simd.read_bytes(from[..per_vector].as_ptr()) };
        // What is in a lane, as the product has it.
        let product = |left: &[i8], right: &[i8]| -> i32 {
            let added = if S::LEFT_IS_UNSIGNED { 128 } else { 0 };
            let terms = left.iter().zip(right).take(S::TERMS);
            terms
                .map(|(a, b)| (i32::from(*a) + added) * i32::from(*b))
                .sum()
        };
        for at in (0..=256 - 2 * per_vector).step_by(per_vector) {
            let (left, right) = (&left[at..], &right[at..]);
            let words = simd.to_left(read(left));
            // Sums begin so far up that they do not fit.
            let found = all(simd.add_products(simd.splat_integer(i32::MAX), words, read(right)));
            for (lane, found) in found.into_iter().enumerate() {
                let byte = lane * S::TERMS;
                let sum = i32::MAX.wrapping_add(product(&left[byte..], &right[byte..]));
                assert_eq!(found, sum, "lane {lane} of {}", S::LANES);
            }
            // Rows of two words on the left, and two rows of words on the right.
            let rows = all(words);
            let no_sums = [simd.splat_integer(0); 2];
            let columns = [read(right), read(&right[per_vector..])];
            let places = [rows.as_ptr(), rows[2..].as_ptr()];
            // SAFETY: there are at least four words.
            let sums = unsafe { simd.add_pairs(no_sums, places, columns) };
            for (row, sums) in simd.rows_of_pairs(sums).into_iter().enumerate() {
                for (lane, found) in all(sums).into_iter().enumerate() {
                    let sum: i32 = (0..2)
                        .map(|word| {
                            let left = &left[(2 * row + word) * S::TERMS..];
                            product(left, &right[word * per_vector + lane * S::TERMS..])
                        })
                        .sum();
                    assert_eq!(found, sum, "row {row}, lane {lane} of {}", S::LANES);
                }
            }
        }
    }
}

#[test]
fn operations_of_every_backend() {
    for backend in supported() {
        run(backend, Operations);
        run_on_bytes(backend, Operations);
    }
}

#[test]
fn words_of_bytes_of_every_backend() {
    for backend in supported() {
        run(backend, Words);
        run_on_bytes(backend, Words);
    }
}
