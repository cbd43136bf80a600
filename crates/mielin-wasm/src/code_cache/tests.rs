use std::time::Duration;

use ::wasmtime::{Instance, Store};
use tempfile::TempDir;

use super::*;

const ROOMY: u64 = 1 << 20;

fn wasm(answer: i32) -> Vec<u8> {
    wat::parse_str(format!(
        "(module (func (export \"answer\") (result i32) i32.const {answer}))"
    ))
    .unwrap()
}

fn answer(engine: &Engine, module: &Module) -> i32 {
    let mut store = Store::new(engine, ());
    let instance = Instance::new(&mut store, module, &[]).unwrap();
    let answer = instance.get_typed_func::<(), i32>(&mut store, "answer");
    answer.unwrap().call(&mut store, ()).unwrap()
}

/// A cache that has the module which answers 1, and the path of its file.
fn filled(engine: &Engine) -> (TempDir, CodeCache, PathBuf) {
    let directory = TempDir::new().unwrap();
    let cache = CodeCache::open(directory.path().join("code"), ROOMY).unwrap();
    cache.module(engine, &wasm(1)).unwrap();
    let path = cache.path(&name(engine, &wasm(1)));
    assert!(path.exists());
    (directory, cache, path)
}

#[test]
fn code_is_found_again_after_a_restart() {
    let engine = Engine::default();
    let (directory, cache, _) = filled(&engine);
    drop(cache);
    let cache = CodeCache::open(directory.path().join("code"), ROOMY).unwrap();
    let found = cache.find(&engine, &name(&engine, &wasm(1))).unwrap();
    assert_eq!(answer(&engine, &found.unwrap()), 1);
    let other = cache.find(&engine, &name(&engine, &wasm(2))).unwrap();
    assert!(other.is_none());
}

#[test]
fn changed_bytes_are_never_run_and_are_compiled_again() {
    let engine = Engine::default();
    let (_directory, cache, path) = filled(&engine);
    let name = name(&engine, &wasm(1));
    let whole = fs::read(&path).unwrap();
    let flips = (0..whole.len()).step_by(whole.len() / 50).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    });
    let cuts = [0, 1, MAC_BYTES, whole.len() - 1].map(|len| whole[..len].to_vec());
    let longer = [&whole[..], b"x"].concat();
    for bytes in flips.chain(cuts).chain([longer]) {
        fs::write(&path, bytes).unwrap();
        assert!(cache.find(&engine, &name).is_err());
        assert!(!path.exists());
        let module = cache.module(&engine, &wasm(1)).unwrap();
        assert_eq!(answer(&engine, &module), 1);
        assert!(fs::read(&path).unwrap() == whole);
    }
}

#[test]
fn code_of_another_module_or_machine_is_not_believed() {
    let engine = Engine::default();
    let (_directory, cache, path) = filled(&engine);
    let (_elsewhere, other, theirs) = filled(&engine);
    assert_ne!(cache.key, other.key);
    fs::copy(&theirs, &path).unwrap();
    assert!(cache.find(&engine, &name(&engine, &wasm(1))).is_err());

    cache.module(&engine, &wasm(1)).unwrap();
    let second = name(&engine, &wasm(2));
    fs::copy(&path, cache.path(&second)).unwrap();
    assert!(cache.find(&engine, &second).is_err());
    let module = cache.module(&engine, &wasm(2)).unwrap();
    assert_eq!(answer(&engine, &module), 2);
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let engine = Engine::default();
    let (directory, cache, first) = filled(&engine);
    let bytes = fs::metadata(&first).unwrap().len();
    let small = CodeCache::open(directory.path().join("code"), bytes * 5 / 2).unwrap();
    let age = |path: &Path, hours: u64| {
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(then)
            .unwrap();
    };
    small.module(&engine, &wasm(2)).unwrap();
    let second = cache.path(&name(&engine, &wasm(2)));
    age(&first, 2);
    age(&second, 1);
    // Using it makes it the newest.
    small.module(&engine, &wasm(1)).unwrap();
    small.module(&engine, &wasm(3)).unwrap();
    assert!(first.exists() && !second.exists());

    let none = CodeCache::open(directory.path().join("tiny"), bytes / 2).unwrap();
    let module = none.module(&engine, &wasm(1)).unwrap();
    assert_eq!(answer(&engine, &module), 1);
    assert_eq!(
        fs::read_dir(directory.path().join("tiny")).unwrap().count(),
        1
    );
}

#[test]
#[cfg(unix)]
fn the_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (_directory, cache, path) = filled(&Engine::default());
    assert_eq!(mode(&cache.directory), 0o700);
    assert_eq!(mode(&cache.directory.join(KEY)), 0o600);
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_key_that_was_cut_off_is_replaced_and_what_it_vouched_for_compiled_again() {
    let engine = Engine::default();
    let (directory, cache, path) = filled(&engine);
    let key = cache.directory.join(KEY);
    fs::write(&key, b"short").unwrap();
    let cache = CodeCache::open(directory.path().join("code"), ROOMY).unwrap();
    assert_eq!(fs::read(&key).unwrap(), cache.key);
    assert!(cache.find(&engine, &name(&engine, &wasm(1))).is_err());
    let module = cache.module(&engine, &wasm(1)).unwrap();
    assert_eq!(answer(&engine, &module), 1);
    assert!(path.exists());
}
