"""Records what the `gguf` and `ml_dtypes` packages make of stored element types.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 ml_dtypes==0.6.0 safetensors==0.8.0 numpy==2.4.6
    venv/bin/python Tests/Tools/record_quants.py --output Tests/Fixtures/quants

For each of GGUF's quantized types: blocks of random bytes, in some of them the half-precision scales at their extremes. For the 8-bit floats of
safetensors: all 256 codes, and matrices with the scales that published checkpoints keep beside them.
"""

import argparse
import pathlib

import gguf
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

# Where a block keeps half-precision numbers. MXFP4's scale is one byte, all of whose values are ordinary.
HALVES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
    "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [],
}
# Zeros, the smallest subnormals, the smallest normal, the largest numbers, infinities, NaNs.
EXTREMES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFE01]


def blocks(name, random):
    values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    count = 2048 // values + len(EXTREMES)
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    for number, block in enumerate(data):
        for place in HALVES[name]:
            scale = np.float16(random.normal() * 0.05).view(np.uint16)
            if number < len(EXTREMES):
                scale = np.uint16(EXTREMES[(number + place) % len(EXTREMES)])
            block[place:place + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    if name == "MXFP4":
        data[:5, 0] = [0, 1, 2, 254, 255]
    return data


def scaled(random, dtype, shape, block):
    """A matrix in an 8-bit float, its scales, and its values: float32 products, as DeepSeek's `weight_dequant` computes them."""
    codes = random.normal(size=shape).astype(dtype)
    grid = [-(-size // step) for size, step in zip(shape, block)]
    scales = np.exp(random.normal(size=grid)).astype(np.float32)
    spread = np.repeat(np.repeat(scales, block[0], 0), block[1], 1)[:shape[0], :shape[1]]
    return codes, scales, codes.astype(np.float32) * spread


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    random = np.random.default_rng(7)
    tensors = {}
    with np.errstate(all="ignore"):
        for name in HALVES:
            data = blocks(name, random)
            tensors[f"{name}.bytes"] = data
            tensors[f"{name}.values"] = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]).astype(np.float32)
        codes = np.arange(256, dtype=np.uint8)
        for name, dtype in [("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2)]:
            tensors[f"{name}.bytes"] = codes
            tensors[f"{name}.values"] = codes.view(dtype).astype(np.float32)
    save_file(tensors, output / "expected.safetensors")

    # Per block of 128 x 128 with rows and columns left over (DeepSeek, Qwen), per tensor, per row (compressed-tensors, fbgemm).
    weights, expected = {}, {}
    e4m3, e5m2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
    for name, dtype, shape, block, suffix, scale_shape in [
        ("block", e4m3, (130, 288), (128, 128), "weight_scale_inv", None),
        ("tensor", e4m3, (32, 64), (32, 64), "weight_scale", ()),
        ("one", e5m2, (32, 64), (32, 64), "weight_scale", (1,)),
        ("row", e4m3, (48, 64), (1, 64), "weight_scale", None),
        ("rows", e5m2, (48, 64), (1, 64), "weight_scale", (48,)),
    ]:
        codes, scales, values = scaled(random, dtype, shape, block)
        weights[f"{name}.weight"] = codes
        weights[f"{name}.{suffix}"] = scales if scale_shape is None else scales.reshape(scale_shape)
        expected[f"{name}.weight"] = values
    # Scales of published compressed-tensors checkpoints are BF16; a weight without a scale is what its codes say.
    codes, scales, _ = scaled(random, e4m3, (32, 64), (1, 64))
    weights |= {"bfloat.weight": codes, "bfloat.weight_scale": scales.astype(ml_dtypes.bfloat16), "plain.weight": codes}
    expected |= {
        "bfloat.weight": codes.astype(np.float32) * scales.astype(ml_dtypes.bfloat16).astype(np.float32),
        "plain.weight": codes.astype(np.float32),
    }
    save_file(weights, output / "fp8.safetensors")
    save_file(expected, output / "fp8-values.safetensors")


main()
