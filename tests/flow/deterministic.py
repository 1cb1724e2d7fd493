"""A run whose engine is a pure function, killed at chosen file-system calls and resumed: the driver of `test_kill_points`.

The stages, the run directory and the plan are the real ones. Only two things are replaced: vLLM by `Engine`, whose completions depend on
(prompt ids, seed) alone, and the train stage by one that publishes a folder derived from its inputs. Run as a program, it forks one child
per attempt, so that an attempt costs milliseconds, and prints what it found as JSON.
"""

import argparse
import builtins
import gc
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import types
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.plan.chain import plan
from serl.config.engine import Engine as EngineConfig
from serl.config.engine import Sampling
from serl.engines import generator
from serl.records import Completion, to_jsonl
from serl.run.events import Events, read_events
from serl.run.rundir import Manifest, Run, Shard
from serl.run.signals import Stop
from serl.stages import read
from serl.stages.curate import run as curate  # noqa: F401  (loaded once, before the forks)
from serl.stages.propose import run as propose  # noqa: F401
from serl.stages.respond import run as respond  # noqa: F401
from serl.stages.work import Work, execute, policy_dir

OPENING = "More questions:"
KILLS_IN_A_ROW = (1, 1, 2, 3)
CONFIG = {
    "name": "killed",
    "seed": 7,
    "rounds": 2,
    "stages": ["propose", "curate", "respond", "train"],
    "base": {"kind": "checkpoint", "path": "base"},
    "seeds": {"kind": "jsonl", "path": "seeds.jsonl", "gold": "answer"},
    "prompts": {
        "propose_system": "-",
        "propose_opening": OPENING,
        "respond_user": "{question}",
        "respond_plain": "Q: {question}\nA:",
    },
    "engine": {"max_model_len": 2000},
    "propose": {
        "shards": 2,
        "prompts": 8,
        "seed_shots": 3,
        "kept_shots": 1,
        "part_prompts": 2,
        "sampling": {"temperature": 1.0, "max_tokens": 400},
    },
    "curate": {"max_instructions": 10},
    "respond": {
        "shards": 2,
        "samples": 4,
        "part_prompts": 4,
        "anchors": 2,
        "sampling": {"temperature": 1.0, "max_tokens": 60},
    },
    "train": {"objective": {"kind": "reinforce_pp"}, "optimizer": {"lr": 1e-4}},
}
TURNS = CONFIG | {
    "name": "turns",
    "carry": "phase",
    "safety": {
        rule: {"action": "ignore"} for rule in ("mismatch", "accuracy", "conviction", "silence", "monotony")
    },
    "train": CONFIG["train"]
    | {
        "objective": {"kind": "reinforce_pp", "kl": 0.0},
        "optimizer": {"lr": 1e-4, "schedule": "constant"},
        "agreement": [0.0, 1.0],
        "batch_samples": 6,
        "checkpoint_every": 2,
        "rollout": {
            "prompts": 3,
            "samples": 4,
            "sampling": {"temperature": 1.0, "max_tokens": 60},
            "turns": 3,
            "publish_every": 1,
        },
    },
    "stages": [*CONFIG["stages"], "score"],
    "score": {"shards": 1, "benchmarks": ["arithmetic"], "max_tokens": 60},
}
NOUNS = [
    "apples",
    "bottles",
    "candles",
    "drums",
    "eggs",
    "feathers",
    "gloves",
    "hats",
    "jars",
    "kites",
    "lamps",
    "melons",
    "nails",
    "oranges",
    "pencils",
    "ropes",
    "shells",
    "tiles",
]


TRIED = CONFIG


class CharacterTokenizer:
    """One token per character."""

    chat_template = None
    bos_token_id = eos_token_id = None

    def __call__(self, text: str) -> dict:
        return {"input_ids": [ord(c) for c in text]}


class Engine:
    """Stands in for `serl.engines.generator.Generator`; tells `on_call` the seeds of each batch."""

    on_call: Callable[[str], None] = staticmethod(lambda key: None)

    def __init__(self, policy: Path, engine: EngineConfig, *, device: str):
        self.max_model_len = engine.max_model_len
        self.tokenizer = CharacterTokenizer()
        self.sampled = 0

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, num_samples: int, seeds: Sequence[int]
    ) -> list[tuple[Completion, ...]]:
        Engine.on_call(hashlib.sha256(repr(list(seeds)).encode()).hexdigest())
        outputs = [
            tuple(
                _complete("".join(map(chr, p)), random.Random(f"{s}/{i}/{bytes(p)!r}"))
                for i in range(num_samples)
            )
            for p, s in zip(prompts, seeds)
        ]
        self.sampled += sum(len(c.token_ids) for several in outputs for c in several)
        return outputs


def _complete(prompt: str, rng: random.Random) -> Completion:
    text = _questions(prompt, rng) if prompt.startswith(OPENING) else _answer(prompt, rng)
    ids = tuple(map(ord, text))
    reason = "length" if rng.random() < 0.1 else "stop"
    return Completion(
        token_ids=ids, logprobs=tuple(round(-rng.random(), 4) for _ in ids), text=text, finish_reason=reason
    )


def _questions(prompt: str, rng: random.Random) -> str:
    first = int(prompt.rpartition("\n")[2].rstrip("."))
    items = [
        f"Anna has {rng.randint(2, 40)} {rng.choice(NOUNS)} and buys {rng.randint(2, 9)} {rng.choice(NOUNS)}. How many {rng.choice(NOUNS)} now?"
        for _ in "abc"
    ]
    return " " + items[0] + "".join(f"\n{first + i}. {item}" for i, item in enumerate(items[1:], 1))


def _answer(prompt: str, rng: random.Random) -> str:
    confidence = random.Random(prompt).choice([0.1, 0.4, 0.6, 0.8, 1.0])
    if rng.random() < 0.05:
        return "I do not know"
    return f"So \\boxed{{{len(prompt) if rng.random() < confidence else rng.randint(0, 5)}}}"


def train(work: Work) -> Manifest:
    """Publishes a folder that its inputs determine; the real trainer's kills are tested with the real trainer."""
    if done := work.run.manifest(work.shard):
        return done
    round = work.shard.round
    _, digest = policy_dir(work.run, round - 1)
    inputs = {f"respond/{m.shard.index}": m.digest for m in work.run.complete(round, "respond")}
    attempt = work.attempt({"policy": digest} | inputs)
    training, judged = work.run.config.training(round), work.run.config.judged(round)
    kept, fates = read.trainable(training, judged, read.groups(work.run, judged, completions=True))
    built = attempt.folder / f"policy.{work.attempt_id}"
    shutil.rmtree(built, ignore_errors=True)
    (built / "extra").mkdir(parents=True)
    for name, content in (
        ("config.json", "{}"),
        ("weights.bin", digest + repr([g.rewards for g in kept])),
        ("extra/vocabulary", "abc"),
    ):
        (built / name).write_text(content)
    read.write_kept(built, kept)
    return attempt.publish_folder(built, "policy", dict(fates))


@dataclass(slots=True)
class Injector:
    """Counts the calls that change the run directory, and ends the process with SIGKILL around the one that was chosen.

    `when` is "before" or "after" the call, or "torn": before an fsync, after losing half of what was written and not yet synced.
    The fsync itself is left out, since a killed process, unlike a failed machine, loses no written page.
    """

    kill_at: int | None
    when: str = "before"
    num_calls: int = 0
    linked: list[str] = field(default_factory=list)

    def install(self, root: Path) -> None:
        for name in ("replace", "rename", "link", "unlink"):
            setattr(os, name, self._around(getattr(os, name), name))
        os.fsync = self._fsync
        builtins.open = io.open = self._opener(io.open, str(root))

    def _around(self, call: Callable, name: str) -> Callable:
        def counted(*args, **kwargs):
            self._point("before")
            result = call(*args, **kwargs)
            if name == "link":
                self.linked.append(str(args[1]))
            self._point("after")
            self.num_calls += 1
            return result

        return counted

    def _fsync(self, fd: int) -> None:
        self._point("before")
        if (
            self.kill_at == self.num_calls
            and self.when == "torn"
            and (size := os.fstat(fd).st_size)
            and not os.path.isdir(f"/proc/self/fd/{fd}")
        ):
            os.truncate(f"/proc/self/fd/{fd}", size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self._point("after")
        self.num_calls += 1

    def _opener(self, call: Callable, root: str) -> Callable:
        def opened(file, mode="r", *args, **kwargs):
            if "r" in mode or not str(file).startswith(root):
                return call(file, mode, *args, **kwargs)
            self._point("before")
            result = call(file, mode, *args, **kwargs)
            self._point("after")
            self.num_calls += 1
            return result

        return opened

    def _point(self, when: str) -> None:
        wanted = "after" if self.when == "torn" else self.when
        if self.kill_at == self.num_calls and wanted == when:
            os.kill(os.getpid(), signal.SIGKILL)


def finish(root: Path, attempt: int) -> None:
    """Everything that is missing, in the order of the plan, in this process; what launch and resume do without processes around the stages."""
    from tests.conftest import run_config  # not there in a run's own copy of the code, which never comes here

    config = run_config(TRIED)
    run = Run.open(root) if (root / "run.json").is_file() else Run.create(root, config, "test")
    for job in plan(run.config, run.done):
        for shard in job.missing if not job.along else ():
            name = f"{shard.stage}-r{shard.round:03d}-{shard.index:05d}-{attempt}-0"
            execute(
                Work(
                    run=run,
                    shard=shard,
                    attempt_id=str(attempt),
                    device="cpu",
                    cores=1,
                    events=Events(root / "events", name),
                    stop=Stop(),
                )
            )


def in_child(root: Path, attempt: int, injector: Injector) -> tuple[bool, list[str], Injector]:
    """One attempt at the whole run: whether it was killed, the engine's calls, and the injector as it ended (of children that were not killed)."""
    log = root.parent.parent / f"attempt-{attempt}.json"
    calls = root.parent.parent / f"calls-{attempt}.txt"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fd = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            Engine.on_call = staticmethod(lambda key: os.write(fd, (key + "\n").encode()))
            real_open = io.open
            injector.install(root.parent)
            finish(root, attempt)
            with real_open(log, "w") as f:
                json.dump([injector.num_calls, injector.linked], f)
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    if not killed:
        assert os.WEXITSTATUS(status) == 0, f"attempt {attempt} failed; its traceback is above"
        injector.num_calls, injector.linked = json.loads(log.read_text())
    return killed, calls.read_text().split() if calls.exists() else [], injector


def new_root(folder: Path) -> Path:
    (folder / "models/base").mkdir(parents=True)
    (folder / "models/base/config.json").write_text("{}")
    (folder / "seeds").mkdir()
    seeds = [
        {"question": f"Ben has {a} cows and sells {b}. How many cows are left?", "answer": a - b}
        for a in range(20, 26)
        for b in (3, 5)
    ]
    (folder / "seeds/seeds.jsonl").write_bytes(to_jsonl(seeds))
    (folder / "benchmarks").mkdir()
    problems = [{"id": str(i), "question": f"What is {i} plus {i}?", "answer": 2 * i, "kind": "sum"} for i in (1, 2)]
    (folder / "benchmarks/arithmetic.jsonl").write_bytes(to_jsonl(problems))
    (folder / "runs").mkdir()
    return folder / "runs/killed"


def all_shards(run: Run) -> list[Shard]:
    return [s for job in plan(run.config, lambda shard: False) for s in job.missing]


def content(run: Run) -> dict[str, list[str]]:
    """The digests of every shard's files, checked against the files themselves."""
    found = {}
    for shard in all_shards(run):
        manifest = run.manifest(shard)
        assert manifest is not None, f"{shard} has no manifest"
        for file in manifest.files:
            data = run.path(manifest, file).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256), (
                f"{file.name} is not what its manifest says"
            )
        found[str(shard)] = [f.sha256 for f in manifest.files]
    return found


def committed(root: Path, parts: dict[str, str]) -> set[str]:
    """The engine calls (of `parts`, by the path of the part that came of them) whose results are on disk."""
    return {
        key
        for key, part in parts.items()
        if (root / part).exists() or (root / Path(part).parent.with_suffix(".json")).exists()
    }


def leftovers(run: Run) -> list[tuple[Shard, str]]:
    """What lies beside the published data of done shards."""
    found = []
    for shard in all_shards(run):
        manifest = run.manifest(shard)
        folder = run.stage_dir(shard.round, shard.stage)
        named = {f.name for f in manifest.files}
        beside = [p for p in (folder / shard.name).rglob("*") if p.is_file()] + [
            p for p in folder.iterdir() if p.is_file() and p.name != f"{shard.name}.json"
        ]
        found += [
            (shard, p.name)
            for p in beside
            if str(p.relative_to(folder)) not in named
            and not p.name.startswith(("shard_", "checkup.json", ".checkup.json"))
        ]
    return found


def reference(folder: Path) -> tuple[dict[str, list[str]], dict[str, str], int]:
    """The undisturbed run: its content, which engine call made which part, and how many kill points it has."""
    root = new_root(folder)
    _, calls, injector = in_child(root, 0, Injector(kill_at=None))
    parts = [str(Path(p).relative_to(root)) for p in injector.linked if "/part_" in p]
    assert len(parts) == len(calls) == len(set(calls)), "every part comes of one engine call"
    assert not leftovers(Run.open(root)), "an undisturbed run leaves no parts or temporary files"
    return content(Run.open(root)), dict(zip(calls, parts, strict=True)), injector.num_calls


def disturbed(
    folder: Path, kills: Sequence[tuple[int, str]], expected: dict[str, list[str]], parts: dict[str, str]
) -> Counter[str]:
    """Kill an attempt at each of `kills` in turn, resume to the end, and check everything."""
    root = new_root(folder)
    seen: Counter[str] = Counter()
    dead: set[str] = set()
    for attempt, (kill_at, when) in enumerate([*kills, (None, "before")], 1):
        before = committed(root, parts)
        killed, calls, _ = in_child(root, attempt, Injector(kill_at=kill_at, when=when))
        again = before & set(calls)
        assert not again, f"parts computed twice: {[parts[c] for c in again]}"
        seen.update(killed=killed, attempts=1, calls=len(calls), reused=len(before))
        dead |= {str(attempt)} if killed else set()
    run = Run.open(root)
    assert content(run) == expected, "the resumed run's data differs from the undisturbed run's"
    for shard, name in leftovers(run):
        assert run.manifest(shard).attempt in dead, (
            f"{shard}: {name} was left behind by an attempt that was not killed"
        )
        seen["leftovers"] += 1
    assert all("kind" in event for event in read_events(root / "events"))
    return seen


def schedule(num_runs: int, num_calls: int, seed: int) -> list[list[tuple[int, str]]]:
    """For each run its kills: the first anywhere in an undisturbed run, later ones within what may be left."""
    rng = random.Random(seed)
    whens = ["before", "after", "torn"]
    firsts = rng.sample([(k, w) for k in range(num_calls) for w in whens], num_runs)
    return [
        [
            first,
            *(
                (rng.randrange(num_calls // 2), rng.choice(whens))
                for _ in range(rng.choice(KILLS_IN_A_ROW) - 1)
            ),
        ]
        for first in firsts
    ]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("folder", type=Path)
    p.add_argument("--runs", type=int, default=240)
    p.add_argument("--worker", type=int, default=0)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--turns", action="store_true", help="a training that samples for itself")
    args = p.parse_args()
    generator.Generator = Engine
    if args.turns:
        global TRIED
        TRIED = TURNS
        sys.modules["deterministic"] = sys.modules["__main__"]
        import deterministic_turns

        deterministic_turns.install()
    else:
        sys.modules["serl.stages.train.run"] = types.ModuleType("serl.stages.train.run")
        sys.modules["serl.stages.train.run"].run = train
    gc.freeze()  # children leave what they inherit alone
    finish(
        new_root(args.folder / "warm-up"), 0
    )  # here, so that no child pays for what is loaded at first use
    expected, parts, num_calls = reference(args.folder / "reference")
    seen: Counter[str] = Counter(points=3 * num_calls, parts=len(parts))
    for number, kills in enumerate(schedule(args.runs, num_calls, args.seed)):
        if number % args.workers == args.worker:
            folder = args.folder / f"run-{number}"
            try:
                seen.update(disturbed(folder, kills, expected, parts), runs=1)
            except AssertionError as e:
                raise AssertionError(f"run {number}, kills {kills}: {e}") from e
            shutil.rmtree(folder)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
