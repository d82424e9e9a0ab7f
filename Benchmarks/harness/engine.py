"""Linearity, vision, 7B shapes, start-up and overhead: requirements 3 to 7."""
from __future__ import annotations

import contextlib
from pathlib import Path

from measuring import Failed, Interruption, Missing, Progress, interleave, median, note, resident, run, run_json, seconds_to_first_byte
from report import Row, at_least, at_most, versus
from setting import ROOT, Setting, bandwidth_share, bench_json


def linearity(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    cases = [(shape, variant) for shape in ("smollm2-135m", "1b") for variant in ("L", "H")]
    progress = Progress("linearity", len(cases))
    for shape, variant in cases:
        progress.step(f"{shape}, {variant}")
        setting.require_space(2)
        small = shape != "1b"
        try:
            found = bench_json(
                setting, ["plan-cost", "--shape", shape, "--variant", variant, "--type", "q8_0", "--budgets", "1.0", "0.9", "0.8", "0.7", "0.6", "0.5",
                          "--prompt", "600" if small else "256", "--tokens", "48" if small else "16", "--repeats", str(max(setting.repeats, 15)),
                          "--folder", setting.models / "random"])
        except KeyboardInterrupt:
            Interruption.happened = True
            return rows
        setting.raw.setdefault("linearity", {})[f"{shape} {variant}"] = found
        for kind in ("decode", "prefill"):
            name = f"{kind}, {shape}, {variant}"
            off = max(abs(entry[f"{kind}_ratio"] - entry["switches"]) for entry in found["budgets"])
            lowest = min(found["budgets"], key=lambda entry: entry["budget"])
            comment = f"at 0.5: {lowest[f'{kind}_ratio']:.3f} of the time for {lowest['switches']:.3f} of the units"
            if kind == "decode":
                comment += f", {lowest['weights']:.3f} of the weights"
            rows.append(at_most("3", f"{name}: time from units, at most", off, "", 0.03, comment=comment))
            if kind == "decode":
                # The output layer runs at every budget: what a plan can reach.
                reach = max(abs(entry["decode_ratio"] - entry["weights"]) for entry in found["budgets"])
                rows.append(Row("3", f"{name}: time from weights read, at most", reach, ""))
            rows.append(at_least("3", f"{name}: R²", found[f"r2_{kind}"], "", 0.998))
        share = max(entry["plan_share"] for entry in found["budgets"])
        rows.append(at_most("3", f"choosing the plan, {shape}, {variant}: of prefill", 100 * share, "%", 0.3))
    return rows


def vision(setting: Setting) -> list[Row]:
    folder = setting.models / "clip-vit-l-336"
    if not (folder / "mmproj.gguf").exists():
        setting.require_space(3)
        note("  writing CLIP ViT-L/14-336 with random weights")
        python = setting.python("venv-pytorch", "PyTorch")
        sources = next(iter([*setting.peers.glob("sources/gguf-py"), *setting.peers.glob("llama_cpp_python-*/vendor/llama.cpp/gguf-py")]), None)
        run([python, ROOT / "Benchmarks/peers/clip_weights.py", folder], {"PYTHONPATH": str(sources)} if sources else None)
    towers = {"f32": folder / "f32", "bf16": folder / "bf16"}
    command = [setting.bench, "tower-cost", *towers.values(), "--q8", towers["f32"], "--threads", str(setting.threads), "--compare", "--resident"]
    towers["q8"] = towers["f32"]
    with contextlib.ExitStack() as stack:
        note("  ours: loading, comparing with float32")
        engine = stack.enter_context(resident(command))
        cosines = dict(zip(towers, engine.greeting["cosines"]))
        cases = {"ours": lambda: dict(zip(towers, engine.measure()["milliseconds"]))}

        def add(name: str, start) -> None:
            try:
                program = start()
                cases[name] = lambda: {"ms": program.measure()["milliseconds"]}
            except (Missing, Failed) as error:
                setting.notes.append(f"vision, {name}: {error}")
                note(f"  {name} is not measured: {error}")

        for kind in ("float32", "bfloat16"):
            add(f"PyTorch {kind}", lambda kind=kind: stack.enter_context(resident(
                [setting.python("venv-pytorch", "PyTorch"), ROOT / "Benchmarks/peers/vit_pytorch.py", folder / "f32", "--threads", str(setting.threads),
                 "--type", kind])))
        add("mtmd", lambda: stack.enter_context(resident(
            [setting.llama("encode_image"), folder / "mmproj.gguf", setting.smollm2("Q8_0"), str(setting.threads)], greets=False)))
        found = interleave("vision", setting.repeats, cases)
    setting.raw["vision"] = {"times": found, "cosines": cosines}
    mine = {name: median(values) for name, values in found["ours"].items()}
    good = {name: time for name, time in mine.items() if time and (cosines.get(name) or 0) >= 0.999}
    best = min(good, key=good.get, default=None)
    rate = 1000 / good[best] if best else None
    torch = {name: median(values.get("ms", [])) for name, values in found.items() if name.startswith("PyTorch")}
    fastest = min((name for name, time in torch.items() if time), key=lambda name: torch[name], default=None)
    rows = [
        versus("4", f"ViT-L/14-336, {best or 'none exact enough'}", rate, fastest or "PyTorch", 1000 / torch[fastest] if fastest else None, 1.6,
               unit="images/s", comment=", ".join(f"{name} {time / 1000:.2f} s" for name, time in {**mine, **torch}.items() if time)),
    ]
    theirs = median(found.get("mtmd", {}).get("ms", []))
    rows.append(versus("4", f"ViT-L/14-336, {best or 'none exact enough'}", rate, "llama.cpp mtmd", 1000 / theirs if theirs else None, 2.0, unit="images/s"))
    for name, cosine in cosines.items():
        rows.append(at_least("4", f"features from {name} weights: least cosine to float32", cosine, "", 0.999))
    return rows


def seven_b(setting: Setting) -> list[Row]:
    random = setting.models / "random"
    if not list(random.glob("llava-7b-q4_0-plain-*.gguf")):
        setting.require_space(5)
    note("  seven-b: writing the model if it is not there (3.8 GB)")
    model = Path(run([setting.bench, "write-model", "--shape", "llava-7b", "--type", "q4_0", "--folder", random]).strip())
    results = []
    # The first run brings the file into the page cache.
    progress = Progress("seven-b", setting.repeats + 1)
    try:
        for turn in range(setting.repeats + 1):
            progress.step("load, read, decode" if turn else "the same, to warm up")
            found = bench_json(setting, ["memory", model, "--factor", "1.1", "--margin", "0", "--prompt", "8", "--tokens", "9"])
            if turn:
                results.append(found)
    except KeyboardInterrupt:
        Interruption.happened = True
        if not results:
            raise
    setting.raw["seven-b"] = results
    last = results[-1]
    allowed = 1.1 * last["file_bytes"] + last["kv_bytes"]
    decode = median([1000 / found["decode_ms"] for found in results if found["decode_ms"]])
    return [
        at_most("5", "7B Q4_0: load, warm", median([found["load_ms"] / 1000 for found in results]), "s", 2),
        at_most("5", "7B Q4_0: peak memory over 1.1 x file + KV", median([found["peak_bytes"] / allowed for found in results]), "", 1,
                comment=f"peak {last['peak_bytes'] / 1e9:.2f} GB, file {last['file_bytes'] / 1e9:.2f} GB, KV {last['kv_bytes'] / 1e6:.0f} MB"),
        Row("5", "7B Q4_0: decode", decode, "tok/s", comment=f"{last['token_bytes'] / 1e9:.2f} GB a token"),
        *bandwidth_share(setting, "5", "7B Q4_0: decode, share of the read bandwidth", model, 8, 9, 0.9),
    ]


def startup(setting: Setting) -> list[Row]:
    image = ROOT / "Models/scenes-ref/images/00.png"
    embedded = [setting.adallava, "ask", image, "What is in the image?", "--max-tokens", "8", "--threads", str(setting.threads)]
    model = setting.smollm2("Q8_0")
    text = [setting.adallava, "ask", "What is the capital of France?", "--model", model, "--max-tokens", "8", "--threads", str(setting.threads)]
    found = interleave("startup", max(setting.repeats, 5), {
        "embedded": lambda: {"ms": 1000 * seconds_to_first_byte(embedded)},
        "Q8_0": lambda: {"ms": 1000 * seconds_to_first_byte(text)},
        "load": lambda: {"s": bench_json(setting, ["memory", model, "--prompt", "1", "--tokens", "1"])["load_ms"] / 1000},
    })
    setting.raw["startup"] = found
    return [
        at_most("6", "ask, embedded model: process start to first text", median(found["embedded"].get("ms", [])), "ms", 150,
                comment="from outside, image included"),
        Row("6", "ask, SmolLM2 Q8_0: process start to first text", median(found["Q8_0"].get("ms", [])), "ms", comment="from outside"),
        at_most("6", f"loading SmolLM2 Q8_0 ({model.stat().st_size / 1e6:.0f} MB)", median(found["load"].get("s", [])), "s", 0.25,
                comment="inside: opening the file to ready to run"),
    ]


def overhead(setting: Setting) -> list[Row]:
    rows = []
    for type in [type for type in setting.types if type in ("Q8_0", "Q4_0")][:1] or ["Q8_0"]:
        found = bench_json(setting, ["overhead", setting.smollm2(type), "--repeats", str(max(setting.repeats, 5))])
        setting.raw.setdefault("overhead", {})[type] = found
        for choice in found["choices"]:
            rows.append(
                at_most("7", f"beside the decoder, {type}, {choice['name']}", 100 * choice["share"], "%", 3,
                        comment=f"{choice['answer_ms']:.2f} ms a token, decoder {choice['decoder_ms']:.2f} ms"))
    return rows
