#include "Checkpointing.h"

#include <torch/csrc/autograd/autograd.h>

namespace adatorch {

namespace {

struct Recipe : torch::CustomClassHolder {
    LayerBody body;
    size_t own = 0;
    std::vector<Tensor> parameters; // leaves: the body reads these very tensors
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
    static Tensor forward(torch::autograd::AutogradContext *context, at::TensorList inputs, c10::intrusive_ptr<Recipe> recipe) {
        torch::autograd::AutoGradMode off(false);
        const std::vector<Tensor> own(inputs.begin(), inputs.begin() + long(recipe->own));
        context->save_for_backward(own);
        Tensor out = recipe->body(own);
        context->saved_data["recipe"] = c10::IValue::make_capsule(std::move(recipe));
        return out;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, torch::autograd::variable_list gradients) {
        const auto capsule = context->saved_data["recipe"].toCapsule();
        const auto &recipe = static_cast<Recipe &>(*capsule);
        torch::autograd::AutoGradMode on(true);
        std::vector<Tensor> own;
        for (const Tensor &saved : context->get_saved_variables()) own.push_back(saved.detach().requires_grad_());
        const Tensor out = recipe.body(own);
        torch::autograd::variable_list wanted = own;
        wanted.insert(wanted.end(), recipe.parameters.begin(), recipe.parameters.end());
        auto result = torch::autograd::grad({out}, wanted, gradients, c10::nullopt, false, /* allow_unused */ true);
        result.emplace_back(); // the recipe
        return result;
    }
};

} // namespace

Tensor checkpointed(const std::vector<Tensor> &inputs, size_t own, LayerBody body) {
    auto recipe = c10::make_intrusive<Recipe>();
    recipe->body = std::move(body);
    recipe->own = own;
    recipe->parameters.assign(inputs.begin() + long(own), inputs.end());
    // As a TensorList: the tensors of a vector would not be seen as inputs.
    return Checkpoint::apply(at::TensorList(inputs), std::move(recipe));
}

} // namespace adatorch
