"""Everything public is documented, by numpydoc's own validation."""

import importlib
import inspect

import pytest
from numpydoc.validate import validate

import sktransfer
import sktransfer.inspection
import sktransfer.metrics
import sktransfer.testing

# Style that is not ours: no full stop after one-word types, examples where they show something, long summaries
# in one line, extended summaries only where there is something to add.
IGNORED = {"ES01", "SA01", "EX01", "SS06", "GL01", "GL02", "GL03", "RT02", "SA04", "PR09", "YD01", "RT03"}


DATACLASSES = {
    "sktransfer.backbones.card.Card",
    "sktransfer.caching.interface.CacheInfo",
    "sktransfer.testing.harness.Check",
}


def public_objects():
    for module in (sktransfer, sktransfer.inspection, sktransfer.metrics, sktransfer.testing):
        for name in module.__all__:
            home = getattr(module, name)
            if not (inspect.isclass(home) or inspect.isfunction(home)):
                continue
            yield f"{home.__module__}.{home.__qualname__}"
            if inspect.isclass(home):
                for member, value in vars(home).items():
                    if not member.startswith("_") and inspect.isfunction(value):
                        yield f"{home.__module__}.{home.__qualname__}.{member}"


@pytest.mark.parametrize("path", sorted(set(public_objects())))
def test_docstring_is_valid_numpydoc(path):
    # The fields of a dataclass are its attributes, and documented as such.
    ignored = IGNORED | {"PR01"} if path in DATACLASSES else IGNORED
    errors = [f"{code}: {text}" for code, text in validate(path)["errors"] if code not in ignored]
    assert not errors


def test_every_public_name_can_be_imported():
    for name in sktransfer.__all__:
        assert getattr(sktransfer, name) is not None
        assert name in dir(sktransfer)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        sktransfer.Nothing  # noqa: B018


def test_every_module_says_what_it_knows():
    import pkgutil

    for info in pkgutil.walk_packages(sktransfer.__path__, "sktransfer."):
        if not info.name.endswith("__main__"):
            assert importlib.import_module(info.name).__doc__, info.name
