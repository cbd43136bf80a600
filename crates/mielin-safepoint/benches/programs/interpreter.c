/* A small interpreter: a stack machine with locals, calls, arrays and natives behind pointers, which runs a program that
   sorts, counts primes and computes Fibonacci numbers. */
#include "bench.h"

enum { HALT, PUSH, LOCAL, STORE, ADD, SUB, MUL, MOD, LESS, EQUAL, JUMP, BRANCH, CALL, RETURN, LOAD, SAVE, NATIVE, DROP };

#define STACK 4096
#define HEAP 65536

static i32 stack[STACK], heap[HEAP];
static i32 code[512];
static u32 length;
static u32 seed = 99;

static i32 random_native(i32 limit) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return (i32)(seed % (u32)limit);
}
static i32 mix_native(i32 value) { return (i32)((u32)value * 2654435761u >> 7); }
static i32 (*volatile natives[2])(i32) = {random_native, mix_native};

static i32 run(u32 pc) {
    u32 sp = 0, fp = 0;
    for (;;) {
        i32 op = code[pc++];
        switch (op) {
        case HALT: return stack[sp - 1];
        case PUSH: stack[sp++] = code[pc++]; break;
        case LOCAL: stack[sp++] = stack[fp + (u32)code[pc++]]; break;
        case STORE: stack[fp + (u32)code[pc++]] = stack[--sp]; break;
        case ADD: sp--, stack[sp - 1] += stack[sp]; break;
        case SUB: sp--, stack[sp - 1] -= stack[sp]; break;
        case MUL: sp--, stack[sp - 1] = (i32)((u32)stack[sp - 1] * (u32)stack[sp]); break;
        case MOD: sp--, stack[sp - 1] %= stack[sp]; break;
        case LESS: sp--, stack[sp - 1] = stack[sp - 1] < stack[sp]; break;
        case EQUAL: sp--, stack[sp - 1] = stack[sp - 1] == stack[sp]; break;
        case JUMP: pc = (u32)code[pc]; break;
        case BRANCH: pc = stack[--sp] ? pc + 1 : (u32)code[pc]; break;
        case CALL: {
            /* Target, arguments, further locals. */
            u32 target = (u32)code[pc], arguments = (u32)code[pc + 1], locals = (u32)code[pc + 2];
            i32 saved = (i32)fp;
            u32 base = sp - arguments;
            sp = base + arguments + locals;
            stack[sp++] = saved;
            stack[sp++] = (i32)(pc + 3);
            stack[sp++] = (i32)base;
            fp = base;
            pc = target;
            break;
        }
        case RETURN: {
            i32 result = stack[--sp];
            u32 base = (u32)stack[--sp];
            pc = (u32)stack[--sp];
            fp = (u32)stack[--sp];
            sp = base;
            stack[sp++] = result;
            break;
        }
        case LOAD: stack[sp - 1] = heap[(u32)stack[sp - 1] % HEAP]; break;
        case SAVE: sp -= 2, heap[(u32)stack[sp] % HEAP] = stack[sp + 1]; break;
        case NATIVE: stack[sp - 1] = natives[code[pc++]](stack[sp - 1]); break;
        case DROP: sp--; break;
        }
    }
}

static void emit(i32 a) { code[length++] = a; }
static void emit2(i32 a, i32 b) { emit(a), emit(b); }
static void call(i32 target, i32 arguments, i32 locals) { emit2(CALL, target), emit2(arguments, locals); }

/* fib(n): locals n. */
static i32 fibonacci(void) {
    i32 start = (i32)length;
    emit2(LOCAL, 0), emit2(PUSH, 2), emit(LESS);
    u32 hole = length + 1;
    emit2(BRANCH, 0);
    emit2(LOCAL, 0), emit(RETURN);
    code[hole] = (i32)length;
    emit2(LOCAL, 0), emit2(PUSH, 1), emit(SUB), call(start, 1, 0);
    emit2(LOCAL, 0), emit2(PUSH, 2), emit(SUB), call(start, 1, 0);
    emit(ADD), emit(RETURN);
    return start;
}

/* primes(n): locals n, i, j, count. */
static i32 primes(void) {
    i32 start = (i32)length;
    emit2(PUSH, 0), emit2(STORE, 3), emit2(PUSH, 2), emit2(STORE, 1);
    u32 outer = length;
    emit2(LOCAL, 1), emit2(LOCAL, 0), emit(LESS);
    u32 done = length + 1;
    emit2(BRANCH, 0);
    emit2(PUSH, 2), emit2(STORE, 2);
    u32 inner = length;
    emit2(LOCAL, 2), emit2(LOCAL, 2), emit(MUL), emit2(LOCAL, 1), emit2(PUSH, 1), emit(ADD), emit(LESS);
    u32 prime = length + 1;
    emit2(BRANCH, 0);
    emit2(LOCAL, 1), emit2(LOCAL, 2), emit(MOD), emit2(PUSH, 0), emit(EQUAL);
    u32 not = length + 1;
    emit2(BRANCH, 0);
    u32 composite = length + 1;
    emit2(JUMP, 0);
    code[not] = (i32)length;
    emit2(LOCAL, 2), emit2(PUSH, 1), emit(ADD), emit2(STORE, 2), emit2(JUMP, (i32)inner);
    code[prime] = (i32)length;
    emit2(LOCAL, 3), emit2(PUSH, 1), emit(ADD), emit2(STORE, 3);
    emit2(LOCAL, 3), emit2(LOCAL, 1), emit(SAVE);
    code[composite] = (i32)length;
    emit2(LOCAL, 1), emit2(PUSH, 1), emit(ADD), emit2(STORE, 1), emit2(JUMP, (i32)outer);
    code[done] = (i32)length;
    emit2(LOCAL, 3), emit(RETURN);
    return start;
}

/* noise(n): locals n, i, sum. */
static i32 noise(void) {
    i32 start = (i32)length;
    emit2(PUSH, 0), emit2(STORE, 1), emit2(PUSH, 0), emit2(STORE, 2);
    u32 loop = length;
    emit2(LOCAL, 1), emit2(LOCAL, 0), emit(LESS);
    u32 done = length + 1;
    emit2(BRANCH, 0);
    emit2(PUSH, 1000), emit2(NATIVE, 0), emit2(NATIVE, 1), emit(LOAD);
    emit2(LOCAL, 2), emit(ADD), emit2(STORE, 2);
    emit2(LOCAL, 1), emit2(PUSH, 1), emit(ADD), emit2(STORE, 1), emit2(JUMP, (i32)loop);
    code[done] = (i32)length;
    emit2(LOCAL, 2), emit(RETURN);
    return start;
}

void start(void) {
    length = 0;
    i32 fib = fibonacci(), count = primes(), random = noise();
    u32 main = length;
    emit2(PUSH, 24), call(fib, 1, 0);
    emit2(PUSH, 12000), call(count, 1, 3), emit(ADD);
    emit2(PUSH, 300000), call(random, 1, 2), emit(ADD);
    emit(HALT);
    u64 sum = 0;
    for (u32 round = 0; round < 4; round++) sum = sum * 31 + (u32)run(main);
    checksum = sum;
}
