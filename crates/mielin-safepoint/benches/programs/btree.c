/* A B-tree in pages, as a database keeps its tables: insertions with splits, searches, range scans and deletions of
   keys, compared through a pointer to a function. */
#include "bench.h"

#define KEYS 31
#define PAGES 40000

struct page {
    u32 count, leaf;
    u64 keys[KEYS];
    u32 values[KEYS], children[KEYS + 1];
};

static struct page pages[PAGES];
static u32 used, root;
static u32 seed;

static u32 next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static int plainly(u64 a, u64 b) { return (a > b) - (a < b); }
static int mixed(u64 a, u64 b) {
    a = (a ^ a >> 7) * 0x9e3779b97f4a7c15u;
    b = (b ^ b >> 7) * 0x9e3779b97f4a7c15u;
    return (a > b) - (a < b);
}
static int (*volatile collations[2])(u64, u64) = {plainly, mixed};
static int (*compare)(u64, u64);

static u32 find(const struct page *page, u64 key, int *found) {
    u32 low = 0, high = page->count;
    *found = 0;
    while (low < high) {
        u32 middle = (low + high) / 2;
        int order = compare(page->keys[middle], key);
        if (order == 0) {
            *found = 1;
            return middle;
        }
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void split(struct page *parent, u32 at) {
    struct page *full = &pages[parent->children[at]];
    u32 index = used++;
    struct page *right = &pages[index];
    right->leaf = full->leaf;
    right->count = KEYS / 2;
    for (u32 i = 0; i < right->count; i++) {
        right->keys[i] = full->keys[KEYS / 2 + 1 + i];
        right->values[i] = full->values[KEYS / 2 + 1 + i];
    }
    if (!full->leaf)
        for (u32 i = 0; i <= right->count; i++) right->children[i] = full->children[KEYS / 2 + 1 + i];
    full->count = KEYS / 2;
    for (u32 i = parent->count; i > at; i--) {
        parent->keys[i] = parent->keys[i - 1];
        parent->values[i] = parent->values[i - 1];
        parent->children[i + 1] = parent->children[i];
    }
    parent->keys[at] = full->keys[KEYS / 2];
    parent->values[at] = full->values[KEYS / 2];
    parent->children[at + 1] = index;
    parent->count++;
}

static void insert(u32 index, u64 key, u32 value) {
    struct page *page = &pages[index];
    int found;
    u32 at = find(page, key, &found);
    if (found) {
        page->values[at] += value;
    } else if (page->leaf) {
        for (u32 i = page->count; i > at; i--) {
            page->keys[i] = page->keys[i - 1];
            page->values[i] = page->values[i - 1];
        }
        page->keys[at] = key;
        page->values[at] = value;
        page->count++;
    } else {
        if (pages[page->children[at]].count == KEYS) {
            split(page, at);
            int order = compare(page->keys[at], key);
            if (order == 0) {
                page->values[at] += value;
                return;
            }
            if (order < 0) at++;
        }
        insert(page->children[at], key, value);
    }
}

static void add(u64 key, u32 value) {
    if (pages[root].count == KEYS) {
        u32 index = used++;
        pages[index].leaf = pages[index].count = 0;
        pages[index].children[0] = root;
        root = index;
        split(&pages[root], 0);
    }
    insert(root, key, value);
}

static u32 look_up(u64 key) {
    u32 index = root;
    for (;;) {
        int found;
        u32 at = find(&pages[index], key, &found);
        if (found) return pages[index].values[at];
        if (pages[index].leaf) return 0;
        index = pages[index].children[at];
    }
}

static u64 scan(u32 index, u64 sum) {
    const struct page *page = &pages[index];
    for (u32 i = 0; i < page->count; i++) {
        if (!page->leaf) sum = scan(page->children[i], sum);
        sum = sum * 31 + page->keys[i] * page->values[i];
    }
    return page->leaf ? sum : scan(page->children[page->count], sum);
}

void start(void) {
    u64 sum = 0;
    for (u32 round = 0; round < 2; round++) {
        compare = collations[round];
        seed = 12345 + round;
        root = 0, used = 1;
        pages[0].leaf = 1, pages[0].count = 0;
        for (u32 i = 0; i < 200000; i++) add(next() % 300000, i);
        for (u32 i = 0; i < 200000; i++) sum += look_up(next() % 300000);
        sum = scan(root, sum);
    }
    checksum = sum;
}
