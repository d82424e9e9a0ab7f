// The matrix product of 8-bit integers on AMX: tiles of 32 tokens by two panels, which are read in place.
//
// A line of a tile register holds 64 inputs, twice as many as in BF16, and a tile product takes the same time. Sums leave the registers once per scale
// group of 256 inputs; with 32 inputs per scale, as in Q8_0, multiplying by the scales would take longer than the products.
#include "amx.h"

#if AK_X86
#include "matmul_weights.h"

#define TILES __attribute__((target(AK_AVX512_FEATURES ",avx512bf16,amx-tile,amx-bf16,amx-int8")))
#define TILES_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES ",avx512bf16,amx-tile,amx-bf16,amx-int8")))
#define TOKENS (2 * AK_AMX_ROWS)   // tokens of a tile
#define PANELS 2                   // panels of a tile
#define WIDTH (PANELS * AK_PANEL)
#define PART_GROUPS 4              // scale groups of a part: a tile's activations then fit the first-level cache
#define TOGETHER 32                // panels of a panel group: half a megabyte of a part, which fits the second-level cache

// One call's product over the scale groups of a part.
typedef struct {
    float *out;
    size_t ldo, act_groups;
    const ak_activations *act;
    const ak_matrix *weight;
    const float *bias;
    int32_t first, last, flags;
} part;

// Adds the tile registers' integers, times their scales, to the sums.
TILES_INLINE void fold(float *sums, const int32_t *dots, const float *act_scales, size_t act_groups, const float *const *scales, int32_t tokens,
                       const int panels) {
    __m512 of_panel[PANELS];
    for (int p = 0; p < panels; p++) of_panel[p] = _mm512_loadu_ps(scales[p]);
    for (int32_t t = 0; t < tokens; t++, sums += WIDTH, dots += WIDTH, act_scales += act_groups) {
        const __m512 of_token = _mm512_set1_ps(*act_scales);
        for (int p = 0; p < panels; p++) {
            const __m512 values = _mm512_cvtepi32_ps(_mm512_load_si512(dots + p * AK_PANEL)), scale = _mm512_mul_ps(of_panel[p], of_token);
            _mm512_store_ps(sums + p * AK_PANEL, _mm512_fmadd_ps(values, scale, _mm512_load_ps(sums + p * AK_PANEL)));
        }
    }
}

// Multiplies `tokens` tokens from `token` on, in one or two halves of at most 16, with one or two panels.
TILES_INLINE void multiply(const part *part, int32_t token, int32_t tokens, const int32_t *panel, const int panels, const int halves) {
    float sums[TOKENS * WIDTH] __attribute__((aligned(AK_LINE)));
    int32_t dots[TOKENS * WIDTH] __attribute__((aligned(AK_LINE)));
    const ak_matrix *weight = part->weight;
    const size_t stride = part->act->stride, column[PANELS] = {(size_t)panel[0] * AK_PANEL, (size_t)panel[panels - 1] * AK_PANEL};
    float *const out = part->out + (size_t)token * part->ldo;
    const int goes_on = part->first > 0 || (part->flags & AK_ACCUMULATE);
    for (int32_t t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) {
            const float *from = out + (size_t)t * part->ldo + column[p];
            _mm512_store_ps(sums + t * WIDTH + p * AK_PANEL, goes_on ? _mm512_loadu_ps(from) : _mm512_setzero_ps());
        }
    const int8_t *act = (const int8_t *)part->act->data + (size_t)token * stride;
    const uint8_t *values[PANELS] = {packed_panel(weight, panel[0]), packed_panel(weight, panel[panels - 1])};
#define LOAD_TOKENS(register, half) _tile_loadd(register, act + (half) * AK_AMX_ROWS * stride + k, stride);
#define LOAD_WEIGHTS(register, p) _tile_stream_loadd(register, values[p] + k * AK_PANEL, AK_LINE);
#define ZERO(sums, half, p) _tile_zero(sums);
#define STORE(sums, half, p) _tile_stored(sums, dots + (half) * AK_AMX_ROWS * WIDTH + (p) * AK_PANEL, WIDTH * sizeof(int32_t));
    for (int32_t g = part->first; g < part->last; g++) {
        const size_t end = (size_t)ak_group_end(g, weight->blocks) * AK_BLOCK;
        AK_AMX_FOR_SUMS(panels, halves, ZERO)
        size_t k = (size_t)g * AK_GROUP;
        AK_AMX_LOAD(panels, halves, LOAD_TOKENS, LOAD_WEIGHTS)
        for (k += AK_LINE; k < end; k += AK_LINE) { AK_AMX_STEP(_tile_dpbssd, panels, halves, 1, LOAD_TOKENS, LOAD_WEIGHTS) }
        AK_AMX_STEP(_tile_dpbssd, panels, halves, 0, LOAD_TOKENS, LOAD_WEIGHTS)
        AK_AMX_FOR_SUMS(panels, halves, STORE)
        const float *const scales[PANELS] = {ak_i8_scales(weight, panel[0], g), ak_i8_scales(weight, panel[panels - 1], g)};
        fold(sums, dots, part->act->scales + (size_t)token * part->act_groups + (size_t)g, part->act_groups, scales, tokens, panels);
    }
    for (int32_t t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) {
            const __m512 bias = part->bias ? _mm512_loadu_ps(part->bias + column[p]) : _mm512_setzero_ps();
            ak_finish512(out + (size_t)t * part->ldo + column[p], _mm512_load_ps(sums + t * WIDTH + p * AK_PANEL), bias, part->flags & AK_RELU6);
        }
}

// From one part to the next, sums wait in `out`.
TILES void ak_amx_i8(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias, const int32_t *panels,
                     int32_t panel_count, int32_t flags, const ak_upcoming *upcoming) {
    const int32_t groups = ak_groups(weight->blocks), tiles = (act->tokens + TOKENS - 1) / TOKENS;
    int32_t shaped = 0;
    for (int32_t p = 0; p < panel_count; p += TOGETHER) {
        const int32_t end = smaller(p + TOGETHER, panel_count);
        int32_t first = 0;
        do {   // runs once even without inputs, because out must be written
            const int32_t last = smaller(groups, first + PART_GROUPS);
            const int is_last = last == groups;
            const part part = {
                .out = out, .ldo = ldo, .act_groups = (size_t)ak_groups(act->blocks), .act = act, .weight = weight, .bias = is_last ? bias : NULL,
                .first = first, .last = last, .flags = is_last ? flags : flags & ~AK_RELU6,
            };
            for (int32_t t = 0; t < tiles; t++) {
                const int32_t token = t * TOKENS, tokens = smaller(TOKENS, act->tokens - token);
                if (tokens != shaped) ak_amx_shape(smaller(tokens, AK_AMX_ROWS), tokens > AK_AMX_ROWS ? tokens - AK_AMX_ROWS : 0);
                shaped = tokens;
                if (is_last) prefetch_panels(weight, panels, end, end - p, panel_count, NULL, weight->blocks, upcoming, t, tiles);
                for (int32_t i = p; i < end; i += PANELS) {
                    if (tokens > AK_AMX_ROWS) {
                        if (i + 1 < end) multiply(&part, token, tokens, panels + i, 2, 2);
                        else multiply(&part, token, tokens, panels + i, 1, 2);
                    } else {
                        if (i + 1 < end) multiply(&part, token, tokens, panels + i, 2, 1);
                        else multiply(&part, token, tokens, panels + i, 1, 1);
                    }
                }
            }
            first = last;
        } while (first < groups);
    }
    if (shaped > 0) _tile_release();
}
#endif
