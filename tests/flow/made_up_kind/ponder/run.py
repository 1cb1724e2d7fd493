"""Parts are a function of (round, shard, part), so a run that was killed has the data of one that was not."""

import time

from serl.run.rundir import Manifest
from serl.stages.work import Work


def run(work: Work) -> Manifest:
    section, shard = work.stage.section, work.shard
    attempt = work.attempt({})
    parts = []
    for number in range(section.parts):
        part = attempt.part(number)
        if part is None:
            work.stop.safe_point(section.part_s)
            time.sleep(section.part_s)
            part = attempt.commit(number, f"{shard.round}/{shard.index}/{number}\n".encode())
        parts.append(part)
        work.progress(number + 1, section.parts, "thoughts")
    settled = float(shard.round >= section.settled_in)
    return attempt.publish_bytes(
        ".txt", b"".join(parts), len(parts), {"settled": settled, "thoughts": len(parts)}
    )
