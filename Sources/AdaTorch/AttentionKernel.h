// Attention over spans, in plain C++ without libtorch: float32 on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace adatorch {

// The keys that a query of a sample sees: 0 ..< shared, and start ... query. Causal attention is shared = query + 1 and start = query + 1.
struct Span {
    int32_t shared, start;
};

// Strided rows of a sample's heads: (positions, heads, width), values of a head side by side.
struct Rows {
    float *data;
    int64_t stride; // floats from one position to the next
    float *at(int64_t position, int64_t head, int64_t width) const { return data + position * stride + head * width; }
};

// One head of one sample.
struct AttentionShape {
    int64_t positions, width; // width: a multiple of 8
    const Span *spans;        // (positions)
};

// Whether the processor has the instructions that the kernels are compiled for.
bool can_attend_spans();

// Probabilities that a head keeps for the way back: floats.
size_t span_probabilities(const AttentionShape &shape);

// out = softmax(q k^T * scale over the span) v for one head; `probabilities` are kept.
void attend_spans(const AttentionShape &shape, Rows out, Rows q, Rows k, Rows v, int64_t head, float scale, float *probabilities);

// Gradients of q, k and v for one head, from the gradient of out. They are written, not added to.
void attend_spans_backward(
    const AttentionShape &shape, Rows dq, Rows dk, Rows dv, Rows dout, Rows q, Rows k, Rows v, int64_t head, float scale, const float *probabilities);

} // namespace adatorch
