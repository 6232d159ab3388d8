"""The manifests of deploy/kubernetes fit Kubernetes' own schemas, Pod Security, each other, our settings and docker-compose.yml.

No cluster is needed, and none has run them.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from config.roles import ALONE_CONNECTIONS, CONNECTIONS
from tests.compose import ROOT, SERVICES, make_secrets
from tests.kubernetes_faults import faults
from tests.kustomize import Resource, containers, pod_of, render
from workers.alone import SEATS

OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
RENDERED = {name: render(OVERLAYS / name) for name in ("small", "production")}
PAGE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
OURS = ("web", "worker", "supervisor")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The keys of the Secret, which the page makes of the files of make_secrets.sh."""
    return frozenset(path.name for path in make_secrets(tmp_path_factory.mktemp("kubernetes") / "secrets").iterdir())


def the(resources: list[Resource], kind: str, name: str) -> Any:
    [found] = [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def container(resources: list[Resource], kind: str, name: str) -> Any:
    [found] = containers(the(resources, kind, name))
    return found


@pytest.mark.parametrize("name", RENDERED)
def test_every_resource_is_without_fault(name, keys):
    assert faults(RENDERED[name], keys) == []


@pytest.mark.parametrize("name", RENDERED)
def test_kubectl_renders_the_same(name):
    kubectl = shutil.which("kubectl") or shutil.which("kustomize")
    if not kubectl:
        pytest.skip("no kubectl and no kustomize is installed here")
    verb = "kustomize" if kubectl.endswith("kubectl") else "build"
    done = subprocess.run([kubectl, verb, str(OVERLAYS / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def place(resource: Resource) -> tuple[str, str]:
        return resource["kind"], resource["metadata"]["name"]

    assert sorted(yaml.safe_load_all(done.stdout), key=place) == sorted(RENDERED[name], key=place)


def _mistake(kind: str, name: str, change: Callable[[Any], object]) -> tuple[str, str, Callable[[Any], object]]:
    return kind, name, change


def _of_container(change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda resource: change(next(containers(resource)))


MISTAKES: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "a misspelt field": _mistake("Deployment", "web", lambda r: r["spec"].update(replica=2)),
    "a misspelt field of a container": _mistake("Deployment", "web", _of_container(lambda c: c.update(imagePullPolice="Always"))),
    "a number as a word": _mistake("Deployment", "supervisor", lambda r: r["spec"].update(replicas="two")),
    "no selector": _mistake("Deployment", "worker", lambda r: r["spec"].pop("selector")),
    "a version of the API that is gone": _mistake(
        "HorizontalPodAutoscaler", "worker", lambda r: r.update(apiVersion="autoscaling/v2beta2")
    ),
    "a probe without a port": _mistake(
        "Deployment", "web", _of_container(lambda c: c["livenessProbe"].update(httpGet={"path": "/healthz"}))
    ),
    "a port that there is not": _mistake("Service", "web", lambda r: r["spec"]["ports"][0].update(targetPort="https")),
    "a selector that chooses other pods": _mistake(
        "Deployment", "web", lambda r: r["spec"]["template"]["metadata"]["labels"].update(app="front")
    ),
    "root": _mistake("Deployment", "worker", lambda r: pod_of(r)["securityContext"].update(runAsUser=0)),  # type: ignore[index]
    "a capability": _mistake(
        "Deployment", "worker", _of_container(lambda c: c["securityContext"]["capabilities"].update(add=["NET_RAW"]))
    ),
    "a root file system that may be written": _mistake(
        "Deployment", "web", _of_container(lambda c: c["securityContext"].pop("readOnlyRootFilesystem"))
    ),
    "a folder of the node": _mistake(
        "Deployment",
        "web",
        lambda r: pod_of(r)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),  # type: ignore[index]
    ),
    "no limit of memory": _mistake("Deployment", "worker", _of_container(lambda c: c["resources"]["limits"].pop("memory"))),
    "a secret that nobody makes": _mistake(
        "Deployment",
        "web",
        lambda r: pod_of(r)["volumes"][2]["secret"]["items"].append({"key": "api_key", "path": "api_key"}),  # type: ignore[index]
    ),
    "the key of the model where it is not needed": _mistake(
        "Deployment",
        "web",
        lambda r: pod_of(r)["volumes"][2]["secret"]["items"].append(  # type: ignore[index]
            {"key": "gemini_api_key", "path": "gemini_api_key"}
        ),
    ),
    "a setting that there is not": _mistake("ConfigMap", "extract-image", lambda r: r["data"].update(WORKER_THREADS="4")),
    "a setting with a wrong value": _mistake("ConfigMap", "extract-image", lambda r: r["data"].update(SYNC_WAIT="long")),
    "an embedded part": _mistake("ConfigMap", "extract-image", lambda r: r["data"].update(SCRATCH_URL="file:/spool")),
    "a budget for nothing": _mistake(
        "PodDisruptionBudget", "worker", lambda r: r["spec"]["selector"]["matchLabels"].update(app="x")
    ),
    "a policy for nothing": _mistake(
        "NetworkPolicy", "web-from-proxy", lambda r: r["spec"]["podSelector"]["matchLabels"].update(app="x")
    ),
    "an autoscaler of nothing": _mistake(
        "HorizontalPodAutoscaler", "worker", lambda r: r["spec"]["scaleTargetRef"].update(name="workers")
    ),
    "an autoscaler against a number": _mistake("Deployment", "worker", lambda r: r["spec"].update(replicas=4)),
    "an ingress to nothing": _mistake(
        "Ingress", "web", lambda r: r["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(name="api")
    ),
    "an image without a version": _mistake("Deployment", "web", _of_container(lambda c: c.update(image="extract-image:latest"))),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_that_is_put_in_on_purpose_is_found(mistake, keys):
    kind, name, change = MISTAKES[mistake]
    resources = copy.deepcopy(RENDERED["production"])
    change(the(resources, kind, name))
    assert faults(resources, keys) != []


@pytest.mark.parametrize("name", RENDERED)
def test_the_namespace_takes_only_restricted_pods(name):
    [namespace] = [each for each in RENDERED[name] if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spaces = {each["metadata"].get("namespace") for each in RENDERED[name] if each["kind"] != "Namespace"}
    assert spaces == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("name", RENDERED)
@pytest.mark.parametrize("process", OURS)
def test_each_process_has_a_deployment_with_probes_and_a_budget_that_lets_a_node_be_emptied(name, process):
    assert the(RENDERED[name], "PodDisruptionBudget", process)["spec"]["maxUnavailable"] == 1
    ours = container(RENDERED[name], "Deployment", process)
    assert ours["args"] == SERVICES[process]["command"]
    assert "livenessProbe" in ours
    checks = ours["livenessProbe"].get("exec", {}).get("command")
    assert checks is None or ["CMD", *checks] == SERVICES[process]["healthcheck"]["test"]
    limits = SERVICES[process]["deploy"]["resources"]["limits"]
    assert ours["resources"]["limits"] == {
        "cpu": limits["cpus"],
        "memory": limits["memory"].replace("g", "Gi").replace("m", "Mi"),
    }


@pytest.mark.parametrize("name", RENDERED)
def test_the_migration_is_a_job_that_is_named_for_its_version(name):
    jobs = [each for each in RENDERED[name] if each["kind"] == "Job" and each["metadata"]["name"].startswith("migrate")]
    [migrate] = jobs
    version = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    assert migrate["metadata"]["name"] == f"migrate-{version.replace('.', '-')}"
    assert next(containers(migrate))["args"] == ["migrate"]
    for each in (one for resource in RENDERED[name] for one in containers(resource)):
        if each["image"].rpartition(":")[0].rpartition("/")[2] == "extract-image":
            assert each["image"].endswith(f":{version}")


@pytest.mark.parametrize("name", RENDERED)
def test_the_network_is_closed_but_for_what_compose_allows(name):
    policies = {each["metadata"]["name"]: each["spec"] for each in RENDERED[name] if each["kind"] == "NetworkPolicy"}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    let_in = {each for each, spec in policies.items() if spec.get("ingress")}
    assert let_in == {"web-from-proxy"} | ({"stores-from-service"} if name == "small" else set())
    outside = [
        each["metadata"]["name"]
        for each in RENDERED[name]
        if pod_of(each) and each["spec"]["template"]["metadata"]["labels"].get("outside") == "yes"
    ]
    assert outside == ["worker"]
    [world] = policies["worker-to-outside"]["egress"]
    for peer in world["to"]:
        assert peer["ipBlock"]["except"]  # no private network


def test_small_has_all_in_it_and_one_of_each_as_compose_has_it():
    small = RENDERED["small"]
    for process in OURS:
        assert the(small, "Deployment", process)["spec"]["replicas"] == 1
    for store in ("postgres", "redis", "seaweedfs"):
        stateful = the(small, "StatefulSet", store)
        assert stateful["spec"]["replicas"] == 1
        assert next(containers(stateful))["image"] == SERVICES[store]["image"]
        user = pod_of(stateful)["securityContext"]  # type: ignore[index]
        assert f"{user['runAsUser']}:{user['runAsGroup']}" == SERVICES[store]["user"]
    assert container(small, "StatefulSet", "postgres")["args"] == SERVICES["postgres"]["command"]
    for store in ("redis", "seaweedfs"):
        [script] = SERVICES[store]["command"]
        assert container(small, "StatefulSet", store)["args"] == [script.replace("$$", "$")]


def test_production_has_no_store_of_its_own_and_scales_workers_by_a_metric_that_there_is():
    production = RENDERED["production"]
    assert not [each for each in production if each["kind"] == "StatefulSet"]
    scaler = the(production, "HorizontalPodAutoscaler", "worker")["spec"]
    [metric] = [each["external"]["metric"]["name"] for each in scaler["metrics"]]
    assert f"`{metric}`" in (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert metric in PAGE


@pytest.mark.parametrize("name", RENDERED)
def test_prometheus_can_read_the_metrics_with_the_token_of_the_secrets(name):
    """It asks from another pod, and /metrics is shown to nobody else without a token."""
    given = the(RENDERED[name], "ConfigMap", "extract-image")["data"]
    assert given["METRICS_TOKEN_FILE"] == "/run/secrets/metrics_token"
    mounted = {
        process: {
            item["key"]
            for volume in pod_of(the(RENDERED[name], "Deployment", process))["volumes"]
            if "secret" in volume
            for item in volume["secret"]["items"]
        }
        for process in OURS
    }
    assert [process for process in OURS if "metrics_token" in mounted[process]] == ["web"]
    assert "`secrets/metrics_token`" in PAGE


def test_the_page_says_how_many_connections_production_opens_at_most():
    production = RENDERED["production"]
    web = the(production, "Deployment", "web")["spec"]["replicas"] + 1  # one more while they are updated
    workers = the(production, "HorizontalPodAutoscaler", "worker")["spec"]["maxReplicas"]
    processes = int(the(production, "ConfigMap", "extract-image")["data"]["WEB_CONCURRENCY"])
    supervisors = the(production, "Deployment", "supervisor")["spec"]["replicas"]
    opened = (
        web * processes * CONNECTIONS["web"]
        + workers * (CONNECTIONS["worker"] + SEATS * ALONE_CONNECTIONS)
        + supervisors * CONNECTIONS["supervisor"]
    )
    assert f"up to {opened} connections" in " ".join(PAGE.split())


def test_the_page_says_plainly_that_no_cluster_ran_it():
    assert "has not been run in a cluster" in " ".join(PAGE.split())
