// Gated short convolutions of single rows. They have few operations per value, so plain loops, which the compiler vectorizes, are bound by memory.
#include "AdaKernels.h"

void ak_multiply(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= y[i];
}

void ak_gated_taps(float *out, const float *gate, const float *const *rows, const float *taps, size_t ldt, const float *bias, int32_t count,
                   int32_t first, int32_t end) {
    for (int32_t c = first; c < end; c++) out[c] = bias ? bias[c] : 0.0f;
    for (int32_t k = 0; k < count; k++) {
        const float *row = rows[k], *weights = taps + (size_t)k * ldt;
        if (row)
            for (int32_t c = first; c < end; c++) out[c] += row[c] * weights[c];
    }
    for (int32_t c = first; c < end; c++) out[c] *= gate[c];
}
