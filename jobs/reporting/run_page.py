"""What the report of a run shows: the sentences that depend on what was found, and the tables.
`templates/run.md` puts them in order: the verdict first, the evidence after it, where it all came from last.
"""

import time
from collections.abc import Sequence

import yaml

from jobs.reporting import along, policies
from jobs.reporting.findings import Findings, RoundFindings
from jobs.reporting.harvest import Example
from jobs.reporting.policies import Pair
from jobs.reporting.render import Table, interval, p_value, table
from jobs.reporting.scalars import Row, by_round
from jobs.reporting.visible import visible
from serl.stages.show import show_of

MAX_CLASSES = 6
MAX_EXAMPLE_ROUNDS = 12
MAX_OVERLAPS = 12
MAX_TURNS = 40  # rows on the page; turns.csv has all
KNOWN = {"documents", "candidates", "problems", "groups", "grades", "weights"}  # what other tables tell of


# ----------------------------------------------------------------------------------- sentences
def headline(findings: Findings) -> str:
    """One sentence: is the last scored policy better than the base, and how sure is that."""
    config = findings.run.config
    if not any(s.kind.gives == "grades" for s in config.stages):
        return "This run does not score its policies."
    if not findings.scored:
        return "No policy has been scored yet."
    last = findings.scored[-1]
    if last.comparisons:
        told = "; ".join(_told(pair) for pair in last.comparisons)
        how = "greedily and against the base model on the same problems"
        return f"After round {last.round} of {config.rounds}, {how}: {told}."
    told = "; ".join(f"{name} {interval(policies.main_score(found))}" for name, found in last.scores.items())
    if last.round:
        return (
            f"The policy of round {last.round} solves {told}; the base model has no score to compare it with."
        )
    return f"The base model solves {told}; no later policy has been scored."


def _told(pair: Pair) -> str:
    base, value = pair.means
    sure = f"({pair.found.num_problems} problems, {p_value(pair.p)})"
    return f"{pair.told} on {pair.benchmark}, {100 * base:.1f} % to {100 * value:.1f} % {sure}"


def warnings(findings: Findings) -> list[str]:
    """The collapse of self-training: ever more agreement on ever fewer right answers."""
    found = [r.votes for r in findings.rounds if r.votes and "anchors" in r.votes.right]
    if len(found) < 2:
        return []
    first, last = found[0], found[-1]
    before, after = first.right["anchors"], last.right["anchors"]
    if last.anchor_agreement.value <= first.anchor_agreement.value or after.high >= before.low:
        return []
    return [
        "Warning: the answers agree more than at first, but the majority is right less often "
        f"({before.value:.2f} to {after.value:.2f} on anchors): collapse."
    ]


def chosen(findings: Findings) -> str:
    if (chosen := findings.chosen) is None:
        return ""
    shown = chosen.scores.items()
    told = ", ".join(f"{name} {interval(policies.main_score(found))}" for name, found in shown)
    return f"Best on validation: the policy of {policies.told(chosen.round, chosen.turn)}, {told}."


# ----------------------------------------------------------------------------------- tables
def summary_table(findings: Findings, rows: Sequence[Row]) -> Table:
    """One row per round that has begun: the table at the end of a launch."""
    scored = {
        name: (f"score/{name}/{policies.first_metric(found)}", "±")
        for r in findings.rounds
        for name, found in r.scores.items()
    }
    return by_round(
        rows,
        scored
        | {
            "agreement": ("agreement", ".3f"),
            "kept": ("kept_share", ".3f"),
            "reward accuracy": ("reward_accuracy/anchors", "reward_accuracy/trained", "±"),
            "KL": ("last_step/approx_kl", ".2g"),
            "seconds": ("seconds", ".0f"),
        },
    )


def scores(rounds: Sequence[RoundFindings], *, chosen_by: bool) -> Table:
    """A row for each metric of each benchmark; of greedy ones with their comparison with the base's."""
    rows = []
    for r in rounds:
        pairs = {p.benchmark: p for p in r.comparisons}
        for name, found in (r.validation if chosen_by else r.scores).items():
            for metric, score in found.metrics.items():
                greedy = metric == "pass_at_1"
                pair = pairs.get(name) if greedy else None
                test = (pair.told, p_value(pair.p)) if pair else (None, None)
                rows.append(
                    (r.round, name, metric, score, score.n, policies.silent(found) if greedy else None, *test)
                )
    header = ("round", "benchmark", "metric", "value [95 % interval]", "problems", "no answer")
    if not any(row[-1] for row in rows):
        return table(header, [row[: len(header)] for row in rows])
    return table((*header, "against the base", "exact paired test"), rows)


def votes(rows: Sequence[Row]) -> Table:
    return by_round(rows, VOTES)


VOTES = {
    "questions": ("agreement", "n"),
    "agreement": ("agreement", ".3f"),
    "margin": ("margin", ".3f"),
    "mean reward": ("reward_mean", ".3f"),
    "kept share": ("kept_share", ".3f"),
    "unparsed": ("unparsed_share", ".3f"),
    "truncated": ("truncated_share", ".3f"),
    "undecided": ("undecided_share", ".3f"),
}


def right(rows: Sequence[Row]) -> Table:
    tags = dict.fromkeys(row.tag for row in rows if row.metric.startswith("reward_accuracy/"))
    kinds = {tag.partition("/")[2].replace("_", " "): tag for tag in tags}
    return by_round(rows, {f"majority right: {kind}": (tag, "[]") for kind, tag in kinds.items()})


def funnel(findings: Findings) -> Table:
    rows = []
    for r in findings.rounds:
        for passage in r.funnel:
            lost = sorted(passage.lost.items(), key=lambda item: (-item[1], item[0]))
            words = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in lost if n)
            rows.append((r.round, passage.name, passage.count, words))
    return table("round | passage | questions | lost before it", rows)


def trainings(findings: Findings, rows: Sequence[Row]) -> list[Table]:
    """A table for each stage that trains."""
    tables = []
    for s in {s.name: s for r in findings.rounds for s in r.trainings}.values():
        last = {
            name.replace("_", " "): (
                f"{s.prefix}last_step/{name}",
                ",.0f" if name == "tokens_per_s" else ".3g",
            )
            for name in show_of(s.of.kind).last
        }
        columns = {
            "steps": (f"{s.prefix}last_step/number", ".0f"),
            "samples": (f"{s.prefix}samples", ".0f"),
            **last,
            "mismatch kl": (f"{s.prefix}mismatch_kl", ".2g"),
        }
        tables.append(by_round(rows, columns, f"{s.of.role}: round" if s.prefix else "round"))
    return tables


def turns(findings: Findings) -> Table:
    """The last turns, a row each."""
    found = [(s, n, told) for r in findings.rounds for s in r.trainings for n, told in s.turns.items()]
    found = found[-MAX_TURNS:]
    keys = dict.fromkeys(key for s, _, _ in found for key in show_of(s.of.kind).turns)
    named = [key for key in keys if any(key in told for *_, told in found)]
    rows = [
        (s.of.round, s.name, n, *(f"{told[key]:.4g}" if key in told else None for key in named))
        for s, n, told in found
    ]
    return table(("round", "stage", "turn", *(key.replace("_", " ") for key in named)), rows)


def along_the_way(findings: Findings) -> Table:
    return along.rows(findings)


def other(findings: Findings) -> Table:
    """Counts of stages that no other table tells of."""
    stages = [s for r in findings.rounds for s in r.stages if s.of.kind.gives not in KNOWN]
    rows = [(s.of.round, s.name, name, f"{n:g}") for s in stages for name, n in s.figures.items()]
    return table("round | stage | count | value", rows)


def times(findings: Findings) -> Table:
    rows = [
        (s.of.round, s.name, f"{s.num_done}/{s.num_shards}", f"{s.longest_s:.1f}", f"{s.total_s:.1f}",
         _date(s.ended))
        for r in findings.rounds for s in r.stages if s.num_done
    ]  # fmt: skip
    return table("round | stage | shards | slowest shard, s | all shards, s | last published", rows)


def examples(findings: Findings) -> list[Table]:
    """Of the last rounds."""
    shown = [(r.round, r.votes.examples) for r in findings.rounds if r.votes and r.votes.examples]
    return [_examples(round, found) for round, found in shown[-MAX_EXAMPLE_ROUNDS:]]


def _examples(round: int, found: Sequence[Example]) -> Table:
    rows = [
        (visible(e.question), _majority(e), f"{e.agreement:.2f}", e.fate.replace("_", " "), _answers(e))
        for e in found
    ]
    return table((f"round {round}: question", "majority", "agreement", "fate", "answers"), rows)


def _majority(e: Example) -> str:
    answer = "none" if e.majority is None else visible(e.majority, 80)
    if e.gold is None:
        return answer
    word = {None: "", True: ": right", False: ": wrong"}[e.majority_correct]
    return f"{answer} (gold {visible(e.gold, 80)}{word})"


def _answers(e: Example) -> str:
    told = [f"{'no vote' if a is None else visible(a, 60)} ({n})" for a, n in e.answers[:MAX_CLASSES]]
    more = len(e.answers) - MAX_CLASSES
    return ", ".join(told) + (f", and {more} more" if more > 0 else "")


def overlaps(findings: Findings) -> Table:
    rows = [
        (
            o.name,
            o.benchmark,
            s.num_ours,
            s.exact_ours,
            s.runs_ours,
            s.num_theirs,
            s.exact_theirs,
            s.runs_theirs,
        )
        for o in findings.overlap.overlaps
        for s in (o.shared,)
    ]
    return table(
        "questions | benchmark | of ours | the same | 13 words | of theirs | the same | 13 words", rows
    )


def overlapping(findings: Findings) -> Table:
    found = findings.overlap.overlaps
    rows = [
        (o.name, o.benchmark, visible(ours), visible(theirs)) for o in found for ours, theirs in o.examples
    ]
    return table("questions | benchmark | ours | theirs", rows[:MAX_OVERLAPS])


def origin(findings: Findings) -> Table:
    run, stages = findings.run, [s for r in findings.rounds for s in r.stages]
    ended = [s.ended for s in stages if s.num_done]
    span = f"{_date(min(ended))} to {_date(max(ended))}" if ended else "nothing published yet"
    rows = [
        ("run", run.root.name), ("configuration digest", run.digest), ("code", run.code),
        ("first and last publication", span), ("shard time", f"{sum(s.total_s for s in stages):.0f} s"),
    ]  # fmt: skip
    return table("what | value", rows)


def config(findings: Findings) -> str:
    return yaml.safe_dump(findings.run.config.model_dump(mode="json"), sort_keys=False, width=120)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
