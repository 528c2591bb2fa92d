"""x̂ and SARE maps as PNG files, named by the digest of the image's file, so that no name of a user's makes a path."""

from sare_core.detection.examining import Examined
from sare_core.detection.results import Pictures
from sare_core.images.png import encode_png
from sare_core.store.storage import Store


def with_pictures(store: Store, examined: Examined) -> Examined:
    """The same, with its pictures saved and their paths in its result. Raises ConfigError: nothing can be written."""
    result, why = examined.result, examined.explanation
    if why is None or why.reconstruction is None:
        return examined
    drawn = {"reconstruction": why.reconstruction, **why.maps}
    places = {}
    for name, pixels in drawn.items():
        file = f"{result.sha256}.{name}.png"
        store.write(file, encode_png(pixels))
        places[name] = store.path(file)
    pictures = Pictures(reconstruction=places.pop("reconstruction"), maps=places)
    return examined._replace(result=result.model_copy(update={"pictures": pictures}))
