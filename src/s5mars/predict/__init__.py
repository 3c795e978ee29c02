"""From a numpy image to a class map; from folders of images to maps, overlays and a table."""
