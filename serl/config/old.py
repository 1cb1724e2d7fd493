"""Configurations of runs that were launched before runs had phases: one list of stages for all rounds."""

ROUND_KEYS = ("rounds", "stages")
PHASE = "self_play"
RULES = "quality"


def is_old(tree: dict) -> bool:
    return "phases" not in tree and "stages" in tree


def modern(tree: dict) -> dict:
    """The same as one phase; what has phases already is returned as it is."""
    if not is_old(tree):
        return tree
    stages = tree["stages"]
    sections = {name: value for name, value in tree.items() if name in stages}
    gone = {name for name, value in tree.items() if value is None and name not in KEPT_NULLS}
    rest = {k: v for k, v in tree.items() if k not in {*ROUND_KEYS, *sections, *gone}}
    for name, section in sections.items():  # the rules of form stood in a section of the stages
        sections[name] = {k: v for k, v in section.items() if k != RULES}
        rest |= {RULES: section[RULES]} if RULES in section else {}
    return rest | {"phases": {PHASE: {"rounds": tree["rounds"], "stages": stages, **sections}}}


KEPT_NULLS = ("seeds",)
