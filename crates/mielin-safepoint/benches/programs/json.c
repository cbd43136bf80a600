/* Writes a document of nested objects, arrays, numbers and strings, and parses it into nodes by recursive descent. */
#include "bench.h"

#define TEXT (1 << 20)
#define NODES 200000

enum kind { NIL, NUMBER, STRING, ARRAY, OBJECT };
struct node {
    enum kind kind;
    u32 next, child, hash;
    double value;
};

static u8 text[TEXT];
static struct node nodes[NODES];
static u32 length, at, used, seed;

static u32 next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static void put(const char *s) {
    while (*s) text[length++] = (u8)*s++;
}

static void put_number(u32 value) {
    u8 digits[10];
    u32 count = 0;
    do digits[count++] = (u8)('0' + value % 10), value /= 10;
    while (value);
    while (count) text[length++] = digits[--count];
}

static void put_name(void) {
    text[length++] = '"';
    for (u32 i = 0, n = 2 + next() % 9; i < n; i++) {
        u32 letter = next() % 27;
        if (letter == 26) text[length++] = '\\', text[length++] = 'n';
        else text[length++] = (u8)('a' + letter);
    }
    text[length++] = '"';
}

static void write_value(u32 depth) {
    u32 what = depth ? next() % 5 : 4;
    if (depth > 6 && what > 2) what = 1;
    switch (what) {
    case 0: put("null"); return;
    case 1:
        if (next() & 1) put("-");
        put_number(next() % 100000);
        if (next() & 1) put("."), put_number(next() % 1000);
        return;
    case 2: put_name(); return;
    default:
        put(what == 3 ? "[" : "{");
        for (u32 i = 0, n = depth ? next() % 9 : 60; i < n; i++) {
            if (length > TEXT - 4096) break;
            if (i) put(", ");
            if (what == 4) put_name(), put(": ");
            write_value(depth + 1);
        }
        put(what == 3 ? "]" : "}");
    }
}

static void blanks(void) {
    while (text[at] == ' ' || text[at] == '\n') at++;
}

static u32 parse_string(void) {
    u32 hash = 2166136261u;
    for (at++; text[at] != '"'; at++) {
        u8 byte = text[at];
        if (byte == '\\') byte = text[++at] == 'n' ? '\n' : text[at];
        hash = (hash ^ byte) * 16777619u;
    }
    at++;
    return hash;
}

static double parse_number(void) {
    double sign = 1, value = 0, unit = 1;
    if (text[at] == '-') sign = -1, at++;
    while (text[at] >= '0' && text[at] <= '9') value = value * 10 + (text[at++] - '0');
    if (text[at] == '.')
        for (at++; text[at] >= '0' && text[at] <= '9'; at++) value += (unit /= 10) * (text[at] - '0');
    return sign * value;
}

static u32 parse(void) {
    u32 index = used++;
    struct node *node = &nodes[index];
    blanks();
    switch (text[at]) {
    case 'n': node->kind = NIL, at += 4; break;
    case '"': node->kind = STRING, node->hash = parse_string(); break;
    case '[':
    case '{': {
        u8 object = text[at] == '{', end = object ? '}' : ']';
        u32 *link = &node->child;
        node->kind = object ? OBJECT : ARRAY;
        at++;
        blanks();
        while (text[at] != end) {
            u32 hash = 0;
            blanks();
            if (object) hash = parse_string(), blanks(), at++;
            u32 child = parse();
            nodes[child].hash ^= hash;
            *link = child;
            link = &nodes[child].next;
            blanks();
            if (text[at] == ',') at++;
        }
        at++;
        break;
    }
    default: node->kind = NUMBER, node->value = parse_number();
    }
    return index;
}

static u64 walk(u32 index, u32 depth) {
    struct node *node = &nodes[index];
    u64 sum = node->hash + (u64)node->kind * depth + (u64)(i64)(node->value * 1000);
    for (u32 child = node->child; child; child = nodes[child].next) sum = sum * 31 + walk(child, depth + 1);
    return sum;
}

void start(void) {
    u64 sum = 0;
    for (u32 round = 1; round <= 6; round++) {
        seed = round * 2654435761u, length = 0;
        write_value(0);
        text[length] = 0;
        for (u32 again = 0; again < 100; again++) {
            for (u32 i = 0; i < used; i++) nodes[i] = (struct node){NIL, 0, 0, 0, 0};
            at = used = 0;
            parse();
            sum += walk(0, 1) + length;
        }
    }
    checksum = sum;
}
