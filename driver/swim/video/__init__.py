"""A video or an image, from whatever the user hands in to the patches that the model reads; and back to a file."""

from typing import Literal, get_args

# Libraries that read video files, see `swim.video.readers`; here, so that help need not import them.
Reader = Literal["pyav", "decord", "torchcodec"]
READERS: tuple[Reader, ...] = get_args(Reader)
