"""A step against one of TRL's GRPOTrainer: `slurm/python tests/bench/trainers.py --trl PYTHON`.

Both do the same step of the same random Llama (2.75 million weights) on the same 64 answers: same advantages,
clip, token mean, AdamW; the gradient's norm says whether it is the same. In turn, on one core each, in
processor seconds, so that a busy machine disturbs both alike. Ours sorts answers by length and fills a pass by
tokens; TRL pads a batch to its longest answer. PYTHON is of an environment of TRL's own:

    python3.11 -m venv trl-venv
    trl-venv/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    trl-venv/bin/pip install trl peft
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from race.material import make_model
from race.sides import side


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trl", type=Path, required=True, metavar="PYTHON")
    p.add_argument("--steps", type=int, default=5, help="that count, in each of the repeats")
    p.add_argument("--repeats", type=int, default=2)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        for lengths in ("equal", "varied"):
            print(_race(lengths, Path(folder), args), flush=True)


def _race(lengths: str, model: Path, args: argparse.Namespace) -> str:
    options = [lengths, "--model", str(model), "--steps", str(args.steps)]
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(side(sys.executable, "ours.py", *options))
        theirs.append(side(args.trl, "theirs.py", *options))
    assert ours[0]["tokens"] == theirs[0]["tokens"], "both sides have the same sequences"
    mine, other = (statistics.median(s for run in runs for s in run["seconds"]) for runs in (ours, theirs))
    norms = f"{ours[0]['grad_norm']:.6f} and {theirs[0]['grad_norm']:.6f}"
    rates = f"{ours[0]['tokens'] / mine:,.0f} and {ours[0]['tokens'] / other:,.0f} tokens a processor second"
    ratio = f"{other / mine:.2f} times {theirs[0]['version']}"
    return f"{lengths} lengths: {ratio}; {rates}; gradient's norm {norms}"


if __name__ == "__main__":
    main()
