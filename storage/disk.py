"""Files written whole or not at all, and safe file names."""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

LONGEST = 100  # most bytes of a name made from a text
RESERVED = ("CON", "PRN", "AUX", "NUL")  # names that Windows reserves
SAVING = "saving-"  # prefix of the names of files that are being written


@contextmanager
def replacing(path):
    """Yields a temporary name for a file or a new folder, which then replaces `path`.

    If writing fails, the temporary file is removed, the old one stays, and the error names the
    file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{SAVING}{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        remove(temporary)


def remove(path):
    """Removes a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path, values):
    """Writes a JSON file under another name, then renames."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def reserve(path, start):
    """Allocates a file's whole length on the disk; zeros from `start` on."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        file.seek(start)
        for at in range(start, size, 2**20):
            file.write(bytes(min(2**20, size - at)))


def remove_left(folder):
    """Removes half-written files of ended processes from a folder."""
    for path in Path(folder).glob("*"):
        own = re.match(rf"{SAVING}(\d+)\.", path.name) or re.search(r"-(\d+)\.part$", path.name)
        if own and int(own[1]) != os.getpid() and not _runs(int(own[1])):
            remove(path)


def _runs(process):
    """Whether a process with this number runs on this machine; True if that is not known."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def file_names(texts) -> list[str]:
    """A safe name of a file or folder for each text; different texts get different names.

    Letters, digits, `=`, `-`, `.` and `_` stay; everything else becomes `_`. If this changes a
    text, if it is too long, or if it differs from another only in case, the beginning of its hash
    is added. So no text from a file can lead out of a folder, be hidden, or overwrite another.
    """
    plain = []
    for text in map(str, texts):
        name = "".join(each if each.isalnum() or each in "=-._" else "_" for each in text)
        name = "_" + name[1:] if name.startswith((".", "-")) or not name else name
        cut = name.encode()[:LONGEST].decode(errors="ignore").rstrip(".")
        plain.append((text, cut or "_"))
    times = Counter(name.casefold() for _, name in plain)
    return [
        name
        if name == text and times[name.casefold()] == 1 and name.upper() not in RESERVED
        else f"{name}-{hashlib.sha256(text.encode(errors='backslashreplace')).hexdigest()[:8]}"
        for text, name in plain
    ]


def file_name(text) -> str:
    """A safe name for one text; see `file_names`."""
    return file_names([text])[0]
