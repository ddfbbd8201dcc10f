"""Queries of chips, the windows of scenes that samplers draw."""

from torchgeo_msssl.geo.grid import Window


class ChipQuery(tuple[slice, slice, slice]):
    """Slices ``(x, y, t)`` with the scene and window that they are.

    It is accepted wherever TorchGeo takes a query; :class:`~torchgeo_msssl.datasets.Scenes` reads the window itself.

    Attributes:
        scene: Index of the scene in :attr:`~torchgeo_msssl.datasets.Scenes.scenes`.
        window: Window on the grid of that scene.
        positive: Another chip of the same content (another date, or next to it), or None.
    """

    scene: int
    window: Window
    positive: 'ChipQuery | None'

    def __new__(
        cls,
        slices: tuple[slice, slice, slice],
        scene: int = 0,
        window: Window = Window(0, 0, 0, 0),  # noqa: B008 (frozen)
        positive: 'ChipQuery | None' = None,
    ) -> 'ChipQuery':
        """Create a query from slices in the dataset's CRS."""
        query = super().__new__(cls, slices)
        query.scene = scene
        query.window = window
        query.positive = positive
        return query
