"""Thumbnails of a folder of pictures."""

from pathlib import Path

from celery import shared_task
from celery.utils.log import get_task_logger
from PIL import Image, ImageOps

from jobcast import ProgressTask

# The exceptions that Pillow raises for a broken file, depending on its format and damage.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

logger = get_task_logger(__name__)


@shared_task(base=ProgressTask, bind=True)
def make_thumbnails(
    self: ProgressTask, source: str, target: str, size: int = 128
) -> dict[str, int]:
    """Make a PNG thumbnail of each picture in ``source``, at most ``size`` pixels wide and high."""
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no directory {source}")
    if size < 1:
        raise ValueError(f"the size of a thumbnail should be 1 or more, not {size}")
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    Path(target).mkdir(parents=True, exist_ok=True)

    made = 0
    for path in self.track(paths, message="making thumbnails"):
        try:
            picture = shrink(path, size)
        except UNREADABLE as exc:
            # Any logger works: jobcast publishes the task's log records as lines of its job.
            logger.warning("cannot read %s: %s", path.name, type(exc).__name__)
            continue
        # The name keeps the old suffix: photo.jpg and photo.png are two pictures.
        picture.save(Path(target, f"{path.name}.png"))
        made += 1
    return {"thumbnails": made, "unreadable": len(paths) - made}


def shrink(path: Path, size: int) -> Image.Image:
    with Image.open(path) as picture:
        picture.thumbnail((size, size))
        return ImageOps.exif_transpose(picture).convert("RGBA")
