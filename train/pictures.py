"""Pictures of a run, each in a PNG file of its own."""

import io
import pathlib

from PIL import Image

from san.jobs import files
from train.sinks import Picture, Sink


class PictureFile(Sink):
    """Keeps the latest picture of a name."""

    def __init__(self, path: pathlib.Path):
        """Prepares to write.

        Args:
          path: of the file, named as the picture is.
        """
        self.path = path
        self.content = path.stem

    def show(self, picture: Picture) -> None:
        """Writes the picture over an older one, if it has the name."""
        if picture.name != self.path.stem:
            return
        png = io.BytesIO()
        Image.fromarray(picture.pixels).save(png, "png")
        files.write_atomically(self.path, png.getbuffer())
