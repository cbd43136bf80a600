//! Pools and queues in statics.

use core::alloc::Layout;

use mielin_rt::{BlockPool, FreeError, MemoryPool, Queue};

use crate::Run;

static POOL: MemoryPool<256> = MemoryPool::new();
static BLOCKS: BlockPool<20, 4> = BlockPool::new();
static NUMBERS: Queue<u16, 4> = Queue::new();

pub(crate) fn tests(run: &mut Run<'_>) {
    run.test(
        "a static pool gives aligned memory until it is empty",
        |_| {
            let byte = POOL.place(1_u8).expect("there is room");
            let words = POOL.slice(8, 0_u64).expect("there is room");
            assert_eq!(words.as_ptr().addr() % align_of::<u64>(), 0);
            words.fill(u64::MAX);
            assert_eq!(*byte, 1);
            let aligned = POOL
                .allocate(Layout::new::<[u32; 4]>())
                .expect("there is room");
            assert_eq!(aligned.addr().get() % 4, 0);
            assert!(POOL.slice(256, 0_u8).is_err());
            while POOL.place(0_u8).is_ok() {}
            assert_eq!(POOL.left(), 0);
        },
    );
    run.test("blocks come back, and no block comes back twice", |_| {
        let first = BLOCKS.take().expect("all are free");
        let second = BLOCKS.allocate().expect("three are free");
        drop(first);
        assert_eq!(BLOCKS.left(), 3);
        // SAFETY: nobody uses the block.
        let freed = unsafe { [BLOCKS.free(second), BLOCKS.free(second)] };
        assert_eq!(freed, [Ok(()), Err(FreeError::AlreadyFree)]);
        assert_eq!(BLOCKS.left(), 4);
    });
    run.test("a queue gives back what it has no room for", |_| {
        for number in 0..4 {
            assert_eq!(NUMBERS.push(number), Ok(()));
        }
        assert_eq!((NUMBERS.push(4), NUMBERS.refused()), (Err(4), 1));
        assert_eq!((NUMBERS.pop(), NUMBERS.len()), (Some(0), 3));
    });
}
