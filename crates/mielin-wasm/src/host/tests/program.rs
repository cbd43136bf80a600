//! Arguments, environment and random bytes.

use super::super::wasi::program;
use super::*;

#[test]
fn arguments_and_environment_are_laid_out_as_c_strings() {
    let mut bench = Bench::new(&[]);
    bench.context.host.args = vec![b"prog".to_vec(), b"".to_vec(), b"x=1".to_vec()];
    bench.context.host.env = vec![b"HOME=/".to_vec()];
    assert_eq!(bench.call(|call| program::args_sizes_get(call, 0, 4)), 0);
    assert_eq!((bench.u32(0), bench.u32(4)), (3, 10));
    assert_eq!(bench.call(|call| program::args_get(call, 8, 100)), 0);
    assert_eq!(
        [bench.u32(8), bench.u32(12), bench.u32(16)],
        [100, 105, 106]
    );
    assert_eq!(&bench.memory[100..110], b"prog\0\0x=1\0");
    assert_eq!(bench.call(|call| program::environ_sizes_get(call, 0, 4)), 0);
    assert_eq!((bench.u32(0), bench.u32(4)), (1, 7));
    assert_eq!(bench.call(|call| program::environ_get(call, 8, 200)), 0);
    assert_eq!(&bench.memory[200..207], b"HOME=/\0");
    let fault = errno(Errno::Fault);
    assert_eq!(
        bench.call(|call| program::args_get(call, END - 8, 100)),
        fault
    );
    assert_eq!(
        bench.call(|call| program::args_get(call, 8, END - 6)),
        fault
    );
    assert_eq!(
        bench.call(|call| program::args_get(call, 8, u32::MAX)),
        fault
    );
    assert_eq!(
        bench.call(|call| program::args_sizes_get(call, u32::MAX, 0)),
        fault
    );
}

#[test]
fn random_bytes_need_their_capability() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.call(|call| program::random_get(call, 0, 16)), 76);
    assert_eq!(&bench.memory[..16], [0; 16]);
    assert_eq!(
        *bench.desk.denied.lock().unwrap(),
        [(Capability::Random, "random_get")]
    );
    let mut bench = Bench::new(&["random"]);
    assert_eq!(bench.call(|call| program::random_get(call, 0, 16)), 0);
    assert_ne!(&bench.memory[..16], [0; 16]);
    assert_eq!(
        bench.call(|call| program::random_get(call, END - 15, 16)),
        21
    );
    assert_eq!(
        bench.call(|call| program::random_get(call, 0, u32::MAX)),
        28
    );
    assert_eq!(bench.call(|call| program::random_get(call, 0, 0)), 0);
}
