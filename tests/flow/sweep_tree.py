"""A copy of the project whose engines are the quick stand-ins, to launch sweeps from; and a small base run with a benchmark of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import transformers
import yaml
from deterministic import CONFIG, new_root

from jobs.plan.chain import plan
from jobs.runs.code import PACKAGES
from serl.engines.tokenizer import build_tokenizer
from serl.run.rundir import Run
from tests.conftest import phased

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
FEW = {
    "rounds": 2,
    "stages": ["propose", "curate", "respond", "train", "score"],
    "propose": CONFIG["propose"] | {"shards": 1, "prompts": 4},
    "respond": CONFIG["respond"] | {"shards": 2, "samples": 4},
    "score": {"shards": 2, "benchmarks": ["quick"], "max_tokens": 60},
}
ALGORITHMS = [{"kind": "reinforce_pp"}, {"kind": "grpo"}, {"kind": "rloo"}]
SWEEP = {
    "name": "algos", "base": "base.yaml", "cap": {"lanes": 3}, "replicates": [0, 1, 2],
    "space": {"kind": "grid", "over": {"train.objective": ALGORITHMS}},
}  # fmt: skip


def make_base(folder: Path) -> None:
    """A model that the checks of a launch take for one that can be trained; nobody trains it."""
    build_tokenizer(["a few words 0 1 2"], 259, folder)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.LlamaConfig(vocab_size=264, max_position_embeddings=4096, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


class Tree:
    """The copy, a data root, and the sweep file of 3 algorithms x 3 seeds."""

    def __init__(self, folder: Path, **changes):
        self.folder, self.data, self.calls = folder / "tree", folder / "data", folder / "calls.txt"
        for package in {*PACKAGES, "slurm", "configs"}:
            shutil.copytree(
                ROOT / package, self.folder / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        for name, target in (
            ("stand_in/generator.py", "serl/engines/generator.py"),
            ("stand_in/train.py", "serl/stages/train/run.py"),
            ("deterministic.py", "serl/deterministic.py"),
        ):
            text = (
                (HERE / name)
                .read_text()
                .replace("from deterministic import", "from serl.deterministic import")
            )
            (self.folder / target).write_text(text)
        described = {
            "name": "quick",
            "kind": "math",
            "version": "1",
            "licence": "none",
            "source": "made here",
            "file": "quick.jsonl",
        }
        (self.folder / "evaluation/benchmarks/quick.yaml").write_text(
            yaml.safe_dump(described | {"fields": {"id": "id", "question": "question", "answer": "answer"}})
        )
        new_root(self.data)
        make_base(self.data / "models/base")
        rows = [
            {"id": str(i), "question": f"How many are {i} and {i}?", "answer": str(2 * i)} for i in range(12)
        ]
        (self.data / "benchmarks/quick.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        self.write("base.yaml", phased(CONFIG | FEW))
        self.sweep = self.write("sweep.yaml", SWEEP | changes)

    def write(self, name: str, content: dict) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "SERL_TEST_CALLS": str(self.calls),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.folder),
        }

    def start(self, *arguments: str) -> subprocess.Popen:
        """`python -m jobs.sweep`, of the copy."""
        command = [sys.executable, "-m", "jobs.sweep", *arguments, "--data", str(self.data)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def verb(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        return said

    def json(self, *arguments: str) -> dict:
        return json.loads(self.verb(*arguments, "--json").splitlines()[-1])

    def runs(self) -> list[Run]:
        return [Run.open(p.parent) for p in sorted((self.data / "runs").glob("*/run.json"))]

    def manifests(self) -> int:
        """How many there are on disk, of all trials and of what they share."""
        return len(list(self.data.glob("runs/*/round_*/*/shard_*.json"))) + len(
            list(self.data.glob("shared/*/shard_*.json"))
        )

    def wanted(self) -> tuple[int, int]:
        """How many manifests the runs need together, and how many they would need without sharing."""
        all_of_them = [
            (run.stage_dir(job.round, job.stage), s.index)
            for run in self.runs()
            for job in plan(run.config, lambda s: False)
            for s in job.missing
        ]
        return len(set(all_of_them)), len(all_of_them)

    def computed(self, what: str = "start") -> int:
        """Generation calls that were begun (or ended)."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return sum(line.startswith(what + " ") for line in lines)
