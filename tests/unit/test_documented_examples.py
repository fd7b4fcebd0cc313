# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people copy out of README and docs/: every block of YAML, every command line.

YAML is planned as a run would, or syntax-checked when it is a playbook. Commands are **not run** here. They are read by
the parsers of the programs that they call (Ansible's), and the playbooks, tags, variables, targets of make, units and
paths that they name must be there. What runs them for real: `make demo` deploys and asks for the status as README says,
and scenarios run each playbook that a page names, and what docs/operations.md says to type on a machine.
"""

from __future__ import annotations

import datetime
import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskfleet.deploy.plugins.module_utils import plan
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

COLLECTIONS = Path(plan.__file__).parents[6]
PROJECT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/microblog/README.md"]
PAGES += sorted(str(path.relative_to(PROJECT)) for path in (PROJECT / "docs").rglob("*.md"))
TUTORIAL = PROJECT / "docs" / "tutorial"
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
# languages of blocks that are neither copied nor run
SHOWN_ALONE = ("text", "{toctree}", "python", "ini", "diff")


def blocks(*languages):
    """(page and line, text) of the blocks of these languages, as parameters of a test."""
    for page in PAGES:
        text = (PROJECT / page).read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match["language"] in languages:
                place = f"{page}:{text.count(chr(10), 0, match.start()) + 1}"
                yield pytest.param(place, textwrap.dedent(match["text"]), id=place)


def all_blocks(*languages):
    return [parameters.values for parameters in blocks(*languages)]


def test_blocks_are_of_a_language_that_somebody_checks():
    found = {(place, language) for page in PAGES for place, language in languages_of(page)}
    known = ("", "yaml", "jinja", *SHOWN_ALONE)  # README's Jinja is what scenario tls runs, see test_documentation.py
    assert not {(place, language) for place, language in found if language not in known}


def languages_of(page):
    text = (PROJECT / page).read_text(encoding="utf-8")
    return [(f"{page}: {match['text'][:40]!r}", match["language"]) for match in BLOCK.finditer(text)]


# ----- YAML

REQUIRED = {"name": "shop", "domain": "shop.example.org", "repository": "https://git.example.org/shop.git"}


def role_variables():
    for path in PROJECT.glob("roles/*/meta/argument_specs.yml"):
        yield from yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]


VARIABLES = set(role_variables())
APP_KEYS = set(
    yaml.safe_load((PROJECT / "roles/flask_app/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"][
        "main"
    ]["options"]["flask_apps"]["options"]
)


def kind_of(place, content):
    """(what a block is, as variables of a host or plays); asserts that it is something."""
    if isinstance(content, list) and all("hosts" in each or "import_playbook" in next(iter(each)) for each in content):
        return "plays", content
    if isinstance(content, list) and all(REQUIRED.keys() <= each.keys() for each in content):
        return "variables", {"flask_apps": content}
    if isinstance(content, list):  # tasks, such as those of a hook
        return "plays", [{"hosts": "all", "gather_facts": False, "tasks": content}]
    if content.keys() <= VARIABLES:
        if "flask_app_overrides" in content:
            named = [{**REQUIRED, "name": name} for name in content["flask_app_overrides"]]
            content = {"flask_apps": named, **content}
        return "variables", content
    if content.keys() <= APP_KEYS:
        return "variables", {"flask_apps": [{**REQUIRED, **content}]}
    groups = (isinstance(group, dict) and group.keys() & {"hosts", "children"} for group in content.values())
    if "plugin" in content or all(groups):
        return "inventory", content
    sections = yaml.safe_load((PROJECT / "changelogs" / "config.yaml").read_text(encoding="utf-8"))["sections"]
    assert content.keys() <= {section for section, _title in sections}, f"{place}: what is this?"
    return "fragment", content


# The tutorial's are parts of the files of its steps.
EXCERPTS = [(place, text) for place, text in all_blocks("yaml") if place.startswith("docs/tutorial")]
YAML_BLOCKS = [
    (place, *kind_of(place, yaml.safe_load(text)))
    for place, text in all_blocks("yaml")
    if not place.startswith("docs/tutorial")
]


KNOWN_HOSTS = "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"


def key_and_certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example.org")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=90))
    names = x509.SubjectAlternativeName([x509.DNSName("shop.example.org")])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return pem_of(key), certificate.public_bytes(serialization.Encoding.PEM).decode()


def pem_of(key, form=serialization.PrivateFormat.PKCS8):
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """{place: what the module plan returned for the variables of that block, or its message}, of one run for all."""
    folder = tmp_path_factory.mktemp("blocks")
    key, certificate = key_and_certificate()
    vault = {
        "vault_shop_key": key,
        "vault_shop_deploy_key": pem_of(ed25519.Ed25519PrivateKey.generate(), serialization.PrivateFormat.OpenSSH),
    }
    for _place, text in all_blocks("yaml"):
        vault |= {
            name: "https://hooks.example.org/long-enough"
            for name in re.findall(r"\bvault_\w+", text)
            if name not in vault
        }
    for path in re.findall(r"\bfile: ([\w/]+\.yml)", str(all_blocks("yaml"))):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("---\n[]\n")
    (folder / "files").mkdir()
    (folder / "files" / "shop.pem").write_text(certificate)
    (folder / "files" / "known_hosts").write_text(KNOWN_HOSTS)
    hosts = {"appservers": {"hosts": {"web1": {}}}, "databases": {"hosts": {"db1": {}}}}
    hosts["databases"]["hosts"]["db1"] = {
        "backing_service_address": "10.0.0.5",
        "backing_service_networks": ["10.0.0.0/8"],
    }
    (folder / "hosts.yml").write_text(yaml.dump(hosts))
    platform = {}
    for role in ("nginx_site", "flask_app", "backing_service"):
        variables = yaml.safe_load((PROJECT / "roles" / role / "vars" / "main.yml").read_text(encoding="utf-8"))
        platform.update(variables[f"__{role}_platforms"]["Debian"])
    tasks = []
    for number, (_place, kind, content) in enumerate(YAML_BLOCKS):
        if kind == "variables":
            tasks.append(
                {
                    "flaskfleet.deploy.plan": {"platform": platform},
                    "vars": content,
                    "register": f"plan_{number}",
                    "ignore_errors": True,
                }
            )
    results = [f"plan_{number}" for number, (_place, kind, _content) in enumerate(YAML_BLOCKS) if kind == "variables"]
    wanted = ", ".join(f"'{name}': [{name} is failed, {name}.msg | default('')]" for name in results)
    tasks.append(
        {"ansible.builtin.copy": {"content": f"{{{{ {{{wanted}}} | to_json }}}}", "dest": f"{folder}/results"}}
    )
    play = {"hosts": "web1", "gather_facts": False, "connection": "local", "vars": vault, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.dump([play], sort_keys=False))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml", "play.yml"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "results").read_text())
    return {YAML_BLOCKS[int(name.partition("_")[2])][0]: result for name, result in found.items()}


def of_kind(kind):
    return [place for place, its_kind, _content in YAML_BLOCKS if its_kind == kind]


@pytest.mark.parametrize("place", of_kind("variables"))
def test_lists_that_pages_show_are_accepted_by_the_plan(planned, place):
    failed, message = planned[place]
    assert not failed, message


def test_plays_that_pages_show_pass_the_syntax_check(tmp_path):
    plays = [(place, content) for place, kind, content in YAML_BLOCKS if kind == "plays"]
    assert plays
    for number, (_place, content) in enumerate(plays):
        (tmp_path / f"{number}.yml").write_text(yaml.dump(content, sort_keys=False))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "--syntax-check"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    paths = sorted(str(path) for path in tmp_path.glob("*.yml"))
    done = subprocess.run([*command, *paths], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STEPS = sorted(path.name for path in (TUTORIAL / "steps").iterdir() if path.is_dir())


@pytest.mark.parametrize("step", STEPS)
def test_steps_of_the_tutorial_pass_the_syntax_check(step):
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "../hosts.yml", "--syntax-check", "deploy.yml"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    folder = TUTORIAL / "steps" / step
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place, text", EXCERPTS, ids=[place for place, _text in EXCERPTS])
def test_what_the_tutorial_shows_is_in_its_steps(place, text):
    files = [path.read_text(encoding="utf-8") for path in (TUTORIAL / "steps").rglob("*.yml")]
    indented = [textwrap.indent(text, " " * depth) for depth in range(0, 9, 2)]
    assert any(each in file for file in files for each in indented)


def test_the_last_step_of_the_tutorial_is_a_list_that_the_plan_accepts():
    """As far as a plan without a machine goes; `make_plan` raises when it is not."""
    path = TUTORIAL / "steps" / "5-collection" / "group_vars" / "appservers.yml"
    made = plan.make_plan(yaml.safe_load(path.read_text(encoding="utf-8")), {"os_family": "Debian"}, "ubuntu1")
    assert [app["name"] for app in made["apps"]] == ["hello", "hello2"]


def test_the_list_on_top_of_readme_is_ten_lines_at_most():
    """A host and an app: what README says is all that one needs."""
    [(_place, text)] = [block for block in all_blocks("yaml") if block[0].startswith("README.md")][:1]
    assert len(text.splitlines()) <= 10 and "flask_apps" in text


# ----- commands

MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
SCRIPTS = MAKEFILE + "".join(
    path.read_text(encoding="utf-8") for path in (PROJECT / "scripts").iterdir() if path.is_file()
)
PLAYBOOKS = {f"flaskfleet.deploy.{path.stem}": path for path in (PROJECT / "playbooks").glob("*.yml")}
PLAYBOOK_VARIABLES = set(
    re.findall(
        r"\b(?:flask|nginx|hosts|backing)_[a-z_]+\b", "".join(p.read_text(encoding="utf-8") for p in PLAYBOOKS.values())
    )
)
TAGS = {"all"} | {
    tag
    for folder in ("playbooks", "roles")
    for path in (PROJECT / folder).rglob("*.yml")
    for tags in re.findall(r"^ *tags: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    for tag in tags.strip("[]").split(", ")
} - {"never", "always"}
# What is typed on a machine, or is no program of ours: only the words that name something of ours are looked at.
OTHER_PROGRAMS = set(
    "systemctl journalctl curl tail cat ls readlink rsync chown rm userdel nginx certbot python3 podman molecule git cd"
    " python pre-commit du echo . sudo ssh scp openssl dig ss df mkdir cp grep".split()
)
PROGRAMS = "|".join(["ansible[a-z-]*", "make", "flask-app", "pip", *map(re.escape, sorted(OTHER_PROGRAMS))])
# What an app `NAME` with the process `worker` and the schedules `cleanup` and `dump` is made of, on a machine.
UNITS = (
    "flask-{app}.target flask-{app}.live.service flask-{app}@1f3a9c02-5d0e1b77.service"
    " flask-{app}@1f3a9c02-5d0e1b77.socket flask-{app}.worker@1f3a9c02-5d0e1b77:1.service"
    " flask-{app}.cleanup.timer flask-{app}.cleanup.service nginx nginx.service certbot.timer certbot-renew.timer"
)
IDENTIFIERS = ("flask-{app}", "flask-{app}.worker", "flask-{app}.cleanup")
OURS = re.compile(r"/(?:opt|run|var/lib|var/cache|var/backups)/flask[a-z_-]*")
OUR_FOLDERS = (
    "/opt/flask_apps /run/flask_apps /var/lib/flask_apps /var/cache/flask_apps /var/backups/flask_apps"
    " /var/lib/flaskfleet /var/lib/flaskfleet-cache"
).split()


def command_lines():
    """All lines of blocks of commands, which have no language and a program that is known; continued lines are one."""
    for place, text in all_blocks(""):
        lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
        if not any(re.match(rf" *(?:{PROGRAMS}) ", line) for line in lines):
            continue  # a picture, or what a program has written
        for line in lines:
            if not line.lstrip().startswith("#"):
                yield pytest.param(line.strip(), id=f"{place}: {line.strip()[:60]}")


def ansible_options(program, words):
    """What a program of Ansible makes of its command line; it exits when that is wrong."""
    module, name = {
        "ansible-playbook": ("playbook", "PlaybookCLI"),
        "ansible-galaxy": ("galaxy", "GalaxyCLI"),
        "ansible-vault": ("vault", "VaultCLI"),
        "ansible-doc": ("doc", "DocCLI"),
        "ansible": ("adhoc", "AdHocCLI"),
        "ansible-inventory": ("inventory", "InventoryCLI"),
    }[program]
    cli = getattr(__import__(f"ansible.cli.{module}", fromlist=[name]), name)([program, *words])
    cli.init_parser()
    return cli.parser.parse_args(words)


def check_ansible_playbook(words):
    options = ansible_options("ansible-playbook", words)
    for playbook in options.args:
        known = playbook in PLAYBOOKS or (PROJECT / playbook).exists()
        assert known or all((TUTORIAL / "steps" / step / playbook).exists() for step in STEPS), playbook
    for text in options.extra_vars:
        if text.startswith("@"):
            path = os.path.relpath(text[1:])  # the parser has made it absolute
            assert (PROJECT / path).exists() or (TUTORIAL / "steps" / STEPS[-1] / path).exists()
            continue
        variables = json.loads(text) if text.startswith("{") else dict(each.split("=", 1) for each in shlex.split(text))
        unknown = set(variables) - VARIABLES - PLAYBOOK_VARIABLES - {"demo_repository"}
        assert not unknown, unknown
    assert {tag for text in options.tags for tag in text.split(",")} <= TAGS


def check_ansible_galaxy(words):
    options = ansible_options("ansible-galaxy", words)
    repository = yaml.safe_load((PROJECT / "galaxy.yml").read_text(encoding="utf-8"))["repository"]
    for name in getattr(options, "args", ()):
        assert name.startswith((f"git+{repository}", "flaskfleet.deploy", "./", ".cache/release/flaskfleet-deploy-")), (
            name
        )


def check_make(words):
    for word in words:
        name, equals, _value = word.partition("=")
        assert re.search(rf"\b{name}\b", SCRIPTS) if equals else name in TARGETS, word


def check_flask_app(words):
    assert len(words) >= 2 and re.fullmatch("[a-z][a-z0-9-]*", words[0])


def check_units(words):
    app = next((match[1] for word in words for match in [re.search(r"flask-([a-z]+[0-9]?)", word)] if match), "hello")
    units = UNITS.format(app=app).split()
    identifiers = [each.format(app=app) for each in IDENTIFIERS]
    named = [word for word in words if word.startswith(("flask-", "nginx", "certbot"))]
    for word in named:
        assert word in identifiers or fnmatch.filter(units, word), word


@pytest.mark.parametrize("line", list(command_lines()))
def test_commands_that_pages_show_are_right(line):
    line = re.sub(r"\$\(basename [^)]*\)\"?\)", "1f3a9c02-5d0e1b77", line)  # the live release
    for alternative in re.split(r" && | \|\| ", line):
        words = shlex.split(alternative, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            assert re.search(rf"\b{words.pop(0).partition('=')[0]}\b", SCRIPTS)
        program, *rest = words
        program = program.rpartition("/")[2] if program not in (".",) else program
        for path in OURS.findall(alternative):
            assert path in OUR_FOLDERS, path
        if program.startswith("ansible"):
            check = {"ansible-playbook": check_ansible_playbook, "ansible-galaxy": check_ansible_galaxy}.get(program)
            check(rest) if check else ansible_options(program, rest)
        elif program == "make":
            check_make(rest)
        elif program == "flask-app":
            check_flask_app(rest)
        elif program == "pip":
            assert rest[0] == "install"
        elif program in ("systemctl", "journalctl"):
            check_units(rest)
        else:
            assert program in OTHER_PROGRAMS, f"nobody checks {program}"


def test_playbooks_that_pages_name_are_run_on_test_hosts():
    named = set()
    for page in PAGES:
        named |= (
            set(re.findall(r"flaskfleet\.deploy\.[a-z_]+", (PROJECT / page).read_text(encoding="utf-8")))
            & PLAYBOOKS.keys()
        )
    scenarios = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("molecule", "tests/testinfra")
        for path in (PROJECT / folder).rglob("*")
        if path.suffix in (".py", ".yml")
    )
    run = {
        name
        for name in PLAYBOOKS
        if re.search(rf'{re.escape(name)}\b|(?:playbook=|\()"{name.rpartition(".")[2]}"', scenarios)
    }
    imported = {
        f"flaskfleet.deploy.{name}"
        for playbook in run
        for name in re.findall(r"import_playbook: (\w+)\.yml", PLAYBOOKS[playbook].read_text(encoding="utf-8"))
    }
    assert named <= run | imported
    demo = (PROJECT / "scripts" / "demo").read_text(encoding="utf-8")
    assert "flaskfleet.deploy.site" in demo and "flaskfleet.deploy.status" in demo
