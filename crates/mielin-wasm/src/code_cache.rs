//! Native code on disk, so that a module is compiled once for a machine and not again after every start.
//!
//! Native code is not checked when it is loaded: whoever can choose it can do what the node can. So a file is
//! believed only with a code of authentication ([`blake3::keyed_hash`]) over its name and its bytes, under a key
//! that was drawn for this directory and never leaves it. That keeps out what was damaged, or copied here from
//! another machine. It cannot keep out who may write as the node's own user. Peers have no part in it: a moved
//! agent brings its module, and the native code is made here.

#![allow(
    unsafe_code,
    reason = "wasmtime cannot know where native code comes from; this module does"
)]

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ::wasmtime::{Engine, Error, Module};

/// Native code of one module beyond this is not kept, and no such file is read.
const FILE_BYTES_MAX: u64 = 256 << 20;
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// The file with the key.
const KEY: &str = "key";
/// How the name of a file that is complete ends.
const COMPLETE: &str = "native";

/// A directory of native code.
///
/// Nothing that goes wrong with it stops a module from being prepared: it is compiled then.
#[derive(Debug)]
pub struct CodeCache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
    bytes_max: u64,
}

impl CodeCache {
    /// The cache in this directory, which is made, for its owner alone, if it is not there. When its files
    /// have more than `bytes_max` bytes together, those go that were not used for the longest time.
    ///
    /// # Errors
    /// The directory cannot be made, or its key be read or drawn.
    pub fn open(directory: PathBuf, bytes_max: u64) -> io::Result<Self> {
        make_private(&directory)?;
        let key = key(&directory.join(KEY))?;
        Ok(Self {
            directory,
            key,
            bytes_max,
        })
    }

    /// The module's code, from its file or compiled, and then kept.
    pub(crate) fn module(&self, engine: &Engine, wasm: &[u8]) -> Result<Module, Error> {
        let name = name(engine, wasm);
        match self.find(engine, &name) {
            Ok(Some(module)) => return Ok(module),
            Ok(None) => {}
            Err(error) => tracing::warn!(%name, "native code is not used: {error:#}"),
        }
        let module = Module::new(engine, wasm)?;
        if let Err(error) = self.keep(&module, &name) {
            tracing::warn!(%name, "native code is not kept: {error:#}");
        }
        Ok(module)
    }

    /// The code under this name. A file that cannot be believed or used is removed.
    fn find(&self, engine: &Engine, name: &str) -> Result<Option<Module>, Error> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let loaded = self.load(engine, name, &file);
        match &loaded {
            Ok(_) => file.set_modified(SystemTime::now())?,
            Err(_) => fs::remove_file(&path)?,
        }
        loaded.map(Some)
    }

    fn load(&self, engine: &Engine, name: &str, file: &File) -> Result<Module, Error> {
        let mut bytes = Vec::new();
        let longest = FILE_BYTES_MAX + MAC_BYTES as u64;
        file.take(longest + 1).read_to_end(&mut bytes)?;
        let (mac, code) = bytes
            .split_first_chunk::<MAC_BYTES>()
            .filter(|_| bytes.len() as u64 <= longest)
            .ok_or_else(|| Error::msg("the file is not of a size that this node writes"))?;
        // Compared in constant time.
        if self.mac(name, code) != *mac {
            return Err(Error::msg("this node has not written the file's bytes"));
        }
        // SAFETY: `deserialize` asks for unchanged bytes that `Module::serialize` gave. Nobody else knows the
        // key under which these are authenticated, and `keep` authenticates nothing but what that gave.
        // The bytes are this function's own copy, which no other process can change.
        unsafe { Module::deserialize(engine, code) }
    }

    fn keep(&self, module: &Module, name: &str) -> Result<(), Error> {
        let code = module.serialize()?;
        let bytes = code.len() as u64 + MAC_BYTES as u64;
        if bytes > FILE_BYTES_MAX.min(self.bytes_max) {
            return Ok(());
        }
        self.make_room(bytes)?;
        let mac = self.mac(name, &code);
        // Two threads may keep one module at once: each writes a file of its own.
        let draft = self.directory.join(format!("{name}.{}", draft_number()?));
        let written = write_private(&draft, &[mac.as_bytes(), &code])
            .and_then(|()| fs::rename(&draft, self.path(name)));
        if written.is_err() {
            // What stopped the writing is the error to tell.
            let _ = fs::remove_file(&draft);
        }
        Ok(written?)
    }

    /// Removes files until there is room for this many bytes.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() && entry.file_name() != KEY {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort_unstable();
        let mut total = files.iter().map(|(_, len, _)| len).sum::<u64>();
        for (_, len, path) in files {
            if total.saturating_add(bytes) <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            total -= len;
        }
        Ok(())
    }

    fn mac(&self, name: &str, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(name.as_bytes());
        hasher.update(code);
        hasher.finalize()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension(COMPLETE)
    }
}

/// One name, of fixed length, for a module and everything about the engine that its code depends on.
fn name(engine: &Engine, wasm: &[u8]) -> String {
    struct Feed(blake3::Hasher);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut feed = Feed(blake3::Hasher::new());
    feed.0.update(blake3::hash(wasm).as_bytes());
    engine.precompile_compatibility_hash().hash(&mut feed);
    feed.0.finalize().to_hex().to_string()
}

/// The directory's key, drawn when it is asked for first. One that was cut off, as by a power failure, is
/// replaced: nothing is believed then of what was kept under it, and that is compiled again.
fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => match read?.try_into() {
            Ok(key) => return Ok(key),
            Err(_) => fs::remove_file(path)?,
        },
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    write_private(path, &[&key])?;
    Ok(key)
}

fn draft_number() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

fn make_private(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Writes a new file that only its owner may read.
fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

#[cfg(test)]
mod tests;
