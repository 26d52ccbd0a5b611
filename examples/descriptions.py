"""Make two Parquet files of what Debian's packages say of themselves, and the section each is in.

    python examples/descriptions.py FOLDER

Needs apt, but neither root nor an installation: the lists of packages are downloaded to FOLDER.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq

HELPER = "/usr/lib/apt/apt-helper"
TESTED = 5  # one source package in so many is for the test, with all that is built from it
SCHEMA = pa.schema([(name, pa.string()) for name in ("title", "body", "section")])


def options(folder: Path) -> list[str]:
    """Return apt's options, by which it keeps to `folder`."""
    said = {
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "en",
        "APT::Architecture": "amd64",
        "Debug::NoLocking": "1",
    }
    return [word for name, value in said.items() for word in ("-o", f"{name}={value}")]


def download(folder: Path) -> None:
    """Download the lists of packages, or leave with one sentence."""
    if not (shutil.which("apt-get") and Path(HELPER).exists()):
        fail(2, "apt is not here, and the lists of packages are Debian's; use make demo instead.")
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    if run(["apt-get", *options(folder), "update"]) is None:
        fail(1, "apt-get could not download the lists of packages: is there a network?")


def stanzas(folder: Path, kind: str) -> Iterator[dict[str, str]]:
    """Yield the entries of the lists of a kind, by field; what is in several lines has all."""
    wanted = ["--format", "$(FILENAME)", f"Created-By: {kind}"]
    files = (run(["apt-get", *options(folder), "indextargets", *wanted]) or "").split()
    for stanza in (run([HELPER, *options(folder), "cat-file", *files]) or "").split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] == " ":
                fields[name] += "\n" + line[1:]
            else:
                name, _, value = line.partition(": ")
                fields[name] = value
        yield fields


def rows(folder: Path) -> Iterator[tuple[bool, dict[str, str]]]:
    """Yield each package once: whether it is for the test, and its row."""
    told = {}
    for stanza in stanzas(folder, "Translations"):
        if "Description-en" in stanza:
            told[stanza["Description-md5"]] = stanza["Description-en"].replace("\n.\n", "\n\n")
    seen = set()
    for stanza in stanzas(folder, "Packages"):
        name, body = stanza.get("Package"), told.get(stanza.get("Description-md5", ""))
        if name is None or body is None or "Section" not in stanza or name in seen:
            continue
        seen.add(name)
        source = stanza.get("Source", name).split()[0]
        section = stanza["Section"].rpartition("/")[2]
        row = {"title": name, "body": body, "section": section}
        yield crc32(source.encode()) % TESTED == 0, row


def write(table: list[dict[str, str]], path: Path) -> None:
    """Write rows, with checksums, under a name that is whole."""
    partial = path.with_suffix(".partial")
    held = pa.Table.from_pylist(table, SCHEMA)
    pq.write_table(held, partial, row_group_size=10_000, write_page_checksum=True)
    partial.replace(path)
    print(f"{path}: {len(table)} descriptions of packages")


def fail(code: int, sentence: str) -> None:
    """Say why there are no data, and leave."""
    print(f"descriptions.py: {sentence}", file=sys.stderr)
    sys.exit(code)


def run(command: list[str]) -> str | None:
    """Return what a command says, or None where it fails."""
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def main(folder: Path) -> None:
    """Write the files, if they are not there yet."""
    paths = {part: folder / f"descriptions-{part}.parquet" for part in ("train", "test")}
    if all(path.exists() for path in paths.values()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    download(folder.resolve() / "debian")
    found = list(rows(folder.resolve() / "debian"))
    if not found:
        fail(1, "the lists of packages have no descriptions: is apt's source a Debian mirror?")
    for part, path in paths.items():
        write([row for is_test, row in found if is_test == (part == "test")], path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/descriptions.py FOLDER")
    main(Path(sys.argv[1]))
