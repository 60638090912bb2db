"""The kinds of input that the checks know."""

from sktransfer.testing.images import make_images
from sktransfer.testing.samples import MakeSample
from sktransfer.testing.series import make_series
from sktransfer.testing.texts import make_texts

KINDS: dict[str, MakeSample] = {"text": make_texts, "image": make_images, "series": make_series}
