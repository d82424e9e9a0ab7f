// Greedy continuations of llama.cpp with the two best logits of every step: the numbers our engine is compared with.
//
//     greedy_tokens MODEL.gguf PROMPTS COUNT THREADS [NAME=VALUE ...] > result.json
//
// PROMPTS holds one prompt a line, as plain text, or, when the line starts with a double quote, as a JSON string (so that a
// prompt may hold line feeds). Prompts are tokenized as they stand: no chat template is applied, special tokens written in the
// text (such as <|im_start|>) are recognised, and a beginning-of-sentence token is added only if the model asks for one.
// NAME=VALUE pairs are copied into "settings" of the result (a checksum, for example).
//
// Settings: one sequence, the whole prompt in one batch, flash attention off, F16 keys and values, weights used as they lie in
// the file (no repacking), no sampler: the token with the highest logit wins, the lowest id on a tie.
//
// Every prompt is run a second time with the prompt read token by token, which should change nothing but the order of additions.
// How far the two runs differ ("token_by_token") tells how exactly llama.cpp's numbers can be expected from another engine:
// with 8-bit weights it rounds activations to 8 bits too, and one activation that rounds the other way changes all that follow.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ggml.h"
#include "gguf.h"
#include "llama.h"

namespace {

struct ModelDeleter { void operator()(llama_model *model) const { llama_model_free(model); } };
struct ContextDeleter { void operator()(llama_context *context) const { llama_free(context); } };
struct GGUFDeleter { void operator()(gguf_context *file) const { gguf_free(file); } };
using Model = std::unique_ptr<llama_model, ModelDeleter>;
using Context = std::unique_ptr<llama_context, ContextDeleter>;
using GGUF = std::unique_ptr<gguf_context, GGUFDeleter>;

struct Candidate { llama_token id; float logit; };

// MARK: JSON

// How many bytes of well-formed UTF-8 one character takes at `at`; 0 where the bytes are not UTF-8.
size_t characterLength(const std::string &text, size_t at) {
    const auto byte = [&](size_t offset) -> unsigned {
        return at + offset < text.size() ? static_cast<unsigned char>(text[at + offset]) : 0u;
    };
    const unsigned lead = byte(0);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xC2 && lead < 0xE0 ? 2 : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xC0) != 0x80) return 0;
    const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
    const bool beyond = (lead == 0xED && byte(1) > 0x9F) || (lead == 0xF4 && byte(1) > 0x8F);
    return overlong || beyond ? 0 : length;
}

// A JSON string; what is not UTF-8 (tokens may end inside a character) becomes U+FFFD, byte by byte.
std::string quoted(const std::string &text) {
    std::string result = "\"";
    for (size_t at = 0; at < text.size();) {
        const size_t length = characterLength(text, at);
        const unsigned char byte = static_cast<unsigned char>(text[at]);
        if (length == 0) {
            result += "\uFFFD";
        } else if (byte == '"' || byte == '\\') {
            result += '\\';
            result += static_cast<char>(byte);
        } else if (byte == '\n') {
            result += "\\n";
        } else if (byte < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", byte);
            result += escape;
        } else {
            result.append(text, at, length);
        }
        at += std::max<size_t>(length, 1);
    }
    return result + "\"";
}

// Nine significant digits identify every float32.
std::string number(float value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
    return text;
}

std::string list(const std::vector<llama_token> &ids) {
    std::string result = "[";
    for (size_t i = 0; i < ids.size(); ++i) result += (i ? ", " : "") + std::to_string(ids[i]);
    return result + "]";
}

std::string pairs(const std::vector<Candidate> &candidates) {
    std::string result = "[";
    for (size_t i = 0; i < candidates.size(); ++i)
        result += (i ? ", [" : "[") + std::to_string(candidates[i].id) + ", " + number(candidates[i].logit) + "]";
    return result + "]";
}

void appendUTF8(std::string &text, uint32_t scalar) {
    if (scalar < 0x80) {
        text += static_cast<char>(scalar);
    } else if (scalar < 0x800) {
        text += static_cast<char>(0xC0 | scalar >> 6);
        text += static_cast<char>(0x80 | (scalar & 0x3F));
    } else if (scalar < 0x10000) {
        text += static_cast<char>(0xE0 | scalar >> 12);
        text += static_cast<char>(0x80 | (scalar >> 6 & 0x3F));
        text += static_cast<char>(0x80 | (scalar & 0x3F));
    } else {
        text += static_cast<char>(0xF0 | scalar >> 18);
        text += static_cast<char>(0x80 | (scalar >> 12 & 0x3F));
        text += static_cast<char>(0x80 | (scalar >> 6 & 0x3F));
        text += static_cast<char>(0x80 | (scalar & 0x3F));
    }
}

// The text of a JSON string that fills the whole line.
std::string unquoted(const std::string &line) {
    const auto broken = [&](const char *why) { return std::runtime_error(std::string(why) + ": " + line); };
    const auto hex = [&](size_t at) -> uint32_t {
        if (at + 4 > line.size()) throw broken("a \\u escape is cut off");
        size_t used = 0;
        const unsigned long value = std::stoul(line.substr(at, 4), &used, 16);
        if (used != 4) throw broken("a \\u escape needs four hexadecimal digits");
        return static_cast<uint32_t>(value);
    };
    std::string text;
    size_t at = 1;
    while (at < line.size() && line[at] != '"') {
        if (line[at] != '\\') { text += line[at++]; continue; }
        if (++at >= line.size()) break;
        const char kind = line[at++];
        switch (kind) {
        case 'n': text += '\n'; break;
        case 't': text += '\t'; break;
        case 'r': text += '\r'; break;
        case 'b': text += '\b'; break;
        case 'f': text += '\f'; break;
        case '"': case '\\': case '/': text += kind; break;
        case 'u': {
            uint32_t scalar = hex(at);
            at += 4;
            if (scalar >= 0xD800 && scalar < 0xDC00) {
                if (line.compare(at, 2, "\\u") != 0) throw broken("a surrogate stands alone");
                const uint32_t low = hex(at + 2);
                if (low < 0xDC00 || low > 0xDFFF) throw broken("a surrogate stands alone");
                scalar = 0x10000 + ((scalar - 0xD800) << 10) + (low - 0xDC00);
                at += 6;
            }
            appendUTF8(text, scalar);
            break;
        }
        default: throw broken("unknown escape");
        }
    }
    if (at + 1 != line.size()) throw broken("a prompt that starts with a double quote must end with its partner");
    return text;
}

// MARK: llama.cpp

std::vector<llama_token> tokenize(const llama_vocab *vocab, const std::string &text) {
    std::vector<llama_token> ids(text.size() + 8);
    const int32_t count = llama_tokenize(
        vocab, text.data(), static_cast<int32_t>(text.size()), ids.data(), static_cast<int32_t>(ids.size()),
        /*add_special=*/true, /*parse_special=*/true);
    if (count < 0) throw std::runtime_error("cannot tokenize: " + text);
    ids.resize(static_cast<size_t>(count));
    return ids;
}

// The text that ids stand for; special tokens are written out.
std::string detokenize(const llama_vocab *vocab, const std::vector<llama_token> &ids) {
    std::string text;
    for (const llama_token id : ids) {
        char piece[512];
        const int32_t length = llama_token_to_piece(vocab, id, piece, sizeof piece, 0, /*special=*/true);
        if (length < 0) throw std::runtime_error("a token's text is longer than 512 bytes");
        text.append(piece, static_cast<size_t>(length));
    }
    return text;
}

std::vector<Candidate> best(const float *logits, int vocabularySize, size_t count) {
    std::vector<Candidate> all(static_cast<size_t>(vocabularySize));
    for (int id = 0; id < vocabularySize; ++id) all[static_cast<size_t>(id)] = {id, logits[id]};
    count = std::min(count, all.size());
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), all.end(),
                      [](const Candidate &a, const Candidate &b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
    all.resize(count);
    return all;
}

struct Continuation {
    std::vector<llama_token> prompt;
    std::vector<llama_token> generated;
    std::vector<Candidate> first;        // the ten best candidates for the first token
    std::vector<Candidate> bestTwo;      // two entries a step
    bool ended = false;                  // the last generated token ends the generation
};

// - batch: how many tokens of the prompt are read at a time; 0: all of them.
Continuation continued(llama_context *context, const llama_vocab *vocab, const std::string &text, int count, size_t batch) {
    Continuation result;
    result.prompt = tokenize(vocab, text);
    if (result.prompt.empty()) throw std::runtime_error("a prompt without tokens");
    llama_memory_clear(llama_get_memory(context), true);
    const int vocabularySize = llama_vocab_n_tokens(vocab);
    std::vector<llama_token> input = result.prompt;
    while (static_cast<int>(result.generated.size()) < count && !result.ended) {
        const size_t step = batch == 0 ? input.size() : batch;
        for (size_t at = 0; at < input.size(); at += step) {
            const size_t tokens = std::min(step, input.size() - at);
            if (llama_decode(context, llama_batch_get_one(input.data() + at, static_cast<int32_t>(tokens))) != 0)
                throw std::runtime_error("llama_decode failed");
        }
        const float *logits = llama_get_logits_ith(context, -1);
        if (result.first.empty()) result.first = best(logits, vocabularySize, 10);
        const std::vector<Candidate> two = best(logits, vocabularySize, 2);
        result.bestTwo.insert(result.bestTwo.end(), two.begin(), two.end());
        result.generated.push_back(two.front().id);
        result.ended = llama_vocab_is_eog(vocab, two.front().id);
        input = {two.front().id};
    }
    return result;
}

// How far two runs of the same prompt are apart.
struct Distance {
    size_t equalTokens = 0;  // how many generated tokens agree before the first that does not
    float logits = 0;        // largest difference of a logit among the two best, up to and including that token
};

Distance distance(const Continuation &a, const Continuation &b) {
    Distance result;
    const size_t steps = std::min(a.generated.size(), b.generated.size());
    for (size_t step = 0; step < steps; ++step) {
        for (size_t i = 2 * step; i < 2 * step + 2; ++i)
            for (size_t j = 2 * step; j < 2 * step + 2; ++j)
                if (a.bestTwo[i].id == b.bestTwo[j].id)
                    result.logits = std::max(result.logits, std::fabs(a.bestTwo[i].logit - b.bestTwo[j].logit));
        if (a.generated[step] != b.generated[step]) break;
        ++result.equalTokens;
    }
    return result;
}

std::map<std::string, int> tensorTypes(const std::string &path) {
    const GGUF file(gguf_init_from_file(path.c_str(), gguf_init_params{/*no_alloc=*/true, /*ctx=*/nullptr}));
    if (!file) throw std::runtime_error("not a GGUF file: " + path);
    std::map<std::string, int> histogram;
    for (int64_t i = 0; i < gguf_get_n_tensors(file.get()); ++i)
        ++histogram[ggml_type_name(gguf_get_tensor_type(file.get(), i))];
    return histogram;
}

std::vector<std::string> readPrompts(const std::string &path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot read " + path);
    std::vector<std::string> prompts;
    for (std::string line; std::getline(file, line);)
        if (!line.empty()) prompts.push_back(line.front() == '"' ? unquoted(line) : line);
    return prompts;
}

void run(const std::string &modelPath, const std::string &promptsPath, int count, int threads,
         const std::vector<std::pair<std::string, std::string>> &notes) {
    const std::vector<std::string> prompts = readPrompts(promptsPath);

    llama_model_params modelSettings = llama_model_default_params();
    modelSettings.n_gpu_layers = 0;
    modelSettings.use_extra_bufts = false;
    const Model model(llama_model_load_from_file(modelPath.c_str(), modelSettings));
    if (!model) throw std::runtime_error("cannot load " + modelPath);
    const llama_vocab *vocab = llama_model_get_vocab(model.get());

    size_t longest = 0;
    for (const std::string &prompt : prompts) longest = std::max(longest, tokenize(vocab, prompt).size());
    llama_context_params settings = llama_context_default_params();
    settings.n_ctx = static_cast<uint32_t>(std::max<size_t>(256, longest + static_cast<size_t>(count)));
    settings.n_batch = settings.n_ubatch = settings.n_ctx;
    settings.n_seq_max = 1;
    settings.n_threads = settings.n_threads_batch = threads;
    settings.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    settings.type_k = settings.type_v = GGML_TYPE_F16;
    const Context context(llama_init_from_model(model.get(), settings));
    if (!context) throw std::runtime_error("cannot make a context for " + modelPath);

    char description[256];
    llama_model_desc(model.get(), description, sizeof description);
    std::cout << "{\n  \"model\": " << quoted(modelPath.substr(modelPath.find_last_of('/') + 1))
              << ",\n  \"description\": " << quoted(description) << ",\n  \"tensor_types\": {";
    const char *separator = "";
    for (const auto &[type, tensors] : tensorTypes(modelPath)) {
        std::cout << separator << quoted(type) << ": " << tensors;
        separator = ", ";
    }
    std::cout << "},\n  \"settings\": {\"threads\": " << threads
              << ", \"flash_attention\": false, \"kv_cache\": \"f16\", \"weights_repacked\": false";
    for (const auto &[name, value] : notes) std::cout << ",\n    " << quoted(name) << ": " << quoted(value);
    std::cout << ",\n    \"llama_cpp\": " << quoted(llama_version()) << ",\n    \"system\": " << quoted(llama_print_system_info())
              << "},\n  \"cases\": [";
    separator = "\n";
    for (const std::string &prompt : prompts) {
        const Continuation result = continued(context.get(), vocab, prompt, count, 0);
        const Distance apart = distance(result, continued(context.get(), vocab, prompt, count, 1));
        float smallestGap = INFINITY;
        for (size_t i = 0; i + 1 < result.bestTwo.size(); i += 2)
            smallestGap = std::min(smallestGap, result.bestTwo[i].logit - result.bestTwo[i + 1].logit);
        std::cout << separator << "    {\"prompt\": " << quoted(prompt) << ",\n     \"prompt_ids\": " << list(result.prompt)
                  << ",\n     \"generated_ids\": " << list(result.generated)
                  << ",\n     \"generated_text\": " << quoted(detokenize(vocab, result.generated))
                  << ",\n     \"stopped_at_end_of_generation\": " << (result.ended ? "true" : "false")
                  << ",\n     \"min_top1_top2_gap\": " << number(smallestGap)
                  << ",\n     \"token_by_token\": {\"equal_tokens\": " << apart.equalTokens
                  << ", \"max_logit_difference\": " << number(apart.logits) << "}"
                  << ",\n     \"first_token_top10\": " << pairs(result.first) << ",\n     \"top2_per_step\": [";
        for (size_t i = 0; i + 1 < result.bestTwo.size(); i += 2)
            std::cout << (i ? (i % 8 ? ", " : ",\n       ") : "\n       ") << pairs({result.bestTwo[i], result.bestTwo[i + 1]});
        std::cout << "]}" << std::flush;
        separator = ",\n";
    }
    std::cout << "\n  ]\n}\n";
}

}  // namespace

int main(int argumentCount, char **arguments) {
    if (argumentCount < 5) {
        std::cerr << "usage: greedy_tokens MODEL.gguf PROMPTS COUNT THREADS [NAME=VALUE ...]\n";
        return 64;
    }
    llama_log_set([](ggml_log_level level, const char *text, void *) {
        if (level >= GGML_LOG_LEVEL_WARN && level != GGML_LOG_LEVEL_CONT) std::fputs(text, stderr);
    }, nullptr);
    llama_backend_init();
    int status = 0;
    try {
        const int count = std::stoi(arguments[3]), threads = std::stoi(arguments[4]);
        if (count < 1 || threads < 1) throw std::runtime_error("COUNT and THREADS must be at least 1");
        std::vector<std::pair<std::string, std::string>> notes;
        for (int i = 5; i < argumentCount; ++i) {
            const std::string note = arguments[i];
            const size_t equals = note.find('=');
            if (equals == std::string::npos) throw std::runtime_error("expected NAME=VALUE, found " + note);
            notes.emplace_back(note.substr(0, equals), note.substr(equals + 1));
        }
        run(arguments[1], arguments[2], count, threads, notes);
    } catch (const std::exception &error) {
        std::cerr << "greedy_tokens: " << error.what() << "\n";
        status = 65;
    }
    llama_backend_free();
    return status;
}
