//! What mielin-tensor is measured against.

#[cfg(feature = "rivals")]
pub(crate) mod crates;
pub(crate) mod onednn;
mod openblas;

use serde::{Deserialize, Serialize};

pub(crate) use onednn::OneDnn;
pub(crate) use openblas::OpenBlas;

/// Libraries of the system, as far as they are installed. They stay loaded.
#[derive(Clone, Copy)]
pub(crate) struct Libraries {
    pub(crate) openblas: Option<&'static OpenBlas>,
    pub(crate) onednn: Option<&'static OneDnn>,
}

/// A rival that takes part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rival {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One that is not installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) name: String,
    /// Names of the file of which one is looked for.
    pub(crate) files: Vec<String>,
    /// The package of Debian that brings it.
    pub(crate) package: String,
}

impl Libraries {
    /// Loads what there is.
    pub(crate) fn load() -> Libraries {
        Libraries {
            openblas: OpenBlas::load().map(|it| &*Box::leak(Box::new(it))),
            onednn: OneDnn::load().map(|it| &*Box::leak(Box::new(it))),
        }
    }

    /// Everybody who takes part, and who does not.
    pub(crate) fn rivals(&self) -> (Vec<Rival>, Vec<Missing>) {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        let mut library = |name: &str, version: Option<String>, files: &[&str], package: &str| {
            let name = name.to_owned();
            match version {
                Some(version) => found.push(Rival { name, version }),
                None => missing.push(Missing {
                    name,
                    files: files.iter().map(|file| (*file).to_owned()).collect(),
                    package: package.to_owned(),
                }),
            }
        };
        let (openblas, onednn) = (self.openblas, self.onednn);
        library(
            "openblas",
            openblas.map(OpenBlas::version),
            &openblas::FILES,
            "libopenblas0-pthread",
        );
        library(
            "onednn",
            onednn.map(OneDnn::version),
            &onednn::FILES,
            "libdnnl3, or libdnnl2 where that is the newest",
        );
        if cfg!(feature = "rivals") {
            for name in ["gemm", "matrixmultiply", "faer"] {
                found.push(Rival {
                    name: name.to_owned(),
                    version: locked_version(name).unwrap_or("unknown").to_owned(),
                });
            }
        }
        (found, missing)
    }
}

/// The version of a crate in Cargo.lock, which is the one that was compiled.
fn locked_version(name: &str) -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split_once('"').map(|(version, _)| version)
}

/// A product of floats.
pub(crate) type Floats<'a> = Product<'a, f32, f32>;
/// A product of signed bytes, in integers of 32 bits.
pub(crate) type Bytes<'a> = Product<'a, i8, i32>;

/// `c = a · b`, all of them contiguous. The slices have exactly the elements of the shape, which is what those who
/// call into other libraries rely on; a contender takes the parts out and cannot put others in.
pub(crate) struct Product<'a, T, S> {
    shape: [usize; 3],
    a: &'a [T],
    b: &'a [T],
    transposed: bool,
    c: &'a mut [S],
}

impl<'a, T, S> Product<'a, T, S> {
    /// `[rows, columns, depth]`: `a` is rows × depth, `b` depth × columns, or columns × depth if it is transposed, and `c`
    /// rows × columns.
    ///
    /// # Panics
    /// If a slice has another number of elements, or a length does not fit the 32 bits that BLAS has for it.
    pub(crate) fn new(
        [rows, columns, depth]: [usize; 3],
        a: &'a [T],
        b: &'a [T],
        transposed: bool,
        c: &'a mut [S],
    ) -> Product<'a, T, S> {
        assert_eq!(a.len(), rows * depth);
        assert_eq!(b.len(), depth * columns);
        assert_eq!(c.len(), rows * columns);
        assert!(
            [rows, columns, depth]
                .iter()
                .all(|n| i32::try_from(*n).is_ok())
        );
        Product {
            shape: [rows, columns, depth],
            a,
            b,
            transposed,
            c,
        }
    }

    pub(crate) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    pub(crate) fn a(&self) -> &'a [T] {
        self.a
    }

    pub(crate) fn b(&self) -> &'a [T] {
        self.b
    }

    /// Whether `b` has its columns contiguous.
    pub(crate) fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// From a row of `b` to the next, and from a column to the next.
    #[cfg(feature = "rivals")]
    pub(crate) fn b_strides(&self) -> [isize; 2] {
        let [_, columns, depth] = self.shape;
        match self.transposed {
            true => [1, depth as isize],
            false => [columns as isize, 1],
        }
    }

    /// Elements from a row (or, transposed, from a column) of `b` to the next.
    pub(crate) fn b_leading(&self) -> usize {
        let [_, columns, depth] = self.shape;
        if self.transposed { depth } else { columns }
    }

    pub(crate) fn c(&mut self) -> &mut [S] {
        self.c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock() {
        let version = locked_version("gemm").expect("it is locked");
        assert!(version.starts_with("0."), "{version}");
        assert_eq!(locked_version("gem"), None);
    }

    #[test]
    fn who_is_not_installed_is_named_with_the_package() {
        let none = Libraries {
            openblas: None,
            onednn: None,
        };
        let (_, missing) = none.rivals();
        let packages: Vec<_> = missing.iter().map(|it| it.package.as_str()).collect();
        assert_eq!(packages[0], "libopenblas0-pthread");
        assert!(packages[1].contains("libdnnl3"));
    }
}
