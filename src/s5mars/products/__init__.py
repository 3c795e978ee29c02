"""Reads images and rover products of all formats, with their metadata."""

from s5mars.errors import DamagedFileError
from s5mars.products.files import IMAGE_ENDINGS, PRODUCT_ENDINGS, product_files
from s5mars.products.info import ProductInfo
from s5mars.products.reader import Product, open_product, read_info
from s5mars.products.stretch import Stretch

__all__ = [
    "IMAGE_ENDINGS",
    "PRODUCT_ENDINGS",
    "DamagedFileError",
    "Product",
    "ProductInfo",
    "Stretch",
    "open_product",
    "product_files",
    "read_info",
]
