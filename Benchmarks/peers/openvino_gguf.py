#!/usr/bin/env python3
"""Times OpenVINO GenAI on a GGUF file: prefill and decode of made-up tokens.

    python3 -m venv VENV && VENV/bin/pip install openvino-genai==2026.4.1.0
    VENV/bin/python openvino_gguf.py MODEL.gguf --threads 2 --prompt 600 --generate 64

For each line on standard input one request is made and {"prefill_ms": …, "token_ms": …} is printed as a line: the pipeline's own times to the
first token and for each later one. No token ends an answer.
"""
import argparse
import json
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=600)
    parser.add_argument("--generate", type=int, default=64)
    options = parser.parse_args()

    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    pipeline = genai.LLMPipeline(options.model, "CPU", INFERENCE_NUM_THREADS=options.threads)
    # The first token comes out of the prompt's pass.
    config = genai.GenerationConfig(max_new_tokens=options.generate + 1, ignore_eos=True)

    made = 0

    def measure() -> dict:
        nonlocal made
        made += 1
        # Another first token each time: the pipeline keeps the keys and values of prompts that begin alike.
        ids = np.array([[(i * 7919 + made * 104729) % 40000 + 100 for i in range(options.prompt)]], dtype=np.int64)
        inputs = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        metrics = pipeline.generate(inputs, config).perf_metrics
        return {
            "prefill_ms": metrics.get_ttft().mean, "token_ms": metrics.get_tpot().mean, "tokens": metrics.get_num_generated_tokens(),
            "prompt": metrics.get_num_input_tokens(),
        }

    measure()
    print(json.dumps({"ready": True, "version": genai.__version__}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main()
