//! The committed inputs of a target: `fuzz/corpus/TARGET`, one file each.

use std::fs;
use std::path::{Path, PathBuf};

/// The beginning of the names of inputs that the decoder must accept.
const GOOD: &str = "ok-";
/// The beginning of the names of inputs that it must refuse.
const BAD: &str = "bad-";

/// An input of a corpus. Its name says what it is, and begins with what must become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Seed {
    /// An input that the decoder accepts.
    #[must_use]
    pub fn good(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
        Seed {
            name: format!("{GOOD}{name}"),
            bytes: bytes.into(),
        }
    }

    /// An input that it refuses.
    #[must_use]
    pub fn bad(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
        Seed {
            name: format!("{BAD}{name}"),
            bytes: bytes.into(),
        }
    }

    /// What must become of it; `None` for a file that a fuzzer has left and nobody has named.
    pub(crate) fn is_good(&self) -> Option<bool> {
        if self.name.starts_with(GOOD) {
            Some(true)
        } else if self.name.starts_with(BAD) {
            Some(false)
        } else {
            None
        }
    }
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The inputs of a target, in the order of their names.
pub(crate) fn read(target: &str) -> Vec<Seed> {
    let folder = fuzz().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!("{target} has no corpus ({error}); `cargo xtask fuzz {target} --seeds` writes one")
    });
    let mut seeds: Vec<Seed> = entries
        .map(|entry| {
            let path = entry.expect("a folder that can be opened is listed").path();
            Seed {
                name: path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                bytes: fs::read(&path).expect("a file of the corpus can be read"),
            }
        })
        .collect();
    seeds.sort_by(|a, b| a.name.cmp(&b.name));
    seeds
}

/// Writes inputs into the corpus of a target.
pub(crate) fn write(target: &str, seeds: &[Seed]) {
    let folder = fuzz().join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the repository can be written");
    for seed in seeds {
        fs::write(folder.join(&seed.name), &seed.bytes).expect("the repository can be written");
    }
}

/// Keeps an input that broke a promise, where cargo-fuzz keeps its own; gives its path.
pub(crate) fn keep(target: &str, bytes: &[u8]) -> PathBuf {
    // FNV-1a: the name only has to differ from that of another input.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let folder = fuzz().join("artifacts").join(target);
    let path = folder.join(format!("crash-{hash:016x}"));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, bytes));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    path
}
