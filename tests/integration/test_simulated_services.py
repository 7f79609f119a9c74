"""The services in memory that the simulation plays with answer as the emulators do."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from google.api_core.exceptions import AlreadyExists, FailedPrecondition, NotFound, PreconditionFailed
from google.cloud import firestore
from google.cloud import storage as cloud_storage
from google.cloud.firestore_v1.base_query import FieldFilter

from adaptml.objects import ObjectGone, ObjectStore
from tests.cloud import ARTIFACTS, PROJECT, TestCloud
from tests.simulation import firestore as simulated
from tests.simulation import storage as simulated_storage
from tests.simulation.world import World


@pytest.fixture(params=["emulator", "simulated"])
def documents(cloud: TestCloud, request: pytest.FixtureRequest) -> Any:
    if request.param == "emulator":
        return firestore.Client(project=PROJECT)
    return simulated.Client(simulated.Database(World(0)))


@pytest.fixture(params=["emulator", "simulated"])
def objects(cloud: TestCloud, request: pytest.FixtureRequest) -> Any:
    if request.param == "emulator":
        return cloud_storage.Client(project=PROJECT)
    return simulated_storage.Client(simulated_storage.Storage(World(0)))


def test_a_batch_happens_whole_or_not_at_all(documents: Any) -> None:
    some = documents.collection(f"some-{uuid4().hex}")
    some.document("there").create({"n": 1})
    batch = documents.batch()
    batch.set(some.document("other"), {"n": 2})
    batch.create(some.document("there"), {"n": 3})
    with pytest.raises(AlreadyExists):
        batch.commit()
    assert not some.document("other").get().exists
    assert some.document("there").get().to_dict() == {"n": 1}


def test_a_write_is_refused_of_a_document_that_was_written_since(documents: Any) -> None:
    one = documents.collection(f"some-{uuid4().hex}").document("one")
    one.set({"n": 1, "m": 1})
    seen = one.get().update_time
    one.update({"n": 2}, option=documents.write_option(last_update_time=seen))
    with pytest.raises(FailedPrecondition):
        one.update({"n": 3}, option=documents.write_option(last_update_time=seen))
    assert one.get().to_dict() == {"n": 2, "m": 1}


def test_a_query_by_a_time_leaves_out_what_has_none(documents: Any) -> None:
    some = documents.collection(f"some-{uuid4().hex}")
    for name, at in (("none", None), ("late", 3), ("due", 2), ("first", 1)):
        some.document(name).set({"at": at})
    some.document("without").set({"n": 1})
    query = some.where(filter=FieldFilter("at", "<=", 2)).order_by("at").limit(5)
    assert [one.id for one in query.stream()] == ["first", "due"]


def test_a_query_by_a_field_within_a_field_takes_what_begins_so(documents: Any) -> None:
    some = documents.collection(f"some-{uuid4().hex}")
    for name, saved in (("a", "x/1/s"), ("b", "x/1"), ("c", "x/10/s"), ("d", "x/1/"), ("e", "x/0/s")):
        some.document(name).set({"checkpoint": {"object": saved}})
    some.document("f").set({"checkpoint": None})
    query = some.where(filter=FieldFilter("checkpoint.object", ">=", "x/1/"))
    query = query.where(filter=FieldFilter("checkpoint.object", "<", "x/10"))
    assert {one.id for one in query.stream()} == {"a", "d"}


def test_what_is_not_there_cannot_be_updated(documents: Any) -> None:
    one = documents.collection(f"some-{uuid4().hex}").document("one")
    with pytest.raises(NotFound):
        one.update({"n": 1})
    assert one.get().update_time is None
    assert one.get().to_dict() is None


def test_queries_filter_order_and_count_alike(documents: Any) -> None:
    some = documents.collection(f"some-{uuid4().hex}")
    for id_, tenant, at, state in [
        ("a", "x", 3, "Q"), ("b", "x", 1, "Q"), ("c", "y", 2, "Q"), ("d", "y", 1, "R"), ("e", "z", 1, None),
    ]:  # fmt: skip
        some.document(id_).set({"tenant": tenant, "at": at, "state": state})

    def ids(query: Any) -> list[str]:
        return [snapshot.id for snapshot in query.stream()]

    waiting = some.where(filter=FieldFilter("state", "==", "Q"))
    assert ids(waiting.where(filter=FieldFilter("tenant", ">", "")).order_by("tenant").order_by("at")) == [
        "b",
        "a",
        "c",
    ]
    assert ids(waiting.where(filter=FieldFilter("tenant", ">", "x")).order_by("tenant").limit(1)) == ["c"]
    assert ids(some.where(filter=FieldFilter("at", "<", 3)).order_by("at", direction="DESCENDING").limit(1)) == ["c"]
    assert set(ids(some.where(filter=FieldFilter("state", "in", ["Q", "R"])))) == {"a", "b", "c", "d"}
    assert waiting.limit(2).count().get()[0][0].value == 2


def test_an_object_that_must_not_exist_is_not_written_over(objects: Any) -> None:
    name = f"some/{uuid4().hex}"
    blob = objects.bucket(ARTIFACTS).blob(name)
    blob.upload_from_string("first", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        objects.bucket(ARTIFACTS).blob(name).upload_from_string("second", if_generation_match=0)
    found = objects.bucket(ARTIFACTS).get_blob(name)
    assert found.generation == blob.generation
    assert found.download_as_bytes() == b"first"


def test_newer_news_are_kept_and_deleted_by_nobody_older(objects: Any) -> None:
    store, name = ObjectStore(objects), f"some/{uuid4().hex}"
    first = store.put_newer(ARTIFACTS, name, "first", "text/plain", "1")
    assert store.put_newer(ARTIFACTS, name, "first", "text/plain", "1") == first
    assert store.put_newer(ARTIFACTS, name, "third", "text/plain", "3")
    assert store.put_newer(ARTIFACTS, name, "second", "text/plain", "2") is None
    store.delete_older(ARTIFACTS, name, "2")
    assert store.read(ARTIFACTS, name) == b"third"
    store.delete_older(ARTIFACTS, name, "3")
    with pytest.raises(ObjectGone):
        store.read(ARTIFACTS, name)
    store.delete_older(ARTIFACTS, name, "3")


def test_a_copy_is_made_once(objects: Any) -> None:
    store, name = ObjectStore(objects), f"some/{uuid4().hex}"
    store.put_new(ARTIFACTS, f"{name}/from", b"first")
    store.copy_new(ARTIFACTS, f"{name}/from", f"{name}/to")
    store.delete(ARTIFACTS, f"{name}/from")
    store.copy_new(ARTIFACTS, f"{name}/from", f"{name}/to")
    assert store.read(ARTIFACTS, f"{name}/to") == b"first"
    assert [item.name for item in store.list(ARTIFACTS, name)] == [f"{name}/to"]
