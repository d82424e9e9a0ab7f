// Times llama.cpp's image encoder (libmtmd) alone: the vision tower and projector of an mmproj file on one 336 x 336 picture of noise.
//
//     encode_image MMPROJ.gguf TEXT.gguf THREADS
//
// For each line on standard input the picture is encoded once and the milliseconds are printed as a line. TEXT is a language model whose
// width the projector has; only its vocabulary is read. Build: build-llama.sh.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "llama.h"
#include "mtmd.h"

static void quiet(ggml_log_level level, const char *text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int fail(const std::string &reason) {
    fprintf(stderr, "encode_image: %s\n", reason.c_str());
    return 65;
}

int main(int argc, char **argv) {
    const int threads = argc == 4 ? atoi(argv[3]) : 0;
    if (threads < 1) {
        fputs("usage: encode_image MMPROJ.gguf TEXT.gguf THREADS\n", stderr);
        return 64;
    }
    llama_log_set(quiet, nullptr);
    mtmd_log_set(quiet, nullptr);
    llama_model_params model_settings = llama_model_default_params();
    model_settings.vocab_only = true;
    llama_model *text = llama_model_load_from_file(argv[2], model_settings);
    if (text == nullptr) return fail(std::string(argv[2]) + " cannot be loaded");
    mtmd_context_params settings = mtmd_context_params_default();
    settings.use_gpu = false;
    settings.print_timings = false;
    settings.n_threads = threads;
    mtmd_context *context = mtmd_init_from_file(argv[1], text, settings);
    if (context == nullptr) return fail(std::string(argv[1]) + " cannot be loaded");

    const int side = 336;
    std::vector<unsigned char> pixels(3 * side * side);
    unsigned state = 1;
    for (unsigned char &value : pixels) {
        state = state * 1664525u + 1013904223u;
        value = (unsigned char)(state >> 24);
    }
    mtmd_bitmap *picture = mtmd_bitmap_init(side, side, pixels.data());
    const mtmd_bitmap *pictures[] = {picture};
    const std::string prompt = mtmd_default_marker();
    mtmd_input_text input = {};
    input.text = prompt.c_str();
    input.text_len = prompt.size();
    mtmd_input_chunks *chunks = mtmd_input_chunks_init();
    if (mtmd_tokenize(context, chunks, &input, pictures, 1) != 0) return fail("the picture cannot be prepared");
    const mtmd_input_chunk *image = nullptr;
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks); i++) {
        const mtmd_input_chunk *chunk = mtmd_input_chunks_get(chunks, i);
        if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_IMAGE) image = chunk;
    }
    if (image == nullptr) return fail("the picture gave no tokens");

    std::string line;
    while (std::getline(std::cin, line)) {
        const auto start = std::chrono::steady_clock::now();
        if (mtmd_encode_chunk(context, image) != 0) return fail("encoding failed");
        const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
        printf("{\"milliseconds\": %.4f, \"tokens\": %zu}\n", time.count(), mtmd_input_chunk_get_n_tokens(image));
        fflush(stdout);
    }
    mtmd_input_chunks_free(chunks);
    mtmd_bitmap_free(picture);
    mtmd_free(context);
    llama_model_free(text);
    return 0;
}
