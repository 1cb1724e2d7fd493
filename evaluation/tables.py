"""Formulas with matrices in them, `c_1 (1, 2) e^t + c_2 (3, 4)`, as one matrix of formulas; products of
matrices are refused.
"""

from collections.abc import Callable

from evaluation.formula import Node, Refused

MAX_CELLS = 64


def distributed(node: Node) -> Node:
    """The formula as one table of formulas, or itself where it has no table in it."""
    if not _has_table(node):
        return node
    if node.op == "table":
        if len(node.parts) > MAX_CELLS or any(map(_has_table, node.parts)):
            raise Refused("a large or nested matrix")
        return node
    parts = [distributed(part) for part in node.parts]
    tables = [part.op == "table" for part in parts]
    match node.op, tables:
        case "-", _:
            return _each(parts[0], lambda cell: Node(op="-", parts=(cell,)))
        case "+", [True, True] if parts[0].number == parts[1].number and len(parts[0].parts) == len(
            parts[1].parts
        ):
            cells = zip(parts[0].parts, parts[1].parts, strict=True)
            return Node(
                op="table", parts=tuple(Node(op="+", parts=pair) for pair in cells), number=parts[0].number
            )
        case "*", [False, True]:
            return _each(parts[1], lambda cell: Node(op="*", parts=(parts[0], cell)))
        case "*" | "/", [True, False]:
            return _each(parts[0], lambda cell: Node(op=node.op, parts=(cell, parts[1])))
        case _:
            raise Refused("an operation on matrices")


def _each(table: Node, change: Callable[[Node], Node]) -> Node:
    return Node(op="table", parts=tuple(map(change, table.parts)), number=table.number)


def _has_table(node: Node) -> bool:
    return node.op == "table" or any(map(_has_table, node.parts))
