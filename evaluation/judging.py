"""How a domain's answers are read, sorted into classes and judged, for whoever asks questions: one `Judge`,
whatever the kind of answers.

A domain's own forms become texts (a choice its letter, a number its value in the domain's unit); what is
compared by meaning goes to `Verifier`, under its limits.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Self, assert_never

from evaluation import choices, quantity, words
from evaluation.answers import Reading, letter_of, read
from evaluation.domain import Answers, ChoiceAnswers, MathAnswers, NumberAnswers, PythonAnswers, TextAnswers
from evaluation.forms import plain
from evaluation.letters import read_letter
from evaluation.normal import MAX_ANSWER_CHARS, normalise
from evaluation.outside import SHOWN_CHARS, Function, FunctionFailed, TooLate
from evaluation.verifier import Classes, Verifier
from evaluation.worker import Verdict

MAX_READ = 500
"""So many golds are read before a run is made; the others look like them."""


class JudgeFailed(ValueError):
    """A user's function did not read an answer; the message names it, the question and what came."""


class Judge:
    """Reads and compares the answers of one domain; a context manager, because it holds processes."""

    def __init__(self, answers: Answers, *, workers: int = 1, limit_s: float = 5.0):
        self.answers = answers
        self._verifier = Verifier(workers=workers, limit_s=limit_s)
        self._function = (
            Function(answers.path, answers.text, limit_s=answers.limit_s, memory_mb=answers.memory_mb)
            if isinstance(answers, PythonAnswers)
            else None
        )

    def read(self, question: str, response: str, *, finished: bool = True) -> Reading | None:
        """The answer that a response gives, in one line, as it is compared; None where it gives none."""
        how = self.answers
        if isinstance(how, ChoiceAnswers):
            return self._read_choice(question, response, finished)
        if self._function is not None:
            text = self._read_outside(question, response)
            found = Reading(text=text, level="announced") if text else None
        else:
            found = read(response, levels=how.levels, finished=finished, thinking=how.thinking)
        return found and replace(found, text=" ".join(found.text.split("\n")))

    def gold(self, question: str, gold: str) -> str:
        """A gold answer of the question in the form in which answers are compared."""
        golds = gold.split("\n")
        match self.answers:
            case ChoiceAnswers():
                options = choices.parted(question)[1]
                return "\n".join(
                    letter_of(g, len(options)) or choices.letter_for(g, options) or g for g in golds
                )
            case PythonAnswers():
                return "\n".join(filter(None, (self._read_outside(question, g) for g in golds)))
            case _:
                return gold

    def first_fault(self, asked: Sequence[tuple[str, str | None]]) -> tuple[int, str] | None:
        """Which of many questions is the first with a fault, and its fault; a gold of mathematics is read,
        whatever it means.
        """
        for i, (question, gold) in enumerate(asked):
            if fault := self.fault(question, gold):
                return i, fault
        if isinstance(self.answers, MathAnswers):
            known = [(i, gold) for i, (_, gold) in enumerate(asked) if gold and not plain(normalise(gold))]
            kinds = self._verifier.kinds([gold for _, gold in known[:MAX_READ]])
            for (i, gold), kind in zip(known, kinds, strict=False):
                if kind == "unparsed":
                    return i, f"has the gold answer {gold[:SHOWN_CHARS]!r}, of which nothing is read"
        return None

    def fault(self, question: str, gold: str | None) -> str:
        """What is wrong with a question, or with its gold answer, for this domain; empty: nothing."""
        how = self.answers
        options = choices.parted(question)[1] if isinstance(how, ChoiceAnswers) else ()
        if isinstance(how, ChoiceAnswers) and not options:
            return "has no lettered options: name their field (`choices`), or write them below the question"
        if gold is None:
            return ""
        known = self.gold(question, gold)
        if isinstance(how, ChoiceAnswers) and not set(known.split("\n")) <= set(_letters(options)):
            letters = f"A to {_letters(options)[-1]}"
            return f"has the gold answer {gold!r}, none of the letters {letters} and no option's text"
        if isinstance(how, NumberAnswers) and any(self._value(g) is None for g in known.split("\n")):
            unit = f" that can be {how.unit}" if how.unit else ""
            return f"has the gold answer {gold!r}, which is no number{unit}"
        if not known.strip():
            return f"has the gold answer {gold!r}, of which nothing is read"
        return ""

    def classes_many(self, groups: Sequence[Sequence[str | None]]) -> list[Classes]:
        """The equivalence classes of many groups of answers."""
        match self.answers:
            case MathAnswers():
                return self._verifier.classes_many(groups)
            case NumberAnswers(tolerance=relative, within=absolute):
                values = [[a and self._value(a) for a in group] for group in groups]
                found = [quantity.classes(v, relative=relative, absolute=absolute) for v in values]
                return [_classes(g, labels) for g, labels in zip(groups, found, strict=True)]
            case TextAnswers():
                return [_classes(g, _equal([a and words.normal(a) for a in g])) for g in groups]
            case ChoiceAnswers() | PythonAnswers():
                return [_classes(g, _equal(g)) for g in groups]
            case other:
                assert_never(other)

    def judge(self, pairs: Sequence[tuple[str, str | None]]) -> list[Verdict]:
        """The verdict on each (gold, answer): right if the answer is any of the gold's lines."""
        single = [(i, gold, answer) for i, (golds, answer) in enumerate(pairs) for gold in golds.split("\n")]
        verdicts = self._each([(gold, answer) for _, gold, answer in single])
        found: list[list[Verdict]] = [[] for _ in pairs]
        for (i, _, _), verdict in zip(single, verdicts, strict=True):
            found[i].append(verdict)
        order: tuple[Verdict, ...] = ("correct", "undecided", "wrong", "unparsed")
        return [min(several, key=order.index) for several in found]

    def _each(self, pairs: Sequence[tuple[str, str | None]]) -> list[Verdict]:
        match self.answers:
            case MathAnswers():
                return self._verifier.judge(pairs)
            case NumberAnswers():
                return [_verdict(a and self._value(a), self._near(g)) for g, a in pairs]
            case TextAnswers():
                normal = words.normal
                return [_verdict(a and normal(a), lambda said, g=g: said == normal(g)) for g, a in pairs]
            case ChoiceAnswers() | PythonAnswers():
                return [_verdict(a, lambda said, g=g: said == g) for g, a in pairs]
            case other:
                assert_never(other)

    def _value(self, answer: str) -> object:
        assert isinstance(self.answers, NumberAnswers), "numbers are of that domain alone"
        return quantity.quantity(answer, self.answers.unit)

    def _near(self, gold: str) -> Callable:
        how, right = self.answers, self._value(gold)
        return lambda value: (
            right is not None
            and quantity.close(right, value, relative=how.tolerance, absolute=how.within)
        )

    def _read_choice(self, question: str, response: str, finished: bool) -> Reading | None:
        """The letter that something marks as the answer; where nothing does, that of the option whose text
        is the answer.
        """
        how, options = self.answers, choices.parted(question)[1]
        common = {"levels": how.levels, "finished": finished, "thinking": how.thinking}
        found, said = read_letter(response, len(options), **common), read(response, **common)
        spelled = said and choices.letter_for(said.text, options)
        sure = how.levels.index
        if said and spelled and (found is None or sure(said.level) < sure(found.level)):
            return Reading(text=spelled, level=said.level)
        return found

    def _read_outside(self, question: str, response: str) -> str | None:
        assert self._function is not None, "only a domain with a function reads with it"
        try:
            text = self._function(question, response)
        except TooLate:
            return None
        except FunctionFailed as e:
            raise JudgeFailed(self._sentence(str(e), question)) from e
        if text is not None and not isinstance(text, str):
            what = f"returned {text!r:.{SHOWN_CHARS}}, no text and not None"
            raise JudgeFailed(self._sentence(what, question))
        return text if text and len(text) <= MAX_ANSWER_CHARS else None

    def _sentence(self, what: str, question: str) -> str:
        asked = f"; the question: {question!r:.{SHOWN_CHARS}}" if question else ""
        return f"answers.path {self.answers.path}: it {what}{asked}"

    def check(self) -> None:
        """Raises JudgeFailed where the domain's function cannot be loaded."""
        try:
            if self._function is not None:
                self._function.check()
        except FunctionFailed as e:
            raise JudgeFailed(self._sentence(str(e), "")) from e

    def close(self) -> None:
        self._verifier.close()
        if self._function is not None:
            self._function.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _letters(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(ascii_uppercase[: len(options)])


def _equal(keys: Sequence[str | None]) -> tuple[int | None, ...]:
    """Equal texts are one class; the classes are numbered in the texts' order."""
    order = {key: i for i, key in enumerate(sorted({k for k in keys if k}))}
    return tuple(order.get(key) if key else None for key in keys)


def _classes(answers: Sequence[str | None], labels: Sequence[int | None]) -> Classes:
    found = sorted({k for k in labels if k is not None})
    shortest = [
        min((a for a, k in zip(answers, labels, strict=True) if k == label and a), key=lambda a: (len(a), a))
        for label in found
    ]
    return Classes(
        labels=tuple(labels),
        num_unparsed=sum(label is None for label in labels),
        num_undecided=0,
        representatives=tuple(shortest),
    )


def _verdict(said: object, right: Callable[[object], bool]) -> Verdict:
    """`said` is what an answer means; None or empty: nothing."""
    return "unparsed" if said is None or said == "" else "correct" if right(said) else "wrong"
