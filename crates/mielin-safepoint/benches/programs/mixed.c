/* A bit of everything: a generator, a heap sort through a function pointer, a hash table, string
   search, and a small interpreter. */
#include "bench.h"

#define COUNT 40000
#define SLOTS 65536

static u32 values[COUNT], keys[SLOTS], counts[SLOTS];
static u8 text[COUNT];
static u32 seed = 1;

static u32 next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static int ascending(u32 a, u32 b) { return a < b; }
static int descending(u32 a, u32 b) { return a > b; }
static int (*volatile orders[2])(u32, u32) = {ascending, descending};

static void sift(u32 root, u32 end, int (*before)(u32, u32)) {
    for (;;) {
        u32 child = 2 * root + 1;
        if (child >= end) return;
        if (child + 1 < end && before(values[child], values[child + 1])) child++;
        if (!before(values[root], values[child])) return;
        u32 t = values[root];
        values[root] = values[child];
        values[child] = t;
        root = child;
    }
}

static void sort(int (*before)(u32, u32)) {
    for (u32 i = COUNT / 2; i-- > 0;) sift(i, COUNT, before);
    for (u32 end = COUNT - 1; end > 0; end--) {
        u32 t = values[0];
        values[0] = values[end];
        values[end] = t;
        sift(0, end, before);
    }
}

static u64 table(void) {
    u64 sum = 0;
    for (u32 i = 0; i < SLOTS; i++) keys[i] = counts[i] = 0;
    for (u32 i = 0; i < COUNT; i++) {
        u32 key = values[i] % 20000 + 1, slot = key * 2654435761u >> 16;
        while (keys[slot] && keys[slot] != key) slot = (slot + 1) % SLOTS;
        keys[slot] = key;
        counts[slot]++;
    }
    for (u32 i = 0; i < SLOTS; i++) sum += (u64)keys[i] * counts[i];
    return sum;
}

static u32 search(const char *needle, u32 length) {
    u32 found = 0;
    for (u32 i = 0; i + length <= COUNT; i++) {
        u32 j = 0;
        while (j < length && text[i + j] == (u8)needle[j]) j++;
        found += j == length;
    }
    return found;
}

static u32 interpret(u32 steps) {
    static const u8 program[] = {0, 3, 1, 2, 4, 1, 5, 3, 2, 6};
    u32 a = 1, b = 2, at = 0;
    while (steps--) {
        switch (program[at]) {
        case 0: a += b; break;
        case 1: b ^= a << 1; break;
        case 2: a = a * 5 + 1; break;
        case 3: b -= a >> 3; break;
        case 4: a ^= values[b % COUNT]; break;
        case 5: b += text[a % COUNT]; break;
        default: at = (u32)-1;
        }
        at++;
    }
    return a ^ b;
}

void start(void) {
    u64 sum = 0;
    for (u32 round = 0; round < 10; round++) {
        for (u32 i = 0; i < COUNT; i++) {
            values[i] = next();
            text[i] = (u8)('a' + next() % 4);
        }
        sort(orders[round % 2]);
        sum = sum * 7 + table() + values[round * 100];
        sum += search("abca", 4) + search("dddddd", 6);
        sum ^= interpret(1000000);
    }
    checksum = sum;
}
