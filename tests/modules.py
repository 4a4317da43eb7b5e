"""Programs that belong to no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_module(path: Path, name: str) -> ModuleType:
    """Return what `path` defines, under a `name` of its own: two modules of one file share no state."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for their module.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
