/* Recursion: nothing but calls. */
#include "bench.h"

__attribute__((noinline)) static u32 fib(u32 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

void start(void) { checksum = fib(36); }
