"""How large a file may be, and the errors for one that cannot be used."""

MAX_PIXELS = 64_000_000  # four times the largest radiograph; decompression bombs claim more
MAX_BYTES = 2**28 + 2**20  # of a volume or DICOM file: 512 x 512 x 512 in 16 bits, and a header


class BadFile(ValueError):
    """One file that cannot be used; the message is only the reason."""


class NoReader(BadFile):
    """A file that may be readable later, so it is not remembered as bad.

    Its reader is not installed, and the message has the command; or the system refused access.
    """
