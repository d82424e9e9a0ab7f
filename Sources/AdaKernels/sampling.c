// Passes over the logits of a whole vocabulary for sampling a token: portable versions, and the selection, which needs no vectors.
#include <math.h>

#include "internal.h"

void ak_portable_group_maxima(float *maxima, const float *x, int32_t n) {
    for (int32_t first = 0; first < n; first += AK_LOGIT_GROUP) {
        const int32_t end = n - first < AK_LOGIT_GROUP ? n : first + AK_LOGIT_GROUP;
        float largest = -INFINITY;
        for (int32_t i = first; i < end; i++)
            if (x[i] > largest) largest = x[i];
        maxima[first / AK_LOGIT_GROUP] = largest;
    }
}

int32_t ak_portable_at_least(int32_t *indices, const float *x, int32_t n, const float *maxima, float threshold) {
    int32_t count = 0;
    for (int32_t first = 0; first < n; first += AK_LOGIT_GROUP) {
        if (!(maxima[first / AK_LOGIT_GROUP] >= threshold)) continue;
        const int32_t end = n - first < AK_LOGIT_GROUP ? n : first + AK_LOGIT_GROUP;
        for (int32_t i = first; i < end; i++)
            if (x[i] >= threshold) indices[count++] = i;
    }
    return count;
}

double ak_portable_exp_sum(const float *x, int32_t n, float shift, float scale) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        if (x[i] == x[i]) sum += (double)expf((x[i] - shift) * scale);
    return sum;
}

float ak_kth_largest(float *values, int32_t n, int32_t k) {
    int32_t low = 0, high = n - 1;
    while (low < high) {
        // The middle one as the pivot: values that are sorted already take no longer.
        const float pivot = values[low + (high - low) / 2];
        int32_t i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i <= j) {
                const float other = values[i];
                values[i++] = values[j];
                values[j--] = other;
            }
        }
        if (k - 1 <= j) high = j;
        else if (k - 1 >= i) low = i;
        else break;
    }
    return values[k - 1];
}
