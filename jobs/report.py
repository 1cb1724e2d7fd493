"""The report of a run, at any point of it: `python -m jobs.report RUN` writes report.html, report.md and
report.csv into its folder.

`python -m jobs.report RUN[:ROUND] RUN[:ROUND] ...` sets several models side by side, in `<data
root>/reports/<their names>/`. With --json: {run or models, html, markdown, csv, headline}, and of one run
`halted` (a sentence, or null).
"""

from collections.abc import Sequence

from rich.console import Console

from jobs.reporting.side_by_side import side_by_side
from jobs.reporting.vitals import halt
from jobs.reporting.written import write_report, write_side_by_side
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import say


def body(argv: Sequence[str]) -> int:
    p = parser("report", "Write the report of a run, finished or not; of several, their models side by side.")
    p.add_argument(
        "run",
        nargs="+",
        help="a run's name, or its folder; beside others also RUN:ROUND, RUN:ROUND@TURN for what was "
        "published within it, or RUN:best for the best of all on validation",
    )
    args = p.parse_intermixed_args(argv)
    data = data_root(args)
    if len(args.run) == 1:
        run = find_run(args.run[0], data)
        paths, summary = write_report(run)
        told: dict[str, object] = {"run": run.root.name, "halted": next(iter(halt(run)), None)}
    else:
        found = side_by_side(args.run, data)
        paths, summary = write_side_by_side(found, data)
        told = {"models": [s.label for s in found.settings]}
    console = Console()
    console.print(summary)
    if told.get("halted"):
        say(told["halted"], style="red", console=console)
    say(f"report: {paths.html}", console=console)
    files = {"html": str(paths.html), "markdown": str(paths.markdown), "csv": str(paths.csv)}
    return Answer(fields=told | files | {"headline": str(summary.caption)})


if __name__ == "__main__":
    main(body)
