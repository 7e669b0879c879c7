"""The container files: they agree with the published schemas, name only settings that exist, and pin what they run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.settings import CONFIG_ENV, ENV_PREFIX
from tests.inbox import eventually
from vps_bridge.settings import BridgeSettings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
KUBERNETES = "1.33"
VERSION = re.compile(r"[a-z][a-z0-9/._-]*:\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?")
SECRET = re.compile(r"secret|password|token|key_file|admin_key", re.IGNORECASE)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}, {document['kind']} {document['metadata']['name']}", document


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in documents():
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield name, document["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}, {container['name']}", container


def variables() -> dict[str, str]:
    """Every variable that a bridge is given, with its value."""
    (settings,) = [document["data"] for _, document in documents() if document["kind"] == "ConfigMap"]
    return {**compose()["services"]["bridge"]["environment"], **settings}


def test_the_compose_file_agrees_with_the_published_schema(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, COMPOSE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("restart:", "restarts:"))
    assert subprocess.run([*command, wrong], capture_output=True, check=False).returncode == 1


def test_every_manifest_agrees_with_the_schemas_of_kubernetes() -> None:
    import kubernetes_validate

    found = list(documents())
    assert len(found) >= 10
    for _, document in found:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    (_, wrong), *_ = [item for item in found if item[1]["kind"] == "StatefulSet"]
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_every_manifest_is_applied_and_in_the_namespace() -> None:
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert sorted(listed["resources"]) == [path.name for path in MANIFESTS]
    for name, document in documents():
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == listed["namespace"], name


def test_every_variable_is_a_setting_of_the_bridge() -> None:
    known = {f"{ENV_PREFIX}{name}".upper() for name in BridgeSettings.model_fields} | {CONFIG_ENV}
    assert set(variables()) - known == set()


def test_every_image_has_an_exact_version() -> None:
    images = [service["image"] for service in compose()["services"].values()]
    images += [container["image"] for _, container in containers()]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) >= 8
    assert [image for image in images if VERSION.fullmatch(image) is None] == []
    kinds: dict[str, set[str]] = {}
    for image in images:
        kinds.setdefault(image.partition(":")[0], set()).add(image)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{next(iter(kinds["omi-bridge"])).partition(":")[2]}"' in project


def test_every_secret_comes_from_a_file_that_is_there() -> None:
    for name, value in variables().items():
        if SECRET.search(name) and not name.endswith("ACCESS_KEY"):
            assert name.endswith("_FILE"), name
            assert value.startswith(("/run/secrets/", "/run/omi/")), (name, value)
        assert "password" not in value.lower() or name.endswith("_FILE"), name
    services = compose()
    wanted = {
        Path(value).name for value in services["services"]["bridge"]["environment"].values() if "/run/secrets/" in value
    }
    assert wanted == set(services["services"]["bridge"]["secrets"]) <= set(services["secrets"])
    readme = (DEPLOY / "README.md").read_text()
    (bridges,) = [found for name, found in documents() if name == "bridge.yaml, StatefulSet bridge"]
    own = [f"bridge-{number}.toml" for number in range(bridges["spec"]["replicas"])]  # an init container picks its own
    for _, document in documents():
        for name, value in document.get("data", {}).items():
            for file in re.findall(r"/run/omi/([\w.-]+)", value):
                for each in own if file == "bridge.toml" else [file]:
                    assert f"--from-file=secrets/{each}" in readme, (name, each)
    for file in services["secrets"].values():
        assert f"secrets/{Path(file['file']).name}" in readme or Path(file["file"]).stem in readme


def test_no_container_runs_as_root_or_may_become_it() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
    for name, container in containers():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"]["drop"] == ["ALL"], name
        assert container["resources"]["limits"]["memory"], name
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


def test_all_that_the_image_is_made_of_is_in_the_checkout_and_let_through() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        *sources, _target = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored or f"!{Path(source).parent}/*{Path(source).suffix}" in ignored, source
    for line in re.findall(r"pip install[^\n]*", DOCKERFILE):
        assert "--require-hashes" in line or "--no-build-isolation" in line
    (command,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', DOCKERFILE, re.MULTILINE)
    assert f'{command} = "' in (ROOT / "pyproject.toml").read_text()


def test_the_brokers_directory_works_where_the_container_has_it(tmp_path: Path) -> None:
    """`init` writes the paths of where it ran, and the page says how they become those in the container."""
    mosquitto = shutil.which("mosquitto")
    if mosquitto is None:
        pytest.skip("mosquitto is not installed")
    made, inside = tmp_path / "secrets" / "mosquitto", tmp_path / "etc" / "mosquitto" / "omi"

    run = [sys.executable, "-c", "from broker.cli import main; main()", "init", str(made)]
    subprocess.run(
        [*run, "--host", "0.0.0.0", "--name", "mosquitto", "--agent", "my-mac"],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    (line,) = re.findall(
        r'^sed -i "(s#.*#)" secrets/mosquitto/mosquitto.conf$', (DEPLOY / "README.md").read_text(), re.MULTILINE
    )
    edit = line.replace("$PWD/secrets/mosquitto", str(made)).replace("/etc/mosquitto/omi", str(inside))
    subprocess.run(["sed", "-i", edit, str(made / "mosquitto.conf")], check=True)
    port = re.compile(r"^listener 8883 0\.0\.0\.0$", re.MULTILINE)
    text = (made / "mosquitto.conf").read_text()
    assert str(made) not in text
    assert port.search(text)
    inside.parent.mkdir(parents=True)
    made.rename(inside)
    from tests.brokers import free_port

    (inside / "mosquitto.conf").write_text(port.sub(f"listener {free_port()} 127.0.0.1", text) + "\nuser root\n")
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([mosquitto, "-v", "-c", inside / "mosquitto.conf"], stdout=file, stderr=file)
    try:
        eventually(lambda: b"running" in log.read_bytes() or process.poll() is not None)
        assert b"running" in log.read_bytes(), log.read_text()
    finally:
        process.terminate()
        process.wait()
