from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset.scan import Scanner, scanner
from tests.unit.rows import CONTROL, odd_text

FOREIGN = ("<｜end▁of▁turn｜>", "</s>", '<"quoted">')
"""Control tokens that JSON may write in more than one way."""

PLACEHOLDERS = ["{{name}}", "Dear {{ first_name }},", "{{user.name}}", "{{A-1}}", "a{{{x}}}"]
NO_PLACEHOLDERS = ["{name}", "{{}}", "{{1}}", "{{ }}", "{{a\nb}}", "{{name}", "f(x) = {{1, 2}, {3}}", "{%x%}"]
SECRETS = {
    "private key": ["-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----", "-----BEGIN OPENSSH PRIVATE KEY"],
    "AWS access key": ["AKIAIOSFODNN7EXAMPLE", "id=ASIAIOSFODNN7EXAMPLE;"],
    "GitHub token": ["ghp_" + "a1B2" * 9, "gho_" + "a1B2" * 9, "github_pat_" + "a1B_" * 15],
    "Google API key": ["AIza" + "Sy-_a" * 7],
    "Slack token": ["xoxb-1234567890-abcdef"],
    "Stripe key": ["sk_live_" + "4eC39HqLyjWDarjt", "rk_live_" + "4eC39HqLyjWDarjt"],
    "API key": ["sk-" + "a1B2" * 8, "sk-ant-" + "a1B2" * 8, "sk-proj-" + "a1_-" * 8],
    "Hugging Face token": ["hf_" + "aBcDe" * 6],
    "JSON web token": ["eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeKKF2QT4"],
}
NO_SECRETS = [
    "-----BEGIN PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----",
    "AKIA",
    "AKIAshortlower",
    "ghp_short",
    "github_pattern",
    "xoxo-xoxo",
    "sk_test_4eC39HqLyjWDarjt",
    "task-force-of-many-people",
    "sk-short",
    "hf_transfer",
    "eyJ is how a token begins",
]
PERSONAL = {
    "e-mail address": ["ann@mail.test.org", "Ann.B+c@sub-domain.co.uk", "write to <a_b@x.de>.", "bob@notexample.com"],
    "card number": [
        *("4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "card 378282246310005."),
        *("x4111111111111111", "3782 822463 10005", "12 4111 1111 1111 1111", "7 4111111111111111 9"),
        "2024-01-31 4111 1111 1111 1111",
        *("4111 1111 1111 1111 123", "1234 4111 1111 1111 1111", "+1 4111111111111111", "378282246310005 12/26"),
    ],
    "IBAN": [
        *("DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO9386011117947"),
        *("DE89 3704 0044 0532 0130 00 BANK", "BE68539007547034 KBC1", "BE68 5390 0754 7034 BANK OF GHENT"),
        *("AB12 DE89 3704 0044 0532 0130 00", "DE89370400440532013000 ABCD EFGH"),
    ],
    "US social security number": ["078-05-1120", "My SSN is 219-09-9999."],
    "phone number": ["+49 30 1234567", "+1 (212) 555-0100", "+442079460000"],
}
NOT_PERSONAL = [
    "ann@example.com",
    "ann@mail.example.org",
    "ann@EXAMPLE.NET",
    "ann@host.test",
    "ann@site.invalid",
    "ann@localhost",
    "me@home",
    "@decorator",
    "a @ b.com",
    "x@y.1",
    "4111111111111112",
    "4111 1111 1111 1112",
    "0000 0000 0000 0000",
    "99994111111111111111",
    "1990 1991 1992 1993 1994 1995 1996 1997 1998 1999 2000 2001 2002 2003",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29",
    "123456789012",
    "DE89 3704 0044 0532 0130 01",
    "GB82WEST12345698765431",
    "DE00 is no IBAN",
    "000-12-3456",
    "666-12-3456",
    "900-12-3456",
    "123-00-4567",
    "123-45-0000",
    "12-345-6789",
    "+1 23",
    "+1234567",
    "x+10000000",
    "2+10000000",
    "DE89 3704 0044 0532 0130 01 BANK",
    "1 + 2 = 3",
    "2024-01-31",
    "version 1.2.3-4",
]


def found(text: str, tokens: tuple[str, ...] = CONTROL) -> list[tuple[str, str]]:
    """(code, kind or token) of all that is in a text."""
    return [(f.code, str(f.values.get("kind") or f.values["token"])) for f in scanner(tokens).findings(text, "/text")]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_an_unfilled_placeholder_is_found(text: str) -> None:
    assert found(text) == [("unfilled_placeholder", "placeholder")]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SECRETS.items() for text in texts])
def test_what_looks_like_a_secret_is_found_with_its_kind(kind: str, text: str) -> None:
    assert found(f"My secret: {text}\n") == [("likely_secret", kind)]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts])
def test_what_looks_like_personal_data_is_found_with_its_kind(kind: str, text: str) -> None:
    assert found(f"Of Ann: {text}\n") == [("likely_personal_data", kind)]


@pytest.mark.parametrize("text", NO_PLACEHOLDERS + NO_SECRETS + NOT_PERSONAL)
def test_what_only_looks_like_it_is_not_reported(text: str) -> None:
    assert found(text) == []
    assert found(f"see {text}.") == []


@pytest.mark.parametrize("tokens", [CONTROL, FOREIGN])
def test_control_tokens_are_found_once_and_named(tokens: tuple[str, ...]) -> None:
    for token in tokens:
        assert found(f"a{token}b{token}", tokens) == [("special_token_in_content", token)]
        assert found(token[:-1] + " " + token[1:], tokens) == []
        assert found(token, ()) == []


def test_a_signs_of_a_regular_expression_in_a_token_are_taken_literally() -> None:
    assert found("[INST]", ("[INST]",)) == [("special_token_in_content", "[INST]")]
    assert found("I", ("[INST]", "<.*>")) == []


def test_each_kind_is_told_once_with_the_place_and_without_the_text() -> None:
    text = "ann@mail.org bob@mail.org {{name}} {{place}} AKIAIOSFODNN7EXAMPLE"
    findings = list(scanner(CONTROL).findings(text, "/messages/0/content"))
    assert [f.code for f in findings] == ["unfilled_placeholder", "likely_secret", "likely_personal_data"]
    assert {f.field for f in findings} == {"/messages/0/content"}
    assert not [value for f in findings for value in f.values.values() if value in text]


def test_a_real_one_behind_one_that_only_looks_like_it_is_found() -> None:
    assert found("ann@example.com, ann@mail.org") == [("likely_personal_data", "e-mail address")]
    assert found("4111111111111112, 4111111111111111") == [("likely_personal_data", "card number")]


def test_a_text_that_cannot_be_written_as_utf_8_is_searched_too() -> None:
    assert found("\ud800 ann@mail.org") == [("likely_personal_data", "e-mail address")]


MILLION = 1_000_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part",
    [
        *("4", "1 2 3 4 5 6 7 8 9 ", "4111 ", "4111 4111 4111 4112, ", "AB12 ", "DE89 3704 0044 0532 0130 01 ", "-"),
        *("000-05-1120", "eyJaaaaaaaaAKIAIOSFODNN7EXAMPLE", "eyJaaaaaaaa.", "a@example.com", "a@b.c.1.1.", "a.b@"),
        *("+1 234", "+123456 ", "sk-", "{{a ", "-----BEGIN AAAA ", "<|im_start|>"),
    ],
)
def test_a_long_text_is_searched_in_time_that_grows_with_it_whatever_it_is(part: str) -> None:
    list(scanner(CONTROL).findings(part * (MILLION // len(part)), "/text"))


# What the scanner of whole files must not miss

TRIGGERS = [
    *PLACEHOLDERS,
    *NO_PLACEHOLDERS,
    *(text for texts in (SECRETS | PERSONAL).values() for text in texts),
    *NO_SECRETS,
    *NOT_PERSONAL,
    "<|im_",
    "\\",
    '"',
    "\n",
    "é",
]


SHARES = (0.0, 0.0, 0.0, 0.05, 0.5, 1.0)


@given(rng=st.randoms(use_true_random=True), tokens=st.sampled_from([CONTROL, FOREIGN, ()]))
@settings(max_examples=400, deadline=None)
def test_lines_in_which_nothing_is_suspicious_hold_nothing_that_would_be_told(
    rng: Random, tokens: tuple[str, ...]
) -> None:
    texts = [
        "".join(rng.choice(rng.choice([TRIGGERS, CONTROL, FOREIGN])) for _ in range(rng.randrange(4))) for _ in range(5)
    ]
    lines = [f'{{"text": {odd_text(text, rng, (rng.choice(SHARES), rng.choice(SHARES)))}}}'.encode() for text in texts]
    assert [json.loads(line)["text"] for line in lines] == texts
    suspicious = suspicious_lines(scanner(tokens), lines, blanks=False)
    for number, text in enumerate(texts):
        assert number in suspicious or not found(text, tokens)


@given(token=st.sampled_from(FOREIGN), rng=st.randoms(use_true_random=True), share=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_control_token_is_suspicious_however_it_is_written(token: str, rng: Random, share: float) -> None:
    line = f'{{"text": {odd_text(f"a{token}b", rng, (0.0, share))}}}'
    assert suspicious_lines(scanner(FOREIGN), [b'{"text": "x"}', line.encode()], blanks=False) >= {1}


SPACES = [chr(sign) for sign in range(0x3001) if chr(sign).isspace()]


@given(
    signs=st.lists(st.sampled_from(SPACES), max_size=3),
    rng=st.randoms(use_true_random=True),
    shares=st.tuples(st.sampled_from(SHARES), st.sampled_from(SHARES)),
    before=st.sampled_from(["", '"said \\"": "a\\\\", ', '"": "", ']),
)
@settings(max_examples=150, deadline=None)
def test_a_blank_text_is_suspicious_however_its_white_space_is_written(
    signs: list[str], rng: Random, shares: tuple[float, float], before: str
) -> None:
    line = f'{{{before}"text": {odd_text("".join(signs), rng, shares)}}}'
    assert json.loads(line)["text"] == "".join(signs)
    assert suspicious_lines(scanner(CONTROL), [b'{"text": "x"}', line.encode()], blanks=True) >= {1}


@pytest.mark.parametrize("line", [b'{"text": "an ordinary text"}', b'{"a": "say \\"\\" or \\" \\"", "b": "c\\\\"}'])
def test_an_ordinary_line_is_not_suspicious(line: bytes) -> None:
    assert suspicious_lines(scanner(CONTROL), [line], blanks=True) == set()


def suspicious_lines(search: Scanner, lines: list[bytes], *, blanks: bool) -> set[int]:
    """Numbers of the lines that have to be examined."""
    data = b"\n".join(lines)
    return {data.count(b"\n", 0, offset) for offset in search.suspicious(data, blanks=blanks)}
