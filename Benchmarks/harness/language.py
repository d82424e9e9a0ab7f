"""SmolLM2-135M against llama.cpp and OpenVINO GenAI: requirements 1, 2 and 8."""
from __future__ import annotations

import contextlib
import json
import platform
from pathlib import Path
from typing import Callable

from measuring import Failed, Missing, Neighbours, interleave, median, note, resident, run, run_json
from report import Row, at_least, at_most, versus
from setting import ROOT, Setting, bandwidth_share

PROMPT, GENERATE = 600, 64
# Multiplications and additions of SmolLM2-135M's decoder layers for one token: 30 layers of hidden size 576, 9 heads of 64, 3 key-value heads,
# 1,536 neurons. The output layer reads one position of a prompt and does not count.
OPERATIONS = 2 * 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576)
ARITHMETIC = {"Q8_0": "int8_gops", "Q4_0": "int8_gops", "F16": "bf16_gflops", "BF16": "bf16_gflops"}
PREFILL = {"Q8_0": 2.5, "Q4_0": 2.2, "F16": 1.7, "BF16": 1.7}
DECODE = {"Q8_0": 1.3, "Q4_0": 1.15, "F16": 1.05}


def ours(setting: Setting, model: Path, kernels: str | None = None) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        found = run_json(
            [setting.adallava, "bench", "throughput", "--model", model, "--threads", str(setting.threads), "--prompt-tokens", str(PROMPT), "--generate",
             str(GENERATE), "--repeat", "1", "--json"], {"ADALLAVA_KERNELS": kernels} if kernels else None)
        return {entry["kind"]: entry["tokens_per_second"] for entry in found["results"]}

    return measure


def llama(setting: Setting, model: Path, build: str = "build") -> Callable[[], dict[str, float]]:
    tool = setting.llama("llama-bench", build)
    common = ["-m", model, "-t", str(setting.threads), "-r", "1", "-o", "json"]

    def measure() -> dict[str, float]:
        prefill = json.loads(run([tool, *common, "-p", str(PROMPT), "-n", "0"]))
        # As ours: behind the prompt.
        decode = json.loads(run([tool, *common, "-p", "0", "-n", str(GENERATE), "-d", str(PROMPT)]))
        return {"prefill": prefill[0]["avg_ts"], "decode": decode[0]["avg_ts"]}

    return measure


def limits(ceilings: dict[str, list[float]], type: str, model: Path) -> dict[str, float | None]:
    """Tokens a second that the machine allows: multiply-adds for prefill, bandwidth for decode, keys and values left out."""
    # Without BF16 instructions 16-bit weights are multiplied in 16-bit integers under AVX2, which the ceiling of 8-bit products holds for too.
    instead = "int8_gops" if platform.machine() in ("x86_64", "AMD64") else "f32_gflops"
    operations = median(ceilings.get(ARITHMETIC[type]) or ceilings.get(instead, []))
    # Where tiles of BF16 are faster than 8-bit products, many tokens meet 8- and 4-bit weights in them.
    operations = max(operations, median(ceilings.get("bf16_gflops") or [0])) if operations else operations
    bandwidth = median(ceilings.get("bandwidth_gb_s", []))
    return {
        "prefill": operations * 1e9 / OPERATIONS if operations else None,
        "decode": bandwidth * 1e9 / model.stat().st_size if bandwidth else None,
    }


def smollm2(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for type in setting.types:
        model = setting.smollm2(type)
        with contextlib.ExitStack() as stack:
            cases = {"ours": ours(setting, model), "ceilings": setting.measure_ceilings}
            for name, start in (("llama.cpp", lambda: llama(setting, model)), ("OpenVINO", lambda: openvino(setting, model, stack))):
                try:
                    cases[name] = start()
                except (Missing, Failed) as error:
                    setting.notes.append(f"{type}, {name}: {error}")
                    note(f"  {type}: {name} is not measured: {error}")
            found = interleave(f"smollm2 {type}", setting.repeats, cases)
        setting.raw.setdefault("smollm2", {})[type] = found
        limit = limits(found["ceilings"], type, model)
        for kind, targets in (("prefill", PREFILL), ("decode", DECODE)):
            what = f"{kind} {PROMPT if kind == 'prefill' else GENERATE}, {type}"
            mine = median(found["ours"].get(kind, []))
            theirs = median(found.get("llama.cpp", {}).get(kind, []))
            rows.append(versus("1", what, mine, "llama.cpp", theirs, targets.get(type), limit=limit[kind]))
            if "OpenVINO" in cases:
                # For decode there is no target: it is told all the same.
                rows.append(
                    versus("1", what, mine, "OpenVINO", median(found["OpenVINO"].get(kind, [])), 1.0 if kind == "prefill" else None, limit=limit[kind]))
        if type == "Q8_0":
            rows += bandwidth_share(setting, "1", "decode, Q8_0, share of the read bandwidth", model, PROMPT, GENERATE, 0.82)
    return rows


def openvino(setting: Setting, model: Path, stack: contextlib.ExitStack) -> Callable[[], dict[str, float]]:
    python = setting.python("venv-openvino", "OpenVINO GenAI")
    note("  OpenVINO GenAI: loading")
    program = stack.enter_context(
        resident([python, ROOT / "Benchmarks/peers/openvino_gguf.py", model, "--threads", str(setting.threads), "--prompt", str(PROMPT),
                  "--generate", str(GENERATE)]))

    def measure() -> dict[str, float]:
        found = program.measure()
        return {"prefill": 1000 * PROMPT / found["prefill_ms"], "decode": 1000 / found["token_ms"]}

    return measure


def busy(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for type in [type for type in setting.types if type in ("Q8_0", "Q4_0")]:
        model = setting.smollm2(type)
        mine = ours(setting, model)
        try:
            theirs = llama(setting, model)
        except Missing as error:
            theirs = None
            setting.notes.append(f"{type}, busy: {error}")
            note(f"  {type}: llama.cpp is not measured: {error}")

        def beside(count: int, measure: Callable[[], dict[str, float]]) -> Callable[[], dict[str, float]]:
            def measured() -> dict[str, float]:
                with Neighbours(count) as neighbours:
                    found = measure()
                    return found | {"taken": neighbours.share()}

            return measured

        cases = {"ours, quiet": mine}
        for count in (1, 2):
            cases[f"ours, {count} busy"] = beside(count, mine)
            if theirs:
                cases[f"llama.cpp, {count} busy"] = beside(count, theirs)
        found = interleave(f"busy {type}", setting.repeats, cases)
        setting.raw.setdefault("busy", {})[type] = found
        for count in (1, 2):
            here = found[f"ours, {count} busy"]
            taken = median(here.get("taken", []))
            for kind in ("prefill", "decode"):
                target = 2.0 if count == 2 else 3.5 if kind == "prefill" else 2.5
                rate = median(here.get(kind, []))
                rows.append(
                    versus("2", f"{kind}, {type}, {count} busy", rate, "llama.cpp", median(found.get(f"llama.cpp, {count} busy", {}).get(kind, [])), target))
                # In-round ratios: a round that is slow as a whole hurts both alike.
                losses = [1 - b / q for b, q in zip(here.get(kind, []), found["ours, quiet"].get(kind, []))]
                loss = median(losses)
                rows.append(
                    at_most("2", f"loss of {kind}, {type}, {count} busy", loss, "", round((taken or 0) + 0.1, 3),
                            comment=f"{100 * (taken or 0):.0f} % of the processor was taken, plus 10 points"))
    return rows


def avx2(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for type in [type for type in setting.types if type != "BF16"]:
        model = setting.smollm2(type)
        cases = {"ours, AVX2": ours(setting, model, "avx2")}
        try:
            cases["llama.cpp, AVX2"] = llama(setting, model, "build-avx2")
        except Missing as error:
            setting.notes.append(f"{type}, AVX2: {error}")
            note(f"  {type}: llama.cpp is not measured: {error}")
        found = interleave(f"avx2 {type}", setting.repeats, cases)
        setting.raw.setdefault("avx2", {})[type] = found
        for kind in ("prefill", "decode"):
            rows.append(
                versus("8", f"{kind}, {type}, AVX2 alone", median(found["ours, AVX2"].get(kind, [])), "llama.cpp",
                       median(found.get("llama.cpp, AVX2", {}).get(kind, [])), 0.9))
    return rows
