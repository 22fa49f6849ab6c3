"""The Pod of `manifests/base` as the kubelet would start it: for tests of what is deployed, by what runs here.

Like `generated` it needs the project's environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from lab.paths import REPOSITORY

MANIFESTS = REPOSITORY / "manifests"
Site = Mapping[str, str]
"""The data of the ConfigMap that both containers read."""

_VARIABLE = re.compile(r"\$\((\w+)\)")


def deployment() -> dict[str, Any]:
    """The Deployment."""
    found: dict[str, Any] = yaml.safe_load((MANIFESTS / "base/deployment.yaml").read_text())
    return found


def spec() -> dict[str, Any]:
    """What the Deployment makes Pods of."""
    found: dict[str, Any] = deployment()["spec"]["template"]["spec"]
    return found


def containers() -> list[dict[str, Any]]:
    """All of its containers, in the order in which they start."""
    return [*spec()["initContainers"], *spec()["containers"]]


def container(name: str) -> dict[str, Any]:
    """One of them."""
    (found,) = [each for each in containers() if each["name"] == name]
    return found


def sites() -> dict[str, Site]:
    """`site.yaml`, and what the README makes of it: by the words that the README's patch begins with."""
    base: dict[str, str] = yaml.safe_load((MANIFESTS / "base/site.yaml").read_text())["data"]
    patches = re.findall(r"```yaml\n# (.+)\n((?:.+\n)+)```", (MANIFESTS / "README.md").read_text())
    return {"as it is": base} | {title: base | yaml.safe_load(patch)["data"] for title, patch in patches}


def arguments(name: str, site: Site) -> list[str]:
    """A container's arguments with the site's values in them; what the site lacks the kubelet leaves as it stands."""
    return [_VARIABLE.sub(lambda match: site.get(match[1], match[0]), argument) for argument in container(name)["args"]]


def variables() -> set[str]:
    """The site's values that some container's arguments ask for."""
    return {name for each in containers() for argument in each["args"] for name in _VARIABLE.findall(argument)}
