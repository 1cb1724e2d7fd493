"""A world with noise that nobody has measured: it runs a plan and leaves the manifests and events that the real stages would have left.

Its scheduler, its preemptions and its noise are its own; the forecast's simulator is tested against it.
"""

import dataclasses
import json
import math
import random
from collections import Counter
from pathlib import Path

from jobs.plan.chain import Job, plan
from serl.config.run import Phase, RunConfig
from serl.run.rundir import DataFile, Manifest, Run, Shard

START_S = {"propose": 25.0, "respond": 25.0, "score": 25.0, "train": 18.0, "curate": 1.0}
FIXED_S, TOKEN_S, STEP_TOKEN_S, LOGP_TOKEN_S, CANDIDATE_S = 1.5, 0.004, 0.0012, 0.0002, 0.002
SAVE_S, END_S, WAIT_S, BOOT_S = 3.0, 2.0, 4.0, 1.5
NOVEL, ACCEPTED = 0.7, 3.0


def kept_share(round: int) -> float:
    return 0.75 * 0.93**round


def length(stage: str, round: int) -> float:
    return {"propose": 45.0, "respond": 60.0, "score": 50.0}[stage] * 0.97**round


@dataclasses.dataclass
class MadeUpWorld:
    """`slots` at once; every slot is taken away from its task `preempt_per_hour` times an hour, without a warning."""

    seed: int
    slots: int = 4
    preempt_per_hour: float = 0.0
    noise: float = 0.04
    clock: float = 1_700_000_000.0
    seen: Counter = dataclasses.field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"world {self.seed}")
        self.mood = self._near(1.0, 0.02)  # a day when everything is a little slower

    def _near(self, value: float, sigma: float | None = None) -> float:
        return value * math.exp(self.rng.gauss(0.0, self.noise if sigma is None else sigma))

    def play(self, root: Path, config: RunConfig, ranks: int) -> float:
        """Run it all; seconds from first to last."""
        run = Run.create(root, config, "test")
        begun, free, ends = self.clock, [self.clock] * self.slots, {}
        for job in plan(
            config, lambda shard: False
        ):  # the plan's order, greedily: what the real chain does, but for fillers
            ready = max((ends[n] for n in job.after if n in ends), default=begun)
            pace, starting = self._near(1.0), self._near(1.0)
            width = ranks if job.stage == "train" else 1
            last = []
            for shard in job.missing:
                free.sort()
                at = max(ready, free[width - 1])
                end = self._shard(run, job, shard, at, pace * self.mood, starting, ranks)
                free[:width] = [end] * width
                last.append(end)
            ends[job.name] = max(last)
        self.clock = max(ends.values()) + 1000.0
        return max(ends.values()) - begun

    def _shard(
        self, run: Run, job: Job, shard: Shard, at: float, pace: float, starting: float, ranks: int
    ) -> float:
        """Attempts until it is done; returns when that was."""
        own, kept, attempt = pace * self._near(1.0), 0, 0
        units, yields = self._work(run.config.phases.self_play, job, shard, ranks)
        width = ranks if job.stage == "train" else 1
        while True:
            attempt += 1
            lines, now = [], at + self._near(WAIT_S)
            rate = self.preempt_per_hour / 3600 * width
            dies = now + self.rng.expovariate(rate) if rate else math.inf
            now += BOOT_S
            first = {
                "attempt": f"a-{attempt}",
                "boot_s": BOOT_S,
                "ranks": width,
                "nodes": width,
                "gpus": 0,
                "device": "cpu",
            }
            lines.append((now, "start", first))
            start_s = self._near(START_S[job.stage] * starting)
            now += start_s
            if job.stage in ("propose", "respond", "score"):
                lines.append((now, "phase", {"name": f"{job.stage} load", "seconds": 0.9 * start_s}))
            if job.stage == "train":
                now += units[0][1] * len(units) * LOGP_TOKEN_S * ranks
                lines.append(
                    (
                        now,
                        "phase",
                        {
                            "name": "log-probabilities",
                            "seconds": units[0][1] * len(units) * LOGP_TOKEN_S * ranks,
                        },
                    )
                )
            for n, (seconds, tokens, items) in enumerate(units[kept:], kept):
                seconds *= own * self.rng.uniform(0.97, 1.03)
                now += seconds
                if job.stage == "train":
                    lines.append((now, "step", {"step": n + 1, "tokens_per_s": tokens * ranks / seconds}))
                    if (n + 1) % job.of.section.checkpoint_every == 0 and n + 1 < len(units):
                        now += SAVE_S
                        kept = n + 1 if now <= dies else kept
                elif job.stage == "curate":
                    continue
                else:
                    loading_s = 0.9 * start_s if n == kept else 0.0
                    lines.append(
                        (
                            now,
                            "phase",
                            {
                                "name": f"{job.stage} part {n}",
                                "seconds": seconds + loading_s,
                                "tokens": tokens,
                                "items": items,
                            },
                        )
                    )
            now += END_S if job.stage != "curate" else 0.0
            lines.append((now, "done", {"seconds": 1.0}))
            if now <= dies:
                self._write(run, shard, attempt, lines)
                self._publish(run, shard, attempt, now, yields)
                return now
            self.seen["preemptions"] += 1
            if job.stage in ("propose", "respond", "score"):
                kept = max(
                    [
                        kept,
                        *(
                            int(more["name"].split()[-1]) + 1
                            for t, kind, more in lines
                            if t <= dies and "part" in more.get("name", "")
                        ),
                    ]
                )
            self._write(
                run,
                shard,
                attempt,
                [lines[0], *(line for line in lines[1:] if line[0] <= dies), (dies, "beat", {})],
            )
            at = dies

    def _work(
        self, c: Phase, job: Job, shard: Shard, ranks: int
    ) -> tuple[list[tuple[float, int, int]], dict[str, float]]:
        """(seconds, tokens, items) of each part or step at the usual pace, and the counts of the manifest."""
        if job.stage in ("propose", "respond", "score"):
            section = job.of.section
            total = {
                "propose": c.propose.prompts,
                "respond": self._kept(c) + c.respond.anchors,
                "score": c.score.max_problems,
            }[job.stage]
            mine = total // shard.count + (shard.index < total % shard.count)
            samples = {"propose": 1, "respond": c.respond.samples, "score": 1 + c.score.samples}[job.stage]
            sizes = [min(section.part_prompts, mine - i) for i in range(0, mine, section.part_prompts)]
            tokens = [int(self._near(n * samples * length(job.stage, job.round), 0.02)) for n in sizes]
            return [(FIXED_S + TOKEN_S * t, t, n) for n, t in zip(sizes, tokens)], {
                "accepted": round(ACCEPTED * mine)
            }
        if job.stage == "curate":
            candidates = ACCEPTED * c.propose.prompts
            novel = round(NOVEL * candidates)
            return [(CANDIDATE_S * candidates, 0, 0)], {
                "candidates": candidates,
                "novel": novel,
                "kept": self._kept(c),
            }
        groups = self._kept(c)
        kept = round(groups * kept_share(job.round))
        steps = math.ceil(kept * c.respond.samples / c.train.batch_samples)
        tokens = round(kept * c.respond.samples / steps * length("respond", job.round) / ranks)
        return [(STEP_TOKEN_S * tokens, tokens, 0)] * steps, {
            "samples": kept * c.respond.samples,
            "groups_kept": kept,
            "groups_tie": groups - kept,
            "steps": steps,
        }

    def _kept(self, c: Phase) -> int:
        return min(c.curate.max_instructions, round(NOVEL * ACCEPTED * c.propose.prompts))

    def _write(self, run: Run, shard: Shard, attempt: int, lines: list) -> None:
        path = run.root / "events" / f"{shard.stage}-r{shard.round:03d}-{shard.index:05d}-a-{attempt}-0.jsonl"
        always = {"stage": shard.stage, "round": shard.round, "shard": shard.index}
        path.write_text(
            "".join(json.dumps({"time": t, "kind": kind} | always | more) + "\n" for t, kind, more in lines)
        )

    def _publish(self, run: Run, shard: Shard, attempt: int, now: float, counts: dict[str, float]) -> None:
        folder = run.stage_dir(shard.round, shard.stage)
        folder.mkdir(parents=True, exist_ok=True)
        file = DataFile(name=f"{shard.name}/a-{attempt}.jsonl", bytes=1000, sha256="", rows=0)
        manifest = Manifest(
            shard=shard,
            files=(file,),
            inputs={},
            config=run.digest,
            code="test",
            attempt=f"a-{attempt}",
            seconds=1.0,
            created=now,
            counts=counts,
        )
        (folder / f"{shard.name}.json").write_text(json.dumps(dataclasses.asdict(manifest)))
