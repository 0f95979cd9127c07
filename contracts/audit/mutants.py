"""Mutants of a contract: small mistakes, each of which some test should notice.

All mutants live in one copy of the source, and the block's coinbase picks the one that is active, so that one
compilation serves all of them. Only a modifier that is left out can't be switched that way: it is a copy of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Node = dict[str, Any]

# For relations, the three mutants that imply all others (Kaminski, Ammann and Offutt, 2013).
RELATIONS = {
    "<": ["<=", "!=", "false"],
    "<=": ["<", "==", "true"],
    ">": [">=", "!=", "false"],
    ">=": [">", "==", "true"],
    "==": ["<=", ">=", "false"],
    "!=": ["<", ">", "true"],
}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "<<": ">>", ">>": "<<", "&": "|", "|": "&", "^": "&"}
UNSIGNED = re.compile(r"uint\d+$")
# What they report is not money; leaving a revert out is what a false condition does.
OPAQUE = {"EmitStatement", "RevertStatement"}


@dataclass(frozen=True)
class Mutant:
    """`place` is Contract.function; `start` and `end` are bytes of the source that `replacement` takes the place of."""

    file: str
    place: str
    start: int
    end: int
    original: str
    replacement: str
    kind: str  # expression, statement, yul, yul statement or modifier

    @property
    def name(self) -> str:
        """Who it is, wherever its lines go; not unique where a function says the same twice."""
        return f"{self.place}: {' '.join(self.original.split())} -> {' '.join(self.replacement.split()) or 'nothing'}"


class Finder:
    """Finds the mutants of one file."""

    def __init__(self, file: str, source: bytes) -> None:
        self._file = file
        self._source = source
        self._place = ""
        self._loops: set[str] = set()

    def find(self, ast: Node) -> list[Mutant]:
        """All mutants in the bodies of functions and modifiers, in the order of the source."""
        found = [mutant for contract in ast["nodes"] for mutant in self._of_contract(contract)]
        return sorted(set(found), key=lambda mutant: (mutant.start, -mutant.end, mutant.replacement))

    def _of_contract(self, contract: Node) -> Iterator[Mutant]:
        for function in contract.get("nodes", []):
            # Constructors only keep parameters, whose bounds have tests of their own.
            if function["nodeType"] in ("FunctionDefinition", "ModifierDefinition") and function["name"]:
                self._place = f"{contract['name']}.{function['name']}"
                yield from self._of(function.get("body"))
                for modifier in function.get("modifiers", []):
                    if modifier.get("kind") == "modifierInvocation":
                        yield self._mutant(modifier, "", "modifier")

    def _of(self, node: Any) -> Iterator[Mutant]:
        """Mutants of a node and of all below it."""
        if isinstance(node, list):
            for item in node:
                yield from self._of(item)
        if not isinstance(node, dict) or "nodeType" not in node:
            return
        mutate = getattr(self, f"_{node['nodeType']}", None)
        if mutate is not None:
            yield from mutate(node)
        if node["nodeType"] not in OPAQUE:
            for name, child in node.items():
                if name not in ("typeDescriptions", "loopExpression", "initializationExpression"):
                    yield from self._of(child)

    # Expressions

    def _BinaryOperation(self, node: Node) -> Iterator[Mutant]:
        operator, common = node["operator"], node["commonType"]["typeString"]
        left, right = (f"({self._text(node[side])})" for side in ("leftExpression", "rightExpression"))
        if operator in ("&&", "||"):
            yield from self._expressions(node, left, right)
        elif operator in RELATIONS and UNSIGNED.match(common) and right != "(0)":
            others = [other for other in RELATIONS[operator] if other != "!=" or node["src"] not in self._loops]
            mutants = (other if other.isalpha() else f"{left} {other} {right}" for other in others)
            yield from self._expressions(node, *mutants)
        elif operator in RELATIONS:
            yield from self._expressions(node, "true", "false")
        elif operator in ARITHMETIC and UNSIGNED.match(_type(node)):
            yield from self._expressions(node, f"{left} {ARITHMETIC[operator]} {right}")

    def _ForStatement(self, node: Node) -> Iterator[Mutant]:
        # What counts up to a bound ends there whether it asks for "less" or for "not equal".
        self._loops.add(node["condition"]["src"])
        yield from ()

    def _UnaryOperation(self, node: Node) -> Iterator[Mutant]:
        if node["operator"] == "!":
            yield from self._expressions(node, f"({self._text(node['subExpression'])})")

    def _Conditional(self, node: Node) -> Iterator[Mutant]:
        yield from self._condition(node["condition"])

    def _MemberAccess(self, node: Node) -> Iterator[Mutant]:
        if self._text(node) == "msg.sender":
            yield from self._expressions(node, "tx.origin")

    def _Identifier(self, node: Node) -> Iterator[Mutant]:
        if node["name"].isupper() and UNSIGNED.match(_type(node)):
            yield from self._expressions(node, f"{node['name']} + 1")

    def _Assignment(self, node: Node) -> Iterator[Mutant]:
        right = node["rightHandSide"]
        if node["operator"] == "=" and UNSIGNED.match(_type(right)):
            yield from self._expressions(right, f"({self._text(right)}) + 1")

    # Statements

    def _IfStatement(self, node: Node) -> Iterator[Mutant]:
        yield from self._condition(node["condition"])

    def _ExpressionStatement(self, node: Node) -> Iterator[Mutant]:
        expression = node["expression"]
        # A reference to storage or calldata can't be left without a value.
        if not re.search("storage pointer|calldata", _type(expression.get("leftHandSide", expression))):
            yield self._mutant(node, "", "statement")
        if expression.get("operator") in ("+=", "-="):
            other = "-=" if expression["operator"] == "+=" else "+="
            left, right = self._text(expression["leftHandSide"]), self._text(expression["rightHandSide"])
            yield self._mutant(node, f"{left} {other} {right};", "statement")

    def _EmitStatement(self, node: Node) -> Iterator[Mutant]:
        yield self._mutant(node, "", "statement")

    _Continue = _EmitStatement

    def _VariableDeclarationStatement(self, node: Node) -> Iterator[Mutant]:
        value = node.get("initialValue")
        if value is not None and UNSIGNED.match(_type(value)):
            yield from self._expressions(value, f"({self._text(value)}) + 1")

    def _Return(self, node: Node) -> Iterator[Mutant]:
        value = node.get("expression")
        if value is None:
            return
        if UNSIGNED.match(_type(value)):
            yield from self._expressions(value, f"({self._text(value)}) + 1")
        elif _type(value) == "address":
            yield from self._expressions(value, "address(0)")
        elif _type(value) == "bool":
            yield from self._condition(value)

    # Assembly

    def _InlineAssembly(self, node: Node) -> Iterator[Mutant]:
        yield from self._of_yul(node["AST"])

    def _of_yul(self, node: Any) -> Iterator[Mutant]:
        if isinstance(node, list):
            for item in node:
                yield from self._of_yul(item)
        elif isinstance(node, dict):
            if node.get("nodeType") == "YulExpressionStatement":
                yield self._mutant(node, "", "yul statement")
            if node.get("nodeType") == "YulLiteral" and node["kind"] == "number":
                text = self._text(node)
                yield self._mutant(node, f"sub({text}, 1)" if int(text, 0) > 2**64 else f"add({text}, 1)", "yul")
            for child in node.values():
                yield from self._of_yul(child)

    # Helpers

    def _condition(self, node: Node) -> Iterator[Mutant]:
        is_relation = node["nodeType"] == "BinaryOperation" and node["operator"] in RELATIONS
        if not is_relation and node["nodeType"] != "Literal":
            yield from self._expressions(node, "true", "false")

    def _expressions(self, node: Node, *replacements: str) -> Iterator[Mutant]:
        for replacement in replacements:
            yield self._mutant(node, replacement, "expression")

    def _mutant(self, node: Node, replacement: str, kind: str) -> Mutant:
        start, end = _span(node)
        if kind == "statement":
            end = self._source.index(b";", end - 1) + 1
        original = self._source[start:end].decode()
        return Mutant(self._file, self._place, start, end, original, replacement, kind)

    def _text(self, node: Node) -> str:
        start, end = _span(node)
        return self._source[start:end].decode()


def with_switches(source: bytes, numbered: list[tuple[int, Mutant]]) -> bytes:
    """The source with all these mutants in it; number n is active while the block's coinbase is address n."""
    spans: dict[tuple[int, int], list[tuple[int, Mutant]]] = {}
    for number, mutant in sorted(numbered, key=lambda item: (item[1].start, -item[1].end)):
        spans.setdefault((mutant.start, mutant.end), []).append((number, mutant))
    return _render(source, 0, len(source), list(spans.items()))


def _render(source: bytes, start: int, end: int, spans: list[tuple[tuple[int, int], Any]]) -> bytes:
    """The text from start to end, with the spans in it, outermost first, replaced by their switches."""
    parts = []
    while spans:
        (inner_start, inner_end), alternatives = spans.pop(0)
        inside = [item for item in spans if item[0][1] <= inner_end]
        spans = spans[len(inside) :]
        original = _render(source, inner_start, inner_end, inside)
        parts += [source[start:inner_start], _switch(original.decode(), alternatives).encode()]
        start = inner_end
    return b"".join([*parts, source[start:end]])


def _switch(text: str, alternatives: list[tuple[int, Mutant]]) -> str:
    for number, mutant in alternatives:
        if mutant.kind == "statement":
            text = f"if (block.coinbase == address({number})) {{ {mutant.replacement} }} else {{ {text} }}"
        elif mutant.kind == "yul statement":
            text = f"if iszero(eq(coinbase(), {number})) {{ {text} }}"
        elif mutant.kind == "yul":
            operator = mutant.replacement[:3]
            text = f"{operator}({text}, eq(coinbase(), {number}))"
        else:
            text = f"(block.coinbase == address({number}) ? {mutant.replacement} : {text})"
    return text


def _span(node: Node) -> tuple[int, int]:
    start, length, _ = map(int, node["src"].split(":"))
    return start, start + length


def _type(node: Node) -> str:
    return str(node["typeDescriptions"]["typeString"])
