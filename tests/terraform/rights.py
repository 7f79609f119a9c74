"""Who may do what, as terraform/rights.tf says it: the table of docs/security.md, and what is bound in a plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tests.terraform.deployment import DEFAULTS, FACES, PROJECT, Resource, deployment
from tests.terraform.sources import ROOT

SECURITY = ROOT / "docs" / "security.md"
_BEGIN, _END = "<!-- rights: made by `python -m tests.terraform.generate` -->\n", "<!-- end of rights -->\n"

NUMBER = "123456789012"
"""Of the project in terraform/tests/."""
AGENTS = {
    f"service-{NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com": "Google: pubsub",
    f"service-{NUMBER}@gs-project-accounts.iam.gserviceaccount.com": "Google: storage",
    f"service-{NUMBER}@gcp-sa-cloudscheduler.iam.gserviceaccount.com": "Google: scheduler",
    f"service-{NUMBER}@gcp-sa-iap.iam.gserviceaccount.com": "Google: iap",
}


KINDS = {
    "google_storage_bucket_iam_member": ("bucket", "bucket"),
    "google_pubsub_topic_iam_member": ("topic", "topic"),
    "google_pubsub_subscription_iam_member": ("subscription", "subscription"),
    "google_cloud_run_v2_job_iam_member": ("job", "name"),
    "google_cloud_run_service_iam_member": ("function", "service"),
    "google_cloud_run_v2_service_iam_member": ("service", "name"),
    "google_secret_manager_secret_iam_member": ("secret", "secret_id"),
    "google_artifact_registry_repository_iam_member": ("repository", "repository"),
    "google_service_account_iam_member": ("account", "service_account_id"),
    "google_logging_log_view_iam_member": ("view", "name"),
    "google_project_iam_member": ("project", "project"),
}
"""Of a binding: what kind of thing it is on, and which of its values names that."""


def listed(run: str = DEFAULTS) -> list[dict[str, Any]]:
    """The list, as Terraform puts it out."""
    rights: list[dict[str, Any]] = deployment().output("rights", run)
    return rights


def bound(run: str = DEFAULTS) -> Iterator[tuple[Resource, str]]:
    """All that is bound in a plan, with the part that it is bound to."""
    for resource in deployment().resources(run=run):
        if re.search(r"_iam_(member|binding|policy)$", resource.type):
            yield resource, part_of(resource.values.get("member"))


def part_of(member: str | None) -> str:
    """Whose a member is. Of a log sink Google makes the account up: it is not known in a plan."""
    if member is None:
        return "Google: sink"
    address = member.removeprefix("serviceAccount:")
    ours = re.fullmatch(rf"adaptml-(\w+)@{PROJECT}\.iam\.gserviceaccount\.com", address)
    return ours[1] if ours else AGENTS.get(address, member)


PERMISSIONS = {
    "adaptmlObjectWriter": {"storage.objects.create", "storage.objects.delete", "storage.objects.get"},
    "adaptmlObjectLister": {"storage.objects.list"},
    "adaptmlJobStarter": {"run.jobs.run", "run.jobs.runWithOverrides"},
    "adaptmlExecutionKeeper": {"run.executions.cancel", "run.executions.get", "run.executions.list"},
    "storage.objectViewer": {"storage.objects.get", "storage.objects.list"},
    "pubsub.publisher": {"pubsub.topics.publish"},
}
"""Of the roles that a part needs for what it does; of Google's, those that are used here."""


@dataclass(frozen=True)
class Grant:
    """What a part may do with a bucket, a topic or the job."""

    part: str
    kind: str
    on: str
    permissions: frozenset[str]
    condition: str
    """On names of objects; empty for all, and for what is no object."""

    def covers(self, name: str) -> bool:
        """Whether Google would let an object of that name through: of its conditions' language, what is used here."""
        ways = (way.split(" && ") for way in self.condition.split(" || "))
        return not self.condition or any(all(self._holds(term, name) for term in way) for way in ways)

    def _holds(self, term: str, name: str) -> bool:
        resource = f"projects/_/buckets/{PROJECT}-{self.on}/objects/{name}"
        if path := re.fullmatch(r'resource\.name\.extract\("(.*)\{path\}(.*)"\) != ""', term):
            begin, _, rest = resource.partition(path[1])
            return not begin and bool(rest.partition(path[2])[0]) and path[2] in rest
        found = re.fullmatch(r'(!?)resource\.name\.(startsWith|endsWith)\("(.*)"\)', term)
        if found is None:
            raise ValueError(f"a condition of another form: {term}")
        said = resource.startswith(found[3]) if found[2] == "startsWith" else resource.endswith(found[3])
        return said != bool(found[1])


def grants(run: str = DEFAULTS) -> Iterator[Grant]:
    """What is bound of buckets, topics and the job."""
    kinds = {
        "google_storage_bucket_iam_member": "bucket",
        "google_pubsub_topic_iam_member": "topic",
        "google_cloud_run_v2_job_iam_member": "job",
    }
    for resource, part in bound(run):
        if resource.type in kinds:
            kind, attribute = KINDS[resource.type]
            on = resource.values[attribute].rsplit("/", 1)[-1].removeprefix(f"{PROJECT}-")
            role = _role(resource.values["role"]).strip("`")
            [condition] = resource.values.get("condition") or [{"expression": ""}]
            permissions = frozenset(PERMISSIONS.get(role, ()))
            yield Grant(part, kind, on, permissions, condition["expression"])


def with_table() -> str:
    """docs/security.md with the table as it should be."""
    text = SECURITY.read_text("utf-8")
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


def table() -> str:
    """A row for each right, those that differ only in what they are on joined. Those of page and playground, which a
    deployment need not have, are among them."""

    def of(right: dict[str, Any]) -> tuple[str, ...]:
        return right["part"], right["kind"], _role(right["role"]), _objects(right), right["why"]

    rights = listed(FACES)
    parts = list(dict.fromkeys(right["part"] for right in rights))
    ordered = sorted(rights, key=lambda right: (parts.index(right["part"]), of(right)[1:]))
    rows = [
        f"| {part} | {_on(kind, [right['on'] for right in same])}{objects} | {role} | {why} |\n"
        for (part, kind, role, objects, why), same in ((key, list(found)) for key, found in groupby(ordered, of))
    ]
    return "| account | on | right | why |\n| --- | --- | --- | --- |\n" + "".join(rows)


def _on(kind: str, names: list[str]) -> str:
    if kind == "project":
        narrowed = {"database": "project, only the database", "build_sources": "project, only `gcf-v2-sources-*`"}
        return narrowed.get(names[0], "**project**")
    return f"{kind} " + ", ".join(f"`{name}`" for name in names)


def _objects(right: dict[str, Any]) -> str:
    said = [
        *(f"`{prefix}*`" for prefix in right["prefixes"]),
        *(f"`*/{suffix}`" for suffix in right["suffixes"]),
        *(f"`*/{folder}/*`" for folder in right["within"]),
        *(f"all but `{prefix}*`" for prefix in right["except"]),
    ]
    if right["except_files"]:
        said.append(f"all but {', '.join(f'`*/{file}`' for file in right['except_files'])}")
    return f", objects {', '.join(said)}" if said else ""


def _role(role: str) -> str:
    return f"`{role.rsplit('/', 1)[-1]}`" if role.startswith("projects/") else f"`{role.removeprefix('roles/')}`"
