"""Creates what terraform/ creates in the real cloud: schemas, topics, subscriptions, buckets, the job."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import grpc
from google.api_core.exceptions import AlreadyExists, Conflict
from google.cloud import pubsub_v1, run_v2, storage
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from google.pubsub_v1 import types
from google.pubsub_v1.services.schema_service import SchemaServiceClient

from adaptml.jobs import EMULATOR_HOST
from adaptml.settings import Settings
from adaptml.tokens.chat import OPTIONAL, REQUIRED
from local.wiring import PROJECT, STORAGE_TOPIC, Ports
from schemas.catalogue import CATALOGUE
from schemas.messages import TOPIC_MESSAGES, avro_schema
from schemas.topology import TOPOLOGY, dead_letter_topic, kind_of, published_to, tenant_of, tenant_topic


def topics() -> None:
    """Schemas, topics, those of tenants among them, and a dead-letter topic for each of them."""
    publisher = pubsub_v1.PublisherClient()
    schemas = {name: _schema(name) for name in TOPIC_MESSAGES}
    for name in _topics():
        settings = None
        if (schema := TOPOLOGY.topics[kind_of(name)].schema_name) is not None:
            settings = types.SchemaSettings(schema=schemas[schema], encoding=types.Encoding.JSON)
        _topic(publisher, types.Topic(name=publisher.topic_path(PROJECT, name), schema_settings=settings))
    for name in (STORAGE_TOPIC, *_dead_letter_topics()):
        _topic(publisher, types.Topic(name=publisher.topic_path(PROJECT, name)))


def _topics() -> list[str]:
    """Of all tenants, and the tenants' own."""
    tenants = list(filter(None, os.environ.get("ADAPTML_LOCAL_TENANTS", "acme").split(",")))
    return [*TOPOLOGY.topics, *(tenant_topic(topic, tenant) for tenant in tenants for topic in TOPOLOGY.tenant_topics)]


def _dead_letter_topics() -> list[str]:
    return [dead_letter_topic(topic) for topic in (*_topics(), STORAGE_TOPIC)]


def push_subscriptions(ports: Ports) -> None:
    """One for each function that a topic calls, as Eventarc makes them, one for the router of storage events, and one
    for each dead-letter topic."""
    subscriber = pubsub_v1.SubscriberClient()
    _push(subscriber, "eventarc-storage", STORAGE_TOPIC, ports.eventarc)
    for function, trigger in TOPOLOGY.functions.items():
        for topic in _topics():
            if kind_of(topic) == trigger.topic:
                tenant = tenant_of(topic)
                name = f"{function}-{tenant}" if tenant else function
                _push(subscriber, f"eventarc-{name}", topic, ports.functions[function])
        if trigger.dead_letters:
            for dead in _dead_letter_topics():
                _push(subscriber, f"eventarc-{function}-{dead}", dead, ports.functions[function])


def _push(subscriber: pubsub_v1.SubscriberClient, name: str, topic: str, port: int) -> None:
    """What cannot be delivered goes to the topic's dead-letter topic; from there it is delivered until it is taken."""
    policy = None
    if topic == published_to(topic):
        limit = os.environ.get("ADAPTML_LOCAL_DELIVERY_ATTEMPTS", TOPOLOGY.delivery.max_delivery_attempts)
        dead = f"projects/{PROJECT}/topics/{dead_letter_topic(topic)}"
        policy = types.DeadLetterPolicy(dead_letter_topic=dead, max_delivery_attempts=int(limit))
    # functions-framework learns the topic from the path, as from the source of an event that Eventarc sends.
    endpoint = f"http://127.0.0.1:{port}/projects/{PROJECT}/topics/{topic}"
    _subscription(
        subscriber,
        types.Subscription(
            name=name,
            topic=topic,
            push_config=types.PushConfig(push_endpoint=endpoint),
            ack_deadline_seconds=TOPOLOGY.delivery.ack_deadline_s,
            retry_policy=_retry_policy(),
            dead_letter_policy=policy,
        ),
    )


def buckets(settings: Settings) -> None:
    """Drops and artifacts, versioned: a pinned generation stays readable after it was overwritten."""
    client = storage.Client(project=PROJECT)
    for name in (settings.drops_bucket, settings.artifacts_bucket):
        bucket = client.bucket(name)
        bucket.versioning_enabled = True
        try:
            client.create_bucket(bucket)
        except Conflict:
            continue


def tokenizers(settings: Settings, models: Path) -> None:
    """Lays the tokenizers of prepared models into the models bucket, where intake looks for them."""
    if settings.models_bucket is None:
        return
    client = storage.Client(project=PROJECT)
    with suppress(Conflict):
        client.create_bucket(settings.models_bucket)
    bucket = client.bucket(settings.models_bucket)
    for row in CATALOGUE.values():
        for name in (*REQUIRED, *OPTIONAL):
            if (path := models / row.folder / name).is_file():
                bucket.blob(f"{row.folder}/{name}").upload_from_filename(str(path))


def job(settings: Settings, models: Path) -> None:
    """The trainer's job. `ADAPTML_TRAINER_COMMAND` puts another program in its place, for tests of what fails."""
    command = os.environ.get("ADAPTML_TRAINER_COMMAND", f"{sys.executable} -m trainer").split()
    container = run_v2.Container(
        image="local", command=command, env=[run_v2.EnvVar(name="ADAPTML_MODELS_DIR", value=str(models))]
    )
    # One place decides on retries: the reconciler, which knows the manifest's max_attempts.
    task = run_v2.TaskTemplate(containers=[container], max_retries=0, timeout=timedelta(hours=1))
    parent, _, name = settings.job_path.partition("/jobs/")
    channel = grpc.insecure_channel(os.environ[EMULATOR_HOST])
    run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel)).create_job(
        request=run_v2.CreateJobRequest(
            parent=parent, job_id=name, job=run_v2.Job(template=run_v2.ExecutionTemplate(template=task, task_count=1))
        )
    )


def _schema(name: str) -> str:
    path = f"projects/{PROJECT}/schemas/{name}"
    definition = avro_schema(TOPIC_MESSAGES[name])
    schema = types.Schema(name=path, type_=types.Schema.Type.AVRO, definition=definition)
    with suppress(AlreadyExists):
        SchemaServiceClient().create_schema(parent=f"projects/{PROJECT}", schema=schema, schema_id=name)
    return path


def _topic(publisher: pubsub_v1.PublisherClient, topic: types.Topic) -> None:
    try:
        publisher.create_topic(request=topic)
    except AlreadyExists:
        return


def _subscription(subscriber: pubsub_v1.SubscriberClient, subscription: types.Subscription) -> None:
    subscription.name = subscriber.subscription_path(PROJECT, subscription.name)
    subscription.topic = f"projects/{PROJECT}/topics/{subscription.topic}"
    try:
        subscriber.create_subscription(request=subscription)
    except AlreadyExists:
        return


def _retry_policy() -> types.RetryPolicy:
    return types.RetryPolicy(
        minimum_backoff=timedelta(seconds=TOPOLOGY.delivery.minimum_backoff_s),
        maximum_backoff=timedelta(seconds=TOPOLOGY.delivery.maximum_backoff_s),
    )
