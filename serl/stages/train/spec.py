"""train: from the groups of a round to its policy; in round 0, from the corpus to the base model."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from serl.config.base import Checkpoint, Scratch
from serl.config.engine import Engine
from serl.config.objectives import Vine, has_reference, learns_from
from serl.config.run import RunConfig
from serl.config.schema import Section
from serl.engines.hf_folder import block_layers, model_folder, validate_targets
from serl.rewards.outside import Outside
from serl.rewards.spec import PythonReward, judges, parts
from serl.stages.kind import BYTES_PER_SAMPLED_TOKEN, POLICY, Bounds, Kind, Stage, World
from serl.stages.train.fits import misfits
from serl.stages.train.section import Train, critic_of
from serl.text.problems import check_source, source_files

CRITIC = "critic"  # its folder, within that of the policy
POLICY_BYTES = 4  # per parameter: published in float32
POLICY_MORE = 2**20, 0.02  # tokenizer and configuration, and what a count from the architecture leaves out
POLICY_FILE_BYTES = 4 * 10**9  # transformers begins a new file before 5 GB
CHECKPOINT_BYTES = 12  # per parameter: float32 master and two Adam moments


class TrainKind(Kind):
    section = Train
    gives = "weights"
    engine = "deepspeed"
    signals = ("idle",)
    files = 16

    def base_section(self, base: Section) -> Section | None:
        return base.train if isinstance(base, Scratch) else None

    def role(self, section: Section) -> str | None:
        return section.role if isinstance(section, Train) else POLICY

    def milestones(self, section: Section) -> tuple[int, ...]:
        how = section.rollout if isinstance(section, Train) else None
        return how.milestones if how else ()

    def weights(self, section: Section) -> Mapping[str, str]:
        critic = critic_of(section)
        return super().weights(section) | ({critic.role: CRITIC} if critic else {})

    def uses(self, section: Train) -> tuple[str, ...]:
        if not isinstance(section, Train):
            return ()
        judging = judges(section.rollout.reward) if section.rollout else ()
        own = () if section.init in ("previous", "base") else (section.init,)
        critic = critic_of(section)
        begun = (critic.init,) if critic and critic.init != POLICY else ()
        return (*own, *begun, *judging)

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        """What it learns from, the models that it uses, and the weights that it starts from, where nothing
        that it reads waits for them.
        """
        data = self.data(stage, config)
        if not isinstance(stage.section, Train):
            return (data,) if data else ()
        waited = data is not None and data.gives == "groups"
        roles = (() if waited else (stage.section.role,)) + self.uses(stage.section)
        found = (data, *(config.trained(stage, role) for role in roles))
        return tuple({s.job: s for s in found if s}.values())

    def data(self, stage: Stage, config: RunConfig) -> Stage | None:
        """The stage that it learns from: documents, what its objective needs, or, where it samples for
        itself, just questions.
        """
        section = stage.section
        if not isinstance(section, Train):
            return config.source(stage, "documents")
        found = config.source(stage, learns_from(section.objective), section.data)
        if found or section.rollout is None:
            return found
        return config.source(stage, "problems", section.data)

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        return misfits(stage, config, self.data(stage, config))

    def samples(self, section: Section) -> bool:
        return isinstance(section, Train) and section.rollout is not None

    def held(self, section: Section, config: RunConfig) -> Engine:
        how = section.rollout if isinstance(section, Train) else None
        return how.engine if how and how.engine else config.engine

    def check(self, stage: Stage, config: RunConfig, data: Path) -> None:
        how = stage.section.rollout if isinstance(stage.section, Train) else None
        if how and how.problems:
            check_source(how.problems.source, data, {}, config.answers)
        if how and how.proposer:
            wanted = {f"{stage.name}.rollout.proposer.shots": how.proposer.shots}
            check_source(config.seeds, data, wanted, config.answers)
        lora = stage.section.lora
        path = config.base.path if isinstance(config.base, Checkpoint) else None
        if lora and path and (known := block_layers(model_folder(path, data))):
            validate_targets(lora.targets or (), known)
        for part in parts(how.reward) if how else ():
            if isinstance(part, PythonReward):
                Outside(part).check()

    def watched(self, stage: Stage, config: RunConfig) -> bool:
        return stage.section.rollout is not None or super().watched(stage, config)

    def num_questions(self, stage: Stage, config: RunConfig) -> int:
        """That a training which samples for itself has to ask, at most."""
        how, data = stage.section.rollout, self.data(stage, config)
        if how.proposer:
            return how.prompts * how.turns
        if data is None:
            return how.problems.per_round
        return (
            data.section.max_instructions
            if data.gives == "problems"
            else data.kind.num_questions(data, config)
        )

    def num_turns(self, stage: Stage, config: RunConfig) -> int:
        how = stage.section.rollout
        return how.turns or -(-self.num_questions(stage, config) // how.prompts)

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        more, share = POLICY_MORE
        num_weights = world.num_parameters * (1 + bool(critic_of(stage.section)))
        lasting = int(more + (1 + share) * num_weights * POLICY_BYTES)
        files = self.files + lasting // POLICY_FILE_BYTES
        if stage.milestone:
            return Bounds(files=files, bytes=lasting)
        tokens = branched = 0
        if isinstance(stage.section, Train) and (how := stage.section.rollout):
            turns, longest = self.num_turns(stage, config), how.sampling.max_tokens
            tokens = turns * how.most_asked * how.answers * longest
            tokens += turns * how.prompts * how.proposer.max_tokens if how.proposer else 0
            if isinstance(vine := stage.section.objective, Vine):
                branched = turns * how.prompts * how.samples * vine.most_tokens(longest)
        sampled = tokens * BYTES_PER_SAMPLED_TOKEN
        temporary = num_weights * CHECKPOINT_BYTES * (stage.section.keep_checkpoints + 1)
        return Bounds(
            tokens=tokens + branched,
            files=files + bool(tokens),
            bytes=lasting + sampled,
            temporary_bytes=temporary + sampled,
        )

    def kept_bytes(
        self, stage: Stage, config: RunConfig, world: World, ranks: int, *, gpu: bool
    ) -> Mapping[str, int]:
        section = stage.section
        own = int(world.num_parameters * section.kept_bytes(ranks, gpu=gpu))
        if not isinstance(section, Train):
            return {"policy": own}
        frozen = world.num_parameters * (2 if gpu else 4) // (ranks if section.zero == 3 else 1)
        critic = {"critic": own} if critic_of(section) else {}
        return {"policy": own} | critic | ({"reference": frozen} if has_reference(section.objective) else {})

    def outside(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, Path]:
        how = stage.section.rollout if isinstance(stage.section, Train) else None
        if how and how.proposer:
            return source_files(config.seeds, data)
        return source_files(how.problems.source, data) if how and how.problems else {}

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        base = config.base
        seed = base.seed if isinstance(base, Scratch) and stage.round == 0 else None
        asked = stage.section.rollout if isinstance(stage.section, Train) else None
        how = {"prompts": config.prompts, "answers": config.answers.model_dump()} if asked else {}
        if asked and asked.proposer:
            how |= {"seeds": config.seeds, "quality": config.quality}
        return how | {"seed": config.seed if seed is None else seed, "base": base, "section": stage.section}


KIND = TrainKind()
