"""The Google provider's schema, read out of Terraform's published TypeScript bindings.

`python -m tests.terraform.bindings` fetches the package from npm and writes `google-schema.json`: what the real
provider answers to `terraform providers schema`, for the resources that terraform/ uses. The bindings are generated
from that provider's own schema and say of each attribute whether it is required, optional or computed, and of which
type. What they do not say is which values an attribute takes; that is what terraform/tests/ asserts.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.terraform.sources import TERRAFORM, used_types

PACKAGE = "@cdktf/provider-google@16.12.1"
"""Made from provider 6.50.0."""
SCHEMA = Path(__file__).with_name("google-schema.json")
ADDRESS = "registry.terraform.io/hashicorp/google"

Type = str | list[Any]
Block = dict[str, Any]

_SCALARS: dict[str, Type] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
}
_MAPS: dict[str, Type] = {
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
    "AnyMap": ["map", "string"],
    "StringListMap": ["map", ["list", "string"]],
}
_WRITTEN: dict[str, Type] = {
    "string": "string",
    "number": "number",
    "boolean | cdktf.IResolvable": "bool",
    "string[]": ["list", "string"],
    "{ [key: string]: string }": ["map", "string"],
}
_MEMBER = re.compile(r"^  // (\S+) - computed: (true|false), optional: (true|false), required: (true|false)$", re.M)
_CLASS = re.compile(r"^export class (\w+) extends (\S+) \{$(.*?)^\}$", re.M | re.S)
_AS_HCL = re.compile(r"^export function (\w+)ToHclTerraform\(.*?^\}$", re.M | re.S)
_HCL_MEMBER = re.compile(r'^ +"?(\w+)"?: \{\s+value: [^\n]*\n\s+isBlock: (true|false),\s+type: "(\w+)"', re.M)
_HEADS = ("cdktf.TerraformResource", "cdktf.TerraformDataSource", "cdktf.TerraformProvider")


class Unread(Exception):  # noqa: N818 - says what is the matter
    """Raised where a member of the bindings has a form that is not known here."""


@dataclass(frozen=True)
class Member:
    """One attribute or block, as the bindings have it."""

    name: str
    flags: dict[str, bool]
    code: str

    @property
    def of_class(self) -> tuple[str, bool] | None:
        """The class that holds a value with members of its own, and whether a set holds it."""
        found = re.search(r'= new (\w+)\(this, "[\w-]+"(?:, (true|false))?\)', self.code)
        return (found[1], found[2] == "true") if found else None

    def type(self) -> Type:
        """The type of a value without members of its own. Raises Unread."""
        if found := re.search(r"= new cdktf\.(\w+)\(this,", self.code):
            if found[1] not in _MAPS:
                raise Unread(f"{self.name}: {found[1]}")
            return _MAPS[found[1]]
        if found := re.search(r"this\.get(\w+)Attribute\('", self.code):
            kind = (_SCALARS | _MAPS).get(found[1])
            if kind is None:
                raise Unread(f"{self.name}: {found[1]}")
            return ["set", kind[1]] if "Fn.tolist(" in self.code else kind
        if "interpolationForAttribute" in self.code:
            return "dynamic"
        if found := re.search(r"private _\w+\?: ([^;]*);", self.code):  # the provider's own settings are only written
            kind = _WRITTEN.get(found[1].removesuffix(" | undefined").strip())
            if kind is not None:
                return kind
        raise Unread(self.name)


class Bindings:
    """One file of the bindings: a resource, a data source or the provider."""

    def __init__(self, source: str) -> None:
        self._classes = {found[1]: (found[2], found[3]) for found in _CLASS.finditer(source)}
        self._as_hcl = {found[1].lower(): _blocks(found[0]) for found in _AS_HCL.finditer(source)}

    def schema(self) -> tuple[str, str, Block]:
        """(what it is, its name, its schema)."""
        for base, body in self._classes.values():
            if base in _HEADS:
                name = _found(r'tfResourceType = "(\w+)"', body)
                blocks = _blocks(body[body.index("synthesizeHclAttributes") :])
                return base.removeprefix("cdktf.Terraform"), name, {"version": 0, "block": self._block(body, blocks)}
        raise Unread("no resource")

    def _block(self, body: str, blocks: dict[str, str | None]) -> Block:
        attributes: dict[str, Any] = {}
        nested: dict[str, Any] = {}
        for member in _members(body):
            if "[] | cdktf.IResolvable" in member.code and member.of_class is None:
                continue  # a block of the provider's settings, of which terraform/ has none
            if member.of_class is None:
                attributes[member.name] = {"type": member.type(), **member.flags}
                continue
            held_by, in_set = member.of_class
            base, is_many = _base(held_by)
            if blocks.get(member.name) is None:
                kind: Type = ["set" if in_set else "list", self._object(base)]
                attributes[member.name] = {"type": kind, **member.flags}
                continue
            inner = self._block(self._members_of(base), self._as_hcl.get(base.lower(), {}))
            mode = {"struct": "single", "set": "set"}.get(str(blocks[member.name]), "list")
            nested[member.name] = {"nesting_mode": mode, "block": inner}
            if mode != "single":
                nested[member.name] |= {"min_items": 1} if member.flags.get("required") else {}
                nested[member.name] |= {} if is_many else {"max_items": 1}
        return {"attributes": attributes, "block_types": nested}

    def _object(self, base: str) -> Type:
        fields: dict[str, Type] = {}
        for member in _members(self._members_of(base)):
            if member.of_class is None:
                fields[member.name] = member.type()
            else:
                held_by, in_set = member.of_class
                fields[member.name] = ["set" if in_set else "list", self._object(_base(held_by)[0])]
        return ["object", fields]

    def _members_of(self, base: str) -> str:
        return self._classes[f"{base}OutputReference"][1]


def _blocks(code: str) -> dict[str, str | None]:
    """Of the members that are written in HCL: how a block nests, None for an attribute."""
    return {name: kind if is_block == "true" else None for name, is_block, kind in _HCL_MEMBER.findall(code)}


def _members(body: str) -> Iterator[Member]:
    found = list(_MEMBER.finditer(body))
    for this, after in zip(found, [*found[1:], None], strict=False):
        flags = {
            name: True
            for name, value in zip(("computed", "optional", "required"), this.groups()[1:], strict=True)
            if value == "true"
        }
        yield Member(this[1], flags, body[this.end() : after.start() if after else len(body)])


def _base(held_by: str) -> tuple[str, bool]:
    """The name that the classes of one block share, and whether there may be several of it."""
    if held_by.endswith("OutputReference"):
        return held_by.removesuffix("OutputReference"), False
    if held_by.endswith("List"):
        return held_by.removesuffix("List"), True
    raise Unread(held_by)


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise Unread(pattern)
    return found[1]


def typescript(compiled: str) -> str:
    """The source that a compiled file carries in its source map."""
    encoded = compiled.rsplit("sourceMappingURL=data:application/json;base64,", 1)[1]
    return str(json.loads(base64.b64decode(encoded.strip()))["sourcesContent"][0])


def read(package: Path, resources: set[str], data: set[str]) -> dict[str, Any]:
    """The schema of the provider, and of these resources and data sources. Raises Unread where one is missing."""
    version = ""
    found: dict[str, dict[str, Block]] = {"Resource": {}, "DataSource": {}, "Provider": {}}
    wanted = {("Resource", name) for name in resources} | {("DataSource", name) for name in data}
    for path in sorted((package / "lib").glob("*/index.js")):
        code = path.read_text("utf-8")
        name = re.search(r'\.tfResourceType = "(\w+)"', code)
        if path.parent.name != "provider" and (name is None or name[1] not in resources | data):
            continue
        source = typescript(code)
        kind, name_, schema = Bindings(source).schema()
        if kind == "Provider" or (kind, name_) in wanted:
            found[kind][name_] = schema
        if kind == "Resource":
            version = _found(r"providerVersion: '([\d.]+)'", source)
    missing = (resources - found["Resource"].keys()) | (data - found["DataSource"].keys())
    if missing:
        raise Unread(", ".join(sorted(missing)))
    return {
        "made_by": f"python -m tests.terraform.bindings, of {PACKAGE} (provider {version})",
        "format_version": "1.0",
        "provider_schemas": {
            ADDRESS: {
                "provider": found["Provider"]["google"],
                "resource_schemas": found["Resource"],
                "data_source_schemas": found["DataSource"],
            }
        },
    }


def fetch(into: Path) -> Path:
    """The unpacked package, by npm's own client."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=into, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "xzf", str(next(into.glob("*.tgz")))], cwd=into, check=True)
    return into / "package"


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.terraform.bindings", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--package", type=Path, help="unpacked already")
    given = parser.parse_args().package
    with tempfile.TemporaryDirectory() as folder:
        schema = read(given or fetch(Path(folder)), *used_types(TERRAFORM))
    SCHEMA.write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
