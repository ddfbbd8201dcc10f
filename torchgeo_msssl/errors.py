"""Exceptions of the package: one root, one subclass for each kind of failure.

Every message states in one or two sentences what was expected, what was found, and how to fix it, with the path, band,
option or shape. The command line prints only the message.
"""


class MSSSLError(Exception):
    """Root of all exceptions that this package raises."""


class ConfigurationError(MSSSLError, ValueError):
    """An option is out of range, or options contradict each other."""


class ScenesNotFoundError(MSSSLError, FileNotFoundError):
    """No readable scene exists at a path or pattern."""


class MissingCRSError(MSSSLError, ValueError):
    """A scene or a vector file has no coordinate reference system."""


class BandError(MSSSLError, ValueError):
    """A scene or sensor lacks requested bands, or bands cannot be named."""


class SceneReadError(MSSSLError, OSError):
    """A scene cannot be read; the message names the file and, if known, the window."""


class EmptyIntersectionError(MSSSLError, IndexError):
    """A query, region or pair of datasets does not overlap."""


class ChipSizeError(MSSSLError, ValueError):
    """The chip is larger than every scene."""


class ValidDataError(MSSSLError, ValueError):
    """No chip has the requested fraction of valid data."""


class OutputError(MSSSLError, OSError):
    """An output folder or file cannot be written."""


class WeightsError(MSSSLError, ValueError):
    """Weights do not fit the network, or cannot be read."""


class NonFiniteLossError(MSSSLError, ArithmeticError):
    """The loss is NaN or infinite; the message names the step and the chips."""
