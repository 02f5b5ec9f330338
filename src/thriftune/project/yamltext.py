"""YAML 1.2 read as people wrote it: scalars stay text, and every key knows its line.

Only `true`, `false` and `null` (in their three spellings) are more than text, so `no` is a word, `2:30` is not 150 and
money never meets a float; what a text means is up to the options that read it. A key that stands twice is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from thriftune.errors import BadInput

Key = str | int
KeyPath = tuple[Key, ...]

MAX_CHARACTERS = 1_000_000  # a project file is a page or two
MAX_VALUES = 100_000  # aliases of aliases can multiply a few lines beyond any memory
WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
TAGS = "tag:yaml.org,2002:"
KNOWN_TAGS = {TAGS + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}


@dataclass(frozen=True)
class Document:
    """A YAML document.

    Args:
        value: mappings as dict, sequences as list, scalars as text, bool or None.
        lines: 1-based line of each key and item, by its path.
    """

    value: Any
    lines: dict[KeyPath, int]

    def line_of(self, path: KeyPath) -> int:
        """The line of `path`, or of the nearest thing around it that stands in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def read_yaml(text: str, where: str) -> Document:
    """One YAML document.

    Args:
        text: the file's content.
        where: its name, for messages.

    Raises:
        BadInput: it is no YAML, has a key twice, a tag, a key that is no text, or is nested or repeated beyond reason.
    """
    if len(text) > MAX_CHARACTERS:
        _refuse(where, 1, f"{len(text)} characters", f"a YAML file of at most {MAX_CHARACTERS} characters")
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        return _Reader(where).document(node)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        _refuse(where, mark.line + 1 if mark else 1, ", ".join(parts), "YAML")
    except YAMLError as error:
        _refuse(where, 1, " ".join(str(error).split())[:200], "YAML")
    except RecursionError:
        _refuse(where, 1, "lists or mappings nested hundreds deep", "a few levels")


def _refuse(where: str, line: int, found: str, expected: str) -> NoReturn:
    raise BadInput(
        "the file is not YAML that can be read",
        where=f"{where}, line {line}",
        found=found,
        expected=expected,
        way_out="mend that line; `thriftune init` writes a file to start from",
    ) from None


class _Reader:
    """Turns YAML nodes into plain values and notes their lines."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lines: dict[KeyPath, int] = {}
        self._open: set[int] = set()  # nodes that are being read, to catch one that contains itself
        self._values = 0

    def document(self, node: Node | None) -> Document:
        value = None if node is None else self._value(node, ())
        return Document(value, self._lines)

    def _value(self, node: Node, path: KeyPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            self._refuse(node, "more values than can be meant, by aliases of aliases", f"at most {MAX_VALUES} values")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            self._refuse(node, "an alias to what it stands in", "an alias to something else")
        self._open.add(id(node))
        value = self._mapping(node, path) if isinstance(node, MappingNode) else self._sequence(node, path)
        self._open.remove(id(node))
        return value

    def _scalar(self, node: ScalarNode) -> Any:
        tag, text = str(node.tag), self._text(node)
        if tag not in KNOWN_TAGS:
            self._refuse(node, f"the tag {tag}", "a value without a tag")
        plain = node.style is None and tag != TAGS + "str"
        return WORDS.get(text, text) if plain else text

    def _text(self, node: ScalarNode) -> str:
        text = str(node.value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._refuse(node, "half of a surrogate pair", "whole characters")
        return text

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._refuse(key_node, "a list or a mapping as a key", "a word as a key")
            key = self._text(key_node)
            if key in values:
                first = self._lines[*path, key]
                self._refuse(key_node, f"the key {key!r} again (first on line {first})", "each key once")
            self._lines[*path, key] = key_node.start_mark.line + 1
            values[key] = self._value(value_node, (*path, key))
        return values

    def _sequence(self, node: Node, path: KeyPath) -> list[Any]:
        if not isinstance(node, SequenceNode):
            self._refuse(node, f"a {type(node).__name__}", "a mapping, a list or a value")
        values = []
        for index, item in enumerate(node.value):
            self._lines[*path, index] = item.start_mark.line + 1
            values.append(self._value(item, (*path, index)))
        return values

    def _refuse(self, node: Node, found: str, expected: str) -> NoReturn:
        _refuse(self._where, node.start_mark.line + 1, found, expected)
