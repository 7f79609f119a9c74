"""The dashboard in a real browser: what a person clicks, from an upload to a version that is promoted.

Only the training is pretended (tests/stub_trainer.py). Pictures of each page, for a desktop and a phone, are in
build/screenshots/.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from google.cloud import firestore
from playwright.sync_api import Browser, Locator, Page, expect

from adaptml.clock import utc_now
from local import prerequisites
from schemas import layout
from schemas.messages import RunCommand
from schemas.run import Run, RunError, Source
from schemas.run_states import RunState
from tests import forked
from tests.apart import cloud_apart
from tests.browser import DESKTOP, PHONE, chromium, picture, settled, tab
from tests.cloud import DROPS, PROJECT, ROOT, STUB, TestCloud, chat_rows, eventually

HOSTILE = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'> **bold** [link](javascript:hurt()) $x$"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass
class Site:
    """The dashboard of a local cloud of its own, and a browser."""

    cloud: TestCloud
    address: str
    browser: Browser
    files: Path

    def open(self, path: str = "", width: int = DESKTOP) -> Page:
        """A new tab that shows a page."""
        page = tab(self.browser, width)
        page.goto(f"{self.address}/{path}")
        page.get_by_role("heading", level=1).wait_for()
        return page

    def file(self, name: str, content: str) -> str:
        """A file to be chosen."""
        path = self.files / name
        path.write_text(content, "utf-8")
        return str(path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("dashboard")
    try:
        prerequisites.chromium()
    except prerequisites.Missing as missing:
        pytest.fail(str(missing), pytrace=False)
    fast = {"ADAPTML_LOCAL_TICK_S": "1", "ADAPTML_SETTLE_S": "1", "ADAPTML_GPU_QUOTA": "2"}
    with cloud_apart(home, ADAPTML_TRAINER_COMMAND=forked.command(STUB), **fast) as cloud:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = cloud.environment | {"PORT": str(port), "ADAPTML_DASHBOARD_TENANTS": "acme"}
        with (home / "logs" / "dashboard.log").open("wb") as log:
            served = subprocess.Popen(
                [sys.executable, "-m", "dashboard"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        try:
            address = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(address), within_s=60)
            (home / "files").mkdir()
            with chromium() as browser:
                yield Site(cloud, address, browser, home / "files")
        finally:
            served.terminate()
            served.wait(timeout=20)


def _answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/_stcore/health", timeout=2) as answer:  # noqa: S310 - ours
            return bool(answer.status == 200)
    except OSError:
        return False


def _choose(page: Page, *files: str) -> None:
    page.locator("input[type=file]").set_input_files(list(files))


def _start(page: Page) -> str:
    """Clicks the button; returns the id of the run that is shown then."""
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url(re.compile(r"/run\?run="))
    return parse_qs(urlsplit(page.url).query)["run"][0]


def _by_hand(page: Page, manifest: str) -> None:
    """Writes the manifest in the place of the form."""
    settings = page.get_by_role("heading", name="Settings")
    settings.wait_for()
    page.get_by_role("radio", name="Manifest").or_(page.get_by_role("button", name="Manifest", exact=True)).click()
    area = page.get_by_label("manifest.yaml")
    area.fill(manifest)
    area.press("Control+Enter")


def _badge(page: Page, state: RunState) -> Locator:
    return page.locator(".am-badge", has_text=state.value)


def test_what_is_empty_says_so_and_what_to_do(site: Site) -> None:
    page = site.open()
    page.get_by_text("No runs yet.").wait_for()
    picture(page, "runs-empty")
    page.get_by_role("link", name="Fine-tune a model").click()
    page.get_by_role("heading", name="Fine-tune a model").wait_for()
    page.goto(f"{site.address}/adapters")
    page.get_by_text("No adapter yet").wait_for()
    page.goto(f"{site.address}/playground")
    page.get_by_text("no playground").wait_for()
    page.goto(f"{site.address}/run?run=acme-other-0000000000")
    page.get_by_text("There is no such run.").wait_for()


def test_an_upload_becomes_a_run_that_is_watched_to_its_version(site: Site) -> None:
    page = site.open("new")
    demo = ROOT / "demo" / "support-bot"
    rows = (demo / "train.jsonl").read_text("utf-8").splitlines(keepends=True)[:40]
    train = site.file("kettles.jsonl", "".join(rows))
    _choose(page, train, str(demo / "val.jsonl"))
    preview = page.get_by_test_id("preview")
    preview.wait_for()
    assert "Harbor Kettles" in preview.locator("mark").first.inner_text()
    assert "<|im_start|>user" in preview.locator("span").first.inner_text()
    page.get_by_text("on nvidia-l4").wait_for()
    picture(page, "new")
    run_id = _start(page)
    _badge(page, RunState.SUCCEEDED).wait_for()
    settled(page)
    expect(page.get_by_test_id("way").locator("li").first).to_contain_text("SUCCEEDED")
    expect(page.locator("[data-testid=stVegaLiteChart]").first).to_be_visible()
    page.get_by_text("Log", exact=True).click()
    expect(page.get_by_test_id("log")).to_contain_text(f"run {run_id} is EVALUATING")
    expect(page.get_by_test_id("log")).to_contain_text("intake")
    picture(page, "run")
    run = site.cloud.services.runs.get(run_id)
    assert run.state is RunState.SUCCEEDED
    assert [(file.name, file.role) for file in run.dataset.files] == [
        ("kettles.jsonl", "train"), ("val.jsonl", "validation"),
    ]  # fmt: skip
    page.get_by_role("link", name=re.compile(r"Version \d")).click()
    page.get_by_role("heading", name="kettles").wait_for()


def test_bad_data_is_refused_before_anything_is_copied(site: Site) -> None:
    page = site.open("new", PHONE)
    rows = chat_rows(12) + '{"messages": [{"role": "user", "content": "and now?"}]}\n{"messages": 7}\nno json\n'
    _choose(page, site.file("broken.jsonl", rows))
    page.get_by_text("This would be refused").wait_for()
    expect(page.locator(".am-problem").first).to_contain_text("broken.jsonl line")
    expect(page.get_by_role("button", name="Start training")).to_have_count(0)
    picture(page, "refused")
    assert not site.cloud.names("acme/broken/", DROPS)


def test_text_of_the_data_is_shown_and_never_obeyed(site: Site) -> None:
    page = site.open("new")
    long = "word" * 400
    rows = [
        {"messages": [{"role": "user", "content": f"{HOSTILE} {i}"}, {"role": "assistant", "content": long}]}
        for i in range(12)
    ]
    _choose(page, site.file("hostile.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows)))
    preview = page.get_by_test_id("preview")
    preview.wait_for()
    assert HOSTILE in preview.inner_text()
    assert preview.locator("img, script, a, strong").count() == 0
    picture(page, "hostile")
    assert page.evaluate("window.hurt") is None


def test_a_run_is_cancelled_and_taken_up_again(site: Site) -> None:
    page = site.open("new")
    _choose(page, site.file("slow.jsonl", chat_rows(20)))
    page.get_by_test_id("preview").wait_for()
    labels = {"steps": "500", "pause": "0.3", "checkpoints": "yes"}
    manifest = {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "dataset": {"train": ["slow.jsonl"]},
        "labels": labels,
    }
    _by_hand(page, json.dumps(manifest))
    page.get_by_text("20 examples of 20 rows").wait_for()
    run_id = _start(page)
    _badge(page, RunState.TRAINING).wait_for()
    page.get_by_text(re.compile(r"Step [1-9]\d? of 500")).wait_for()
    picture(page, "run-live")
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("button", name="Cancel this run").click()
    _badge(page, RunState.CANCELLED).wait_for()
    assert site.cloud.services.runs.get(run_id).state is RunState.CANCELLED
    page.get_by_role("button", name="Resume").click()
    page.wait_for_url(lambda url: "run=" in url and run_id not in url)
    page.get_by_role("link", name="The run that it goes on from").wait_for()
    resumed = site.cloud.services.runs.get(parse_qs(urlsplit(page.url).query)["run"][0])
    assert resumed.source.resumes == run_id
    assert resumed.checkpoint is not None
    ends = RunCommand(command_id="end", tenant="acme", run_id=resumed.run_id, command="cancel")
    site.cloud.services.bus.publish("run-commands", ends)
    page.get_by_role("link", name="The run that it goes on from").click()
    _badge(page, RunState.CANCELLED).wait_for()


def test_versions_are_compared_promoted_rolled_back_and_taken_home(site: Site) -> None:
    page = site.open("new")
    page.get_by_role("radio", name="In the bucket").or_(page.get_by_role("button", name="In the bucket")).click()
    page.get_by_role("combobox", name="Folder").click()
    page.get_by_role("option", name="kettles").click()
    page.get_by_test_id("preview").wait_for()
    run_id = _start(page)
    _badge(page, RunState.SUCCEEDED).wait_for()
    page.goto(f"{site.address}/adapters")
    page.get_by_role("link", name="kettles").wait_for()
    picture(page, "adapters")
    page.get_by_role("link", name="kettles").click()
    newest = site.cloud.services.runs.get(run_id).artifacts.version  # type: ignore[union-attr]
    assert newest > 1
    page.get_by_text(f"v{newest}", exact=True).wait_for()
    picture(page, "adapter")

    page.get_by_role("button", name="Download").first.click()
    with page.expect_download() as taken:
        page.get_by_role("button", name="All of it as a zip").click()
    archive = zipfile.ZipFile(io.BytesIO(Path(taken.value.path()).read_bytes()))
    assert archive.namelist() == ["SHA256SUMS", "adapter_model.safetensors"]
    page.keyboard.press("Escape")

    _tab(page, "Compare").click()
    page.get_by_text("loss of the last step").wait_for()
    picture(page, "compare")

    _tab(page, "Aliases").click()
    page.get_by_role("button", name="Promote").click()
    page.locator(".am-badge", has_text=f"prod → v{newest}").wait_for()
    page.get_by_role("combobox", name="Version").click()
    page.get_by_role("option", name=f"v{newest - 1}", exact=True).click()
    page.get_by_role("button", name="Promote").click()
    page.locator(".am-badge", has_text=f"prod → v{newest - 1}").wait_for()
    page.get_by_role("button", name="Roll back").click()
    page.locator(".am-badge", has_text=f"prod → v{newest}").wait_for()
    picture(page, "aliases")
    adapter = site.cloud.services.runs.adapters.find("acme", "kettles")
    assert adapter is not None
    assert adapter.aliases == {"prod": newest}


def test_runs_are_filtered_and_paged_and_those_of_others_are_not_there(site: Site) -> None:
    runs = site.cloud.services.runs
    for number in range(18):
        runs.create(_refused("acme", f"night-{number:02d}", number))
    other = _refused("globex", "secret-plans", 1)
    runs.create(other)
    page = site.open()
    page.get_by_role("link", name="night-00").wait_for()
    picture(page, "runs")
    page.get_by_role("button", name="Older").click()
    page.get_by_role("link", name="night-17").wait_for()
    page.get_by_role("button", name="Newer").click()
    page.get_by_role("link", name="night-00").wait_for()
    _tab(page, "Succeeded").click()
    page.get_by_role("link", name="night-00").wait_for(state="detached")
    page.get_by_role("link", name="kettles").first.wait_for()
    assert "secret-plans" not in page.content()
    page.goto(f"{site.address}/run?run={other.run_id}")
    page.get_by_text("There is no such run.").wait_for()
    assert "secret-plans" not in page.inner_text("[data-testid=stMain]")


def _refused(tenant: str, name: str, age_h: int) -> Run:
    then = utc_now() - timedelta(hours=age_h + 1)
    error = RunError(code="not_utf8", message="data.csv: not UTF-8", hint="Save it as UTF-8.")
    return Run(
        run_id=layout.run_id(tenant, name, "test"), state=RunState.REJECTED, state_reason="the data was refused",
        tenant=tenant, name=name, folder=name, source=Source(bucket=DROPS), error=error, created_at=then,
        updated_at=then, state_since=then, finished_at=then,
    )  # fmt: skip


def test_spending_stands_against_the_budget(site: Site) -> None:
    limits = {"monthly_budget_usd": 25.0, "max_running": 2, "over_budget": "fail"}
    months = {"2026-09": {"spent_usd": 7.5, "reserved_usd": 0.0}, "2026-10": {"spent_usd": 21.0, "reserved_usd": 0.0}}
    account = firestore.Client(project=PROJECT).collection("tenants").document("acme")
    account.set({"tenant": "acme", "limits": limits, "months": months}, merge=True)
    page = site.open("spending")
    page.get_by_text("$25.00").first.wait_for()
    page.get_by_text("84%").wait_for()
    expect(page.locator("[data-testid=stVegaLiteChart]").first).to_be_visible()
    picture(page, "spending")


def _tab(page: Page, name: str) -> Locator:
    return page.get_by_role("radio", name=name).or_(page.get_by_role("button", name=name, exact=True)).first


def test_no_text_of_the_data_is_in_the_dashboards_log(site: Site) -> None:
    log = (site.cloud.home / "logs" / "dashboard.log").read_text("utf-8", "replace")
    assert "Traceback" not in log
    assert "Harbor Kettles" not in log
    assert "window.hurt" not in log
    assert os.environ.get("FIRESTORE_EMULATOR_HOST")
