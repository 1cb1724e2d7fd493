"""train: from documents or groups of answers to weights. One shard, as many ranks as the job has."""

from serl.config.objectives import samples_nothing
from serl.config.training import Pretrain
from serl.engines.ranks import join_ranks
from serl.run.rundir import Manifest
from serl.run.signals import Preempted
from serl.safety.checkup import Unsafe
from serl.stages.train import chosen, frozen, imitate, turns
from serl.stages.work import Work


def run(work: Work) -> Manifest:
    """Publish `policy/`, a Hugging Face folder; every rank returns the manifest."""
    work.phase("join")
    ranks = join_ranks(work.device)
    work.phase("prepare")
    with ranks.together(Preempted, Unsafe):
        if not ranks.from_first(work.run.done(work.shard)):
            section = work.stage.section
            if isinstance(section, Pretrain):
                imitate.imitate(work, ranks)
            elif section.rollout is not None:
                turns.reinforce(work, ranks)
            elif samples_nothing(section.objective):
                chosen.learn(work, ranks)
            else:
                frozen.reinforce(work, ranks)
            ranks.barrier()
    manifest = work.run.manifest(work.shard)
    assert manifest is not None, f"{work.shard}: rank 0 returned without publishing"
    return manifest
