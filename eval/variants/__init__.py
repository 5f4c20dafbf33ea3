"""Test sets beside ImageNet's own: folders of images and a map of classes."""
