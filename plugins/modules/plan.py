#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Judge the list of apps and derive what the roles need from it
version_added: 0.1.0
description:
  - Reads C(flask_apps) and the other variables of the collection's roles, refuses what cannot be made true, fills in
    defaults, and derives every path, unit name and socket.
  - Runs on the controller alone and touches no host. It is the first task of the roles, which read their data from its
    result.
  - All errors are reported at once, each with the app, the key and what is expected. No value that may be a secret
    appears in them or in the result, which holds the names of secrets only.
options:
  platform:
    description:
      - What differs between distributions.
    type: dict
    default: {}
    suboptions:
      proxy_user:
        description: Account that nginx runs as.
        type: str
      python:
        description: Name of the distribution's own Python executable.
        type: str
      newer_python:
        description: Name of the Python executable to use instead when the distribution's own is too old, else empty.
        type: str
      os_family:
        description: OS family, the fact C(os_family) when not given.
        type: str
      packages:
        description: OS packages that every host needs.
        type: list
        elements: str
      sites_available:
        description: Directory of nginx's sites. No C(site_files) are returned when not given.
        type: str
      sites_enabled:
        description: Directory of the sites that nginx serves, which may be O(platform.sites_available) itself.
        type: str
      default_site:
        description: File of the distribution's own default site.
        type: str
      selinux_module:
        description: File of a module of SELinux's policy. No C(selinux_files) are returned when not given.
        type: str
      ssh_packages:
        description: OS packages that a host needs to reach a repository by ssh.
        type: list
        elements: str
      sockets:
        description: Sockets of the database servers by their engine, directories where the engine wants one.
        type: dict
      service_packages:
        description: OS packages of the database servers by their engine. RV(services) is empty when not given.
        type: dict
      caches:
        description: What each engine of caches has, as C(package), C(program) and C(unit_of_package).
        type: dict
      admin_socket:
        description: HAProxy's runtime socket. RV(balancer) is empty when not given.
        type: str
      renewal_timer:
        description: Unit of systemd that renews certificates by certbot.
        type: str
  rollback:
    description:
      - Whether the plan is for going back to earlier releases. C(flask_app_rollback_to) is refused otherwise.
    type: bool
    default: false
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  action:
    description: Runs as an action plugin on the controller.
    support: full
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
author:
  - flaskfleet.deploy contributors (@flaskfleet)
seealso:
  - module: flaskfleet.deploy.app_build
  - module: flaskfleet.deploy.app_activate
"""

EXAMPLES = r"""
- name: Plan the apps
  flaskfleet.deploy.plan:
    platform:
      proxy_user: www-data
      python: python3
  register: plan

- name: Show where the apps are
  ansible.builtin.debug:
    msg: "{{ plan.apps | map(attribute='url') }}"
"""

RETURN = r"""
apps:
  description:
    - The apps to be present, in the order of the list, only those selected by C(flask_app_only) when that is given.
    - Beside the keys below, C(update) says whether to follow the branch. In Jinja, write C(app['update']).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the app.
      type: str
    domain:
      description: Its host name.
      type: str
    aliases:
      description: Its further host names.
      type: list
      elements: str
    server_names:
      description: Domain, aliases and, unless turned off, C(<host>.<domain>).
      type: list
      elements: str
    url:
      description: Where it is found.
      type: str
      sample: http://hello.example.org/
    repository:
      description: URL of its repository without credentials.
      type: str
    version:
      description: Branch, tag or commit as declared.
      type: str
    allowed_signers:
      description: Lines of an allowed_signers file; empty when nothing has to be signed.
      type: list
      elements: str
    path:
      description: Its folder in the repository.
      type: str
    user:
      description: Account that it runs as.
      type: str
    own_user:
      description: Whether that account is the app's own, made by the collection, and not a stated one.
      type: bool
    directories:
      description: Its directories, as M(flaskfleet.deploy.file_set) takes them.
      type: list
      elements: dict
    entrypoint:
      description: The WSGI callable as C(module:callable).
      type: str
    python:
      description: C(declared), as asked for or empty, and C(executable), the absolute path for this platform.
      type: dict
      sample: {"declared": "3.12", "executable": "/usr/bin/python3.12"}
    requirements:
      description: File with its dependencies, empty when it is to be detected.
      type: str
    extra_packages:
      description: Python packages installed on top.
      type: list
      elements: str
    require_hashes:
      description: Whether all that is installed must have a hash in the repository.
      type: bool
    index_url:
      description: Python package index of its own, empty when it has none.
      type: str
    ca_file:
      description: Certificate authorities of its own, empty when it has none.
      type: str
    system_packages:
      description: OS packages that it needs on this platform.
      type: list
      elements: str
    build_commands:
      description: Commands run in the build.
      type: list
      elements: str
    release_commands:
      description: Commands run once per release.
      type: list
      elements: str
    release_leader:
      description: Inventory name of the host that runs the release commands when it is another one, else empty.
      type: str
    release_hold:
      description:
        - What tells the host that the leader has run the release commands, C(done) and C(marker). Null where the host
          need not wait for that.
      type: dict
    command_timeout:
      description: Seconds that each of its commands may take.
      type: int
    env:
      description: Its environment but for the secrets, all values strings.
      type: dict
    secret_names:
      description: Names of its secrets, sorted.
      type: list
      elements: str
    shared_paths:
      description: Folders that outlive releases.
      type: list
      elements: str
    processes:
      description: What it runs beside the web process, names to dictionaries, complete, C(limits) as below.
      type: dict
    schedules:
      description: What it runs at given times, names to dictionaries, complete.
      type: dict
    jobs:
      description: What a release needs of these, names to dictionaries with C(command) and C(timeout).
      type: dict
    server:
      description: Settings of the server, complete. C(workers) is V(auto) or a number.
      type: dict
    health:
      description: What is asked, as C(path), C(host) and C(scheme), the C(statuses) that count as healthy, codes as
        numbers and classes of them as text, and C(timeout) and C(settle) in seconds.
      type: dict
      sample:
        path: /health
        host: hello.example.org
        scheme: http
        statuses: [204, 3xx]
        timeout: 30
        settle: 5
    static:
      description: Folders that nginx serves itself.
      type: list
      elements: dict
    tls:
      description: Settings of HTTPS, complete.
      type: dict
    site:
      description: Further settings of its site, complete.
      type: dict
    limits:
      description: C(memory_max), C(cpu_quota) and C(tasks_max) as strings, empty when not limited.
      type: dict
    sandbox:
      description: What the sandbox lets through, complete.
      type: dict
    database:
      description: The database that it wants, complete, empty when none. C(host) is empty when it is on the app's host.
      type: dict
    services:
      description: C(urls) of its database and cache by the variable that gets them, each with C(url), without a
        password, and where that comes from; and the C(units) of this host that they need.
      type: dict
    cache:
      description: The cache that it wants, empty when none.
      type: dict
    keep_releases:
      description: Number of releases kept.
      type: int
    build_hash:
      description: Eight hexadecimal digits of what is declared for its build.
      type: str
    configuration_hash:
      description: Eight hexadecimal digits of all that is declared for its release, build included, and of the
        templates. The same on all hosts, and never made of a secret's value.
      type: str
    paths:
      description: C(root), C(repo), C(builds), C(releases), C(current), C(previous), C(data) and C(runtime).
      type: dict
    units:
      description: Names of its units C(service), C(socket), C(live) and C(target), of its C(timers), and the
        C(prefix) of them all.
      type: dict
    upstream_socket:
      description: Socket that nginx connects to.
      type: str
    socket:
      description: Socket of one release, with C({release}) in place of its name.
      type: str
    release_files:
      description: Files in a release's own folder and the templates they are made of.
      type: dict
    templates:
      description: Digest of the templates that its releases run with.
      type: str
    before_switch:
      description: Command run right before a release gets the traffic, empty when none.
      type: str
    after_switch:
      description: Command run right after it, empty when none.
      type: str
sites:
  description:
    - The sites of the apps and those of C(nginx_sites), as the templates of sites see them. C(app) is empty for the
      latter. Beside the keys of the sample, each has the settings that the role documents.
  returned: success
  type: list
  elements: dict
  sample:
    - name: hello
      app: hello
      domain: hello.example.org
      server_names: [hello.example.org, web1.hello.example.org]
      url: http://hello.example.org/
      upstream: flask_hello
      servers: ["unix:/opt/flask_apps/hello/current/web.sock"]
      balancing: round_robin
      root: ''
      redirect: ''
      checked_path: /health
      balancers: [192.0.2.9]
ports:
  description: TCP ports that nginx needs for all sites of the lists.
  returned: success
  type: list
  elements: int
directories:
  description: The directories of the host, as M(flaskfleet.deploy.file_set) takes them.
  returned: always
  type: list
  elements: dict
unit_files:
  description: Units, accounts and directories of the apps, in the shape that M(flaskfleet.deploy.file_set) takes.
  returned: success
  type: list
  elements: dict
calendars:
  description: Calendar events of the apps' schedules, each behind what it belongs to, for the host to judge.
  returned: success
  type: list
  elements: str
site_files:
  description: Sites of nginx, in the shape that M(flaskfleet.deploy.file_set) takes.
  returned: success
  type: list
  elements: dict
acme:
  description:
    - Certificates that an authority issues, as the options of M(flaskfleet.deploy.acme_certificates). C(wanted) says
      whether any app or site has one, those that are not selected included.
  returned: success
  type: dict
renewal_files:
  description: What renewals of them take, in the shape that M(flaskfleet.deploy.file_set) takes.
  returned: success
  type: list
  elements: dict
selinux_files:
  description: Module of the policy of SELinux, in the shape that M(flaskfleet.deploy.file_set) takes.
  returned: success
  type: list
  elements: dict
services:
  description: What the role backing_service makes on this host, for its apps and others'; empty for other roles.
  returned: success
  type: dict
balancer:
  description: What the role load_balancer makes on this host, as C(backends) with their servers, the C(files) as
    M(flaskfleet.deploy.file_set) takes them and the settings that they are made of; empty for other roles.
  returned: success
  type: dict
balancers:
  description: The addresses of the balancers in front of the sites, by inventory name.
  returned: success
  type: dict
passwords:
  description: Other hosts that keep passwords of the apps' databases, each with C(host) and C(names).
  returned: success
  type: list
  elements: dict
packages:
  description: OS packages that the host and the present apps need, sorted.
  returned: success
  type: list
  elements: str
interpreters:
  description: Versions of Python that apps ask for, as M(flaskfleet.deploy.packages) takes them.
  returned: success
  type: list
  elements: dict
declared:
  description: Names of all apps of the list, those that are not selected included.
  returned: success
  type: list
  elements: str
declared_sites:
  description: RV(declared), and the names of C(nginx_sites).
  returned: success
  type: list
  elements: str
absent:
  description: Names of the selected apps that are to be removed.
  returned: success
  type: list
  elements: str
unselected:
  description: Names of the apps of the list that are not selected.
  returned: success
  type: list
  elements: str
rollback:
  description: O(rollback).
  returned: success
  type: bool
rollback_to:
  description: What each app is to go back to, empty for its previous good release. Without O(rollback) it is empty.
  returned: success
  type: dict
hooks:
  description: The user's files of tasks by name of the hook, as absolute paths; empty where none.
  returned: success
  type: dict
proxy_user:
  description: Account that nginx runs as.
  returned: success
  type: str
settings:
  description: Variables of the role that hold for all apps, named without their prefix C(flask_app_).
  returned: success
  type: dict
"""
