"""What a report says, in order, as blocks: the verdict first, the evidence after it, where it all came from last."""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence

import yaml

from evaluation.scores import Score
from jobs.costs.ledger import cost_blocks
from jobs.reporting.figures import Picture
from jobs.reporting.findings import SIGNIFICANCE, Benchmark, Comparison, Findings, RoundFindings
from jobs.reporting.harvest import Example
from jobs.reporting.render import Block, Code, Heading, Paragraph, Table
from jobs.reporting.visible import visible
from jobs.reporting.vitals import halt, vital_blocks

MAX_CLASSES = 6
MAX_EXAMPLE_ROUNDS = 12
MAX_OVERLAP_EXAMPLES = 12


def page(findings: Findings, pictures: Sequence[Picture]) -> list[Block]:
    """The whole report of a run."""
    plots = {p.name: p for p in pictures}
    blocks: list[Block] = [Paragraph(headline(findings), "lead")]
    blocks += [Paragraph(w, "lead") for w in (*halt(findings.run), *warnings(findings))]
    blocks += [Paragraph(f"Missing: {sentence}", "note") for sentence in findings.missing]
    for title, plot, tables in (
        ("Scores", ("score",), _score_tables(findings)),
        ("Validation", ("validation",), _validation_tables(findings)),
        ("Votes", ("agreement", "accuracy"), _vote_tables(findings)),
        ("Questions", ("funnel",), _funnel_tables(findings)),
        ("Training", ("training", "base"), _training_tables(findings)),
        ("Time and cost", ("time",), [*_time_tables(findings), *cost_blocks(findings.run)]),
        ("Examples", (), _examples(findings)),
        ("Held-out hygiene", (), _overlap_tables(findings)),
    ):
        content = [plots[p] for p in plot if p in plots] + list(tables)
        blocks += [Heading(title), *content] if content else []
        blocks += vital_blocks(findings.run) if title == "Votes" else []
    return blocks + list(_origin(findings))


def headline(findings: Findings) -> str:
    """One sentence: is the last scored policy better than the base, and how sure is that."""
    if not any(s.kind.gives == "grades" for s in findings.run.config.stages):
        return "This run does not score its policies."
    if not findings.scored:
        return "No policy has been scored yet."
    last = findings.scored[-1]
    if last.comparisons:
        told = "; ".join(_told(c) for c in last.comparisons)
        return f"After round {last.round} of {findings.run.config.rounds}, greedily and against the base model on the same problems: {told}."
    told = "; ".join(
        f"{name} {interval(metric)}"
        for name, metric in ((n, _main_score(last, n)) for n in last.scores)
        if metric
    )
    if last.round:
        return (
            f"The policy of round {last.round} solves {told}; the base model has no score to compare it with."
        )
    return f"The base model solves {told}; no later policy has been scored."


def _told(c: Comparison) -> str:
    return f"{c.word} on {c.benchmark}, {100 * c.base:.1f} % to {100 * c.value:.1f} % ({c.n} problems, {p_value(c.p)})"


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def warnings(findings: Findings) -> list[str]:
    """The collapse of self-training: ever more agreement on ever fewer right answers."""
    found = [r.votes for r in findings.rounds if r.votes and "anchors" in r.votes.right]
    if len(found) < 2:
        return []
    first, last = found[0], found[-1]
    if (
        last.anchor_agreement.value > first.anchor_agreement.value
        and last.right["anchors"].high < first.right["anchors"].low
    ):
        before, after = first.right["anchors"].value, last.right["anchors"].value
        return [
            f"Warning: the answers agree more than at first, but the majority is right less often ({before:.2f} to {after:.2f} on anchors): collapse."
        ]
    return []


def _main_score(r: RoundFindings, benchmark: str) -> Score | None:
    return r.scores[benchmark].main if benchmark in r.scores else None


def give_or_take(score: Score) -> str:
    """A mean and the farther end of its 95 % interval, which near 0 and 1 is not symmetric."""
    return f"{score.value:.3f}±{max(score.high - score.value, score.value - score.low):.3f}"


def _mean(score: Score) -> str:
    return f"{score.value:.3f}" if score.n else ""


def interval(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" if score.n else ""


def summary_table(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """One row per round that has begun: header and cells of the table at the end of a launch."""
    header = ["round", *findings.benchmarks, "agreement", "kept", "reward accuracy", "KL", "seconds"]
    lines = []
    for r in findings.rounds:
        if not r.started:
            continue
        scores = [_main_score(r, name) for name in findings.benchmarks]
        accuracy = r.votes.right.get("anchors") or r.votes.right.get("trained") if r.votes else None
        kl = r.steps[-1].numbers.get("approx_kl") if r.steps else None
        cells = [str(r.round)] + [give_or_take(s) if s else "" for s in scores]
        cells += [_mean(r.votes.agreement) if r.votes else "", _mean(r.votes.kept_share) if r.votes else ""]
        cells += [
            give_or_take(accuracy) if accuracy else "",
            f"{kl:.2g}" if kl is not None else "",
            f"{r.seconds:.0f}",
        ]
        lines.append(cells)
    return header, lines


def _score_rows(r: RoundFindings, scores: Mapping[str, Benchmark]) -> Iterator[list[str]]:
    for name, found in scores.items():
        for metric, score in found.metrics.items():
            silent = f"{found.silent:.3f}" if metric == "pass_at_1" and found.silent is not None else ""
            yield [str(r.round), name, metric, interval(score), str(score.n), silent]


def _score_tables(findings: Findings) -> Iterator[Block]:
    rows = []
    for r in findings.scored:
        verdicts = {(c.benchmark, "pass_at_1"): [c.word, p_value(c.p)] for c in r.comparisons}
        rows += [cells + verdicts.get((cells[1], cells[2]), ["", ""]) for cells in _score_rows(r, r.scores)]
    if rows:
        header = [
            "round",
            "benchmark",
            "metric",
            "value [95 % interval]",
            "problems",
            "no answer",
            "against the base",
            "exact paired test",
        ]
        yield Table(header=header, rows=rows, numeric=frozenset({0, 3, 4, 5, 7}))
        yield Paragraph(
            f"pass_at_1 is greedy; avg, pass and maj at k are of k samples. The test is McNemar's, two-sided, on the same problems; "
            f"below {SIGNIFICANCE} counts as shown, with no correction for looking at several rounds and benchmarks.", "note"
        )  # fmt: skip


def _validation_tables(findings: Findings) -> Iterator[Block]:
    if chosen := findings.chosen:
        told = ", ".join(f"{name} {interval(found.main)}" for name, found in chosen.validation.items())
        yield Paragraph(f"Best on validation: the policy of round {chosen.round}, {told}.")
        rows = [cells for r in findings.rounds for cells in _score_rows(r, r.validation)]
        yield Table(
            header=["round", "benchmark", "metric", "value [95 % interval]", "problems", "no answer"],
            rows=rows,
            numeric=frozenset({0, 3, 4, 5}),
        )
        yield Paragraph(
            "Problems to choose by, apart from those that are reported; whatever was chosen by them looks better on them than it is.",
            "note",
        )


def _overlap_tables(findings: Findings) -> Iterator[Block]:
    found = findings.overlap
    rows, examples = [], []
    for o in found.overlaps:
        s = o.shared
        counts = (s.num_ours, s.exact_ours, s.runs_ours, s.num_theirs, s.exact_theirs, s.runs_theirs)
        rows.append([o.name, o.benchmark, *(str(n) for n in counts)])
        examples += [[o.name, o.benchmark, visible(ours), visible(theirs)] for ours, theirs in o.examples]
    if rows:
        header = [
            "questions",
            "benchmark",
            "of ours",
            "the same",
            "13 words",
            "of theirs",
            "the same",
            "13 words",
        ]
        yield Table(header=header, rows=rows, numeric=frozenset(range(2, 8)))
        yield Paragraph(
            "Questions that also stand in a benchmark: the same words, numbers and operators throughout, or thirteen of them in a row (the same ones count "
            "there too); case, spacing and punctuation do not matter. Instructions are those of all rounds.", "note"
        )  # fmt: skip
    if examples:
        yield Table(header=["questions", "benchmark", "ours", "theirs"], rows=examples[:MAX_OVERLAP_EXAMPLES])
    for sentence in found.unread:
        yield Paragraph(f"Not compared: {sentence}", "note")


def _vote_tables(findings: Findings) -> Iterator[Block]:
    rows, right = [], []
    kinds = list(dict.fromkeys(kind for r in findings.rounds if r.votes for kind in r.votes.right))
    for r in findings.rounds:
        if r.votes:
            v, counts = r.votes, r.counts("groups")
            shares = [
                f"{counts.get(k, 0) / counts['completions']:.3f}" if counts.get("completions") else ""
                for k in ("unparsed", "truncated", "undecided")
            ]
            rows.append(
                [
                    str(r.round),
                    str(v.num_groups),
                    *(_mean(s) for s in (v.agreement, v.margin, v.reward, v.kept_share)),
                    *shares,
                ]
            )
            right.append(
                [
                    str(r.round),
                    *(f"{interval(v.right[k])} of {v.right[k].n}" if k in v.right else "" for k in kinds),
                ]
            )
    if rows:
        header = [
            "round",
            "questions",
            "agreement",
            "margin",
            "mean reward",
            "kept share",
            "unparsed",
            "truncated",
            "undecided",
        ]
        yield Table(header=header, rows=rows, numeric=frozenset(range(9)))
        yield Paragraph(
            "Unparsed, truncated, undecided: shares of all answers, which cast no vote for that reason.",
            "note",
        )
    if kinds:
        yield Table(
            header=["round", *(f"majority right: {k}" for k in kinds)],
            rows=right,
            numeric=frozenset(range(1 + len(kinds))),
        )
        yield Paragraph(
            "How often a majority that exists equals the gold answer. Anchors are seed problems with gold answers, never trained on; in the band: those that the "
            "difficulty filter would keep; trained: the round's own questions that it kept, where they have gold answers.", "note"
        )  # fmt: skip


def _funnel_tables(findings: Findings) -> Iterator[Block]:
    rows = []
    for r in findings.rounds:
        for passage in r.funnel:
            lost = sorted(passage.lost.items(), key=lambda item: (-item[1], item[0]))
            rows.append(
                [
                    str(r.round),
                    passage.name,
                    str(passage.count),
                    ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in lost if n),
                ]
            )
    if rows:
        yield Table(
            header=["round", "passage", "questions", "lost before it"], rows=rows, numeric=frozenset({0, 2})
        )


def _training_tables(findings: Findings) -> Iterator[Block]:
    names = ("loss", "approx_kl", "clip_fraction", "grad_norm", "tokens_per_s")
    rows = []
    for r in findings.rounds:
        counts = r.counts("weights")
        if counts or r.steps:
            numbers = [
                f"{r.steps[-1].numbers[k]:{',.0f' if k == 'tokens_per_s' else '.3g'}}"
                if r.steps and k in r.steps[-1].numbers
                else ""
                for k in names
            ]
            mismatch = f"{counts['mismatch_kl']:.2g}" if "mismatch_kl" in counts else ""
            rows.append(
                [
                    str(r.round),
                    str(len(r.steps)),
                    f"{counts['samples']:.0f}" if "samples" in counts else "",
                    *numbers,
                    mismatch,
                ]
            )
    if rows:
        header = ["round", "steps", "samples", *(n.replace("_", " ") for n in names), "mismatch kl"]
        yield Table(header=header, rows=rows, numeric=frozenset(range(len(header))))
        yield Paragraph(
            "Figures of the round's last step; mismatch is between the trainer's and the sampler's probabilities, before the first step.",
            "note",
        )


def _time_tables(findings: Findings) -> Iterator[Block]:
    rows = [
        [
            str(s.round),
            s.stage,
            f"{s.num_done}/{s.num_shards}",
            f"{s.longest_s:.1f}",
            f"{s.total_s:.1f}",
            _date(s.ended),
        ]
        for r in findings.rounds
        for s in r.stages
        if s.num_done
    ]
    if rows:
        yield Table(
            header=["round", "stage", "shards", "slowest shard, s", "all shards, s", "last published"],
            rows=rows,
            numeric=frozenset({0, 2, 3, 4}),
        )


def _examples(findings: Findings) -> Iterator[Block]:
    shown = [r for r in findings.rounds if r.votes and r.votes.examples]
    for r in shown[-MAX_EXAMPLE_ROUNDS:]:
        assert r.votes is not None
        yield Table(
            header=[f"round {r.round}: question", "majority", "agreement", "fate", "answers"],
            rows=[
                [
                    visible(e.question),
                    _majority(e),
                    f"{e.agreement:.2f}",
                    e.fate.replace("_", " "),
                    _answers(e),
                ]
                for e in r.votes.examples
            ],
            numeric=frozenset({2}),
        )
    if shown:
        yield Paragraph(
            "The first questions of each fate in the round's order, and the first anchor whose majority is wrong; in brackets, how many gave the answer.",
            "note",
        )


def _majority(e: Example) -> str:
    answer = "none" if e.majority is None else visible(e.majority, 80)
    if e.gold is None:
        return answer
    return f"{answer} (gold {visible(e.gold, 80)}{'' if e.majority_correct is None else ': right' if e.majority_correct else ': wrong'})"


def _answers(e: Example) -> str:
    told = [
        f"{'no vote' if answer is None else visible(answer, 60)} ({n})"
        for answer, n in e.answers[:MAX_CLASSES]
    ]
    more = len(e.answers) - MAX_CLASSES
    return ", ".join(told) + (f", and {more} more" if more > 0 else "")


def _origin(findings: Findings) -> Iterator[Block]:
    run = findings.run
    ended = [s.ended for r in findings.rounds for s in r.stages if s.num_done]
    folder = shlex.quote(str(run.root))
    yield Heading("Where this comes from")
    rows = [
        ["run", run.root.name], ["configuration digest", run.digest], ["code", run.code],
        ["first and last publication", f"{_date(min(ended))} to {_date(max(ended))}" if ended else "nothing published yet"],
        ["shard time", f"{sum(s.total_s for r in findings.rounds for s in r.stages):.0f} s"],
    ]  # fmt: skip
    yield Table(header=["what", "value"], rows=rows)
    yield Paragraph(
        "To finish a run that stopped, to grade its stored answers again, to write this report again, to see its curves:"
    )
    yield Code(
        f"python -m jobs.resume {folder}\npython -m evaluation.grade {folder}\npython -m jobs.report {folder}\ntensorboard --logdir {folder}/tensorboard"
    )
    yield Paragraph("The configuration, as it was frozen at launch:")
    yield Code(yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, width=120))


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
