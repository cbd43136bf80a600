/* Product of two matrices of doubles, the plain three loops. */
#include "bench.h"

#define N 256
static double a[N][N], b[N][N], c[N][N];

void start(void) {
    for (u32 i = 0; i < N; i++)
        for (u32 j = 0; j < N; j++) {
            a[i][j] = (double)((i * 7 + j * 3) % 11) - 5;
            b[i][j] = (double)((i * 5 + j * 13) % 17) - 8;
        }
    for (u32 round = 0; round < 8; round++) {
        for (u32 i = 0; i < N; i++)
            for (u32 j = 0; j < N; j++) {
                double sum = 0;
                for (u32 k = 0; k < N; k++) sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        a[round][round] += c[round][N - 1 - round] / 1024;
    }
    double trace = 0;
    for (u32 i = 0; i < N; i++) trace += c[i][i] * (double)(i + 1);
    checksum = (u64)(long long)trace;
}
