//! oneDNN, by its functions that look like those of BLAS.

#![allow(unsafe_code, reason = "calls functions of a library of C")]

pub(crate) mod primitive;

use std::ffi::{c_char, c_int};

use libloading::Library;

use super::{Bytes, Floats};
use primitive::{Operation, Primitive, Primitives};

/// What its file is called, the newest first. The functions are the same in both.
pub(super) const FILES: [&str; 2] = ["libdnnl.so.3", "libdnnl.so.2"];

/// The beginning of `dnnl_version_t`.
#[repr(C)]
struct Version {
    major: c_int,
    minor: c_int,
    patch: c_int,
}

/// Layouts of A and B, m, n, k, alpha, A, its leading dimension, B and its one, beta, C and its one. The matrices are
/// row-major.
type Sgemm = unsafe extern "C" fn(
    c_char,
    c_char,
    i64,
    i64,
    i64,
    f32,
    *const f32,
    i64,
    *const f32,
    i64,
    f32,
    *mut f32,
    i64,
) -> c_int;

/// Layouts of A and B, how C's offset is given, m, n, k, alpha, A, its leading dimension and its offset, B and its ones, beta, C,
/// its leading dimension and its offset.
type GemmS8S8S32 = unsafe extern "C" fn(
    c_char,
    c_char,
    c_char,
    i64,
    i64,
    i64,
    f32,
    *const i8,
    i64,
    i8,
    *const i8,
    i64,
    i8,
    f32,
    *mut i32,
    i64,
    *const i32,
) -> c_int;

/// The loaded library.
pub(crate) struct OneDnn {
    version: unsafe extern "C" fn() -> *const Version,
    sgemm: Sgemm,
    gemm_s8s8s32: GemmS8S8S32,
    /// Of version 2.
    primitives: Option<Primitives>,
    /// Last, since the functions are its.
    _library: Library,
}

impl OneDnn {
    /// `None` if it is not installed, or lacks a function.
    pub(crate) fn load() -> Option<OneDnn> {
        // SAFETY: what it does when it is loaded is to fill tables, and OpenMP, which comes with it, reads the environment.
        // No other thread of this process changes the environment.
        let library = FILES
            .iter()
            .find_map(|file| unsafe { Library::new(*file).ok() })?;
        // SAFETY: the types are those of dnnl.h of the versions that the file names stand for. The functions are kept no
        // longer than the library.
        unsafe {
            Some(OneDnn {
                version: *library.get(b"dnnl_version\0").ok()?,
                sgemm: *library.get(b"dnnl_sgemm\0").ok()?,
                gemm_s8s8s32: *library.get(b"dnnl_gemm_s8s8s32\0").ok()?,
                primitives: Primitives::of(&library),
                _library: library,
            })
        }
    }

    /// Its version.
    pub(crate) fn version(&self) -> String {
        // SAFETY: it takes nothing and returns a pointer to a constant, which begins so in each version.
        let version = unsafe { &*(self.version)() };
        format!("{}.{}.{}", version.major, version.minor, version.patch)
    }

    /// An operation on matrices of `rows` × `width` elements; none if this is not version 2.
    pub(crate) fn primitive(
        &self,
        operation: Operation,
        shape: [usize; 2],
    ) -> Option<Primitive<'_>> {
        let primitives = self.primitives.as_ref()?;
        Some(primitives.primitive(operation, shape))
    }

    /// `c = a · b`.
    ///
    /// # Panics
    /// If oneDNN refuses.
    pub(crate) fn sgemm(&self, mut product: Floats<'_>) {
        let [rows, columns, depth] = product.shape().map(|n| n as i64);
        let layout = if product.is_transposed() { b'T' } else { b'N' };
        // SAFETY: the slices have the elements of the shape ([`super::Product::new`]), and `c` is borrowed for writing.
        let status = unsafe {
            (self.sgemm)(
                b'N' as c_char,
                layout as c_char,
                rows,
                columns,
                depth,
                1.0,
                product.a().as_ptr(),
                depth,
                product.b().as_ptr(),
                product.b_leading() as i64,
                0.0,
                product.c().as_mut_ptr(),
                columns,
            )
        };
        assert_eq!(status, 0, "oneDNN refuses a product");
    }

    /// The same of signed bytes.
    ///
    /// # Panics
    /// If oneDNN refuses.
    pub(crate) fn gemm_s8s8s32(&self, mut product: Bytes<'_>) {
        let [rows, columns, depth] = product.shape().map(|n| n as i64);
        let layout = if product.is_transposed() { b'T' } else { b'N' };
        let offset = 0_i32;
        // SAFETY: as for `sgemm`; the one fixed offset of C is a number.
        let status = unsafe {
            (self.gemm_s8s8s32)(
                b'N' as c_char,
                layout as c_char,
                b'F' as c_char,
                rows,
                columns,
                depth,
                1.0,
                product.a().as_ptr(),
                depth,
                0,
                product.b().as_ptr(),
                product.b_leading() as i64,
                0,
                0.0,
                product.c().as_mut_ptr(),
                columns,
                &raw const offset,
            )
        };
        assert_eq!(status, 0, "oneDNN refuses a product of bytes");
    }
}
