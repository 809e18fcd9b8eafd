"""The textual form of specs: reading and writing `name(key=value, ...)`."""

import re
from collections.abc import Iterator, Sequence

from fusion.errors import InvalidSpec

JsonScalar = None | bool | int | float | str
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Param = JsonScalar | list["Param"]

NAME = re.compile(r"[A-Za-z_][\w-]*")
_WORD = re.compile(r"[^\s,()\[\]=\"']+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"' + r"|'((?:[^'\\]|\\.)*)'")
_CONSTANTS: dict[str, JsonScalar] = {"true": True, "false": False, "none": None, "null": None}
MAX_DEPTH = 20
"""Lists within lists beyond this are refused, long before the interpreter's stack would overflow."""


class Reader:
    """Recursive-descent reader of `name(key=value, ...)`, `selector+fuser` and lists of the latter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def spec(self) -> tuple[str, dict[str, Param]]:
        name = plain(self.match(NAME, "the name of a method").group())
        params: dict[str, Param] = {}
        if self.take("("):
            while not self.take(")"):
                key = plain(self.match(NAME, "a parameter's name").group())
                self.expect("=")
                if key in params:
                    raise self.wrong(f"parameter {key!r} only once")
                params[key] = self.value()
                if not self.take(","):
                    self.expect(")")
                    break
        return name, params

    def value(self, depth: int = 0) -> Param:
        if self.take("["):
            if depth == MAX_DEPTH:
                raise self.wrong(f"at most {MAX_DEPTH} lists within each other")
            items: list[Param] = []
            while not self.take("]"):
                items.append(self.value(depth + 1))
                if not self.take(","):
                    self.expect("]")
                    break
            return items
        self.skip()
        quoted = _QUOTED.match(self.text, self.at)
        if quoted:
            self.at = quoted.end()
            return re.sub(r"\\(.)", r"\1", quoted.group(1) if quoted.group(1) is not None else quoted.group(2))
        return _scalar(self.match(_WORD, "a value").group())

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def take(self, symbol: str) -> bool:
        self.skip()
        found = self.text.startswith(symbol, self.at)
        self.at += found
        return found

    def expect(self, symbol: str) -> None:
        if not self.take(symbol):
            raise self.wrong(repr(symbol))

    def match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        self.skip()
        found = pattern.match(self.text, self.at)
        if not found:
            raise self.wrong(what)
        self.at = found.end()
        return found

    def end(self) -> None:
        self.skip()
        if self.at < len(self.text):
            raise self.wrong("the end")

    def wrong(self, expected: str) -> InvalidSpec:
        rest = self.text[self.at :]
        got = repr(_shortened(rest)) if rest else "the end of the text"
        return InvalidSpec(
            f"cannot read {_shortened(self.text, 200)!r}: expected {expected} at character {self.at + 1}, got {got}; "
            "write for example top_k(k=3)+weighted_vote(weights=power)"
        )


def plain(name: str) -> str:
    return name.replace("-", "_")


def _shortened(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _scalar(word: str) -> JsonScalar:
    if word.lower() in _CONSTANTS:
        return _CONSTANTS[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def write(value: Param) -> str:
    if isinstance(value, list):
        return f"[{', '.join(write(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = _WORD.fullmatch(value) is not None and _scalar(value) == value
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return value if plain else f'"{escaped}"'
    return repr(value)


def systems(reader: Reader) -> Iterator[tuple[tuple[str, dict[str, Param]], tuple[str, dict[str, Param]]]]:
    while True:
        first = reader.spec()
        yield (first, reader.spec()) if reader.take("+") else (("all_agents", {}), first)
        if not reader.take(","):
            reader.end()
            return


def listed(value: Param) -> Json:
    """Return a parameter as JSON: whatever is a sequence in it, as lists."""
    return [listed(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
