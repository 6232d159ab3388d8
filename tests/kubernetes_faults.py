"""What is wrong with resources of Kubernetes: by Kubernetes' own schemas, by Pod Security's level "restricted", and among each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import kubernetes_validate
from kubernetes_validate import InvalidSchemaError, SchemaNotFoundError, ValidationError

from config.roles import WITHOUT, names_not_for
from config.settings import SECRETS, Settings, SettingsFault, load_settings
from tests.kustomize import Resource, containers, pod_of

#: The oldest and the newest minor version whose schemas are checked.
VERSIONS = ("1.29", "1.37")
RUNTIME = {"TMPDIR", "WEB_CONCURRENCY"}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def faults(resources: Sequence[Resource], keys: frozenset[str]) -> list[str]:
    """Each fault as a sentence that begins with the resource. `keys`: those of the Secret that a user makes.

    If a resource does not fit its schema, only faults of schemas are named, because the rest expects the fields to be there.
    """
    unsound = [f"{_name(each)}: {fault}" for each in resources for fault in _of_schemas(each)]
    return unsound or [
        f"{_name(each)}: {fault}"
        for each in resources
        for fault in (*_of_pods(each, keys), *_of_links(each, resources), *_of_settings(each, resources))
    ]


def _name(resource: Resource) -> str:
    return f"{resource['kind']}/{resource['metadata']['name']}"


def _of_schemas(resource: Resource) -> Iterator[str]:
    yield from _schemas(json.dumps(resource))


@cache
def _schemas(text: str) -> list[str]:
    """By the text of a resource, because a check takes about 0.1 s, and most resources are checked in many tests."""
    return list(_validated(json.loads(text)))


def _validated(resource: Resource) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message[:200]}"
        except (SchemaNotFoundError, InvalidSchemaError) as error:
            yield f"Kubernetes {version}: {error}"


def _of_pods(resource: Resource, keys: frozenset[str]) -> Iterator[str]:
    pod = pod_of(resource)
    if pod is None:
        return
    said = pod.get("securityContext", {})
    if said.get("runAsNonRoot") is not True or not said.get("runAsUser"):
        yield "restricted: runs as root"
    if said.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "restricted: no seccomp profile"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"restricted: {name}"
    if pod.get("automountServiceAccountToken") is not False:
        yield "its pods hold a token of the cluster"
    if pod.get("enableServiceLinks") is not False:
        yield "the names of services become environment variables, which may be settings"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    claims = {claim["metadata"]["name"] for claim in resource["spec"].get("volumeClaimTemplates", [])}
    for volume in volumes.values():
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"restricted: the volume {volume['name']}"
        for item in volume.get("secret", {}).get("items", []):
            if item["key"] not in keys:
                yield f"the Secret has no key {item['key']}"
    for container in containers(resource):
        limits = container.get("securityContext", {})
        if limits.get("allowPrivilegeEscalation") is not False or limits.get("privileged"):
            yield "restricted: may get more rights"
        if limits.get("capabilities") != {"drop": ["ALL"]}:
            yield "restricted: has capabilities"
        if limits.get("readOnlyRootFilesystem") is not True:
            yield "its root file system may be written"
        if set(container.get("resources", {}).get("limits", {})) != {"cpu", "memory"}:
            yield "no limit of cpu and memory"
        if container["image"].rpartition(":")[2] in {"latest", container["image"]}:
            yield "its image has no version"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in set(volumes) | claims:
                yield f"there is no volume {mount['name']}"
        if resource["kind"] != "Job" and not set(container) & {"readinessProbe", "livenessProbe"}:
            yield "no probe"
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(kind, {}).get("httpGet", {}).get("port")
            if port and port not in {each["name"] for each in container.get("ports", [])}:
                yield f"{kind} asks a port that there is not: {port}"


def _labels(resource: Resource) -> dict[str, str]:
    return dict(resource["spec"]["template"]["metadata"]["labels"])


def _of_links(resource: Resource, resources: Sequence[Resource]) -> Iterator[str]:
    spec = resource.get("spec", {})
    running = [each for each in resources if pod_of(each)]

    def chosen(labels: dict[str, str]) -> list[Resource]:
        return [each for each in running if labels.items() <= _labels(each).items()]

    def named(kind: str, name: str) -> list[Resource]:
        return [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]

    match resource["kind"]:
        case "Deployment" | "StatefulSet":
            if not spec["selector"]["matchLabels"].items() <= _labels(resource).items():
                yield "its selector does not choose its pods"
        case "PodDisruptionBudget":
            if len(chosen(spec["selector"]["matchLabels"])) != 1:
                yield "it chooses no pods"
        case "NetworkPolicy":
            if not chosen(spec["podSelector"].get("matchLabels", {})):
                yield "it chooses no pods"
            for rule in spec.get("egress", []):
                for peer in rule.get("to", []):
                    if set(peer) == {"podSelector"} and not chosen(peer["podSelector"].get("matchLabels", {})):
                        yield "it leads to no pods"
        case "Service":
            found = chosen(spec["selector"])
            ports = {port["name"] for each in found for part in containers(each) for port in part.get("ports", [])}
            if len(found) != 1 or not {port["targetPort"] for port in spec["ports"]} <= ports:
                yield "it leads to no port of any pod"
        case "HorizontalPodAutoscaler":
            target = named(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
            if not target:
                yield "it scales nothing that there is"
            elif "replicas" in target[0]["spec"]:
                yield "what it scales says itself how many there are"
        case "Ingress":
            for rule in spec["rules"]:
                for path in rule["http"]["paths"]:
                    service = path["backend"]["service"]
                    ports = {port["name"] for each in named("Service", service["name"]) for port in each["spec"]["ports"]}
                    if service["port"]["name"] not in ports:
                        yield "it leads to no service"


def _of_settings(resource: Resource, resources: Sequence[Resource]) -> Iterator[str]:
    """Each process of ours can start with the settings and the secrets that its pod has, and has no secret that it does not need."""
    names = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS} | RUNTIME
    for container in containers(resource):
        maps = [entry["configMapRef"]["name"] for entry in container.get("envFrom", [])]
        if not maps:
            continue
        given: dict[str, str] = {}
        for each in resources:
            if each["kind"] == "ConfigMap" and each["metadata"]["name"] in maps:
                given |= each["data"]
        if not set(given) <= names:
            yield f"no settings: {sorted(set(given) - names)}"
        role: Any = container["args"][0] if "args" in container else "bucket"
        mounted = {
            item["path"]
            for volume in pod_of(resource)["volumes"]
            for item in volume.get("secret", {}).get("items", [])  # type: ignore[index]
        }
        needed = {
            value.rpartition("/")[2]
            for name, value in given.items()
            if name.endswith("_FILE") and name not in names_not_for(role)
        }
        if mounted != needed:
            yield f"its secrets are {sorted(mounted)}, and it needs {sorted(needed)}"
        values = {name: value for name, value in given.items() if not name.endswith("_FILE")}
        secrets = {
            "SECRET_KEY": "k" * 32,
            "DATABASE_URL": "postgresql+psycopg://u@h/d",
            "REDIS_URL": "redis://h",
            "AWS_SECRET_ACCESS_KEY": "s",
            "GEMINI_API_KEY": "g",
        }
        try:
            load_settings({**values, **secrets}, without=WITHOUT[role])
        except SettingsFault as fault:
            yield str(fault)
