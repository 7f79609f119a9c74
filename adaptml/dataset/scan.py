"""Looking through texts for what should not be learned: control tokens, placeholders, secrets, personal data.

Two engines, both in time linear in the text, whatever the text is (Python's own `re` can be made to hang): RE2 (Cox
2010, "Regular Expression Matching in the Wild") says what is in a text; Hyperscan (Wang et al. 2019), four times as
fast, only says in which lines something may be. RE2 is linear in one match: it may look on to the end of the text for a
better one, and so only patterns of bounded length are looked for together.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import hyperscan
import re2

from adaptml.dataset.shapes import Finding


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What is looked for. `is_real` sorts out what only looks like it."""

    code: str
    kind: str
    regex: bytes
    sieve: bytes
    """Matches within every match of `regex`, and ends as early as may be."""
    is_real: Callable[[str], bool] = lambda _: True
    runs_on: bool = False
    """May take in much of what stands beside it, and so is looked for by itself: it hides nothing else then."""


_CARDS = [
    re.compile(rf"(?<![0-9])(?=({written})(?![0-9]))", re.ASCII)
    for written in (
        "[2-6][0-9]{12,18}",
        "[2-6][0-9]{3}(?:[ -][0-9]{4}){3}",
        "[2-6][0-9]{3}(?:[ -][0-9]{4}){3}[ -][0-9]{3}",
        "[2-6][0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5}",
    )
]
"""Wherever a number begins, one of a card of a bank or a shop (ISO/IEC 7812-1), in the groups that cards show."""
_DOUBLED = str.maketrans("0123456789", "0246813579")


def _holds_card_number(text: str) -> bool:
    return any(_has_check_digit(match[1]) for card in _CARDS for match in card.finditer(text))


def _has_check_digit(number: str) -> bool:
    """The formula of Luhn, of ISO/IEC 7812-1."""
    digits = number.replace(" ", "").replace("-", "")[::-1]
    return (sum(map(int, digits[::2])) + sum(map(int, digits[1::2].translate(_DOUBLED)))) % 10 == 0


_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_LETTERS = {ord(letter): str(int(letter, 36)) for letter in string.ascii_uppercase}


def _holds_iban(text: str) -> bool:
    """True where some of its words are one: others may stand before and after it."""
    words = text.split(" ")
    return any(_is_iban("".join(words[i:j])) for i in range(len(words)) for j in range(i + 1, len(words) + 1))


def _is_iban(text: str) -> bool:
    """The check digits of ISO 13616: 1 modulo 97."""
    return _IBAN.fullmatch(text) is not None and int((text[4:] + text[:4]).translate(_LETTERS)) % 97 == 1


def _is_reachable(address: str) -> bool:
    """Not a domain that is reserved for documentation and tests (RFC 2606)."""
    domain = address.rpartition("@")[2].lower()
    reserved = (".example.com", ".example.org", ".example.net", ".example", ".test", ".invalid", ".localhost")
    return not f".{domain}".endswith(reserved)


def _is_ssn(text: str) -> bool:
    """Numbers that the US Social Security Administration gives out: no 000, 666 or 9xx, no 00, no 0000."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_phone(text: str) -> bool:
    """International form with 8 to 15 digits (ITU-T E.164)."""
    return 8 <= sum(map(str.isdigit, text)) <= 15


_SECRET, _PERSONAL = "likely_secret", "likely_personal_data"
_PATTERNS = (
    _Pattern("unfilled_placeholder", "placeholder", rb"\{\{ *[A-Za-z_][A-Za-z0-9_ .-]{0,60}\}\}", rb"\{\{ *[A-Za-z_]"),
    _Pattern(_SECRET, "private key", rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY", rb"-----BEGIN "),
    _Pattern(_SECRET, "AWS access key", rb"A(?:KIA|SIA)[0-9A-Z]{16}", rb"A(?:KIA|SIA)[0-9A-Z]{16}"),
    _Pattern(
        _SECRET,
        "GitHub token",
        rb"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60}",
        rb"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60}",
    ),
    _Pattern(_SECRET, "Google API key", rb"AIza[0-9A-Za-z_-]{35}", rb"AIza[0-9A-Za-z_-]{35}"),
    _Pattern(_SECRET, "Slack token", rb"xox[abeoprs]-[A-Za-z0-9-]{10}", rb"xox[abeoprs]-[A-Za-z0-9-]{10}"),
    _Pattern(_SECRET, "Stripe key", rb"[rs]k_live_[0-9a-zA-Z]{16}", rb"[rs]k_live_[0-9a-zA-Z]{16}"),
    _Pattern(_SECRET, "API key", rb"sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32}", rb"sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32}"),
    _Pattern(_SECRET, "Hugging Face token", rb"hf_[A-Za-z0-9]{30}", rb"hf_[A-Za-z0-9]{30}"),
    _Pattern(
        _SECRET,
        "JSON web token",
        rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
        rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ",
        runs_on=True,
    ),
    _Pattern(
        _PERSONAL,
        "e-mail address",
        rb"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
        rb"[A-Za-z0-9._%+-]@[A-Za-z0-9-]",
        _is_reachable,
        runs_on=True,
    ),
    _Pattern(
        _PERSONAL,
        "card number",
        rb"[0-9](?:[ -]?[0-9]){12,}",
        rb"[0-9](?:[ -]?[0-9]){12}",
        _holds_card_number,
        runs_on=True,
    ),
    _Pattern(
        _PERSONAL,
        "IBAN",
        rb"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?",
        rb"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2}",
        _holds_iban,
        runs_on=True,
    ),
    _Pattern(
        _PERSONAL,
        "US social security number",
        rb"[0-9]{3}-[0-9]{2}-[0-9]{4}",
        rb"[0-9]{3}-[0-9]{2}-[0-9]{4}",
        _is_ssn,
    ),
    _Pattern(
        _PERSONAL,
        "phone number",
        rb"\B\+[0-9][0-9 ().-]{6,18}[0-9]",  # with a letter or a digit before it, it is a sum
        rb"\+[0-9][0-9 ().-]{6}",
        _is_phone,
        runs_on=True,
    ),
)

_SPACE = (
    rb"(?:[ \t]|\\[tnrfv]|\\u(?:00[01189aA][0-9a-fA-F]|1680|20[0-9a-fA-F]{2}|3000)"
    rb"|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)"
)
"""White space in a JSON text, as `str.isspace` understands it."""
_EMPTY, _BEGINS_BLANK = rb'[^\\]""', rb'[^\\]"' + _SPACE
"""With what stands before them, since an escaped quote at the end of a text opens none."""
_REST_IS_BLANK = re.compile(_SPACE + rb'*+"')
ESCAPED_ASCII = rb"\\u00[2-7]"
"""A printable sign written as an escape could hide any pattern; no encoder writes it without need."""


@lru_cache(maxsize=16)
def scanner(control_tokens: tuple[str, ...]) -> Scanner:
    """The scanner for texts of a model with these control tokens."""
    return Scanner(control_tokens)


class Scanner:
    """All patterns, compiled. Threads may share it."""

    def __init__(self, control_tokens: tuple[str, ...]) -> None:
        together = [pattern for pattern in _PATTERNS if not pattern.runs_on]
        control = [b"|".join(re.escape(token).encode() for token in control_tokens)] if control_tokens else []
        alone = [([p.regex], [p]) for p in _PATTERNS if p.runs_on]
        searches = [([*[p.regex for p in together], *control], together), *alone]
        self._searches = [(_any_of(regexes), patterns) for regexes, patterns in searches]
        self._any = _any_of([*[p.regex for p in _PATTERNS], *control])
        self._sieves = [*[p.sieve for p in _PATTERNS], ESCAPED_ASCII, *map(_in_json, control_tokens)]

    @cached_property
    def _sieve(self) -> Sieve:
        return Sieve(self._sieves)

    @cached_property
    def _sieve_with_blanks(self) -> Sieve:
        return Sieve([*self._sieves, _EMPTY], _BEGINS_BLANK, _REST_IS_BLANK)

    def suspicious(self, json_lines: bytes, *, blanks: bool) -> list[int]:
        """Offsets in JSON text where something may have to be said; nothing has to be said of what lies elsewhere.

        With `blanks`, texts without a visible sign are among it.
        """
        return (self._sieve_with_blanks if blanks else self._sieve).offsets(json_lines)

    def findings(self, text: str, pointer: str) -> Iterator[Finding]:
        """What is in a text: each kind once, without the text itself."""
        content = text.encode("utf-8", "replace")
        for regex, patterns in self._searches if self._any.search(content) else ():
            seen = set()
            for match in regex.finditer(content):
                number = match.lastindex - 1
                if number in seen:
                    continue
                found = match.group().decode("utf-8", "replace")
                if number == len(patterns):
                    seen.add(number)
                    yield Finding("special_token_in_content", pointer, {"token": found})
                elif patterns[number].is_real(found):
                    seen.add(number)
                    yield Finding(patterns[number].code, pointer, {"kind": patterns[number].kind})


class Sieve:
    """Finds out quickly where one of many patterns may match, or one that goes on with what `rest` matches.

    Looking for what few texts begin with costs nothing beside the patterns; for all of it, half as much again.
    """

    def __init__(self, patterns: list[bytes], beginning: bytes | None = None, rest: re.Pattern[bytes] | None = None):
        expressions = [*patterns, *([beginning] if beginning is not None else [])]
        self._beginning, self._rest = len(patterns), rest
        self._database = hyperscan.Database()
        self._database.compile(expressions=expressions, ids=range(len(expressions)), flags=[0] * len(expressions))

    def offsets(self, content: bytes) -> list[int]:
        """The last byte of each match."""
        ends: list[int] = []
        beginning, rest = self._beginning, self._rest

        def note(pattern: int, _start: int, end: int, _flags: int, _context: object) -> None:
            if pattern != beginning or rest is None or rest.match(content, end):
                ends.append(end - 1)

        # What a scan works in cannot be shared by two.
        self._database.scan(content, match_event_handler=note, scratch=hyperscan.Scratch(self._database))
        return ends


def _in_json(token: str) -> bytes:
    """A token as it may stand in JSON: each sign as it is, or escaped where that is usual."""
    return b"".join(map(_sign_in_json, token))


def _sign_in_json(sign: str) -> bytes:
    plain, escaped = (re.escape(json.dumps(sign, ensure_ascii=is_ascii)[1:-1]).encode() for is_ascii in (False, True))
    if sign == "/":
        return rb"\\?/"
    return plain if plain == escaped else b"(?:%s|(?i:%s))" % (plain, escaped)


def _any_of(regexes: list[bytes]) -> re2._Regexp:
    """The number of the group is that of the regex, from 1."""
    return compiled(b"|".join(b"(%s)" % regex for regex in regexes))


def compiled(regex: bytes) -> re2._Regexp:
    """For bytes, in time linear in them."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # byte by byte: what is not UTF-8 is the decoder's to say
    options.max_mem = 64 * 1024 * 1024
    options.log_errors = False
    return re2.compile(regex, options)
