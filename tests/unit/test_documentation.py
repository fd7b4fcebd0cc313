# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What documentation says is so: names and defaults of variables, and the examples, which run."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskfleet.deploy.plugins.module_utils import plan

COLLECTIONS = Path(plan.__file__).parents[6]
PROJECT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parents[1].name for path in PROJECT.glob("roles/*/meta/argument_specs.yml"))
FILTERS = sorted(path.stem for path in (PROJECT / "plugins" / "filter").glob("*.yml"))
KINDS = {"module": "modules", "lookup": "lookup", "filter": "filter"}
PLUGINS = [(kind, path.stem) for kind, folder in KINDS.items() for path in (PROJECT / "plugins" / folder).glob("*.py")]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def load(*parts):
    return yaml.safe_load(PROJECT.joinpath(*parts).read_text(encoding="utf-8"))


def options(role):
    return load("roles", role, "meta", "argument_specs.yml")["argument_specs"]["main"]["options"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_that_are_documented(role):
    """A default that is made of another variable is told in words: a reference shows values, of the type it states."""
    defaults, known = load("roles", role, "defaults", "main.yml"), options(role)
    assert set(defaults) == set(known)
    for name, default in defaults.items():
        variables = re.findall(r"{{ (\w+)", default) if isinstance(default, str) else []
        if variables:
            assert "default" not in known[name], name
            assert all(f"C({variable})" in " ".join(known[name]["description"]) for variable in variables), name
        else:
            assert known[name].get("default") == default, name


def test_variables_that_roles_share_have_one_default():
    defaults = {}
    for role in ROLES:
        for name, default in load("roles", role, "defaults", "main.yml").items():
            assert defaults.setdefault(name, default) == default


def readme_keys():
    """(key, default) of the rows of README's table; "derived" for what is found out where it is not given."""
    table = README.partition("| key | default | meaning |\n")[2].partition("\n\n")[0]
    for row in table.splitlines()[1:]:
        keys, defaults, _meaning = (cell.strip() for cell in row.strip("| ").split(" | "))
        keys = re.findall(r"`([^`]+)`", keys)
        defaults = re.findall(r"`[^`]+`|required|derived", defaults)
        assert len(keys) == len(defaults), row
        yield from zip(keys, defaults)


def test_readme_has_every_key_with_its_default():
    known = options("flask_app")["flask_apps"]["options"]
    documented = dict(readme_keys())
    assert set(documented) == set(known)
    for key, default in documented.items():
        if default in ("required", "derived"):
            assert default == ("required" if known[key].get("required") else "derived"), key
            assert not known[key].get("default"), key
        else:
            assert yaml.safe_load(default.strip("`")) == known[key]["default"], key


def test_what_the_page_of_sites_shows_is_what_scenario_tls_runs():
    page = (PROJECT / "docs" / "jobs" / "sites.md").read_text(encoding="utf-8")
    shown = re.findall(r"```\w+\n(.*?)```", page, re.DOTALL)
    assert (PROJECT / "molecule" / "tls" / "templates" / "limited.conf.j2").read_text(encoding="utf-8") in shown
    [extra] = [yaml.safe_load(text)["site"]["extra"] for text in shown if text.startswith("site:")]
    sites = load("molecule", "inventory", "group_vars", "appservers.yml")["test_tls_sites"]
    assert extra in [site.get("extra") for site in sites]


@pytest.mark.parametrize("role", ROLES)
def test_specifications_have_no_templates(role):
    """Ansible evaluates them, descriptions included."""
    assert not re.search("{[{%#]", json.dumps(options(role)))


PAGES = [path for path in PROJECT.rglob("*.md") if path.relative_to(PROJECT).parts[0] not in (".cache", ".venv")]


def anchors(page):
    """The fragments under which GitHub, and MyST on the site, find the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.M
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_between_pages_lead_somewhere(page):
    """Also for who reads them in the repository; the site's build tells of those that it has broken."""
    for path, _hash, fragment in re.findall(r"\]\((?!\w+:)([^)#\s]*)(#([^)]*))?\)", page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not fragment or fragment in anchors(target), f"{path}#{fragment}"


def test_readme_names_variables_that_exist():
    pattern = r"\b(?:flask_app|nginx_site|hosts_entries)_[a-z_]+\b"
    playbooks = "".join(path.read_text(encoding="utf-8") for path in PROJECT.glob("playbooks/*.yml"))
    known = {name for role in ROLES for name in options(role)} | set(re.findall(pattern, playbooks))
    assert set(re.findall(pattern, README)) <= known


def test_the_reference_of_variables_is_up_to_date():
    command = [sys.executable, str(PROJECT / "scripts" / "variables.py")]
    made = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert made == (PROJECT / "docs" / "variables.md").read_text(encoding="utf-8"), (
        f"run {command[-1]} docs/variables.md"
    )


def ansible_doc(*arguments):
    """What ansible-doc returns as JSON, without a word on its standard error about this collection."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    command = [sys.executable, "-m", "ansible", "doc", "--json", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0 and "flaskfleet" not in result.stderr, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_ansible_doc_shows_every_plugin(kind):
    names = {f"flaskfleet.deploy.{name}" for of_kind, name in PLUGINS if of_kind == kind}
    shown = ansible_doc("--type", kind, *sorted(names))
    assert set(shown) == names
    for name, documentation in shown.items():
        for part in ("doc", "examples", "return"):
            assert documentation[part], f"{name} has no {part}"
        yaml.safe_load(documentation["examples"])


def test_ansible_doc_shows_every_role():
    shown = ansible_doc("--type", "role", *(f"flaskfleet.deploy.{role}" for role in ROLES))
    assert set(shown) == {f"flaskfleet.deploy.{role}" for role in ROLES}
    for role in ROLES:
        assert set(shown[f"flaskfleet.deploy.{role}"]["entry_points"]["main"]["options"]) == set(options(role))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """{filter: (what its example returns, what its closing comment says, as text)}."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "hosts").write_text("192.0.2.99 elsewhere.example.org\n")
    tasks, claims = [], {}
    for name in FILTERS:
        example = load("plugins", "filter", f"{name}.yml")["EXAMPLES"]
        claims[name] = "\n".join(line.partition("# ")[2] for line in example.splitlines() if re.match(" *# ", line))
        [task] = yaml.safe_load(example)
        values = [value for options in task.values() if isinstance(options, dict) for value in options.values()]
        [expression] = [value for value in values if "|" in value]
        expression = re.sub(r"'/etc/[\w./]+'", f"'{folder}/hosts'", expression).strip().removesuffix("}}")
        message = f"RETURNED {name} {expression} | to_json | b64encode }}}} END"
        tasks.append({"ansible.builtin.debug": {"msg": message}, "vars": task["vars"]})
    (folder / "play.yml").write_text(yaml.dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "play.yml"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"}
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    returned = re.findall(r"RETURNED (\w+) (\S+) END", " ".join(finished.stdout.split()))
    return {name: (json.loads(base64.b64decode(text)), claims[name]) for name, text in returned}


@pytest.mark.parametrize("name", FILTERS)
def test_examples_of_filters_return_what_they_say(examples, name):
    returned, claimed = examples[name]
    assert claimed and returned == (claimed if isinstance(returned, str) else yaml.safe_load(claimed))
