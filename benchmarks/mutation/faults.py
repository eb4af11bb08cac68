"""Which faults there are: mutmut's, and those of common kinds that it lacks.

Left out is what no test should pin down: messages (texts with a space, and all that is raised), annotations and decorators. And
what is no business of tests, for mypy finds it: None in the place of a value, a missing positional argument.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

NO_TYPE_CALLS = ("described", "TypeVar")
"""Calls that are written for readers and type checkers."""
LEFT_OUT = (cst.Annotation, cst.Decorator, cst.Raise, cst.Import, cst.ImportFrom)
TYPES = ("Literal", "Annotated", "ClassVar")


def operator_condition(node: cst.If | cst.While | cst.CompIf) -> Iterator[cst.CSTNode]:
    """The opposite of a condition; not of the one that is for mypy."""
    if node.test.deep_equals(cst.Name("TYPE_CHECKING")):
        return
    test = node.test.with_changes(lpar=[cst.LeftParen(), *node.test.lpar], rpar=[*node.test.rpar, cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))


def operator_entry(node: cst.DictElement) -> Iterator[cst.CSTNode]:
    """None is the value of an entry of a dict."""
    if not gives_message(node.value) and not node.value.deep_equals(cst.Name("None")):
        yield node.with_changes(value=cst.Name("None"))


def operator_option(node: cst.Call) -> Iterator[cst.CSTNode]:
    """An argument that is given by its name is not given."""
    for number, arg in enumerate(node.args):
        if arg.keyword is not None and not gives_message(arg.value):
            yield node.with_changes(args=[*node.args[:number], *node.args[number + 1 :]])


def operator_string(node: cst.BaseString) -> Iterator[cst.CSTNode]:
    """The first of mutmut's: in capitals it is the same fault again."""
    yield from [*mutators.operator_string(node)][:1]


FOUND_BY_MYPY = (mutators.operator_arg_removal, mutators.operator_assignment, mutators.operator_lambda)
OPERATORS: list[tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    *(each for each in mutators.mutation_operators if each[1] not in (*FOUND_BY_MYPY, mutators.operator_string)),
    (cst.BaseString, operator_string),
    (cst.Call, operator_option),
    (cst.If | cst.While | cst.CompIf, operator_condition),
    (cst.DictElement, operator_entry),
]


@dataclass(frozen=True)
class Mutant:
    """A module with one node in the place of another."""

    area: str
    file: str
    operator: str
    places: tuple[tuple[int, int], ...]
    """First and last line of the node, and of its statement; none where it runs when the module is imported."""
    line: int
    key: str
    """The same wherever its line is moved: by its hash it is drawn, or not, whatever else changes."""
    module: cst.Module
    old: cst.CSTNode
    new: cst.CSTNode

    @property
    def code(self) -> str:
        """The whole module with the fault."""
        return cast(cst.Module, self.module.deep_replace(self.old, self.new)).code

    @property
    def id(self) -> str:
        """Which it is."""
        was, now = self.change
        return f"{self.file}:{self.line}: {was} -> {now}"

    @cached_property
    def change(self) -> tuple[str, str]:
        """The lines that differ, as they were and as they are."""
        lines = [*difflib.unified_diff(self.module.code.splitlines(), self.code.splitlines(), lineterm="", n=0)][2:]
        was, now = ("\n".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
        return was, now


def is_message(node: object) -> bool:
    """Whether it is text for people: with a space in it."""
    if isinstance(node, cst.FormattedString):
        return any(isinstance(part, cst.FormattedStringText) and " " in part.value for part in node.parts)
    if isinstance(node, cst.AugAssign):
        return is_message(node.value)
    if isinstance(node, cst.ConcatenatedString | cst.BinaryOperation):
        return is_message(node.left) or is_message(node.right)
    return isinstance(node, cst.SimpleString) and " " in node.value


def gives_message(node: cst.BaseExpression) -> bool:
    """Whether its value is a message."""
    return is_message(node) or (isinstance(node, cst.IfExp) and (is_message(node.body) or is_message(node.orelse)))


class Finder(cst.CSTVisitor):
    """Collects the mutants of a module."""

    def __init__(self, area: str, path: Path, root: Path) -> None:
        wrapper = MetadataWrapper(cst.parse_module(path.read_text()))
        self.area, self.file, self.module = area, path.relative_to(root).as_posix(), wrapper.module
        self.positions, self.around = wrapper.resolve(PositionProvider), list[cst.CSTNode]()
        self.found: list[Mutant] = []
        self.texts, self.seen = self.module.code.splitlines(), Counter[str]()
        wrapper.module.visit(self)

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Add the mutants of a node; what is left out is not looked into."""
        self.around.append(node)
        name = getattr(getattr(node, "func", getattr(node, "value", None)), "value", None)
        is_type = (isinstance(node, cst.Call) and name in NO_TYPE_CALLS) or (isinstance(node, cst.Subscript) and name in TYPES)
        if is_type or is_message(node) or isinstance(node, LEFT_OUT):
            return False
        for kinds, operator in OPERATORS:
            if isinstance(node, kinds):
                self.found += [self._mutant(operator, node, new) for new in operator(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:  # noqa: ARG002
        """Forget a node that is done."""
        self.around.pop()

    def _mutant(self, operator: Any, node: Any, new: cst.CSTNode) -> Mutant:
        statement = next((one for one in reversed(self.around) if isinstance(one, cst.SimpleStatementLine)), node)
        place = node.test if operator is operator_condition else node
        lines = [(self.positions[one].start.line, self.positions[one].end.line) for one in (place, statement)]
        called = any(isinstance(one, cst.FunctionDef) and inner is one.body for one, inner in pairwise(self.around))
        name, line = operator.__name__.removeprefix("operator_"), lines[0][0]
        key = "\n".join((name, self.texts[line - 1].strip(), *map(self.module.code_for_node, (node, new))))
        self.seen[key] += 1
        key += f"\n{self.seen[key]}"
        return Mutant(self.area, self.file, name, tuple(lines) if called else (), line, key, self.module, node, new)
