/* mielin.h: the import module `mielin`, version 4, for agents written in C.
 *
 * docs/AGENT_ABI.md is the contract; this header only gives it C types. Every
 * function but mielin_abi_version returns 0, or an error number of WASI preview
 * 1 (the values of wasi-libc's <errno.h>), in which case it had no effect, but
 * where it is said.
 *
 * An agent may be frozen inside any of these calls and go on, on another
 * machine, as if nothing had happened.
 *
 * Build: clang --target=wasm32-wasi -O2 -I DIRECTORY_OF_THIS_FILE agent.c -o agent.wasm
 */
#ifndef MIELIN_H
#define MIELIN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MIELIN_ABI_VERSION 4

#define MIELIN_IMPORT(name) __attribute__((import_module("mielin"), import_name(name)))

/* An agent's address: 16 opaque bytes, written as 32 hexadecimal digits. */
typedef struct mielin_address {
    uint8_t bytes[16];
} mielin_address;

/* What a message is to its receiver. */
enum mielin_kind {
    MIELIN_MESSAGE = 0, /* of the sender's own accord; it can be answered once */
    MIELIN_REPLY = 1    /* the answer to a message of ours */
};

/* How much a line of mielin_log matters. */
enum mielin_level {
    MIELIN_ERROR = 0,
    MIELIN_WARN = 1,
    MIELIN_INFO = 2,
    MIELIN_DEBUG = 3,
    MIELIN_TRACE = 4
};

/* A timeout that never comes. */
#define MIELIN_WITHOUT_END UINT64_MAX

/* What mielin_receive tells about a message, beside its payload. */
typedef struct mielin_received {
    mielin_address from; /* who sent it */
    uint64_t sequence;   /* its number among the messages from this sender, from 1 */
    uint64_t answers;    /* of a reply: the number of the message that it answers */
    uint32_t kind;       /* enum mielin_kind */
    uint32_t length;     /* of the payload, in bytes */
} mielin_received;

_Static_assert(sizeof(mielin_received) == 40, "the layout of docs/AGENT_ABI.md");

/* The version of the import module that the node provides. */
MIELIN_IMPORT("abi_version")
uint32_t mielin_abi_version(void);

/* Writes this agent's own address. It stays the same wherever the agent moves. */
MIELIN_IMPORT("self_id")
uint32_t mielin_self_id(mielin_address *out);

/* Sends a message of the agent's own accord; writes its number among those sent
 * to that destination, from 1. Blocks while too many are under way. Needs the
 * capability `message` or `message:ADDRESS`.
 * ENOTCAPABLE: not granted. EMSGSIZE: over the limit. EHOSTUNREACH: nobody has
 * this address. EPIPE: the node accepts no messages any more. */
MIELIN_IMPORT("send")
uint32_t mielin_send(const mielin_address *to, const void *payload, uint32_t length,
                     uint64_t *sequence);

/* Takes the oldest message, or blocks until one arrives; a timeout of 0 only looks.
 * EAGAIN: none waits and the timeout is 0. ETIMEDOUT: none came in time.
 * EMSGSIZE: the message needs out->length bytes and stays where it is. If there is
 * room for so many, this node cannot give it (a microcontroller): it stays until
 * mielin_discard takes it or the agent is on another node. */
MIELIN_IMPORT("receive")
uint32_t mielin_receive(void *buffer, uint32_t capacity, uint64_t timeout_ns,
                        mielin_received *out);

/* Answers a message that was received. Each may be answered once, without any
 * capability, as long as it is among the last 4,096. Blocks as mielin_send does.
 * ENOENT: there is no such message, or it was answered. EMSGSIZE, EHOSTUNREACH,
 * EPIPE: as for mielin_send. */
MIELIN_IMPORT("reply")
uint32_t mielin_reply(const mielin_address *to, uint64_t sequence, const void *payload,
                      uint32_t length);

/* Writes a line, UTF-8 of at most 64 KiB, to the node's structured log of this
 * agent. EINVAL: no such level. EMSGSIZE: too long. */
MIELIN_IMPORT("log")
uint32_t mielin_log(uint32_t level, const char *text, uint32_t length);

/* Writes what the agent was granted, one capability on a line, and how many
 * bytes that takes. EMSGSIZE: they need *length bytes. */
MIELIN_IMPORT("capabilities")
uint32_t mielin_capabilities(char *buffer, uint32_t capacity, uint32_t *length);

/* Kernels of the node for matrices, in place on the agent's memory. All need the
 * capability `tensor`. docs/AGENT_ABI.md says what each does, and when it gives
 * EINVAL, EFAULT or EMSGSIZE; nothing was written then. */
enum mielin_type { MIELIN_F32 = 0, MIELIN_I8 = 1, MIELIN_I32 = 2 };

/* The element in row i and column j is elements[i * row_stride + j * column_stride]. */
typedef struct mielin_matrix {
    const void *elements;   /* aligned as their type is */
    uint32_t type;          /* enum mielin_type */
    uint32_t rows;
    uint32_t columns;
    uint32_t row_stride;    /* in elements */
    uint32_t column_stride; /* in elements */
} mielin_matrix;

_Static_assert(sizeof(mielin_matrix) == 24, "the layout of docs/AGENT_ABI.md");

enum mielin_function {
    MIELIN_EXP = 1,
    MIELIN_TANH = 2,
    MIELIN_SIGMOID = 3,
    MIELIN_SILU = 4,
    MIELIN_GELU = 5,
    MIELIN_GELU_TANH = 6,
    MIELIN_RELU = 7
};

enum mielin_operation {
    MIELIN_ADD = 0,
    MIELIN_SUB = 1,
    MIELIN_MUL = 2,
    MIELIN_DIV = 3,
    MIELIN_MAX = 4,
    MIELIN_MIN = 5
};

enum mielin_reduction {
    MIELIN_ROW_SUM = 0,
    MIELIN_ROW_MEAN = 1,
    MIELIN_ROW_MAX = 2,
    MIELIN_ROW_ARGMAX = 3
};

/* c = function(a * b + bias), or function(c + a * b + bias) if accumulate is 1.
 * bias is a row or NULL; function 0 is none. */
MIELIN_IMPORT("tensor_matmul")
uint32_t mielin_tensor_matmul(const mielin_matrix *a, const mielin_matrix *b,
                              const mielin_matrix *c, const mielin_matrix *bias,
                              uint32_t function, uint32_t accumulate);

/* c = a * b of i8, in i32. */
MIELIN_IMPORT("tensor_matmul_i8")
uint32_t mielin_tensor_matmul_i8(const mielin_matrix *a, const mielin_matrix *b,
                                 const mielin_matrix *c);

/* to = function(from), element by element; both may be the same. */
MIELIN_IMPORT("tensor_map")
uint32_t mielin_tensor_map(uint32_t function, const mielin_matrix *from,
                           const mielin_matrix *to);

/* to = operation(a, b), element by element; a and to may be the same. */
MIELIN_IMPORT("tensor_zip")
uint32_t mielin_tensor_zip(uint32_t operation, const mielin_matrix *a,
                           const mielin_matrix *b, const mielin_matrix *to);

/* One element for each row. */
MIELIN_IMPORT("tensor_reduce")
uint32_t mielin_tensor_reduce(uint32_t reduction, const mielin_matrix *from,
                              const mielin_matrix *to);

/* Each row becomes its softmax. */
MIELIN_IMPORT("tensor_softmax")
uint32_t mielin_tensor_softmax(const mielin_matrix *x);

/* Layer norm of each row; RMS norm if offset is NULL. epsilon: the bits of a float. */
MIELIN_IMPORT("tensor_norm")
uint32_t mielin_tensor_norm(const mielin_matrix *x, const mielin_matrix *gain,
                            const mielin_matrix *offset, uint32_t epsilon);

/* softmax(scale * queries * keys^T) * values. scale: the bits of a float. Query i
 * sees the keys up to i + past; if past is negative, all. */
MIELIN_IMPORT("tensor_attention")
uint32_t mielin_tensor_attention(const mielin_matrix *queries, const mielin_matrix *keys,
                                 const mielin_matrix *values, const mielin_matrix *to,
                                 uint32_t scale, int32_t past);

/* Row i of to becomes the row of the table that numbers[i] names. */
MIELIN_IMPORT("tensor_embedding")
uint32_t mielin_tensor_embedding(const mielin_matrix *table, const mielin_matrix *numbers,
                                 const mielin_matrix *to);

/* What a sensor measured once. */
typedef struct mielin_reading {
    uint64_t number;  /* among the readings of this sensor, from 1 */
    uint64_t time_ns; /* when it was taken, on the clock of the device: real time in ns since
                       * 1970 where the device knows it, else since the device was started */
    int64_t value;    /* in the sensor's own unit */
} mielin_reading;

_Static_assert(sizeof(mielin_reading) == 24, "the layout of docs/AGENT_ABI.md");

/* Gives the reading of a sensor with the lowest number above `after`, or blocks until
 * there is one; a timeout of 0 only looks. The device may forget those up to `after`:
 * begin with 0 and go on with the last number. Needs the capability `sensor` or
 * `sensor:N`.
 * EAGAIN: there is none and the timeout is 0. ETIMEDOUT: none came in time. ENODEV:
 * there is no such sensor where the agent is. ENOTCAPABLE: not granted. */
MIELIN_IMPORT("sense")
uint32_t mielin_sense(uint32_t sensor, uint64_t after, uint64_t timeout_ns,
                      mielin_reading *out);

/* Sets an actuator to a value, in its own unit. Blocks while the device has not
 * answered. Needs the capability `actuator` or `actuator:N`.
 * ENODEV: there is no such actuator where the agent is. EINVAL: the device refuses
 * the value. EHOSTUNREACH: the device does not answer, and whether the actuator was
 * set is not known. ENOTCAPABLE: not granted. */
MIELIN_IMPORT("actuate")
uint32_t mielin_actuate(uint32_t actuator, int64_t value);

/* Takes the oldest message without its payload, if that is longer than `longer_than`
 * bytes, or if this node cannot give it; does not block. Writes what mielin_receive
 * would; the message can be answered.
 * EAGAIN: none is there, or it is not so long. */
MIELIN_IMPORT("discard")
uint32_t mielin_discard(uint32_t longer_than, mielin_received *out);

#ifdef __cplusplus
}
#endif

#endif
