// AdaTorch: AdaLLaVA's training step over libtorch, with a C interface.
//
// libAdaTorch is built by scripts/build-adatorch.sh and opened at run time. It exports one function, `at_interface`, which gives a table
// of all others, so that a program needs no libtorch to be built and can tell a library of another version before it calls it.
//
// Functions that can fail return 0 when done; otherwise `last_error` says why (the text is the calling thread's own, until its next call).
// All arrays are row-major. Tensors cross this interface as float32 whatever the device computes in.
#ifndef ADATORCH_H
#define ADATORCH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AT_INTERFACE_VERSION 6

// Values of `at_batch.tokens` that are no tokens.
#define AT_IMAGE_ROW (-200)     // one row of image features; the rows of all images follow each other in reading order
#define AT_LATENCY_TOKEN (-201) // the latency token
#define AT_PADDING (-202)       // after the end of a sample
#define AT_IGNORED_LABEL (-100)

enum { AT_SCHEDULER_NONE = 0, AT_SCHEDULER_LAYERS = 1, AT_SCHEDULER_HEADS = 2 };
enum { AT_QUICK_GELU = 0, AT_GELU = 1, AT_GELU_TANH = 2 };

// The shape of a model and how it is computed. Zero-initialize, then fill in.
typedef struct {
    // Decoder (LLaMA).
    int32_t vocabulary_size, hidden_size, intermediate_size, layers, heads, key_value_heads, head_dim;
    int32_t padding_token; // its embedding is not trained; -1: none
    int32_t tied_embeddings, attention_bias, mlp_bias;
    float rms_epsilon;
    const float *inverse_frequencies; // (head_dim / 2)
    float rotary_scale;               // factor of cosines and sines

    // Vision tower (CLIP); vision_layers counts the layers that run. No tower: vision_hidden_size 0. A tower whose features the caller
    // computes: image_size 0, and feature_rows for each image.
    int32_t feature_rows;
    int32_t vision_hidden_size, vision_intermediate_size, vision_layers, vision_heads, image_size, patch_size, vision_activation;
    int32_t keeps_class_token;
    float vision_epsilon;
    int32_t projector_layers; // 0: the features as they are; 1: linear; N: N linear maps with GELU between
    int32_t projector_bias;

    // Adaptivity.
    int32_t scheduler, prefix_layers, scheduler_rank;
    float temperature;  // of the Gumbel-softmax

    // Labels of image regions, to teach the tower before there is a language to be learned: one linear head on each row of features, whose
    // outputs are label_slots groups of label_classes[slot] classes. label_slots 0: none.
    int32_t label_slots;
    const int32_t *label_classes; // (label_slots)

    // LoRA: W x + alpha / rank * B A x for the decoder's linear maps whose last name part is in the comma-separated list. rank 0: none.
    int32_t lora_rank;
    float lora_alpha;
    const char *lora_targets;

    // Computing.
    int32_t device;                 // -1: CPU; otherwise the CUDA device
    int32_t bfloat16;               // products and attention in bfloat16; weights, norms, residuals and losses stay float32
    int32_t gradient_checkpointing; // keep only each layer's input, compute the layer again on the way back
    int32_t workers;                // batches of one step that are computed at the same time (CPU)
    int32_t threads;                // libtorch's threads for each of them
} at_config;

// One batch, right-padded. After images are replaced by their features and the latency token is put in.
typedef struct {
    int32_t samples, length;
    const int64_t *tokens;  // (samples, length)
    const int64_t *labels;  // (samples, length); position t is scored against the logits of t - 1
    const int32_t *units;   // (samples) optional units granted
    const float *latency;   // (samples) the value that the latency embedding encodes, in [0, 1)
    const uint64_t *seeds;  // (samples) for the Gumbel noise
    // (samples, length), or NULL: each sample is several questions (branches) about one shared beginning, 0. Tokens of branch k see the shared tokens,
    // whose positions theirs continue, and their own branch. Each branch has a latency token. The first branch's chooses the sample's one plan; if the
    // units of all samples run everything, the scheduler does not run.
    const int32_t *branches;
    // Gumbel noise instead of seeds, one after another for all samples; or NULL. For each unit: (switches), and for heads also (heads), (heads).
    const float *noise;
    int64_t noise_count;
    int32_t images;
    const float *pixels;    // (images, 3, image_size, image_size); with image_size 0 (images, feature_rows, vision_hidden_size)
    // (images, rows, label_slots) classes, AT_IGNORED_LABEL where none is scored; class 0 is "nothing there". If given, the loss is theirs,
    // and samples, tokens and their other fields are ignored.
    const int32_t *region_labels;
    // (images, rows, region_names) tokens that name a row's content, AT_IGNORED_LABEL where there are fewer; or NULL. Each projected row's logits
    // through the output matrix are scored against them, so that features move towards the embeddings of their words. With region_labels this
    // is a part of their loss; with tokens it is weighed by naming_weight.
    const int32_t *region_tokens;
    int32_t region_names;
} at_batch;

typedef struct {
    double loss_sum;    // over scored positions
    double distill_sum; // of the distillation term before its weight
    double naming_sum;  // of the naming term before its weight
    double balance_sum; // of the balance term before its weight, times scored positions
    double ranking_sum; // of the ranking term before its weight, times scored positions
    int64_t scored;
} at_result;

// Receives a step's intermediate tensors, by name, for comparison with recorded numbers.
typedef void (*at_visitor)(void *context, const char *name, const float *values, int64_t count);

typedef struct {
    double scored;         // positions scored in the whole step, of all batches and processes: the loss is a mean over them
    double named;          // region_tokens of the whole step that are scored: their loss beside tokens is a mean over them
    float naming_weight;   // of that loss; 0: none
    float distill_weight;  // KL of the full model's predictions from the adaptive one's; 0: none
    float distill_temperature;
    float gumbel_noise;    // factor of the Gumbel noise: 1 as published, 0 takes the highest logits
    float balance_weight;  // of the information that a sample gives about its switches, which is to be high; 0: none
    float ranking_weight;  // of the loss that ranks two plans by their answers; 0: none, else each batch runs a second plan
    at_visitor visitor;    // NULL: none; otherwise one batch
    void *context;
    // (label_slots + 1, 2), added to: for each slot of region_labels the labels above 0 and how many of them were recognized, then the same of
    // region_tokens. NULL: not wanted.
    int64_t *region_counts;
} at_step_options;

typedef struct {
    double learning_rate_scale; // times each parameter's own rate
    double beta1, beta2, epsilon;
    double max_grad_norm;       // 0: not clipped
    int64_t step;               // from 1
} at_update_options;

enum { AT_VALUE = 0, AT_GRADIENT = 1, AT_FIRST_MOMENT = 2, AT_SECOND_MOMENT = 3, AT_MERGED = 4 }; // merged: the value with LoRA's product added

typedef struct at_model at_model;
typedef struct at_process_group at_process_group;

typedef struct {
    int32_t version;
    const char *(*description)(void); // libtorch's version, and the devices it can use
    const char *(*last_error)(void);
    int32_t (*cuda_devices)(void);

    at_model *(*model_create)(const at_config *config); // NULL: see last_error
    void (*model_free)(at_model *model);
    int32_t (*parameter_count)(const at_model *model);
    // shape takes up to four numbers. Returns how many it wrote, or -1.
    int32_t (*parameter_info)(const at_model *model, int32_t index, const char **name, int64_t shape[4]);
    int32_t (*read)(const at_model *model, int32_t index, int32_t kind, float *out, int64_t count);
    int32_t (*write)(at_model *model, int32_t index, int32_t kind, const float *values, int64_t count);
    // A parameter with learning_rate 0 stays as it is and gets no gradient.
    int32_t (*set_training)(at_model *model, int32_t index, double learning_rate, double weight_decay);

    // Forward and backward; adds to the gradients. One result for each batch.
    int32_t (*accumulate)(at_model *model, const at_batch *batches, int32_t count, const at_step_options *options, at_result *results);
    // Sums gradients over processes, clips, does one AdamW step and clears the gradients.
    int32_t (*update)(at_model *model, at_process_group *group, const at_update_options *options, double *grad_norm);
    void (*clear_gradients)(at_model *model);
    // Bytes of device memory in use at most so far; 0 on CPU.
    int64_t (*peak_memory)(const at_model *model);

    // Data parallelism over c10d: gloo on CPU, NCCL on CUDA.
    at_process_group *(*group_create)(const char *address, int32_t port, int32_t rank, int32_t world_size, int32_t device, int32_t timeout_seconds);
    void (*group_free)(at_process_group *group);
    int32_t (*sum)(at_process_group *group, double *values, int64_t count);
    // Sums the gradients over processes without an update.
    int32_t (*sum_gradients)(at_model *model, at_process_group *group);
    // Every process gets the first one's parameters.
    int32_t (*broadcast)(at_model *model, at_process_group *group);
} at_functions;

// NULL if the library is of another version.
const at_functions *at_interface(int32_t version);

#ifdef __cplusplus
}
#endif
#endif
