"""The part in C: pyproject.toml cannot say it yet."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("crew._length", ["src/crew/_length.c"])])
