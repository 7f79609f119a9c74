"""`make sbom`: each pinned requirement of what is deployed is listed, with the hashes it is held to."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_image import pins

ROOT = Path(__file__).resolve().parents[2]
DEPLOYED = {
    "functions": ["functions/requirements.txt"],
    "dashboard": ["dashboard/requirements.txt"],
    "trainer": ["trainer/requirements-image.txt", "trainer/requirements-torch.txt"],
}


@pytest.mark.parametrize("part", DEPLOYED)
def test_it_lists_every_pin_with_its_hashes(part: str, tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    command = next(line for line in makefile.splitlines() if f"-o build/sbom-{part}.json" in line)
    arguments = shlex.split(command)[1:]
    arguments[arguments.index("-o") + 1] = str(tmp_path / "sbom.json")
    (tmp_path / "requirements.txt").write_text("".join((ROOT / path).read_text("utf-8") for path in DEPLOYED[part]))
    arguments[-1] = str(tmp_path / "requirements.txt")
    subprocess.run([str(Path(sys.executable).parent / "cyclonedx-py"), *arguments], check=True)

    sbom = json.loads((tmp_path / "sbom.json").read_text("utf-8"))
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    listed = {
        component["name"]: (
            component["version"],
            sorted(found["content"] for where in component["externalReferences"] for found in where.get("hashes", [])),
        )
        for component in sbom["components"]
    }
    wanted = {name: pin for path in DEPLOYED[part] for name, pin in pins(path).items()}
    assert listed == {name: (version, sorted(hashes)) for name, (version, hashes) in wanted.items()}
    assert all(component["purl"].startswith("pkg:pypi/") for component in sbom["components"])


def test_the_trainers_is_made_of_both_of_its_files() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"cat {' '.join(DEPLOYED['trainer'])} > build/sbom-trainer\.txt", makefile)
