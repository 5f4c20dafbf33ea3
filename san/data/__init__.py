"""The input: from a folder of images to batches of normalised pixels."""

from san.data.digits import NUM_FOLDS, Digits, write_digits
from san.data.errors import DataError, first_few
from san.data.folder import class_folders, load_folder, load_split
from san.data.index import ImageIndex
from san.data.listing import are_numbers
from san.data.loaders import TrainingLoader, ValidationLoader
from san.data.settings import PREPROCESSING, Data

__all__ = [
    "NUM_FOLDS",
    "PREPROCESSING",
    "Data",
    "DataError",
    "Digits",
    "ImageIndex",
    "TrainingLoader",
    "ValidationLoader",
    "are_numbers",
    "class_folders",
    "first_few",
    "load_folder",
    "load_split",
    "write_digits",
]
