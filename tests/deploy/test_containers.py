"""Dockerfile, compose and Kubernetes: well formed, locked down, and starting what exists.

No container engine runs here; the programs themselves are run as plain processes by tests/drill.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml
from django.core.management import get_commands, load_command_class

from fks_site.programs import QUEUES
from tests.e2e.product import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.33", "1.37")
COMPOSE = (ROOT / "compose.yaml").read_text()


def manifests() -> Iterator[dict[str, Any]]:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        yield from yaml.safe_load_all((FOLDER / name).read_text())


MANIFESTS = list(manifests())
PODS = {
    one["metadata"]["name"]: one["spec"]["template"]["spec"]
    for one in MANIFESTS
    if one["kind"] in ("Deployment", "Job")
}
NAMESPACE = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["namespace"]
DEPLOYMENTS = {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == "Deployment"}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def of_kind(kind: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == kind}


def title(one: dict[str, Any]) -> str:
    return f"{one['kind']}-{one['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=title)
def test_manifests_fit_the_schema(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_would_have_noticed() -> None:
    wrong = {**DEPLOYMENTS["web"], "spec": {**DEPLOYMENTS["web"]["spec"], "replicaz": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_every_file_of_the_folder_is_applied() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert {*kustomization["resources"], "kustomization.yaml"} == {
        path.name for path in FOLDER.iterdir() if path.is_file()
    }


COMPONENTS = sorted(path.name for path in (FOLDER / "components").iterdir())


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_may_be_opened_besides_fits_the_schema(component: str) -> None:
    folder = FOLDER / "components" / component
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["kind"] == "Component"
    assert {*kustomization["resources"], "kustomization.yaml"} == {
        path.name for path in folder.iterdir()
    }
    roles = {pod["metadata"]["labels"]["role"] for pod in DEPLOYMENTS.values()}
    for name in kustomization["resources"]:
        policy = yaml.safe_load((folder / name).read_text())
        kubernetes_validate.validate(policy, VERSIONS[-1], strict=True)
        [chosen] = policy["spec"]["podSelector"]["matchExpressions"]
        assert set(chosen["values"]) <= roles
        assert policy["metadata"]["namespace"] == NAMESPACE


@pytest.mark.parametrize("used", [[], COMPONENTS], ids=["alone", "with-components"])
def test_kustomize_builds_it(tmp_path: Path, used: list[str]) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed here")
    here = Path(os.path.relpath(FOLDER, tmp_path.resolve()))
    overlay = {
        "resources": [str(here)],
        "components": [str(here / "components" / name) for name in used],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=True
    )
    objects = list(yaml.safe_load_all(done.stdout))
    spaces = {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"}
    assert spaces == {NAMESPACE}
    built = {(one["kind"], one["metadata"]["name"]) for one in objects}
    assert built == {(one["kind"], one["metadata"]["name"]) for one in MANIFESTS} | {
        ("NetworkPolicy", name) for name in used
    }
    assert ("otel-collector" in done.stdout) == bool(used)


@pytest.mark.parametrize("name", PODS)
def test_pods_may_do_next_to_nothing(name: str) -> None:
    pod = PODS[name]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"] == {
            "requests": {"cpu": "200m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        }
    secrets = {
        v["secret"]["secretName"]: v["secret"]["defaultMode"]
        for v in pod["volumes"]
        if "secret" in v
    }
    assert set(secrets.values()) == {0o440}
    assert set(secrets) == ({"fks", "fks-owner"} if name == "migrate" else {"fks"})


def test_only_migrations_and_grants_run_as_the_owner_of_the_tables() -> None:
    owner = {
        " ".join(container["args"][:1])
        for pod in PODS.values()
        for container in containers(pod)
        if "database_owner_url" in str(container["env"])
    }
    assert owner == {"migrate", "grant_role"}
    services = yaml.safe_load(COMPOSE)["services"]
    owner = {
        name for name, one in services.items() if "database_owner_url" in one.get("secrets", [])
    }
    assert owner == {"migrate", "role"}
    assert "role" in services["web"]["depends_on"]


def test_rolling_updates_lose_nothing() -> None:
    for name, one in DEPLOYMENTS.items():
        rolling = one["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxUnavailable": 0, "maxSurge": 1}, name
        assert PODS[name]["terminationGracePeriodSeconds"] > 30, name
    assert "preStop" in PODS["web"]["containers"][0]["lifecycle"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_new_code_waits_for_its_migrations(name: str) -> None:
    [wait] = PODS[name]["initContainers"]
    [program] = PODS[name]["containers"]

    assert wait["args"] == ["wait_for_migrations"]
    for same in ("image", "envFrom", "env", "volumeMounts"):
        assert wait[same] == program[same]


def test_each_role_scales_and_keeps_one() -> None:
    scalers = of_kind("HorizontalPodAutoscaler")
    assert {(s["minReplicas"], s["maxReplicas"]) for s in scalers.values()} == {(2, 10)}
    assert set(scalers) == {"web", "worker-orders"}
    for name, one in DEPLOYMENTS.items():
        assert name in scalers or one["spec"]["replicas"] == 2
    assert set(of_kind("PodDisruptionBudget")) == set(DEPLOYMENTS)


def test_what_is_not_allowed_is_forbidden() -> None:
    policies = of_kind("NetworkPolicy")
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    [rule] = policies["venues"]["egress"]
    assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]


def commands() -> Iterator[list[str]]:
    for pod in PODS.values():
        yield from (container["args"] for container in containers(pod))
    for service in yaml.safe_load(COMPOSE)["services"].values():
        if str(service.get("image", "")).startswith("fks"):
            yield service.get("command", ["serve", "web"])
    [default] = re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    yield yaml.safe_load(default)


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_what_containers_start_exists(arguments: list[str]) -> None:
    name, *options = arguments
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    found = vars(parser.parse_args(options))
    assert set(found.get("queues", QUEUES[0]).split(",")) <= set(QUEUES)


def test_every_queue_has_workers() -> None:
    for source in (PODS.values(), yaml.safe_load(COMPOSE)["services"].values()):
        text = str(list(source))
        served = set(",".join(re.findall(r"'--queues', '([a-z,]+)'", text)).split(","))
        assert served == set(QUEUES)


def test_compose_fits_its_specification() -> None:
    text = COMPOSE.replace("${FKS_HOST:?the name FKS is reached by}", "fks.example")
    merged = yaml.safe_dump(yaml.safe_load(text))
    spec = compose_spec.PyCompose.from_yaml(merged)
    spec.validate()
    assert {"postgres", "valkey", "web", "beat", "nginx", "prometheus", "grafana"} <= set(
        spec.service_names()
    )


def test_compose_locks_its_containers_down_too() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    for name, service in services.items():
        if str(service["image"]).startswith("fks"):
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
    published = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert published == {"nginx": ["443:8443"], "grafana": ["127.0.0.1:3000:3000"]}


def test_every_file_a_program_is_told_to_read_is_there_for_it(tmp_path: Path) -> None:
    [config] = [one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap"]
    named = {key for key in config if key.endswith("_FILE")}
    assert {"SECRET_KEY_FILE", "SECRET_KEY_FALLBACKS_FILE"} <= named
    assert {config[name].rpartition("/")[0] for name in named} == {"/run/secrets/fks"}

    compose = yaml.safe_load(COMPOSE)
    for service in compose["services"].values():
        if str(service["image"]).startswith("fks"):
            read = [v for k, v in service["environment"].items() if k.endswith("_FILE")]
            assert {f"/run/secrets/{name}" for name in service["secrets"]} >= set(read)
    script = shutil.copy(ROOT / "deploy/compose/make_secrets.sh", tmp_path)
    subprocess.run(["sh", script], check=True, env=os.environ | {"FKS_HOST": "fks.example"})
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert made == {Path(one["file"]).name for one in compose["secrets"].values()}


def test_files_that_are_mounted_exist() -> None:
    mounted = re.findall(r"- (\./[^:]+):", COMPOSE)
    assert len(mounted) >= 6
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_the_image_is_small_and_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = text.split("\nFROM ")

    assert len(stages) == 3  # what stands before the first is a comment
    assert "\nUSER 10001:10001\n" in stages[-1]
    assert "HEALTHCHECK" in stages[-1]
    assert "apt-get" not in text
    assert not re.search(r"^FROM \S+:latest|^FROM [^:\s]+(\s|$)", text, re.MULTILINE)
    copied = re.findall(r"^COPY --chown=root:root (\S+)", text, re.MULTILINE)
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(copied) | {"deploy/image.lock"} == set(allowed)
    assert "--require-hashes" in stages[1]
