"""A step against one of TRL's GRPOTrainer: `slurm/python tests/bench/trainers.py --trl PYTHON`.

Both do the same step of the same random Llama (2.75 million weights) on the same 64 answers: same advantages,
clip, token mean, AdamW; the gradient's norm says whether it is the same. In turn, on one core each, in
processor seconds, so that a busy machine disturbs both alike. Ours sorts answers by length and fills a pass by
tokens; TRL pads a batch to its longest answer. Then the same with adapters of rank 16 against PEFT's, and our own
step with samples end to end against padded ones, whose lengths are 16 to 1,024. PYTHON is of an environment of TRL's own:

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
        one, other = (sys.executable, "ours.py"), (args.trl, "theirs.py")
        for name, lengths, mine, theirs in (
            ("equal lengths", "equal", one, other),
            ("varied lengths", "varied", one, other),
            ("adapters of rank 16", "varied", (*one, "--lora", "16"), (*other, "--lora", "16")),
            ("end to end against padded", "wide", (*one, "--packing"), one),
        ):
            options = [lengths, "--model", folder, "--steps", str(args.steps)]
            print(f"{name}: {_race(mine, theirs, options, args.repeats)}", flush=True)


def _race(ours: tuple, theirs: tuple, options: list[str], repeats: int) -> str:
    """Each side is an interpreter, a script and options of its own."""
    runs = [[side(*who, *options) for who in (ours, theirs)] for _ in range(repeats)]
    one, other = runs[0]
    assert one["tokens"] == other["tokens"], "both sides have the same sequences"
    spent = [statistics.median(s for pair in runs for s in pair[i]["seconds"]) for i in (0, 1)]
    norms = f"{one['grad_norm']:.6f} and {other['grad_norm']:.6f}"
    rates = " and ".join(f"{one['tokens'] / s:,.0f}" for s in spent)
    ratio = f"{spent[1] / spent[0]:.2f} times {other.get('version', 'ours')}"
    return f"{ratio}; {rates} tokens a processor second; gradient's norm {norms}"


if __name__ == "__main__":
    main()
