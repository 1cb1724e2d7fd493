"""Shell completion: `source <(slurm/python -m jobs.completion bash)`, or zsh.

TAB then completes `python -m jobs.VERB ...`: verbs and their options, names of runs and sweeps, cluster and
run files, and stages.
"""

import argparse

from jobs.shell.complete import script

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m jobs.completion",
        description="Print a shell's completions: source <(python -m jobs.completion bash).",
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    print(script(parser.parse_args().shell))
