//! OpenBLAS, by the interface of CBLAS for C with lengths of 32 bits.

#![allow(unsafe_code, reason = "calls functions of a library of C")]

use std::ffi::{CStr, c_char, c_int};

use libloading::Library;

use super::Floats;

/// What its file is called.
pub(super) const FILES: [&str; 1] = ["libopenblas.so.0"];

const ROW_MAJOR: c_int = 101;
const PLAIN: c_int = 111;
const TRANSPOSED: c_int = 112;

type Text = unsafe extern "C" fn() -> *const c_char;
/// Order, layouts of A and B, m, n, k, alpha, A, its leading dimension, B and its one, beta, C and its one.
type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);
/// Order, layout of A, its rows and columns, alpha, A, its leading dimension, x and its step, beta, y and its step.
type Sgemv = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);

/// Elements, x and its step, y and its step.
type Sdot = unsafe extern "C" fn(c_int, *const f32, c_int, *const f32, c_int) -> f32;
/// Elements, alpha, x and its step, y and its step.
type Saxpy = unsafe extern "C" fn(c_int, f32, *const f32, c_int, *mut f32, c_int);
/// Elements, x and its step.
type Ssum = unsafe extern "C" fn(c_int, *const f32, c_int) -> f32;
/// Elements, alpha, x and its step.
type Sscal = unsafe extern "C" fn(c_int, f32, *mut f32, c_int);

/// The loaded library.
pub(crate) struct OpenBlas {
    config: Text,
    core: Text,
    sgemm: Sgemm,
    sgemv: Sgemv,
    sdot: Sdot,
    saxpy: Saxpy,
    ssum: Ssum,
    sscal: Sscal,
    /// Last, since the functions are its.
    _library: Library,
}

impl OpenBlas {
    /// `None` if it is not installed, or lacks a function.
    pub(crate) fn load() -> Option<OpenBlas> {
        // SAFETY: what it does when it is loaded is to ask the processor and the environment, and to start threads. No
        // other thread of this process changes the environment.
        let library = FILES
            .iter()
            .find_map(|file| unsafe { Library::new(*file).ok() })?;
        // SAFETY: the types are those of cblas.h of OpenBLAS with 32-bit lengths, which this file name stands for. The
        // functions are kept no longer than the library.
        unsafe {
            Some(OpenBlas {
                config: *library.get(b"openblas_get_config\0").ok()?,
                core: *library.get(b"openblas_get_corename\0").ok()?,
                sgemm: *library.get(b"cblas_sgemm\0").ok()?,
                sgemv: *library.get(b"cblas_sgemv\0").ok()?,
                sdot: *library.get(b"cblas_sdot\0").ok()?,
                saxpy: *library.get(b"cblas_saxpy\0").ok()?,
                ssum: *library.get(b"cblas_ssum\0").ok()?,
                sscal: *library.get(b"cblas_sscal\0").ok()?,
                _library: library,
            })
        }
    }

    /// Its version, how it was built, and the processor that it takes this one for.
    pub(crate) fn version(&self) -> String {
        // SAFETY: both take nothing and return a string that is never freed.
        let (config, core) = unsafe {
            (
                CStr::from_ptr((self.config)()).to_string_lossy(),
                CStr::from_ptr((self.core)()).to_string_lossy(),
            )
        };
        let version = config.split_whitespace().nth(1).unwrap_or("unknown");
        format!("{version} ({core})")
    }

    /// `c = a · b`.
    pub(crate) fn sgemm(&self, mut product: Floats<'_>) {
        let [rows, columns, depth] = product.shape().map(|n| n as c_int);
        let layout = if product.is_transposed() {
            TRANSPOSED
        } else {
            PLAIN
        };
        let leading = product.b_leading() as c_int;
        // SAFETY: the slices have the elements of the shape ([`super::Product::new`]), `c` is borrowed for writing, and the
        // lengths fit.
        unsafe {
            (self.sgemm)(
                ROW_MAJOR,
                PLAIN,
                layout,
                rows,
                columns,
                depth,
                1.0,
                product.a().as_ptr(),
                depth,
                product.b().as_ptr(),
                leading,
                0.0,
                product.c().as_mut_ptr(),
                columns,
            );
        }
    }

    /// The same of a product of one row, by the function for a matrix and a vector.
    ///
    /// # Panics
    /// If the product has more rows.
    pub(crate) fn sgemv(&self, mut product: Floats<'_>) {
        let [rows, columns, depth] = product.shape().map(|n| n as c_int);
        assert_eq!(rows, 1);
        // c = bᵀ · a: with `b` as it lies, its transpose is what is plain if `b` is transposed.
        let (layout, lies) = match product.is_transposed() {
            true => (PLAIN, [columns, depth]),
            false => (TRANSPOSED, [depth, columns]),
        };
        let leading = product.b_leading() as c_int;
        // SAFETY: as for `sgemm`; a vector has the elements of the row that it is.
        unsafe {
            (self.sgemv)(
                ROW_MAJOR,
                layout,
                lies[0],
                lies[1],
                1.0,
                product.b().as_ptr(),
                leading,
                product.a().as_ptr(),
                1,
                0.0,
                product.c().as_mut_ptr(),
                1,
            );
        }
    }

    /// `Σ x[i] · y[i]`.
    ///
    /// # Panics
    /// If the lengths differ, here and in the others, or do not fit 32 bits.
    pub(crate) fn sdot(&self, x: &[f32], y: &[f32]) -> f32 {
        assert_eq!(x.len(), y.len());
        // SAFETY: both have so many elements.
        unsafe { (self.sdot)(len(x), x.as_ptr(), 1, y.as_ptr(), 1) }
    }

    /// `y[i] += factor · x[i]`.
    pub(crate) fn saxpy(&self, factor: f32, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: both have so many elements, and `y` is borrowed for writing.
        unsafe { (self.saxpy)(len(x), factor, x.as_ptr(), 1, y.as_mut_ptr(), 1) }
    }

    /// `Σ x[i]`.
    pub(crate) fn ssum(&self, x: &[f32]) -> f32 {
        // SAFETY: it has so many elements.
        unsafe { (self.ssum)(len(x), x.as_ptr(), 1) }
    }

    /// `x[i] *= factor`.
    pub(crate) fn sscal(&self, factor: f32, x: &mut [f32]) {
        // SAFETY: it has so many elements, and is borrowed for writing.
        unsafe { (self.sscal)(len(x), factor, x.as_mut_ptr(), 1) }
    }
}

fn len(elements: &[f32]) -> c_int {
    c_int::try_from(elements.len()).expect("BLAS has 32 bits for lengths")
}
