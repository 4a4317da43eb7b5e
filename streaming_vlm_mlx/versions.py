"""Which versions of what are installed."""

import importlib.metadata
import platform

# What a session's result can depend on.
ENGINE = ("svm-tui", "mlx", "numpy", "av")


def installed_version(package: str) -> str | None:
    """Return the version of `package` as it is installed, None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, of this program and of what it computes and decodes with."""
    found = {name: installed_version(name) for name in ENGINE}
    return {"python": platform.python_version()} | {name: number for name, number in found.items() if number}
