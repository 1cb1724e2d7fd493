"""A formula read directly: numbers, letters, sums, products, powers, fractions, roots, functions, matrices,
equations and inequalities.

Most answers are written in this small grammar. What is outside it, or could be read in two ways, is refused,
and the computer algebra reads it. One pass without backtracking; the tree means what the computer algebra's
reading means, name by name, but for three mistakes that it makes: `2(3)` is 6 here and not 5, the argument of
`\\cos(60^\\circ)` is in degrees, and matrices keep their factors.
"""

from fractions import Fraction

from evaluation.formula import Chain, Node, Refused, fraction, minus_one, negative
from evaluation.tokens import (
    ACCENTS,
    CLOSING,
    FUNCTIONS,
    GREEK,
    INVERSE,
    NO_FACTOR,
    NUMBER,
    RELATIONS,
    RESERVED,
    ROW,
    TABLE,
    TABLE_END,
    TIMES,
    TRIGONOMETRIC,
    UPRIGHT,
    tokens,
)

MAX_DEPTH = 100
MAX_DIGITS = 400


def parse(latex: str) -> Chain:
    """The formula of a LaTeX text that is ready for the computer algebra (see `notation.latex`); raises
    `Refused`.
    """
    return _Reader(tokens(latex)).chain()


class _Reader:
    """A position in the tokens; each method reads one level of the grammar, loosest first."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.degrees = False

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise Refused(f"{token!r} where {expected or 'something'!r} should be")
        self.at += 1
        return token

    def chain(self) -> Chain:
        sides, signs, texts = [], [], []
        while True:
            start = self.at
            sides.append(self.sum())
            texts.append("".join(self.tokens[start : self.at]))
            if not self.peek():
                return Chain(sides=tuple(sides), signs=tuple(signs), texts=tuple(texts))
            sign = RELATIONS.get(self.take())
            if sign is None:
                raise Refused("something after the end")
            signs.append(sign)

    def sum(self) -> Node:
        node = self.term()
        while self.peek() in ("+", "-"):
            sign = self.take()
            right = self.term()
            node = Node(op="+", parts=(node, right if sign == "+" else negative(right)))
        return node

    def term(self, *, argument: bool = False) -> Node:
        node = self.unary(argument=argument)
        while self.peek() in TIMES:
            op = TIMES[self.take()]
            node = Node(op=op, parts=(node, self.unary(argument=argument)))
        return node

    def unary(self, *, argument: bool) -> Node:
        num_minus = 0
        while self.peek() in ("+", "-"):
            num_minus += self.take() == "-"
        node = self.product(argument=argument)
        for _ in range(num_minus):
            node = negative(node)
        return node

    def product(self, *, argument: bool) -> Node:
        """Factors side by side; in a function's bare argument the next function ends them."""
        factors = [self.factor()]
        while self.starts_factor() and not (argument and self.starts_function()):
            if factors[-1].op == "number" and self.peek()[0] in ".0123456789":
                raise Refused("two numbers side by side")
            factors.append(self.factor())
            if argument and factors[-1].op == "applied":
                raise Refused("a name applied to another in an argument without brackets")
        node = factors[-1]
        for left in reversed(factors[:-1]):
            if left.op == "number" and not left.decimal and node.op == "ratio" and node.number > 0:
                node = Node(op="ratio", number=left.number + node.number)
            else:
                node = Node(op="*", parts=(left, node))
        return node

    def starts_factor(self) -> bool:
        token = self.peek()
        if token == "|":
            return self.bars == 0
        return bool(token) and token not in RELATIONS and token not in TIMES and token not in NO_FACTOR

    def starts_function(self) -> bool:
        token = self.peek()
        return (
            token in ("\\sqrt", "\\sum", "\\prod")
            or token.removeprefix("\\") in FUNCTIONS
            and token[0] == "\\"
            or token[0] == "e"
        )

    def factor(self) -> Node:
        """An operand with its exponents, degree signs and factorials."""
        name, shown = self.named()
        node = self.applied(shown) if name else self.operand()
        node = node or Node(op="symbol", name=name)
        while self.peek() == "^":
            if self.degree_sign():
                node = Node(op="*", parts=(node, Node(op="degree"))) if self.degrees else node
                continue
            self.take("^")
            power = self.exponent()
            applied = self.applied(shown) if node.op == "symbol" else None  # f^{2}(x) is the square of f(x)
            node = (
                Node(op="exp", parts=(power,))
                if node.op == "e"
                else Node(op="^", parts=(applied or node, power))
            )
        while self.peek() == "!":
            self.take()
            node = Node(op="factorial", parts=(node,))
        if self.peek() in ("^", "_"):
            raise Refused("an index or exponent out of place")
        return node

    def applied(self, shown: str) -> Node | None:
        """What follows a name, where it is another name in brackets: the two are one symbol, `f(x)`."""
        if self.peek() != "(":
            return None
        start = self.at
        self.take("(")
        argument, _ = self.named()
        if argument and self.peek() == ")":
            self.take(")")
            return Node(op="applied", name=f"{shown}({argument})", parts=(Node(op="symbol", name=argument),))
        if NUMBER.fullmatch(self.peek()) and self.peek(1) == ")":
            raise Refused("a name applied to a number")
        self.at = start
        return None

    def named(self) -> tuple[str, str]:
        """A symbol's name, and the name as it is shown before brackets; both empty where something else
        stands here.
        """
        token = self.peek()
        command = token[1:] if token[:1] == "\\" else ""
        if command in UPRIGHT or command in ACCENTS:
            name, shown = self.marked(command)
        elif command in GREEK:
            name, shown = command, self.take()
        elif token.isalpha() and token not in ("e", "E", "I"):
            name = shown = self.take()
        else:
            return "", ""
        if self.peek() != "_":
            return name, shown
        self.take("_")
        braces = self.peek() == "{"
        index = self.index()
        return name + (f"_{index}" if len(index) == 1 else f"_{{{index}}}"), shown + (
            f"_{{{index}}}" if braces else f"_{index}"
        )

    def marked(self, command: str) -> tuple[str, str]:
        """Letters in a font are their letters; under an accent they are another name."""
        self.take()
        self.take("{")
        letters = ""
        while self.peek().isalpha():
            letters += self.take()
        self.take("}")
        if not letters or letters in RESERVED or (command in ACCENTS and len(letters) > 1):
            raise Refused(f"letters {letters!r} in a font of their own")
        return (
            (letters, f"\\text{{{letters}}}")
            if command in UPRIGHT
            else (f"{ACCENTS[command]}{{{letters}}}",) * 2
        )

    def index(self) -> str:
        """A subscript: one letter or digit, or letters and digits in braces."""
        if self.peek() != "{":
            token = self.take()
            if not (token.isalpha() or token.isdigit()):
                raise Refused("a subscript")
            return token
        self.take("{")
        index = ""
        while self.peek().isalnum():
            index += self.take()
        self.take("}")
        if not index or "E" in index or "I" in index:
            raise Refused("a subscript")
        return index

    def degree_sign(self) -> bool:
        """Read a degree sign, if there is one."""
        for form in (["^", "\\circ"], ["^", "{", "\\circ", "}"]):
            if self.tokens[self.at : self.at + len(form)] == form:
                self.at += len(form)
                return True
        return False

    def exponent(self) -> Node:
        """A group, a number, or a single name."""
        if self.peek() in ("{", "("):
            node = self.group(self.take())
        elif NUMBER.fullmatch(self.peek()) or self.peek() == "\\pi":
            node = self.operand()
        else:
            name, _ = self.named()
            node = Node(op="symbol", name=name)
        if node.name in ("", "T") and node.op == "symbol":
            raise Refused("an exponent")
        return node

    def operand(self) -> Node:
        """A group, a number, a constant, a fraction, a root or a function."""
        token = self.take()
        if token in CLOSING:
            return self.group(token)
        if NUMBER.fullmatch(token):
            if len(token) > MAX_DIGITS or self.peek() == "_":
                raise Refused("a long number, or one with a base")
            return Node(op="number", number=Fraction(token), decimal="." in token)
        if token == "e":
            return Node(op="e")
        if token == TABLE:
            return self.table()
        command = token[1:] if token[0] == "\\" else ""
        match command:
            case "pi":
                return Node(op="pi")
            case "frac":
                over, under = self.group(self.take("{")), self.group(self.take("{"))
                return fraction(over, under)
            case "binom":
                return Node(op="binom", parts=(self.group(self.take("{")), self.group(self.take("{"))))
            case "sqrt":
                return self.root()
            case "sum" | "prod":
                return self.repeated(command)
            case _ if command in FUNCTIONS:
                return self.function(command)
            case _:
                raise Refused(f"{token!r}")

    def group(self, opening: str) -> Node:
        """What stands in brackets whose opening has been read; bars are absolute values."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refused("too many brackets in brackets")
        outer, self.bars = self.bars, int(opening == "|")
        node = self.sum()
        self.take(CLOSING[opening])
        self.bars = outer
        self.depth -= 1
        return (
            Node(op="abs", parts=(node,))
            if opening == "|"
            else Node(op="group", parts=(node,))
            if node.op in ("number", "ratio")
            else node
        )

    def root(self) -> Node:
        if self.peek() == "[":
            index = self.group(self.take())
            return Node(
                op="^",
                parts=(self.group(self.take("{")), fraction(Node(op="number", number=Fraction(1)), index)),
            )
        if self.peek() in ("{", "("):
            inside = self.group(self.take())
        elif len(self.peek()) == 1 and self.peek().isalnum():
            inside = self.operand() if self.peek().isdigit() else Node(op="symbol", name=self.named()[0])
        else:
            raise Refused("a root without braces")
        return Node(op="^", parts=(inside, Node(op="ratio", number=Fraction(1, 2))))

    def repeated(self, op: str) -> Node:
        """A sum or product over an index: its first and last value, then what is added or multiplied."""
        self.take("_")
        self.take("{")
        index, _ = self.named()
        self.take("=")
        low = self.sum()
        self.take("}")
        self.take("^")
        endless = self.tokens[self.at : self.at + 3] == ["{", "\\infty", "}"]
        self.at += 3 * endless
        high = Node(op="infinity") if endless else self.exponent()
        if not index:
            raise Refused("a sum without an index")
        return Node(op=op, name=index, parts=(low, high, self.term()))

    def table(self) -> Node:
        """The cells of a matrix, row by row; `number` is how many columns it has."""
        rows = [[self.sum()]]
        while self.peek() != TABLE_END:
            separator = self.take()
            if separator == ROW and self.peek() != TABLE_END:
                rows.append([self.sum()])
            elif separator == "&":
                rows[-1].append(self.sum())
        self.take(TABLE_END)
        if len({len(row) for row in rows}) > 1:
            raise Refused("rows of unequal length")
        return Node(
            op="table", parts=tuple(cell for row in rows for cell in row), number=Fraction(len(rows[0]))
        )

    def function(self, name: str) -> Node:
        """A function with its base or exponent, and its argument in brackets or bare; `\\sin^{-1}` is the
        inverse.
        """
        base = self.base() if name == "log" and self.peek() == "_" else None
        power = None
        if self.peek() == "^":
            self.take()
            power = self.exponent()
        outer, self.degrees = self.degrees, name in TRIGONOMETRIC
        argument = self.group(self.take()) if self.peek() == "(" else self.term(argument=True)
        self.degrees = outer
        if power is not None and minus_one(power) and name in TRIGONOMETRIC:
            return Node(op=f"a{name}", parts=(argument,))
        parts = (argument,) if name != "log" else (argument, base or Node(op="number", number=Fraction(10)))
        node = Node(op=INVERSE.get(name, name), parts=parts)
        return node if power is None else Node(op="^", parts=(node, power))

    def base(self) -> Node:
        self.take("_")
        if self.peek() == "{":
            return self.group(self.take())
        name, _ = self.named()
        return Node(op="symbol", name=name) if name else self.operand()
