"""From a numpy image to a class map; from folders of images to maps, overlays and a table."""

from s5mars.predict.predictor import Predictor, Segmentation, load

__all__ = ["Predictor", "Segmentation", "load"]
