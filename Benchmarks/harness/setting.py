"""Where everything is that is measured, and how often."""
from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from measuring import Failed, Interruption, Missing, median, note, run, run_json
from report import Row, at_least

ROOT = Path(__file__).resolve().parents[2]
STEM = "SmolLM2-135M-Instruct"


@dataclass
class Setting:
    """The machine's programs and models."""

    peers: Path
    threads: int
    repeats: int
    types: list[str]
    models: Path = ROOT / "build/models"
    build: Path = Path(os.environ.get("ADALLAVA_BUILD", ROOT / ".build/release"))
    # Raw numbers by section, for the JSON file.
    raw: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _ceilings: list[dict] = field(default_factory=list)

    # -- ours

    @property
    def adallava(self) -> Path:
        return self._ours("adallava")

    @property
    def bench(self) -> Path:
        return self._ours("adallava-bench")

    def _ours(self, name: str) -> Path:
        path = self.build / name
        if not path.exists():
            raise Missing(f"{path} is not built: swift build -c release --product {name}")
        return path

    @property
    def ceilings(self) -> dict:
        """What the machine did at most whenever it was measured in this run, medians."""
        if not self._ceilings:
            note("measuring what the machine does at most")
            self.measure_ceilings()
        return {key: median([found[key] for found in self._ceilings]) for key, value in self._ceilings[0].items() if isinstance(value, float)}

    def measure_ceilings(self) -> dict[str, float]:
        """Measures it now (`adallava bench kernels`): on a shared machine the bandwidth changes from minute to minute."""
        found = run_json([self.adallava, "bench", "kernels", "--parts", "none", "--threads", str(self.threads), "--json"])["ceilings"][0]
        self._ceilings.append(found)
        return {key: value for key, value in found.items() if isinstance(value, float)}

    # -- peers

    def llama(self, name: str, build: str = "build") -> Path:
        path = self.peers / build / "bin" / name
        if not path.exists():
            raise Missing(f"llama.cpp's {path} is missing: Benchmarks/peers/build-llama.sh {self.peers}")
        return path

    def python(self, venv: str, package: str) -> Path:
        """An interpreter that has `package`: that of the environment variable, or that of a virtual environment beside the peers."""
        named = os.environ.get({"venv-openvino": "OPENVINO_PYTHON", "venv-pytorch": "PYTORCH_PYTHON"}[venv])
        path = Path(named) if named else self.peers / venv / "bin" / "python"
        if not path.exists():
            raise Missing(f"{path} is missing: Benchmarks/peers/setup.sh {self.peers} installs {package}")
        return path

    # -- models

    def smollm2(self, type: str) -> Path:
        """SmolLM2-135M-Instruct as `type`, made from the published Q4_1 file with llama.cpp's own tool, or with ours where that is missing."""
        path = self.models / f"{STEM}.{type}.gguf"
        if path.exists():
            return path
        source = self.models / f"{STEM}.Q4_1.gguf"
        if not source.exists():
            run([ROOT / "Benchmarks/peers/fetch-smollm2.sh", self.models])
        if type == "Q4_1":
            return source
        partial = path.with_suffix(".partial.gguf")
        note(f"making {path.name}")
        try:
            run([self.llama("llama-quantize"), "--allow-requantize", source, partial, type, str(self.threads)])
        except Missing:
            run([self.adallava, "convert", source, partial, "--to", type.lower()])
        partial.replace(path)
        return path

    def require_space(self, gigabytes: float) -> None:
        self.models.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.models).free / 1e9
        if free < gigabytes:
            raise Missing(f"{gigabytes:.0f} GB of disk are needed at {self.models}, {free:.1f} are free")

    def environment(self) -> dict:
        processor = platform.processor() or platform.machine()
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
        except OSError:
            pass
        return {
            "processor": processor, "cores": len(os.sched_getaffinity(0)), "threads": self.threads, "repeats": self.repeats,
            "load_average": os.getloadavg()[0], "ceilings": self.ceilings if self._ceilings else None,
        }


def bench_json(setting: Setting, words: list[str | Path]) -> dict:
    """The numbers of an `adallava-bench` measurement; one that misses its own limit ends with 1 and has numbers all the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        run([setting.bench, *words, "--threads", str(setting.threads), "--json", path], accepts=(0, 1))
        if not path.exists():
            raise Failed(f"adallava-bench {words[0]} wrote no numbers")
        return json.loads(path.read_text())


def bandwidth_share(setting: Setting, requirement: str, what: str, model: Path, prompt: int, tokens: int, target: float) -> list[Row]:
    """How much of the bandwidth, measured after every token, a decode uses. What was measured before is kept if this fails."""
    if Interruption.happened:
        return []
    note("  decode, and after every token the bandwidth")
    try:
        found = bench_json(setting, ["decode-bandwidth", model, "--prompt", str(prompt), "--tokens", str(tokens), "--repeats", str(setting.repeats)])
    except (Missing, Failed) as error:
        setting.notes.append(f"{what}: {error}")
        return []
    except KeyboardInterrupt:
        Interruption.happened = True
        return []
    setting.raw.setdefault("decode-bandwidth", {})[model.name] = found
    return [at_least(requirement, what, found["share"], "", target,
                     comment=f"{found['token_bytes'] / 1e6:.0f} MB a token, {found['bandwidth_gb_s']:.1f} GB/s")]
