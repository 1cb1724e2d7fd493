"""average: the weights of two roles to those between them."""

from serl.engines.mean import mean_folder
from serl.run.rundir import Manifest
from serl.stages.average.spec import Average
from serl.stages.read import KEPT
from serl.stages.work import Work


def run(work: Work) -> Manifest:
    """Publish `policy/`, a Hugging Face folder, as a training does."""
    section = work.stage.section
    assert isinstance(section, Average), "the section of this kind"
    newest, digest = work.weights(section.of)
    if work.run.config.trained(work.stage, section.role) is None:
        before, digest_before, share = newest, digest, 1.0
    else:
        before, digest_before = work.weights(section.role)
        share = section.share
    attempt = work.attempt({section.of: digest, section.role: digest_before})
    folder = attempt.folder / f"policy.{work.attempt_id}"
    work.phase("average")
    sealed = mean_folder(newest, before, share, folder, without=(KEPT,))
    return attempt.publish_folder(folder, "policy", {"share": share}, sealed=sealed)
