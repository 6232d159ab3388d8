"""A small kustomize: it renders the folders of deploy/kubernetes for tests, as far as those use it.

It knows `resources`, `namespace`, `images`, `replicas`, and `patches` with a target and JSON6902 operations. It raises on anything else.
Where kubectl is installed, tests/component/deploy/test_kubernetes.py compares it with kubectl's own kustomize.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "replicas", "patches"}
WITHOUT_NAMESPACE = {"Namespace"}


def render(folder: Path) -> list[Resource]:
    """The resources of a folder with a kustomization.yaml."""
    says = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(says) <= KNOWN, set(says) - KNOWN
    found: list[Resource] = []
    for name in says["resources"]:
        place = (folder / name).resolve()
        found += render(place) if place.is_dir() else [each for each in yaml.safe_load_all(place.read_text()) if each]
    for resource in found:
        if says.get("namespace") and resource["kind"] not in WITHOUT_NAMESPACE:
            resource["metadata"]["namespace"] = says["namespace"]
    for patch in says.get("patches", []):
        assert set(patch) == {"target", "patch"}
        [resource] = [each for each in found if _is(each, **patch["target"])]
        for operation in yaml.safe_load(patch["patch"]):
            _change(resource, **operation)
    for image in says.get("images", []):
        for container in (each for resource in found for each in containers(resource)):
            name, _, tag = container["image"].rpartition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
    for wanted in says.get("replicas", []):
        [resource] = [each for each in found if each["metadata"]["name"] == wanted["name"] and "replicas" in each.get("spec", {})]
        resource["spec"]["replicas"] = wanted["count"]
    return found


def pod_of(resource: Resource) -> Resource | None:
    """The spec of the pods that a Deployment, a StatefulSet or a Job makes."""
    template = resource.get("spec", {}).get("template", {})
    return template.get("spec") if isinstance(template, dict) else None


def containers(resource: Resource) -> Iterator[Resource]:
    pod = pod_of(resource)
    if pod:
        yield from (*pod.get("initContainers", []), *pod["containers"])


def _is(resource: Resource, *, kind: str, name: str) -> bool:
    return (resource["kind"], resource["metadata"]["name"]) == (kind, name)


def _change(resource: Resource, *, op: str, path: str, value: Any = None) -> None:
    """One operation of RFC 6902."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in path.removeprefix("/").split("/")]
    place: Any = resource
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    key: Any = int(last) if isinstance(place, list) else last
    if op in {"replace", "remove"}:
        place[key]  # it must be there
    assert op in {"add", "replace", "remove"}
    if op == "remove":
        del place[key]
    else:
        place[key] = copy.deepcopy(value)
