"""Configurations of runs that were launched by an earlier version: one list of stages for all rounds, before
runs had phases; `importance_cap`, before the correction had a section; rules of form in a stage's section.
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
    return _with_rules_apart(tree | {"phases": phases})


def _in_a_phase(tree: dict) -> dict:
    stages = tree["stages"]
    sections = {name: value for name, value in tree.items() if name in stages}
    gone = {name for name, value in tree.items() if value is None and name not in KEPT_NULLS}
    rest = {k: v for k, v in tree.items() if k not in {*ROUND_KEYS, *sections, *gone}}
    return rest | {"phases": {PHASE: {"rounds": tree["rounds"], "stages": stages, **sections}}}


def _with_rules_apart(tree: dict) -> dict:
    """The rules of form stood in a section of the stages."""
    if RULES in tree:
        return tree
    found, phases = {}, {}
    for name, phase in tree["phases"].items():
        phases[name] = dict(phase)
        for key, section in phase.items():
            if isinstance(section, dict) and RULES in section:
                found[RULES] = section[RULES]
                phases[name][key] = {k: v for k, v in section.items() if k != RULES}
    return tree | found | {"phases": phases}


def _corrected(value: object) -> object:
    """A section whose correction was one number, or none."""
    if not (isinstance(value, dict) and "importance_cap" in value):
        return value
    cap = value["importance_cap"]
    rest = {k: v for k, v in value.items() if k != "importance_cap"}
    return rest | {"correction": {"mode": "none"} if cap is None else {"high": cap}}
