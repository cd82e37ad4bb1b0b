"""Strict canonical JSON: section 2 of docs/spec/sealed-artifact-v1.md (RFC 8785 without numbers that are not natural).

`read` returns dict, list, str, int or bool. The parser is written by hand because the order of the checks matters and the
one in the standard library is lenient (lone surrogates, duplicate members, NaN, unbounded depth).
"""

from __future__ import annotations

from refused import Refused, limit, malformed

MAX_DEPTH = 8
MAX_NUMBER = 2**53 - 1
_SPACE = " \t\n\r"
_SHORT = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SHORT_OUT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGITS = frozenset("0123456789")


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def expect(self, char: str) -> None:
        if self.peek() != char:
            raise malformed(f"expected {char!r} at character {self.at}")
        self.at += 1

    def value(self, depth: int) -> object:
        char = self.peek()
        if char in ("{", "["):
            if depth > MAX_DEPTH:
                raise limit("nesting")
            return self.object(depth) if char == "{" else self.array(depth)
        if char == '"':
            return self.string()
        for word, meaning in (("true", True), ("false", False)):
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return meaning
        return self.number()

    def object(self, depth: int) -> dict[str, object]:
        self.expect("{")
        found: dict[str, object] = {}
        self.space()
        if self.peek() == "}":
            self.at += 1
            return found
        while True:
            self.space()
            name = self.string()
            if name in found:
                raise malformed(f"duplicate member {name!r}")
            self.space()
            self.expect(":")
            self.space()
            found[name] = self.value(depth + 1)
            self.space()
            if self.peek() == "}":
                self.at += 1
                return found
            self.expect(",")

    def array(self, depth: int) -> list[object]:
        self.expect("[")
        found: list[object] = []
        self.space()
        if self.peek() == "]":
            self.at += 1
            return found
        while True:
            self.space()
            found.append(self.value(depth + 1))
            self.space()
            if self.peek() == "]":
                self.at += 1
                return found
            self.expect(",")

    def string(self) -> str:
        self.expect('"')
        out: list[str] = []
        while True:
            char = self.peek()
            if char == "":
                raise malformed("unterminated string")
            self.at += 1
            if char == '"':
                return "".join(out)
            if char < " ":
                raise malformed("control character in a string")
            if char != "\\":
                out.append(char)
                continue
            kind = self.peek()
            self.at += 1
            if kind in _SHORT and kind:
                out.append(_SHORT[kind])
            elif kind == "u":
                unit = self.unit()
                if 0xDC00 <= unit <= 0xDFFF:
                    raise malformed("unpaired surrogate")
                if 0xD800 <= unit <= 0xDBFF:
                    if self.text[self.at : self.at + 2] != "\\u":
                        raise malformed("unpaired surrogate")
                    self.at += 2
                    low = self.unit()
                    if not 0xDC00 <= low <= 0xDFFF:
                        raise malformed("unpaired surrogate")
                    unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                out.append(chr(unit))
            else:
                raise malformed("unknown escape")

    def unit(self) -> int:
        digits = self.text[self.at : self.at + 4]
        if len(digits) != 4 or not _HEX.issuperset(digits):
            raise malformed("escape without four hex digits")
        self.at += 4
        return int(digits, 16)

    def number(self) -> int:
        start = self.at
        while self.peek() in _DIGITS and self.peek():
            self.at += 1
        digits = self.text[start : self.at]
        # A sign, a word such as null, a fraction and an exponent all end here or at the caller's next expectation.
        if not digits:
            raise malformed(f"no value at character {start}")
        if len(digits) > 1 and digits[0] == "0":
            raise malformed("leading zero")
        if len(digits) > 16 or int(digits) > MAX_NUMBER:
            raise malformed("number above 2^53-1")
        return int(digits)


def parse(data: bytes) -> object:
    """The value of a strict JSON text; white space is still allowed here."""
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as err:
        raise malformed("not UTF-8") from err
    parser = _Parser(text)
    parser.space()
    value = parser.value(1)
    parser.space()
    if parser.at != len(text):
        raise malformed("bytes after the value")
    return value


def _string(text: str) -> str:
    out = ['"']
    for char in text:
        if char in _SHORT_OUT:
            out.append(_SHORT_OUT[char])
        elif char < " ":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    out.append('"')
    return "".join(out)


def text_of(value: object) -> str:
    """RFC 8785: members sorted by UTF-16 code units, the shortest escapes, no white space."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return "[" + ",".join(text_of(item) for item in value) + "]"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(_string(name) + ":" + text_of(value[name]) for name in names) + "}"
    raise TypeError(type(value))


def encode(value: object) -> bytes:
    return text_of(value).encode("utf-8")


def read(data: bytes, cap: int) -> object:
    """Length cap, strict JSON, canonical form: in this order."""
    if len(data) > cap:
        raise limit(f"{len(data)} bytes, at most {cap}")
    value = parse(data)
    if encode(value) != data:
        raise Refused("NOT_CANONICAL", "differs from its canonical re-encoding")
    return value
