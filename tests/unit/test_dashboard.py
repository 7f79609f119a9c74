from __future__ import annotations

import io
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.api_core.exceptions import ServiceUnavailable
from google.auth import jwt
from google.auth.crypt import es256
from streamlit.testing.v1 import AppTest

from adaptml import playground
from adaptml.aliases import Numbered
from adaptml.objects import PinnedObject
from adaptml.runs.queries import Page
from dashboard import drop, form, session, viewer, words
from dashboard.drop import Draft, uploaded
from dashboard.form import Settings
from dashboard.viewer import NotAllowed, Viewer
from dashboard.views import playground as shown_playground
from dashboard.views import run as shown_run
from schemas import layout
from schemas.ledger import Account
from schemas.manifest_reading import parse_manifest
from schemas.playground import Answers, Question
from schemas.run import Run, Source, Version
from schemas.run_states import RunState
from tests.cloud import MODEL, ROOT, chat_rows
from tests.unit.test_image import pins

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
AUDIENCE = "/projects/1/global/backendServices/2"


def _key() -> tuple[Any, str]:
    """(what signs, the public key as the proxy gives it)."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return es256.EsSigner.from_string(pem, "k1"), public.decode()


SIGNER, PUBLIC = _key()


def _token(**claims: Any) -> str:
    said = {"iss": viewer.ISSUER, "aud": AUDIENCE, "email": "Ann@example.com", "sub": "1"}
    now = int(time.time())
    encoded: bytes = jwt.encode(SIGNER, said | {"iat": now - 5, "exp": now + 600} | claims)
    return encoded.decode()


def test_who_signed_in_is_whom_the_proxy_names() -> None:
    assert viewer.signed_in(_token(), {"k1": PUBLIC}, AUDIENCE) == "ann@example.com"
    prefixed = _token(email="accounts.google.com:ann@example.com")
    assert viewer.signed_in(prefixed, {"k1": PUBLIC}, AUDIENCE) == "ann@example.com"


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "no token",
        _token(aud="/projects/1/global/backendServices/3"),
        _token(iss="https://accounts.google.com"),
        _token(email=None),
        _token(iat=int(time.time()) - 7200, exp=int(time.time()) - 3600),
    ],
)
def test_what_the_proxy_has_not_said_is_not_believed(token: str | None) -> None:
    with pytest.raises(NotAllowed):
        viewer.signed_in(token, {"k1": PUBLIC}, AUDIENCE)


def test_a_token_that_somebody_else_signed_is_not_believed() -> None:
    _, another = _key()
    with pytest.raises(NotAllowed):
        viewer.signed_in(_token(), {"k1": another}, AUDIENCE)


def test_members_see_their_tenants_and_write_where_they_are_writers() -> None:
    found = viewer.member("ann@example.com", {"ann@example.com": {"globex": "reader", "acme": "writer"}})
    assert found.tenants == ["acme", "globex"]
    assert (found.may_write("acme"), found.may_write("globex"), found.may_see("initech")) == (True, False, False)
    with pytest.raises(NotAllowed):
        viewer.member("eve@example.com", {"ann@example.com": {"acme": "writer"}})


def test_the_form_is_a_manifest_that_means_what_the_form_shows() -> None:
    chosen = Settings(
        base_model=MODEL, train=["a: b.jsonl"], validation=["val.jsonl"], method="lora", epochs=2.5,
        learning_rate=1e-3,
        r=64, target_modules="all-linear", max_seq_length=512, overlong="drop", train_on="all",
        batch_size=8, patience=2,
        on_invalid_row="quarantine", max_cost_usd=0.5,
    )  # fmt: skip
    defaults = b"training: {max_seq_length: 4096, epochs: 9}\nlora: {r: 4}\n"
    read = parse_manifest(form.manifest_text(chosen).encode(), file="manifest.yaml", folder="x", defaults=defaults)
    assert (read.dataset.train, read.dataset.validation) == (["a: b.jsonl"], ["val.jsonl"])
    assert (read.lora.r, read.lora.alpha, read.lora.target_modules) == (64, 128, "all-linear")
    assert (read.training.epochs, read.training.max_seq_length, read.training.batch_size) == (2.5, 512, 8)
    assert read.training.early_stopping is not None
    assert read.compute.max_cost_usd == 0.5


def test_a_drop_gets_a_name_from_its_data() -> None:
    assert form.folder_of(["train.jsonl", "Kettle Desk.v2.jsonl.gz"]) == "kettle-desk"
    assert form.folder_of(["train.jsonl"]) == "my-adapter"


class _Bucket:
    """Remembers in which order it was written."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []

    def upload(self, _: str, name: str, stream: io.BytesIO) -> int:
        self.written.append((name, stream.read()))
        return len(self.written)

    def pin(self, *_: str) -> PinnedObject | None:
        return None


def test_data_is_copied_first_and_the_manifest_names_the_run() -> None:
    bucket = _Bucket()
    services: Any = SimpleNamespace(objects=bucket, settings=SimpleNamespace(drops_bucket="drops"))
    files = {name: uploaded(name, chat_rows(12).encode()) for name in ("train.jsonl", "unused.jsonl")}
    draft = Draft("acme", "desk", form.manifest_text(Settings(MODEL, ["train.jsonl"])), files)
    found = drop.check(draft, None, lambda _: None)
    assert found.is_accepted
    run_id = drop.submit(services, draft, found.manifest)
    assert [name for name, _ in bucket.written] == ["acme/desk/train.jsonl", "acme/desk/manifest.yaml"]
    assert run_id == layout.run_id("acme", "desk", "drops", "acme/desk/manifest.yaml", "2")


@pytest.mark.parametrize("folder", ["../globex", "a/b", "", "Desk"])
def test_a_drop_stays_in_a_folder_of_its_tenant(folder: str) -> None:
    draft = Draft("acme", folder, "", {})
    with pytest.raises(ValueError, match="name"):
        drop.submit(SimpleNamespace(settings=None), draft, None)  # type: ignore[arg-type]


def test_times_are_said_as_people_say_them() -> None:
    assert words.ago(NOW - timedelta(seconds=12), NOW) == "12 s ago"
    assert words.ago(NOW - timedelta(days=2), NOW) == "2 days ago"
    assert words.span(3725) == "1 h 2 min"
    assert words.money(0.0042) == "$0.0042"
    assert words.size(14_700_000) == "14.7 MB"


def _run(name: str, **fields: Any) -> Run:
    plain = {"state": RunState.TRAINING, "state_reason": "started", "tenant": "acme", "name": name, "folder": name}
    times = dict.fromkeys(("created_at", "updated_at", "state_since"), NOW)
    return Run(run_id=f"acme-{name}", source=Source(bucket="drops"), **(plain | times | fields))


class _Queries:
    runs: list[Run]

    def of_tenant(self, tenant: str, **_: Any) -> Page:
        if not self.runs:
            raise ServiceUnavailable("projects/secret-project is away")
        return Page([run for run in self.runs if run.tenant == tenant], has_more=False)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> tuple[AppTest, _Queries]:
    """The whole page over services of ours."""
    queries = _Queries()
    ledger = SimpleNamespace(account=lambda tenant: Account(tenant=tenant))
    services = SimpleNamespace(runs=SimpleNamespace(queries=queries, ledger=ledger, find=lambda _: None))
    monkeypatch.setattr(session, "services", lambda: services)
    monkeypatch.setenv(viewer.OPEN_TO, "acme")
    return AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60), queries


def test_names_and_reasons_that_others_wrote_are_escaped(page: tuple[AppTest, _Queries]) -> None:
    test, queries = page
    hostile = "<img src=x onerror=hurt()> [x](javascript:hurt())"
    queries.runs = [_run("desk", state_reason=hostile, folder=hostile)]
    test.run()
    assert not test.exception
    drawn = "".join(str(element.proto) for element in test.main if hasattr(element, "proto"))
    assert "onerror" in drawn
    assert "<img" not in drawn.replace("\\<img", "")


def test_a_run_that_is_called_anything_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "![x](https://evil.example/p.png) <img src=x onerror=hurt()>"
    called = _run("desk", state_reason=hostile).model_copy(update={"name": hostile})
    monkeypatch.setattr(shown_run, "RUN", called, raising=False)
    runs = SimpleNamespace(curve=lambda _: [], events=lambda _: [])
    monkeypatch.setattr(session, "services", lambda: SimpleNamespace(runs=runs))
    monkeypatch.setenv(viewer.OPEN_TO, "acme")

    def page() -> None:
        from dashboard.views import run

        run._show(run.RUN)  # type: ignore[attr-defined]

    test = AppTest.from_function(page, default_timeout=60).run()
    assert not test.exception
    assert test.title[0].value.startswith("\\!\\[x\\]")
    assert "<img" not in "".join(str(one.proto) for one in test.main if hasattr(one, "proto")).replace("\\\\<img", "")


def test_a_service_that_does_not_answer_is_said_so_without_its_words(page: tuple[AppTest, _Queries]) -> None:
    test, queries = page
    queries.runs = []
    test.run()
    assert not test.exception
    assert "did not answer" in test.error[0].value
    assert "secret-project" not in test.error[0].value


def test_without_a_sign_in_and_without_a_setting_nothing_is_shown(
    page: tuple[AppTest, _Queries], monkeypatch: pytest.MonkeyPatch
) -> None:
    test, queries = page
    queries.runs = [_run("desk")]
    monkeypatch.delenv(viewer.OPEN_TO)
    monkeypatch.delenv(viewer.AUDIENCE, raising=False)
    test.run()
    assert test.title[0].value == "Nothing to see"
    monkeypatch.setenv(viewer.AUDIENCE, AUDIENCE)
    monkeypatch.setattr(session, "_certificates", lambda: {"k1": PUBLIC})
    test.run()
    assert test.title[0].value == "Nothing to see"


def test_a_reader_may_look_and_nothing_else() -> None:
    assert not Viewer("bob@example.com", {"acme": "reader"}).may_write("acme")


class _Service:
    """The playground's, which says what it is told to say."""

    def __init__(self, status: int, said: Any) -> None:
        self.ok, self.status_code, self._said = status < 400, status, said

    def json(self) -> Any:
        if self._said is None:
            raise ValueError("no JSON")
        return self._said


QUESTION = Question(tenant="acme", name="desk", version=2, prompt="My kettle leaks.")


def test_all_that_is_set_on_the_page_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "tenant", lambda: "acme")
    one = Numbered(Version(version=3, run_id="acme-desk", claimed_at=NOW), _run("desk"))
    asked = shown_playground._question(one, "My kettle leaks.", "Be short.", 24)
    assert asked == Question(
        tenant="acme", name="desk", version=3, prompt="My kettle leaks.", system="Be short.", max_new_tokens=24
    )


def test_both_answers_come_from_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def post(url: str, **sent: Any) -> _Service:
        asked.append((url, sent["json"], sent["headers"]))
        return _Service(200, {"base": "a", "adapter": "b", "seconds": 1.5})

    monkeypatch.setattr(playground.requests, "post", post)
    assert playground.ask("http://127.0.0.1:1", QUESTION) == Answers(base="a", adapter="b", seconds=1.5)
    url, body, headers = asked[0]
    assert (url, headers) == ("http://127.0.0.1:1/answer", {})
    assert Question.model_validate(body).version == 2  # what the page sends is what the service takes
    monkeypatch.setattr(playground, "_token", lambda audience: f"for {audience}")
    playground.ask("https://playground.run.app", QUESTION)
    assert asked[1][2] == {"Authorization": "Bearer for https://playground.run.app"}


@pytest.mark.parametrize(
    ("status", "said", "told"), [(409, {"error": "v2 is not there"}, "v2 is not there"), (502, None, "502")]
)
def test_a_service_that_cannot_answer_says_why(
    status: int, said: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playground.requests, "post", lambda *_, **__: _Service(status, said))
    with pytest.raises(playground.Unanswered, match=told):
        playground.ask("http://127.0.0.1:1", QUESTION)


def test_a_service_that_is_away_is_said_so() -> None:
    with pytest.raises(playground.Unanswered, match="does not answer"):
        playground.ask("http://127.0.0.1:1", QUESTION)


def test_what_page_and_functions_both_need_is_pinned_alike() -> None:
    page, functions = pins("dashboard/requirements.txt"), pins("functions/requirements.txt")
    assert {name: pin for name, pin in page.items() if name in functions} == {
        name: pin for name, pin in functions.items() if name in page
    }
    assert page["streamlit"][1]
