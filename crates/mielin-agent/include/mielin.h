/* mielin.h: the import module `mielin`, version 1, for agents written in C.
 *
 * docs/AGENT_ABI.md is the contract; this header only gives it C types. Every
 * function but mielin_abi_version returns 0, or an error number of WASI preview
 * 1 (the values of wasi-libc's <errno.h>), in which case it had no effect.
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

#define MIELIN_ABI_VERSION 1

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
 * EMSGSIZE: the message needs out->length bytes and stays where it is. */
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

#ifdef __cplusplus
}
#endif

#endif
