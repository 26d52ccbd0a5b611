"""Print the lower bounds that pyproject.toml states as exact pins, one a line, for pip's -c."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main() -> None:
    """Print `name==version` for each requirement of the package and of its extras for users."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [each for name in ("sklearn", "plot", "onnx") for each in extras[name]]
    runtimes = [each for each in extras["test"] if each.startswith(("duckdb", "onnxruntime"))]
    for requirement in [*project["dependencies"], *wanted, *runtimes]:
        name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
