#include "Operations.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <cmath>

#include "AttentionKernel.h"

namespace adatorch {

namespace {

// Rows of a sample with contiguous heads.
Rows rows(const Tensor &x, int64_t sample) { return {x.data_ptr<float>() + sample * x.stride(0), x.stride(1)}; }

Tensor in_rows(const Tensor &x) { return x.stride(3) == 1 && x.stride(2) == x.size(3) ? x : x.contiguous(); }

struct SpanAttention : torch::autograd::Function<SpanAttention> {
    // Calls body(sample, head, shape, offset of its probabilities) for all heads, and returns how many probabilities there are.
    template <typename Body>
    static int64_t each(const Tensor &query, const Tensor &spans, Body body) {
        const int64_t samples = query.size(0), length = query.size(1), heads = query.size(2), width = query.size(3);
        std::vector<AttentionShape> shapes;
        std::vector<int64_t> starts{0};
        for (int64_t i = 0; i < samples; i++) {
            const int32_t *own = spans.data_ptr<int32_t>() + (spans.size(0) > 1 ? i : 0) * 2 * length;
            shapes.push_back({length, width, reinterpret_cast<const Span *>(own)});
            starts.push_back(starts.back() + heads * int64_t(span_probabilities(shapes.back())));
        }
        at::parallel_for(0, samples * heads, 1, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; i++) {
                const int64_t sample = i / heads, head = i % heads, count = (starts[size_t(sample) + 1] - starts[size_t(sample)]) / heads;
                body(sample, head, shapes[size_t(sample)], starts[size_t(sample)] + head * count);
            }
        });
        return starts.back();
    }

    static Tensor forward(torch::autograd::AutogradContext *context, Tensor query, Tensor key, Tensor value, const Tensor &spans) {
        query = in_rows(query), key = in_rows(key), value = in_rows(value);
        const float scale = float(1 / std::sqrt(double(query.size(-1))));
        const int64_t count = each(query, spans, [](int64_t, int64_t, const AttentionShape &, int64_t) {});
        Tensor out = at::empty(query.sizes(), query.options()), probabilities = at::empty({count}, query.options());
        each(query, spans, [&](int64_t sample, int64_t head, const AttentionShape &shape, int64_t offset) {
            attend_spans(
                shape, rows(out, sample), rows(query, sample), rows(key, sample), rows(value, sample), head, scale,
                probabilities.data_ptr<float>() + offset);
        });
        context->save_for_backward({query, key, value, spans, probabilities});
        return out;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, torch::autograd::variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor query = saved[0], key = saved[1], value = saved[2], spans = saved[3], probabilities = saved[4];
        const Tensor dout = gradients[0].contiguous();
        Tensor dquery = at::empty(query.sizes(), query.options()), dkey = at::empty_like(dquery), dvalue = at::empty_like(dquery);
        const float scale = float(1 / std::sqrt(double(query.size(-1))));
        each(query, spans, [&](int64_t sample, int64_t head, const AttentionShape &shape, int64_t offset) {
            attend_spans_backward(
                shape, rows(dquery, sample), rows(dkey, sample), rows(dvalue, sample), rows(dout, sample), rows(query, sample),
                rows(key, sample), rows(value, sample), head, scale, probabilities.data_ptr<float>() + offset);
        });
        return {dquery, dkey, dvalue, Tensor()};
    }
};

} // namespace

Tensor span_attention(const Tensor &query, const Tensor &key, const Tensor &value, const Tensor &spans) {
    return SpanAttention::apply(query, key, value, spans);
}

Tensor rms_norm(const Tensor &x, const Tensor &weight, double epsilon, at::ScalarType type) {
    const Tensor wide = x.to(at::kFloat);
    return (weight * (wide * at::rsqrt(wide.square().mean(-1, true) + epsilon))).to(type);
}

Tensor layer_norm(const Tensor &x, const Tensor &weight, const Tensor &bias, double epsilon, at::ScalarType type) {
    return at::layer_norm(x.to(at::kFloat), {x.size(-1)}, weight, bias, epsilon).to(type);
}

Tensor rotate(const Tensor &x, const Tensor &cosines, const Tensor &sines) {
    const auto halves = x.chunk(2, -1);
    const Tensor c = cosines.unsqueeze(-2), s = sines.unsqueeze(-2); // (…, positions, 1, head_dim / 2)
    return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
}

Tensor attention(const Tensor &query, const Tensor &key, const Tensor &value, bool causal, const Tensor &mask) {
#if TORCH_VERSION_MAJOR >= 2
    if (mask.defined()) return at::scaled_dot_product_attention(query, key, value, mask.to(query.scalar_type()), 0.0, false);
    return at::scaled_dot_product_attention(query, key, value, {}, 0.0, causal);
#else
    Tensor scores = at::matmul(query * (1 / std::sqrt(double(query.size(-1)))), key.transpose(-2, -1));
    if (mask.defined()) {
        scores = scores + mask.to(scores.scalar_type());
    } else if (causal) {
        const int64_t length = query.size(-2);
        scores = scores + at::full({length, length}, -INFINITY, scores.options()).triu_(1);
    }
    return at::matmul(at::softmax(scores, -1), value);
#endif
}

Tensor gated(const Tensor &gate, const Tensor &up) { return at::silu(gate) * up; }

} // namespace adatorch
