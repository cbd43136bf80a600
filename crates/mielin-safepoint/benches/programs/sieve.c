/* Sieve of Eratosthenes: short inner loops of byte stores. */
#include "bench.h"

#define LIMIT 2000000
static u8 composite[LIMIT];

void start(void) {
    u64 sum = 0;
    for (u32 round = 0; round < 12; round++) {
        for (u32 i = 0; i < LIMIT; i++) composite[i] = 0;
        for (u32 i = 2; i * i < LIMIT; i++)
            if (!composite[i])
                for (u32 j = i * i; j < LIMIT; j += i) composite[j] = 1;
        for (u32 i = 2; i < LIMIT; i++)
            if (!composite[i]) sum += i ^ round;
    }
    checksum = sum;
}
