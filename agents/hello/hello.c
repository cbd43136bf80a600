/* Sample agent in C: says who and with which arguments it is, and what it was
 * granted. It needs no capability. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <mielin.h>

int main(int argc, char **argv) {
    mielin_address self;
    uint32_t error = mielin_self_id(&self);
    if (error != 0) {
        fprintf(stderr, "hello: self_id: error %u\n", error);
        return 1;
    }
    char id[2 * sizeof self.bytes + 1];
    for (size_t i = 0; i < sizeof self.bytes; i++) {
        snprintf(id + 2 * i, 3, "%02x", self.bytes[i]);
    }
    printf("Hello from agent %s\n", id);
    for (int i = 1; i < argc; i++) {
        printf("argument %d: %s\n", i, argv[i]);
    }

    char granted[1024];
    uint32_t length = 0;
    error = mielin_capabilities(granted, sizeof granted, &length);
    if (error != 0) {
        fprintf(stderr, "hello: capabilities: error %u, %u bytes\n", error, length);
        return 1;
    }
    printf("granted:%s\n", length == 0 ? " nothing" : "");
    fwrite(granted, 1, length, stdout);

    const char *line = "hello has said everything";
    mielin_log(MIELIN_INFO, line, (uint32_t)strlen(line));
    return 0;
}
