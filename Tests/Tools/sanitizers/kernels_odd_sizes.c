// Products, attention and elementwise operations of odd sizes under AddressSanitizer and UndefinedBehaviorSanitizer, by every instruction set of this
// machine: each array is as large as its contract says and no larger, and results are those of the portable kernels. scripts/sanitize.sh builds and
// runs it, for arm as well.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "AdaKernels.h"

static int failures, cases;
static const char *const names[] = {"portable", "avx2", "avxvnni", "avx512", "amx", "neon"};

static uint64_t state = 1;
static float number(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 33) / (float)(1 << 30) - 1.0f;
}

// Memory on a 64-byte boundary that ends where the contract says.
static void *exact(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes > 0 ? bytes : 1) != 0) abort();
    memset(memory, 0, bytes);
    return memory;
}
static float *numbers(size_t count) {
    float *values = exact(count * sizeof(float));
    for (size_t i = 0; i < count; i++) values[i] = number();
    return values;
}

static void compare(const char *what, const char *kernels, const float *got, const float *expected, size_t count, float tolerance) {
    float largest = 0, error = 0;
    int is_number = 1;
    for (size_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(expected[i]));
        error = fmaxf(error, fabsf(got[i] - expected[i]));
        is_number &= isfinite(got[i]) != 0;
    }
    cases++;
    if (is_number && error <= tolerance * largest) return;
    failures++;
    printf("%s: %s differs from portable by %g of %g\n", what, kernels, error, largest);
}

// ----------------------------------------------------------------------------------------------------------------- products

typedef struct {
    ak_type act, weight;
    ak_layout layout;
    int32_t rows, inputs, tokens, bundle;
    int picks;   // every second block and not every panel
} product;

static const ak_kernels *portable;

static ak_matrix weights(const product *p, uint8_t **memory) {
    const int32_t panels = (p->rows + AK_PANEL - 1) / AK_PANEL, blocks = (p->inputs + AK_BLOCK - 1) / AK_BLOCK;
    const size_t count = (size_t)p->rows * (size_t)p->inputs;
    const ak_type stored = p->weight == AK_I8 ? AK_F32 : p->weight == AK_Q4_1 ? AK_Q4_0 : p->weight;
    const size_t row_bytes = (size_t)(p->inputs / ak_type_block(p->weight == AK_I8 ? AK_F32 : p->weight)) * (size_t)ak_type_bytes(p->weight == AK_I8 ? AK_F32 : p->weight);
    float *values = numbers(count);
    uint8_t *source = exact(row_bytes * (size_t)p->rows);
    if (p->weight == AK_Q4_1) {   // nothing writes it: two halves and 16 bytes of anything
        for (size_t at = 0; at < row_bytes * (size_t)p->rows; at += 20) {
            const uint16_t halves[2] = {ak_float_to_half(number()), ak_float_to_half(number())};
            memcpy(source + at, halves, sizeof halves);
            for (int i = 4; i < 20; i++) source[at + (size_t)i] = (uint8_t)(number() * 127 + 128);
        }
    } else if (ak_quantize(source, stored, values, (int64_t)count) != 0) {
        abort();
    }
    free(values);
    ak_matrix matrix = {p->weight, p->layout, p->rows, p->inputs, panels, blocks, p->bundle, row_bytes, source};
    *memory = source;
    if (p->layout == AK_ROWS) return matrix;
    const int32_t packed = (panels + p->bundle - 1) / p->bundle * p->bundle;
    matrix.stride = ak_panel_bytes(p->weight, p->inputs);
    matrix.data = *memory = exact(matrix.stride * (size_t)packed);
    const int status = ak_pack_panels(*memory, p->weight, p->bundle, source, p->weight == AK_I8 ? AK_F32 : p->weight, row_bytes, p->rows, p->inputs, 0, packed);
    if (status != 0) abort();
    free(source);
    return matrix;
}

static void multiply(const product *p) {
    uint8_t *memory;
    const ak_matrix weight = weights(p, &memory);
    const int32_t blocks = weight.blocks;
    const size_t stride = (size_t)blocks * AK_BLOCK, scales_of_token = p->act == AK_I8 ? (size_t)ak_groups(blocks) : (size_t)blocks;
    const size_t element = p->act == AK_F32 ? 4 : p->act == AK_BF16 || p->act == AK_I16 ? 2 : 1, tokens = (size_t)p->tokens;
    float *x = exact(tokens * stride * sizeof(float)), *scales = exact(tokens * scales_of_token * sizeof(float));
    int32_t *sums = exact(tokens * (size_t)blocks * sizeof(int32_t));
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < (size_t)p->inputs; i++) x[t * stride + i] = number();
    const size_t ldo = (size_t)weight.panels * AK_PANEL;
    float *bias = numbers(ldo), *expected = exact(tokens * ldo * sizeof(float)), *out = exact(tokens * ldo * sizeof(float));
    for (int32_t r = p->rows; r < weight.panels * AK_PANEL; r++) bias[r] = 0;
    int32_t *listed_panels = exact((size_t)weight.panels * sizeof(int32_t)), *listed_blocks = exact((size_t)blocks * sizeof(int32_t));
    int32_t panel_count = 0, block_count = 0;
    for (int32_t i = 0; i < weight.panels; i++)
        if (!p->picks || i % 3 != 1) listed_panels[panel_count++] = i;
    for (int32_t i = 0; i < blocks; i += 2) listed_blocks[block_count++] = i;
    void *scratch = exact(ak_matmul_scratch(&weight));
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const ak_kernels *kernels = ak_kernels_named(names[n]);
        if (kernels == NULL) continue;
        void *data = exact(tokens * stride * element);
        switch (p->act) {
            case AK_BF16: kernels->to_bf16(data, stride, x, stride, p->tokens, (int32_t)stride); break;
            case AK_Q8_0: kernels->quantize_q8(data, stride, scales, sums, x, stride, p->tokens, blocks); break;
            case AK_I16: kernels->quantize_i16(data, stride, scales, x, stride, p->tokens, blocks); break;
            case AK_I8: kernels->quantize_i8(data, stride, scales, x, stride, p->tokens, blocks); break;
            default: memcpy(data, x, tokens * stride * element);
        }
        const ak_activations act = {p->act, p->tokens, blocks, stride, data, scales, sums};
        const ak_upcoming upcoming = {&weight, listed_panels, panel_count};
        const int picks_blocks = p->picks && p->act != AK_I8;
        float *result = kernels == portable ? expected : out;
        memset(result, 0, tokens * ldo * sizeof(float));
        kernels->matmul(result, ldo, &act, &weight, bias, listed_panels, panel_count, picks_blocks ? listed_blocks : NULL,
                        picks_blocks ? block_count : 0, p->picks ? AK_ACCUMULATE : 0, p->tokens % 2 ? &upcoming : NULL, scratch);
        if (kernels != portable) {
            char what[160];
            snprintf(what, sizeof what, "product act %d weight %d layout %d bundle %d, %d x %d, %d tokens, picks %d", p->act, p->weight, p->layout, p->bundle, p->rows,
                     p->inputs, p->tokens, p->picks);
            compare(what, names[n], out, expected, tokens * ldo, 1e-4f);
        }
        free(data);
    }
    free(memory), free(x), free(scales), free(sums), free(bias), free(expected), free(out), free(listed_panels), free(listed_blocks), free(scratch);
}

static void multiply_all(void) {
    const struct { ak_type act, weight; ak_layout layout; int32_t bundle; } pairs[] = {
        {AK_F32, AK_F32, AK_PANELS, 1}, {AK_F32, AK_F16, AK_PANELS, 1}, {AK_F32, AK_BF16, AK_PANELS, 4}, {AK_F32, AK_Q8_0, AK_PANELS, 1},
        {AK_F32, AK_F16, AK_ROWS, 1}, {AK_F32, AK_Q8_0, AK_ROWS, 1}, {AK_F32, AK_Q4_0, AK_ROWS, 1}, {AK_BF16, AK_F16, AK_PANELS, 1},
        {AK_BF16, AK_BF16, AK_PANELS, 1}, {AK_BF16, AK_Q8_0, AK_PANELS, 1}, {AK_BF16, AK_Q4_1, AK_ROWS, 1}, {AK_I16, AK_F16, AK_PANELS, 1},
        {AK_I16, AK_BF16, AK_PANELS, 1}, {AK_Q8_0, AK_Q8_0, AK_PANELS, 1}, {AK_Q8_0, AK_Q8_0, AK_PANELS, 5}, {AK_Q8_0, AK_Q4_0, AK_PANELS, 1},
        {AK_Q8_0, AK_Q4_0, AK_PANELS, 12}, {AK_Q8_0, AK_Q4_1, AK_PANELS, 3}, {AK_Q8_0, AK_Q8_0, AK_ROWS, 1}, {AK_Q8_0, AK_Q4_0, AK_ROWS, 1},
        {AK_Q8_0, AK_Q4_1, AK_ROWS, 1}, {AK_I8, AK_I8, AK_PANELS, 1},
    };
    const int32_t sizes[][2] = {{1, 32}, {16, 64}, {17, 96}, {70, 320}, {211, 576}, {40, 1600}}, tokens[] = {1, 2, 3, 4, 5, 7, 13, 24, 33, 130};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
                for (int picks = 0; picks < 2; picks++) {
                    product p = {pairs[i].act, pairs[i].weight, pairs[i].layout, sizes[s][0], sizes[s][1], tokens[t], pairs[i].bundle, picks};
                    // Inputs that are no whole blocks, and those that I8 takes.
                    if (p.weight == AK_I8) p.inputs = (p.inputs + 63) / 64 * 64;
                    else if (ak_type_block(p.weight) == 1) p.inputs -= 7 * (s % 2);
                    multiply(&p);
                }
}

// ---------------------------------------------------------------------------------------------------------------- attention

static void attend(int32_t head_dim, ak_type type, int32_t positions, int32_t queries, int32_t first, int32_t window) {
    const int32_t width = ak_value_width(head_dim), count = (positions + AK_ATTENTION_SPAN - 1) / AK_ATTENTION_SPAN;
    const ak_type stored = type == AK_BF16 ? AK_F16 : type;
    const size_t dims = (size_t)head_dim, size = type == AK_F32 ? 4 : 2;
    const size_t key_bytes = AK_ATTENTION_SPAN * dims * size, value_bytes = AK_ATTENTION_SPAN * (size_t)width * size;
    float *k = numbers((size_t)positions * dims), *v = numbers((size_t)positions * dims), *q = numbers((size_t)queries * dims);
    float *expected = exact((size_t)queries * dims * 4), *out = exact((size_t)queries * dims * 4), *whole = exact((size_t)queries * dims * 4);
    float *part = exact((size_t)queries * dims * 4), *logs = exact((size_t)queries * 4), *part_logs = exact((size_t)queries * 4);
    void *scratch = exact(ak_attention_scratch(positions, head_dim));
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const ak_kernels *kernels = ak_kernels_named(names[n]);
        if (kernels == NULL) continue;
        const int takes_pairs = kernels->attention_pairs != NULL && ak_has_bf16_dot();
        if (type == AK_BF16 && kernels != portable && !takes_pairs) continue;
        const int32_t seen = first < 0 ? positions : first + 1, unseen = window > 0 && window < seen ? seen - window : 0;
        const void **pages = exact((size_t)count * sizeof *pages);
        for (int32_t i = unseen / AK_ATTENTION_SPAN; i < count; i++) {
            const int32_t start = i * AK_ATTENTION_SPAN, left = positions - start, here = left < AK_ATTENTION_SPAN ? left : AK_ATTENTION_SPAN;
            uint8_t *page = exact(key_bytes + value_bytes);
            kernels->store_kv(page, page + key_bytes, stored, k + (size_t)start * dims, dims, v + (size_t)start * dims, dims, head_dim, 0, here);
            if (type == AK_BF16 && kernels != portable) {
                uint8_t *pairs = exact(key_bytes + value_bytes);
                kernels->attention_pairs((uint16_t *)pairs, (uint16_t *)(pairs + key_bytes), page, page + key_bytes, stored, head_dim, 0, here);
                free(page);
                page = pairs;
            }
            pages[i] = page;
        }
        const ak_paged_head head = {pages, 0, key_bytes, kernels == portable ? stored : type, head_dim};
        float *result = kernels == portable ? expected : out;
        kernels->attention(result, dims, q, dims, &head, positions, queries, first, window, 0.3f, scratch);
        char what[120];
        snprintf(what, sizeof what, "attention of %d, type %d, %d positions, %d queries from %d, window %d", head_dim, type, positions, queries, first, window);
        if (kernels != portable) compare(what, names[n], out, expected, (size_t)queries * dims, type == AK_BF16 ? 0.05f : 1e-4f);
        if (first < 0) {   // all queries see the same: page by page
            memset(whole, 0, (size_t)queries * dims * 4);
            for (int32_t t = 0; t < queries; t++) logs[t] = -INFINITY;
            for (int32_t i = 0; i < count; i++) {
                const uint8_t *page = pages[i];
                const int32_t start = i * AK_ATTENTION_SPAN, skip = unseen > start ? unseen - start : 0;
                const int32_t left = positions - start, here = left < AK_ATTENTION_SPAN ? left : AK_ATTENTION_SPAN;
                kernels->attention_span(part, dims, part_logs, q, dims, page, page ? page + key_bytes : NULL, head.type, head_dim, skip, here, queries, 0.3f,
                                        NULL, scratch);
                ak_attention_merge(whole, dims, logs, part, dims, part_logs, queries, head_dim);
            }
            compare(what, "page by page", whole, result, (size_t)queries * dims, 0);
        }
        for (int32_t i = 0; i < count; i++) free((void *)pages[i]);
        free(pages);
    }
    free(k), free(v), free(q), free(expected), free(out), free(whole), free(part), free(logs), free(part_logs), free(scratch);
}

static void attend_all(void) {
    const int32_t dims[] = {4, 8, 20, 32, 64, 80, 128, 256}, windows[] = {0, 1, 15, 100, 256, 300};
    const int32_t cases[][3] = {{1, 1, 0}, {5, 5, 0}, {33, 3, 30}, {70, 7, -1}, {256, 2, 254}, {257, 14, -1}, {300, 50, 250}, {600, 70, 530}};
    const ak_type types[] = {AK_F32, AK_F16, AK_BF16};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (size_t t = 0; t < 3; t++)
            for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
                for (size_t w = 0; w < sizeof windows / sizeof *windows; w++)
                    attend(dims[d], types[t], cases[c][0], cases[c][1], cases[c][2], windows[w]);
}

// ------------------------------------------------------------------------------------------------------------- elementwise

// What one operation of these kernels makes of `tokens` rows of n values, as floats, in a new array of *count values; NULL behind the last operation.
static float *operate(const ak_kernels *kernels, int operation, int32_t tokens, int32_t n, size_t *count, const char **what) {
    const int32_t blocks = (n + AK_BLOCK - 1) / AK_BLOCK;
    const size_t length = (size_t)n, padded = (size_t)blocks * AK_BLOCK, rows = (size_t)tokens, values = rows * length;
    state = (uint64_t)operation + 1;   // the same numbers for all kernels
    float *x = numbers(values), *y = numbers(values), *weight = numbers(length), *bias = numbers(length), *out = NULL;
    for (size_t i = 0; i < values; i++) x[i] *= 8;
    *count = values;
    switch (operation) {
        case 0: *what = "rms_norm"; out = numbers(values); kernels->rms_norm(out, length, x, length, weight, 1e-5f, tokens, n); break;
        case 1: *what = "layer_norm"; out = numbers(values); kernels->layer_norm(out, length, x, length, weight, bias, 1e-5f, tokens, n); break;
        case 2: *what = "silu_mul"; kernels->silu_mul(x, y, values); break;
        case 3: *what = "gelu_erf"; kernels->gelu_erf(x, values); break;
        case 4: *what = "gelu_tanh"; kernels->gelu_tanh(x, values); break;
        case 5: *what = "gelu_quick"; kernels->gelu_quick(x, values); break;
        case 6: *what = "silu"; kernels->silu(x, values); break;
        case 7: *what = "add"; kernels->add(x, y, values); break;
        case 8: case 9:
            *what = operation == 8 ? "rope" : "rope of neighbours";
            if (n % 2 == 0) kernels->rope(x, weight, bias, tokens, n, operation == 9);
            break;
        case 10: {
            *what = "to_bf16", out = numbers(values);
            uint16_t *halves = exact(values * sizeof *halves);
            kernels->to_bf16(halves, length, x, length, tokens, n);
            for (size_t i = 0; i < values; i++) out[i] = halves[i];
            free(halves);
            break;
        }
        case 11: case 12: case 13: {   // whole blocks, then their scales, then their sums
            *what = (const char *[]){"quantize_q8", "quantize_i16", "quantize_i8"}[operation - 11];
            const size_t scale_count = rows * (operation == 13 ? (size_t)ak_groups(blocks) : (size_t)blocks), sum_count = operation == 11 ? scale_count : 0;
            float *source = numbers(rows * padded), *scales = exact(scale_count * sizeof *scales);
            int32_t *sums = exact(sum_count * sizeof *sums);
            void *quants = exact(rows * padded * (operation == 12 ? 2 : 1));
            if (operation == 11) kernels->quantize_q8(quants, padded, scales, sums, source, padded, tokens, blocks);
            if (operation == 12) kernels->quantize_i16(quants, padded, scales, source, padded, tokens, blocks);
            if (operation == 13) kernels->quantize_i8(quants, padded, scales, source, padded, tokens, blocks);
            *count = rows * padded + scale_count + sum_count, out = exact(*count * sizeof *out);
            float *next = out;
            for (size_t i = 0; i < rows * padded; i++) *next++ = operation == 12 ? ((int16_t *)quants)[i] : ((int8_t *)quants)[i];
            for (size_t i = 0; i < scale_count; i++) *next++ = scales[i];
            for (size_t i = 0; i < sum_count; i++) *next++ = (float)sums[i];
            free(source), free(scales), free(sums), free(quants);
            break;
        }
        case 14: *what = "argmax", *count = 1, out = exact(sizeof *out), *out = (float)kernels->argmax(x, (int32_t)values); break;
        case 15: {   // the groups' maxima, then the indices above a threshold
            *what = "group_maxima, at_least";
            const size_t groups = (values + AK_LOGIT_GROUP - 1) / AK_LOGIT_GROUP;
            int32_t *indices = exact(values * sizeof *indices);
            *count = groups + values, out = exact(*count * sizeof *out);
            kernels->group_maxima(out, x, (int32_t)values);
            const int32_t found = kernels->at_least(indices, x, (int32_t)values, out, 3);
            for (int32_t i = 0; i < found; i++) out[groups + (size_t)i] = (float)indices[i];
            free(indices);
            break;
        }
        case 16: *what = "exp_sum", *count = 1, out = exact(sizeof *out), *out = (float)kernels->exp_sum(x, (int32_t)values, 8, 0.7f); break;
        case 17: {   // n channels of a small map
            *what = "depthwise_relu6";
            const ak_depthwise shape = {5, 4, n, 2, 3, 2, 1, 1};
            float *map = numbers(20 * length), *taps = numbers(9 * length);
            *count = 6 * length, out = exact(*count * sizeof *out);
            kernels->depthwise_relu6(out, length, map, length, taps, length, bias, &shape, 0, 3);
            free(map), free(taps);
            break;
        }
        default: free(x), x = NULL;
    }
    if (out != NULL) free(x), x = out;
    free(y), free(weight), free(bias);
    return x;
}

static void operate_all(void) {
    const int32_t lengths[] = {1, 2, 3, 6, 8, 15, 16, 17, 33, 64, 80, 100, 256, 300, 1000}, tokens[] = {1, 3, 16, 19};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
            for (int operation = 0;; operation++) {
                size_t count = 0;
                const char *what = NULL;
                float *expected = operate(portable, operation, tokens[t], lengths[l], &count, &what);
                if (expected == NULL) break;
                for (size_t n = 1; n < sizeof names / sizeof *names; n++) {
                    const ak_kernels *kernels = ak_kernels_named(names[n]);
                    if (kernels == NULL) continue;
                    float *got = operate(kernels, operation, tokens[t], lengths[l], &count, &what);
                    char line[120];
                    snprintf(line, sizeof line, "%s, %d rows of %d", what, tokens[t], lengths[l]);
                    compare(line, names[n], got, expected, count, operation >= 10 && operation <= 15 ? 0 : 1e-5f);   // quants and indices: equal
                    free(got);
                }
                free(expected);
            }
}

int main(void) {
    portable = ak_kernels_named("portable");
    multiply_all();
    attend_all();
    operate_all();
    printf("kernels_odd_sizes: %d comparisons, %d failures\n", cases, failures);
    return failures != 0;
}
