// Integers and floating point in nested loops, printing as it goes.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint8_t composite[20000];

static unsigned sieve(void) {
    unsigned primes = 0;
    memset(composite, 0, sizeof composite);
    for (unsigned n = 2; n < sizeof composite; n++) {
        if (composite[n]) continue;
        primes++;
        for (unsigned m = n * 2; m < sizeof composite; m += n) composite[m] = 1;
    }
    return primes;
}

static unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static double series(int terms) {
    double sum = 0;
    for (int k = 0; k < terms; k++) sum += (k % 2 ? -1.0 : 1.0) / (2 * k + 1) * sqrt(k + 1.0);
    return sum;
}

int main(int argc, char **argv) {
    printf("%s: %d arguments\n", argv[0], argc);
    uint64_t hash = 14695981039346656037u;
    for (int round = 0; round < 12; round++) {
        unsigned primes = sieve(), f = fib(14 + round % 3);
        double s = series(2000 + round);
        volatile double zero = 0;
        double nan = zero / zero;
        uint64_t bits;
        memcpy(&bits, &nan, 8);
        hash = (hash ^ primes ^ f ^ bits) * 1099511628211u;
        printf("%2d %u %u %.12f %016llx\n", round, primes, f, s, (unsigned long long)hash);
    }
    return hash & 0x3f;
}
