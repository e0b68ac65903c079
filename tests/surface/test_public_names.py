"""The public names of the package: few, lazy, and all there."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import peftide
from peftide.config import TrainSettings
from peftide.errors import UserError

NAMES = """AuditSettings CompareSettings EmbedSettings EvaluateSettings PlanSettings PredictSettings ScreenSettings
    SplitSettings SweepSettings TrainSettings UserError __version__ audit compare demo embed evaluate plan predict
    screen split sweep train"""


def test_the_public_names_are_these() -> None:
    assert sorted(peftide.__all__) == sorted(NAMES.split()) == dir(peftide)
    assert len(peftide.__all__) <= 24


def test_every_public_name_is_there_under_its_own_name() -> None:
    for name in peftide.__all__:
        value = getattr(peftide, name)
        assert name == "__version__" or value.__name__ == name


def test_a_name_is_the_same_object_as_where_it_is_defined() -> None:
    assert peftide.TrainSettings is TrainSettings
    assert peftide.UserError is UserError
    assert peftide.__version__ == version("peftide")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'peftide' has no attribute 'trian'"):
        peftide.trian  # noqa: B018  # type: ignore


def test_importing_the_package_and_its_settings_loads_no_heavy_library() -> None:
    code = """
import sys
import peftide
peftide.TrainSettings, peftide.UserError, peftide.__version__
print(sorted({"torch", "numpy", "transformers", "peft", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
