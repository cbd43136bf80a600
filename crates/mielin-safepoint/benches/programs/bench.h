/* Freestanding helpers of the overhead programs: no libc, one exported result. */
#ifndef BENCH_H
#define BENCH_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

/* The checksum, at the address that `result` gives. */
static volatile u64 checksum;

__attribute__((export_name("result"))) u64 result(void) { return checksum; }

__attribute__((export_name("_start"))) void start(void);

/* The compiler turns loops into calls of this. */
__attribute__((no_builtin("memset"))) void *memset(void *to, int value, unsigned long count) {
    for (unsigned long i = 0; i < count; i++) ((u8 *)to)[i] = (u8)value;
    return to;
}

#endif
