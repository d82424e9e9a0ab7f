// The matrix product of BF16 activations on AMX: tiles of 32 tokens by two panels, which are read in place.
//
// A block of a BF16 panel is 16 pairs of inputs of 16 rows, the layout of a tile register's right-hand side. A tile product sums the even and the odd
// inputs of a block separately and adds both to the accumulators, in one order for any number of tokens.
#include "amx.h"

#if AK_X86
#define GROUPS_TOKENS (2 * AK_AMX_ROWS)   // tokens of a tile

// The shape of the thread's registers, in tokens; 0 where they have none.
static _Thread_local int32_t shaped;

static AK_AMX void shape_for(int32_t tokens) {
    if (shaped == tokens) return;
    shaped = tokens;
    ak_amx_shape(tokens < AK_AMX_ROWS ? tokens : AK_AMX_ROWS, tokens < AK_AMX_ROWS ? 0 : tokens - AK_AMX_ROWS);
}

// Addresses of a block of a tile.
typedef struct {
    const uint16_t *act;   // of the first token
    size_t weights;        // bytes from the beginning of a panel
} block_place;

AK_AMX_INLINE block_place place_of(const ak_tile *tile, int32_t i) {
    const int32_t block = ak_tile_block(tile, i);
    return (block_place){
        (const uint16_t *)tile->act + (size_t)block * AK_BLOCK, (size_t)ak_tile_weight_block(tile, i, block) * tile->step};
}

#define LOAD_TOKENS(register, group) _tile_loadd(register, at.act + (group) * AK_AMX_ROWS * tile->stride, row_bytes);
// Prefetches into the second-level cache, because the first holds the activations.
#define LOAD_WEIGHTS(register, panel) _tile_stream_loadd(register, weights[panel] + at.weights, AK_LINE);

// Panels p ..< p + panels of the tile, for one or two groups of 16 tokens.
AK_AMX_INLINE void products(const ak_tile *tile, const int p, const int panels, const int groups) {
    const size_t row_bytes = tile->stride * 2, group_out = AK_AMX_ROWS * tile->ldo;
    const size_t partial_row = (size_t)tile->panels * AK_PANEL, out_bytes = tile->ldo * sizeof(float);
    const uint8_t *weights[2] = {tile->weight[p], panels > 1 ? tile->weight[p + 1] : NULL};
    float *out[2] = {tile->out + (size_t)tile->panel[p] * AK_PANEL, tile->out + (size_t)tile->panel[p + panels - 1] * AK_PANEL};
    const int few = tile->tokens <= AK_FEW_TOKENS;
#define PARTIAL(g, i) (tile->partial + (g) * AK_AMX_ROWS * partial_row + (p + (i)) * AK_PANEL)
#define START(sums, g, i) \
    if (tile->flags & AK_TILE_RESUME) _tile_loadd(sums, PARTIAL(g, i), partial_row * sizeof(float)); \
    else if (tile->flags & AK_ACCUMULATE) _tile_loadd(sums, out[i] + (g) * group_out, out_bytes); \
    else _tile_zero(sums);
    AK_AMX_FOR_SUMS(panels, groups, START)
#undef START
    if (tile->first < tile->last) {
        block_place at = place_of(tile, tile->first);
        AK_AMX_LOAD(panels, groups, LOAD_TOKENS, LOAD_WEIGHTS)
        for (int32_t i = tile->first; i < tile->last; i++) {
            const int is_last = i + 1 == tile->last;
            if (few)   // decode is bound by memory
                for (int j = 0; j < panels; j++) {
                    const uint8_t *ahead = ak_tile_ahead(tile, p + j, i, AK_AHEAD, AK_BLOCK * AK_PANEL * 2, panels);
                    for (size_t line = 0; line < AK_AMX_ROWS; line++) _mm_prefetch((const char *)ahead + line * AK_LINE, _MM_HINT_T1);
                }
            if (!is_last) at = place_of(tile, i + 1);
            AK_AMX_STEP(_tile_dpbf16ps, panels, groups, !is_last, LOAD_TOKENS, LOAD_WEIGHTS)
        }
    }
    if (tile->flags & AK_TILE_SUSPEND) {
#define SUSPEND(sums, g, i) _tile_stored(sums, PARTIAL(g, i), partial_row * sizeof(float));
        AK_AMX_FOR_SUMS(panels, groups, SUSPEND)
#undef SUSPEND
        return;
    }
#define STORE(sums, g, i) _tile_stored(sums, out[i] + (g) * group_out, out_bytes);
    AK_AMX_FOR_SUMS(panels, groups, STORE)
#undef STORE
    if (tile->bias == NULL && !(tile->flags & AK_RELU6)) return;
    for (int i = 0; i < panels; i++) {
        const __m512 bias = tile->bias ? _mm512_loadu_ps(tile->bias + (size_t)tile->panel[p + i] * AK_PANEL) : _mm512_setzero_ps();
        float *row = out[i];
        for (int32_t t = 0; t < tile->tokens; t++, row += tile->ldo) ak_finish512(row, _mm512_loadu_ps(row), bias, tile->flags & AK_RELU6);
    }
}

static AK_AMX void bf16(const ak_tile *tile) {
    shape_for(tile->tokens);
    for (int p = 0; p < tile->panels; p += 2) {
        if (tile->tokens > AK_AMX_ROWS) {
            if (p + 1 < tile->panels) products(tile, p, 2, 2);
            else products(tile, p, 1, 2);
        } else {
            if (p + 1 < tile->panels) products(tile, p, 2, 1);
            else products(tile, p, 1, 1);
        }
    }
}

static const ak_tile_set bf16_set = {.tokens = GROUPS_TOKENS, .panels = {AK_TILE_PANELS}, .run_any = bf16};

static AK_AMX void release(void) {
    if (shaped == 0) return;
    shaped = 0;
    _tile_release();
}

AK_AMX void ak_amx_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                          const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                          const ak_upcoming *upcoming, void *scratch) {
    ak_matmul_parts parts = ak_avx512_matmul_parts();
    parts.bf16_dot = &bf16_set;
    if (ak_amx_has_int8()) parts.i8 = ak_amx_i8;
    // Processors with AMX read memory faster in several streams: four reach the full bandwidth, one 0.8 of it.
    parts.streams = AK_TILE_PANELS;
    ak_tile_set f16;
    if (act->type == AK_F32 && weight->type == AK_F16) {
        f16 = *parts.f16;
        f16.panels[0] = f16.panels[1] = AK_TILE_PANELS;
        parts.f16 = &f16;
    }
    ak_matmul_with(&parts, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
    release();
}

AK_AMX_INLINE void store_bf16(uint16_t *out, __m512 values) { _mm256_storeu_si256((__m256i *)out, (__m256i)_mm512_cvtneps_pbh(values)); }

static AK_AMX void combine(uint16_t *out, size_t ldo, float *sums, int32_t tokens, const int32_t *made, int32_t panels,
                           void (*activation)(float *, size_t)) {
    const size_t width = AK_MIDDLE_PANELS * AK_PANEL;
    if (activation == NULL) {
        out += (size_t)made[0] * AK_PANEL;
        for (int32_t t = 0; t < tokens; t++, out += ldo, sums += width) {
            const __m512 gate = _mm512_load_ps(sums);
            store_bf16(out, _mm512_mul_ps(ak_gated512(gate, gate), _mm512_load_ps(sums + AK_PANEL)));
        }
        return;
    }
    activation(sums, (size_t)tokens * width);
    for (int32_t t = 0; t < tokens; t++, out += ldo, sums += width)
        for (int32_t j = 0; j < panels; j++) store_bf16(out + (size_t)made[j] * AK_PANEL, _mm512_load_ps(sums + j * AK_PANEL));
}

AK_AMX void ak_amx_middle(uint16_t *out, size_t ldo, const ak_activations *act, const ak_matrix *gate, const ak_matrix *up, const float *bias,
                          void (*activation)(float *, size_t), const int32_t *panels, int32_t panel_count, int32_t following, void *scratch) {
    const ak_matmul_parts parts = ak_avx512_matmul_parts();
    ak_multiply_middle(&parts, &bf16_set, combine, out, ldo, act, gate, up, bias, activation, panels, panel_count, following, scratch);
    release();
}
#endif
