// Sleeps between lines and watches that its clock never goes back.
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    struct timespec last, now;
    clock_gettime(CLOCK_MONOTONIC, &last);
    for (int i = 0; i < 20; i++) {
        if (usleep(2000)) { printf("sleep failed\n"); return 1; }
        clock_gettime(CLOCK_MONOTONIC, &now);
        long long passed = (now.tv_sec - last.tv_sec) * 1000000000LL + (now.tv_nsec - last.tv_nsec);
        if (passed < 2000000) { printf("only %lld ns passed\n", passed); return 2; }
        last = now;
        printf("%d\n", i);
    }
    return 0;
}
