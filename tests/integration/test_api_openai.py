"""OpenAI's own client, as it is, with this API's address."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
import requests

from schemas.run_states import RunState
from tests.cloud import MODEL, TestCloud, chat_rows, eventually


@pytest.fixture
def client(cloud: TestCloud) -> Iterator[openai.OpenAI]:
    address = f"{cloud.environment['ADAPTML_API_URL']}/v1"
    with openai.OpenAI(base_url=address, api_key=cloud.environment["ADAPTML_API_TOKEN"], max_retries=0) as made:
        yield made


def test_a_file_a_job_its_events_and_its_end(cloud: TestCloud, client: openai.OpenAI) -> None:
    file = client.files.create(file=("train.jsonl", chat_rows(12).encode()), purpose="fine-tune")
    assert (file.filename, file.bytes, file.status) == ("train.jsonl", len(chat_rows(12)), "uploaded")
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        suffix="by-openai",
        seed=7,
        metadata={"team": "support"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )
    assert (job.status, job.model, job.training_file, job.seed) == ("validating_files", MODEL, file.id, 7)
    assert job.hyperparameters.n_epochs == 1
    assert client.fine_tuning.jobs.retrieve(job.id).id == job.id
    assert cloud.wait(job.id, RunState.SUCCEEDED).state is RunState.SUCCEEDED

    ended = client.fine_tuning.jobs.retrieve(job.id)
    assert (ended.status, ended.fine_tuned_model, ended.error) == ("succeeded", "by-openai:v1", None)
    assert ended.metadata == {"team": "support"}
    assert ended.trained_tokens
    told = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert told[0].startswith("SUCCEEDED: version v1 is ready")
    assert told[-1].startswith("RECEIVED: ")
    assert len(told) > 4
    assert job.id in [one.id for one in client.fine_tuning.jobs.list(limit=1)]
    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).owned_by == "HuggingFaceTB"


def test_a_job_is_cancelled_before_it_is_done(cloud: TestCloud, client: openai.OpenAI) -> None:
    """Its data is not there yet: it waits, and ends at once."""
    job = client.fine_tuning.jobs.create(model=MODEL, training_file="later/train.jsonl", suffix="cancelled")
    eventually(lambda: cloud.services.runs.get(job.id).state is RunState.AWAITING_DATA)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"


def test_files_are_listed_read_and_deleted(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{i} é.jsonl", chat_rows(i).encode()), purpose="fine-tune") for i in range(1, 4)]
    listed = list(client.files.list(limit=2))
    assert [file.id for file in listed][:3] == [file.id for file in reversed(made)]
    assert client.files.content(made[0].id).read() == chat_rows(1).encode()
    assert client.files.delete(made[0].id).deleted
    with pytest.raises(openai.NotFoundError) as gone:
        client.files.retrieve(made[0].id)
    assert gone.value.code == "unknown_file"


def test_a_large_file_is_sent_to_the_bucket_itself(cloud: TestCloud, client: openai.OpenAI) -> None:
    upload = client.post("/file_uploads", body={"filename": "large.jsonl"}, cast_to=dict[str, object])
    headers = upload["headers"]
    assert isinstance(headers, dict)
    sent = requests.put(str(upload["url"]), data=chat_rows(12), headers=headers, timeout=30)
    assert sent.ok, sent.text
    assert client.files.retrieve(str(upload["id"])).bytes == len(chat_rows(12))
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=str(upload["id"]), suffix="large")
    assert cloud.wait(job.id, RunState.SUCCEEDED).state is RunState.SUCCEEDED


def test_what_is_wrong_is_said_in_the_projects_own_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as unknown:
        client.fine_tuning.jobs.create(model="gpt-4o", training_file="x.jsonl")
    error = unknown.value
    assert (error.code, error.param, error.type) == ("unknown_base_model", "model", "invalid_request_error")
    assert isinstance(error.body, dict)
    assert error.body["hint"]
    with pytest.raises(openai.BadRequestError) as preference:
        client.fine_tuning.jobs.create(model=MODEL, training_file="x.jsonl", method={"type": "dpo"})
    assert preference.value.code == "unsupported_method"
    with pytest.raises(openai.NotFoundError) as missing:
        client.fine_tuning.jobs.create(model=MODEL, training_file="file-" + "0" * 23)
    assert (missing.value.code, missing.value.param) == ("unknown_file", "training_file")


def test_a_key_names_one_job_however_often_it_is_sent(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "nightly-2026-11-25"}
    asked = {"model": MODEL, "training_file": "later/nightly.jsonl", "suffix": "nightly-api"}
    jobs = [client.fine_tuning.jobs.create(**asked, extra_headers=key) for _ in range(3)]  # type: ignore[arg-type]
    assert len({job.id for job in jobs}) == 1
    with pytest.raises(openai.ConflictError) as other:
        client.fine_tuning.jobs.create(**asked | {"seed": 1}, extra_headers=key)  # type: ignore[arg-type]
    assert other.value.code == "idempotency_key_reused"
    client.fine_tuning.jobs.cancel(jobs[0].id)


def test_a_wrong_key_opens_nothing(cloud: TestCloud) -> None:
    address = f"{cloud.environment['ADAPTML_API_URL']}/v1"
    stranger = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.fine_tuning.jobs.list()
    assert refused.value.code == "unauthenticated"
    assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
    assert "wrong" not in json.dumps(refused.value.body)
