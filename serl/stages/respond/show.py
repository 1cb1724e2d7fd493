"""respond: which answers cast no vote, and from the questions asked to those that are worth training on."""

from collections.abc import Mapping

from serl.stages.kind import Stage
from serl.stages.show import Counts, Passage, Show


class RespondShow(Show):
    colour, hatch = "#9fb3c4", "///"

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        answers = counts.get("completions")
        if not answers:
            return {}
        shares = {f"{n}_share": counts.get(n, 0) / answers for n in ("unparsed", "truncated", "undecided")}
        thoughts = counts.get("thoughts", 0)
        if thoughts:
            shares["thoughts_unfinished_share"] = counts["unfinished_thoughts"] / answers
            shares["thought_tokens_share"] = counts["thought_tokens"] / max(1, counts["tokens"])
        return shares | {"response_tokens": counts.get("tokens", 0) / answers}

    def passages(
        self, stage: Stage, counts: Counts, before: int | None, fates: Mapping[str, int]
    ) -> list[Passage]:
        answered, labelled = sum(fates.values()), stage.section.problems
        asked = labelled.per_round if labelled else answered if before is None else before
        first = [Passage(name="asked", count=asked, lost={})] if labelled else []
        unanswered = {"prompt_too_long": asked - answered} if asked > answered else {}
        lost = {name: n for name, n in fates.items() if name != "kept"}
        return [
            *first,
            Passage(name="answered", count=answered, lost=unanswered),
            Passage(name="trainable", count=fates.get("kept", 0), lost=lost),
        ]


SHOW = RespondShow()
