/* Mandelbrot set: a floating-point loop without memory. */
#include "bench.h"

#define SIDE 400

void start(void) {
    u64 sum = 0;
    for (u32 y = 0; y < SIDE; y++)
        for (u32 x = 0; x < SIDE; x++) {
            double cr = (double)x * 3.0 / SIDE - 2.2, ci = (double)y * 2.4 / SIDE - 1.2;
            double zr = 0, zi = 0;
            u32 n = 0;
            while (n < 500 && zr * zr + zi * zi < 4) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci;
                zr = t;
                n++;
            }
            sum = sum * 3 + n;
        }
    checksum = sum;
}
