"""Configurations of runs that were launched by an earlier version: one list of stages for all rounds, before
runs had phases; `importance_cap`, before the correction had a section.
"""

ROUND_KEYS = ("rounds", "stages")
PHASE = "self_play"
RULES = "quality"
KEPT_NULLS = ("seeds",)


def is_old(tree: dict) -> bool:
    return "phases" not in tree and "stages" in tree


def modern(tree: dict) -> dict:
    """The same as this version writes it."""
    tree = _in_a_phase(tree) if is_old(tree) else tree
    phases = {
        name: {key: _corrected(value) for key, value in phase.items()}
        for name, phase in tree["phases"].items()
    }
    return tree | {"phases": phases}


def _in_a_phase(tree: dict) -> dict:
    stages = tree["stages"]
    sections = {name: value for name, value in tree.items() if name in stages}
    gone = {name for name, value in tree.items() if value is None and name not in KEPT_NULLS}
    rest = {k: v for k, v in tree.items() if k not in {*ROUND_KEYS, *sections, *gone}}
    for name, section in sections.items():  # the rules of form stood in a section of the stages
        sections[name] = {k: v for k, v in section.items() if k != RULES}
        rest |= {RULES: section[RULES]} if RULES in section else {}
    return rest | {"phases": {PHASE: {"rounds": tree["rounds"], "stages": stages, **sections}}}


def _corrected(value: object) -> object:
    """A section whose correction was one number, or none."""
    if not (isinstance(value, dict) and "importance_cap" in value):
        return value
    cap = value["importance_cap"]
    rest = {k: v for k, v in value.items() if k != "importance_cap"}
    return rest | {"correction": {"mode": "none"} if cap is None else {"high": cap}}
