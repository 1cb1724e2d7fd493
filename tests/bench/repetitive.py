"""What a looping policy writes, through everything that reads it: processor time per text is bounded by its
length.

`python tests/bench/repetitive.py [COUNT] [SEED]` makes texts that repeat a few pieces of the readers' own
vocabulary 5 to 5,000 times, in a box, behind an announcement, as an answer or bare, and sends each through
extraction, plain reading, judging and classes. It prints the slowest ones, and fails where the calling
process needs more than 50 ms and a share for its length.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation import tokens
from evaluation.answers import extract, letter_of
from evaluation.forms import plain
from evaluation.golds import apply, declared
from evaluation.mmlu_pro import extract_letter
from evaluation.normal import MAX_ANSWER_CHARS, normalise
from evaluation.notation import latex, trimmed
from evaluation.structure import outline, signs
from evaluation.units import UNIT_NAMES
from evaluation.verifier import Verifier

ALLOWED_S, PER_CHARACTER_S = 0.05, 4e-6
WORDS = (
    "and or to if for where the answer is answers are final answer: the final answer is so therefore solution option choice correct must be "
    "should I hope still indeed approximately about exactly all any every real numbers integers values of no solution max min at when empty set "
    "million thousand percent inf infinity mod otherwise sin cos tan ln log exp lim gcd pi yes no true false Area Monday hotel x y k n e i E I A B C"
).split()
COMMANDS = (
    [rf"\{name}" for name in sorted(tokens.FUNCTIONS | tokens.GREEK)]
    + r"\frac \dfrac \sqrt \boxed \fbox \text \textbf \mathrm \mathbb \mathbf \left \right \circ \cdot \times \pm \mp \in \cup \cap".split()
    + r"\infty \emptyset \neq \ne \le \leq \ge \lt \gt \approx \sim \equiv \to \mid \vert \ldots \cdots \dots \quad \, \! \; \ \% \$".split()
    + r"\begin{array}{l} \end{array} \begin{pmatrix} \end{pmatrix} \begin{cases} \end{cases} \hline \overline{3} \bar \hat \vec \prime".split()
    + r"\sum_{k=1}^{n} \prod \int \binom \operatorname \mathit \lfloor \rfloor \lceil \langle \rangle \{ \} \[ \] \( \) \\ \setminus".split()
)
MARKED = [
    r"\text{ cm}",
    r"\mathrm{m}",
    r"\text{and}",
    r"\text{ m}^2",
    r"\frac{\text{m}}{\text{s}}",
    r"^\circ",
    r"^{\circ}C",
    r"\boxed{1}",
    "<think>",
]
SIGNS = list("+-*/=<>^_!|:;,.'\"()[]{}$&%~#?\\`") + [
    "**",
    "##",
    "####",
    "$$",
    "...",
    "^2",
    "_1",
    "^{",
    "_{",
    "!=",
    "<=",
    "</think>",
    "<answer>",
]
NUMBERS = [
    "0",
    "1",
    "2",
    "12",
    "3.5",
    ".5",
    "1,000",
    "1/2",
    "10^{10}",
    "e5",
    "1e5",
    "99",
    "1{,}234",
    "\u00bd",
    "\u00b2",
    "\u2082",
    "\u221a",
    "\u2212",
]
VOCABULARY = (UNIT_NAMES.replace("?", "").split("|"), WORDS, COMMANDS, MARKED, SIGNS, NUMBERS)
FRAMES = (
    "{}",
    "\\boxed{{{}}}",
    "The answer is {}.",
    "The answer is ${}$.",
    "<answer>{}</answer>",
    "5{}",
    "x={} left",
    "\\boxed{{3 {} left}}",
    "Final Answer: {}!",
)


def texts(count: int, seed: int) -> Iterator[str]:
    """Texts that say the same few things again and again; half of them are as long as an answer may be, at
    most.
    """
    draw = random.Random(seed)
    for _ in range(count):
        pieces = [draw.choice(draw.choice(VOCABULARY)) for _ in range(draw.choice((1, 1, 2, 2, 3, 4)))]
        piece = draw.choice(("", " ", " ")).join(pieces) + draw.choice(("", " ", " ", "\n", ", "))
        num = int(5 * 1000 ** draw.random())
        if draw.random() < 0.5:
            num = min(num, max(5, (MAX_ANSWER_CHARS - 20) // len(piece)))
        yield draw.choice(FRAMES).format(piece * num)


def read(text: str) -> None:
    """Everything that is done with a text, or with the answer in it, in the calling process."""
    extract_letter(text, 10)
    answer = extract(text)
    for part in dict.fromkeys((answer or "", text[:MAX_ANSWER_CHARS])):
        key = normalise(part)
        (
            plain(key),
            outline(key),
            signs(key),
            latex(trimmed(key)),
            letter_of(part, 10),
            declared(part),
            apply("college_math", part),
        )


def judge(verifier: Verifier) -> Callable[[str], None]:
    """Judging and classifying, of which the calling process does what it can by itself."""

    def judged(text: str) -> None:
        answer = extract(text) or text
        verifier.judge([("5", answer), (text, "x+1")])
        verifier.classes([answer, text, "5"])

    return judged


def over(work: Callable[[str], None], texts: Iterator[str]) -> Iterator[tuple[float, float, str]]:
    """For each text: the processor time it took in this process, the time it may take, and the text."""
    for text in texts:
        start = time.process_time()
        work(text)
        yield time.process_time() - start, ALLOWED_S + PER_CHARACTER_S * len(text), text


def main() -> int:
    count, seed = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 10_000), (2, 0)))
    num_over = 0
    with Verifier(workers=1, limit_s=0.3) as verifier:
        for name, work in (("reading", read), ("judging", judge(verifier))):
            found = sorted(over(work, texts(count, seed)), reverse=True)
            slow = [row for row in found if row[0] > row[1]]
            num_over += len(slow)
            print(
                f"{name}: {count} texts, {sum(row[0] for row in found):.1f} s, slowest {found[0][0] * 1000:.0f} ms, {len(slow)} beyond their bound"
            )
            for used, bound, text in found[:8]:
                print(
                    f"    {used * 1000:6.0f} ms of {bound * 1000:.0f}, {len(text)} characters: {text[:60]!r}",
                    flush=True,
                )
    return 1 if num_over else 0


if __name__ == "__main__":
    sys.exit(main())
