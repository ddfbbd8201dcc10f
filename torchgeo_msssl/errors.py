"""Exceptions of the package: one root, one subclass for each kind of failure.

Every message is one sentence (or two) that says what was expected, what came, and what to do,
with the path, band, option or shape concerned. The command line prints the message alone.
"""


class MSSSLError(Exception):
    """Root of everything that this package raises on purpose."""


class ConfigurationError(MSSSLError, ValueError):
    """An option is out of its range, or two options contradict each other."""


class ScenesNotFoundError(MSSSLError, FileNotFoundError):
    """No readable scene was found where a path or pattern pointed."""


class MissingCRSError(MSSSLError, ValueError):
    """A scene or a vector file has no coordinate reference system."""


class BandError(MSSSLError, ValueError):
    """Bands were asked for that a scene or a sensor does not have, or cannot be named."""


class SceneReadError(MSSSLError, OSError):
    """A scene could not be read; the message names the file and, where known, the window."""


class EmptyIntersectionError(MSSSLError, IndexError):
    """A query, region or pair of datasets has no place in common."""


class ChipSizeError(MSSSLError, ValueError):
    """The chip is larger than every scene it could be cut from."""


class ValidDataError(MSSSLError, ValueError):
    """No chip has as much valid data as was asked for."""


class OutputError(MSSSLError, OSError):
    """An output folder or file cannot be written."""


class WeightsError(MSSSLError, ValueError):
    """Weights do not fit the network they were to be loaded into, or cannot be read."""


class NonFiniteLossError(MSSSLError, ArithmeticError):
    """The loss became NaN or infinite; the message names the step and the chips."""
