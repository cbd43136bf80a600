//! Named tensors in one file, in the format of the library `safetensors`: the length of a header as eight bytes, the header as
//! JSON, and the elements.
//!
//! Nothing that the header claims is believed before it is compared with the bytes that are there.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Of the header, in bytes. A model of 100 tensors has 11 KB.
const HEADER_MAX: usize = 1 << 20;
const ELEMENT_BYTES: usize = size_of::<f32>();

/// The tensors of a file that is in memory.
#[derive(Debug)]
pub struct Safetensors<'a> {
    tensors: BTreeMap<String, Entry>,
    elements: &'a [u8],
}

/// What the header says of a tensor.
#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The file is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// The file ends before its header does.
    #[error("the weights end before their header does: {given} bytes are there")]
    Short {
        /// Bytes of the file.
        given: usize,
    },
    /// The header claims to be longer than the header of any model.
    #[error("the header of the weights claims {claimed} bytes; at most {HEADER_MAX} are read")]
    LongHeader {
        /// Its length.
        claimed: u64,
    },
    /// The header is not JSON of the right form.
    #[error("the header of the weights: {0}")]
    Header(serde_json::Error),
    /// There is no such tensor.
    #[error("the weights have no tensor {0}")]
    Missing(String),
    /// Its elements are not 32-bit floats.
    #[error("tensor {name} has elements of type {dtype}; only F32 is supported")]
    Type {
        /// Which tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// It has another shape than the model needs.
    #[error("tensor {name} has the shape {given:?}; the configuration asks for {expected:?}")]
    Shape {
        /// Which tensor.
        name: String,
        /// Its shape.
        given: Vec<usize>,
        /// What it should be.
        expected: Vec<usize>,
    },
    /// Its elements are not where the header says, or not so many.
    #[error("tensor {name} claims the bytes {from} to {to} of {there}")]
    Place {
        /// Which tensor.
        name: String,
        /// Its first byte.
        from: usize,
        /// The byte after its last one.
        to: usize,
        /// Bytes of all tensors.
        there: usize,
    },
}

impl<'a> Safetensors<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// See [`SafetensorsError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, SafetensorsError> {
        let short = || SafetensorsError::Short { given: file.len() };
        let (length, rest) = file.split_first_chunk().ok_or_else(short)?;
        let claimed = u64::from_le_bytes(*length);
        let length = usize::try_from(claimed)
            .ok()
            .filter(|length| *length <= HEADER_MAX)
            .ok_or(SafetensorsError::LongHeader { claimed })?;
        let (header, elements) = rest.split_at_checked(length).ok_or_else(short)?;
        let Header(tensors) = serde_json::from_slice(header).map_err(SafetensorsError::Header)?;
        Ok(Self { tensors, elements })
    }

    /// The elements of a tensor, which must have this shape.
    ///
    /// # Errors
    /// See [`SafetensorsError`].
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, SafetensorsError> {
        let missing = || SafetensorsError::Missing(name.to_string());
        let entry = self.tensors.get(name).ok_or_else(missing)?;
        if entry.dtype != "F32" {
            return Err(SafetensorsError::Type {
                name: name.to_string(),
                dtype: entry.dtype.clone(),
            });
        }
        if entry.shape != shape {
            return Err(SafetensorsError::Shape {
                name: name.to_string(),
                given: entry.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let [from, to] = entry.data_offsets;
        let mut factors = shape.iter();
        let len = factors.try_fold(ELEMENT_BYTES, |len, factor| len.checked_mul(*factor));
        let bytes = self.elements.get(from..to);
        let bytes = bytes.filter(|bytes| Some(bytes.len()) == len);
        let bytes = bytes.ok_or_else(|| SafetensorsError::Place {
            name: name.to_string(),
            from,
            to,
            there: self.elements.len(),
        })?;
        let (floats, _) = bytes.as_chunks();
        Ok(floats
            .iter()
            .map(|float| f32::from_le_bytes(*float))
            .collect())
    }
}

/// Tensors by their names. The entry `__metadata__` is for people.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry = map.next_value()?;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(A::Error::custom(format_args!("two tensors {name}")));
            }
        }
        Ok(Header(tensors))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use mielin_fuzz::{Seed, Target};

    use super::*;

    fn file(header: &str, elements: &[f32]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(elements.iter().flat_map(|element| element.to_le_bytes()));
        file
    }

    const HEADER: &str = r#"{"__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [4, 12]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "c": {"dtype": "F32", "shape": [2, 1], "data_offsets": [8, 16]},
        "d": {"dtype": "F32", "shape": [2, 1], "data_offsets": [8, 4]},
        "e": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 12]},
        "f": {"dtype": "F32", "shape": [4611686018427387905, 4], "data_offsets": [0, 4]}}"#;

    #[test]
    fn tensors_are_read_by_name_and_shape() {
        let file = file(HEADER, &[1.0, 2.0, -3.0]);
        let tensors = Safetensors::parse(&file).unwrap();
        assert_eq!(tensors.floats("a", &[2, 1]).unwrap(), [2.0, -3.0]);
        let check = |name: &str, shape: &[usize], expected: &str| {
            let error = tensors.floats(name, shape).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("z", &[1], "no tensor z");
        check("a", &[1, 2], "asks for [1, 2]");
        check("b", &[2], "type F16");
        check("c", &[2, 1], "bytes 8 to 16 of 12");
        check("d", &[2, 1], "bytes 8 to 4");
        check("e", &[2, 1], "bytes 0 to 12");
        check("f", &[4_611_686_018_427_387_905, 4], "bytes 0 to 4");
    }

    #[test]
    fn a_header_is_not_believed() {
        let check = |file: &[u8], expected: &str| {
            let error = Safetensors::parse(file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "0 bytes are there");
        check(&[9, 0, 0, 0, 0, 0, 0, 0, b'{'], "9 bytes are there");
        check(&[255; 64], "claims 18446744073709551615 bytes");
        check(&file("[]", &[]), "tensors by their names");
        let twice = r#"{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
            "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}"#;
        check(&file(twice, &[]), "two tensors a");
        let negative = r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#;
        check(&file(negative, &[]), "invalid value");
        check(&file(&"[".repeat(1 << 19), &[]), "header");
    }

    #[test]
    fn a_damaged_file_never_panics() {
        let whole = file(HEADER, &[1.0, 2.0, -3.0]);
        for at in 0..whole.len() {
            for value in [0, b'9', b'"', b'{', 255] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                if let Ok(tensors) = Safetensors::parse(&damaged) {
                    for name in ["a", "b", "c", "d", "e", "f"] {
                        let _ = tensors.floats(name, &[2, 1]);
                    }
                }
            }
            let _ = Safetensors::parse(&vec![0; at]);
            let _ = Safetensors::parse(&whole[..at]);
        }
    }

    /// Whatever the bytes are: no panic, and no more memory than a header of that length can name, and a tensor of that length
    /// can hold.
    const SAFETENSORS: Target = Target {
        name: "safetensors",
        mutations: 5_000,
        fixed_bytes: 16 << 10,
        bytes_per_byte: 64,
        run: |bytes| {
            let Ok(tensors) = Safetensors::parse(bytes) else {
                return false;
            };
            for (name, entry) in &tensors.tensors {
                if let Ok(floats) = tensors.floats(name, &entry.shape) {
                    assert!(floats.len() * ELEMENT_BYTES <= bytes.len());
                }
            }
            true
        },
        seeds: || {
            let good = file(HEADER, &[1.0, 2.0, -3.0]);
            let mut long = good.clone();
            long[..8].fill(0xFF);
            let nested = "[".repeat(100_000);
            vec![
                Seed::good("seven-tensors", good.clone()),
                Seed::good("none", file("{}", &[])),
                Seed::bad("cut", good[..100].to_vec()),
                Seed::bad("claims-to-be-long", long),
                Seed::bad("nested", file(&nested, &[])),
            ]
        },
    };

    #[test]
    fn hostile_files() {
        SAFETENSORS.replay();
    }
}
