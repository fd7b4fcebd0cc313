# The commands of this checkout; each recipe is one script. "make" alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup hosts demo demo-down picture docs test lint unit sanity oldest molecule torture microblog bench bench-deployments bench-pull release raise-pins

help: ## list the commands
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1 | \2/p' $(MAKEFILE_LIST) | awk -F ' [|] ' '{ printf "make %-18s %s\n", $$1, $$2 }'

setup: ## install what the other commands need: OS packages, a virtual environment
	@scripts/setup

hosts: setup ## make the images of the test hosts, where they are missing or outdated
	@molecule/hosts/build

demo: hosts ## deploy hello and hello2 on both test hosts; DEMO_REPOSITORY=… deploys another repository
	@scripts/demo up

demo-down: setup ## remove the demo
	@scripts/demo down

picture: setup ## draw README's picture from a run of the demo, which has to be there
	@scripts/picture

docs: setup ## the documentation as a site, in .cache/docs/html
	@scripts/docs

test: setup ## all tests: lint, unit, sanity, the documentation's site, the oldest ansible-core, the molecule scenarios on both test hosts, some torture
	@scripts/test lint unit sanity docs oldest molecule torture

lint: setup ## yamllint, ansible-lint, ruff, shellcheck
	@scripts/test lint

unit: setup ## unit tests
	@scripts/test unit

sanity: setup ## ansible-test sanity, with Python 3.9 as well where it is installed
	@scripts/test sanity

oldest: hosts ## unit tests, sanity and a deployment on the oldest supported ansible-core
	@scripts/test oldest

molecule: setup ## the molecule scenarios; SCENARIO=… for one of them
	@scripts/test molecule

torture: hosts ## interrupt and break deployments for hours; TORTURE='--parts kills --kills 20' for a part of it
	@tests/torture/run $(TORTURE)

microblog: setup ## the real Microblog in a browser, from bare machines to an upgrade, a rollback and a restore; REPOSITORY=… for its clone
	@tests/microblog/run $(REPOSITORY)

bench: hosts ## speed, beside a plain playbook and pyinfra; QUICK=1 for a short one
	@benchmarks/run speed $(if $(QUICK),--quick) $(BENCH)

bench-deployments: hosts ## deployments under load, half an hour; BENCH='--deployments 4 --pairs 1' for a quick one
	@benchmarks/run deployments $(BENCH)

bench-pull: hosts ## pulls that change nothing, of one host and of twenty at once
	@benchmarks/run pull $(BENCH)

release: setup ## check everything and make VERSION=…: changelog, version, commit, tag, artefact; TESTS=none without the tests
	@scripts/release "$(VERSION)"

raise-pins: setup ## pin the newest versions of what the environments of this checkout are made of
	@scripts/raise-pins
