"""Kubernetes' conformance behaviours as scenarios of our own, and the board of which of them hold."""

from pkgutil import iter_modules

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))
