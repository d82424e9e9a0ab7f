// Attention that computes visible scores only: with several questions about one picture (at_batch.branches) two thirds of the scores are masked, and
// with plain causal attention half. Four queries of one branch at a time share each key that is read. Their probabilities are kept for the backward pass,
// because rows are short and recomputing them would cost more time than they cost memory.
#include "AttentionKernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#define AT_TARGET __attribute__((target("avx2,fma")))
#else
#define AT_TARGET
#endif
// Vectors stay inside this file, so how functions of other files would pass them does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"
#define AT_INLINE AT_TARGET static inline __attribute__((always_inline))

namespace adatorch {

namespace {

constexpr int64_t block = 4;  // queries at a time
constexpr int64_t lanes = 16; // keys at a time: two registers

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

AT_INLINE v8 load(const float *p) {
    v8 x;
    memcpy(&x, p, sizeof x);
    return x;
}
AT_INLINE void store(float *p, v8 x) { memcpy(p, &x, sizeof x); }
AT_INLINE v8 all(float x) { return v8{x, x, x, x, x, x, x, x}; }

// e^x for x <= 0, within 2e-7 of it relatively; 0 below -87.
AT_INLINE v8 exponential(v8 x) {
    const v8 low = all(-87.0f);
    const i8 alive = x > low;
    x = alive ? x : low;
    // Adding and taking away 1.5 * 2^23 rounds to a whole number.
    const v8 magic = all(12582912.0f), shifted = x * 1.44269504f + magic, n = shifted - magic;
    const v8 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    v8 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const v8 y = p * (r * r) + r + 1.0f;
    i8 bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000 + 127) << 23;
    v8 power;
    memcpy(&power, &bits, sizeof power);
    const v8 zero = all(0);
    return alive ? y * power : zero;
}

// The keys that a block of queries sees together: 0 ..< shared, then start ... last. A row of scores has one entry for each.
struct Block {
    int64_t first, count, shared, start, last;
    int64_t entries() const { return shared + std::max<int64_t>(0, last + 1 - start); }
    // Query i of the block does not see the entries from these two ends on.
    int64_t shared_end(const Span *spans, int64_t i) const { return std::min<int64_t>(spans[first + i].shared, first + i + 1); }
    int64_t own_end(int64_t i) const { return shared + std::max<int64_t>(0, first + i + 1 - start); }
};

Block block_at(const AttentionShape &shape, int64_t first) {
    Block b{first, 1, 0, 0, first};
    while (b.count < block && first + b.count < shape.positions && shape.spans[first + b.count].start == shape.spans[first].start &&
           shape.spans[first + b.count].shared >= shape.spans[first].shared && shape.spans[first].start <= first)
        b.count++;
    // Adjacent queries of the shared part differ in their ends only.
    if (shape.spans[first].start > first)
        while (b.count < block && first + b.count < shape.positions && shape.spans[first + b.count].start > first + b.count) b.count++;
    b.last = first + b.count - 1;
    for (int64_t i = 0; i < b.count; i++) b.shared = std::max<int64_t>(b.shared, b.shared_end(shape.spans, i));
    b.start = shape.spans[first].start > first ? b.last + 1 : shape.spans[first].start;
    return b;
}

// Columns of rows: (width, padded positions), so that scores of keys side by side come from registers.
struct Transposed {
    std::vector<float> values;
    int64_t stride;
    AT_TARGET void fill(const Rows &rows, int64_t positions, int64_t head, int64_t width) {
        stride = positions + lanes;
        values.assign(size_t(width * stride), 0);
        for (int64_t t = 0; t < positions; t++) {
            const float *row = rows.at(t, head, width);
            for (int64_t i = 0; i < width; i++) values[size_t(i * stride + t)] = row[i];
        }
    }
};

// scores[i][e] = rows[i] . key(first + e) for count keys, rounded up to lanes.
template <int N>
AT_INLINE void products(float *const *scores, const float *const *rows, const Transposed &keys, int64_t first, int64_t count, int64_t width) {
    for (int64_t e = 0; e < count; e += lanes) {
        v8 sums[N][2];
        for (int i = 0; i < N; i++) sums[i][0] = sums[i][1] = all(0);
        const float *column = keys.values.data() + first + e;
        for (int64_t c = 0; c < width; c++, column += keys.stride) {
            const v8 low = load(column), high = load(column + 8);
            for (int i = 0; i < N; i++) {
                const v8 x = all(rows[i][c]);
                sums[i][0] += x * low;
                sums[i][1] += x * high;
            }
        }
        for (int i = 0; i < N; i++) {
            store(scores[i] + e, sums[i][0]);
            store(scores[i] + e + 8, sums[i][1]);
        }
    }
}

// out[i] (+)= sum over count entries e of weights[i][e] * row(first + e).
template <int N>
AT_INLINE void combine(float *const *out, const float *const *weights, const Rows &rows, int64_t head, int64_t first, int64_t count, int64_t width, bool add) {
    for (int64_t c = 0; c < width; c += 8) {
        v8 sums[N];
        for (int i = 0; i < N; i++) sums[i] = add ? load(out[i] + c) : all(0);
        const float *row = rows.at(first, head, width) + c;
        for (int64_t e = 0; e < count; e++, row += rows.stride) {
            const v8 x = load(row);
            for (int i = 0; i < N; i++) sums[i] += weights[i][e] * x;
        }
        for (int i = 0; i < N; i++) store(out[i] + c, sums[i]);
    }
}

// row(first + e) += sum over the block of weights[i][e] * sources[i].
template <int N>
AT_INLINE void spread(const Rows &rows, const float *const *sources, const float *const *weights, int64_t head, int64_t first, int64_t count, int64_t width) {
    for (int64_t c = 0; c < width; c += 8) {
        v8 x[N];
        for (int i = 0; i < N; i++) x[i] = load(sources[i] + c);
        float *row = rows.at(first, head, width) + c;
        for (int64_t e = 0; e < count; e++, row += rows.stride) {
            v8 sum = load(row);
            for (int i = 0; i < N; i++) sum += weights[i][e] * x[i];
            store(row, sum);
        }
    }
}

// Scores to probabilities, in place, zero where query i does not look; the row is `padded` long.
AT_INLINE void softmax(float *row, const Block &b, const Span *spans, int64_t i, float scale, int64_t padded) {
    const int64_t ends[2] = {b.shared_end(spans, i), b.own_end(i)}, starts[2] = {0, b.shared};
    float highest = -INFINITY;
    for (int part = 0; part < 2; part++)
        for (int64_t e = starts[part]; e < ends[part]; e++) highest = std::max(highest, row[e]);
    for (int64_t e = ends[0]; e < b.shared; e++) row[e] = -INFINITY;
    for (int64_t e = ends[1]; e < padded; e++) row[e] = -INFINITY;
    v8 sums = all(0);
    const v8 top = all(highest * scale);
    for (int64_t e = 0; e < padded; e += 8) {
        const v8 p = exponential(load(row + e) * scale - top);
        sums += p;
        store(row + e, p);
    }
    float sum = 0;
    for (int lane = 0; lane < 8; lane++) sum += sums[lane];
    const v8 inverse = all(1 / sum);
    for (int64_t e = 0; e < padded; e += 8) store(row + e, load(row + e) * inverse);
}

int64_t padded(int64_t entries) { return (entries + 7) / 8 * 8; }

template <int N>
AT_TARGET void forward_block(
    const AttentionShape &s, const Block &b, const Rows &out, const Rows &q, const Rows &v, const Transposed &keys, int64_t head, float scale,
    float *probabilities, std::vector<float> &scratch) {
    const int64_t entries = b.entries(), width = padded(entries), room = entries + 2 * lanes;
    scratch.resize(size_t(room * N));
    float *scores[N], *own[N], *outs[N];
    const float *queries[N];
    for (int i = 0; i < N; i++) {
        scores[i] = scratch.data() + room * i;
        own[i] = scores[i] + b.shared;
        outs[i] = out.at(b.first + i, head, s.width);
        queries[i] = q.at(b.first + i, head, s.width);
    }
    // The first part is rounded up to whole vectors; the second part's scores overwrite the surplus.
    products<N>(scores, queries, keys, 0, b.shared, s.width);
    products<N>(own, queries, keys, b.start, entries - b.shared, s.width);
    for (int i = 0; i < N; i++) softmax(scores[i], b, s.spans, i, scale, width);
    combine<N>(outs, scores, v, head, 0, b.shared, s.width, false);
    if (entries > b.shared) combine<N>(outs, own, v, head, b.start, entries - b.shared, s.width, true);
    for (int i = 0; i < N; i++) memcpy(probabilities + width * i, scores[i], size_t(width) * sizeof(float));
}

template <int N>
AT_TARGET void backward_block(
    const AttentionShape &s, const Block &b, const Rows &dq, const Rows &dk, const Rows &dv, const Rows &dout, const Rows &q, const Rows &k,
    const Transposed &values, int64_t head, float scale, const float *probabilities, std::vector<float> &scratch) {
    const int64_t entries = b.entries(), width = padded(entries), room = entries + 2 * lanes, mine = entries - b.shared;
    scratch.resize(size_t(room * N));
    float *scores[N], *own[N], *queries_out[N];
    const float *queries[N], *outs[N], *weights[N], *own_weights[N];
    for (int i = 0; i < N; i++) {
        scores[i] = scratch.data() + room * i;
        own[i] = scores[i] + b.shared;
        queries[i] = q.at(b.first + i, head, s.width);
        queries_out[i] = dq.at(b.first + i, head, s.width);
        outs[i] = dout.at(b.first + i, head, s.width);
        weights[i] = probabilities + width * i;
        own_weights[i] = weights[i] + b.shared;
    }
    products<N>(scores, outs, values, 0, b.shared, s.width);
    products<N>(own, outs, values, b.start, mine, s.width);
    for (int i = 0; i < N; i++) {
        for (int64_t e = entries; e < width; e++) scores[i][e] = 0;
        v8 sums = all(0);
        for (int64_t e = 0; e < width; e += 8) sums += load(weights[i] + e) * load(scores[i] + e);
        float mean = 0;
        for (int lane = 0; lane < 8; lane++) mean += sums[lane];
        for (int64_t e = 0; e < width; e += 8) store(scores[i] + e, load(weights[i] + e) * (load(scores[i] + e) - mean) * scale);
    }
    combine<N>(queries_out, scores, k, head, 0, b.shared, s.width, false);
    if (mine > 0) combine<N>(queries_out, own, k, head, b.start, mine, s.width, true);
    spread<N>(dk, queries, scores, head, 0, b.shared, s.width);
    spread<N>(dv, outs, weights, head, 0, b.shared, s.width);
    if (mine > 0) {
        spread<N>(dk, queries, own, head, b.start, mine, s.width);
        spread<N>(dv, outs, own_weights, head, b.start, mine, s.width);
    }
}

} // namespace

bool can_attend_spans() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

size_t span_probabilities(const AttentionShape &shape) {
    size_t count = 0;
    for (int64_t t = 0; t < shape.positions;) {
        const Block b = block_at(shape, t);
        count += size_t(b.count * padded(b.entries()));
        t += b.count;
    }
    return count;
}

void attend_spans(const AttentionShape &shape, Rows out, Rows q, Rows k, Rows v, int64_t head, float scale, float *probabilities) {
    static thread_local Transposed keys;
    static thread_local std::vector<float> scratch;
    keys.fill(k, shape.positions, head, shape.width);
    for (int64_t t = 0; t < shape.positions;) {
        const Block b = block_at(shape, t);
        switch (b.count) {
        case 1: forward_block<1>(shape, b, out, q, v, keys, head, scale, probabilities, scratch); break;
        case 2: forward_block<2>(shape, b, out, q, v, keys, head, scale, probabilities, scratch); break;
        case 3: forward_block<3>(shape, b, out, q, v, keys, head, scale, probabilities, scratch); break;
        default: forward_block<4>(shape, b, out, q, v, keys, head, scale, probabilities, scratch);
        }
        probabilities += b.count * padded(b.entries());
        t += b.count;
    }
}

void attend_spans_backward(
    const AttentionShape &shape, Rows dq, Rows dk, Rows dv, Rows dout, Rows q, Rows k, Rows v, int64_t head, float scale, const float *probabilities) {
    static thread_local Transposed values;
    static thread_local std::vector<float> scratch;
    values.fill(v, shape.positions, head, shape.width);
    for (int64_t t = 0; t < shape.positions; t++) {
        memset(dk.at(t, head, shape.width), 0, size_t(shape.width) * sizeof(float));
        memset(dv.at(t, head, shape.width), 0, size_t(shape.width) * sizeof(float));
    }
    for (int64_t t = 0; t < shape.positions;) {
        const Block b = block_at(shape, t);
        switch (b.count) {
        case 1: backward_block<1>(shape, b, dq, dk, dv, dout, q, k, values, head, scale, probabilities, scratch); break;
        case 2: backward_block<2>(shape, b, dq, dk, dv, dout, q, k, values, head, scale, probabilities, scratch); break;
        case 3: backward_block<3>(shape, b, dq, dk, dv, dout, q, k, values, head, scale, probabilities, scratch); break;
        default: backward_block<4>(shape, b, dq, dk, dv, dout, q, k, values, head, scale, probabilities, scratch);
        }
        probabilities += b.count * padded(b.entries());
        t += b.count;
    }
}

} // namespace adatorch
